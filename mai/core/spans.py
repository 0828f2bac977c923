"""OpenTelemetry spans of calls, through the API alone; without an SDK nothing here is reached.

A call has a span only where its root was sampled: below a root that is neither recording nor sampled no tracer is asked
again. The span is made current inside the call's own dropped context, so there is nothing to restore.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer

from ..errors import ConfigError
from ..values import names
from ..values.events import TraceLink
from .frame import Frame
from .trace import TraceHandle

Watchers = dict[object, Callable[[TraceHandle[Any]], object]]


@dataclass
class Telemetry:
    """What `mai.telemetry` sets up; a seam, like the clock.

    Attributes:
        tracer: Where spans come from: what was set up, else the tracer of the API's provider once there is one.
        light: Makes a span of ``(parent, handle, spec)`` current that reads all it tells off the handle, when it is
            exported; None: the tracer is asked for each span. Such a span ends by ``_mai_close(handle)``.
        record: Called as ``(span, spec, "input" or "output", value)`` where content is to be recorded; an input is the
            ``(args, kwargs)`` of ``forward``.
        watchers: Who is told of finished runs of every engine.
        sizes: Whether all values are measured, as ``capture(sizes=True)`` does.
    """

    tracer: Tracer | None = None
    light: Callable[[Span, TraceHandle[Any], Any], Span] | None = None
    record: Callable[[Span, Any, str, Any], None] | None = None
    sizes: bool = False
    asked: bool = False
    watchers: Watchers = field(default_factory=Watchers)


telemetry: Telemetry = Telemetry()


def watched(watchers: Watchers, fn: Callable[[TraceHandle[Any]], object], who: str) -> Callable[[], None]:
    """Add *fn* to *watchers* and return what takes it away again; *who* is asked."""
    if inspect.iscoroutinefunction(fn) or not callable(fn):
        raise ConfigError(f"{who}({fn!r}) needs a plain function of a handle, not an async one")
    key = object()
    watchers[key] = fn

    def unsubscribe() -> None:
        watchers.pop(key, None)

    return unsubscribe


def has_provider() -> bool:
    """Say whether a tracer provider is set, which a root call asks each time.

    ``get_tracer_provider()`` reads the environment on each call as long as none is set, which costs as much as a call;
    so it is asked once (that is when OTEL_PYTHON_TRACER_PROVIDER is honoured) and then the API's own variable is read.
    """
    if telemetry.tracer is None:
        if not telemetry.asked:
            trace.get_tracer_provider()
            telemetry.asked = hasattr(trace, "_TRACER_PROVIDER")  # a private name may go
        if telemetry.asked and trace._TRACER_PROVIDER is None:
            return False
        from mai import __version__  # noqa: PLC0415 (the face imports this room)

        telemetry.tracer = trace.get_tracer("mai", __version__)
    return True


def around(frame: Frame) -> otel.Context:
    """Return the OpenTelemetry context for what the call *frame* begins, below its span if it has one.

    The ambient one wins if it is of our trace, so that a span that the user opened is honoured.
    """
    ambient, parent = otel.get_current(), None if frame.handle is None else frame.span
    if parent is not None:
        found = trace.get_current_span(ambient).get_span_context()
        if found.trace_id != parent.get_span_context().trace_id:
            return trace.set_span_in_context(parent, ambient)
    return ambient


def open_span(frame: Frame, owner: Frame, spec: Any, attrs: dict[str, Any] | None, handle: Any) -> otel.Context | None:
    """Start the span of a call and return the context to be attached in its body, or None for nothing to attach."""
    ambient, links = around(owner), list[Link]()
    given = {**fixed_of(spec), names.STEP_ID: frame.path, **(attrs or {})}
    if why := given.pop(names.LINK, None):  # detached, as a trace of its own
        above = trace.get_current_span(ambient).get_span_context()
        links.append(Link(above, {names.LINK: why}))
        handle.links = (TraceLink(why, trace.format_trace_id(above.trace_id), trace.format_span_id(above.span_id)),)
        ambient = trace.set_span_in_context(trace.INVALID_SPAN, ambient)
    if owner.span is None or links:
        given[names.RUN_ID] = frame.run.id_of(frame) if frame.run is not None else ""
        known, wanted = frame.env.metadata, {"conversation_id": names.CONVERSATION_ID, "session_id": names.SESSION_ID}
        given |= {key: str(known[source]) for source, key in wanted.items() if source in known}
    tracer: Any = telemetry.tracer
    span = tracer.start_span(spec.title, ambient, kind=spec.span_kind, attributes=given, links=links)
    context = span.get_span_context()
    if span.is_recording() or context.trace_flags.sampled:
        frame.span = span
    return trace.set_span_in_context(span, ambient) if context.is_valid else None


def fixed_of(spec: Any) -> dict[str, Any]:
    """Return the attributes that all spans of a module have."""
    if spec.fingerprint is not None and names.PLAN_HASH not in spec.attributes:
        spec.attributes[names.PLAN_HASH] = spec.fingerprint()
    return spec.attributes  # type: ignore[no-any-return]


def close_span(frame: Frame, handle: TraceHandle[Any], error: BaseException | None, *, innermost: bool) -> None:
    """End the span of a call and drop it."""
    span, frame.span = None if frame.handle is None else frame.span, None
    if span is None:
        return
    light = getattr(span, "_mai_close", None)
    if error is not None and handle.outcome in ("error", "timeout") and span.is_recording():
        if innermost:
            from mai.telemetry.logs import describe  # noqa: PLC0415 (an arrow upwards)

            describe(span, error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__qualname__}: {error}"))
    if light is not None:
        light(handle)
    elif span.is_recording():  # the step itself may have ended it
        for event in handle.events:
            span.add_event(event.name, event.attributes, wall_of(handle, event.at_ns))
        span.set_attributes(facts_of(handle))
        span.end()


def wall_of(handle: TraceHandle[Any], ticks: int | None) -> int | None:
    """Return when that was by the clock of the wall [ns]; None where it is not known."""
    zero = handle._zero
    return None if zero is None or ticks is None else int(zero[0] * 1e9) + ticks - zero[1]


def facts_of(handle: TraceHandle[Any]) -> dict[str, Any]:
    """Return the attributes of a span that are known when its call has ended."""
    failed = handle._error.type if handle._error is not None else None
    sizes = {names.INPUT_SIZE: handle.input_size, names.OUTPUT_SIZE: handle.output_size}
    outcome = None if handle.outcome == "ok" else handle.outcome
    facts = {**handle.attributes, **sizes, names.OUTCOME: outcome, names.ERROR_TYPE: failed}
    return {key: value for key, value in facts.items() if value is not None and key != names.LINK}
