"""Real processes that are killed with SIGKILL at chosen points of a run, and what the next process makes of it."""

import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from mai.durable import SQLiteEngine
from tests.durable.storage.support import done, finished, program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]
LOG = "DONE_LOG"

STEPS = f"""
import asyncio, os, signal, sys
import mai
from mai import BlockingDelay, Context, Parallel, module
from mai.durable import DurableEngine, SQLiteJournal

def did(what):
    file = os.open(os.environ[{LOG!r}], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{{what}}\\n".encode())
    os.close(file)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

@module
async def first(n: int) -> int:
    did("first")
    return n + 1

@module
async def second(n: int) -> int:
    did("second")
    if os.environ.get("DIE") == "inside":
        die()
    return n * 2

@module
async def branch(n: int) -> int:
    did(Context.get().step_id.rpartition("/")[2])
    return n + 1

@module(flow=True)
async def confirmed(n: int) -> int:
    return n + await mai.wait_for("more", int)

branches = Parallel(*(branch.with_(name=f"branch{{i}}") for i in range(6)))
flow = (first >> second >> branches >> module(max) >> confirmed >> BlockingDelay(0.01)).with_(name="flow")
"""
DYING = (
    STEPS
    + """
class Dying(SQLiteJournal):
    async def struck(self, method, *args, **kwargs):
        name, at, after = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after"
        hit = method.__name__ == name and self.counts.setdefault(name, 0) == at
        if method.__name__ == name:
            self.counts[name] += 1
        if hit and not after:
            die()
        found = await method(*args, **kwargs)
        if hit:
            die()
        return found

def wrapped(name):
    async def call(self, *args, **kwargs):
        return await self.struck(getattr(super(Dying, self), name), *args, **kwargs)
    return call

for name in ("create", "claim", "append", "take", "release", "finish"):
    setattr(Dying, name, wrapped(name))

async def main():
    journal = Dying(sys.argv[1])
    journal.counts = {}
    ttl = float(os.environ.get("TTL", "0.3"))
    async with DurableEngine(journal, modules=[flow], ttl=ttl, linger=0.02) as engine:
        handle = engine.start(flow, 1, run_id="r")
        await engine.signal("r", "more", 100, id="once")
        print(await handle)
asyncio.run(main())
"""
)
POINTS = {
    "before the run is there": ("create", 0, "before"),
    "when the run is there, before the first body": ("create", 0, "after"),
    "after the first body, before its record": ("append", 0, "before"),
    "when the first record is there, before it is acknowledged": ("append", 0, "after"),
    "before the second record": ("append", 1, "before"),
    "with the records of some branches": ("append", 4, "before"),
    "in the middle of a batch of branches": ("append", 4, "after"),
    "before a signal is taken": ("take", 0, "before"),
    "when a signal was taken": ("take", 0, "after"),
    "before the end is recorded": ("finish", 0, "before"),
    "when the end is recorded, before it is acknowledged": ("finish", 0, "after"),
}
BODIES = ["first", "second", *(f"branch{i}" for i in range(6))]


