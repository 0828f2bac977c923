"""Disks and file systems that fail: who waits gets an error that says what to do, and nothing is half written."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mai.durable import SQLiteJournal
from mai.durable.storage import schema
from mai.durable.storage.files import Files
from mai.errors import CorruptJournal, JournalError
from tests.durable.storage.support import GOOD, begun, crashed, filled, finished, program, step
from tests.support import refused


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "runs.db"
    with refused(JournalError, f"{str(path)!r}: there is no folder {str(path.parent)!r}"):
        await SQLiteJournal(path).open()


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with refused(JournalError, f"{str(tmp_path)!r} is no regular file"):
        await SQLiteJournal(tmp_path).open()


@pytest.mark.parametrize("data", [b"hello" * 400, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(data)
    with pytest.raises(CorruptJournal, match=r"it is no journal|it was damaged"):
        await SQLiteJournal(path).open()
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.db"]


async def test_a_journal_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with refused(JournalError, f"{str(path)!r}: there is no such file"):
        await SQLiteJournal(path, create=False).open()
    sqlite3.connect(path).execute("CREATE TABLE mine(x)").connection.close()
    with refused(JournalError, f"{str(path)!r} has no journal"):
        await SQLiteJournal(path, create=False).open()
    async with SQLiteJournal(path):  # a program's own tables may stand beside it
        pass
    async with SQLiteJournal(path, create=False) as journal:
        assert await journal.runs() == []


async def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await filled(path)
    look = sqlite3.connect(path)
    row = look.execute("SELECT id, 2, created, open FROM mai_journal").fetchone()
    look.execute("UPDATE mai_journal SET version = 2, crc = ?", (schema.checksum(0, row),))
    look.commit()
    look.close()
    with refused(
        JournalError,
        f"{str(path)!r} was written by a newer mai: its tables have version 2, this mai knows 1; upgrade mai",
    ):
        await SQLiteJournal(path).open()


async def test_a_journal_that_does_not_say_which_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    await filled(path)
    look = sqlite3.connect(path)
    look.execute("UPDATE mai_journal SET id = 'other'")
    look.commit()
    look.close()
    with pytest.raises(CorruptJournal, match="does not say which journal it is"):
        await SQLiteJournal(path).open()


def test_an_older_journal_is_migrated_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    asyncio.run(filled(Path(path)))
    look = sqlite3.connect(path, isolation_level=None)
    steps = [*schema.STEPS, ("ALTER TABLE mai_run ADD COLUMN priority INTEGER", "UPDATE mai_run SET priority = 1")]
    before = schema.identity(look, path)
    assert before is not None
    look.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(look, path, [*steps, ("CREATE TABLE mai_new(x)", "nonsense")])
    look.execute("ROLLBACK")
    assert schema.identity(look, path) == before
    look.execute("BEGIN IMMEDIATE")
    after = schema.migrate(look, path, steps)
    look.execute("COMMIT")
    assert after == before._replace(version=2) == schema.identity(look, path)
    assert look.execute("SELECT sum(priority) FROM mai_run").fetchone() == (3,)
    look.close()


READ_ONLY = """
import asyncio, os, sys
from mai.durable import SQLiteJournal
from mai.errors import JournalError
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
async def main():
    try:
        await SQLiteJournal(sys.argv[1]).open()
    except JournalError as error:
        print(error)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(0o555, 0o444), (0o555, 0o000), (0o000, 0o666)])
