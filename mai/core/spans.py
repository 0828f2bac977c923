"""OpenTelemetry spans of calls, through the API alone; without an SDK nothing here is reached.

A call has a span only where its root was sampled: below a root that is neither recording nor sampled no tracer is asked
again. The span is made current inside the call's own dropped context, so there is nothing to restore.
"""

from typing import Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from . import names
from .frame import Frame
from .trace import TraceHandle

_tracers: list[Tracer] = []  # one: the API's proxy tracer rebinds itself once a provider is set


def has_provider() -> bool:
    """Say whether a tracer provider is set, which a root call asks each time.

    ``get_tracer_provider()`` reads the environment on each call as long as none is set, which costs as much as a call;
    so it is asked once (that is when OTEL_PYTHON_TRACER_PROVIDER is honoured) and then the API's own variable is read.
    """
    if not _tracers:
        trace.get_tracer_provider()
        _tracers.append(trace.get_tracer("mai"))
    return getattr(trace, "_TRACER_PROVIDER", _tracers) is not None


def open_span(frame: Frame, owner: Frame, spec: Any, attrs: dict[str, Any] | None) -> otel.Context | None:
    """Start the span of a call and return the context to be attached in its body, or None for nothing to attach."""
    parent, ambient = owner.span, otel.get_current()
    if parent is not None:  # the ambient context wins if it is of our trace: a span that the user opened is honoured
        found = trace.get_current_span(ambient).get_span_context()
        if found.trace_id != parent.get_span_context().trace_id:
            ambient = trace.set_span_in_context(parent, ambient)
    given = {**spec.attributes, names.STEP_ID: frame.path, **(attrs or {})}
    if parent is None:
        given[names.RUN_ID] = frame.run.run_id if frame.run is not None else ""
        known, wanted = frame.env.metadata, {"conversation_id": names.CONVERSATION_ID, "session_id": names.SESSION_ID}
        given |= {key: str(known[source]) for source, key in wanted.items() if source in known}
    span = _tracers[0].start_span(spec.what[0], ambient, kind=SpanKind.INTERNAL, attributes=given)
    context = span.get_span_context()
    if span.is_recording() or context.trace_flags.sampled:
        frame.span = span
    return trace.set_span_in_context(span, ambient) if context.is_valid else None


def close_span(frame: Frame, handle: TraceHandle[Any], error: BaseException | None, *, innermost: bool) -> None:
    """End the span of a call and drop it."""
    span, frame.span = frame.span, None
    if span is None:
        return
    if span.is_recording():
        sizes = {names.INPUT_SIZE: handle.input_size, names.OUTPUT_SIZE: handle.output_size}
        facts = {**handle.attributes, **sizes, names.OUTCOME: None if handle.outcome == "ok" else handle.outcome}
        span.set_attributes({key: value for key, value in facts.items() if value is not None})
        if error is not None and handle.outcome in ("error", "timeout"):
            span.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
            if innermost:
                span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__qualname__}: {error}"))
    span.end()
