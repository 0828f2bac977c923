"""The control of a started run: what ``await handle``, ``handle.cancel()``, ``async for`` and the like act upon.

A run belongs to one event loop; its control may be used from every loop and thread.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from typing import Any, Generic, TypeVar, overload

import anyio

from ..errors import AskError, ConfigError, DeadlineExceeded, WouldDeadlock
from ..values.events import Chunk, Event, Question
from .events import Bell, Bus, settle
from .frame import current
from .threads import worker_loop

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
SKIP: Any = object()  # in the place of what a reader does not want


class Control(Bus):
    """A started run: its events, its task, its end.

    A failure that nobody hears of is logged when this is collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outer: Bus | None, *, apart: bool) -> None:
        super().__init__(outer)
        self.loop: asyncio.AbstractEventLoop = loop
        self.apart: bool = apart  # detached
        self.task: asyncio.Task[None] | None = None
        self.finish: Callable[[], object] = int  # ends this; set while the run goes on
        self.value: Any = None
        self.error: BaseException | None = None
        self.step_id: str = ""
        self.heard: bool = False
        self.process: int = os.getpid()

    def cancel(self) -> None:
        """Cancel the run, which may not even have begun; from any thread."""
        if asyncio._get_running_loop() is not self.loop:
            with suppress(RuntimeError):  # the loop was closed
                self.loop.call_soon_threadsafe(self.cancel)
        elif self.task is not None:
            self.task.cancel()

    def has_ended(self) -> bool:
        """Say whether the run has ended, which in a loop that was closed is now, as if it were cancelled."""
        if self.loop.is_closed() and not self.ended:
            self.finish()
        return self.ended

    def hear(self) -> None:
        """Note that somebody knows how the run ended."""
        self.heard = True

    def outcome(self) -> Any:
        """Return the value of a run that has ended, or raise its error."""
        self.hear()
        if self.error is not None:
            raise self.error
        return self.value

    def __del__(self) -> None:
        if self.error is not None and not (self.heard or isinstance(self.error, asyncio.CancelledError)):
            logging.getLogger("mai").error("run %s failed and nobody asked", self.step_id, exc_info=self.error)


async def join(runs: list[Control], error: BaseException | None = None) -> asyncio.CancelledError | None:
    """Wait until all *runs* have ended; after an *error* cancel them first, and return a cancel that came meanwhile."""
    cut = None
    for run in runs if error is not None else ():
        run.cancel()
    if isinstance(error, GeneratorExit):  # the coroutine was dropped: nothing can be awaited
        return None
    for run in runs:
        while not run.has_ended():
            try:
                with anyio.CancelScope(shield=error is not None):  # anyio repeats its cancels
                    await run.over.heard(run.has_ended)
            except asyncio.CancelledError as cancel:
                if error is None:
                    raise
                cut = cancel
    for run in runs:
        if error is None and not run.heard and isinstance(run.error, KeyboardInterrupt | SystemExit):
            run.outcome()  # raises it: the program is to end
    return cut


def _blocked(bell: Bell, ready: Callable[[], bool], timeout: float | None = None) -> bool:
    """Block this thread at *bell*, and lend its place to another one if it is a worker; say whether it is *ready*."""
    run = current().run
    with nullcontext() if worker_loop() is None or run is None else run.engine.threads.lent():
        return bell.wait(ready, timeout)


class Stream(Generic[T_co]):
    """What a started run tells, for ``async for`` and, where no event loop runs in this thread, for ``for``.

    Each loop is a reader of its own, from the oldest event that is kept. Leaving a loop early does not end the run.

    Raises:
        WouldDeadlock: By ``for`` in the thread of a running event loop.

    Example:
        >>> from collections.abc import Iterator
        >>> from mai import module
        >>> @module
        ... def words(text: str) -> Iterator[str]:
        ...     yield from text.split()
        >>> async for chunk in words.start("to be").chunks():
        ...     print(chunk)
        to
        be
    """

    def __init__(self, bus: Bus, pick: Callable[[Event], T_co], final: Callable[[], object]) -> None:
        self._parts: Any = bus, pick, final

    def __aiter__(self) -> "Reader[T_co]":
        return Reader(*self._parts)

    def __iter__(self) -> "Reader[T_co]":
        if asyncio._get_running_loop() is not None:
            raise WouldDeadlock("for would block the thread of a running event loop: write 'async for' instead")
        return Reader(*self._parts)


