"""Segments of runs whose journal is read by position: what is told of each attempt, and how they hang together."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from mai import NonBlockingDelay, TraceHandle, module, wait_for
from mai.core.frame import ROOT, Frame
from mai.core.trace import open_handle
from mai.durable.code import Codes
from mai.durable.restate.carry import Carried, Ended
from mai.durable.restate.mail import letter, promise_of
from mai.durable.restate.segment import RestateSegment
from tests.durable.conformance import CASES, add, boom, double, put_back
from tests.durable.restate.paper import Crash, Paper, PaperCommands, PaperEngine
from tests.laws.test_segments import is_told
from tests.support import recorded_spans, simulate, simulated

TRACE = "0af7651916cd43dd8448eb211c80319c"
BEGUN = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


class Attempts:
    """One run, carried on in attempts, each with a handle of its own."""

    def __init__(self, m: Any, x: Any, headers: dict[str, str] | None = None) -> None:
        self.m, self.paper, self.headers = m, Paper(), headers or {}
        m._mai_spec or m._mai_compile()
        signature = m._mai_spec.signature
        self.data = signature.dump(*signature.bind((x,), {}, {}, None))
        self.engine = PaperEngine()
        self.handle: TraceHandle[Any] = TraceHandle()

    async def one(self, lasts: int | None = None) -> tuple[Ended | None, list[ReadableSpan]]:
        """Carry it on until *lasts* more things are on record, or to its end; return that, and the spans."""
        shell = Frame()
        shell.key, shell.n, shell.parent = f"/{self.m._mai_spec.what[0]}", 0, ROOT
        self.handle = open_handle(shell, None, self.m._mai_spec)
        commands, ended = PaperCommands(self.paper, lasts), None
        with recorded_spans() as found:
            async with self.engine:
                code, seen = Codes().add(self.m), (ROOT.env, self.handle)
                carried = Carried(self.engine, code, "r", self.data, self.headers, seen)  # type: ignore[arg-type]
                try:
                    ended = await carried.out(commands)
                except Crash:
                    pass
                finally:
                    await commands.close()
            return ended, list(found.get_finished_spans())


def told(spans: list[ReadableSpan]) -> list[str]:
    """Return the step ids of spans, in the order in which they ended."""
    return [str((span.attributes or {})["mai.step.id"]) for span in spans]


def root_of(spans: list[ReadableSpan]) -> ReadableSpan:
    (root,) = [span for span in spans if "mai.run.segment" in (span.attributes or {})]
    return root


def below(spans: list[ReadableSpan]) -> dict[int, list[ReadableSpan]]:
    found: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        if span.parent is not None:
            found.setdefault(span.parent.span_id, []).append(span)
    return found


def of_span(span: ReadableSpan, children: dict[int, list[ReadableSpan]]) -> Any:
    """Step ids, outcomes and ids of a span and of all below it."""
    facts, own = span.attributes or {}, span.context.span_id
    told = f"{facts['mai.step.id']} {facts.get('mai.outcome', 'ok')} {own:016x}"
    return told, sorted(of_span(child, children) for child in children.get(own, []))


def of_handle(h: TraceHandle[Any]) -> Any:
    """The same of a handle, without what was only repeated."""
    return f"{h.step_id} {h.outcome} {h.span_id}", sorted(of_handle(child) for child in h.children if is_told(child))


@pytest.mark.slow
@settings(max_examples=80)
@given(case=st.sampled_from(sorted(set(CASES) - {"an undo"})), lasts=st.lists(st.integers(1, 5), max_size=12))
def test_the_spans_of_an_attempt_are_the_handles_of_what_is_new_in_it(case: str, lasts: list[int]) -> None:
    async def main() -> None:
        attempts, before = Attempts(*CASES[case]), list[ReadableSpan]()
        for many in [*lasts, None]:
            ended, spans = await attempts.one(many)
            h = attempts.handle
            if spans:
                root = root_of(spans)
                assert of_span(root, below(spans)) == of_handle(h)
                assert len(spans) == sum(is_told(one) for one in h.walk())
                facts = root.attributes or {}
                assert facts["mai.run.id"] == "r"
                assert facts["mai.run.segment"] == h.attributes["mai.run.segment"]
                for link in root.links:
                    assert link.context.span_id in [earlier.context.span_id for earlier in before]
                before.append(root)
            if ended is not None:
                break

    simulate(main)


waits = ((add >> add).with_(name="first") >> NonBlockingDelay(1000.0) >> (double >> add).with_(name="then")).with_(
    name="waits"
)


@simulated
async def test_a_run_that_waits_is_told_in_segments_that_are_linked() -> None:
    attempts = Attempts(waits, 1, BEGUN)
    _, spans = await attempts.one(2)
    first = root_of(spans)
    assert told(spans) == ["waits/first/add", "waits/first/add~2", "waits/first", "waits/NonBlockingDelay", "waits"]
    assert attempts.handle.outcome == "suspended"
    ended, spans = await attempts.one()
    second = root_of(spans)
    assert ended is not None
    assert told(spans) == ["waits/NonBlockingDelay", "waits/then/double", "waits/then/add", "waits/then", "waits"]
    facts = [dict(one.attributes or {}) for one in (first, second)]
    assert [one["mai.run.segment"] for one in facts] == [1, 2]
    assert "mai.replay.steps" not in facts[0]
    assert facts[1]["mai.replay.steps"] == 2
    assert [one.outcome for one in attempts.handle.children] == ["replayed", "ok", "ok"]
    for root in (first, second):
        assert root.parent is not None
        assert f"{root.parent.trace_id:032x}" == TRACE
    (link,) = second.links
    assert (dict(link.attributes or {}), link.context.span_id) == ({"mai.link": "resumed_from"}, first.context.span_id)
    assert attempts.handle.links[0].span_id == f"{first.context.span_id:016x}"


@simulated
async def test_each_segment_is_linked_to_the_one_before_and_counted() -> None:
    attempts = Attempts((add >> add >> add >> add).with_(name="four"), 1)
    roots = [root_of((await attempts.one(lasts))[1]) for lasts in (1, 1, 1, None)]
    assert [(one.attributes or {})["mai.run.segment"] for one in roots] == [1, 2, 3, 4]
    assert [[link.context.span_id for link in one.links] for one in roots[1:]] == [
        [one.context.span_id] for one in roots[:-1]
    ]
    assert len({one.context.trace_id for one in roots}) == 4, "begun outside of a trace each is one of its own"


@simulated
async def test_what_is_only_repeated_does_not_begin_again_and_is_marked_also_where_nothing_is_traced() -> None:
    flow = (add >> boom).with_(name="fails", fallback=double)
    attempts = Attempts((flow >> NonBlockingDelay(1000.0) >> add).with_(name="whole"), 1)
    await attempts.one(4)
    await attempts.one()
    marks = [(one.name, one.outcome, one.attributes.get("mai.replayed")) for one in attempts.handle.walk()]
    assert marks == [
        ("whole", "ok", None), ("fails", "replayed", None), ("attempt", "error", True), ("add", "replayed", None),
        ("boom", "error", True), ("double", "replayed", None), ("NonBlockingDelay", "ok", None), ("add", "ok", None),
    ]  # fmt: skip


@simulated
async def test_an_attempt_in_which_nothing_begins_has_no_span() -> None:
    attempts = Attempts(waits, 1)
    await attempts.one(2)
    attempts.paper.attempts = 0
    _, spans = await attempts.one(0)
    assert spans == []


@simulated
async def test_a_signal_counts_as_new_in_the_segment_in_which_it_comes() -> None:
    @module(flow=True)
    async def inner(n: int) -> int:
        return await wait_for("go", int) + n

    attempts = Attempts((add >> inner >> add).with_(name="outer"), 1)
    _, spans = await attempts.one(1)
    assert told(spans) == ["outer/add", "outer/inner", "outer"]
    attempts.paper.send(promise_of("go", 0), letter(5, None))
    _, spans = await attempts.one()
    assert told(spans) == ["outer/inner", "outer/add~2", "outer"]


@simulated
async def test_what_takes_steps_back_is_told_once_with_the_id_of_the_run() -> None:
    steps = add.with_(undo=put_back) >> double.with_(undo=put_back) >> boom
    attempts, found = Attempts(steps.with_(name="taken"), 1), list[ReadableSpan]()
    ended = None
    while ended is None:
        ended, spans = await attempts.one(1)
        found += [one for one in spans if one.name == "put_back"]
    assert told(found) == ["taken/double!undo", "taken/add!undo"]
    assert [((one.attributes or {})["mai.run.id"], one.parent) for one in found] == [("r", None)] * 2


def test_the_first_entry_alone_says_where_a_segment_is() -> None:
    segment = RestateSegment(TraceHandle(), is_flow=True)
    assert segment.mark() is None
    segment.repeated("3 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    segment.repeated(None)
    assert segment.repeats == 2
