"""`mai runs` in this process: what it prints, what it does to the journal, and the exit code."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mai.core.clock import clock
from mai.durable import Lease, Record, RunInfo, Signal, SQLiteJournal
from tests.cli.support import Done

Mai = Callable[..., Done]
GOOD: dict[str, Any] = {"target": "rag", "plan": b"{}", "fingerprint": "f", "input": b'{"n": 1}'}


def stored(work: Callable[[SQLiteJournal], Awaitable[Any]], db: Path) -> Any:
    """Return what *work* gives with the journal."""

    async def main() -> Any:
        async with SQLiteJournal(db) as journal:
            return await work(journal)

    return asyncio.run(main())


@pytest.fixture
def db(here: Path) -> Path:
    """A journal with a run that waits, one that ended, and one that needs attention."""

    async def fill(journal: SQLiteJournal) -> None:
        for run_id in ("order-1", "order-2", "order-3"):
            info, _ = await journal.create(run_id, **GOOD, owner="me")
            lease = Lease(run_id, "me", info.epoch)
            await journal.append(lease, Record("rag/Search", "step", output=b'["doc"]', started=1.0, ended=1.5))
            if run_id == "order-1":
                await journal.append(lease, Record("rag/Delay", "timer", due=clock.wall() + 7300))
                await journal.release(lease, due=clock.wall() + 7300, waits={"rag/ask": "rag/ask"})
            elif run_id == "order-2":
                failed = Record("rag/Send~2", "step", error=b'{"type": "Down"}', attempt=3, started=1.0, ended=2.0)
                await journal.append(lease, failed)
                await journal.finish(lease, "error", error=b'"down"')
            else:
                await journal.release(lease, status="needs_attention")

    stored(fill, here / "runs.db")
    return here / "runs.db"


def test_runs_are_listed_newest_first(mai: Mai, db: Path) -> None:
    done = mai("runs", "list", "--db", db)
    assert (done.code, done.err) == (0, "")
    words = [line.split() for line in done.out.splitlines()]
    assert [line[2:5] for line in words] == [
        ["needs_attention", "order-3", "rag"], ["error", "order-2", "rag"], ["waiting", "order-1", "rag"]
    ]  # fmt: skip
    assert "(in 2 h)  waits for rag/ask" in done.out
    assert mai("runs", "list", "--db", db, "--status", "ok").out == "no runs\n"
    found = json.loads(mai("runs", "list", "--db", db, "--json", "--limit", "1").out)
    assert [(run["run_id"], run["status"]) for run in found] == [("order-3", "needs_attention")]


def test_a_run_is_shown_as_a_tree_with_what_it_waits_for(mai: Mai, db: Path) -> None:
    stored(lambda journal: journal.signal("order-1", "stop", b"1"), db)
    done = mai("runs", "show", "order-1", "--db", db)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "order-1  rag  waiting"
    assert '  input {"n": 1}' in lines
    at = lines.index("  rag")
    assert lines[at + 1] == '    Search  [1] step  0.500 s  -> ["doc"]'
    assert lines[at + 2].startswith("    Delay  [2] timer  until 20")
    assert lines[at + 2].endswith("(2 h to go)")
    assert lines[at + 3] == "    ask  waits for 'rag/ask'"
    assert lines[-1].startswith("  signal stop 1  20")
    assert lines[-1].endswith("waits to be taken")


def test_a_run_that_failed_says_where(mai: Mai, db: Path) -> None:
    out = mai("runs", "show", "order-2", "--db", db).out
    assert '    Send~2  [2] step  1.000 s  attempt 3  failed: {"type": "Down"}' in out.splitlines()
    assert '  error "down"' in out.splitlines()
    data = json.loads(mai("runs", "show", "order-2", "--db", db, "--json").out)
    assert data == json.loads(mai("runs", "export", "order-2", "--db", db).out)
    assert data["records"][1]["error"] == {"type": "Down"}


def test_a_run_is_told_things(mai: Mai, db: Path) -> None:
    assert mai("runs", "signal", "order-1", "go", "--db", db).out == "order-1: has the signal 'go'\n"
    assert mai("runs", "signal", "order-1", "go", '{"a": 1}', "--id", "x", "--db", db).code == 0
    assert mai("runs", "answer", "order-1", "yes please", "--db", db).out == "order-1: has the answer to 'rag/ask'\n"
    assert mai("runs", "cancel", "order-1", "--db", db).out == "order-1: is asked to end\n"
    assert mai("runs", "resume", "order-3", "--db", db).out == "order-3: goes on\n"
    signals = stored(lambda journal: journal.signals("order-1"), db)
    assert [(signal.name, signal.data) for signal in signals] == [
        ("go", b"null"), ("go", b'{"a":1}'), ("rag/ask", b'"yes please"')
    ]  # fmt: skip
    info: RunInfo = stored(lambda journal: journal.run("order-1"), db)
    assert info.cancelled
    shown = mai("runs", "show", "order-1", "--db", db).out
    assert "  to be taken up now" in shown.splitlines()
    assert "  asked to end" in shown.splitlines()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cancel", "order-2"], "the run 'order-2' has ended already"),
        (["resume", "order-2"], "the run 'order-2' does not stand still: it runs or has ended"),
        (["signal", "order-2", "go"], "the run 'order-2' has ended"),
        (["answer", "order-3", "x"],
         "the run 'order-3' has no single open question; none is known: name it with --question"),
        (["list", "--status", "sleeping"], "there is no status 'sleeping'; there are pending, running"),
        (["prune", "--older-than", "soon"], "--older-than 'soon': write a number and a unit"),
        (["fork", "order-2", "new", "--set", "rag"], "--set 'rag': write PATH=VALUE"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_bad_usage(mai: Mai, db: Path, words: list[str], said: str) -> None:
    done = mai("runs", *words, "--db", db)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"mai runs: {said}")


@pytest.mark.parametrize("words", [["show", "x"], ["answer", "x", "1"], ["cancel", "x"], ["export", "x"]])
def test_a_run_that_is_not_there_is_named(mai: Mai, db: Path, words: list[str]) -> None:
    done = mai("runs", *words, "--db", db)
    assert (done.code, done.out) == (1, "")
    assert "has no run 'x'" in done.err


def test_a_journal_that_is_not_there_is_not_made(mai: Mai, here: Path) -> None:
    done = mai("runs", "list", "--db", here / "nothing.db")
    assert (done.code, done.out) == (1, "")
    assert "there is no such file" in done.err
    assert not (here / "nothing.db").exists()


def test_a_run_is_forked(mai: Mai, db: Path) -> None:
    words = ["runs", "fork", "order-2", "new", "--at", "rag/Send~2", "--set", "rag/Search=[]", "--db", db]
    assert mai(*words).out == "new: begins with 1 records of order-2\n"
    history = stored(lambda journal: journal.history("new"), db)
    assert [(record.path, record.output) for record in history] == [("rag/Search", b"[]")]
    assert mai(*words).code == 1


def test_old_runs_are_pruned(mai: Mai, db: Path) -> None:
    assert mai("runs", "prune", "--db", db).out == "0 runs deleted\n"
    done = mai("runs", "prune", "--older-than", "0s", "--status", "error", "--status", "ok", "--db", db)
    assert done.out == "1 runs deleted\n"
    assert mai("runs", "prune", "--older-than", "0s", "--status", "running", "--db", db).code == 1


def test_a_journal_is_checked_and_copied(mai: Mai, db: Path) -> None:
    assert mai("runs", "check", "--db", db).out == "all is well\n"
    assert mai("runs", "backup", str(db.with_name("copy.db")), "--db", db).code == 0
    assert mai("runs", "check", "--db", str(db.with_name("copy.db"))).out == "all is well\n"
    data = bytearray(db.read_bytes())
    data[data.find(b'["doc"]')] ^= 1
    db.write_bytes(data)
    done = mai("runs", "check", "--db", db)
    assert done.code == 1
    assert "was damaged; restore a backup" in done.out


def test_the_state_of_a_run_in_words() -> None:
    from mai.cli.history import line, lines

    run = RunInfo("r", "t", "", "", b"", status="running", owner="me", lease_until=110.0, claims=3)
    assert line(run, 100.0).endswith("r  t  owner me, lease for 10 s  claimed 3 times without a new record")
    assert "owner me, who is gone" in line(run, 120.0)
    long = Record("p", "step", 1, output=b"x" * 100)
    shown = [*lines(run, [long], [Signal(1, "go", "i", b"1", 5.0, "p")], 100.0)]
    assert shown[-2] == "  p  [1] step  -> " + "x" * 59 + "…"
    assert shown[-1] == "  signal go 1  1970-01-01 00:00:05Z, taken at p"


def test_a_run_that_was_traced_tells_the_ids_of_its_traces() -> None:
    from mai.cli.history import lines

    run = RunInfo("r", "t", "", "", b"", status="ok")
    carrier = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    mark = Record("!segment/r/2", "flow", 2, output=json.dumps(carrier).encode())
    shown = [*lines(run, [Record("p", "step", 1), mark], [], 100.0)]
    assert shown[-2:] == ["  p  [1] step", f"  trace {'ab' * 16} of segment 2"]
