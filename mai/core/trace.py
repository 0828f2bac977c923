"""The TraceHandle: what a call leaves behind, and `capture`, which collects the handles of the calls inside a block."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry.trace import Span

from ..values.casts import DIGITS, LEAST, size_of
from ..values.checked import UNSET
from ..values.events import ErrorInfo, Outcome, TraceEvent, TraceLink
from ..viewed import Viewed
from .clock import clock
from .control import Control, Controlled
from .frame import Frame, Scope

R_co = TypeVar("R_co", covariant=True)
MAX_CHILDREN = 1000


@dataclass(init=False, eq=False, repr=False)
class TraceHandle(Controlled[R_co], Viewed):
    """The record of one call: when, how long, what came of it, and the calls inside it.

    It is made for every call that something observes (`capture`, a live OpenTelemetry span, a failure, an observed
    parent); it holds no inputs, no outputs and no tracebacks. Read it; do not write to it.

    The handle that ``module.start(...)`` gives also controls the run: ``await handle`` (or ``handle.result()`` in sync
    code) gives the value, ``async for event in handle`` tells what happens. A cancelled ``await`` does not cancel the
    run; ``handle.cancel()`` does. If it fails and nobody asks, the logger ``mai`` tells so when the handle is dropped.

    Attributes:
        name: Name of the step.
        kind: ``"module"``, ``"sequential"``, ``"parallel"``, ``"conditional"``, ...
        module: Qualified name of the class or function.
        parent: The handle of the call around, or None.
        children: Handles of the calls inside, in the order in which they began; at most 1,000.
        dropped: Number of further calls inside that are not in ``children``.
        start_ns: Beginning [ns, monotonic]; None if nothing observed the call before it failed.
        end_ns: End [ns, monotonic]; None while it runs.
        outcome: ``"running"``; ``"ok"``; ``"error"``; ``"timeout"``, a deadline passed; ``"cancelled"``;
            ``"abandoned"``, what drove the call was dropped or closed; ``"skipped"``, a step of a graph that could not
            begin, while the graph went on; ``"suspended"``, it left memory under a durable engine; ``"replayed"`` and
            ``"cached"``, the value was known already.
        input_size: JSON length of the input [bytes], exact, or None where it was not measured.
        output_size: The same of the value.
        items: ``len()`` of a value that has one and whose size was not measured.
        attributes: Facts of the step, such as ``mai.parallel.width``, and of the call, such as ``mai.decision``.
        events: What happened in the call at some moment, oldest first; the first 128.
        links: Spans that belong to the call and are not around it.

    Example:
        >>> from mai import capture, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> with capture() as trace:
        ...     (shout >> str.title).run("hello")
        'Hello'
        >>> [handle.step_id for handle in trace.runs[0].walk()]
        ['Sequential', 'Sequential/shout', 'Sequential/title']
    """

    # What a call does not set is read off the class: to fill a place costs a twentieth of a bare await.
    name: str
    kind: str
    module: str
    parent: "TraceHandle[Any] | None"
    attributes: Mapping[str, Any]
    _key: str
    _n: int
    outcome: Outcome = "running"
    start_ns: int | None = None
    end_ns: int | None = None
    _error: ErrorInfo | None = None
    _control: Control | None = None
    input_size: int | None = None
    output_size: int | None = None
    items: int | None = None
    events: Sequence[TraceEvent] = ()
    links: Sequence[TraceLink] = ()
    children: "Sequence[TraceHandle[Any]]" = ()
    dropped: int = 0
    _base: str = ""  # path of what is around the topmost handle, which need not be observed
    _zero: tuple[float, int] | None = None  # when the topmost handle began: wall-clock time, and start_ns
    _span: tuple[int, int, int] = (0, 0, 0)  # the ids of the OpenTelemetry span, and its flags
    _queued: int = 0  # how long it waited for a worker thread [ns]

    @property
    def step_id(self) -> str:
        """Lexical path of the call."""
        path, handle = "", self
        while True:
            path = (f"{handle._key}~{handle._n}" if handle._n > 1 else handle._key) + path
            if handle.parent is None:
                return (handle._base + path).removeprefix("/")
            handle = handle.parent

    @property
    def error(self) -> ErrorInfo | None:
        """What failed, or None; who has read it knows of the failure."""
        if self._control is not None and self._error is not None:
            self._control.hear()
        return self._error

    def __repr__(self) -> str:
        return f"<TraceHandle {self.step_id} {self.outcome}, {len(self.children)} children>"


def open_handle(frame: Frame, parent: Any, spec: Any, attrs: Any = None, value: Any = UNSET) -> TraceHandle[Any]:
    """Make the handle of the call *frame* and link it to *parent*; a call with a *value* begins now.

    Where *parent* is a Scope, the handle is linked to that of its owner, and its captures are told.
    """
    others = () if parent is None else parent.children
    if not others and type(parent) is Scope:
        first = open_handle(frame, parent.handle, spec, attrs, value)
        collect(first, frame, parent.owner)
        return first
    h: TraceHandle[Any] = TraceHandle()
    h.name, h.kind, h.module = spec.what
    h._key, h._n = frame.key, frame.n
    h.attributes = spec.facts if not attrs else {**spec.facts, **attrs} if spec.facts else attrs  # never written to
    h.parent = parent
    if parent is None:
        h._base = "" if frame.parent.mod is None else "/" + frame.parent.path
    elif not others:
        parent.children = [h]
    elif len(others) < MAX_CHILDREN:
        others.append(h)
    else:
        parent.dropped += 1
    if value is not UNSET:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is int and (bits := value.bit_length()) < 64 and value >= 0:  # what `size_of` does, without a call
            h.input_size = DIGITS[bits] if value >= LEAST[bits] else DIGITS[bits] - 1
        else:
            h.input_size = len(value) if kind is str and value.isascii() else size_of(value, spec.signature.takes, None)
        h.start_ns = ticks = clock.ticks()
        h._zero = (clock.wall(), ticks) if parent is None else parent._zero
    return h


def note_span(h: TraceHandle[Any], span: Span) -> None:
    """Keep the ids of the span of the call."""
    ids = span.get_span_context()
    h._span = ids.trace_id, ids.span_id, ids.trace_flags


def collect(h: TraceHandle[Any], frame: Frame, owner: Frame) -> None:
    """Give *h* to the captures between the call *frame* and the call *owner* around it."""
    sink = frame.env.sink
    while sink is not None and sink is not owner.env.sink:
        sink.runs.append(h)
        sink = sink.outer


def begun(h: TraceHandle[Any]) -> None:
    """Start the clock of *h*."""
    h.start_ns = clock.ticks()
    h._zero = (clock.wall(), h.start_ns) if h.parent is None else h.parent._zero


def succeeded(h: TraceHandle[Any], value: Any, spec: Any, sink: Any) -> None:
    """Close *h* now, and measure the value that the call gave."""
    h.end_ns = clock.ticks()
    h.outcome = "ok"
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is int and (bits := value.bit_length()) < 64 and value >= 0:
        h.output_size = DIGITS[bits] if value >= LEAST[bits] else DIGITS[bits] - 1
        return
    size = h.output_size = len(value) if kind is str and value.isascii() else size_of(value, spec.cast_out.tp, sink)
    if size is None and hasattr(type(value), "__len__"):  # pyright: ignore[reportUnknownArgumentType]
        with suppress(Exception):  # a length that fails is none
            h.items = len(value)


def noted(frame: Frame, facts: Mapping[str, Any]) -> None:
    """Add *facts* to the handle of the call *frame*, if it has one."""
    if frame.handle is not None:
        frame.handle.attributes = {**frame.handle.attributes, **facts}


def ended(h: TraceHandle[Any], outcome: Outcome) -> None:
    """Close *h* now, without a value."""
    h.outcome = outcome
    if h.start_ns is not None:
        h.end_ns = clock.ticks()
