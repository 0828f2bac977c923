"""What a started run tells while it goes on: one frozen event for each thing that happens, in order.

Calls under a started run find its `Bus` in their frame's environment and post to it; where there is none, nothing is
made. Posting never waits, and never fails a step; only the chunks of a generator wait, and only for readers that are
there: it is driven by its call's own task, or in one worker thread, and never by a reader. Who waits, in whatever loop
or thread, waits at a `Bell`.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, closing, suppress
from functools import partial
from typing import Any

from ..values.events import Chunk, Emitted, Event, TraceEvent
from ..values.names import FIRST_CHUNK
from .clock import clock
from .frame import Frame, current
from .threads import offload, scheduling

MAX_EVENTS = 1024  # the newest ones are kept, the rest is counted
MAX_TRACE_EVENTS = 128  # of one call
AHEAD = 16  # as many events a generator may be ahead of its slowest reader


def happened(f: Frame, name: str, **attributes: Any) -> None:
    """Add an event to the handle of the call *f*, if it has one, and room for it."""
    h = f.handle
    if h is not None and len(h.events) < MAX_TRACE_EVENTS:
        h.events = (*h.events, TraceEvent(clock.ticks(), name, attributes))


def settle(turn: "asyncio.Future[Any]", value: Any = None) -> None:
    """Give *turn* its value; from any thread."""
    if asyncio._get_running_loop() is not (loop := turn.get_loop()):
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            loop.call_soon_threadsafe(settle, turn, value)
    elif not turn.done():
        turn.set_result(value)


_LOOK = 1.0  # seconds


class Bell:
    """Wakes all who wait for a change, in any loop or thread.

    Who waits looks once more after it has put itself on the list, so no change is missed; that needs no lock, and a
    bell may be rung where the garbage collector runs.
    """

    def __init__(self) -> None:
        self._wakes: list[Callable[[], object]] = []

    def ring(self) -> None:
        """Let everybody who waits look again."""
        wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    async def heard(self, ready: Callable[[], bool]) -> None:
        """Wait until *ready*, which is asked after each ring."""
        while not ready():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakes.append(wake := partial(settle, turn))
            try:
                if not ready():
                    await turn
            finally:
                self._forget(wake)

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Block this thread until *ready*, at most *timeout* seconds; say whether it is.

        It looks now and then by itself: a loop that is closed rings no bell.
        """
        until = None if timeout is None else clock.now() + timeout
        rung = True
        while rung and not ready():
            gate = threading.Event()
            self._wakes.append(wake := gate.set)
            if not ready():
                left = scheduling.until(gate.is_set, None if until is None else until - clock.now())
                look = _LOOK if left is None else min(left, _LOOK)
                rung = gate.wait(look) or look == _LOOK
            self._forget(wake)
        return rung or ready()

    def _forget(self, wake: Callable[[], object]) -> None:
        with suppress(ValueError):  # it was rung
            self._wakes.remove(wake)


class Bus:
    """The events of one started run, and who reads them; *outer* is the bus of the run around."""

    def __init__(self, outer: "Bus | None" = None) -> None:
        self.around: tuple[Bus, ...] = () if outer is None else (outer, *outer.around)
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.count: int = 0  # all that were ever posted
        self.ended: bool = False
        self.cursors: dict[object, int] = {}  # how far each reader has read; by a key, so that readers can be dropped
        self.posted: Bell = Bell()
        self.read: Bell = Bell()
        self.over: Bell = Bell()
        self.questions: dict[str, tuple[Any, ...]] = {}  # by their ids, the open ones
        self.detached: set[Any] = set()  # runs below that this one does not wait for
        self.lock: threading.Lock = threading.Lock()

    def post(self, event: Event) -> int:
        """Add *event*, the oldest one makes room; return its number, from 1."""
        with self.lock:
            self.events.append(event)
            self.count += 1
            number = self.count
        self.posted.ring()
        return number

    def end(self) -> None:
        """Let the readers end when they have read what is left."""
        self.ended = True
        for bell in (self.posted, self.read, self.over):
            bell.ring()

    def has_ended(self) -> bool:
        """Say whether the run has ended."""
        return self.ended

    def has_room(self, number: int) -> bool:
        """Say whether no reader is too far behind the event *number*."""
        return self.ended or all(cursor > number - AHEAD for cursor in list(self.cursors.values()))


def post(kind: Callable[..., Event], *facts: Any, frame: Frame | None = None) -> int:
    """Tell the started run around, if there is one, of an event of the step that runs now (or of *frame*)."""
    f = frame or current()
    bus: Bus | None = f.env.bus
    return 0 if bus is None else bus.post(kind(f.path, max(1, -f.n), *facts))


def emit(value: object) -> None:
    """Tell the readers of the started run around of *value*, as an `Emitted` event; anywhere else, do nothing.

    It never waits: where readers are slow, the newest 1,024 events are kept.

    Args:
        value: Anything.

    Example:
        >>> from mai import emit, module
        >>> from mai.types import Emitted
        >>> @module
        ... async def search(query: str) -> str:
        ...     emit(f"searching {query}")
        ...     return query.upper()
        >>> handle = search.start("x")
        >>> [event.value async for event in handle if isinstance(event, Emitted)], await handle
        (['searching x'], 'X')
    """
    post(Emitted, value)


async def drain(stream: Callable[[], Any]) -> list[Any]:
    """Drive an async generator in this task to its end, and close it whatever happens."""
    f, chunks = current(), list[Any]()
    bus, nested = f.env.bus, _is_nested(f)
    async with aclosing(stream()) as source:
        async for chunk in source:
            number = _keep(f, chunks, chunk, nested=nested)
            if bus is not None:
                await bus.read.heard(lambda number=number: bus.has_room(number))
    return chunks


async def drain_in_thread(stream: Callable[[], Any]) -> list[Any]:
    """Drive a generator in one worker thread; after a cancel it is closed there when it gives its next chunk."""
    f, chunks, gone = current(), list[Any](), threading.Event()
    bus, nested = f.env.bus, _is_nested(f)

    def drive() -> None:
        with closing(stream()) as source:
            for chunk in source:
                if gone.is_set():
                    return
                number = _keep(f, chunks, chunk, nested=nested)
                if bus is not None:
                    bus.read.wait(lambda number=number: gone.is_set() or bus.has_room(number))

    try:
        await offload(drive)
    except asyncio.CancelledError:
        gone.set()
        if bus is not None:
            bus.read.ring()
        raise
    return chunks


def _keep(f: Frame, chunks: list[Any], chunk: Any, *, nested: bool) -> int:
    """Add *chunk* to *chunks* and tell of it; return the number of the event."""
    if not chunks:
        happened(f, FIRST_CHUNK)
    chunks.append(chunk)
    return post(Chunk, chunk, len(chunks) - 1, nested, frame=f)


def _is_nested(f: Frame) -> bool:
    """Say whether a call around streams too, in the same started run; asked only where it is told."""
    f = f.parent if f.n < 0 else f  # from an attempt to its call
    while (bus := f.env.bus) is not None and (f := f.parent).env.bus is bus:
        if f.n >= 0 and "generator" in f.mod._mai_spec.colour:
            return True
    return False
