"""The watchdog: it says which step blocks an event loop.

While one step computes without awaiting, no timeout fires and nothing else goes on, and nothing in the loop can tell.
So a thread looks, ten times a second, at what the threads of the process do. Two looks in a row that find a loop in one
and the same callback, inside a step, make one warning that names the step. Calls pay nothing for it. Between two looks
it keeps a path and a weak reference, no frame and no value; without a running loop it soon ends.
"""

import gc
import logging
import re
import sys
import threading
from contextlib import suppress
from os.path import commonprefix
from types import FrameType
from typing import Any
from weakref import ref

from .clock import clock
from .frame import Frame
from .threads import start_thread, thread_owners

_REST = 50  # looks without a running loop after which the thread ends


class Watchdog:
    """One for the process; it wakes with a run and rests when no loop has run for a while.

    It looks each *period* [s]: what blocks for less is not seen, what blocks for twice that always is.
    """

    def __init__(self, period: float = 0.1) -> None:
        self.period: float = period
        self.forget()

    def forget(self) -> None:
        """Look no more, until `wake`."""
        self.resting: list[bool] = [True]  # whoever pops it starts the thread
        # By thread: the asyncio.Handle of the callback, the path of its step, and since when; None: it has been told.
        self._seen: dict[int, tuple[ref[Any], str, float | None]] = {}

    def wake(self) -> None:
        """Start to look."""
        with suppress(IndexError, RuntimeError):  # another thread has just done so; or there can be no more threads
            self.resting.pop()
            start_thread(self._work, "mai-watchdog")

    def _work(self) -> None:
        shut, idle = threading.Lock(), 0
        shut.acquire()
        while idle < _REST:
            shut.acquire(timeout=self.period)  # the cheapest of pauses
            idle = 0 if self.look() else idle + 1
        self.forget()

    def look(self) -> bool:
        """Look once; say whether a loop runs in any thread.

        No garbage is collected meanwhile: in Python 3.11 a collection may come while a frame is looked up, and what it
        runs may let the other thread go on, so that the frame is gone and its memory is taken for one.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            return self._look()
        finally:
            if collects:
                gc.enable()

    def _look(self) -> bool:
        before, self._seen, running = self._seen, {}, False
        for thread, frame in sys._current_frames().items():
            callback, path = _sight(frame)
            running = running or callback is not None
            if not path or callback is None:
                continue
            known, earlier, since = before.get(thread, (None, "", None))
            if known is None or known() is not callback:
                self._seen[thread] = ref(callback), path, clock.now()
                continue
            step = "" if since is None else _common(earlier, path)
            self._seen[thread] = known, path, None if step else since
            if since is not None and step:
                what = "nothing else runs and no timeout fires meanwhile; make its forward a plain function"
                text = f"Step %r has blocked the event loop for %.1f s so far: {what}, which runs in a thread"
                logging.getLogger("mai").warning(text, step, clock.now() - since)
        return running


def _sight(frame: FrameType | None) -> tuple[Any, str]:
    """Return what a loop runs on the stack that ends in *frame* (itself between two callbacks), and in which step."""
    path = ""
    while frame is not None:
        code = frame.f_code
        if code.co_qualname in ("Handle._run", "BaseEventLoop._run_once"):
            return frame.f_locals.get("self"), path
        if not path and code.co_name in ("quick", "_whole") and isinstance(f := frame.f_locals.get("f"), Frame):
            path = f.path
        frame = frame.f_back
    return None, ""


def _common(one: str, other: str) -> str:
    """Return the path of the step that both are in: a callback may run many steps, none of which takes long."""
    return "".join(commonprefix([re.split(r"(?=[/[])", path) for path in (one, other)]))  # noqa: RUF071 (of lists)


watchdog: Watchdog = Watchdog()
thread_owners.add(watchdog)