def test_a_file_that_may_not_be_written_says_what_to_look_at(mode: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "runs.db"
        asyncio.run(filled(path))
        path.chmod(mode[1])
        folder.chmod(mode[0])
        try:
            assert "look at the permissions of the file and of its folder" in finished(program(READ_ONLY, path))
        finally:
            folder.chmod(0o755)


async def test_a_file_that_is_deleted_or_replaced_under_a_run_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    other = tmp_path / "other.db"
    await filled(other)
    for harm in (lambda: path.unlink(), lambda: shutil.copy(other, path.with_suffix(".new")).replace(path)):
        journal = await SQLiteJournal(path).open()
        lease = await begun(journal)
        await journal.append(lease, step(1))
        harm()
        for n in (2, 3):
            with pytest.raises(JournalError, match=r"was deleted or replaced while it was open; nothing more"):
                await journal.append(lease, step(n))
        await journal.close()
        assert Path(f"{path}-wal").exists()
        with pytest.raises(JournalError, match=r"move th[a-z -]+ away"):  # SQLite would write it into the new file
            await SQLiteJournal(path).open()
        Path(f"{path}-wal").unlink()
    async with SQLiteJournal(path) as new:  # what came in its place is left alone
        assert len(await new.runs()) == 3
        assert await new.check() == []


@pytest.mark.parametrize("end", ["-wal", "-shm"])
async def test_a_wal_that_is_deleted_under_a_run_is_seen(tmp_path: Path, end: str) -> None:
    path = tmp_path / "runs.db"
    journal = await SQLiteJournal(path).open()
    lease = await begun(journal)
    Path(f"{path}{end}").unlink()
    with pytest.raises(JournalError, match=f"{end}' was deleted or replaced"):
        await journal.append(lease, step(1))
    await journal.close()


class Between:
    """A connection to a journal, before a statement or the end of which another process does something."""

    def __init__(self, real: sqlite3.Connection, before: str, does: Callable[[], object]) -> None:
        self.real, self.before, self.does = real, before, does

    def execute(self, sql: str, *facts: Any) -> Any:
        self.reached(sql)
        return self.real.execute(sql, *facts)

    def close(self) -> None:
        self.reached("close")
        self.real.close()

    def reached(self, what: str) -> None:
        if what == self.before:
            self.before = ""
            self.does()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Disturbed(Files):
    """Files that another process disturbs before the statement *before*."""

    def __init__(self, path: Path, before: str, does: Callable[[], object]) -> None:
        super().__init__(str(path), "process", 1.0, create=True)
        self.before, self.does = before, does

    def connect(self, patience: float | None = None) -> Any:
        return Between(super().connect(patience), self.before, self.does)


def said(path: Path) -> bool:
    """Return whether the file itself says that it is in use."""
    look: Any = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    found = schema.identity(look, str(path))
    look.close()
    assert found is not None
    return bool(found.open)


def plain(path: Path) -> Files:
    return Files(str(path), "process", 1.0, create=True)


def left(path: Path) -> Path:
    """Make a journal that was opened and closed."""
    files = plain(path)
    files.close(files.open().connection)
    return path


def test_two_that_leave_a_journal_at_once_leave_it_closed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    one, other = plain(path), plain(path)
    first, second = one.open().connection, other.open().connection
    one.close(Between(first, "close", second.close))  # type: ignore[arg-type]
    assert not said(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.db"]
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_who_leaves_a_journal_does_not_disturb_one_who_comes(tmp_path: Path) -> None:
    path = left(tmp_path / "runs.db")

    def leaves() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        schema.mark(connection, str(path), opened=False)
        connection.close()

    came = Disturbed(path, "PRAGMA journal_mode = WAL", leaves)
    book = came.open()
    assert said(path)
    came.close(book.connection)
    assert not said(path)


def test_a_journal_that_another_program_put_into_wal_mode_is_open_to_all(tmp_path: Path) -> None:
    path = left(tmp_path / "runs.db")
    program = sqlite3.connect(path)
    program.execute("PRAGMA journal_mode = WAL")
    program.close()
    one, other = plain(path), plain(path)
    connection = one.open().connection
    assert said(path)
    other.close(other.open().connection)
    one.close(connection)
    assert not said(path)


def test_where_sqlite_has_no_wal_a_journal_is_refused(tmp_path: Path) -> None:
    path = left(tmp_path / "runs.db")

    class OnNetwork(Files):
        def connect(self, patience: float | None = None) -> sqlite3.Connection:
            return sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, isolation_level=None)

    with pytest.raises(JournalError, match="cannot be in WAL mode; put it on a local disk"):
        OnNetwork(str(path), "process", 1.0, create=True).open()


def test_who_leaves_a_journal_that_another_program_then_holds_need_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    one, other = plain(path), plain(path)
    first, second = one.open().connection, other.open().connection
    program = sqlite3.connect(path, isolation_level=None)

    def leaves() -> None:
        second.close()
        program.execute("BEGIN IMMEDIATE")

    one.close(Between(first, "close", leaves))  # type: ignore[arg-type]
    program.close()
    files = plain(path)
    files.close(files.open().connection)
    assert not said(path)


def test_a_journal_whose_process_died_before_it_had_a_wal_misses_none(tmp_path: Path) -> None:
    path = left(tmp_path / "runs.db")
    connection = sqlite3.connect(path, isolation_level=None)
    schema.mark(connection, str(path), opened=True)
    connection.close()
    files = plain(path)
    files.close(files.open().connection)
    assert not files.lost_wal
    assert not said(path)


async def test_another_program_that_holds_the_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path, patience=0.05) as journal:
        lease = await begun(journal)
        look = sqlite3.connect(path, isolation_level=None)
        look.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another process held the file for too long"):
            await journal.append(lease, step(1))
        look.execute("ROLLBACK")
        assert await journal.append(lease, step(1)) == 1
        look.close()


async def test_a_reader_that_holds_the_file_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteJournal(path, durability="process") as journal:
        lease = await begun(journal)
        look = sqlite3.connect(path, isolation_level=None)
        look.execute("BEGIN")
        before = look.execute("SELECT count(*) FROM mai_record").fetchone()
        for n in range(200):
            await journal.append(lease, step(n, output=b"x" * 5000))
        assert look.execute("SELECT count(*) FROM mai_record").fetchone() == before
        look.close()
        assert len(await journal.history("r")) == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
