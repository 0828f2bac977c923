"""Ctrl-C: the first one cancels the run and lets its cleanup end, a further one cancels the cleanup too."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mai.cli.output import failure_text, say

__all__ = ["Interrupt", "handling_sigint"]


class Interrupt:
    """The handler of SIGINT while a run goes on.

    It stands in for the handler of `asyncio.run`, which cannot tell an interrupt from the end of the loop and therefore
    not say at once that it was heard.

    Attributes:
        heard: Whether the run was cancelled by an interrupt.
        mid_line: Whether the cursor of the terminal stands in a line that a question has begun.
    """

    def __init__(self) -> None:
        self.heard: bool = False
        self.mid_line: bool = False
        self._cancel: Callable[[], object] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Cancel the run; raise KeyboardInterrupt if that was done before, or if there is no run."""
        if self.heard or self._cancel is None:
            raise KeyboardInterrupt
        self.heard = True
        self._cancel()

    async def drive(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await *call* in a task that an interrupt cancels.

        Raises:
            asyncio.CancelledError: After an interrupt (``heard``), when the cleanup of the steps has ended.
        """
        task = asyncio.ensure_future(call)
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            line_end, self.mid_line = "\n" if self.mid_line else "", False
            say(line_end + "mai run: interrupted, waiting for cleanup (Ctrl-C again cancels that too)")
            task.cancel()

        self._cancel = lambda: loop.call_soon_threadsafe(cancel)
        try:
            with _woken_by_signals(loop):
                return await task
        except Exception as error:
            if not self.heard:
                raise
            say(failure_text(error, with_traceback=False))
            raise asyncio.CancelledError from error
        finally:
            self._cancel = None


@contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Wake *loop* at each signal.

    Python runs a handler when it runs code of the main thread again. A signal that arrives just before the loop begins
    to wait would be heard only when something else wakes the loop, which may be never.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # on Windows asyncio does it
        return
    inner, outer = socket.socketpair()
    with inner, outer:
        inner.setblocking(False)  # noqa: FBT003 (takes no keyword)
        outer.setblocking(False)  # noqa: FBT003
        loop.add_reader(inner, inner.recv, 4096)
        before = signal.set_wakeup_fd(outer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(inner)


@contextmanager
def handling_sigint(interrupt: Interrupt) -> Generator[None]:
    """Let *interrupt* handle SIGINT in the block, if that is this thread's to do and nobody else's already."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
