"""Rules of contexts that belong to no one file: ``docs/explanation/tracing.rst`` names the tests of all of them."""

import asyncio
import gc
from collections.abc import AsyncIterator

from opentelemetry import context as otel
from opentelemetry import trace

from mai import module
from tests.support import recorded_spans, simulated


@module
async def words(text: str) -> AsyncIterator[str]:
    with trace.get_tracer("user").start_as_current_span("mine"):
        for word in text.split():
            yield word


@module
async def meet(n: int) -> int:
    await asyncio.sleep(1)
    return n


def test_a_failed_detach_would_be_noticed(failed_detaches: list[str]) -> None:
    token = otel.attach(otel.Context())
    otel.detach(token)
    otel.detach(token)
    assert failed_detaches == ["Failed to detach context"]
    failed_detaches.clear()


@simulated
async def test_a_stream_whose_reader_is_dropped_ends_its_span_when_its_work_ends() -> None:
    with recorded_spans() as found:
        handle = words.start("a b c")
        reader = handle.chunks().__aiter__()
        assert await reader.__anext__() == "a"
        del reader
        gc.collect()
        assert await handle == "abc"
    spans = {span.name: span for span in found.get_finished_spans()}
    assert list(spans) == ["mine", "words"]
    assert spans["mine"].parent is not None
    assert spans["mine"].parent.span_id == spans["words"].context.span_id
    assert "mai.outcome" not in (spans["words"].attributes or {})


@simulated
async def test_one_module_in_many_runs_at_once_is_in_as_many_traces() -> None:
    both = meet >> meet
    with recorded_spans() as found:
        assert await asyncio.gather(*(both(n) for n in range(20))) == [*range(20)]
    traces: dict[int, list[str]] = {}
    for span in found.get_finished_spans():
        traces.setdefault(span.context.trace_id, []).append(span.name)
    assert [*traces.values()] == [["meet", "meet", "Sequential"]] * 20
