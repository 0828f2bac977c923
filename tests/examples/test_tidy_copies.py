"""The approval that waits for a day: the process ends meanwhile, and the journal's clock goes on."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mai import answers
from mai.core.clock import clock
from mai.durable import SQLiteEngine, SQLiteJournal
from tests.cli.support import command, environment
from tests.examples.conftest import EXAMPLES
from tidy_copies import Tidied, tidy

HOUR = 3600.0


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "old").mkdir(parents=True)
    for name, text in (("a.txt", "twice"), ("b.txt", "once"), ("old/a.txt", "twice"), ("old/c.txt", "twice")):
        (folder / name).write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


async def test_copies_are_put_aside_after_a_yes(files: Path, tmp_path: Path) -> None:
    asked: list[str] = []
    with answers(lambda question: asked.append(question.prompt) or "yes"):
        found = await tidy(files, tmp_path / "aside")
    assert found == Tidied(moved=["old/a.txt", "old/c.txt"], said=f"2 copies moved to {tmp_path / 'aside'}")
    assert asked == [f"Move 2 copies (10 bytes) to {tmp_path / 'aside'}?"]
    assert (names(files), names(tmp_path / "aside")) == (["a.txt", "b.txt"], ["old/a.txt", "old/c.txt"])
    assert (await tidy(files, tmp_path / "aside")).said == "no file is there twice"


async def test_after_a_no_nothing_is_moved(files: Path, tmp_path: Path) -> None:
    with answers(lambda question: False):
        assert (await tidy(files, tmp_path / "aside")).said == "nothing was moved, as was wished"
    assert len(names(files)) == 4


async def test_a_place_inside_of_the_folder_is_refused(files: Path) -> None:
    with pytest.raises(ValueError, match="it is inside of"):
        await tidy(files, files / "aside")


async def test_when_a_file_cannot_be_moved_the_others_are_moved_back(files: Path, tmp_path: Path) -> None:
    (tmp_path / "aside" / "old" / "c.txt").mkdir(parents=True)  # where a file is to go
    async with SQLiteEngine(tmp_path / "runs.db") as engine:
        with answers(lambda question: True), pytest.raises(IsADirectoryError, match=r"old.c\.txt"):
            await engine.start(tidy, tidy.payload(folder=files, aside=tmp_path / "aside"), run_id="t")
    assert names(files) == ["a.txt", "b.txt", "old/a.txt", "old/c.txt"]


@contextmanager
def later(seconds: float) -> Iterator[None]:
    """Let so much time have passed."""
    before, now, wall = dict(vars(clock)), clock.now, clock.wall
    vars(clock).update(now=lambda: now() + seconds, wall=lambda: wall() + seconds)
    try:
        yield
    finally:
        vars(clock).clear()
        vars(clock).update(before)


def asked_and_killed(files: Path, tmp_path: Path) -> None:
    """Begin the job at the command line, and kill it while it waits for the answer."""
    words = [str(files), "--aside", str(tmp_path / "aside"), "--durable", str(tmp_path / "runs.db"), "--run-id", "t"]
    process = subprocess.Popen(
        command("run", f"{EXAMPLES / 'tidy_copies.py'}:tidy", *words), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "Move 2 copies" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("hours", "said"), [(23.0, "2 copies moved to "), (25.0, "nobody answered in time")])
def test_the_question_waits_for_a_day_though_the_process_is_gone(
    files: Path, tmp_path: Path, hours: float, said: str
) -> None:
    asked_and_killed(files, tmp_path)

    async def go_on() -> Tidied:
        if hours < 24:
            async with SQLiteJournal(tmp_path / "runs.db") as journal:
                assert await journal.signal("t", "Tidy/ask", b"true")  # what `mai runs answer` does
        async with SQLiteEngine(tmp_path / "runs.db", modules=[tidy]) as engine:
            return Tidied.model_validate(await engine.result("t"))

    with later(hours * HOUR):
        found = asyncio.run(go_on())
    assert found.said.startswith(said)
    assert len(names(files)) == (2 if hours < 24 else 4)
