"""What does a traced call cost, beside one ``start_as_current_span`` of the SDK in the same state?

Row 5 times calls with real export on: the batch processor, and an exporter that writes the OTLP bytes and drops them.
The calls stand inside a running module (the usual case; light spans) or are roots of their own; once more with a
provider of the SDK's, which makes every span. The rows named "cost" do the same where the sampler drops all and where
there is no SDK. So each of the states no SDK, unsampled, sampled through SDK spans and sampled with light spans (the
second of row 5) stands beside a raw span of the same state.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mai import Module
from mai.core.spans import telemetry
from mai.telemetry import configure, shutdown
from mai.telemetry.light import LightTracer
from mai.telemetry.provider import Provider

from . import steps
from .harness import Row, Scale, Timed, main, ratio
from .promises import check_promises, promise

__all__ = ["rows"]


class _Encoded(SpanExporter):
    """Does all that an OTLP exporter does but sending."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@dataclass(frozen=True)
class _Hot(Timed):
    """A sample of the hot path: what waits to be exported is exported before it, not meanwhile."""

    provider: Any = None

    async def take(self) -> float:
        """Flush, warm up, flush, and time."""
        for timed in (False, True):
            if self.provider is not None:
                self.provider.force_flush()
            start = perf_counter_ns()
            await self.work()
            if timed:
                return (perf_counter_ns() - start) / self.n
        raise AssertionError


@dataclass(frozen=True)
class _Exported(Timed):
    """A sample of what is left for the exporter: the time of a flush after the work."""

    provider: Any = None

    async def take(self) -> float:
        """Flush, work, and time the flush."""
        self.provider.force_flush()
        await self.work()
        start = perf_counter_ns()
        self.provider.force_flush()
        return (perf_counter_ns() - start) / self.n


class _State:
    """A state of telemetry, for the time of a sample."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.raw = trace.NoOpTracer() if provider is None else provider.get_tracer("raw")
        self.ours = None if provider is None else provider.get_tracer("mai")
        self.light = self.ours.below if isinstance(self.ours, LightTracer) else None

    def timed(self, work: Callable[[], Awaitable[None]], n: int) -> Timed:
        async def inside() -> None:
            telemetry.tracer, telemetry.light = self.ours, self.light
            try:
                await work()
            finally:
                telemetry.tracer = telemetry.light = None

        return _Hot(inside, n, self.provider)

    def spans(self, n: int) -> Timed:
        async def work() -> None:
            start = self.raw.start_as_current_span
            for _ in range(n):
                with start("raw"):
                    pass

        return self.timed(work, n)

    def attached(self, n: int) -> Timed:
        async def work() -> None:
            for _ in range(n):
                span = self.raw.start_span("raw")
                token = otel.attach(trace.set_span_in_context(span))
                span.end()
                otel.detach(token)

        return self.timed(work, n)

    def roots(self, m: Module, n: int) -> Timed:
        async def work() -> None:
            for _ in range(n):
                await m(1)

        return self.timed(work, n)

    def inside(self, m: Module, n: int) -> Timed:
        outer = steps.Inside(m, 1)

        async def work() -> None:
            await outer(n)

        return self.timed(work, n)


async def _check(m: Module) -> None:
    """Assert that a traced call keeps the promises of a call, and is in the spans."""
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False)
    try:
        name, outer = m.settings.name, steps.Inside(m, 1)
        await check_promises(lambda: m(1), steps.Noop.forward, steps.probe, [name], value=1)
        await check_promises(lambda: outer(1), steps.Noop.forward, steps.probe, [f"Inside/{name}"], value=1)
        found.clear()
        await outer(1)
        inner, root = found.get_finished_spans()
        right = inner.parent is not None and root.context is not None and inner.parent.span_id == root.context.span_id
        promise(right and type(inner).__name__ == "CallSpan", "a traced call is a light span below its caller's")
        promise((inner.attributes or {})["mai.step.id"] == f"Inside/{name}", "its span tells its path")
    finally:
        shutdown()


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    n, rounds, noop = scale.calls, scale.rounds, steps.Noop()
    await _check(noop)
    batches: Any = {"schedule_delay_millis": 1e7, "max_queue_size": 100_000, "max_export_batch_size": 100_000}
    light, sdk, off = Provider(), TracerProvider(), TracerProvider(sampler=ALWAYS_OFF)
    for provider in (light, sdk):
        provider.add_span_processor(BatchSpanProcessor(_Encoded(), **batches))
    on, real, unsampled, none = _State(light), _State(sdk), _State(off), _State(None)

    def line(row: str, what: str, target: float | None, ours: Timed, other: Timed | None) -> Row:
        samples = {"mai": ours} if other is None else {"mai": ours, "raw": other}
        unit = "A" if other is None else "raw"
        return Row(row, what, target, unit, samples, ratio("mai", "A" if other is None else "raw"), rounds, n)

    raw = "start_as_current_span"
    later = _Exported(on.inside(noop, n).work, n, light), _Exported(real.spans(n).work, n, sdk)
    return [
        line("5", "call with export on, light span, inside a module", 27, on.inside(noop, n), None),
        line("5", f"the same, beside {raw}", 0.17, on.inside(noop, n), on.spans(n)),
        line("5", "root call with export on, beside start_span and attach", 1.15, on.roots(noop, n), on.attached(n)),
        line("5", "call through SDK spans, beside start_span and attach", 1.15, real.inside(noop, n), real.attached(n)),
        line("cost", f"sampled, through SDK spans, beside {raw}", 0.97, real.inside(noop, n), real.spans(n)),
        line(
            "cost",
            "sampled, what is left for the exporter, beside that of an SDK span without attributes",
            None,
            *later,
        ),
        line("cost", f"unsampled, inside a module, beside {raw}", 0.09, unsampled.inside(noop, n), unsampled.spans(n)),
        line("cost", f"unsampled root, beside {raw}", None, unsampled.roots(noop, n), unsampled.spans(n)),
        line("cost", f"no SDK, inside a module, beside {raw}", 0.14, none.inside(noop, n), none.spans(n)),
    ]


if __name__ == "__main__":
    raise SystemExit(main(["telemetry"]))
