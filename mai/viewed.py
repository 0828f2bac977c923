"""The view methods of a `TraceHandle`: how a trace is looked through, and what it is turned into.

They stand below the core, so that handles inherit them, and import nothing until one is called; then `mai.views` does
the work.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from mai.core.trace import TraceHandle
    from mai.values.events import Outcome
    from mai.views.trace import TraceView


class CallTree:
    """A trace that can be walked through, and what its times, its outcome and the names of its parts say."""

    __slots__ = ()
    outcome: "Outcome"
    start_ns: int | None
    end_ns: int | None
    _n: int
    _zero: tuple[float, int] | None
    _span: tuple[int, int, int]

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1; calls that are no attempt of another have 1."""
        return max(1, -self._n)

    @property
    def duration(self) -> float | None:
        """How long the call took [s]; None while it runs and where the beginning is not known."""
        return None if self.end_ns is None or self.start_ns is None else (self.end_ns - self.start_ns) / 1e9

    @property
    def ok(self) -> bool:
        """Whether the call gave its value."""
        return self.outcome in ("ok", "replayed", "cached")

    @property
    def started_at(self) -> float | None:
        """Wall-clock time of the beginning [s since the epoch]; None where ``start_ns`` is."""
        if self.start_ns is None or self._zero is None:
            return None
        return self._zero[0] + (self.start_ns - self._zero[1]) / 1e9

    @property
    def trace_id(self) -> str | None:
        """The OpenTelemetry trace id as 32 hexadecimal digits; None if there was no live span."""
        return f"{self._span[0]:032x}" if self._span[0] else None

    @property
    def span_id(self) -> str | None:
        """The OpenTelemetry span id as 16 hexadecimal digits; None if there was no live span."""
        return f"{self._span[1]:016x}" if self._span[1] else None

    @property
    def traceparent(self) -> str | None:
        """The W3C ``traceparent`` header of the call's span; None if there was no live span."""
        return f"00-{self.trace_id}-{self.span_id}-{self._span[2]:02x}" if self._span[1] else None

    def walk(self) -> "Iterator[TraceHandle[Any]]":
        """Yield this handle and all below it, parents first."""
        stack: list[Any] = [self]
        while stack:
            handle = stack.pop()
            yield handle
            stack.extend(reversed(handle.children))

    def find(self, name: str = "", *, kind: str = "", outcome: "Outcome | None" = None) -> "list[TraceHandle[Any]]":
        """Return the handles in this tree that have all the given properties."""
        wanted = {"name": name, "kind": kind, "outcome": outcome}
        return [h for h in self.walk() if all(value in ("", None, getattr(h, key)) for key, value in wanted.items())]


class Viewed(CallTree):
    """A trace that can be looked at."""

    __slots__ = ()

    @property
    def _view(self) -> "TraceView":
        from mai.views.trace import TraceView  # noqa: PLC0415 (the one upward arrow: made when it is looked at)

        return TraceView(self)

    @property
    def self_time(self) -> float | None:
        """How long the call ran while no call inside it did [s]; None while it runs, and where some were not kept."""
        return self._view.self_time()

    @property
    def queue_time(self) -> float | None:
        """How long the call was ready and had to wait for its turn [s]; None where that is not known.

        A branch under a limit waits for its place before it begins, so that is no part of ``duration``. A plain
        ``forward`` waits for a worker thread after its call has begun. Not known: in a graph with a limit, and where
        ``start_ns`` is not.
        """
        return self._view.queue_time()

    def critical_path(self) -> "list[TraceHandle[Any]]":
        """Return the calls that the duration of this one was spent in, parents first and then by their beginning.

        Whatever is not in this list could have been slower without harm. Found by going back from the end: the call
        inside that ended last, before it the one that had ended last when that began, and so on, and the same in each.
        """
        return self._view.critical_path()

    def total(self, key: str) -> float:
        """Return the sum of an attribute over this call and all that are kept below; 0 where none has it.

        Args:
            key: An attribute with numbers, such as ``"gen_ai.usage.input_tokens"``; or one of ``"input_size"``,
                ``"output_size"``, ``"items"``, ``"dropped"``, ``"self_time"`` and ``"queue_time"``.
        """
        return self._view.total(key)

    def to_dict(self) -> dict[str, Any]:
        """Return this tree as plain data, its schema ``"mai.trace/1"``: a flat list of calls, parents first."""
        return self._view.to_dict()

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON in ASCII, *indent* spaces deep or on one line."""
        return self._view.to_json(indent)

    @staticmethod
    def from_dict(data: object) -> "TraceHandle[Any]":
        """Return the tree that `to_dict` gave *data* for. It can be looked at, and not be controlled.

        Raises:
            PayloadError: If *data* is something else; it says what and where.
        """
        from mai.views.trace import TraceView  # noqa: PLC0415 (as in _view)

        return TraceView.load(data)

    def to_otlp(self) -> bytes:
        """Return the tree as an ``ExportTraceServiceRequest`` of OTLP, in protobuf; it needs the extra ``otlp``."""
        return self._view.to_otlp()

    def print(self, file: TextIO | None = None) -> None:
        """Print the tree, in colour if *file* (standard output) is a terminal and rich is installed."""
        self._view.print(file)

    def mermaid(self) -> str:
        """Return a Mermaid Gantt chart, of the most important 200 calls if there are more."""
        return self._view.mermaid()

    def html(self) -> str:
        """Return a page with the waterfall of the calls, which needs nothing but itself: write it to a file."""
        return self._view.html()

    def _repr_html_(self) -> str:
        return self._view.embedded_html()

    def __str__(self) -> str:
        return self._view.tree()
