"""Light spans are spans: what users do to one, and what is read of it, is what the SDK's own would do and tell."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from mai import Context, module
from mai.core.spans import telemetry
from mai.telemetry.light import LightTracer
from mai.telemetry.provider import Provider

LINKED = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))


def plain(span: Any) -> None: ...


def attributes(span: Any) -> None:
    span.set_attribute("a", 1)
    span.set_attributes({"b": [1, 2], "c": "x", "a": 2})
    span.set_attribute("bad", object())


def named(span: Any) -> None:
    span.update_name("other")
    span.add_event("first", {"n": 1}, 5)
    span.add_event("second")
    span.add_link(LINKED, {"why": "so"})


def final(span: Any) -> None:
    span.set_status(StatusCode.UNSET)
    span.set_status(Status(StatusCode.OK))
    span.set_status(StatusCode.ERROR, "too late")


def bad(span: Any) -> None:
    span.set_status(StatusCode.ERROR, "no")
    try:
        raise ValueError("x") from KeyError("y")
    except ValueError as error:
        span.record_exception(error, {"more": 1}, 7)


def ended(span: Any) -> None:
    span.set_attribute("before", 1)
    span.end()
    span.set_attribute("after", 1)
    span.add_event("after")
    span.add_link(LINKED)
    span.update_name("after")
    span.set_status(StatusCode.ERROR)
    span.record_exception(ValueError("after"))
    span.end()
    assert not span.is_recording()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("write", [plain, attributes, named, final, bad, ended])
def test_a_light_span_tells_what_the_sdks_own_tells(write: Callable[[Any], None], fast: bool) -> None:
    told = []
    for provider in (Provider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)):
        found = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(found))
        tracer = telemetry.tracer = provider.get_tracer("mai")
        telemetry.light = tracer.below if fast and isinstance(tracer, LightTracer) else None

        @module
        async def writes(text: str) -> str:
            span = Context.get().span
            assert span is not None
            assert span.is_recording()
            json.loads(span.to_json())  # type: ignore[attr-defined]
            write(span)
            return text

        @module
        async def outer(text: str) -> str:
            return await writes(text)

        try:
            outer.run("abc")
        finally:
            telemetry.tracer = telemetry.light = None
        span, root = found.get_finished_spans()
        assert isinstance(span, ReadableSpan)
        assert span.context.trace_id == root.context.trace_id
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        read = json.loads(span.to_json())
        if write is ended:
            for size in ("mai.input.size", "mai.output.size"):  # a light span reads them off the handle, even then
                read["attributes"].pop(size, None)
        for key in ("context", "parent_id", "start_time", "end_time", "resource"):
            del read[key]
        for event in read["events"]:
            event["timestamp"] = event["timestamp"][:19] if event["name"] == "second" else event["timestamp"]
            event["attributes"].pop("exception.stacktrace", None)
        counts = span.dropped_attributes, span.dropped_events, span.dropped_links
        told.append((type(span).__name__, read, counts, span.kind, len(span.links), str(span.status.status_code)))
    light, sdk = told
    assert (light[0], sdk[0]) == ("CallSpan", "ReadableSpan")
    for event in light[1]["events"] + sdk[1]["events"]:
        event["timestamp"] = event["timestamp"] if "1970" in event["timestamp"] else ""
    assert light[1:] == sdk[1:]


def test_the_traceback_of_a_light_span_is_that_of_the_exception() -> None:
    found, provider = InMemorySpanExporter(), Provider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    with provider.get_tracer("other").start_as_current_span("root"):
        span = provider.get_tracer("mai").start_span("light")
        bad(span)
        span.end()
    (event,) = found.get_finished_spans()[0].events
    facts = event.attributes or {}
    assert "KeyError: 'y'" in str(facts["exception.stacktrace"])
    assert 'raise ValueError("x") from KeyError("y")' in str(facts["exception.stacktrace"])
    assert (event.timestamp, facts["more"], facts["exception.escaped"]) == (7, 1, "False")


class Asks(Sampler):
    """A sampler that looks at every span."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Sample."""
        return ALWAYS_ON.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """Return a name."""
        return "Asks"


@pytest.mark.parametrize(
    ("sampler", "light"),
    [
        (None, True), (ALWAYS_ON, True), (ALWAYS_OFF, True), (TraceIdRatioBased(0.5), True),
        (ParentBased(Asks()), True), (Asks(), False), (ParentBased(ALWAYS_ON, local_parent_sampled=Asks()), False),
    ],
)  # fmt: skip
def test_a_sampler_that_looks_below_the_root_gets_real_spans(sampler: Sampler | None, light: bool) -> None:
    provider = Provider(sampler=sampler, shutdown_on_exit=False)
    assert isinstance(provider.get_tracer("mai"), LightTracer) is light
    assert not isinstance(provider.get_tracer("other"), LightTracer)


def test_the_tracer_is_one_like_any_other() -> None:
    found, provider = InMemorySpanExporter(), Provider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    tracer = provider.get_tracer("mai", "1.2")
    with tracer.start_as_current_span("a", attributes={"x": 1}) as outer, trace.use_span(tracer.start_span("b"), True):
        assert outer.is_recording()
    inner, outer_ = found.get_finished_spans()
    assert (inner.name, inner.parent, outer_.name) == ("b", outer_.context, "a")
    assert (inner.instrumentation_scope, inner.start_time is not None) == (outer_.instrumentation_scope, True)
    assert provider.force_flush()
    provider.shutdown()
    with tracer.start_as_current_span("after"):
        pass
    assert len(found.get_finished_spans()) == 2
