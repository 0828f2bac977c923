"""Damaged files: each damage is refused, or what is read is a clean prefix of what was written. Never anything else."""

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mai.durable import Record, SQLiteJournal
from mai.errors import CorruptJournal, JournalError
from tests.durable.storage.support import MEMORY, crashed, done, filled, step
from tests.fuzz_stored import journals, read_journal

History = dict[str, list[Record]]
HEADER, FRAME = 32, 24 + 4096  # bytes of a -wal


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=MEMORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def closed(folder: Path) -> tuple[Path, History]:
    """A journal that was closed: one file."""
    path = folder / "closed.db"
    return path, done(filled(path))


@pytest.fixture(scope="module")
def broken_off(folder: Path) -> tuple[Path, History]:
    """A journal that a crash has left: half of it in the file, half of it in the -wal."""

    async def make() -> tuple[Path, History]:
        path = folder / "open.db"
        await filled(path)
        async with SQLiteJournal(path, durability="process") as journal:
            claimed = await journal.claim("run-2", "me")
            assert claimed is not None
            for n in range(20, 60):
                await journal.append(claimed[0], step(n, input=b"y" * 60))
            history = {f"run-{n}": await journal.history(f"run-{n}") for n in range(3)}
            return crashed(path), history

    return done(make())


def read(path: Path, history: History) -> str:
    """Open the journal and read everything; return what came of it, and fail if anything is silently wrong."""

    async def work() -> str:
        try:
            journal = await SQLiteJournal(path).open()
        except JournalError:
            return "refused"
        refused = missing = False
        try:
            infos = await journal.runs()
        except JournalError:
            infos, refused = [], True
        for run_id, expected in history.items():
            try:
                found = await journal.history(run_id)
            except (JournalError, LookupError):  # a run that is not there is no record of anything
                refused = True
                continue
            assert found == expected[: len(found)], f"{run_id} is silently wrong"
            missing |= len(found) < len(expected)
        assert all(info.target == "t" and info.input == b"1" for info in infos)
        wrong = await journal.check() if not refused else ["x"]
        await journal.close()
        return "refused" if refused else "found by check" if wrong else "prefix" if missing else "whole"

    return done(work())


def damaged(source: Path, harm: Callable[[Path], None]) -> Path:
    """Return a copy of the journal, in a new folder, with *harm* done to it."""
    target = Path(tempfile.mkdtemp(dir=source.parent)) / source.name
    for end in ("", "-wal"):
        if Path(f"{source}{end}").exists():
            shutil.copy(f"{source}{end}", f"{target}{end}")
    harm(target)
    return target


def flip(path: Path, at: int, mask: int) -> None:
    """Flip bits of one byte."""
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= mask
    path.write_bytes(data)


def cut(path: Path, at: int) -> None:
    """Truncate the file."""
    path.write_bytes(path.read_bytes()[:at])


def zero(path: Path, at: int, length: int) -> None:
    """Write zeros, as a disk does that lost a block."""
    data = bytearray(path.read_bytes())
    data[at : at + length] = bytes(len(data[at : at + length]))
    path.write_bytes(data)


def harms(seed: int, path: Path) -> Callable[[Path], None]:
    """Return a random damage of the file or its -wal."""
    draw = random.Random(seed)
    end = draw.choice(["", "-wal"]) if Path(f"{path}-wal").exists() else ""
    size = Path(f"{path}{end}").stat().st_size
    at = draw.randrange(size)
    kind = draw.choice(["flip", "flip", "flip", "cut", "zero"])

    def harm(target: Path) -> None:
        file = Path(f"{target}{end}")
        if kind == "flip":
            flip(file, at, 1 << draw.randrange(8))
        elif kind == "cut":
            cut(file, at)
        else:
            zero(file, at - at % 512, 512)

    return harm


@pytest.mark.parametrize("seed", range(24))
def test_a_random_damage_is_refused_or_leaves_a_clean_prefix(
    seed: int, closed: tuple[Path, History], broken_off: tuple[Path, History]
) -> None:
    source, history = (closed, broken_off)[seed % 2]
    target = damaged(source, harms(seed, source))
    read(target, history)
    shutil.rmtree(target.parent)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_random_damages_are_refused_or_leave_a_clean_prefix(
    block: int, closed: tuple[Path, History], broken_off: tuple[Path, History]
) -> None:
    for seed in range(1000 + block * 50, 1050 + block * 50):
        source, history = (closed, broken_off)[seed % 2]
        target = damaged(source, harms(seed, source))
        try:
            read(target, history)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        shutil.rmtree(target.parent)


