"""Light spans: a call's span that costs little while the call runs, and is made into a real one when it is exported.

Below a root that is recorded and sampled, mai's own calls get a `CallSpan`: it notes its ids, and takes name, times,
attributes and outcome off the call's TraceHandle when a processor asks for them, which is in the exporter's thread. The
root is the SDK's own span, so that the sampler is asked as ever. See ``docs/adr/0026-light-spans.rst``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from mai.core.clock import clock
from mai.core.spans import facts_of, fixed_of, wall_of
from mai.core.trace import TraceHandle
from mai.telemetry.stack import Stack
from mai.values import names

if TYPE_CHECKING:
    from mai.telemetry.provider import Processors

__all__ = ["CallSpan", "LightTracer"]

_Trace = tuple[int, TraceFlags, TraceState]  # what all spans of a trace have in common
_KEY = next(iter(set_span_in_context(INVALID_SPAN, otel.Context())))  # under which a context holds its span


class CallSpan(ReadableSpan, Span):
    """The span of a call of mai's own.

    It is made in two ways: with *given* attributes by `LightTracer.start_span`, or, for simple calls, by
    `LightTracer.below`, with the *handle* and *spec* that have them all. ``_mai_close`` hands in the handle at the end.

    Size: it is a span to write to and one to read from, and each of the two has a list of methods and properties.
    """

    _own: dict[str, Any] | None = None  # what users set
    _happened: Sequence[tuple[Any, Mapping[str, Any], int]] = ()
    _linked: Sequence[Link] = ()
    _verdict: Status | None = None
    _frozen: ReadableSpan | None = None
    _began: int | None = None
    _ended: int | None = None
    _title: str | None = None
    _given_kind: SpanKind = SpanKind.INTERNAL
    _given: Mapping[str, Any] | None = None

    def __init__(
        self, tracer: "LightTracer", trace: _Trace, parent: int, span_id: int,
        handle: TraceHandle[Any] | None = None, spec: Any = None,
    ) -> None:  # fmt: skip
        self._tracer = tracer
        self._trace = trace
        self._above = parent
        self._id = span_id
        self._handle = handle
        self._spec = spec
        self._made: SpanContext | None = None
        self._over = False

    # ---------------------------------------------------------------- written to

    def get_span_context(self) -> SpanContext:
        """Return the ids."""
        if self._made is None:
            trace_id, flags, state = self._trace
            self._made = SpanContext(trace_id, self._id, False, flags, state)  # noqa: FBT003 (is_remote)
        return self._made

    def is_recording(self) -> bool:
        """Say whether the span goes on."""
        return not self._over

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        if not self._over:
            self._own = {**(self._own or {}), **attributes}

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event."""
        if not self._over:
            self._happened = [*self._happened, (name, attributes or {}, timestamp or _wall())]

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link."""
        if not self._over:
            self._linked = [*self._linked, Link(context, attributes)]

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if not self._over:
            self._title = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; as in the SDK, UNSET changes nothing, and OK is final."""
        new = status if isinstance(status, Status) else Status(status, description)
        final = self._verdict is not None and self._verdict.status_code is StatusCode.OK
        if not (self._over or final or new.status_code is StatusCode.UNSET):
            self._verdict = new

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 (the API's signature)
    ) -> None:
        """Add the event of an exception; its traceback is written out when the span is exported."""
        if not self._over:
            facts = {"exception.escaped": str(escaped), **(attributes or {})}
            self._happened = [*self._happened, (Stack(exception), facts, timestamp or _wall())]

    def end(self, end_time: int | None = None) -> None:
        """End the span, once, and hand it to the processors."""
        if not self._over:
            self._over, self._ended = True, end_time
            if end_time is None and (self._handle is None or self._handle.end_ns is None):
                self._ended = _wall()
            self._tracer.processors.on_end(self)

    def _mai_close(self, handle: TraceHandle[Any]) -> None:
        """Take over the handle of the call, which has ended, and end."""
        self._handle = handle
        if not self._over:
            self._over = True
            for processor in self._tracer.processors.listed:
                processor.on_end(self)

    # ---------------------------------------------------------------- read from

    def _read(self) -> ReadableSpan:
        """Return what the SDK would have made, once the span has ended."""
        if self._frozen is not None:
            return self._frozen
        tracer, began, limits = self._tracer, self.start_time, self._tracer.limits
        events = [*self._told(), *self._happened]
        made = ReadableSpan(
            name=self.name,
            context=self.get_span_context(),
            parent=self.parent,
            resource=tracer.sdk.resource,
            attributes=_bounded(self._facts(), limits.max_span_attributes, limits.max_span_attribute_length),
            events=[_event(what, facts, at, limits) for what, facts, at in _newest(events, limits.max_events)],
            links=_newest(self._linked, limits.max_links),
            kind=self.kind,
            status=self._verdict or Status(StatusCode.UNSET),
            start_time=began,
            end_time=self._end_time_of(began),
            instrumentation_scope=tracer.scope,
        )
        if self._over:
            self._frozen = made
        return made

    def _told(self) -> list[tuple[Any, Mapping[str, Any], int]]:
        """Return the events that the handle keeps."""
        handle = self._handle
        if handle is None or handle.end_ns is None:
            return []
        return [(one.name, one.attributes, wall_of(handle, one.at_ns) or 0) for one in handle.events]

    def _facts(self) -> dict[str, Any]:
        handle, given = self._handle, self._given
        if given is None:
            given = {**fixed_of(self._spec), names.STEP_ID: handle.step_id if handle is not None else ""}
        return {**given, **(facts_of(handle) if handle is not None else {}), **(self._own or {})}

    def _end_time_of(self, began: int | None) -> int | None:
        handle = self._handle
        if self._ended is not None or handle is None or began is None or handle.end_ns is None:
            return self._ended
        return began + handle.end_ns - (handle.start_ns or 0)

    @property
    def name(self) -> str:
        """The name."""
        return self._title or str(self._spec.title)

    @property
    def context(self) -> SpanContext:
        """The ids."""
        return self._made or self.get_span_context()

    @property
    def parent(self) -> SpanContext:
        """The ids of the span around."""
        trace_id, flags, state = self._trace
        return SpanContext(trace_id, self._above, False, flags, state)  # noqa: FBT003 (is_remote)

    @property
    def start_time(self) -> int | None:
        """When the call began [ns since the epoch]."""
        known = None if self._handle is None else wall_of(self._handle, self._handle.start_ns)
        return self._began if known is None else known

    @property
    def end_time(self) -> int | None:
        """When the call ended [ns since the epoch]."""
        return self._read().end_time

    @property
    def kind(self) -> SpanKind:
        """CLIENT where a step calls another process, else INTERNAL."""
        return self._given_kind if self._spec is None else self._spec.span_kind

    @property
    def status(self) -> Status:
        """The status."""
        return self._read().status

    @property
    def attributes(self) -> Any:
        """The attributes."""
        return self._read().attributes

    @property
    def events(self) -> Sequence[Event]:
        """The events."""
        return self._read().events

    @property
    def links(self) -> Sequence[Link]:
        """The links."""
        return self._read().links

    @property
    def resource(self) -> Any:
        """The resource of the provider."""
        return self._tracer.sdk.resource

    @property
    def instrumentation_scope(self) -> Any:
        """The scope ``mai``."""
        return self._tracer.scope

    @property
    def dropped_attributes(self) -> int:
        """How many attributes were above the limit."""
        return self._read().dropped_attributes

    @property
    def dropped_events(self) -> int:
        """How many events were above the limit."""
        events = [*self._told(), *self._happened]
        return len(events) - len(_newest(events, self._tracer.limits.max_events))

    @property
    def dropped_links(self) -> int:
        """How many links were above the limit."""
        return len(self._linked) - len(_newest(self._linked, self._tracer.limits.max_links))

    def to_json(self, indent: int | None = 4) -> str:
        """Return the span as the SDK writes it."""
        text: str = self._read().to_json(indent)
        return text


