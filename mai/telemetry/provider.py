"""The tracer provider that `configure` makes: that of the SDK, but for the spans of mai's own calls."""

from typing import Any

from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer

from mai.core.clock import clock
from mai.core.spans import telemetry
from mai.telemetry.light import LightTracer

__all__ = ["Processors", "Provider", "looks_at_starts"]


def looks_at_starts(processor: SpanProcessor) -> bool:
    """Say whether *processor* has something to do when a span starts, so that it needs the SDK's own spans."""
    quiet = (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor)
    return any(
        getattr(type(processor), hook, None) not in {getattr(kind, hook, None) for kind in quiet}
        for hook in ("on_start", "_on_ending")
    )


class Processors(SynchronousMultiSpanProcessor):
    """The span processors of a provider, in their order; they can be taken away, too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listed: tuple[SpanProcessor, ...] = ()
        self.all_light: bool = True

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add one; if it looks at spans that start, there are no light ones any more."""
        self.listed = (*self.listed, span_processor)
        self.all_light = not any(map(looks_at_starts, self.listed))
        if not self.all_light:
            telemetry.light = None

    def on_start(self, span: Any, parent_context: otel.Context | None = None) -> None:
        """Tell all."""
        for one in self.listed:
            one.on_start(span, parent_context)

    def _on_ending(self, span: Any) -> None:
        for one in self.listed:
            one._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Tell all."""
        for one in self.listed:
            one.on_end(span)

    def shutdown(self) -> None:
        """Shut all down, which flushes them, and forget them."""
        listed, self.listed, self.all_light = self.listed, (), True
        for one in listed:
            one.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush all, within the time."""
        until = clock.now() + timeout_millis / 1000
        left = [one.force_flush(max(0, int((until - clock.now()) * 1000))) for one in self.listed]
        return all(left) and clock.now() <= until


class Provider(SdkTracerProvider):
    """The SDK's tracer provider, with light spans for mai's own calls."""

    def __init__(self, **given: Any) -> None:
        self.processors: Processors = Processors()
        super().__init__(active_span_processor=self.processors, **given)

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **given: Any) -> Tracer:
        """Return a tracer, for mai itself the light one."""
        sdk = super().get_tracer(instrumenting_module_name, *args, **given)
        if instrumenting_module_name != "mai" or not isinstance(sdk, SdkTracer) or not _inherits(self.sampler):
            return sdk
        return LightTracer(sdk, self.processors, SpanLimits(), InstrumentationScope("mai", *args, **given))


def _inherits(sampler: Any) -> bool:
    """Say whether *sampler* decides for a whole trace, as those of the SDK do: children need not ask it again."""
    told = sampler.get_description()
    whole = "localParentSampled:AlwaysOnSampler" in told and told.startswith("ParentBased{")
    return whole or told in ("AlwaysOnSampler", "AlwaysOffSampler") or told.startswith("TraceIdRatioBased{")
