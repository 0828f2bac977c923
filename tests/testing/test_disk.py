"""A simulated disk keeps what was synced, and of all else any part; journals on it are crash-checked."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import NonBlockingDelay, Parallel, module
from mai.durable import DurableEngine, SQLiteJournal
from mai.errors import ConfigError
from mai.testing import CopiedFolder, Crash, DurabilityError, SimulatedDisk, crash_check, disk_check, replay_check
from tests.durable.storage.support import MEMORY
from tests.testing.file_journal import FileJournal

# ---------------------------------------------------------------- laws

writes = st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=1500), st.booleans()), max_size=6)


def written(work: list[tuple[int, bytes, bool]]) -> tuple[SimulatedDisk, bytes, bytes]:
    """Write at places, and sync where it says so; return the disk, what was synced last, and what was written last."""
    disk, plain, synced = SimulatedDisk(), bytearray(), b""
    file = disk.open("f", "w+b", buffering=0)
    disk.fsync_folder()
    for at, data, sync in work:
        file.seek(at)
        file.write(data)
        plain.extend(bytes(max(0, at - len(plain))))
        plain[at : at + len(data)] = data
        if sync:
            disk.fsync(file)
            synced = bytes(plain)
    return disk, synced, bytes(plain)


def content(disk: SimulatedDisk, name: str = "f") -> bytes:
    with disk.open(name, "rb") as file:
        return bytes(file.read())


@given(writes)
def test_a_file_reads_as_a_real_one_and_keeps_at_least_what_was_synced(work: list[tuple[int, bytes, bool]]) -> None:
    disk, synced, plain = written(work)
    assert content(disk) == plain
    assert content(disk.after_crash(0)) == synced
    assert content(disk.after_crash(1)) == plain


@given(writes, st.integers(2, 1000))
def test_each_byte_that_is_left_was_written_there_or_is_a_hole(work: list[tuple[int, bytes, bool]], seed: int) -> None:
    disk, synced, plain = written(work)
    left = content(disk.after_crash(seed))
    assert len(left) <= len(plain)
    assert len(left) >= len(synced)
    versions = [set[int]({0}) if i >= len(synced) else {synced[i]} for i in range(len(plain))]
    for at, data, _ in work:
        for i, byte in enumerate(data):
            versions[at + i].add(byte)
    assert all(byte in versions[i] for i, byte in enumerate(left))
    assert content(disk.after_crash(seed)) == left  # the same seed, the same disk


# ---------------------------------------------------------------- examples


def test_what_is_found_differs_from_seed_to_seed_and_may_be_torn_and_out_of_order() -> None:
    disk, _, plain = written([(0, b"a" * 512, True), (512, b"b" * 512, False), (1024, b"c" * 512, False)])
    found = {content(disk.after_crash(seed)) for seed in range(200)}
    assert plain in found
    assert b"a" * 512 in found
    assert b"a" * 512 + bytes(512) + b"c" * 512 in found
    assert any(512 < len(one) < 1024 for one in found)


def test_text_modes_and_names_are_those_of_files(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    with disk.open(tmp_path / "t.txt", "w") as file:
        file.write("grün\n")
    with disk.open("t.txt", "a") as file:
        file.write("blau\n")
    with disk.open("t.txt") as file:
        assert list(file) == ["grün\n", "blau\n"]
    with disk.open("t.txt", "r+b") as file:
        file.truncate(5)
        assert file.seek(0, 2) == 5
        file.seek(-1, 1)
    with pytest.raises(FileExistsError):
        disk.open("t.txt", "x")
    with pytest.raises(FileNotFoundError):
        disk.open("none")
    with pytest.raises(FileNotFoundError):
        disk.replace("none", "t.txt")
    with pytest.raises(FileNotFoundError):
        disk.remove("none")
    with pytest.raises(OSError, match="no file of the simulated disk"):
        disk.fsync(3)
    disk.replace("t.txt", "u.txt")
    assert disk.names() == ["u.txt"]
    assert content(disk, "u.txt") == b"gr\xc3\xbcn"
    disk.open("u.txt", "wb").close()
    assert content(disk, "u.txt") == b""
    disk.remove("u.txt")
    assert disk.names() == []


@pytest.mark.parametrize("mode", ["", "rw", "q", "rr", "b"])
def test_a_mode_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used: give one of r, w, a, x"):
        SimulatedDisk().open("f", mode)


def test_an_operation_has_a_number_from_1() -> None:
    with pytest.raises(ConfigError, match="is negative"):
        SimulatedDisk(fails_at=-1)


def test_a_name_is_safe_once_the_folder_was_synced() -> None:
    disk = SimulatedDisk()
    disk.open("a", "wb").close()
    disk.open("b", "wb").close()
    disk.remove("a")
    assert {tuple(disk.after_crash(seed).names()) for seed in range(50)} == {(), ("a",), ("a", "b"), ("b",)}
    disk.fsync_folder()
    assert {tuple(disk.after_crash(seed).names()) for seed in range(50)} == {("b",)}


def test_when_the_power_has_failed_nothing_happens_any_more() -> None:
    disk = SimulatedDisk(fails_at=2)
    file = disk.open("a", "wb", buffering=0)
    with pytest.raises(Crash, match="the power failed in operation 2 of the disk, a write"):
        file.write(b"1")
    file.write(b"2")
    file.truncate(0)
    disk.fsync(file)
    disk.fsync_folder()
    disk.replace("a", "c")
    disk.remove("a")
    assert disk.failed
    assert disk.operations == 2
    assert content(disk, "a") == b"1"
    assert disk.after_crash(0).names() == []


# ---------------------------------------------------------------- programs that write files


def saves(disk: SimulatedDisk, *, careful: bool) -> Iterator[int]:
    """Keep a number in a file, and replace it by the next."""
    for number in range(3):
        with disk.open("new", "wb") as file:
            file.write(b"%d" % number * 600)
            file.flush()
            if careful:
                disk.fsync(file)
        disk.replace("new", "number")
        disk.fsync_folder()
        yield number


def one_of_them(disk: SimulatedDisk, told: list[int]) -> None:
    found = content(disk, "number") if "number" in disk.names() else b""
    assert found or not told
    assert found in [b""] + [b"%d" % n * 600 for n in range(told[-1] if told else 0, 3)]


def test_a_program_that_syncs_before_it_renames_keeps_what_it_promised() -> None:
    assert disk_check(lambda disk: saves(disk, careful=True), one_of_them) == 3 * 5


def test_one_that_does_not_is_seen() -> None:
    with pytest.raises(AssertionError) as caught:
        disk_check(lambda disk: saves(disk, careful=False), one_of_them, seeds=range(5))
    assert "to see it again: SimulatedDisk(fails_at=" in caught.value.__notes__[-1]


# ---------------------------------------------------------------- a journal of a user's own


@module
async def add(n: int) -> int:
    await asyncio.sleep(0.01)
    return n + 1


FLOW = Parallel(add, add >> add, NonBlockingDelay(60) >> add)
ON_DISK: Any = {"engine": DurableEngine, "disk": SimulatedDisk}


def test_a_journal_of_ones_own_is_crash_checked_at_every_operation_of_the_disk() -> None:
    seen = crash_check(FLOW, 1, journal=FileJournal, **ON_DISK)
    assert seen.value == (2, 3, 2)
    assert seen.interruptions >= 60
    assert replay_check(FLOW, 1, journal=FileJournal, seeds=1, **ON_DISK).interruptions == 5


def test_a_journal_that_does_not_sync_is_seen() -> None:
    with pytest.raises(DurabilityError, match="acknowledged, and is not there as it was"):
        crash_check(FLOW, 1, journal=lambda disk: FileJournal(disk, "sync"), **ON_DISK)


def test_a_journal_that_does_not_sync_its_name_is_seen() -> None:
    with pytest.raises(DurabilityError, match="acknowledged, and is not there as it was"):
        crash_check(FLOW, 1, journal=lambda disk: FileJournal(disk, "folder"), **ON_DISK)


def test_a_journal_that_goes_on_behind_a_torn_line_is_seen() -> None:
    with pytest.raises(
        DurabilityError, match=r"where the power failed in operation \d+ of the disk, a write, the record"
    ):
        crash_check(FLOW, 1, journal=lambda disk: FileJournal(disk, "tail"), **ON_DISK)


# ---------------------------------------------------------------- the journal of SQLite


@pytest.mark.slow
def test_the_journal_in_sqlite_is_crash_checked_at_every_write() -> None:
    folder = tempfile.TemporaryDirectory(dir=MEMORY)
    how: Any = {
        "journal": lambda folder: SQLiteJournal(folder.path / "runs.db"),
        "engine": DurableEngine,
        "disk": lambda: CopiedFolder(folder.name),
        "patience": 0.1,
    }
    flow: Any = add >> NonBlockingDelay(60) >> add
    seen = crash_check(flow, 1, **how)
    assert seen.value == 3
    assert seen.interruptions >= 2 * 5  # it is made, claimed and ended, and has two steps and a timer
    assert replay_check(flow, 1, seeds=1, **how).interruptions == 3
    folder.cleanup()
