"""What a run waits for: times and signals. A run that does nothing else for a while is unloaded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mai.core.events import settle

__all__ = ["LATE", "Rest", "Rests"]

LATE: Any = object()  # the time is over


@dataclass(frozen=True, eq=False, slots=True)
class Rest:
    """A verb that waits.

    Attributes:
        path: Its path.
        due: When its time is over [s, wall-clock].
        signal: The signal that it waits for.
    """

    path: str
    due: float | None
    signal: str | None


AGAIN = 0.1  # seconds until a branch that does something of its own is looked at again, at least


class Rests:
    """The verbs of one run that wait; *unload* is called when there has been nothing else for *linger()* seconds.

    As many of them as there are live branches (*strands*) have to wait: a branch in none of them does something of its
    own, which would be begun anew.
    """

    def __init__(self, linger: Callable[[], float], unload: Callable[[], object], strands: Callable[[], int]) -> None:
        self.open: dict[asyncio.Future[Any], Rest] = {}
        self.busy: int = 0  # what does something else than to wait
        self._linger, self._unload, self._strands = linger, unload, strands
        self._moves = 0
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, seconds: float | None, rest: Rest) -> Any:
        """Wait for *seconds* (then LATE), or until `nudge`."""
        if seconds is not None and seconds <= 0:
            return LATE
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, partial(settle, future, LATE))
        self.open[future] = rest
        self.look()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            del self.open[future]
            self._moves += 1
            self.look()

    def nudge(self) -> None:
        """Let the verbs that wait for signals look."""
        for future, rest in list(self.open.items()):
            if rest.signal is not None:
                settle(future)

    def move(self, busy: int = 0) -> None:
        """Note that something else goes on: *busy* 1 begins, -1 ends."""
        self._moves += 1
        self.busy += busy
        if busy < 0:
            self.look()

    def look(self) -> None:
        """See whether there is nothing but waiting, in a while."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.open and not self.busy:
            self._timer = asyncio.get_running_loop().call_later(self._linger(), self._idle, self._moves)

    def _idle(self, mark: int) -> None:
        self._timer = None
        if any(future.done() for future in self.open):
            return  # who waited for it looks again when he goes on
        if self._moves != mark:
            self.look()
        elif self.open and not self.busy:
            if len(self.open) >= self._strands():
                self._unload()
            else:
                self._timer = asyncio.get_running_loop().call_later(max(AGAIN, self._linger()), self._idle, mark)

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
