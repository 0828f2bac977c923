"""Kills real workers: ``python tests/durable/kill.py --kills 100``.

Workers of one journal carry on a number of runs, and are killed with SIGKILL at random times, one after the other, each
followed by a new one, until enough were killed. Then all runs must end with the value of a straight run, each step must
have exactly one record, and what a step wrote in the transaction of its record must be there exactly once.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mai import BlockingDelay, Loop, Map, Module, Parallel, Sequential, module
from mai.durable import SQLiteEngine, SQLiteJournal

LOG = "KILL_LOG"  # the environment variable that names the file in which steps say that they ran


def said(what: str) -> None:
    """Note that a step's body ran; a line is written whole or not at all."""
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what}\n".encode())
    os.close(file)


@module
async def split(n: int) -> list[int]:
    said("split")
    return list(range(n, n + 4))


@module
async def square(n: int) -> int:
    said("square")
    await asyncio.sleep(0.002)
    return n * n


@module
def slow(n: int) -> int:
    said("slow")
    time.sleep(0.003)
    return n + 1


@module
async def total(numbers: list[int]) -> int:
    said("total")
    return sum(numbers)


@module
async def halve(n: int) -> int:
    said("halve")
    return n // 2


@module
async def add(pair: tuple[int, int]) -> int:
    said("add")
    return sum(pair)


def flow() -> Module[Any, Any]:
    """Return what is run: steps in a row, in parallel, over items, in a loop, in a thread, and after a pause."""
    halved = Loop(halve, until=lambda n: n < 10, max_iters=30)
    both = Parallel(halved >> BlockingDelay(0.01), slow)
    return Sequential(split, Map(square, concurrency=3), total, both, add).with_(name="flow")


def straight(n: int) -> int:
    """Return what a run gives that nobody kills."""
    number = sum(k * k for k in range(n, n + 4))
    halved = number // 2
    while halved >= 10:
        halved //= 2
    return halved + number + 1


STEPS = {"split": 1, "square": 4, "total": 1, "slow": 1, "add": 1}  # beside the turns of the loop


async def work(db: str) -> None:
    """Be a worker until killed."""
    async with SQLiteEngine(db, modules=[flow()], ttl=0.5, linger=0.05):
        print("ready", flush=True)
        await asyncio.Event().wait()


class _Begun(Exception):
    """All runs are in the journal; leaving the engine by this leaves them to the workers."""


async def prepare(db: str, runs: int) -> None:
    """Make the runs, which are to begin much later, and let them begin when this process has left them."""
    try:
        async with SQLiteEngine(db) as engine:
            for n in range(runs):
                engine.start(flow(), n, run_id=f"run-{n}", delay=86_400.0)
            while len(await engine.journal.runs(limit=runs)) < runs:
                await asyncio.sleep(0.01)
            raise _Begun
    except _Begun:
        pass
    async with SQLiteJournal(db) as journal:
        await asyncio.gather(*(journal.resume(f"run-{n}") for n in range(runs)))


def kill(db: str, log: str, kills: int, workers: int, draw: random.Random) -> int:
    """Kill so many workers, one at a time; return how many had still something to do. They are ended with the runs."""
    going = [start_worker(db, log) for _ in range(workers)]
    busy = 0
    try:
        for _ in range(kills):
            victim = going.pop(draw.randrange(len(going)))
            assert victim.stdout is not None
            victim.stdout.readline()
            time.sleep(draw.random() * 0.3)
            victim.kill()
            victim.communicate()
            assert victim.returncode == -signal.SIGKILL, "a worker ended by itself"
            going.append(start_worker(db, log))
            busy += asyncio.run(left(db)) > 0
        until = time.monotonic() + 240
        while asyncio.run(left(db)) and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        for worker in going:
            worker.kill()
            worker.communicate()
    return busy


async def left(db: str) -> int:
    """Return how many runs have not ended."""
    async with SQLiteJournal(db) as journal:
        return sum([len(await journal.runs(status, limit=1_000_000)) for status in ("pending", "running", "waiting")])


async def verify(db: str, runs: int) -> Counter[str]:
    """See that every run ended as a straight one; return how many records each step has in all."""
    records: Counter[str] = Counter()
    async with SQLiteJournal(db) as journal:
        assert await journal.check() == []
        for n in range(runs):
            info = await journal.run(f"run-{n}")
            assert info is not None
            assert info.status == "ok", f"run-{n} is {info.status}: {info.error!r}"
            assert json.loads(info.output or b"") == straight(n), f"run-{n} gave {info.output!r}"
            own = Counter(
                record.path.rpartition("/")[2].partition("~")[0] for record in await journal.history(f"run-{n}")
            )
            found = {name: own[name] for name in STEPS}
            assert found == STEPS, f"run-{n} has records {own}"
            records += own
    return records


def drive(folder: Path, kills: int, runs: int, workers: int, seed: int) -> int:
    """Do all of it, and print what came of it."""
    db, log = str(folder / "runs.db"), str(folder / "log")
    os.environ[LOG] = log
    asyncio.run(prepare(db, runs))
    begun = time.monotonic()
    busy = kill(db, log, kills, workers, random.Random(seed))
    records = asyncio.run(verify(db, runs))
    bodies = Counter(Path(log).read_text(encoding="utf-8").split())
    again = {name: bodies[name] - records[name] for name in (*STEPS, "halve")}
    assert all(count >= 0 for count in again.values()), f"there are records of steps that never ran: {again}"
    facts = f"{kills} kills ({busy} while runs went on), {runs} runs, {sum(records.values())} records"
    print(
        f"{facts}; 0 lost, 0 recorded twice; bodies run again: {sum(again.values())}; {time.monotonic() - begun:.0f} s"
    )
    return 0


def start_worker(db: str, log: str) -> "subprocess.Popen[bytes]":
    """Start a worker process."""
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, LOG: log, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, __file__, "--work", db], stdout=subprocess.PIPE, env=env, cwd=root)


def main(argv: list[str] | None = None) -> int:
    """Run the driver, or a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", metavar="DB", help="be a worker")
    args = parser.parse_args(argv)
    if args.work:
        asyncio.run(work(args.work))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return drive(Path(folder), args.kills, args.runs, args.workers, args.seed)


if __name__ == "__main__":
    raise SystemExit(main())
