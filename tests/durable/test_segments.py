"""The segments of a durable run in spans and handles: what is told of each, and how they hang together."""

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision

from mai import Context, NonBlockingDelay, Parallel, module, wait_for
from mai.core.spans import telemetry
from mai.durable import DurableEngine
from mai.telemetry.content import record
from mai.types import TraceLink
from tests.durable.benches import MemoryBench
from tests.support import recorded_spans, simulated

tracer = trace.get_tracer("user")


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


@module
async def add(n: int) -> int:
    return n + 1


@module
async def double(n: int) -> int:
    return 2 * n


@module
async def broken(n: int) -> int:
    raise LookupError("nothing left")


WEEK = 7 * 86400.0
waits = ((add >> add).with_(name="first") >> NonBlockingDelay(WEEK) >> (double >> add).with_(name="then")).with_(
    name="waits"
)


def told(spans: Any) -> dict[str, str]:
    """Return the outcomes of spans by their step ids, in the order in which they ended."""
    return {span.attributes["mai.step.id"]: span.attributes.get("mai.outcome", "ok") for span in spans}


def root_of(spans: Any) -> ReadableSpan:
    (root,) = [span for span in spans if "mai.run.id" in span.attributes]
    return root  # type: ignore[no-any-return]


async def until(engine: DurableEngine, status: str) -> None:
    while (await engine.info("r")).status != status:
        await asyncio.sleep(0.5)


