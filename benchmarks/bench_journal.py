"""What does a durable record cost, against bare SQLite that writes the same columns to the same disk?

Row 18: 8, 64 and 256 runs at once, each with one record after the other, against a raw group-commit loop: a thread with
a queue, one INSERT a record, one transaction for all that wait. Row 19: one run, strictly sequential, against one raw
SQLite transaction a record, in the same thread. Both with ``synchronous=FULL`` and, for comparison, with NORMAL.

The raw loops keep none of the promises: no checksum, no lease that is verified, no numbering, no second process, no
file that is watched. They give what the disk, SQLite, asyncio and two threads cost together.

Row 20: a run with 100,000 recorded steps is opened, claimed, read with every checksum verified, repeated and ended by a
new engine, in microseconds a step; the journal alone, which reads them, for comparison.

With ``pip install dbos``, DBOS on SQLite is a peer in the same run: whole runs of steps that do nothing are begun,
recorded and ended on either engine; with ``DBOS_POSTGRES``, the address of an empty database, DBOS on PostgreSQL is
one, too. With ``RESTATE_ADMIN`` and ``RESTATE_INGRESS``, the addresses of a Restate server, our engine on that is one.
"""

import asyncio
import importlib.util
import os
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter_ns
from typing import Any, Literal

from mai import module
from mai.durable import Lease, Record, SQLiteEngine, SQLiteJournal

from .harness import Row, Scale, main, ratio
from .promises import promise

__all__ = ["rows"]

OUTPUT = b'{"answer": 42, "text": "some words that a step gives"}'
TABLE = """CREATE TABLE record(
    run_id TEXT, path TEXT, seq INTEGER, kind TEXT, input, output, error, due REAL, attempt INTEGER,
    started REAL, ended REAL, version TEXT, crc INTEGER, PRIMARY KEY(run_id, path)) WITHOUT ROWID"""
INSERT = f"INSERT INTO record VALUES({', '.join('?' * 13)})"
Durability = Literal["power", "process"]
SYNCHRONOUS = {"power": "FULL", "process": "NORMAL"}


@dataclass(frozen=True)
class Fresh:
    """A sample in a folder of its own: *work* prepares there, and gives what is to be timed for *n* records."""

    work: Callable[[Path], Awaitable[int]]  # gives the time that it took [ns]
    n: int

    async def take(self) -> float:
        """Do it once."""
        with tempfile.TemporaryDirectory() as folder:
            return await self.work(Path(folder) / "runs.db") / self.n


async def timed(work: Callable[[int], Awaitable[None]], runs: int) -> int:
    """Return how long so many of *work* take at once [ns]."""
    start = perf_counter_ns()
    await asyncio.gather(*(work(run) for run in range(runs)))
    return perf_counter_ns() - start


def ours(runs: int, steps: int, durability: Durability) -> Fresh:
    """Return the sample of our journal."""

    async def work(path: Path) -> int:
        async with SQLiteJournal(path, durability=durability) as journal:

            async def begun(run: int) -> Lease:
                facts: dict[str, Any] = {"target": "t", "plan": None, "fingerprint": "", "input": b"1"}
                info, _ = await journal.create(f"run-{run}", **facts, owner="me")
                return Lease(f"run-{run}", "me", info.epoch)

            leases = await asyncio.gather(*(begun(run) for run in range(runs)))

            async def one(run: int) -> None:
                lease = leases[run]
                for n in range(steps):
                    record = Record(f"Sequential/Step~{n}", "step", output=OUTPUT, started=1.5, ended=2.5)
                    await journal.append(lease, record)

            return await timed(one, runs)

    return Fresh(work, runs * steps)


class Raw:
    """The least that gathers what waits into transactions."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.connection = connected(path, durability)
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.thread = Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        """Write what waits, again and again."""
        while True:
            batch = [self.queue.get()]
            batch += [self.queue.get() for _ in range(self.queue.qsize())]
            if batch[-1] is None:
                return
            self.connection.execute("BEGIN IMMEDIATE")
            for row, _, _ in batch:
                self.connection.execute(INSERT, row)
            self.connection.execute("COMMIT")
            batch[0][1].call_soon_threadsafe(told, [future for _, _, future in batch])

    async def append(self, row: tuple[Any, ...]) -> None:
        """Write a row."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.queue.put((row, loop, future))
        await future

    def close(self) -> None:
        """End the thread."""
        self.queue.put(None)
        self.thread.join()
        self.connection.close()


