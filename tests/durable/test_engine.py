"""The engine around runs: handles when its block is left, forks, and how many runs it carries on at once."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import mai
from mai import AskError, BlockingDelay, ConfigError, Context, DeadlineExceeded, module
from mai.durable import DurableEngine, SQLiteEngine, SQLiteJournal
from mai.durable.places import Places
from tests.durable.benches import Crash, MemoryBench, Mortal
from tests.durable.conformance import DONE, Approve, add, outcome, slow
from tests.support import loop_of, refused_value, simulated


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


# ---------------------------------------------------------------- leaving the block


@simulated
async def test_leaving_the_block_waits_for_all_handles_of_a_run_that_does_something(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handles = [engine.start(slow >> slow, 1, run_id="r") for _ in range(3)]
        await asyncio.sleep(0.01)
    assert [await handle for handle in handles] == [201, 201, 201]


@simulated
async def test_a_run_that_begins_to_wait_while_the_block_is_left_frees_all_its_handles(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handles = [engine.start(slow >> BlockingDelay(60) >> add, 1, run_id="r") for _ in range(3)]
        await asyncio.sleep(0.01)
    for handle in handles:
        with pytest.raises(asyncio.CancelledError):
            await handle
    info = await bench.journal.run("r")
    assert (info.status, info.cancelled) == ("waiting", False)
    assert await bench.killed(slow >> BlockingDelay(60) >> add, 1, "r", -1) is not None


# ---------------------------------------------------------------- a run that somebody else has


@simulated
async def test_who_waits_for_a_run_that_another_process_has_can_read_in_the_log_for_how_long_at_most(
    bench: MemoryBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mai")
    async with bench.engine(ttl=7.0) as engine, bench.engine() as other:
        engine.start(slow, 1, run_id="r")
        await asyncio.sleep(0.01)
        assert await other.start(slow, 1, run_id="r") == await engine.result("r")
        owner = engine.owner
    (said,) = caplog.messages
    assert said == f"run 'r': {owner} carries it on; if that process was killed, its lease is over in 7 s at most"


# ---------------------------------------------------------------- answers that come late


@simulated
async def test_an_answer_given_while_the_block_is_being_left_is_kept(bench: MemoryBench) -> None:
    async def busy(engine: DurableEngine) -> Any:
        async with engine:
            engine.start(slow >> slow, 1, run_id="other")  # keeps the block open for a while
            asked = engine.start(Approve(), 1, run_id="r")
            while not asked.questions:
                await asyncio.sleep(0.001)
            loop_of().call_later(0.01, asked.answer, True)
            return asked

    await busy(DurableEngine(bench.journal))
    assert [one.data for one in await bench.journal.signals("r")] == [b"true"]
    assert (await bench.killed(Approve(), 1, "r", -1)).value == "2 yes 3"


@simulated
async def test_an_answer_after_the_block_was_left_is_refused(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handle = engine.start(Approve(), 1, run_id="r")
        while not handle.questions:
            await asyncio.sleep(0.001)
    with pytest.raises(AskError, match="the block of its engine was left"):
        handle.answer(True)
    assert await bench.journal.signals("r") == []


@simulated
async def test_an_answer_that_the_journal_does_not_take_is_told(
    bench: MemoryBench, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf:
        def __init__(self, journal: Any) -> None:
            self.journal = journal

        def __getattr__(self, name: str) -> Any:
            return getattr(self.journal, name)

        async def signal(self, *_: Any, **__: Any) -> bool:
            raise mai.JournalError("the disk is full")

    async with bench.engine(journal=Deaf(bench.journal)) as engine:
        handle = engine.start(Approve(), 1, run_id="r")
        while not handle.questions:
            await asyncio.sleep(0.001)
        handle.answer(True)
        await asyncio.sleep(0.01)
    assert caplog.messages == ["DurableEngine: the disk is full"]


# ---------------------------------------------------------------- forks


@simulated
async def test_a_fork_has_the_time_that_was_left_of_the_deadline_around_the_start(bench: MemoryBench) -> None:
    pipe = (add >> slow >> BlockingDelay(15)).with_(name="job")
    async with bench.engine(pipe) as engine:
        with Context.scope(timeout=20):
            assert await engine.start(pipe, 1, run_id="r") == 102
        await asyncio.sleep(3600)
        assert await (await engine.fork("r", at="job/slow")) == 102
        late = (add >> slow >> BlockingDelay(25)).with_(name="job")
        engine.serve(late)
        with Context.scope(timeout=20), pytest.raises(DeadlineExceeded):
            await engine.start(late, 1, run_id="late")
        await asyncio.sleep(3600)
        began = loop_of().time()
        with pytest.raises(DeadlineExceeded):
            await (await engine.fork("late", at="job/slow"))
        assert loop_of().time() == pytest.approx(began + 20, abs=0.1)


# ---------------------------------------------------------------- how many at once


class Crowd:
    """A step that counts how many of it go on at once."""

    def __init__(self) -> None:
        self.now, self.most, self.ended = 0, 0, 0

    def step(self, seconds: float) -> Any:
        @module
        async def counted(n: int) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.now -= 1
            self.ended += 1
            return n

        return counted


async def orphaned(bench: MemoryBench, job: Any, count: int) -> None:
    """Begin so many runs in a process that dies."""
    mortal = Mortal(bench.journal)
    first = DurableEngine(mortal)
    with suppress(Crash):
        async with first:
            handles = [first.start(job, n, run_id=f"r{n}") for n in range(count)]
            while len(await bench.journal.runs("running", limit=count)) < count:
                await asyncio.sleep(0.001)
            mortal.dead = True
            raise Crash
    await asyncio.gather(*(outcome(handle) for handle in handles), return_exceptions=True)
    bench.journal.lose(first.owner)


@simulated
async def test_after_a_crash_no_more_runs_are_taken_up_at_once_than_are_wanted(bench: MemoryBench) -> None:
    crowd = Crowd()
    job = crowd.step(1.0).with_(name="job")
    await orphaned(bench, job, 60)
    crowd.most = crowd.ended = 0
    async with bench.engine(job, max_runs=7) as engine:
        claimed = 0
        while crowd.ended < 60:
            claimed = max(claimed, len([one for one in await bench.journal.runs() if one.owner == engine.owner]))
            await asyncio.sleep(0.25)
    assert (crowd.most, claimed) == (7, 7)
    assert len(await bench.journal.runs("ok")) == 60
    assert {info.claims for info in await bench.journal.runs()} == {2}
    assert crowd.ended == 60


@pytest.mark.slow
async def test_runs_in_a_file_of_a_process_that_died_are_taken_up_so_many_at_a_time(tmp_path: Path) -> None:
    count, job = 1_000, add.with_(name="job")
    async with SQLiteJournal(tmp_path / "runs.db", durability="process") as journal:
        facts: Any = {"target": "job", "plan": None, "fingerprint": "", "input": b'{"n": 1}', "owner": "dead"}
        await asyncio.gather(*(journal.create(f"r{n}", **facts, ttl=0.001) for n in range(count)))
    async with SQLiteEngine(tmp_path / "runs.db", modules=[job], durability="process", max_runs=50) as engine:
        most = 0
        while len(DONE) < count:
            await asyncio.sleep(0.05)
            most = max(most, engine.known())
    assert 1 <= most <= 50
    async with SQLiteJournal(tmp_path / "runs.db") as journal:
        assert len(await journal.runs("ok", limit=2 * count)) == count
    assert len(DONE) == count


@simulated
async def test_two_processes_share_what_one_left(bench: MemoryBench) -> None:
    crowd = Crowd()
    job = crowd.step(1.0).with_(name="job")
    await orphaned(bench, job, 40)
    crowd.most = crowd.ended = 0
    async with bench.engine(job, max_runs=5) as one, bench.engine(job, max_runs=5) as two:
        await asyncio.sleep(0.5)
        owners = [info.owner for info in await bench.journal.runs("running")]
        assert [owners.count(engine.owner) for engine in (one, two)] == [5, 5]
        while crowd.ended < 40:
            await asyncio.sleep(0.5)
    assert crowd.most == 10


@simulated
async def test_a_run_that_only_waits_has_no_place_and_gets_one_again_in_its_turn(bench: MemoryBench) -> None:
    crowd = Crowd()
    job = (crowd.step(1.0) >> BlockingDelay(100) >> crowd.step(1.0).with_(name="last")).with_(name="job")
    await orphaned(bench, job, 12)
    crowd.most = 0
    async with bench.engine(job, max_runs=3, linger=0.1) as engine:
        await asyncio.sleep(50)
        assert [info.status for info in await bench.journal.runs()] == ["waiting"] * 12
        assert engine.places.taken == 0
        while crowd.ended < 24:
            await asyncio.sleep(1)
        assert crowd.most == 3
    assert len(await bench.journal.runs("ok")) == 12


@simulated
async def test_what_is_started_here_waits_for_no_place_but_takes_one(bench: MemoryBench) -> None:
    crowd = Crowd()
    job = crowd.step(1.0).with_(name="job")
    await orphaned(bench, job, 8)
    crowd.most = 0
    async with bench.engine(max_runs=2) as engine:
        await asyncio.sleep(0.1)  # nothing is served so far
        handles = [engine.start(job, n, run_id=f"new{n}") for n in range(5)]
        await asyncio.sleep(0.1)
        engine.serve(job)
        await asyncio.sleep(0.5)
        assert crowd.now == 5
        assert engine.places.taken == 5
        await asyncio.gather(*(outcome(handle) for handle in handles))
        await asyncio.sleep(0.5)
        assert crowd.now == 2
        assert await asyncio.wait_for(_of(engine.start(job, 7, run_id="r7")), 2) == 7  # attached: it is waited for


async def _of(handle: Any) -> Any:
    return await handle


@simulated
async def test_a_handle_of_a_run_that_waits_for_a_place_lets_it_go_on_at_once(bench: MemoryBench) -> None:
    crowd = Crowd()
    step = crowd.step(10.0)
    job = (add >> BlockingDelay(5) >> step).with_(name="job")
    await orphaned(bench, job, 6)
    async with bench.engine(job, max_runs=1, linger=0.1) as engine:
        await asyncio.sleep(9)  # all wait for the only place, which one has
        assert crowd.now == 1
        waiting = next(info.run_id for info in await bench.journal.runs("waiting"))
        began = loop_of().time()
        assert await engine.start(job, int(waiting[1:]), run_id=waiting) == int(waiting[1:]) + 1
        assert loop_of().time() == pytest.approx(began + 10, abs=1.1)


@simulated
async def test_leaving_the_block_lets_those_go_that_wait_for_a_place(bench: MemoryBench) -> None:
    crowd = Crowd()
    job = (add >> BlockingDelay(5) >> crowd.step(10.0)).with_(name="job")
    await orphaned(bench, job, 6)
    async with bench.engine(job, max_runs=1, linger=0.1):
        await asyncio.sleep(9)
        assert crowd.now == 1
    assert crowd.ended == 1
    assert len(await bench.journal.runs("waiting")) == 5
    async with bench.engine(job, max_runs=1):  # no place was lost
        while crowd.ended < 6:
            await asyncio.sleep(1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "9"])
def test_a_number_of_runs_is_at_least_one(bench: MemoryBench, value: Any) -> None:
    with refused_value("DurableEngine", "max_runs", value):
        DurableEngine(bench.journal, max_runs=value)
    with pytest.raises(ConfigError, match="max_runs"):
        SQLiteEngine("runs.db", max_runs=value)


@simulated
async def test_a_place_that_comes_together_with_a_cancel_is_given_back() -> None:
    places = Places(1)
    places.take()
    first, second = asyncio.ensure_future(places.turn("first")), asyncio.ensure_future(places.turn("second"))
    await asyncio.sleep(0)
    assert places.is_full()
    places.give()  # to the first, who is cancelled in the same turn
    first.cancel()
    assert await second
    assert first.cancelled()
    assert places.taken == 1
    third, fourth = asyncio.ensure_future(places.turn("third")), asyncio.ensure_future(places.turn("fourth"))
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.sleep(0)
    places.admit("third")  # who has gone away
    places.close()
    assert await fourth is False
    assert places.taken == 1
