"""`mai` as a shell sees it: exit codes, streams, a terminal, Ctrl-C. Each test starts a process, so there are few."""

import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.cli.support import Done, command, environment

pytestmark = pytest.mark.slow

Process = Callable[..., Done]

SLOW = """\
import asyncio
import sys
import threading

from mai import module


def tell(what):
    print(what, file=sys.stderr, flush=True)


@module
async def wait(text: str) -> str:
    tell("waiting")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        tell("cleaned up")
    return text


@module
def block(text: str) -> str:
    tell("waiting")
    threading.Event().wait()
    return text


@module
async def hang(text: str) -> str:
    tell("waiting")
    try:
        await asyncio.Event().wait()
    finally:
        tell("cleaning")
        await asyncio.Event().wait()
    return text


@module
async def many(count: int) -> str:
    return "line\\n" * count
"""


@pytest.fixture
def slow(here: Path) -> Path:
    (here / "slow.py").write_text(SLOW, encoding="utf-8")
    return here


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `mai`; whatever happens, it does not outlive the test."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*words), stdin=pipe, stdout=pipe, stderr=pipe, env=environment()) as running:
        try:
            yield running
        finally:
            running.kill()


def read_until(stream: IO[bytes] | None, word: bytes) -> bytes:
    """Read lines up to the one that has *word* in it."""
    assert stream is not None
    seen = b""
    for line in stream:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"{word!r} never came: {seen!r}")


def interrupted(target: str, *, again_at: bytes | None = None) -> Done:
    """Run *target*, send SIGINT when it waits, and again when it says *again_at*."""
    with started("run", f"slow.py:{target}", "x") as running:
        read_until(running.stderr, b"waiting")
        running.send_signal(signal.SIGINT)
        before = b""
        if again_at is not None:
            before = read_until(running.stderr, again_at)
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        return Done(running.returncode, out.decode(), (before + err).decode())


def test_a_good_run_exits_with_0_and_prints_only_the_result(process: Process) -> None:
    assert [*process("run", "flow.py:shout", "hello")] == [0, "HELLO!\n", ""]
    assert [*process("run", "flow.py:shout", stdin=b"piped\n")] == [0, "PIPED!\n", ""]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_shell_has_closed_do_no_harm(here: Path, closed: str) -> None:
    words = command("run", "flow.py:shout", "hello", "--durable", "runs.db", "--run-id", "a", "--trace")
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(words)} {closed}"], cwd=here, capture_output=True, env=environment(), check=False
    )
    assert (done.returncode, done.stdout) == (0, b"HELLO!\n" if closed == "2>&-" else b"")
    assert (
        subprocess.run(
            command("runs", "check", "--db", "runs.db"), cwd=here, env=environment(), capture_output=True, check=False
        ).returncode
        == 0
    )


def test_a_failed_run_exits_with_1(process: Process) -> None:
    code, out, err = process("run", "flow.py:fail", "x")
    assert (code, out) == (1, "")
    assert err.startswith("mai run: ValueError: cannot take 'x'\n  mai: in fail (after ")


def test_bad_usage_exits_with_2(process: Process) -> None:
    assert process("run", "flow.py:searches", "x").code == 2


def test_a_run_that_takes_too_long_exits_with_1_also_if_a_thread_is_stuck(process: Process, slow: Path) -> None:
    for target in ("wait", "block"):
        code, out, err = process("run", f"slow.py:{target}", "x", "--timeout", "0.05", "--trace")
        assert (code, out) == (1, "")
        assert "mai run: DeadlineExceeded: " in err
        assert "(the deadline is that of --timeout 0.05)" in err
        assert f"◷ {target} " in err


def test_an_interrupt_lets_cleanup_run_and_exits_with_130(slow: Path) -> None:
    done = interrupted("wait")
    assert [*done] == [
        130,
        "",
        "mai run: interrupted, waiting for cleanup (Ctrl-C again cancels that too)\ncleaned up\n",
    ]


def test_an_interrupt_does_not_wait_for_a_stuck_thread(slow: Path) -> None:
    assert interrupted("block").code == 130


def test_a_second_interrupt_cancels_the_cleanup(slow: Path) -> None:
    done = interrupted("hang", again_at=b"cleaning")
    assert (done.code, done.err.splitlines()[1:]) == (130, ["cleaning"])


def test_a_reader_that_goes_away_ends_it_quietly(slow: Path) -> None:
    with started("run", "slow.py:many", "1000000") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"line\n"
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
        assert running.wait(30) == 0


def on_a_terminal(*words: str, interrupt_at: str | None = None) -> Done:
    """Run `mai` on a terminal of its own, 24 lines of 80 columns."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(command(*words), stdin=terminal, stdout=terminal, stderr=terminal, env=environment()) as run:
        os.close(terminal)
        shown = b""
        try:
            while data := _read(master):
                shown += data
                if interrupt_at is not None and interrupt_at.encode() in shown:
                    interrupt_at = None
                    run.send_signal(signal.SIGINT)
        finally:
            run.kill()
            os.close(master)
    return Done(run.returncode, shown.decode().replace("\r\n", "\n"), "")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # how Linux says that the other side has closed
        return b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_what_runs_and_then_only_the_result(slow: Path) -> None:
    done = on_a_terminal("run", "flow.py:fast", "x")
    assert done.code == 0
    frames, _, end = done.out.rpartition("\x1b[?25h")
    assert "Sequential" in frames
    assert re.search(r"\d done, \d running, \d+\.\d s", frames)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", end).strip("\r\n")
    assert re.fullmatch(r"✓ Sequential  [\d.]+ (ms|s), 4 calls\n9", last)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_an_interrupt_on_a_terminal_leaves_it_as_it_was(slow: Path) -> None:
    done = on_a_terminal("run", "slow.py:wait", "x", interrupt_at="1 running")
    assert done.code == 130
    assert "mai run: interrupted" in done.out
    assert done.out.rindex("\x1b[?25h") > done.out.rindex("\x1b[?25l")
    assert done.out.index("mai run: interrupted") < done.out.index("cleaned up")