class Reader(AsyncIterator[T_co], Iterator[T_co]):
    """One loop over a `Stream`; it holds its place and nothing else.

    Attributes:
        dropped: How many events were gone before this reader came to them.
    """

    def __init__(self, bus: Bus, pick: Callable[[Event], T_co], final: Callable[[], object]) -> None:
        self.dropped: int = 0
        self._bus, self._pick, self._final, self._at, self._open = bus, pick, final, 0, True
        self._key = object()  # stands for this reader in the bus

    async def __anext__(self) -> T_co:
        while (value := self._take(StopAsyncIteration)) is SKIP:
            await self._bus.posted.heard(self._has_more)
        return value

    def __next__(self) -> T_co:
        while (value := self._take(StopIteration)) is SKIP:
            _blocked(self._bus.posted, self._has_more)
        return value

    async def aclose(self) -> None:
        """Do `close`."""
        self.close()

    def close(self) -> None:
        """Read no further, and let the generators go on that waited for this reader; from anywhere."""
        self._open = False
        self._bus.cursors.pop(self._key, None)
        self._bus.posted.ring()
        self._bus.read.ring()

    __del__ = close

    def _has_more(self) -> bool:
        return self._at < self._bus.count or self._bus.has_ended() or not self._open

    def _take(self, end: type[Exception]) -> T_co:
        """Return the next value, SKIP where there is none yet; raise *end* at the end."""
        bus = self._bus
        while self._open:
            ended = bus.has_ended()  # asked first: what comes before the end is read
            with bus.lock:
                oldest = bus.count - len(bus.events)
                self.dropped += max(0, oldest - self._at)
                self._at = max(oldest, self._at)
                event = bus.events[self._at - oldest] if self._at < bus.count else None
                self._at += event is not None
                bus.cursors[self._key] = self._at
                if not self._open:  # closed just now, by another thread
                    bus.cursors.pop(self._key, None)  # type: ignore[unreachable]
            if self._at == bus.count or not self._at & 7:  # not each time: it wakes all that wait
                bus.read.ring()
            if event is not None:
                if (value := self._pick(event)) is not SKIP:
                    return value
            elif not ended:
                return SKIP  # type: ignore[no-any-return]
            else:
                self.close()
                self._final()
        raise end


