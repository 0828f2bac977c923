"""Kills real workers: ``python tests/durable/kill.py --kills 500 --jobs 2``.

Workers of one journal carry on runs of eight shapes (in a row, nested, in loops, as a graph, with delays, failing, and
waiting for a signal or a person), and are killed with SIGKILL at random times, one after the other, each followed by a
new one, until all runs have ended; then another round begins, until enough were killed. Each body writes down that it
begins, and each worker which records it knows to be safe. So it can be seen that

- each run ends as one that nobody disturbs: the same value or error, the same steps;
- no record is lost that was acknowledged, and none is there twice;
- no body runs again but those that were under way in a worker that was killed, or so slow that its lease was over.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mai.durable import DurableEngine, MemoryJournal, Record, SQLiteJournal
from mai.durable.records import ENDED
from mai.errors import Fenced
from tests.durable.shapes import LOG, SENT, answer, named, said, shapes, write_down

TTL = 1.0  # seconds
HEAD_START = 4.0  # seconds after which the first run begins, and more for each run that is put into the journal:
EACH = 0.01  # seconds
SPREAD = 0.1  # seconds on average between the beginnings of two runs
PATIENCE = 120.0  # seconds that the runs of a round may take after the last has begun
PACE = 0.25  # seconds at most between two kills
Key = tuple[str, str]  # a run and a path in it


# ---------------------------------------------------------------- workers


class Telling(SQLiteJournal):
    """A journal that writes down which records it has acknowledged."""

    async def append(self, lease: Any, record: Record) -> int:
        """Write a record, then say so."""
        try:
            seq = await super().append(lease, record)
        except Fenced:
            said("fenced", lease.run_id, record.path)
            raise
        said("safe", lease.run_id, record.path)
        return seq


async def work(db: str) -> None:
    """Be a worker until killed, or until nobody could kill it any more."""
    parent = os.getppid()
    async with DurableEngine(Telling(db), modules=shapes(), ttl=TTL, linger=0.05):
        print(f"ready {os.getpid()}", flush=True)
        while os.getppid() == parent:
            await asyncio.sleep(1)
    os._exit(1)


def nurse() -> None:
    """Make a worker for each line of standard input, by a fork: nothing has to be imported anew."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.disable()  # that runs fail is what some of them are for
    for line in sys.stdin:
        db, log = json.loads(line)
        if os.fork() == 0:
            os.environ[LOG] = log
            asyncio.run(work(db))


