"""Every journal, one behaviour after the other; what only the one in a file does is asked of that one alone."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mai.core.clock import clock
from mai.durable import Lease, MemoryJournal, Record, SQLiteJournal, Tables
from mai.durable.records import Journal
from mai.durable.storage import runs as storage_runs
from mai.errors import AlreadyRecorded, ConfigError, Fenced, JournalError, RunExists, UnknownRun
from mai.testing import FakeClock
from tests.durable.storage.support import GOOD, begun, crashed, step
from tests.support import refused

DAY = 86_400.0


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SQLiteJournal]:
    async with SQLiteJournal(tmp_path / "runs.db", durability="process") as journal:
        yield journal


@pytest.fixture(params=["file", "memory"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    async with SQLiteJournal(tmp_path / "runs.db", durability="process") as journal:
        yield journal
        assert await journal.check() == []


def test_both_are_journals(tmp_path: Path) -> None:
    journals: list[Journal] = [SQLiteJournal(tmp_path / "runs.db"), MemoryJournal()]
    assert journals
    assert list(tmp_path.iterdir()) == []  # nothing happens before it is opened


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"path": ":memory:"}, "path=':memory:' cannot be used: give the name of a file"),
        ({"path": ""}, "path='' cannot be used: give the name of a file"),
        ({"path": "file:x?mode=ro"}, "path='file:x?mode=ro' cannot be used: give the name of a file"),
        ({"durability": "none"}, "durability='none' cannot be used: give 'power' or 'process'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(facts: Any, said: str) -> None:
    with refused(ConfigError, f"SQLiteJournal: {said}"):
        SQLiteJournal(**{"path": "runs.db", **facts})


@pytest.mark.parametrize("patience", [0, -1.0, float("nan"), "1"])
def test_patience_is_a_positive_number_of_seconds(patience: Any) -> None:
    with pytest.raises(ConfigError, match="patience="):
        SQLiteJournal("runs.db", patience=patience)


async def test_what_is_not_open_says_so(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "runs.db")
    with pytest.raises(JournalError, match="is not open"):
        await journal.runs()
    async with journal:
        assert await journal.runs() == []
    with pytest.raises(JournalError, match="is not open"):
        await begun(journal)
    await journal.close()
    async with journal:  # once more
        assert await journal.runs() == []


async def test_all_that_was_given_comes_back(journal: Any) -> None:
    lease = await begun(journal, metadata=b'{"user": "ann"}')
    record = Record("p", "step", 0, b"in", b"out", b"err", 12.5, 3, 1.25, 2.5, "v2")
    assert await journal.append(lease, record) == 1
    assert await journal.history("r") == [Record("p", "step", 1, b"in", b"out", b"err", 12.5, 3, 1.25, 2.5, "v2")]
    info = await journal.run("r")
    assert info is not None
    assert (info.target, info.fingerprint, info.input, info.metadata) == ("t", "f", b"1", b'{"user": "ann"}')
    assert await journal.blob(info.plan) == b'{"name": "t"}'
    assert await journal.run("s") is None


async def test_empty_payloads_are_not_none(journal: Any) -> None:
    lease = await begun(journal)
    await journal.append(lease, Record("a", "step", input=b"", output=b"", error=None))
    record = (await journal.history("r"))[0]
    assert (record.input, record.output, record.error) == (b"", b"", None)


async def test_the_same_run_twice_is_one_and_another_input_or_target_is_refused(journal: Any) -> None:
    first, made = await journal.create("r", **GOOD)
    again, made_again = await journal.create("r", **GOOD, metadata=b'{"ignored": true}', owner="me")
    assert (made, made_again, again) == (True, False, first)
    for other, word in (({"target": "u"}, "target"), ({"input": b"2"}, "input")):
        with pytest.raises(RunExists, match=f"with another {word}; choose another run_id") as caught:
            await journal.create("r", **{**GOOD, **other})
        assert caught.value.run_id == "r"


async def test_of_many_that_create_one_run_at_once_one_makes_it(journal: Any) -> None:
    made = await asyncio.gather(*(journal.create("r", **GOOD) for _ in range(20)))
    assert sorted(new for _, new in made) == [False] * 19 + [True]


async def test_a_claim_fences_the_lease_before_it(journal: Any) -> None:
    old = await begun(journal)
    claimed = await journal.claim("r", "me")
    assert claimed is not None
    assert claimed[0].epoch == old.epoch + 1
    for write in (
        journal.append(old, step(1)),
        journal.take(old, "p", "go", 1.0),
        journal.transact(old, step(2), lambda _: None),
        journal.release(old),
        journal.finish(old, "ok"),
    ):
        with pytest.raises(Fenced, match="'me' holds it with epoch 2") as caught:
            await write
        assert caught.value.run_id == "r"
    await journal.finish(claimed[0], "ok")
    with pytest.raises(Fenced, match="it is ok"):
        await journal.append(claimed[0], step(1))


async def test_a_live_owner_keeps_its_run_and_a_dead_one_loses_it(tmp_path: Path) -> None:
    now, wall = [1000.0], [1e9]
    before = dict(vars(clock))
    vars(clock).update(now=lambda: now[0], wall=lambda: wall[0])
    try:
        async with SQLiteJournal(tmp_path / "runs.db") as one:
            lease = await begun(one, ttl=30.0)
            path = crashed(tmp_path / "runs.db")
        async with SQLiteJournal(path) as other:
            now[0] += 29
            for jump in (DAY, -2 * DAY):  # the wall clock says nothing about leases
                wall[0] += jump
                assert await other.claim("r", "you") is None
                assert await other.due() == []
            now[0] += 2
            assert await other.due() == ["r"]
            claimed = await other.claim("r", "you")
            assert claimed is not None
            assert (claimed[0].owner, claimed[1].claims) == ("you", 2)
            with pytest.raises(Fenced):
                await other.append(lease, step(1))
            now[0] += DAY
            assert await other.due() == []  # it is held here, late as it is
            path = crashed(path, "again")
        now[0] = 5.0  # the machine was started again: its monotonic clock begins anew
        async with SQLiteJournal(path) as other:
            assert await other.due() == ["r"]
            assert await other.claim("r", "me") is not None
    finally:
        vars(clock).clear()
        vars(clock).update(before)


async def test_two_that_write_under_one_lease_in_turn_give_each_record_a_place_of_its_own(
    file: SQLiteJournal, tmp_path: Path
) -> None:
    lease = await begun(file)
    async with SQLiteJournal(tmp_path / "runs.db", durability="process") as other:
        seqs = [await journal.append(lease, step(n)) for n, journal in enumerate((file, other, other, file, other))]
    assert seqs == [record.seq for record in await file.history("r")] == [1, 2, 3, 4, 5]


async def test_writing_renews_the_lease(tmp_path: Path) -> None:
    with FakeClock() as now:
        async with SQLiteJournal(tmp_path / "runs.db") as one, SQLiteJournal(tmp_path / "runs.db") as other:
            lease = await begun(one, ttl=30.0)
            for n in range(5):
                now.advance(20)
                await one.append(lease, step(n))
                assert await other.claim("r", "you") is None


@pytest.mark.slow
async def test_a_lease_lives_on_while_the_event_loop_is_blocked(tmp_path: Path) -> None:
    import time

    async with SQLiteJournal(tmp_path / "runs.db") as one, SQLiteJournal(tmp_path / "runs.db") as other:
        await begun(one, ttl=1.0)
        time.sleep(1.5)
        assert await other.claim("r", "you") is None


async def test_what_was_given_back_goes_on_at_its_time(journal: Any) -> None:
    lease = await begun(journal)
    await journal.release(lease, due=clock.wall() + DAY)
    assert await journal.due() == []
    assert await journal.due(clock.wall() + DAY + 1) == ["r"]
    claimed = await journal.claim("r", "me")
    assert claimed is not None
    assert (claimed[1].due, claimed[1].status) == (None, "running")


async def test_a_run_that_begins_later_is_due_then(journal: Any) -> None:
    await journal.create("r", **GOOD, due=clock.wall() + DAY)
    assert await journal.due() == []
    assert await journal.due(clock.wall() + DAY) == ["r"]


async def test_due_runs_of_other_targets_can_be_left_out(journal: Any) -> None:
    await journal.create("r", **GOOD)
    await journal.create("s", **{**GOOD, "target": "u"})
    assert await journal.due(targets=["u"]) == ["s"]
    assert await journal.due(targets=[]) == []
    assert await journal.due(limit=1) == ["r"]


async def test_claims_are_counted_until_there_is_a_record(journal: Any) -> None:
    await begun(journal)
    for count in (2, 3):
        claimed = await journal.claim("r", "me")
        assert claimed is not None
        assert claimed[1].claims == count
    await journal.append(claimed[0], step(1))
    assert (await journal.claim("r", "me"))[1].claims == 1  # type: ignore[index]


async def test_the_first_record_of_a_path_stands(journal: Any) -> None:
    lease = await begun(journal)
    await journal.append(lease, Record("p", "step", output=b"1"))
    for write in (journal.append(lease, Record("p", "step", output=b"2")), journal.take(lease, "p", "go", 1.0)):
        with pytest.raises(AlreadyRecorded) as caught:
            await write
        assert caught.value.record.output == b"1"
    assert await journal.append(lease, Record("q", "step")) == 2


async def test_one_refused_record_harms_none_that_is_written_with_it(journal: Any) -> None:
    lease = await begun(journal)
    await journal.append(lease, step(3))
    stale = Lease("r", "you", 9)
    records = [journal.append(stale if n == 5 else lease, step(n)) for n in range(10)]
    records += [journal.append(lease, Record("nan", "timer", due=float("nan")))]
    records += [journal.append(lease, Record("\ud800", "step"))]
    records += [journal.append(lease, step(99, attempt=1 << 70))]
    results = await asyncio.gather(*records, return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds == [int] * 3 + [AlreadyRecorded, int, Fenced] + [int] * 4 + [ConfigError] * 3
    assert [record.seq for record in await journal.history("r")] == list(range(1, 10))
    assert "due=nan cannot be recorded" in str(results[10])


async def test_a_signal_waits_for_whoever_asks_and_is_taken_once_and_in_order(journal: Any) -> None:
    lease = await begun(journal)
    assert await journal.take(lease, "a", "go", 1.0) is None
    assert await journal.signal("r", "go", b"1", id="one")
    assert await journal.signal("r", "go", b"1 again", id="one")
    assert await journal.signal("r", "go", b"2")
    assert await journal.signal("r", "stop", b"3")
    assert [await journal.take(lease, path, "go", 1.0) for path in "abc"] == [b"1", b"2", None]
    assert [(s.name, s.data, s.path) for s in await journal.signals("r")] == [
        ("go", b"1", "a"), ("go", b"2", "b"), ("stop", b"3", None)
    ]  # fmt: skip
    assert [(record.kind, record.output) for record in await journal.history("r")] == [("wait", b"1"), ("wait", b"2")]


async def test_a_signal_after_the_end_is_refused(journal: Any) -> None:
    lease = await begun(journal)
    await journal.finish(lease, "ok")
    assert not await journal.signal("r", "go", b"1")
    assert not await journal.cancel("r")
    assert not await journal.resume("r")


async def test_only_a_signal_that_is_waited_for_lets_a_run_go_on(journal: Any) -> None:
    lease = await begun(journal)
    await journal.signal("r", "stop", b"1")
    await journal.release(lease, waits={"a": "go"})
    assert await journal.due() == []
    await journal.signal("r", "stop", b"1")
    assert await journal.due() == []
    await journal.signal("r", "go", b"1")
    assert await journal.due() == ["r"]
    claimed = await journal.claim("r", "me")
    assert claimed is not None
    await journal.release(claimed[0], waits={"a": "go"})  # it came before the run was given back
    assert await journal.due() == ["r"]


async def test_a_cancel_lets_a_waiting_run_go_on(journal: Any) -> None:
    lease = await begun(journal)
    await journal.release(lease, waits={"a": "go"})
    assert await journal.cancel("r")
    assert await journal.cancel("r")
    assert await journal.due() == ["r"]
    info = await journal.run("r")
    assert info is not None
    assert info.cancelled


async def test_a_run_that_needs_attention_stands_until_it_is_resumed(journal: Any) -> None:
    lease = await begun(journal)
    await journal.release(lease, status="needs_attention", due=1.0)
    assert await journal.claim("r", "me") is None
    assert await journal.due() == []
    assert await journal.signal("r", "go", b"1")
    assert await journal.resume("r")
    claimed = await journal.claim("r", "me")
    assert claimed is not None
    assert claimed[1].claims == 1


@pytest.mark.parametrize("status", ["running", "ok", "nonsense"])
async def test_a_run_is_given_back_only_to_wait_or_for_attention(journal: Any, status: Any) -> None:
    lease = await begun(journal)
    with pytest.raises(ConfigError, match="give one of 'needs_attention', 'waiting'"):
        await journal.release(lease, status=status)
    with pytest.raises(ConfigError, match="give one of 'cancelled', 'error', 'ok', 'timeout'"):
        await journal.finish(lease, "waiting")
    with pytest.raises(ConfigError, match="statuses='running'"):
        await journal.prune(0.0, ["running"])


async def test_an_unknown_run_is_named(journal: Any) -> None:
    for ask in (
        journal.claim("x", "me"), journal.append(Lease("x", "me", 1), step(1)), journal.signal("x", "go", b""),
        journal.cancel("x"), journal.resume("x"), journal.history("x"), journal.signals("x"), journal.export("x"),
        journal.fork("x", "y"), journal.runs(after="x"),
    ):  # fmt: skip
        with pytest.raises(UnknownRun, match="has no run 'x'") as caught:
            await ask
        assert caught.value.run_id == "x"


async def test_runs_come_in_pages_newest_first(journal: Any) -> None:
    for n in range(5):
        await journal.create(f"r{n}", **GOOD)
    await begun(journal, "busy")
    page = await journal.runs("pending", limit=2)
    assert [info.run_id for info in page] == ["r4", "r3"]
    assert [info.run_id for info in await journal.runs("pending", after="r3")] == ["r2", "r1", "r0"]
    assert [info.run_id for info in await journal.runs(limit=1)] == ["busy"]


async def test_a_large_payload_is_kept_once_and_goes_with_its_last_run(file: SQLiteJournal) -> None:
    large = b"x" * ((1 << 20) + 1)
    for run_id in ("r", "s"):
        lease = await begun(file, run_id, input=large)
        await file.append(lease, Record("p", "step", input=large, output=large, error=large))
        await file.signal(run_id, "go", large)
        assert await file.take(lease, "w", "go", 1.0) == large
        await file.finish(lease, "ok", output=large)
    with sqlite3.connect(file.path) as look:
        assert look.execute("SELECT count(*) FROM mai_blob WHERE length(data) > 1000").fetchone() == (1,)
    look.close()
    assert (await file.history("s"))[1].output == large
    assert await file.check() == []
    await file.create("t", **GOOD)
    assert await file.prune(clock.wall() + 1) == 2
    with sqlite3.connect(file.path) as look:
        assert look.execute("SELECT length(data) FROM mai_blob").fetchall() == [(len(GOOD["plan"]),)]  # type: ignore[arg-type]
        assert look.execute("PRAGMA freelist_count").fetchone() == (0,)  # the space is given back
    look.close()


@pytest.mark.slow
async def test_a_payload_of_50_mb_comes_back(file: SQLiteJournal) -> None:
    lease = await begun(file)
    large = bytes(range(256)) * 200_000
    await file.append(lease, Record("p", "step", output=large))
    assert (await file.history("r"))[0].output == large


async def test_prune_takes_only_what_ended_so_before(journal: Any) -> None:
    for status in ("ok", "error", "cancelled"):
        await journal.finish(await begun(journal, status), status)  # type: ignore[arg-type]
    await begun(journal, "busy")
    assert await journal.prune(clock.wall() - 10) == 0
    assert await journal.prune(clock.wall() + 10) == 2
    assert {info.run_id for info in await journal.runs()} == {"busy", "error"}


async def test_prune_goes_on_after_its_first_hundred(file: SQLiteJournal) -> None:
    leases = await asyncio.gather(*(begun(file, f"r{n}") for n in range(storage_runs.PRUNED_AT_ONCE + 5)))
    await asyncio.gather(*(file.finish(lease, "ok") for lease in leases))
    assert await file.prune(clock.wall() + 10) == len(leases)


async def test_a_fork_has_the_time_that_was_left_at_its_beginning(journal: Any) -> None:
    lease, then = await begun(journal), clock.wall() - 3600
    await journal.append(lease, Record("timer", "timer", due=then + 60, started=then, ended=then))
    await journal.append(lease, step(1))
    await journal.fork("r", "s", at=step(1).path)
    await journal.fork("r", "all")
    assert (await journal.history("s"))[0].due == pytest.approx(clock.wall() + 60, abs=10)
    assert (await journal.history("all"))[0].due == then + 60  # the run goes on, and so does its time


async def test_a_fork_has_what_was_complete_before(journal: Any) -> None:
    lease = await begun(journal)
    for n in range(4):
        await journal.append(lease, step(n))
    new = await journal.fork("r", "s", at=step(2).path, override={step(1).path: b'"other"'})
    assert (new.status, new.input, new.target, new.records) == ("pending", b"1", "t", 2)
    assert [record.output for record in await journal.history("s")] == [b"0", b'"other"']
    claimed = await journal.claim("s", "me")
    assert claimed is not None
    assert len(claimed[2]) == 2
    assert await journal.append(claimed[0], step(2)) == 3


@pytest.mark.parametrize("facts", [{"at": "nowhere"}, {"override": {"nowhere": b""}}])
async def test_a_fork_at_what_is_not_there_is_refused(journal: Any, facts: Any) -> None:
    await begun(journal)
    with pytest.raises(ConfigError, match="nowhere"):
        await journal.fork("r", "s", **facts)
    assert await journal.run("s") is None


async def test_effects_in_the_same_file_happen_exactly_once(journal: Any) -> None:
    lease = await begun(journal)
    calls = 0

    def book(tables: Tables) -> bytes:
        nonlocal calls
        calls += 1
        tables.execute("CREATE TABLE IF NOT EXISTS seat(number INTEGER PRIMARY KEY)")
        tables.executemany("INSERT INTO seat VALUES(?)", [(1,), (2,)])
        return b"%d" % tables.execute("SELECT count(*) FROM seat").fetchone()[0]

    record = await journal.transact(lease, Record("book", "step", started=1.0), book)
    assert (record.output, record.seq, calls) == (b"2", 1, 1)
    assert (await journal.transact(lease, Record("book", "step"), book), calls) == (record, 1)

    def fails(tables: Tables) -> bytes:
        tables.execute("INSERT INTO seat VALUES(3)")
        raise KeyError("full")

    with pytest.raises(KeyError, match="full"):
        await journal.transact(lease, Record("book~2", "step"), fails)
    with pytest.raises(sqlite3.IntegrityError):
        await journal.transact(lease, Record("book~2", "step"), book)
    assert len(await journal.history("r")) == 1

    def seats(tables: Tables) -> bytes:
        return repr(tables.execute("SELECT number FROM seat").fetchall()).encode()

    assert (await journal.transact(lease, Record("look", "step"), seats)).output == b"[(1,), (2,)]"


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT x", "ATTACH 'x' AS x", "PRAGMA synchronous = OFF", "DELETE FROM mai_run",
     "UPDATE mai_record SET output = x'00'", "INSERT INTO mai_event VALUES(1, 'r', 'ended')", "DROP TABLE mai_run",
     "ALTER TABLE mai_run ADD x", "CREATE INDEX own ON mai_run(due)", "CREATE TABLE mai_mine(x)",
     "CREATE TRIGGER own AFTER INSERT ON mai_record BEGIN SELECT 1; END", "SELECT nonsense"],
)  # fmt: skip
async def test_a_transaction_cannot_harm_the_journal_or_its_neighbours(journal: Any, sql: str) -> None:
    lease, other = await begun(journal), await begun(journal, "other")
    harm = journal.transact(lease, step(1), lambda tables: tables.execute(sql) and None)
    results = await asyncio.gather(journal.append(other, step(1)), harm, return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], sqlite3.Error)
    assert await journal.append(lease, step(1)) == 1


async def test_export_has_everything_as_json(journal: Any) -> None:
    lease = await begun(journal)
    await journal.append(lease, Record("p", "step", input=b'{"a": [1]}', output=b"\xff"))
    await journal.signal("r", "go", b'"now"')
    data = json.loads(json.dumps(await journal.export("r")))
    assert (data["run"]["run_id"], data["run"]["plan"], data["run"]["input"]) == ("r", {"name": "t"}, 1)
    assert (data["records"][0]["input"], data["records"][0]["output"]) == ({"a": [1]}, {"base64": "/w=="})
    assert data["signals"][0]["data"] == "now"


async def test_a_backup_is_one_file_and_a_journal(file: SQLiteJournal, tmp_path: Path) -> None:
    lease = await begun(file)
    await file.append(lease, step(1))
    target = tmp_path / "copies" / "runs.db"
    with pytest.raises(JournalError, match="unable to open"):
        await file.backup(target)
    target.parent.mkdir()
    await file.backup(target)
    assert [path.name for path in target.parent.iterdir()] == ["runs.db"]
    with pytest.raises(JournalError, match="is there already"):
        await file.backup(target)
    async with SQLiteJournal(target) as copy:
        assert await copy.history("r") == await file.history("r")
        assert await copy.check() == []


async def test_closing_writes_what_waits_and_lets_others_go_on_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as other:
        one = await SQLiteJournal(path).open()
        lease = await begun(one)
        writes = [asyncio.ensure_future(one.append(lease, step(n))) for n in range(50)]
        await asyncio.sleep(0)
        await one.close()
        assert await asyncio.gather(*writes) == list(range(1, 51))
        assert await other.due() == ["r"]
        claimed = await other.claim("r", "you")
        assert claimed is not None
        assert len(claimed[2]) == 50


async def test_a_write_whose_caller_was_cancelled_is_whole_or_not_there(journal: Any) -> None:
    lease = await begun(journal)
    task = asyncio.ensure_future(journal.append(lease, step(1)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.result() == 1
    assert await journal.append(lease, step(2)) == 2


async def test_every_loop_may_use_it(journal: Any) -> None:
    lease = await begun(journal)
    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(journal.append(lease, step(1))))
    assert len(await journal.history("r")) == 1


class Heard:
    """A watcher that others can wait for."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.all: list[tuple[str, str]] = []
        self.news = asyncio.Event()

    def __call__(self, run_id: str, what: str) -> None:
        self.loop.call_soon_threadsafe(self._add, (run_id, what))

    def _add(self, what: tuple[str, str]) -> None:
        self.all.append(what)
        self.news.set()

    async def until(self, *wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(20):
            while not set(wanted) <= set(self.all):
                self.news.clear()
                await self.news.wait()


@pytest.mark.slow
async def test_a_watcher_hears_what_another_wrote_and_what_is_to_be_claimed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as one, SQLiteJournal(path) as other:
        heard, only = Heard(), Heard()
        end, _ = one.watch(heard), one.watch(only, targets=["u"])
        lease = await begun(other)
        await other.signal("r", "go", b"1")
        await other.cancel("r")
        await heard.until(("r", "created"), ("r", "signal"), ("r", "cancel"))
        await other.release(lease, waits={})
        await heard.until(("r", "due"))
        claimed = await other.claim("r", "me")
        assert claimed is not None
        await other.finish(claimed[0], "cancelled")
        await heard.until(("r", "ended"))
        await begun(other, "s")
        await other.close()
        await heard.until(("s", "orphaned"))
        end()
        assert {what for _, what in only.all} <= {"created", "signal", "cancel", "ended"}


async def test_a_watcher_that_fails_is_logged_and_harms_nobody(journal: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fails(run_id: str, what: str) -> None:
        raise KeyError(run_id)

    heard = Heard()
    journal.watch(fails)
    journal.watch(heard)
    await begun(journal)
    await heard.until(("r", "created"))
    assert "failed on created of the run 'r'" in caplog.text


@pytest.mark.slow
async def test_a_watcher_that_slept_too_long_is_told_of_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mai.durable.storage import session

    monkeypatch.setattr(session, "MOST_EVENTS", 10)
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as one, SQLiteJournal(path) as other:
        await other.finish(await begun(other, "ended"), "ok")
        lease = await begun(other, "going")
        await other.cancel("going")
        await asyncio.gather(*(other.signal("going", "go", b"") for _ in range(600)))
        await other.release(lease)
        assert await one.runs()
        heard = Heard()
        one.watch(heard)
        await heard.until(("ended", "ended"), ("going", "signal"), ("going", "cancel"))
