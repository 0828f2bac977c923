"""`mai run --durable` and `mai worker`: runs that outlive the process, which is really killed here."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Done, command, environment

FLOW = """
import pathlib
from mai import ask, module

def note(text: str) -> None:
    with open("done.txt", "a", encoding="utf-8") as file:
        file.write(text + "\\n")

@module
async def add(x: int) -> int:
    note(f"add {x}")
    return x + 1

@module(flow=True)
async def sure(x: int) -> int:
    return x if await ask(f"go on with {x}?", bool) else -1

@module
def times(x: int) -> int:
    note(f"times {x}")
    return x * 10

flow = (add >> sure >> times).with_(name="flow")
"""
Mai = Callable[..., Done]


@pytest.fixture
def flow(here: Path) -> Path:
    (here / "steps.py").write_text(FLOW, encoding="utf-8")
    return here


def done(folder: Path) -> list[str]:
    return (folder / "done.txt").read_text(encoding="utf-8").split("\n")[:-1]


def until(text: str, process: "subprocess.Popen[str]") -> str:
    """Read the standard error of *process* up to the line that has *text*."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


def wait_for(text: str, process: Mai, *words: str) -> None:
    """Ask with a command of `mai runs` again and again, until it says *text*."""
    end = time.monotonic() + 60
    while text not in (said := process("runs", *words, "--db", "runs.db").out):
        assert time.monotonic() < end, said


def started(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip


def test_the_same_id_is_the_same_run(mai: Mai, flow: Path) -> None:
    words = ("run", "steps.py:flow", "3", "--durable", "runs.db", "--run-id", "a", "--answer", "yes")
    assert [*mai(*words)] == [0, "40\n", ""]
    assert [*mai(*words)] == [0, "40\n", ""]
    assert done(flow) == ["add 3", "times 4"]
    assert "ok" in mai("runs", "list", "--db", "runs.db").out


def test_another_input_for_the_same_id_is_refused(mai: Mai, flow: Path) -> None:
    words = ("--durable", "runs.db", "--run-id", "a", "--answer", "yes")
    mai("run", "steps.py:flow", "3", *words)
    other = mai("run", "steps.py:flow", "4", *words)
    assert (other.code, other.out) == (1, "")
    assert "RunExists" in other.err


def test_an_id_needs_a_journal(mai: Mai, flow: Path) -> None:
    assert mai("run", "steps.py:flow", "3", "--run-id", "a").code == 2


def test_a_worker_needs_modules_that_are_there_and_a_file_that_can_be_opened(mai: Mai, flow: Path) -> None:
    assert mai("worker", "steps.py:nothing", "--db", "runs.db").code == 2
    none = mai("worker", "steps.py:flow", "--db", "runs.db", "--max-runs", "0")
    assert (none.code, "max_runs=0" in none.err) == (2, True), none.err
    (flow / "text.db").write_text("no journal" * 1_000, encoding="utf-8")
    assert mai("worker", "steps.py:flow", "--db", "text.db").code == 1


NAMES = """
from mai import ask, module

@module(flow=True)
async def greet(word: str) -> str:
    return f"{word} {await ask('Who is there?')}" if await ask("Greet?", bool) else "nothing"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_an_answer_that_does_not_fit_is_put_aside_and_the_question_stays(process: Mai, here: Path) -> None:
    (here / "names.py").write_text(NAMES, encoding="utf-8")
    waits = started("run", "names.py:greet", "hello", "--durable", "runs.db", "--run-id", "a")
    until("Greet?", waits)
    wait_for("waiting", process, "list")
    assert "asks 'Greet?' (bool)" in process("runs", "show", "a", "--db", "runs.db").out
    assert process("runs", "answer", "a", "perhaps", "--db", "runs.db").code == 0
    wait_for("!refused[1]", process, "show", "a")
    wait_for("waiting", process, "list")
    assert process("runs", "answer", "a", "yes", "--db", "runs.db").code == 0
    until("Who is there?", waits)
    wait_for("(str)  waits", process, "show", "a")
    assert process("runs", "answer", "a", "42", "--db", "runs.db").code == 0
    assert waits.communicate(timeout=60)[0] == "hello 42\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_run_that_was_killed_while_it_waited_is_ended_by_a_worker(process: Mai, flow: Path) -> None:
    waits = started("run", "steps.py:flow", "3", "--durable", "runs.db", "--run-id", "a")
    until("go on with 4?", waits)
    wait_for("waiting", process, "list")
    os.kill(waits.pid, signal.SIGKILL)
    waits.communicate()
    asked = process("runs", "show", "a", "--db", "runs.db").out
    assert "ask" in asked
    assert process("runs", "answer", "a", "yes", "--db", "runs.db").code == 0
    worker = started("worker", "steps.py:flow", "--db", "runs.db")
    assert "flow ok" in until("mai worker: flow", worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    worker.communicate()
    assert done(flow) == ["add 3", "times 4"]
    assert process("run", "steps.py:flow", "3", "--durable", "runs.db", "--run-id", "a").out == "40\n"


HELD = """
import asyncio, os, signal, steps
from mai import module
from mai.durable import SQLiteEngine

@module
async def add(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SQLiteEngine("runs.db", ttl=4.0) as engine:
        await engine.start((add >> steps.sure >> steps.times).with_(name="flow"), 3, run_id="a")

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_run_of_a_process_that_was_killed_goes_on_and_says_what_it_waits_for(mai: Mai, flow: Path) -> None:
    (flow / "held.py").write_text(HELD, encoding="utf-8")
    killed = subprocess.run([sys.executable, "held.py"], env=environment(), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = mai("run", "steps.py:flow", "3", "--durable", "runs.db", "--run-id", "a", "--answer", "yes")
    assert (found.code, found.out) == (0, "40\n")
    assert re.search(r"another process has a; if it was killed, its lease is over in \d s at most", found.err)
    assert done(flow) == ["add 3", "times 4"]
    assert mai("run", "steps.py:flow", "3", "--durable", "runs.db", "--run-id", "a").err == ""
