"""The engines with a journal, as benches of the conformance suite; and journals that fail where a test wants it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mai.durable import DurableEngine, MemoryJournal, SQLiteJournal
from tests.durable.conformance import Outcome, outcome
from tests.support import simulate

WRITES = ("append", "take", "transact")
STEPS = ("create", "claim", "release", "finish")


class Crash(BaseException):
    """The process is gone."""


class Mortal:
    """A journal whose process is killed at one of its writes; nothing is written after that."""

    def __init__(self, journal: Any, *, at: int = -1, after: bool = False, names: tuple[str, ...] = WRITES) -> None:
        self.journal, self.at, self.after, self.names = journal, at, after, names
        self.count, self.dead = 0, False
        self.killed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.journal, name)
        return self._guarded(name, method) if name in WRITES + STEPS else method

    def _guarded(self, name: str, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Crash
            hit = False
            after = self.after or name == "take"  # whether there is a signal shows only when it is taken
            found = await method(*args, **kwargs) if after else None
            if name in self.names and not (name == "take" and found is None):
                hit = self.count == self.at
                self.count += 1
            if hit:
                self.dead = True
                self.killed.set()
                raise Crash
            return found if after else await method(*args, **kwargs)

        return call

    async def close(self) -> None:
        """The process does not tidy up."""
        if not self.dead:
            await self.journal.close()


class JournalBench:
    """What the benches of all journals share."""

    journal: Any
    settings: Mapping[str, Any] = {}

    def mortal(self) -> Any:
        """Return the journal of one more process."""
        return self.journal

    async def lose(self, engine: DurableEngine) -> None:
        """End the process of *engine*: its leases are over."""

    @asynccontextmanager
    async def engine(self, *modules: Any, journal: Any = None, **settings: Any) -> AsyncIterator[DurableEngine]:
        """Return the engine of one more process."""
        engine = DurableEngine(journal or self.mortal(), modules=modules, **{**self.settings, **settings})
        try:
            async with engine:
                yield engine
        finally:
            await self.lose(engine)

    async def killed(
        self, m: Any, x: Any, run_id: str, at: int, *, after: bool = False, names: tuple[str, ...] = WRITES,
        during: Any = None, **settings: Any,
    ) -> Outcome | None:  # fmt: skip
        """Run, or carry on, ``m(x)`` in a process that is killed at write *at*; None: it was, else what came of it."""
        mortal = Mortal(self.mortal(), at=at, after=after, names=names)
        found: Outcome | None = None
        ended: Any = None
        with suppress(Crash):
            async with self.engine(journal=mortal, **settings) as engine:
                handle = engine.start(m, x, run_id=run_id)
                busy = None if during is None else asyncio.ensure_future(during(engine))
                ended, dead = asyncio.ensure_future(outcome(handle)), asyncio.ensure_future(mortal.killed.wait())
                await asyncio.wait([ended, dead], return_when=asyncio.FIRST_COMPLETED)
                dead.cancel()
                if busy is not None:
                    busy.cancel()
                if mortal.dead:
                    raise Crash
                found = await ended
        await asyncio.wait([ended])
        if found is None and not ended.cancelled():
            ended.exception()  # heard of
        return found

    async def interrupted(self, m: Any, x: Any, run_id: str, during: Any) -> Outcome:
        """Kill the process after each single record."""
        for _ in range(1000):
            found = await self.killed(m, x, run_id, 0, after=True, during=during)
            if found is not None:
                return found
        raise AssertionError("the run does not get on")


class MemoryBench(JournalBench):
    """A `MemoryJournal`, in simulated time."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        simulate(main)  # type: ignore[arg-type]

    async def lose(self, engine: DurableEngine) -> None:
        self.journal.lose(engine.owner)


class FileBench(JournalBench):
    """An `SQLiteJournal`, in real time."""

    settings = {"ttl": 0.2, "linger": 0.2}

    def __init__(self, path: Path) -> None:
        self.path = path

    def mortal(self) -> Any:
        return SQLiteJournal(self.path, durability="process")

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        asyncio.run(main())  # type: ignore[arg-type]

    async def lose(self, engine: DurableEngine) -> None:
        await getattr(engine.journal, "journal", engine.journal).close()  # its leases run out
