"""The event loop that the code of one flow runs on: it goes on only when the journal says so, and always in one order.

A journal that is read by position needs the flow to ask for the same things in the same order each time. So the flow
has a loop of its own, without a clock, files or threads: `FlowLoop.run` runs all that is ready, first come first
served, until everything waits; then whoever drives it gives it the next thing that the journal has, and lets it run
again. Everything that is built on tasks, futures and timers (composites, ``asyncio.gather``, ``asyncio.timeout``) works
on it unchanged.
"""

import asyncio
from asyncio import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, NoReturn

from mai.core.frame import Timer
from mai.errors import ConfigError

__all__ = ["FlowLoop"]


class FlowLoop(asyncio.AbstractEventLoop):
    """An event loop whose callbacks run one after the other, inside of a callback of the loop around.

    Size: what an event loop has to be is one list.

    Args:
        around: The loop of the process, in whose thread this one runs.
        later: Called with seconds and a handle, for a timer that user code sets: it `resume`-s the handle when the
            journal says that the time is over.
        nudge: Called when something has come from outside of the journal, from another loop or thread.
    """

    def __init__(
        self, around: asyncio.AbstractEventLoop, later: Callable[[float, asyncio.TimerHandle], object],
        nudge: Callable[[], object],
    ) -> None:  # fmt: skip
        self._around, self._later, self._nudge = around, later, nudge
        self._ready: deque[asyncio.Handle] = deque()
        self._now = 0.0  # only timers that have passed move it
        self._running = self._closed = False

    def run(self) -> None:
        """Run all that is ready, and what becomes ready by that; in a callback of the loop around, and in no task."""
        before, self._running = _get_running_loop(), True
        _set_running_loop(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            _set_running_loop(before)
            self._running = False

    def resume(self, handle: asyncio.TimerHandle) -> None:
        """Let a timer have passed."""
        self._now = max(self._now, handle.when())
        self._ready.append(handle)

    # ---------------------------------------------------------------- what asyncio asks of a loop

    def time(self) -> float:
        """Return seconds that only timers move, so that it is the same each time."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Put a callback behind those that are ready."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Take a callback from outside."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._around.call_soon_threadsafe(self._come, handle)
        return handle

    def _come(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        self._nudge()

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer; the deadline of a call is none: whoever repeats the call knows when it passes."""
        handle = asyncio.TimerHandle(self._now + delay, callback, args, self, context)
        if not isinstance(getattr(callback, "__self__", None), Timer):
            self._later(max(0.0, delay), handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer by the time of this loop."""
        return self.call_later(when - self._now, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a timer that has been cancelled is passed over."""

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **facts: Any) -> "asyncio.Task[Any]":
        """Return a task of this loop."""
        return asyncio.Task(coro, loop=self, **facts)

    def is_running(self) -> bool:
        """Say whether it runs."""
        return self._running

    def is_closed(self) -> bool:
        """Say whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Run nothing more."""
        self._closed = True
        self._ready.clear()

    def get_debug(self) -> bool:
        """Return False: what is looked at in debug mode is the time."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the loop around of an exception that nobody heard of."""
        self._around.call_exception_handler(context)


def _refused(name: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        hint = "what reads, writes or computes elsewhere belongs into a step: a Module without flow=True"
        raise ConfigError(f"loop.{name}() in a flow: what it gives would be another thing in each replay; {hint}")

    return refuse


for _name in (
    "add_reader", "add_signal_handler", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe",
    "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server",
    "getaddrinfo", "getnameinfo", "run_in_executor", "sendfile", "sock_accept", "sock_connect", "sock_recv",
    "sock_recv_into", "sock_sendall", "start_tls", "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(FlowLoop, _name, _refused(_name))
