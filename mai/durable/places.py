"""Places for runs: how many are carried on at once in this process."""

import asyncio

__all__ = ["Place", "Places"]


class Places:
    """Counts the runs that are carried on; who can wait is let in, in the order of arrival, while there are few enough.

    Attributes:
        most: While so many are taken, nobody is let in who can wait.
        taken: How many are; more than *most* where some could not wait.
    """

    def __init__(self, most: int) -> None:
        self.most: int = most
        self.taken: int = 0
        self._waiting: dict[object, asyncio.Future[bool]] = {}

    def is_full(self) -> bool:
        """Say whether one more would have to wait."""
        return self.taken >= self.most or bool(self._waiting)

    def take(self) -> None:
        """Take a place at once."""
        self.taken += 1

    def give(self) -> None:
        """Give a place back."""
        self.taken -= 1
        self._fill()

    async def turn(self, who: object) -> bool:
        """Wait for a place and take it; False: nobody is let in any more."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[who] = turn
        self._fill()
        try:
            return await turn
        except asyncio.CancelledError:
            self._waiting.pop(who, None)
            if not turn.cancelled() and turn.result():  # both came at once
                self.give()
            raise

    def admit(self, who: object) -> None:
        """Let one in who waits, now; if he does not wait, do nothing."""
        turn = self._waiting.pop(who, None)
        if turn is not None and not turn.done():
            self.taken += 1
            turn.set_result(True)

    def awaits(self, who: object) -> bool:
        """Say whether *who* waits for a place."""
        return who in self._waiting

    def close(self) -> None:
        """Let nobody in any more who waits."""
        while self._waiting:
            _, turn = self._waiting.popitem()
            if not turn.done():
                turn.set_result(False)

    def _fill(self) -> None:
        while self._waiting and self.taken < self.most:
            self.admit(next(iter(self._waiting)))


class Place:
    """The place of one run. One that was taken up from the journal can wait for it, until somebody waits for the run.

    Args:
        places: All of them.
        taken: Whether one was taken for it: then it was taken up from the journal.
    """

    def __init__(self, places: Places, *, taken: bool) -> None:
        self._places, self._taken, self._can_wait = places, taken, taken

    @property
    def waits(self) -> bool:
        """Whether it is waited for."""
        return self._places.awaits(self)

    async def take(self) -> None:
        """Take it, if it is not taken.

        Raises:
            asyncio.CancelledError: If nobody gets one any more.
        """
        if self._taken:
            return
        if not self._can_wait:
            self._places.take()
        elif not await self._places.turn(self):
            raise asyncio.CancelledError
        self._taken = True

    def give(self) -> None:
        """Give it back, if it is taken."""
        if self._taken:
            self._taken = False
            self._places.give()

    def hurry(self) -> None:
        """Wait for it no more, from now on."""
        self._can_wait = False
        self._places.admit(self)