async def test_on_a_full_disk_everybody_hears_of_it_and_with_space_it_goes_on(small_disk: Path) -> None:
    path = small_disk / "runs.db"
    journal = await SQLiteJournal(path).open()
    lease = await begun(journal)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_200_000)
    written: list[int] = []
    for n in range(200):
        batch = [journal.append(lease, step(10 * n + k, output=b"x" * 2000)) for k in range(10)]
        results = await asyncio.gather(*batch, return_exceptions=True)
        errors = [result for result in results if not isinstance(result, int)]
        written += range(10 * n, 10 * n + 10 - len(errors))  # of those that wait, some are in the next transaction
        if errors:
            assert {type(error) for error in errors} == {JournalError}
            assert "the disk is full; nothing of this was written; free some space, then go on" in str(errors[0])
            break
    else:
        pytest.fail("the disk was never full")
    with pytest.raises(JournalError, match="the disk is full"):
        await journal.create("other", **{**GOOD, "input": b"x" * 900_000})
    assert [record.path for record in await journal.history("r")] == [step(n).path for n in written]
    ballast.unlink()
    assert await journal.append(lease, step(9999)) == len(written) + 1
    claimed = await journal.claim("r", "me")
    assert claimed is not None
    assert len(claimed[2]) == len(written) + 1
    assert await journal.check() == []
    await journal.close()
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["runs.db"]


@pytest.mark.slow
async def test_on_a_full_disk_a_run_cannot_be_claimed_and_with_space_it_can(small_disk: Path) -> None:
    path = small_disk / "runs.db"
    async with SQLiteJournal(path) as journal:
        lease = await begun(journal)
        await journal.append(lease, step(1))
        await journal.release(lease)
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * shutil.disk_usage(small_disk).free)

        async def claims() -> None:
            for _ in range(20):  # the last page of the -wal is used up first
                claimed = await journal.claim("r", "me")
                assert claimed is not None
                await journal.release(claimed[0])

        with pytest.raises(JournalError, match="the disk is full; nothing of this was written"):
            await claims()
        found = await journal.run("r")
        assert found is not None
        assert (found.status, found.owner) in (("waiting", None), ("running", "me"))
        ballast.unlink()
        claimed = await journal.claim("r", "me")
        assert claimed is not None
        assert [record.path for record in claimed[2]] == [step(1).path]
        assert await journal.check() == []


@pytest.mark.slow
async def test_a_full_disk_in_a_checkpoint_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "runs.db"
    journal = await SQLiteJournal(path).open()
    lease = await begun(journal)
    for n in range(20):
        await journal.append(lease, step(n, output=b"x" * 20_000))
    (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 8192))
    await journal.close()  # there is no room to copy the -wal into the file
    assert Path(f"{path}-wal").exists()
    async with SQLiteJournal(crashed(path, "../elsewhere")) as copy:
        assert len(await copy.history("r")) == 20
        assert await copy.check() == []


FAILING_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { return access(getenv("FAIL_SYNC"), F_OK) == 0; }
int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""
SYNCING = """
import asyncio, os, sys
from pathlib import Path
from mai.durable import SQLiteJournal
from mai.errors import JournalError
from tests.durable.storage.support import begun, step
async def main():
    path, flag = Path(sys.argv[1]), Path(os.environ["FAIL_SYNC"])
    async with SQLiteJournal(path) as journal:
        lease = await begun(journal)
        await journal.append(lease, step(0))
        flag.touch()
        results = await asyncio.gather(*(journal.append(lease, step(n)) for n in range(1, 6)), return_exceptions=True)
        assert {type(result) for result in results} == {JournalError}, results
        print(results[0])
        flag.unlink()
        for n in range(5, 9):
            assert await journal.append(lease, step(n)) == n - 3
        assert len(await journal.history("r")) == 5
        assert await journal.check() == []
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_sync_that_fails_is_heard_of_by_all_who_wait(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler")
    source, library = tmp_path / "sync.c", tmp_path / "sync.so"
    source.write_text(FAILING_SYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    env = {"LD_PRELOAD": str(library), "FAIL_SYNC": str(tmp_path / "flag")}
    said = finished(program(SYNCING, tmp_path / "runs.db", env=env))
    assert "reading or writing failed; look at the disk" in said


def test_the_kernel_knows_nothing_of_sqlite() -> None:
    import mai

    root = Path(mai.__file__).parent
    for folder in ("core", "layers"):
        for path in (root / folder).glob("*.py"):
            assert "sqlite" not in path.read_text(encoding="utf-8").lower(), path
    assert os.path.exists(root / "durable" / "storage")