class Nursery:
    """A process that makes workers, and those of them that live."""

    def __init__(self, process: asyncio.subprocess.Process, db: str, log: str) -> None:
        self.process, self.log, self.line = process, log, json.dumps([db, log]).encode() + b"\n"
        self.living: list[int] = []

    @classmethod
    async def open(cls, db: str, log: str) -> "Nursery":
        root = Path(__file__).resolve().parents[2]
        pipe, env = asyncio.subprocess.PIPE, {**os.environ, "PYTHONPATH": str(root)}
        command = sys.executable, __file__, "--nurse"
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=env), db, log)

    async def bear(self) -> None:
        """Make one more worker, and wait until it works."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(self.line)
        word, pid = (await self.process.stdout.readline()).split()
        assert word == b"ready"
        self.living.append(int(pid))

    def kill(self, which: int) -> None:
        """Kill a worker; one that has ended by itself is an error."""
        pid = self.living.pop(which)
        os.kill(pid, signal.SIGKILL)
        write_down(self.log, "killed", pid)

    async def close(self) -> None:
        """Kill all that live, and the process itself."""
        for pid in self.living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        await self.process.communicate()


# ---------------------------------------------------------------- one round


@dataclass
class Facts:
    """What came of one round or several."""

    rounds: int = 0
    kills: int = 0
    in_bodies: int = 0  # kills of workers in which a body was under way
    runs: int = 0
    records: int = 0
    bodies: int = 0  # that began, attempts counted
    again: int = 0  # bodies that began again
    late: int = 0  # bodies of workers that were slower than their lease; their records were refused
    resumed: int = 0  # runs that needed attention: taken up ten times without getting further

    def add(self, other: "Facts") -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Straight:
    """What a run gives that nobody disturbs."""

    outcome: tuple[str, str]
    steps: list[str]


def told(value: object, error: BaseException | None) -> tuple[str, str]:
    return ("ok", json.dumps(value)) if error is None else (type(error).__name__, str(error))


async def straight(m: Any, n: int) -> Straight:
    """Run ``m(n)`` in this process, in memory."""
    async with DurableEngine(MemoryJournal()) as engine:
        handle, name = engine.start(m, n, run_id="r"), named(m)
        if name in SENT:
            await engine.signal("r", SENT[name], answer(name))
        try:
            outcome = told(await handle, None)
        except Exception as error:  # noqa: BLE001 (it is what is compared)
            outcome = told(None, error)
        return Straight(outcome, steps(await engine.history("r")))


def steps(history: Any) -> list[str]:
    """Return the paths of steps, but of branches that may be cut off by a failure beside them."""
    paths = [record.path for record in history if record.kind in ("step", "undo")]
    return sorted(path for path in paths if not path.startswith("recovers/Parallel"))


class Round:
    """Some runs, and the workers that are killed until all have ended."""

    def __init__(self, folder: Path, runs: int, workers: int, draw: random.Random) -> None:
        self.db, self.log = str(folder / "runs.db"), str(folder / "log")
        self.workers, self.draw = workers, draw
        self.modules = {named(m): m for m in shapes()}
        names = list(self.modules)
        self.runs = {f"{names[i % len(names)]}-{i}": (names[i % len(names)], i) for i in range(runs)}
        self.facts = Facts(rounds=1, runs=runs)

    async def drive(self, most: int) -> Facts:
        """Do all of it, and return what came of it; of *most* kills."""
        wanted = {run_id: await straight(self.modules[name], n) for run_id, (name, n) in self.runs.items()}
        async with SQLiteJournal(self.db) as journal:
            await self.prepare()
            nursery = await Nursery.open(self.db, self.log)
            sending = asyncio.create_task(self.send(journal))
            try:
                await self.kill(journal, nursery, most)
            finally:
                await nursery.close()
                sending.cancel()
            await self.verify(journal, wanted)
            self.read({run_id: await journal.history(run_id) for run_id in self.runs})
        return self.facts

    async def prepare(self) -> None:
        """Put the runs into the journal, to begin one after the other."""
        first = time.time() + HEAD_START + EACH * len(self.runs)
        with suppress(_Begun):
            async with DurableEngine(SQLiteJournal(self.db)) as engine:
                for run_id, (name, n) in self.runs.items():
                    begin = first + self.draw.random() * SPREAD * len(self.runs)
                    engine.start(self.modules[name], n, run_id=run_id, delay=max(0.0, begin - time.time()))
                for run_id in self.runs:
                    await engine.info(run_id)
                raise _Begun
        assert time.time() < first, "it took so long to put the runs into the journal that some have begun here"

    async def send(self, journal: SQLiteJournal) -> None:
        """Send what runs wait for, each signal twice."""
        for run_id, (name, _) in self.runs.items():
            if name in SENT:
                await asyncio.sleep(self.draw.random() * SPREAD * 4)
                for _ in range(2):
                    await journal.signal(run_id, SENT[name], json.dumps(answer(name)).encode(), id="once")

    async def kill(self, journal: SQLiteJournal, nursery: Nursery, most: int) -> None:
        """Kill workers until all runs have ended, or so many were; then wait for the runs."""
        for _ in range(self.workers):
            await nursery.bear()
        until = time.monotonic() + PATIENCE + SPREAD * len(self.runs)
        while left := await self.left(journal):
            await asyncio.sleep(self.draw.random() * PACE)
            if time.monotonic() > until:
                raise AssertionError(f"{left} runs have not ended in time")
            if self.facts.kills < most:
                nursery.kill(self.draw.randrange(len(nursery.living)))
                self.facts.kills += 1
                await nursery.bear()

    async def left(self, journal: SQLiteJournal) -> int:
        """Return how many runs have not ended; those that need attention get it."""
        for info in await journal.runs("needs_attention", limit=1000):
            await journal.resume(info.run_id)
            self.facts.resumed += 1
        # Not those that are pending, running or waiting: one that goes on may be missed between two looks.
        return len(self.runs) - sum([len(await journal.runs(status, limit=len(self.runs))) for status in ENDED])

    async def verify(self, journal: SQLiteJournal, wanted: dict[str, Straight]) -> None:
        """See that every run has ended as an undisturbed one."""
        assert await journal.check() == []
        async with DurableEngine(SQLiteJournal(self.db)) as engine:  # which only looks
            for run_id, (name, _) in self.runs.items():
                engine.serve(self.modules[name])
                try:
                    found = told(await engine.result(run_id), None)
                except Exception as error:  # noqa: BLE001 (it is what is compared)
                    found = told(None, error)
                assert found == wanted[run_id].outcome, f"{run_id}: {found}, not {wanted[run_id].outcome}"
                history = await engine.history(run_id)
                assert len({record.path for record in history}) == len(history), f"{run_id} has a path twice"
                assert steps(history) == wanted[run_id].steps, f"{run_id} has other steps: {steps(history)}"
                self.facts.records += len(history)

    def read(self, histories: dict[str, Any]) -> None:
        """Read what was written down, and see that none is lost and only what was under way was done again."""
        lines = [json.loads(line) for line in Path(self.log).read_text(encoding="utf-8").splitlines()]
        kept = {(run_id, record.path) for run_id, history in histories.items() for record in history}
        late = {(pid, (run_id, path)) for what, pid, run_id, path, _ in lines if what == "fenced"}
        safe, killed, begun = set[Key](), set[int](), dict[Key, int]()
        under_way = defaultdict[int, set[Key]](set)
        for what, pid, run_id, path, attempt in lines:
            key, before = (run_id, path), begun.get((run_id, path))
            if what == "safe":
                safe.add(key)
                under_way[pid].discard(key)
            elif what == "killed":
                killed.add(pid)
                self.facts.in_bodies += bool(under_way[pid])
            elif what == "begins":
                self.facts.bodies += 1
                again = attempt == 0 and before is not None
                owed = not again or before in killed or (before != pid and (before, key) in late)
                if not owed or (key in safe and (pid, key) not in late):
                    story = "\n".join(str(line) for line in lines if line[2] in (run_id, ""))
                    raise AssertionError(f"{key} was done again in {pid}, which was not to be\n{story}")
                self.facts.again += again
                begun[key] = pid
                under_way[pid].add(key)
        self.facts.late = len(late)
        assert safe <= kept, f"acknowledged and lost: {sorted(safe - kept)}"
        bodies = {(run_id, path) for run_id, history in histories.items() for path in steps(history)}
        assert bodies <= begun.keys(), f"recorded and never begun: {sorted(bodies - begun.keys())}"


class _Begun(Exception):
    """All runs are in the journal; leaving the engine by this leaves them to the workers."""


# ---------------------------------------------------------------- all of it


async def drive(kills: int, runs: int, workers: int, jobs: int, seed: int) -> Facts:
    """Do rounds, so many at once, until so many workers were killed."""
    facts, numbers = Facts(), iter(range(seed, seed + 1_000_000))

    async def rounds() -> None:
        while facts.kills < kills:
            number = next(numbers)
            with tempfile.TemporaryDirectory() as folder:
                done = await Round(Path(folder), runs, workers, random.Random(number)).drive(kills - facts.kills)
            facts.add(done)
            print(f"seed {number}: {done}", file=sys.stderr, flush=True)

    await asyncio.gather(*(rounds() for _ in range(jobs)))
    return facts


def main(argv: list[str] | None = None) -> int:
    """Run the driver, or the process that makes workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=40, help="in a round")
    parser.add_argument("--workers", type=int, default=2, help="of a round")
    parser.add_argument("--jobs", type=int, default=1, help="rounds at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nurse", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.nurse:
        nurse()
        return 0
    began = time.monotonic()
    facts = asyncio.run(drive(args.kills, args.runs, args.workers, args.jobs, args.seed))
    print(
        f"{facts.kills} kills ({facts.in_bodies} inside of a body), {facts.runs} runs, {facts.records} records; "
        f"0 lost, 0 recorded twice, all as undisturbed; bodies run again: {facts.again} of {facts.bodies}, all of them "
        f"under way in a worker that was killed, or slower than its lease ({facts.late}); "
        f"{facts.resumed} runs resumed; {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
