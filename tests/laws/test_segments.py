"""Random trees under a durable engine: the spans of a segment are the handles of what was not only repeated in it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mai import TraceHandle
from mai.durable import DurableEngine, MemoryJournal
from tests.durable.benches import Crash, Mortal
from tests.support import simulate

from .test_durable import CRASHES, KINDS, made
from .test_spans import of_span, recorded
from .trees import World, trees

RETRIES, LINGERS = st.integers(1, 3), st.sampled_from([0.0, 1.0])


def is_told(h: TraceHandle[Any]) -> bool:
    """Say whether a call has a span: it did something new."""
    return h.outcome != "replayed" and "mai.replayed" not in h.attributes


def of_told(h: TraceHandle[Any]) -> Any:
    """The names, outcomes and ids of a handle and of all below it that have spans."""
    below = sorted(of_told(child) for child in h.children if is_told(child))
    return h.name, f"{h.step_id} {h.outcome} {h.span_id}", tuple(below)


class Watched:
    """A journal of a process in which *seen* is called when a segment is over: its run is given back, or has ended."""

    def __init__(self, journal: Any, seen: Callable[[], None]) -> None:
        self.journal, self.seen = journal, seen

    def __getattr__(self, name: str) -> Any:
        if name in ("release", "finish") and not self.journal.dead:
            self.seen()
        return getattr(self.journal, name)


class Lives:
    """The processes that carry on one run, and what they tell."""

    def __init__(self, module: Any, found: InMemorySpanExporter) -> None:
        self.module, self.found = module, found
        self.journal = MemoryJournal()
        self.handle: Any = None
        self.done: set[str] = set()  # steps on record when the segment began
        self.roots: list[ReadableSpan] = []
        self.clean = False  # the segment before was left, not lost
        self.wrong: list[Exception] = []  # what is raised in an engine is the business of the run

    async def life(self, at: int, *, after: bool, linger: float) -> bool:
        """Let a process carry the run on until it ends (True), or until it is killed at write *at*."""
        mortal = Mortal(self.journal, at=at, after=after)
        owner = ""
        await self.begin()
        with suppress(Crash, Exception):
            async with DurableEngine(Watched(mortal, self.over), linger=linger) as engine:
                owner = engine.owner
                self.handle = engine.start(self.module, 1, run_id="r")
                with suppress(Exception):
                    await self.handle
        if self.wrong:
            raise self.wrong[0]
        if mortal.dead:
            self.journal.lose(owner)
            self.told()
            self.clean = False
        return not mortal.dead

    async def begin(self) -> None:
        self.found.clear()
        known = await self.journal.run("r")
        history = [] if known is None else await self.journal.history("r")
        self.done = {one.path for one in history if one.kind == "step"}

    def told(self) -> tuple[ReadableSpan, ...]:
        """Return the spans of the segment, none of which is of a step that was done before."""
        spans = self.found.get_finished_spans()
        assert self.done.isdisjoint(str((span.attributes or {})["mai.step.id"]) for span in spans)
        return spans

    def over(self) -> None:
        """Look at a segment that is over."""
        try:
            self.compare()
        except Exception as error:  # noqa: BLE001 (raised when the run has ended)
            self.wrong.append(error)
        self.found.clear()
        self.done |= {one for one, record in self.journal._records["r"].items() if record.kind == "step"}
        self.clean = True

    def compare(self) -> None:
        """Compare the spans of a segment with its handles."""
        h, spans = self.handle, self.told()
        for one in h.walk():
            assert one.outcome != "running"
            if one.kind == "sequential" and one.parent is not None:
                assert is_told(one) == any(map(is_told, one.children))
        if is_told(h):
            below: dict[int, list[ReadableSpan]] = {}
            for span in spans:
                if span.parent is not None:
                    below.setdefault(span.parent.span_id, []).append(span)
            (root,) = [span for span in spans if f"{span.context.span_id:016x}" == h.span_id]
            assert of_span(root, below) == of_told(h)
            assert len(spans) == sum(is_told(one) for one in h.walk())
            self.linked(root)
        else:
            assert not spans

    def linked(self, root: ReadableSpan) -> None:
        """See that a root is linked to the one before, and below it if that was left."""
        facts, h = root.attributes or {}, self.handle
        assert facts["mai.run.id"] == "r"
        assert facts["mai.run.segment"] == h.attributes["mai.run.segment"] == self.journal._runs["r"].epoch
        assert len(root.links) == len(h.links) <= 1
        for link, told in zip(root.links, h.links, strict=True):
            assert (link.attributes or {})["mai.link"] == told.relation == "resumed_from"
            assert f"{link.context.span_id:016x}" == told.span_id
            assert (root.parent is not None) == self.clean
        if self.clean:
            assert root.parent is not None
            assert root.parent.span_id == self.roots[-1].context.span_id == root.links[0].context.span_id
            assert root.context.trace_id == self.roots[-1].context.trace_id
        self.roots.append(root)


@pytest.mark.slow
@given(trees(KINDS), CRASHES, RETRIES, LINGERS, st.booleans())
def test_the_spans_of_a_segment_are_the_handles_of_what_is_new_in_it(
    tree: Any, crashes: Any, attempts: int, linger: float, light: bool
) -> None:
    with recorded(light=light) as found:

        async def main() -> None:
            lives = Lives(made(tree, World(named=True)).with_(retry=attempts), found)
            for at, after in [*crashes, (-1, False)]:
                if await lives.life(at, after=after, linger=linger):
                    break

        simulate(main)
