"""Several processes on one file: killed, stopped, forked, and all at once."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from mai.durable import SQLiteJournal
from tests.durable.storage.support import begun, done, finished, program, step

pytestmark = pytest.mark.slow

WRITING = """
import asyncio, sys
from mai.durable import SQLiteJournal
from tests.durable.storage.support import begun, step
async def main():
    async with SQLiteJournal(sys.argv[1], durability=sys.argv[2]) as journal:
        async def run(k):
            lease = await begun(journal, f"{sys.argv[3]}-{k}")
            for n in range(100_000):
                await journal.append(lease, step(n, output=b"x" * 300))
                print(k, n, flush=True)
        await asyncio.gather(*(run(k) for k in range(4)))
asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_was_acknowledged_before_a_kill_is_there_and_whole(tmp_path: Path, durability: str) -> None:
    path, draw = tmp_path / "runs.db", random.Random(1)
    said: dict[str, int] = {}
    for generation in range(6):
        process = program(WRITING, path, durability, generation)
        assert process.stdout is not None
        for _ in range(draw.randrange(1, 1500)):
            k, n = process.stdout.readline().split()
            said[f"{generation}-{k}"] = int(n)
        os.kill(process.pid, signal.SIGKILL)
        for line in process.communicate()[0].splitlines():
            if len(line.split()) == 2 and line.split()[1]:
                k, n = line.split()
                said[f"{generation}-{k}"] = int(n)

    async def look() -> None:
        async with SQLiteJournal(path) as journal:
            assert await journal.check() == []
            for run_id, last in said.items():
                history = await journal.history(run_id)
                assert len(history) > last
                assert [record.path for record in history] == [step(n).path for n in range(len(history))]

    done(look())


CLAIMING = """
import asyncio, sys
from mai.durable import SQLiteJournal
from mai.errors import AlreadyRecorded
from tests.durable.storage.support import GOOD, step
async def main():
    wins = 0
    async with SQLiteJournal(sys.argv[1]) as journal:
        for n in range(30):
            await journal.create(f"run-{n}", **GOOD)
            claimed = await journal.claim(f"run-{n}", sys.argv[2])
            if claimed is None:
                continue
            lease, info, records = claimed
            await journal.append(lease, step(1, output=sys.argv[2].encode()))
            await journal.finish(lease, "ok", output=sys.argv[2].encode())
            wins += 1
    print(wins)
asyncio.run(main())
"""


def test_of_many_processes_that_start_at_once_one_carries_on_each_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    processes = [program(CLAIMING, path, f"owner-{n}") for n in range(4)]
    assert sum(int(finished(process)) for process in processes) == 30

    async def look() -> None:
        async with SQLiteJournal(path) as journal:
            assert await journal.check() == []
            for info in await journal.runs(limit=100):
                assert (info.status, info.epoch) == ("ok", 1)
                assert [record.output for record in await journal.history(info.run_id)] == [info.output]

    done(look())
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.db"]


STOPPED = """
import asyncio, os, signal, sys
from mai.durable import SQLiteJournal
from mai.errors import Fenced
from tests.durable.storage.support import begun, step
async def main():
    async with SQLiteJournal(sys.argv[1]) as journal:
        lease = await begun(journal, ttl=0.5)
        await journal.append(lease, step(1))
        print("ready", flush=True)
        sys.stdin.readline() if False else os.kill(os.getpid(), signal.SIGSTOP)
        try:
            await journal.append(lease, step(2))
        except Fenced as error:
            print(error)
asyncio.run(main())
"""


def test_an_owner_that_was_stopped_is_fenced_when_it_wakes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    process = program(STOPPED, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    async def take_over() -> None:
        async with SQLiteJournal(path) as journal:
            orphaned = asyncio.Event()
            loop = asyncio.get_running_loop()
            journal.watch(lambda _, what: what == "orphaned" and loop.call_soon_threadsafe(orphaned.set))
            async with asyncio.timeout(20):
                await orphaned.wait()
            claimed = await journal.claim("r", "you")
            assert claimed is not None
            assert len(claimed[2]) == 1
            await journal.append(claimed[0], step(2, output=b"mine"))
            os.kill(process.pid, signal.SIGCONT)
            assert "'you' holds it with epoch 2" in finished(process)
            assert [record.output for record in await journal.history("r")] == [b"1", b"mine"]

    done(take_over())


FORKING = """
import asyncio, os, sys
from mai.durable import SQLiteJournal
from mai.errors import JournalError
from tests.durable.storage.support import begun, step
async def tried(work):
    try:
        await work
    except JournalError as error:
        print("start workers by spawn" in str(error), flush=True)
async def inside(journal, lease):
    await tried(journal.append(lease, step(2)))
    await tried(journal.runs())
    await tried(SQLiteJournal(sys.argv[1]).open())
    await journal.close()
    async with SQLiteJournal(sys.argv[1] + ".other") as other:  # another file is fine
        await begun(other)
async def before():
    journal = await SQLiteJournal(sys.argv[1]).open()
    lease = await begun(journal)
    await journal.append(lease, step(1))
    return journal, lease
async def after(journal, lease):
    assert await journal.append(lease, step(2)) == 2
    assert await journal.check() == []
    await journal.close()
journal, lease = asyncio.run(before())
child = os.fork()
if child == 0:
    asyncio.run(inside(journal, lease))
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(sys.argv[1] + "-wal")
asyncio.run(after(journal, lease))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    assert finished(program(FORKING, path)).split() == ["True"] * 3

    async def look() -> None:
        async with SQLiteJournal(path) as journal:
            assert len(await journal.history("r")) == 2

    done(look())


def test_a_run_of_100_000_records_is_read_back_whole(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "runs.db"
        async with SQLiteJournal(path, durability="process") as journal:
            lease = await begun(journal)
            for start in range(0, 100_000, 1000):
                await asyncio.gather(*(journal.append(lease, step(n)) for n in range(start, start + 1000)))
        async with SQLiteJournal(path, durability="process") as journal:
            claimed = await journal.claim("r", "you")
            assert claimed is not None
            assert len(claimed[2]) == 100_000
            assert await journal.append(claimed[0], step(100_000)) == 100_001

    done(work())


OPENING = """
import asyncio, sys
from mai.durable import SQLiteJournal
async def main():
    for _ in range(40):
        async with SQLiteJournal(sys.argv[1]) as journal:
            await journal.runs()
asyncio.run(main())
"""


def test_processes_that_open_and_close_one_journal_all_the_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    processes = [program(OPENING, path) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, out, err) == (0, "", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.db"]
