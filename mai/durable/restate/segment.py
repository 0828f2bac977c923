"""The segments of a run on Restate: each attempt to carry it on in which something new begins.

The server does not count them, and keeps nothing for them. So the first entry that a segment makes says which one it
is, and where its root span is; whoever repeats that entry links to it.
"""

from typing import Any

from opentelemetry import context as otel
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mai.core.frame import Frame
from mai.core.trace import TraceHandle, noted
from mai.durable.segments import Deferred, Opening, Segment, linked
from mai.values import names

__all__ = ["RestateSegment"]

_CARRIER = TraceContextTextMapPropagator()


class RestateSegment(Segment):
    """One attempt to carry a run on.

    Args:
        handle: Of the run.
        is_flow: Whether there can be several of it; else it is one step.
    """

    def __init__(self, handle: TraceHandle[Any], *, is_flow: bool) -> None:
        super().__init__(handle, None if is_flow else 1)
        self._number = 1
        self._earlier = ""  # the root span of the segment before, as a W3C traceparent
        self._mark: str | None = None
        self._root: Frame | None = None

    def repeated(self, mark: str | None) -> None:
        """Take note of a step that was on record, with what its entry says of its segment."""
        self.count()
        if mark is not None:
            number, _, self._earlier = mark.partition(" ")
            self._number = int(number) + 1

    def spanned(self, f: Frame, opening: Opening, *, replaying: bool) -> otel.Context | None:
        """Open the span of the flow *f*, or put off to open it; before that of the run is open, its links are known."""
        if f.handle is not self.handle:
            return super().spanned(f, opening, replaying=replaying)
        self._root = f
        return super().spanned(f, lambda: self._open(f, opening), replaying=replaying)

    def live(self, f: Frame) -> None:
        """Note that something new begins in *f*."""
        super().live(f)
        if self._root is not None and isinstance(self._root.span, Deferred):
            self._root.span.open()

    def mark(self) -> str | None:
        """Return, once, what an entry is to say of the segment."""
        mark, self._mark = self._mark, None
        return mark

    def _open(self, f: Frame, opening: Opening) -> otel.Context | None:
        """Open the root span, below whoever began the run; linked to that of the segment before."""
        context = opening()
        if context is None:
            return None
        span, carrier = get_current_span(context), dict[str, str]()
        noted(f, {names.RUN_SEGMENT: self._number})
        span.set_attribute(names.RUN_SEGMENT, self._number)
        if self._earlier:
            earlier = get_current_span(_CARRIER.extract({"traceparent": self._earlier}, context=otel.Context()))
            linked(self.handle, span, earlier, "resumed_from")
        _CARRIER.inject(carrier, context=context)
        self._mark = f"{self._number} {carrier['traceparent']}"
        return context