def test_what_is_whole_is_read_whole(closed: tuple[Path, History], broken_off: tuple[Path, History]) -> None:
    for source, history in (closed, broken_off):
        assert read(damaged(source, lambda _: None), history) == "whole"


def test_a_wal_torn_in_any_frame_leaves_a_clean_prefix(broken_off: tuple[Path, History]) -> None:
    source, history = broken_off
    frames = (Path(f"{source}-wal").stat().st_size - HEADER) // FRAME
    assert frames > 30
    for frame in range(0, frames, 7):
        for at in (HEADER + frame * FRAME, HEADER + frame * FRAME + 2000):
            target = damaged(source, lambda path, at=at: cut(Path(f"{path}-wal"), at))  # type: ignore[misc]
            assert read(target, history) in ("prefix", "whole")


@pytest.mark.slow
def test_a_wal_torn_in_every_frame_and_at_random_leaves_a_clean_prefix(broken_off: tuple[Path, History]) -> None:
    source, history = broken_off
    size, draw = Path(f"{source}-wal").stat().st_size, random.Random(1)
    ends = [at + within for at in range(HEADER, size, FRAME) for within in (0, 24, draw.randrange(FRAME))]
    for end in [*ends, *(draw.randrange(size) for _ in range(60))]:
        target = damaged(source, lambda path, end=end: cut(Path(f"{path}-wal"), end))  # type: ignore[misc]
        assert read(target, history) in ("prefix", "whole")
        shutil.rmtree(target.parent)


@pytest.mark.slow
def test_a_flipped_bit_in_any_frame_of_the_wal_is_refused_or_leaves_a_clean_prefix(
    broken_off: tuple[Path, History],
) -> None:
    source, history = broken_off
    size, draw, found = Path(f"{source}-wal").stat().st_size, random.Random(2), set[str]()
    for frame in range(HEADER, size, FRAME):
        at, mask = frame + draw.randrange(FRAME), 1 << draw.randrange(8)
        target = damaged(source, lambda path, at=at, mask=mask: flip(Path(f"{path}-wal"), at, mask))  # type: ignore[misc]
        found.add(read(target, history))
        shutil.rmtree(target.parent)
    assert "prefix" in found
    assert found <= {"prefix", "whole", "refused"}