@simulated
async def test_a_run_that_waits_is_told_in_segments_below_each_other(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        async with bench.engine() as engine:
            handle = engine.start(waits, 1, run_id="r")
            await until(engine, "waiting")
            first, spans = root_of(found.get_finished_spans()), told(found.get_finished_spans())
            assert list(spans) == [
                "waits/first/add", "waits/first/add~2", "waits/first", "waits/NonBlockingDelay", "waits",
            ]  # fmt: skip
            assert [step for step, outcome in spans.items() if outcome != "ok"] == ["waits/NonBlockingDelay", "waits"]
            assert spans["waits"] == handle.outcome == "suspended"
            assert handle.attributes["mai.run.segment"] == 1
            assert handle.duration is not None
            found.clear()
            assert await handle == 7
    second, spans = root_of(found.get_finished_spans()), told(found.get_finished_spans())
    assert spans == dict.fromkeys(
        ["waits/NonBlockingDelay", "waits/then/double", "waits/then/add", "waits/then", "waits"], "ok"
    )
    assert (first.attributes or {})["mai.run.segment"] == 1
    assert "mai.replay.steps" not in (first.attributes or {})
    facts = second.attributes or {}
    assert (facts["mai.run.id"], facts["mai.run.segment"], facts["mai.replay.steps"]) == ("r", 2, 2)
    assert second.parent is not None
    assert (second.parent.trace_id, second.parent.span_id) == (first.context.trace_id, first.context.span_id)
    (link,) = second.links
    assert (dict(link.attributes or {}), link.context.span_id) == ({"mai.link": "resumed_from"}, first.context.span_id)
    ids = f"{first.context.trace_id:032x}", f"{first.context.span_id:016x}"
    assert handle.links == (TraceLink("resumed_from", *ids),)
    assert [child.outcome for child in handle.children] == ["replayed", "ok", "ok"]


@simulated
async def test_after_a_crash_a_new_trace_begins_with_a_link(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        await bench.killed(add >> double >> add, 1, "r", 2, after=True)
        lost = root_of(found.get_finished_spans())
        found.clear()
        outcome = await bench.killed(add >> double >> add, 1, "r", -1)
    assert outcome is not None
    assert outcome.value == 5
    root = root_of(found.get_finished_spans())
    assert list(told(found.get_finished_spans())) == ["Sequential/add~2", "Sequential"]
    assert root.parent is None
    assert root.context.trace_id != lost.context.trace_id
    (link,) = root.links
    assert (link.context.trace_id, link.context.span_id) == (lost.context.trace_id, lost.context.span_id)
    facts = root.attributes or {}
    assert (facts["mai.run.segment"], facts["mai.replay.steps"]) == (2, 2)


@simulated
async def test_a_run_inside_a_span_of_the_user_begins_below_it(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        async with bench.engine() as engine:
            with tracer.start_as_current_span("request") as request:
                assert await engine.start(add >> add, 1, run_id="r") == 3
    root = root_of(span for span in found.get_finished_spans() if span.name != "request")
    assert root.parent is not None
    assert root.parent.span_id == request.get_span_context().span_id
    assert not root.links


@simulated
async def test_a_fork_is_a_trace_of_its_own_with_a_link_to_what_it_repeats(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        async with bench.engine() as engine:
            assert await engine.start(add >> double >> add, 1, run_id="r") == 5
            source = root_of(found.get_finished_spans())
            found.clear()
            forked = await engine.fork("r", at="Sequential/double", new_id="other")
            assert await forked == 5
    root = root_of(found.get_finished_spans())
    assert root.parent is None
    assert [((link.attributes or {})["mai.link"], link.context.span_id) for link in root.links] == [
        ("replayed_from", source.context.span_id)
    ]
    assert (root.attributes or {})["mai.run.id"] == "other"
    assert forked.links[0].relation == "replayed_from"


@simulated
async def test_the_segments_of_a_run_that_is_not_sampled_are_not_either(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        with recorded_spans(Decision.DROP):
            handle = engine.start(waits, 1, run_id="r")
            await until(engine, "waiting")
        marks = [one.path for one in await bench.journal.history("r") if one.path.startswith("!")]
        assert marks == ["!segment/r/1"]
        assert [one.path for one in await engine.history("r")][:2] == ["waits/first/add", "waits/first/add~2"]
        assert not [one for one in await engine.history("r") if one.path.startswith("!")]
        assert await handle == 7
        assert handle.links[0].relation == "resumed_from"
        assert handle.trace_id is None


@simulated
async def test_what_is_only_repeated_is_marked_also_where_nothing_is_traced(bench: MemoryBench) -> None:
    flow = (add >> broken).with_(name="fails", fallback=double)
    whole = (flow >> NonBlockingDelay(WEEK) >> add).with_(name="whole")
    async with bench.engine() as engine:
        handle = engine.start(whole, 1, run_id="r")
        seen = [type(event).__name__ async for event in handle]
        assert await handle == 3
    marks = [(one.name, one.outcome, one.attributes.get("mai.replayed")) for one in handle.walk()]
    assert marks == [
        ("whole", "ok", None), ("fails", "replayed", None), ("attempt", "error", True), ("add", "replayed", None),
        ("broken", "error", True), ("double", "replayed", None), ("NonBlockingDelay", "ok", None), ("add", "ok", None),
    ]  # fmt: skip
    assert seen.count("Started") == 9, "what is repeated does not begin again"


@simulated
async def test_a_step_that_was_cut_off_before_does_not_begin_again(bench: MemoryBench) -> None:
    @module
    async def slow(n: int) -> int:
        await asyncio.sleep(1)
        return n

    @module(flow=True)
    async def outer(n: int) -> int:
        try:
            await Parallel(slow, broken)(n)
        except LookupError:
            await NonBlockingDelay(WEEK)(n)
        return await add(n)

    with recorded_spans() as found:
        async with bench.engine() as engine:
            handle = engine.start(outer, 1, run_id="r")
            await until(engine, "waiting")
            assert told(found.get_finished_spans())["outer/Parallel[0]/slow"] == "cancelled"
            found.clear()
            assert await handle == 2
    assert list(told(found.get_finished_spans())) == ["outer/NonBlockingDelay", "outer/add", "outer"]
    marks = [(one.outcome, one.attributes.get("mai.replayed")) for one in handle.children[0].walk()]
    assert marks == [("error", True), ("cancelled", True), ("error", True)]


@simulated
async def test_what_a_flow_writes_into_its_span_while_it_is_repeated_is_kept_for_it(bench: MemoryBench) -> None:
    @module(flow=True)
    async def writes(n: int) -> int:
        span: Any = Context.get().span
        assert span.is_recording()
        span.set_attribute("a", n)
        span.set_attributes({"b": n})
        n = await add(n)
        span.add_event("added")
        span.add_link(other, {"c": 1})
        span.update_name("renamed")
        span.record_exception(KeyError("handled"))
        span.set_status(trace.StatusCode.OK)
        n = await wait_for("go", int) + n
        span.set_attribute("d", n)
        return n

    with recorded_spans() as found:
        with tracer.start_as_current_span("other") as one:
            other = one.get_span_context()
        async with bench.engine() as engine:
            handle = engine.start((writes >> add).with_(name="outer"), 1, run_id="r")
            await until(engine, "waiting")
            found.clear()
            await engine.signal("r", "go", 5)
            assert await handle == 8
    (span,) = [one for one in found.get_finished_spans() if one.attributes["mai.step.id"] == "outer/writes"]
    assert span.name == "renamed"
    assert [span.attributes[key] for key in ("a", "b", "d")] == [1, 1, 7]
    assert [event.name for event in span.events][:2] == ["added", "exception"]
    assert span.links[0].context == other
    assert span.status.status_code is trace.StatusCode.OK


@simulated
async def test_a_span_that_a_repeated_flow_opens_has_its_flow_for_a_parent(bench: MemoryBench) -> None:
    @module(flow=True)
    async def opens(n: int) -> int:
        with tracer.start_as_current_span("mine"):
            return await add(n)

    with recorded_spans() as found:
        async with bench.engine() as engine:
            handle = engine.start((opens >> NonBlockingDelay(WEEK) >> add).with_(name="outer"), 1, run_id="r")
            await until(engine, "waiting")
            found.clear()
            assert await handle == 3
    names = {span.context.span_id: span.name for span in found.get_finished_spans()}
    (mine,) = [span for span in found.get_finished_spans() if span.name == "mine"]
    assert mine.parent is not None
    assert names[mine.parent.span_id] == "opens"
    assert handle.find("opens")[0].outcome == "ok"


@simulated
async def test_a_flow_that_refuses_its_arguments_while_the_past_is_repeated_is_told_once(bench: MemoryBench) -> None:
    @module
    async def text(n: int) -> Any:
        return "no number"

    @module(flow=True)
    async def outer(n: int) -> int:
        try:
            await (add >> add).with_(name="inner", flow=True)(await text(n))
        except Exception:  # noqa: BLE001 (that is what is looked at)
            await NonBlockingDelay(WEEK)(n)
        return await add(n)

    with recorded_spans() as found:
        async with bench.engine() as engine:
            handle = engine.start(outer, 1, run_id="r")
            await until(engine, "waiting")
            found.clear()
            assert await handle == 2
    assert "outer/inner" not in told(found.get_finished_spans())


@simulated
async def test_inputs_and_outputs_of_steps_and_flows_are_in_their_spans_if_asked_for(
    bench: MemoryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "record", record)
    with recorded_spans() as found:
        async with bench.engine() as engine:
            assert await engine.start(add >> double, 1, run_id="r") == 4
    facts = {span.name: (span.attributes["input.value"], span.attributes["output.value"]) for span in
             found.get_finished_spans()}  # fmt: skip
    assert facts == {"add": ("1", "2"), "double": ("2", "4"), "Sequential": ("1", "4")}


@simulated
async def test_a_run_that_is_one_step_tells_its_segment(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        async with bench.engine() as engine:
            assert await engine.start(add, 1, run_id="r") == 2
    assert (root_of(found.get_finished_spans()).attributes or {})["mai.run.segment"] == 1


@simulated
async def test_what_takes_a_step_back_is_a_trace_of_its_own_with_the_id_of_the_run(bench: MemoryBench) -> None:
    with recorded_spans() as found:
        async with bench.engine() as engine:
            with pytest.raises(LookupError):
                await engine.start(add.with_(undo=double) >> broken, 1, run_id="r")
    (undone,) = [span for span in found.get_finished_spans() if span.name == "double"]
    assert undone.parent is None
    assert (undone.attributes or {})["mai.step.id"] == "Sequential/add!undo"
    assert (undone.attributes or {})["mai.run.id"] == "r"
