"""The segments of a run: what is done of it from one claim to the next, as one tree of spans each.

A segment has a root span of its own, which says which one it is and is linked to that of the segment before. What is
only repeated in it has no span: that of a flow is opened when something in it begins that is not on record.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

from opentelemetry import context as otel
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanContext,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mai.core.clock import clock
from mai.core.events import post
from mai.core.frame import Frame
from mai.core.trace import TraceHandle, note_span, noted
from mai.durable.records import Record, RunInfo
from mai.types import Started, TraceLink
from mai.values import names
from mai.values.casts import written

__all__ = [
    "Deferred",
    "JournalSegment",
    "Opening",
    "Segment",
    "begun_anew",
    "is_mark",
    "linked",
    "opened",
    "traces",
]

Opening = Callable[[], otel.Context | None]
_MARK = "!segment/"
_CARRIER = TraceContextTextMapPropagator()


def is_mark(path: str) -> bool:
    """Say whether the record at *path* tells where the spans of a segment are."""
    return path.startswith(_MARK)


def _tell_begin(f: Frame) -> None:
    """Tell those who watch the run that the flow *f* has begun."""
    if f.handle is not None and f.n >= 0:  # of an attempt only the outcome is told
        post(Started, f.handle.name, f.handle.kind, frame=f)


def _note(handle: TraceHandle[Any] | None, span: Span) -> None:
    if handle is not None and span.is_recording():
        note_span(handle, span)


def traces(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    """Yield the numbers of the segments that were traced, and the ids of their traces."""
    for one in records:
        if is_mark(one.path):
            span = get_current_span(_carried(one)).get_span_context()
            yield int(one.path.rpartition("/")[2]), format_trace_id(span.trace_id)


def _carried(mark: Record) -> otel.Context:
    """Return a context in which the root span of that segment is current."""
    return _CARRIER.extract(json.loads(mark.output or b"{}"), context=otel.Context())


def opened(f: Frame, opening: Opening) -> otel.Context | None:
    """Open the span of the flow *f*, and let its handle know the ids."""
    context = opening()
    if f.span is not None:
        _note(f.handle, f.span)
    return context


def linked(handle: TraceHandle[Any], span: Span, earlier: Span, relation: str) -> None:
    """Link the root of a segment to that of an earlier one."""
    link = earlier.get_span_context()
    span.add_link(link, {names.LINK: relation})
    handle.links = (TraceLink(relation, format_trace_id(link.trace_id), format_span_id(link.span_id)),)


class Segment:
    """One segment of a run: what is new in it is told, and what is only repeated is not.

    Args:
        handle: Of the run.
        number: Which segment it is, from 1, if that is known already.

    Attributes:
        handle: Of the run.
        attributes: What the span has from its start.
        repeats: How many steps were on record.
    """

    def __init__(self, handle: TraceHandle[Any], number: int | None = None) -> None:
        self.handle: TraceHandle[Any] = handle
        self.attributes: dict[str, Any] = {} if number is None else {names.RUN_SEGMENT: number}
        self.repeats: int = 0
        self._still: set[Frame] = set()  # the flows that have only been repeated so far

    def count(self) -> None:
        """Note that a step was on record."""
        self.repeats += 1

    def spanned(self, f: Frame, opening: Opening, *, replaying: bool) -> otel.Context | None:
        """Open the span of the flow *f*, or put off to open it until something new begins in it."""
        if replaying:
            f.span = Deferred(f, opening, self.live)
            return set_span_in_context(f.span)
        return opened(f, opening)

    @contextmanager
    def flow(self, f: Frame, *, replaying: bool) -> Generator[Callable[[], bool]]:
        """Follow the body of a flow; what is given says whether all of it has been repeated only."""
        if replaying and f.handle is not self.handle:
            self._still.add(f)
        else:
            _tell_begin(f)
        try:
            yield lambda: f in self._still
        except BaseException:
            if f in self._still:
                noted(f, {names.REPLAYED: True})
            raise
        finally:
            self._still.discard(f)
            if f.handle is self.handle and self.repeats:
                noted(f, {names.REPLAY_STEPS: self.repeats})

    def live(self, f: Frame) -> None:
        """Note that something new begins in *f*: the flows around it are no longer only repeated."""
        chain: list[Frame] = []
        while self._still and f.mod is not None:
            chain.append(f)
            f = f.parent
        for one in reversed(chain):
            if one in self._still:
                self._still.discard(one)
                _tell_begin(one)
                if isinstance(one.span, Deferred):
                    one.span.open()


class JournalSegment(Segment):
    """A segment of a run whose journal says which one it is, and the one before.

    Args:
        info: What is known of the run now that it was claimed.
        records: What was on record then.
        before: What was known of the run before it was claimed; None: it was made just now.
        handle: Of the run.

    Attributes:
        left: When the last sign of life before this segment was [s, wall-clock].
    """

    def __init__(
        self, info: RunInfo, records: Sequence[Record], before: RunInfo | None, handle: TraceHandle[Any]
    ) -> None:
        super().__init__(handle, info.epoch)
        self.left: float = max([0.0 if before is None else before.updated, *(one.ended for one in records)])
        self._own = f"{_MARK}{info.run_id}/"
        self._clean = before is not None and before.status != "running"
        self._earlier = max((one for one in records if is_mark(one.path)), key=lambda one: one.seq, default=None)
        self._mark: Record | None = None
        self._sampled = False

    def spanned(self, f: Frame, opening: Opening, *, replaying: bool) -> otel.Context | None:
        """Open the span of the flow *f*; that of the run at once, since there will be something new in it."""
        if f.handle is self.handle:
            return self._open(opening)
        return super().spanned(f, opening, replaying=replaying)

    def _open(self, opening: Opening) -> otel.Context | None:
        """Open the root span: below that of the segment before, unless the process died in that; linked to it."""
        if self._earlier is None:
            return self._noted(opening())
        above, resumes = _carried(self._earlier), self._earlier.path.startswith(self._own)
        relation = "resumed_from" if resumes else "replayed_from"
        under = set_span_in_context(get_current_span(above) if resumes and self._clean else INVALID_SPAN)
        otel.attach(under)  # in the context of the call, which is dropped
        context = self._noted(opening())
        linked(self.handle, get_current_span(context), get_current_span(above), relation)
        return context

    def _noted(self, context: otel.Context | None) -> otel.Context | None:
        """Remember where the root span is, for the next segment."""
        if context is not None:
            _note(self.handle, get_current_span(context))
            carrier: dict[str, str] = {}
            _CARRIER.inject(carrier, context=context)
            now, path = clock.wall(), f"{self._own}{self.attributes[names.RUN_SEGMENT]}"
            self._mark = Record(path, "flow", output=written(carrier).encode(), started=now, ended=now)
            self._sampled = get_current_span(context).get_span_context().trace_flags.sampled
        return context

    def mark(self, *, leaving: bool = False) -> Record | None:
        """Return, once, what is to be recorded of the segment: after its first record, else when it is left.

        Where nothing is sampled only what is left has to be known, since its next segment shall not be sampled either.
        """
        mark = self._mark if leaving or self._sampled else None
        self._mark = self._mark if mark is None else None
        return mark


def begun_anew(h: TraceHandle[Any], facts: Mapping[str, Any]) -> None:
    """Let the handle of a run tell of one more segment, and of nothing that was before."""
    h.children, h.events, h.links, h.dropped, h.outcome, h._error, h.end_ns = (), (), (), 0, "running", None, None
    h._span, h.attributes = (0, 0, 0), facts


class Deferred(Span):
    """In the place of a flow's span, as long as the flow is only repeated.

    It is opened, and those around it first, as soon as it is a parent or asked for its ids. What is written into it
    before is kept until then.

    Args:
        frame: The call of the flow.
        opening: Opens the span in the context in which the flow begins.
        live: Told that the flow is no longer only repeated.
    """

    def __init__(self, frame: Frame, opening: Opening, live: Callable[[Frame], object]) -> None:
        self._frame = frame
        self._opening = opening
        self._live = live
        self._context: Context = copy_context()
        self._span: Span | None = None
        self._said: list[Callable[[Span], object]] = []

    def open(self) -> None:
        """Open the span."""
        if self._span is None:
            context = self._context.run(self._opening)
            self._span = INVALID_SPAN if context is None else get_current_span(context)
            _note(self._frame.handle, self._span)
            for said in self._said:
                said(self._span)

    def _opened(self) -> Span:
        if self._span is None:
            self._live(self._frame)
            self.open()
        return self._span or INVALID_SPAN

    def _say(self, said: Callable[[Span], object]) -> None:
        if self._span is None:
            self._said.append(said)
        else:
            said(self._span)

    def get_span_context(self) -> SpanContext:
        """Return the ids."""
        return self._opened().get_span_context()

    def is_recording(self) -> bool:
        """Say whether what is written is kept."""
        return self._span is None or self._span.is_recording()

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute."""
        self._say(lambda span: span.set_attribute(key, value))

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        self._say(lambda span: span.set_attributes(attributes))

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event."""
        at = timestamp or int(clock.wall() * 1e9)
        self._say(lambda span: span.add_event(name, attributes, at))

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Add a link."""
        self._say(lambda span: span.add_link(context, attributes))

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        self._say(lambda span: span.update_name(name))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status."""
        self._say(lambda span: span.set_status(status, description))

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 (the API's signature)
    ) -> None:  # fmt: skip
        """Add the event of an exception."""
        at = timestamp or int(clock.wall() * 1e9)
        self._say(lambda span: span.record_exception(exception, attributes, at, escaped))

    def end(self, end_time: int | None = None) -> None:
        """End the span."""
        self._say(lambda span: span.end(end_time))

    def _mai_close(self, handle: TraceHandle[Any]) -> None:
        """Forget the span of a flow that was only repeated, and say so in its handle."""
        if self._span is None and handle.outcome != "replayed":
            handle.attributes = {**handle.attributes, names.REPLAYED: True}