@pytest.mark.parametrize(
    "value", ["Sequential/Step~13", "run-1", "x" * 400, "mai_record"], ids=["path", "run", "payload", "schema"]
)
def test_a_flipped_bit_in_a_value_is_refused(value: str, closed: tuple[Path, History]) -> None:
    source, history = closed
    data = source.read_bytes()
    at = data.find(value.encode())
    assert at > 0
    target = damaged(source, lambda path: flip(path, at + len(value) // 2, 1))
    assert read(target, history) in ("refused", "found by check")


async def test_the_error_names_file_run_and_path(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await filled(path)
    look = sqlite3.connect(path)
    look.execute("UPDATE mai_record SET output = x'00' WHERE run_id = 'run-1' AND path LIKE '%~7'")
    look.execute("UPDATE mai_run SET status = 'error' WHERE run_id = 'run-0'")
    look.execute("DELETE FROM mai_record WHERE run_id = 'run-2' AND seq = 20")
    look.commit()
    look.close()
    async with SQLiteJournal(path) as journal:
        with pytest.raises(
            CorruptJournal, match=r"the record 'Sequential/Step~7' of the run 'run-1' was damaged"
        ) as at:
            await journal.history("run-1")
        assert at.value.path == str(path)
        with pytest.raises(CorruptJournal, match="the run 'run-0' was damaged; restore a backup"):
            await journal.run("run-0")
        assert len(await journal.history("run-2")) == 19  # it goes on: the newest ones may be missing, as after a crash
        assert len(await journal.check()) == 2


async def test_a_record_that_is_missing_from_a_run_that_ended_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await filled(path)
    for run_id, seq in (("run-0", 20), ("run-1", 7)):
        look = sqlite3.connect(path)
        look.execute("DELETE FROM mai_record WHERE run_id = ? AND seq = ?", (run_id, seq))
        look.commit()
        look.close()
        async with SQLiteJournal(path) as journal:
            with pytest.raises(CorruptJournal, match=f"the list of records of the run '{run_id}'"):
                await journal.history(run_id)


async def test_a_missing_or_changed_blob_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as journal:
        for run_id in ("r", "s"):
            await journal.create(run_id, target="t", plan=None, fingerprint="", input=run_id.encode() * (2 << 20))
    look = sqlite3.connect(path)
    look.execute("UPDATE mai_blob SET data = x'00' WHERE substr(data, 1, 1) = x'72'")
    look.execute("DELETE FROM mai_blob WHERE substr(data, 1, 1) = x'73'")
    look.commit()
    look.close()
    async with SQLiteJournal(path) as journal:
        with pytest.raises(CorruptJournal, match=r"the content [0-9a-f]{16}\.\.\. was damaged"):
            await journal.run("r")
        with pytest.raises(CorruptJournal, match=r"the content [0-9a-f]{16}\.\.\. is missing"):
            await journal.run("s")
        assert len(await journal.check()) == 3


async def test_check_sees_what_belongs_to_nobody_and_owners_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path) as journal:
        for run_id, owner in (("r", "me"), ("s", "you"), ("t", "they")):
            await journal.create(run_id, target="t", plan=b"1", fingerprint="", input=b"", owner=owner)
        assert await journal.check() == []
    look = sqlite3.connect(path)
    look.execute("DELETE FROM mai_run WHERE run_id = 'r'")
    look.execute("UPDATE mai_owner SET ttl = 'soon' WHERE owner = 'you'")
    look.execute("DELETE FROM mai_owner WHERE owner = 'they'")
    look.commit()
    look.close()
    async with SQLiteJournal(path) as journal:
        assert len(await journal.check()) == 4  # the owner that is damaged, and its run
        for work in (journal.claim("s", "me"), journal.run("s"), journal.runs()):
            with pytest.raises(CorruptJournal, match="owner 'you'"):
                await work
        assert await journal.claim("t", "me") is not None


async def test_a_missing_wal_is_told_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.db"
    history = await filled(path)
    async with SQLiteJournal(path) as journal:
        claimed = await journal.claim("run-2", "me")
        assert claimed is not None
        await journal.append(claimed[0], step(99))
        copy = crashed(path)
    Path(f"{copy}-wal").unlink()
    async with SQLiteJournal(copy) as journal:
        assert "has no -wal file: if it was moved here without it, its newest records are missing" in caplog.text
        assert await journal.history("run-2") == history["run-2"]
    caplog.clear()
    async with SQLiteJournal(copy):
        assert caplog.text == ""

    async with SQLiteJournal(copy):
        broken = crashed(copy, "broken")
    Path(f"{broken}-wal").unlink()
    data = broken.read_bytes()
    flip(broken, data.find(b"x" * 400), 1)
    with pytest.raises(JournalError, match="was not closed, and its -wal file is missing"):
        await SQLiteJournal(broken).open()


def test_the_wal_of_another_journal_is_seen(broken_off: tuple[Path, History], tmp_path: Path) -> None:
    source, history = broken_off

    async def other() -> Path:
        path = tmp_path / "other.db"
        await filled(path)
        async with SQLiteJournal(path, durability="process") as journal:
            claimed = await journal.claim("run-2", "me")
            assert claimed is not None
            for n in range(20, 60):
                await journal.append(claimed[0], step(n, output=b"another"))
            return crashed(path)

    foreign = done(other())
    target = damaged(source, lambda path: shutil.copy(f"{foreign}-wal", f"{path}-wal") and None)
    assert read(target, history) in ("refused", "found by check")


@pytest.mark.slow
@pytest.mark.parametrize("ends", [True, False])
def test_damage_to_the_head_of_a_page_is_refused_in_the_declared_way(ends: bool) -> None:
    """Two of these make SQLite give rows whose columns are empty, the address of a content among them."""
    whole = journals()[not ends]
    for page in range(0, len(whole), 4096):
        for at in range(page + (101 if page == 0 else 1), page + (110 if page == 0 else 10)):
            for value in (0, 2):
                with suppress(JournalError):
                    read_journal(whole[:at] + bytes([value]) + whole[at + 1 :])
