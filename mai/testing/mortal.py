"""A journal whose process dies at one of its writes, and who remembers what it has acknowledged."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import UnknownRun
from .errors import Crash, DurabilityError

RECORDS = ("append", "take", "transact")
WRITES = ("create", "claim", *RECORDS, "release", "finish")
RUN_ID = "checked"


class Mortal:
    """A journal whose process dies at its write number *at* from 0, before or *after* it; then it does nothing more.

    It also dies where the disk below it does. What it has acknowledged is noted in *told*, which outlives it.
    """

    def __init__(
        self, journal: Any, names: tuple[str, ...], told: dict[str, Any], *, at: int = -1, after: bool = False
    ) -> None:
        self.journal: Any = journal
        self.names: tuple[str, ...] = names
        self.told: dict[str, Any] = told  # path: the record, None where only the journal has made it
        self.at: int = at
        self.after: bool = after
        self.count: int = 0
        self.owner: str = ""
        self.where: str = ""
        self.died: asyncio.Event = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.journal, name)
        if name in WRITES:
            return self._guarded(name, partial(self._done, name, method))
        return partial(self._done, name, method) if inspect.iscoroutinefunction(method) else method

    def _guarded(self, name: str, method: Any) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.where:
                raise Crash("this process is gone")
            after = self.after or name == "take"  # only then it shows whether there was something to take
            counts = name in self.names and not self._is_known(name, args)
            found = await method(*args, **kwargs) if after else None
            if counts and not (name == "take" and found is None):
                self.count += 1
                if self.count - 1 == self.at:
                    raise self.dead(f"{'after' if after else 'before'} {name} number {self.at + 1}")
            return found if after else await method(*args, **kwargs)

        return call

    def _is_known(self, name: str, args: tuple[Any, ...]) -> bool:
        """Say whether the run does not get on by this write, which comes each time that it is taken up.

        One only tells a trace of that; a transaction in a step that begins again is there already.
        """
        if name == "transact":
            return args[1].path in self.told
        return self.names == RECORDS and name == "append" and args[1].path.startswith("!segment/")

    async def _done(self, name: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            found = await method(*args, **kwargs)
        except Crash as crash:
            raise self.dead(f"in {name}, where {crash}") from None
        if self.where:
            return found
        if name == "append":
            self.told.setdefault(args[1].path, args[1])
        elif name == "transact":
            self.told.setdefault(found.path, found)
        elif name == "take" and found is not None:
            self.told.setdefault(args[1], None)
        return found

    def dead(self, where: str) -> Crash:
        """Die, if it lives, and return what is to be raised."""
        self.where = self.where or where
        self.died.set()
        return Crash(where)

    async def look(self) -> None:
        """Look whether all records that were acknowledged are there as they were.

        Raises:
            DurabilityError: If one is not.
        """
        if not self.told:
            return
        try:
            history: list[Any] = await self.journal.history(RUN_ID)
        except UnknownRun:
            history = []
        kept = {record.path: record for record in history}
        for path, told in self.told.items():
            found = kept.get(path)
            if found is None or (told is not None and replace(found, seq=told.seq) != told):
                raise DurabilityError(f"The record at {path!r} was acknowledged, and is not there as it was")

    async def close(self) -> None:
        """Close the journal, if there is still somebody to do it."""
        if not self.where:
            await self._done("close", self.journal.close)
