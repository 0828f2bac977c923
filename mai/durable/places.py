"""Places for runs: how many are carried on at once in this process."""

import asyncio

__all__ = ["Places"]


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

    def close(self) -> None:
        """Let nobody in any more who waits."""
        while self._waiting:
            _, turn = self._waiting.popitem()
            if not turn.done():
                turn.set_result(False)

    def _fill(self) -> None:
        while self._waiting and self.taken < self.most:
            self.admit(next(iter(self._waiting)))
