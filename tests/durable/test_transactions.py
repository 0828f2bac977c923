"""Effects in the file of the journal: whatever is killed, each happens exactly once."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai import ConfigError, Map, Module, Parallel, PayloadError, Retry, StepFailed, module
from mai.durable import MemoryJournal, SQLiteEngine, Tables, transaction
from tests.durable.benches import STEPS, WRITES, FileBench, JournalBench, MemoryBench
from tests.durable.conformance import DONE, add, did, outcome, slow
from tests.support import simulate, simulated


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


def entry(text: str) -> Callable[[Tables], int]:
    """Return what writes a line and counts them."""

    def write(tables: Tables) -> int:
        tables.execute("CREATE TABLE IF NOT EXISTS entry(text TEXT)")
        tables.execute("INSERT INTO entry VALUES(?)", (text,))
        count: int = tables.execute("SELECT count(*) FROM entry").fetchone()[0]
        return count

    return write


@module
async def booked(n: int) -> int:
    did(n)
    count = await transaction(entry(f"step {n}"))
    again = await transaction(entry(f"step {n} again"))
    await asyncio.sleep(0)
    assert again >= count
    return n


@module(flow=True)
async def both(n: int) -> int:
    await transaction(entry(f"flow {n}"))
    n = await booked(n)
    await transaction(entry(f"flow {n} again"))
    return n


JOB: Any = (both >> Parallel(booked, slow >> booked) >> max >> (lambda n: [n, n + 1]) >> Map(both)).with_(name="job")
ENTRIES = Counter(
    ["flow 1", "step 1", "step 1 again", "flow 1 again", "step 1", "step 1 again", "step 101", "step 101 again",
     *(f"{what} {n}{more}" for what in ("flow", "step") for n in (101, 102) for more in ("", " again"))]
)  # fmt: skip


async def entries(bench: JournalBench) -> Counter[str]:
    """Return what was written, as a run sees it."""

    def read(tables: Tables) -> list[str]:
        return [text for (text,) in tables.execute("SELECT text FROM entry")]

    @module(flow=True)
    async def look(n: int) -> list[str]:
        return await transaction(read)

    async with bench.engine() as engine:
        return Counter(await engine.start(look, 1))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", [*STEPS, *WRITES])
@simulated
async def test_a_kill_at_any_write_leaves_each_effect_exactly_once(name: str, *, after: bool) -> None:
    for at in range(60):
        bench = MemoryBench()
        died = await bench.killed(JOB, 1, "r", at, after=after, names=(name,)) is None
        found = await bench.killed(JOB, 1, "r", -1)
        assert found is not None
        assert found.value == [101, 102]
        assert await entries(bench) == ENTRIES
        paths = [record.path for record in await bench.journal.history("r")]
        assert len(set(paths)) == len(paths)
        if not died:
            return
    raise AssertionError("there is no end of writes")


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from([*STEPS, *WRITES])), max_size=6))
def test_any_number_of_kills_leaves_each_effect_exactly_once(kills: list[tuple[int, bool, str]]) -> None:
    async def main() -> None:
        bench = MemoryBench()
        for at, after, name in kills:
            await bench.killed(JOB, 1, "r", at, after=after, names=(name,))
        assert await outcome(_of(bench)) == await outcome(_of(MemoryBench()))
        assert await entries(bench) == ENTRIES

    simulate(main)


async def _of(bench: MemoryBench) -> Any:
    found = await bench.killed(JOB, 1, "r", -1)
    assert found is not None
    return found.value


@pytest.mark.slow
def test_in_a_file_a_kill_at_any_record_leaves_each_effect_exactly_once(tmp_path: Path) -> None:
    async def main() -> None:
        for after in (False, True):
            for at in range(60):
                bench = FileBench(tmp_path / f"{after} {at}.db")
                died = await bench.killed(JOB, 1, "r", at, after=after) is None
                found = await bench.killed(JOB, 1, "r", -1)
                assert found is not None
                assert found.value == [101, 102]
                with sqlite3.connect(bench.path) as look:
                    rows = look.execute("SELECT text FROM entry").fetchall()
                look.close()
                assert Counter(text for (text,) in rows) == ENTRIES
                if not died:
                    break

    asyncio.run(main())


@simulated
async def test_a_step_that_is_tried_again_does_not_do_again_what_it_committed(bench: MemoryBench) -> None:
    @module(retry=Retry(3, base=0.001))
    async def shaky(n: int) -> int:
        did(n)
        count = await transaction(entry("once"))
        if len(DONE) < 3:
            raise ConnectionError(str(count))
        return count

    async with bench.engine() as engine:
        assert await engine.start(shaky, 1, run_id="r") == 1
        assert [record.path for record in await engine.history("r")] == ["shaky!transaction", "shaky"]
    assert len(DONE) == 3
    assert await entries(bench) == Counter(["once"])


def fails(tables: Tables) -> int:
    tables.execute("CREATE TABLE IF NOT EXISTS entry(text TEXT)")
    tables.execute("CREATE TABLE seat(number INTEGER PRIMARY KEY)")
    tables.executemany("INSERT INTO seat VALUES(?)", [(1,), (1,)])
    return 0


def unwritable(tables: Tables) -> object:
    tables.execute("CREATE TABLE IF NOT EXISTS entry(text TEXT)")
    tables.execute("INSERT INTO entry VALUES('lost')")
    return object()


@pytest.mark.parametrize(("work", "kind"), [(fails, sqlite3.IntegrityError), (unwritable, PayloadError)])
@simulated
async def test_a_failure_in_a_flow_is_rolled_back_and_is_the_same_in_each_replay(
    bench: MemoryBench, work: Any, kind: type[Exception]
) -> None:
    seen: list[str] = []

    @module(flow=True)
    async def caught(n: int) -> int:
        try:
            await transaction(work)
        except kind as error:
            seen.append(f"{type(error).__name__} {error}")
        return await slow(await add(n))

    assert await bench.killed(caught, 1, "r", 1, after=True) is None
    assert (await bench.killed(caught, 1, "r", -1)).value == 102
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert [record.error is not None for record in await bench.journal.history("r")] == [True, False, False]


@pytest.mark.parametrize("turns", range(6))
@simulated
async def test_a_cancel_that_comes_while_a_transaction_fails_is_not_lost(bench: MemoryBench, turns: int) -> None:
    @module(flow=True)
    async def goes_on(n: int) -> int:
        with suppress(sqlite3.IntegrityError):
            await transaction(fails)
        return await slow(n)

    async with bench.engine() as engine:
        handle = engine.start(goes_on, 1, run_id="r")
        for _ in range(turns):
            await asyncio.sleep(0)
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
    assert DONE == []


@simulated
async def test_a_failure_in_a_step_leaves_no_record_so_that_the_next_attempt_tries_again(bench: MemoryBench) -> None:
    class Busy(Exception):
        pass

    def later(tables: Tables) -> int:
        entry("once")(tables)
        did("x")
        if len(DONE) < 3:
            raise Busy
        return 5

    @module(retry=Retry(5, base=0.001))
    async def tries(n: int) -> int:
        assert n
        return await transaction(lambda tables: later(tables))

    async def of(tables: Tables) -> int:
        return 1

    async with bench.engine() as engine:
        assert await engine.start(tries, 1, run_id="r") == 5
        with pytest.raises(ConfigError, match="is not a plain function of tables"):
            await transaction(of)  # type: ignore[arg-type]
    assert len(DONE) == 3
    assert await entries(bench) == Counter(["once"])


@simulated
async def test_an_exception_that_no_record_can_hold_is_told_by_its_name(bench: MemoryBench) -> None:
    def hidden() -> Exception:
        class Local(Exception):
            pass

        return Local("out of sight")

    def work(tables: Tables) -> int:
        raise hidden()

    @module(flow=True)
    async def flow(n: int) -> int:
        return await transaction(work)

    async with bench.engine() as engine:
        with pytest.raises(StepFailed, match="Local: out of sight"):
            await engine.start(flow, 1)


@pytest.mark.parametrize(
    "error", [OverflowError("large"), UnicodeEncodeError("utf-8", "x", 0, 1, "odd"), KeyError("k")]
)
async def test_in_a_file_every_error_of_the_work_is_its_own(tmp_path: Path, error: Exception) -> None:
    def work(tables: Tables) -> int:
        raise error

    @module
    async def step(n: int) -> str:
        try:
            await transaction(work)
        except type(error) as caught:
            return f"{caught is error}"
        return ""

    async with SQLiteEngine(tmp_path / "runs.db") as engine:
        assert await engine.start(step, 1) == "True"


@simulated
async def test_a_journal_that_fails_in_a_transaction_ends_the_call_and_not_the_run(bench: MemoryBench) -> None:
    from mai import JournalError

    class Full(MemoryJournal):
        full = True

        async def transact(self, lease: Any, record: Any, work: Any) -> Any:
            if self.full:
                raise JournalError("the disk is full")
            return await super().transact(lease, record, work)

    bench.journal = full = Full()
    async with bench.engine() as engine:
        for m in (both, booked):
            with pytest.raises(JournalError, match="full"):
                await engine.start(m, 1, run_id=m.settings.name)
        full.full = False
        for m in (both, booked):
            assert await engine.start(m, 1, run_id=m.settings.name) == 1


@simulated
async def test_a_fork_at_a_step_does_its_transactions_again(bench: MemoryBench) -> None:
    async with bench.engine(both) as engine:
        assert await engine.start(both, 1, run_id="r") == 1
        before = await entries(bench)
        assert await (await engine.fork("r", at="both/booked", new_id="fork")) == 1
        assert [one.path for one in await engine.history("fork")] == [
            "both/transaction", "both/booked!transaction", "both/booked!transaction~2", "both/booked",
            "both/transaction~2",
        ]  # fmt: skip
        assert [one.seq for one in await engine.history("fork")] == [1, 2, 3, 4, 5]
    assert await entries(bench) - before == Counter(["step 1", "step 1 again", "flow 1 again"])


@simulated
async def test_where_nothing_is_recorded_it_says_so() -> None:
    for m in (both, booked):
        with pytest.raises(ConfigError, match="no journal records this"):
            await m(1)
    with pytest.raises(ConfigError, match="no journal records this"):
        await transaction(entry("x"))


class Typed(Module):
    """Gives back what its type says."""

    async def forward(self, n: int) -> str:
        def work(tables: Tables) -> set[int]:
            return {n, n + 1}

        found = await transaction(work)
        return repr(sorted(found)) + type(found).__name__


@simulated
async def test_the_value_is_of_the_type_that_the_function_declares(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        assert await engine.start(Typed(), 1) == "[1, 2]set"
