"""Random trees of modules: the spans are the handles, one for one, whatever fails, is retried or is dropped."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mai import TraceHandle, capture
from mai.telemetry import configure, shutdown
from tests.support import recorded_spans

from .simulation import simulate
from .test_trees import FAILING, SEEDS
from .trees import World, build, trees

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


def run(tree: Any, seed: int, attempts: int) -> list[TraceHandle[Any]]:
    """Run the tree, with retries outside, and return its handle."""
    runs: list[TraceHandle[Any]] = []

    async def main() -> None:
        with capture() as trace, suppress(Exception):
            await build(tree, World(named=True)).with_(retry=attempts)(3)
        runs.extend(trace.runs)

    simulate(main, seed)
    return runs


@given(trees(FAILING), SEEDS, st.integers(1, 3), st.booleans())
def test_the_spans_of_a_run_are_its_handles(tree: Any, seed: int, attempts: int, light: bool) -> None:
    with recorded(light=light) as found:
        isomorphic(found, run(tree, seed, attempts))
