"""Random trees of modules: the spans are the handles, one for one, whatever fails, is retried or is dropped."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mai import TraceHandle, capture
from mai.telemetry import configure, shutdown
from tests.support import recorded_spans

from .simulation import simulate
from .test_trees import SEEDS
from .trees import Kinds, Seq, Step, Wait, World, build, numbered, trees

KINDS = Kinds(
    endings=("return", "return", "raise", "fail", "swallow"),
    timeouts=(None, None, None, 0.5, 1.5),
    seconds=(0.0, 0.0, 1.0, 2.0),
)

Shape = tuple[str, str, tuple[Any, ...]]


def of_handle(h: TraceHandle[Any]) -> Shape:
    """The names, outcomes and ids of a handle and all below it."""
    return (h.name, f"{h.step_id} {h.outcome} {h.span_id}", tuple(sorted(map(of_handle, h.children))))


def of_span(span: ReadableSpan, below: dict[int, list[ReadableSpan]]) -> Shape:
    """The same of a span."""
    facts = span.attributes or {}
    told = f"{facts['mai.step.id']} {facts.get('mai.outcome', 'ok')} {span.context.span_id:016x}"
    return (span.name, told, tuple(sorted(of_span(child, below) for child in below.get(span.context.span_id, []))))


def isomorphic(found: InMemorySpanExporter, runs: list[TraceHandle[Any]]) -> None:
    spans = found.get_finished_spans()
    below: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        if span.parent is not None:
            below.setdefault(span.parent.span_id, []).append(span)
    (root,) = [span for span in spans if span.parent is None]
    (handle,) = runs
    assert not any(h.dropped for h in handle.walk())
    assert of_span(root, below) == of_handle(handle)
    assert len({span.context.trace_id for span in spans}) == 1
    assert Counter(span.context.span_id for span in spans).most_common(1)[0][1] == 1
    by_id = {f"{span.context.span_id:016x}": span for span in spans}
    for h in handle.walk():
        span = by_id[h.span_id or ""]
        failed = h.outcome in ("error", "timeout")
        assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
        facts = span.attributes or {}
        assert facts.get("error.type") == (None if h.error is None else h.error.type)
        assert {key: facts.get(key) for key in h.attributes} == dict(h.attributes)
        assert facts.get("mai.output.size") == h.output_size
        assert h.outcome == "ok" or h.output_size is None


@contextmanager
def recorded(*, light: bool) -> Iterator[InMemorySpanExporter]:
    """Collect spans: those of the SDK, or light ones."""
    if not light:
        with recorded_spans() as found:
            yield found
        return
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False)
    try:
        yield found
    finally:
        shutdown()


def run(tree: Any, seed: int, attempts: int, moment: float | None) -> list[TraceHandle[Any]]:
    """Run the tree, with retries outside, cancel it at some moment, and return its handle."""
    runs: list[TraceHandle[Any]] = []

    async def main() -> None:
        task: Any = asyncio.current_task()
        cancel = None if moment is None else asyncio.get_running_loop().call_later(moment, task.cancel)
        with capture() as trace, suppress(Exception, asyncio.CancelledError):
            await build(tree, World(named=True)).with_(retry=attempts)(3)
        if cancel is not None:
            cancel.cancel()
        runs.extend(trace.runs)

    simulate(main, seed)
    return runs


@example(numbered(Seq((Step("async", (Wait(2.0),), "swallow"),))), 0, 1, 1.0, True)
@example(numbered(Seq((Step("async", (Wait(2.0),), "swallow", timeout=1.5),))), 0, 1, None, True)
@given(trees(KINDS), SEEDS, st.integers(1, 3), st.none() | st.sampled_from([0.0, 1.0, 2.5]), st.booleans())
def test_the_spans_of_a_run_are_its_handles(
    tree: Any, seed: int, attempts: int, moment: float | None, light: bool
) -> None:
    with recorded(light=light) as found:
        isomorphic(found, run(tree, seed, attempts, moment))
