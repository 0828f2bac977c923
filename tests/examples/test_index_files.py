"""The job over many files: what it finds, and that a process killed in the middle costs no file that was finished."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from index_files import Hashed, HashFile, Index, index, put_together
from mai.durable import SQLiteJournal
from tests.examples.conftest import EXAMPLES

PROCESS = Path(__file__).with_name("index_process.py")
COUNT = 200


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A tree of files, of which each has the content of the one ten before."""
    folder = tmp_path / "files"
    for n in range(COUNT):
        path = folder / f"part {n % 3}" / f"{n:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % (n % 10) * (n % 10) * 1000)
    (folder / "link.txt").symlink_to(folder / "part 0" / "000.txt")
    return folder


async def test_each_file_is_hashed_and_copies_are_found(files: Path) -> None:
    found = await index(files)
    assert [file.path for file in found.files] == sorted(f"part {n % 3}/{n:03}.txt" for n in range(COUNT))
    for file in found.files:
        data = (files / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [(one.bytes, len(one.paths)) for one in found.copies] == [(n * 1000, COUNT // 10) for n in range(9, 0, -1)]
    assert str(found).startswith(f"{COUNT} files with 900,000 bytes in ")


async def test_a_file_that_cannot_be_read_is_told_and_ends_nothing(files: Path) -> None:
    gone = await HashFile(files)("gone.txt")
    assert gone == Hashed(path="gone.txt", problem="No such file or directory")
    found = await put_together(files, [gone, await HashFile(files)("part 1/001.txt")])
    assert (found.problems, len(found.files)) == ([gone], 1)
    assert str(found).endswith("not read: gone.txt: No such file or directory")


async def test_what_is_no_folder_is_refused(files: Path) -> None:
    with pytest.raises(NotADirectoryError, match="it is not a directory"):
        await index(files / "part 1" / "001.txt")


def program(work: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parents[1])])
    return subprocess.run(
        [sys.executable, str(PROCESS), str(work), *map(str, words)], capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path}, check=False,
    )  # fmt: skip


def opened(work: Path) -> Counter[str]:
    log = work / "opened"
    found = Counter(log.read_text().split())
    log.unlink()
    return found


async def hashed(work: Path) -> set[str]:
    """Return the names of the files whose hashes are on record."""
    async with SQLiteJournal(work / "runs.db") as journal:
        records = await journal.history("files")
    steps = [record for record in records if record.path.endswith("/HashFile")]
    return {(record.output or b"").decode().partition(".txt")[0].rpartition("/")[2] + ".txt" for record in steps}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_job_killed_in_the_middle_again_and_again_reads_no_finished_file_twice(files: Path, tmp_path: Path) -> None:
    done, total = set[str](), Counter[str]()
    for killed_at in (70, 1, 60):
        killed = program(tmp_path, killed_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        read = opened(tmp_path)
        assert not done & read.keys()
        assert killed_at <= sum(read.values()) <= killed_at + 3  # four threads
        done, before = asyncio.run(hashed(tmp_path)), done
        assert len(done) >= len(before) + killed_at - 4  # all but what was under way
        total += read
    ended = program(tmp_path)
    assert ended.returncode == 0, ended.stderr
    read = opened(tmp_path)
    assert not done & read.keys()
    total += read
    assert len(total) == COUNT
    assert sum(total.values()) <= COUNT + 3 * 4

    found = Index.model_validate_json(ended.stdout)
    assert found == asyncio.run(straight(files))
    sums = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert sums == [f"{file.sha256}  {file.path}" for file in found.files]


async def straight(files: Path) -> Index:
    return await index(files)
