"""Turns: the code of a flow goes on, until all of it waits, each time that the journal has one thing more for it.

Bodies of steps run meanwhile, at the same time, on the loop of the process; what comes of them is a thing that the
journal has. So the order in which a flow asks for things hangs on the order of the journal alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from mai.core.recorded import Suspended
from mai.durable.restate.loop import FlowLoop
from mai.errors import MaiError

__all__ = ["Cancelled", "Commands", "Durable", "Mismatch", "Turns"]

Durable = Any  # what stands for a command that was given, and for its completion later on: hashable
_ROUNDS = 1000  # turns that code has to end which is not to go on


class Cancelled(Exception):
    """The run is to be cancelled; told once."""


class Mismatch(MaiError):
    """The code asks for something else than the journal has there; nobody gets to see it."""


class Commands(Protocol):
    """What the turns ask of a journal that is read by position. Each may raise `Mismatch`."""

    def run(self, name: str, action: Callable[[], Awaitable[bytes]]) -> Durable:
        """Run *action* if nothing is on record; complete with what it gave."""
        ...

    def sleep(self, name: str, seconds: float) -> Durable:
        """Complete after *seconds* from when it was first asked for."""
        ...

    def promise(self, name: str) -> Durable:
        """Complete with the bytes that somebody gives for *name*."""
        ...

    def set(self, key: str, data: bytes) -> None:
        """Let *data* be what others see of the run."""
        ...

    async def wait(self, durables: Sequence[Durable]) -> list[tuple[Durable, bytes]]:
        """Wait until some are complete, and return those, in the order of *durables*.

        Raises:
            Cancelled: If the run is to be cancelled.
        """
        ...


class Turns:
    """Drives the code of one flow.

    Attributes:
        loop: The loop that it runs on.
        stopped: Why it may not go on: then whatever it waits for ends with Suspended.
        cancelled: Whether it was told to end.
    """

    def __init__(self, commands: Commands) -> None:
        self.around: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.commands = commands
        self.loop: FlowLoop = FlowLoop(self.around, self._later, self._nudge)  # type: ignore[abstract]  # what it lacks is refused
        self.stopped: BaseException | None = None
        self.cancelled: bool = False
        self._waits: dict[Durable, asyncio.Future[Any]] = {}
        self._outside = asyncio.Event()

    # ---------------------------------------------------------------- for the code of the flow

    def expect(self, give: Callable[[], Durable]) -> "asyncio.Future[Any]":
        """Give a command, and return what will have its completion.

        Raises:
            Suspended: If the flow may not go on, or the journal has something else here.
        """
        if self.stopped is not None:
            raise Suspended
        try:
            durable = give()
        except Mismatch as error:
            raise self.stop(error) from error
        future = self.loop.create_future()
        self._waits[durable] = future
        future.add_done_callback(lambda _: self._waits.pop(durable, None))
        return future

    def stop(self, why: BaseException) -> Suspended:
        """Let everything end with Suspended, which is returned."""
        if self.stopped is None:
            self.stopped = why
            for future in list(self._waits.values()):
                if not future.done():
                    future.set_exception(Suspended())
                    future.exception()  # nobody need hear of it
        return Suspended()

    def _later(self, seconds: float, handle: asyncio.TimerHandle) -> None:
        """Let a timer of user code pass when the journal says so."""
        with suppress(Suspended):
            future = self.expect(partial(self.commands.sleep, "timer", seconds))
            future.add_done_callback(lambda done: None if done.exception() else self.loop.resume(handle))

    # ---------------------------------------------------------------- for whoever drives it

    async def drive(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run *main* to its end, and return its value or raise its error; or raise why it could not be driven there."""
        task = self.loop.create_task(main, context=Context())
        try:
            await self._turn()
            while not task.done() and self.stopped is None:
                await self._next(task)
        except BaseException as error:  # noqa: BLE001 (raised when all has ended)
            self.stop(error)
        if self.stopped is not None:
            await self._unwind(task)
            raise self.stopped
        self.loop.close()
        return task.result()

    async def _next(self, task: "asyncio.Task[Any]") -> None:
        """Wait for the next thing, and let the flow go on with it."""
        try:
            found = await self._found()
        except Cancelled:
            self.cancelled = True
            self.loop.call_soon(task.cancel)
            await self._turn()
            return
        for durable, value in found or [(None, None)]:
            future = self._waits.get(durable)
            if future is not None and not future.done():
                future.set_result(value)
            await self._turn()

    async def _found(self) -> list[tuple[Durable, Any]]:
        """Return what the journal has; nothing if something has come from outside instead."""
        if not self._waits:
            await self._outside.wait()
            return []
        waiting = asyncio.ensure_future(self.commands.wait([*self._waits]))
        outside = asyncio.ensure_future(self._outside.wait())
        try:
            await asyncio.wait([waiting, outside], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            return []
        finally:
            for one in (waiting, outside):
                one.cancel()
            await asyncio.wait([waiting, outside])

    def _nudge(self) -> None:
        self._outside.set()

    async def _turn(self) -> None:
        """Let the flow run until all of it waits: in a callback, since a task may not run inside of another."""
        turn = self.around.create_future()
        self.around.call_soon(self._run, turn)
        await turn

    def _run(self, turn: "asyncio.Future[None]") -> None:
        self._outside.clear()
        try:
            self.loop.run()
        except BaseException as error:  # noqa: BLE001 (whatever ends the program is raised where it can be)
            if not turn.cancelled():
                turn.set_exception(error)
        else:
            if not turn.cancelled():
                turn.set_result(None)

    async def _unwind(self, main: "asyncio.Task[Any]") -> None:
        """Let everything end that began, through any cancel."""
        for _ in range(_ROUNDS):
            with suppress(asyncio.CancelledError):
                await self._turn()
            left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
        if main.done() and not main.cancelled():
            main.exception()  # Suspended, as a rule
        self.loop.close()