def lines(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").split()) if log.exists() else Counter()


def killed(path: Path, *point: object, **env: str) -> None:
    """Run the flow in a process that kills itself at *point*."""
    process = program(DYING, path, *point, env={LOG: f"{path}.log", **env})
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, (out, err)


def carried_on(path: Path) -> int:
    """Carry the run on in a new process, and return its value."""
    return int(finished(program(DYING, path, "nothing", 0, "before", env={LOG: f"{path}.log"})))


def history(path: Path) -> list[str]:
    async def read() -> list[str]:
        async with SQLiteEngine(path) as engine:
            return [record.path for record in await engine.history("r")]

    return done(read())


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_a_write_costs_at_most_the_bodies_under_way(tmp_path: Path, point: str) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    name, at, when = POINTS[point]
    killed(path, name, at, when)
    assert carried_on(path) == 105
    again = lines(log) - Counter(BODIES)
    assert set(lines(log)) == set(BODIES)
    assert set(again.values()) <= {1}
    if (name, at, when) in (("create", 0, "before"), ("create", 0, "after")) or name in ("take", "finish"):
        assert not again
    elif at < 2:
        assert again == (Counter([BODIES[at]]) if when == "before" else Counter())
    else:
        assert {what[:6] for what in again} <= {"branch"}
    paths = history(path)
    assert len(set(paths)) == len(paths) == len(BODIES) + 3  # max, the signal and the delay


def test_a_process_killed_inside_a_body_begins_that_body_alone_again_however_often(tmp_path: Path) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    for _ in range(3):
        killed(path, "nothing", 0, "before", DIE="inside")
    assert carried_on(path) == 105
    assert lines(log) == Counter({**dict.fromkeys(BODIES, 1), "second": 4})


def test_a_process_killed_in_claim_loses_nothing(tmp_path: Path) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    killed(path, "append", 0, "after")
    for when in ("before", "after", "after"):
        killed(path, "claim", 0, when)
    assert carried_on(path) == 105
    assert lines(log) == Counter(BODIES)


def test_of_two_processes_that_resume_one_run_one_does_each_step(tmp_path: Path) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    killed(path, "append", 0, "after")
    both = [program(DYING, path, "nothing", 0, "before", env={LOG: str(log), "TTL": "3"}) for _ in range(2)]
    assert [finished(process) for process in both] == ["105", "105"]
    assert lines(log) == Counter(BODIES)


LONG = (
    STEPS
    + """
import time

@module
def long(n: int) -> int:
    did("long")
    time.sleep(2)
    return n

@module(inline=True)
def blocking(n: int) -> int:
    did("blocking")
    time.sleep(2)
    return n

async def main():
    async with DurableEngine(SQLiteJournal(sys.argv[1]), modules=[long >> blocking], ttl=1.0) as engine:
        print("ready", flush=True)
        print(await engine.start(long >> blocking, 1, run_id="r"))
asyncio.run(main())
"""
)


def test_a_sync_step_that_takes_longer_than_the_lease_keeps_its_run(tmp_path: Path) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    both = [program(LONG, path, env={LOG: str(log)}) for _ in range(2)]
    assert [finished(process).split() for process in both] == [["ready", "1"]] * 2
    assert lines(log) == Counter(["long", "blocking"])


LARGE = """
import asyncio, os, signal, sys
from typing import Any
from mai import module
from mai.durable import DurableEngine, SQLiteJournal

@module
async def give(n: int) -> str:
    print("give", flush=True)
    return "\\u00e9x" * (n << 19)

@module
async def dig(text: str) -> list[Any]:
    print("dig", flush=True)
    nest = []
    for _ in range(90):
        nest = [nest]
    return [len(text), nest]

@module
async def measure(nest: list[Any]) -> list[int]:
    print("measure", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    length, depth, nest = nest[0], 0, nest[1]
    while nest:
        nest, depth = nest[0], depth + 1
    return [length, depth]

async def main():
    async with DurableEngine(SQLiteJournal(sys.argv[1]), ttl=0.3) as engine:
        print(await engine.start(give >> dig >> measure, 50, run_id="r"))
asyncio.run(main())
"""


def test_large_and_deep_values_are_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    dies = program(LARGE, path, "die")
    assert dies.communicate(timeout=120)[0].split() == ["give", "dig", "measure"]
    assert dies.returncode == -signal.SIGKILL
    assert finished(program(LARGE, path, "live"), timeout=120).splitlines() == ["measure", str([50 << 20, 90])]


REPLACED = (
    STEPS
    + """
from mai.errors import JournalError

@module
async def harm(n: int) -> int:
    os.rename(sys.argv[1], sys.argv[1] + ".old") if sys.argv[2] == "move" else os.unlink(sys.argv[1])
    return n

async def main():
    try:
        async with DurableEngine(SQLiteJournal(sys.argv[1]), ttl=0.3) as engine:
            await engine.start(first >> harm >> first, 1, run_id="r")
    except JournalError as error:
        print(error)
asyncio.run(main())
"""
)


@pytest.mark.parametrize("harm", ["move", "delete"])
def test_a_run_whose_file_goes_away_under_it_stops_before_its_next_step(tmp_path: Path, harm: str) -> None:
    path, log = tmp_path / "runs.db", tmp_path / "runs.db.log"
    said = finished(program(REPLACED, path, harm, env={LOG: str(log)}))
    assert "was deleted or replaced while it was open; nothing more is written" in said
    assert lines(log) == Counter(["first"])