def told(futures: "list[asyncio.Future[None]]") -> None:
    """Tell all who wait."""
    for future in futures:
        future.set_result(None)


def connected(path: Path, durability: Durability) -> sqlite3.Connection:
    """Return a connection as the journal has one."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute(TABLE)
    return connection


def row(run: int, n: int) -> tuple[Any, ...]:
    """Return what one record is as a row."""
    return (f"run-{run}", f"Sequential/Step~{n}", n, "step", None, OUTPUT, None, None, 1, 1.5, 2.5, None, 123456789)


def raw_group(runs: int, steps: int, durability: Durability) -> Fresh:
    """Return the sample of the raw group-commit loop."""

    async def work(path: Path) -> int:
        raw = Raw(path, durability)

        async def one(run: int) -> None:
            for n in range(steps):
                await raw.append(row(run, n))

        try:
            return await timed(one, runs)
        finally:
            raw.close()

    return Fresh(work, runs * steps)


def raw_single(steps: int, durability: Durability) -> Fresh:
    """Return the sample of one transaction a record, without a thread."""

    async def work(path: Path) -> int:
        connection = connected(path, durability)
        start = perf_counter_ns()
        for n in range(steps):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(INSERT, row(0, n))
            connection.execute("COMMIT")
        taken = perf_counter_ns() - start
        connection.close()
        return taken

    return Fresh(work, steps)


@module
async def same(n: int) -> int:
    """Do nothing."""
    return n


@module(flow=True)
async def many(count: int) -> int:
    """Call so many steps, one after the other."""
    for n in range(count):
        await same(n)
    return count


def whole(runs: int, steps: int) -> Fresh:
    """Return the sample of whole runs on our engine, with their beginning and their end."""

    async def work(path: Path) -> int:
        async with SQLiteEngine(path) as engine:

            async def one(run: int) -> None:
                await engine.start(many, steps, run_id=f"run-{run}")

            return await timed(one, runs)

    return Fresh(work, runs * steps)


def replayed(steps: int, *, engine: bool) -> Fresh:
    """Return the sample of a run with so many recorded steps that a new process ends; without *engine*: reads."""

    async def work(path: Path) -> int:
        plan = many.plan()
        async with SQLiteJournal(path, durability="process") as journal:
            facts: dict[str, Any] = {"plan": plan.model_dump_json().encode(), "fingerprint": plan.fingerprint}
            given = b'{"count":%d}' % steps
            info, _ = await journal.create("run", target="many", input=given, owner="me", **facts)
            lease, paths = (
                Lease("run", "me", info.epoch),
                ["many/same", *(f"many/same~{n}" for n in range(2, steps + 1))],
            )
            for first in range(0, steps, 1000):
                records = [
                    Record(path, "step", input=b'{"n":%d}' % n, output=b"%d" % n, started=1.5, ended=2.5)
                    for n, path in enumerate(paths[first : first + 1000], first)
                ]
                await asyncio.gather(*(journal.append(lease, record) for record in records))
            await journal.release(lease, due=0.0)
        start = perf_counter_ns()
        if engine:
            async with SQLiteEngine(path) as running:
                promise(await running.start(many, steps, run_id="run") == steps, "the run ends as it would have")
        else:
            async with SQLiteJournal(path) as journal:
                promise(len(await journal.history("run")) == steps, "every record is read")
        return perf_counter_ns() - start

    return Fresh(work, steps)


def dbos(runs: int, steps: int, server: str | None = None) -> Fresh:
    """Return the sample of DBOS, each of whose steps is recorded in SQLite, or on a *server*."""

    async def work(path: Path) -> int:
        from dbos import DBOS  # noqa: PLC0415 (a peer that need not be there)

        DBOS(config={"name": "bench", "system_database_url": server or f"sqlite:///{path}", "log_level": "ERROR"})

        @DBOS.step()
        async def step(n: int) -> int:
            return n

        @DBOS.workflow()
        async def flow(run: int) -> None:
            for n in range(steps):
                await step(n)

        DBOS.launch()
        try:
            return await timed(flow, runs)
        finally:
            DBOS.destroy()

    return Fresh(work, runs * steps)


def on_restate(runs: int, steps: int) -> Fresh:
    """Return the sample of whole runs on our engine whose journal is a Restate server."""

    async def work(path: Path) -> int:
        from mai.durable.restate import RestateEngine  # noqa: PLC0415 (a peer that need not be there)

        admin, ingress = (os.environ[name] for name in ("RESTATE_ADMIN", "RESTATE_INGRESS"))
        async with RestateEngine(admin, ingress=ingress, port=0, prefix=f"{path.parent.name}.") as engine:
            await engine.start(many, 1)  # its code is registered now

            async def one(run: int) -> None:
                await engine.start(many, steps, run_id=f"run-{run}")

            return await timed(one, runs)

    return Fresh(work, runs * steps)


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    await _check()
    found: list[Row] = []
    total, rounds = max(8, 4 * scale.calls), scale.heavy_rounds
    for durability, name in SYNCHRONOUS.items():
        mode: Durability = "power" if durability == "power" else "process"
        strict = mode == "power"
        for runs in (8, 64, 256):
            steps = max(1, total // runs)
            samples = {"mai": ours(runs, steps, mode), "raw": raw_group(runs, steps, mode)}
            what = f"{runs} durable runs at once, {name}, a record"
            target = 1.3 if strict and runs > 8 else None
            found.append(
                Row("18", what, target, "raw group commit", samples, ratio("mai", "raw"), rounds, runs * steps)
            )
        steps = max(2, total // 4)
        samples = {"mai": ours(1, steps, mode), "raw": raw_single(steps, mode)}
        what = f"one durable run, {name}, a record"
        found.append(
            Row("19", what, 1.2 if strict else None, "raw transaction", samples, ratio("mai", "raw"), rounds, steps)
        )
    steps = 10 * scale.branches
    samples = {"mai": replayed(steps, engine=True), "read": replayed(steps, engine=False)}
    what = f"replay of {steps:,} recorded steps, a step"
    found.append(Row("20", what, 15, "us", samples, lambda times: times["mai"] / 1000, max(1, rounds // 4), steps))
    if importlib.util.find_spec("dbos"):
        runs, steps = 64, max(1, total // 256)
        what = f"whole runs of {steps} steps on the engine, 64 at once, FULL"
        few = max(1, rounds // 4)
        for peer, server, target in (("SQLite", None, 1 / 48), ("PostgreSQL", os.environ.get("DBOS_POSTGRES"), 1 / 9)):
            if peer == "SQLite" or server:
                both = {"mai": whole(runs, steps), "dbos": dbos(runs, steps, server)}
                found.append(Row("18", what, target, f"DBOS on {peer}", both, ratio("mai", "dbos"), few, runs * steps))
    if "RESTATE_ADMIN" in os.environ:
        few = max(1, rounds // 4)
        for runs in (1, 16, 64):
            steps = max(2, total // (16 if runs == 1 else 4 * runs))
            both = {"restate": on_restate(runs, steps), "mai": whole(runs, steps)}
            what = f"whole runs of {steps} steps on Restate, {runs} at once, a step"
            found.append(Row("18", what, None, "SQLite, FULL", both, ratio("restate", "mai"), few, runs * steps))
    return found


async def _check() -> None:
    """What is timed keeps its promises: what was acknowledged is there, in its order, and a stale lease is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        async with SQLiteJournal(path) as journal:
            info, _ = await journal.create("r", target="t", plan=None, fingerprint="", input=b"", owner="me")
            lease = Lease("r", "me", info.epoch)
            for n in range(3):
                await journal.append(lease, Record(f"p{n}", "step", output=OUTPUT))
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
                promise(other.execute("SELECT count(*) FROM mai_record").fetchone() == (3,), "what it says is on disk")
            other.close()
            await journal.claim("r", "me")
            refused = await asyncio.gather(journal.append(lease, Record("q", "step")), return_exceptions=True)
            promise(isinstance(refused[0], Exception), "a stale lease is refused")
            promise(await journal.check() == [], "each row has its checksum")


if __name__ == "__main__":
    raise SystemExit(main(["journal"]))