class Controlled(Generic[R_co]):
    """What a handle that ``start`` gave can do besides telling; on any other these raise ConfigError."""

    __slots__ = ()
    _control: Control | None

    def _started(self) -> Control:
        if self._control is not None:
            return self._control
        raise ConfigError(f"{self!r} was not given by start(), so it cannot be awaited, read, cancelled or answered")

    def _outside(self, *, settled: bool = False) -> Control:
        control, around = self._started(), current().env.bus
        # In forked children only, of which the measurement of coverage hears nothing.
        if not control.ended and control.process != os.getpid():  # pragma: no cover
            raise WouldDeadlock(f"{self!r} was started before this process was forked: its run goes on in the parent")
        for run in () if around is None or (control.ended and not settled) else (around, *around.around):
            if run is control:
                raise WouldDeadlock(f"{self!r} is waited for inside its own run, which would wait for itself")
            if run.apart and not settled:  # nobody waits for that one
                break
        return control

    def __await__(self) -> Generator[Any, Any, R_co]:
        control = self._outside()
        yield from control.over.heard(control.has_ended).__await__()
        return control.outcome()  # type: ignore[no-any-return]

    def result(self, timeout: float | None = None) -> R_co:
        """Block this thread until the run has ended and return its value, or raise its error.

        A step in a worker thread may do that too; its place goes to another thread meanwhile.

        Args:
            timeout: How long to wait at most [s]; None: until it ends.

        Raises:
            DeadlineExceeded: If it still runs after *timeout*; it goes on.
            WouldDeadlock: In the thread of a running event loop: ``await`` the handle there. Or inside the run itself.
            ConfigError: If the handle was not given by ``start``.
        """
        control = self._outside()
        if not control.has_ended() and asyncio._get_running_loop() is not None:
            raise WouldDeadlock("result() would block the event loop that it waits for: write 'await handle' instead")
        if not _blocked(control.over, control.has_ended, timeout):
            raise DeadlineExceeded(f"{self!r} has not ended after {timeout:g} s; it goes on", timeout=timeout)
        return control.outcome()  # type: ignore[no-any-return]

    async def settled(self) -> None:
        """Wait until the run and all detached work that was begun under it have ended, in whatever way.

        Raises:
            WouldDeadlock: Inside the run itself, or inside detached work of it.
            ConfigError: If the handle was not given by ``start``.
        """
        control = self._outside(settled=True)
        await control.over.heard(lambda: all(run.has_ended() for run in (control, *control.detached)))

    def cancel(self) -> None:
        """Cancel the run, from any thread; it does not wait for the end. A run that has ended stays as it is."""
        self._started().cancel()

    def __aiter__(self) -> Reader[Event]:
        return self._events().__aiter__()

    def __iter__(self) -> Reader[Event]:
        return self._events().__iter__()

    def _events(self) -> Stream[Event]:
        control = self._outside()
        return Stream(control, lambda event: event, control.hear)

    @overload
    def chunks(self: "Controlled[str]") -> Stream[str]: ...
    @overload
    def chunks(self: "Controlled[bytes]") -> Stream[bytes]: ...
    @overload
    def chunks(self: "Controlled[list[T]]") -> Stream[T]: ...
    @overload
    def chunks(self) -> Stream[Any]: ...
    def chunks(self) -> Stream[Any]:
        """Return the chunks of the streaming steps, for ``async for`` or ``for``.

        Of a streaming step inside another one only the outer is told. When the run has failed, its error is raised
        after the last chunk.

        Raises:
            WouldDeadlock: Inside the run itself, which cannot end while it waits for its end.
            ConfigError: If the handle was not given by ``start``.
        """
        control = self._outside()
        return Stream(control, lambda e: e.value if isinstance(e, Chunk) and not e.nested else SKIP, control.outcome)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions that wait for an answer, oldest first."""
        return tuple(question for question, _ in list(self._started().questions.values()))

    def answer(self, value: object, question: Question | None = None) -> None:
        """Answer a question of the run, from any thread.

        Args:
            value: The answer, cast to the type that was asked for.
            question: Which one; needed where several are open.

        Raises:
            AskError: If no question is open, several are and *question* is not given, or it is not open (any more).
            CastError: If *value* does not fit; the question stays open.
        """
        known = self._started().questions
        fit = [asked for asked in list(known.values()) if question is None or asked[0].id == question.id]
        if len(fit) != 1:
            prompts = ", ".join(repr(asked[0].prompt) for asked in list(known.values())) or "none"
            which = f"answer({value!r})" if question is None else f"answer({value!r}, question={question.prompt!r})"
            hint = "; say which with question=" if fit else ""
            raise AskError(f"{which} belongs to no single open question; open: {prompts}{hint}")
        (asked, turn), data = fit[0], fit[0][0].data(value)
        if known.pop(asked.id, None) is None:
            raise AskError(f"answer({value!r}): {asked.prompt!r} was answered already, or waits no more")
        settle(turn, data)
