"""How branches ended that did not all end by themselves, so that a replay ends them in the same way.

Where every branch runs to its end, their order does not matter. Where one of them ends the others (a failure, the
winner of a Race), it does: that one is recorded, and those that were cut off. In a replay it is held back until all
that was recorded has been repeated; then the others are cut off as they were.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mai.core.drive import DONE
from mai.core.frame import Frame
from mai.core.gather import Group, Slot, Work
from mai.values.casts import written

__all__ = ["Choice", "strands"]


class Choice:
    """A `Work` around the branches of one gather, which remembers how they ended, or repeats it."""

    def __init__(self, work: Work, record: bytes | None, defers: Callable[[Choice], bool]) -> None:
        self._work = work
        self.group: Group | None = None
        self._defers = defers  # asked when a branch is to end the others: whether they have a past to be repeated first
        self._open = set[Any]()  # those that have begun and not ended
        self._stops = list[Any]()  # the one that ended the others, and those that ended after it
        self._past: dict[str, list[Any]] | None = None if record is None else json.loads(record)
        self._held = dict[Any, tuple[Any, BaseException | None]]()
        self._feeds = work.feed is not None  # it is at work: it neither waits for a place nor has ended

    @property
    def feed(self) -> Any:
        """What makes branches ready, if anything has to."""
        return None if self._work.feed is None else self._feed

    async def _feed(self, room: Callable[[], Awaitable[bool]]) -> bool:
        async def waits() -> bool:
            self._feeds = False
            try:
                return await room()
            finally:
                self._feeds = True

        assert self._work.feed is not None
        try:
            return await self._work.feed(waits)
        finally:
            self._feeds = False

    def more(self) -> int:
        """Return how many branches are ready to be taken."""
        return self._work.more()

    def take(self, slot: Slot | None) -> tuple[Any, Frame | None, BaseException | None]:
        """Start the next ready branch."""
        key, frame, error = self._work.take(slot)
        if frame is not None and frame.y is not DONE:
            self._open.add(key)
        return key, frame, error

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        """Take the outcome of a branch; False cancels and joins the rest."""
        self._open.discard(key)
        if self._past is not None and key in self._past["cut"]:
            return True
        if self._past is not None and key in self._past["stops"]:
            self._held[key] = value, error
            return True
        goes_on, first = self._work.done(key, value, error), not self._stops
        if not goes_on or not first:
            self._stops.append(key)
        return goes_on or (first and self._defers(self))

    def live(self) -> int:
        """Return how many branches have begun and not ended; what makes them ready is one more, while it does."""
        return len(self._open) + self._feeds

    def is_ready(self) -> bool:
        """Say whether the branch has ended that is to end the others, or did."""
        return bool(self._stops) if self._past is None else self._past["stops"][0] in self._held

    def stop(self) -> bool:
        """Cut the others off; False: they have been already."""
        assert self.group is not None
        first = not self.group.stopped
        self.group.stop()
        return first

    def repeat(self) -> None:
        """Hand on what was held back, in the order in which it came."""
        for key in (self._past or {"stops": []})["stops"]:
            if key in self._held:
                self._work.done(key, *self._held[key])

    def data(self) -> bytes | None:
        """Return what is to be recorded; None where nothing is."""
        return written({"stops": self._stops, "cut": [*self._open]}).encode() if self._stops else None


def strands(choices: Iterable[Choice]) -> int:
    """Return how many branches of a run are live: one that has branches goes on in them."""
    return 1 + sum(choice.live() - 1 for choice in choices)