def _wall() -> int:
    return int(clock.wall() * 1e9)


def _newest(listed: Sequence[Any], limit: int | None) -> Sequence[Any]:
    return listed if limit is None else listed[max(0, len(listed) - limit) :]


def _bounded(facts: Mapping[str, Any], most: int | None, length: int | None) -> Any:
    return BoundedAttributes(most, facts, True, length)  # noqa: FBT003 (its third argument: immutable)


def _event(what: Any, facts: Mapping[str, Any], at: int, limits: SpanLimits) -> Event:
    if isinstance(what, Stack):
        facts, what = {**what.facts(), **facts}, "exception"
    return Event(what, _bounded(facts, limits.max_event_attributes, limits.max_attribute_length), at)


class LightTracer(Tracer):
    """The tracer of mai's own calls.

    Args:
        sdk: The SDK's tracer, which makes roots, and all where a span has to be a real one from its start.
        processors: Who is told when a span ends.
        limits: The limits of spans.
        scope: The instrumentation scope.
    """

    def __init__(self, sdk: SdkTracer, processors: "Processors", limits: SpanLimits, scope: Any) -> None:
        self.sdk: SdkTracer = sdk
        self.processors: Processors = processors
        self.limits: SpanLimits = limits
        self.scope: Any = scope
        self._new_id = sdk.id_generator.generate_span_id

    def start_span(self, name: str, context: otel.Context | None = None, *args: Any, **given: Any) -> Span:
        """Start a span of any call."""
        parent = get_current_span(context)
        above = parent.get_span_context()
        real = args or given.get("links") or not parent.is_recording() or not above.trace_flags.sampled
        if real or not self.processors.all_light:
            return self.sdk.start_span(name, context, *args, **given)
        span = CallSpan(self, _trace_of(above), above.span_id, self._new_id())
        span._title, span._given, span._began = name, given.get("attributes") or {}, _wall()
        span._given_kind = given.get("kind", SpanKind.INTERNAL)
        return span

    def start_as_current_span(self, name: str, *args: Any, **given: Any) -> Any:
        """Start a span and make it the current one for the block."""
        return self.sdk.start_as_current_span(name, *args, **given)

    def below(self, parent: Span, handle: TraceHandle[Any], spec: Any) -> Span:
        """Start the span of a simple call below *parent*, and make it current."""
        ambient = otel.get_current()
        found: Any = ambient.get(_KEY)
        if found is parent and type(found) is CallSpan:
            trace, above = found._trace, found._id
        else:
            trace, above = _around(parent, found)
        span_id = self._new_id()
        span = CallSpan(self, trace, above, span_id, handle, spec)
        handle._span = trace[0], span_id, trace[1]
        otel.attach(otel.Context({**ambient, _KEY: span}))
        return span


def _trace_of(context: SpanContext) -> _Trace:
    return context.trace_id, context.trace_flags, context.trace_state


def _around(parent: Span, found: Any) -> tuple[_Trace, int]:
    """Return the trace and the id of the span around: what the user opened, if that is of the trace of *parent*."""
    above = parent.get_span_context()
    if found is not parent and isinstance(found, Span):
        other = found.get_span_context()
        above = other if other.trace_id == above.trace_id else above
    return _trace_of(above), above.span_id
