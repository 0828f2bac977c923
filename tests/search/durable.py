"""The shapes that are journaled: what they do, and how they are killed at every write of their journal."""

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import mai
from mai import (
    BlockingDelay,
    Conditional,
    Context,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Retry,
    Sequential,
    UnknownRun,
    module,
)
from mai.durable import DurableEngine, MemoryJournal, SQLiteJournal, Tables, transaction
from mai.testing import CopiedFolder, SimulatedDisk, SimulatedFault, crash_check, replay_check
from tests.durable.storage.support import MEMORY
from tests.testing.file_journal import FileJournal

from .world import World

_sequential: Any = Sequential


def flow(world: World) -> Any:
    """Return a flow with every composite; its steps are those of *world*."""
    g = Graph("dag")
    x = g.input("x", int)
    a = g.add(typed(world, "a", 0.01), x)
    g.output((g.add(typed(world, "b", 0.0), a), g.add(typed(world, "c", 0.02), a)))
    steady = typed(world, "steady", 0.01)

    async def unsteady(x: int) -> int:  # fails at first in each run anew
        if Context.get().retry_count == 0:
            raise world.failure("unsteady")
        return await steady.forward(x)

    again = module(unsteady).with_(retry=Retry(3, base=0.01))
    spare = typed(world, "broken", 0.0, fails=1 << 60).with_(fallback=typed(world, "spare", 0.01))
    turns = Loop(typed(world, "turn", 0.01), max_iters=2)
    choice = Conditional(lambda x: x > 0, then=typed(world, "then"), otherwise=typed(world, "otherwise", 0.0))
    items = _sequential(lambda x: [x, x + 1, x + 2], Map(typed(world, "item", 0.01), concurrency=2), sum)
    waits = _sequential(NonBlockingDelay(60.0), typed(world, "late"), BlockingDelay(0.5))
    return Parallel(g, again, spare, turns, choice, items, waits, limit=3).with_(name="flow")


FLOW = ((2, 2), 1, 1, 2, 1, 6, 1)


def typed(world: World, name: str, *seconds: float, **how: Any) -> Module[Any, Any]:
    """Return a step that takes and gives an int, as a journal has to know."""
    work = world.step(name, *seconds, **how)

    async def step(x: int) -> int:
        return int(await work.forward(x))

    return module(step).with_(name=name)


def durable(world: World) -> Callable[[], Any]:
    """A flow with every composite under a durable engine."""
    made = flow(world)

    async def run() -> Any:
        async with DurableEngine(MemoryJournal(), errors=[SimulatedFault]) as engine:
            return await engine.start(made, 0, run_id="r")

    return run


def parcel(world: World) -> Any:
    """Return a flow that waits for two signals and a person."""
    before, after = typed(world, "before", 0.01), typed(world, "after", 0.01)

    async def signalled(x: int) -> int:
        x = await before(x)
        paid = await mai.wait_for("paid", int)
        sure = await mai.ask("Sure?", bool)
        return await after(x + paid + await mai.wait_for("sent", int)) if sure else -1

    return module(flow=True)(signalled)


PARCEL = 14


async def serve(engine: Any) -> None:
    """Send the signals and answer the question, whichever process carries the run on; no signal counts twice."""
    info = None
    while info is None:
        await asyncio.sleep(0.005)
        with suppress(UnknownRun):
            info = await engine.info("checked")
    await engine.signal("checked", "sent", 7, id="sent")
    await asyncio.sleep(0.02)
    await engine.signal("checked", "paid", 5, id="paid")
    while True:
        await asyncio.sleep(0.5)
        info = await engine.info("checked")
        for path, name in info.waits.items():
            if "ask" in path:
                await engine.answer("checked", True, question=name)


def books(world: World) -> Any:
    """Return a flow that writes into tables, in flow and steps, several at once and some that fail, and adds it up."""

    def booked(amount: int, *, fails: bool = False) -> Callable[[Tables], int]:
        def work(tables: Tables) -> int:
            tables.execute("CREATE TABLE IF NOT EXISTS entry(amount INTEGER)")
            tables.execute("INSERT INTO entry VALUES(?)", (amount,))
            if fails:
                raise ValueError(amount)
            return amount

        return work

    before, after = typed(world, "before", 0.01), typed(world, "after", 0.0)

    async def book(x: int) -> int:
        x = await before.forward(x)
        await transaction(booked(x))
        if x == 1 and Context.get().retry_count == 0:  # what was committed is not done again
            raise world.failure("book")
        return int(await after.forward(x))

    each: Any = module(book).with_(name="book", retry=Retry(2, base=0.01)).map(concurrency=2)

    async def books(x: int) -> tuple[int, int]:
        await transaction(booked(10))
        with suppress(ValueError):
            await transaction(booked(1_000, fails=True))
        await each([x, x + 1, x + 2])

        def total(tables: Tables) -> tuple[int, int]:
            count, amount = tables.execute("SELECT count(*), sum(amount) FROM entry").fetchone()
            return count, amount

        return await transaction(total)

    return module(flow=True)(books)


BOOKS = (4, 16)


def booked(world: World) -> Callable[[], Any]:
    """Transactions in the tables of the journal, each of which counts once."""
    made = books(world)

    async def run() -> Any:
        async with DurableEngine(MemoryJournal(), errors=[SimulatedFault]) as engine:
            return await engine.start(made, 0, run_id="r")

    return run


# ---------------------------------------------------------------- killed at every write


@dataclass(frozen=True)
class Killed:
    """A durable run that is killed.

    Attributes:
        build: Builds its module in a world.
        wanted: What it gives.
        during: What happens beside it.
    """

    build: Callable[[World], Any]
    wanted: Any
    during: Callable[[Any], Any] | None = None


KILLED = {"durable": Killed(flow, FLOW), "signalled": Killed(parcel, PARCEL, serve), "booked": Killed(books, BOOKS)}
JOURNALS = {"write": ("durable", "signalled", "booked"), "disk": ("durable", "signalled"), "file": ("booked",)}


@contextmanager
def journal_of(part: str) -> Generator[dict[str, Any]]:
    """Yield which journal a part of the search writes: in memory, on a simulated disk, or in a file of SQLite."""
    if part == "write":
        yield {"journal": MemoryJournal}
    elif part == "disk":
        yield {"journal": FileJournal, "disk": SimulatedDisk}
    else:
        with TemporaryDirectory(dir=MEMORY) as parent:

            def journal(folder: CopiedFolder) -> SQLiteJournal:
                return SQLiteJournal(folder.path / "runs.db", durability="process")

            yield {"journal": journal, "disk": lambda: CopiedFolder(parent), "patience": 0.02}


def killed(name: str, part: str, seeds: Iterable[int]) -> int:
    """Kill a durable run at every write of its journal and after every record; return how often it died."""
    died, what = 0, KILLED[name]
    for seed in seeds:
        order: Any = ("random", "pct")[seed % 2]
        with journal_of(part) as how:
            for check in (crash_check, replay_check):
                made = what.build(World())
                seen = check(made, 0, engine=DurableEngine, during=what.during, seeds=[seed], order=order, **how)
                assert seen.value == what.wanted, seen
                died += seen.interruptions
    return died
