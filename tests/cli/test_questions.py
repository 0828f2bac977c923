"""Answering what a run asks: with ``--answer``, at a terminal, or not at all."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.support import Done, command, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

Mai = Callable[..., Done]
Script = Sequence[tuple[str, str]]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


class Person:
    """Sits at a terminal: waits for each text of the *script* in turn to be shown, and types what belongs to it."""

    def __init__(self, master: int, script: Script) -> None:
        self.shown = b""
        self._master = master
        self._script = list(script)
        self._at = 0

    def work(self) -> None:
        while data := self._read():
            self.shown += data
            while self._script and (place := self.shown.find(self._script[0][0].encode(), self._at)) >= 0:
                awaited, typed = self._script.pop(0)
                self._at = place + len(awaited)
                os.write(self._master, typed.encode("utf-8", "surrogateescape"))

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65_536)
        except OSError:  # how Linux says that the other side has closed
            return b""

    @property
    def screen(self) -> str:
        return plain(self.shown.decode(errors="replace"))


@pytest.fixture
def at_terminal(mai: Mai, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Done, str]]:
    """Run `mai` in this process with a person at its terminal; return what it gave and what the terminal showed."""

    def call(*words: str, script: Script) -> tuple[Done, str]:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        person = Person(master, script)
        typist = threading.Thread(target=person.work)
        typist.start()
        with os.fdopen(os.dup(slave), encoding="utf-8") as stdin, os.fdopen(slave, "w", encoding="utf-8") as stderr:
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys, "stderr", stderr)
            done = mai(*words)
        typist.join()
        os.close(master)
        return done, person.screen

    return call


# With --answer


def test_a_given_answer_is_cast_to_the_type_of_the_question(mai: Mai) -> None:
    assert [*mai("run", "flow.py:send", "x", "--answer", "yes")] == [0, "sent x\n", ""]
    assert [*mai("run", "flow.py:send", "x", "--answer=n")] == [0, "kept\n", ""]


def test_answers_are_used_in_their_order_each_once(mai: Mai) -> None:
    words = ["--answer", '{"text": "t", "stars": 3}', "--answer", "blue", "--answer", " 5 ", "--answer", "[1]"]
    assert mai("run", "flow.py:order", *words, "x").out == "3 blue ' 5 ' [1]\n"
    assert mai("run", "flow.py:order", *words[:-1], "word", "x").out.endswith(" word\n")


def test_branches_that_ask_get_an_answer_each(mai: Mai) -> None:
    assert mai("run", "flow.py:askers", "x", "--answer", "yes", "--answer", "no", "--json").out == '["sent x","kept"]\n'


def test_too_few_answers_end_the_run(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:order", "x", "--answer", '{"text": "t"}')
    assert (code, out) == (1, "")
    assert "AskError: ask('Colour?') in 'order': each --answer is used already (1 given); add another one" in err


def test_an_answer_that_does_not_fit_ends_the_run(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:send", "x", "--answer", "perhaps")
    assert (code, out) == (1, "")
    assert "CastError: --answer 'perhaps' does not fit the question" in err
    assert "because of CastError: 'answer' must be bool, not str 'perhaps'" in err
    err = mai("run", "flow.py:order", "x", "--answer", '{"stars": 3}').err
    assert "because of CastError: 'answer' must be Doc, not dict {'stars': 3} (text: Field required)" in err


def test_an_answer_may_begin_with_a_dash(mai: Mai) -> None:
    words = ["--answer", '{"text": "t"}', "--answer", "red", "--answer", "--trace", "--answer", "-1"]
    assert mai("run", "flow.py:order", *words, "x").out == "0 red '--trace' -1\n"


# With nobody


def test_with_nobody_to_answer_the_run_fails_and_says_what_to_do(mai: Mai) -> None:
    code, out, err = mai("run", "flow.py:send", "x")
    assert (code, out) == (1, "")
    assert "AskError: ask(" in err
    assert err.endswith(
        "(answer at a terminal, or with --answer VALUE for each question, in the order in which they come)\n"
    )


def test_piped_input_answers_nothing(mai: Mai) -> None:
    done = mai("run", "flow.py:send", stdin=b"x\nyes\n")
    assert done.code == 1
    assert "nobody can answer" in done.err


def test_a_question_that_the_run_answers_itself_is_left_to_it(mai: Mai) -> None:
    assert [*mai("run", "flow.py:own", "x")] == [0, "sent x\n", ""]


# At a terminal


def test_a_person_is_asked_and_answers(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    done, screen = at_terminal("run", "flow.py:send", "x", script=[("bool (yes or no): ", "yes\n")])
    assert (done.code, done.out) == (0, "sent x\n")
    assert "? Send 'x'\n    now?\n  bool (yes or no): yes\n" in screen
    assert re.search(r"✓ send  [\d.]+ \S?s, 1 call\n$", screen)


def test_the_live_display_is_away_while_a_person_types(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    _, screen = at_terminal("run", "flow.py:send", "x", script=[("no): ", "yes\n")])
    assert "running" not in screen[screen.index("? Send") : screen.index("no): yes")]


def test_an_answer_that_does_not_fit_is_refused_with_the_reason_and_asked_for_again(
    at_terminal: Callable[..., tuple[Done, str]],
) -> None:
    script = [("no): ", "perhaps\n"), ("no): ", "\n"), ("no): ", "no\n")]
    done, screen = at_terminal("run", "flow.py:send", "x", script=script)
    assert (done.code, done.out) == (0, "kept\n")
    assert "no): perhaps\n  'answer' must be bool, not str 'perhaps' (Input should be" in screen
    assert screen.count("? Send") == 1


def test_the_type_of_the_answer_is_told(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    script = [("Doc (as JSON): ", "{}\n"), ("Doc (as JSON): ", '{"text": "t"}\n'), ("Colour (red, blue): ", " red\n")]
    done, screen = at_terminal("run", "flow.py:order", "x", script=[*script, ("str: ", " é \n"), ("object: ", "1\n")])
    assert done.out == "0 red ' é ' 1\n"
    assert "'answer' must be Doc, not dict {} (text: Field required)" in screen


def test_answers_of_the_command_line_come_before_the_person(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    words = ["--answer", '{"text": "t"}', "--answer", "red", "--answer", "ann"]
    done, screen = at_terminal("run", "flow.py:order", "x", *words, script=[("object: ", "1\n")])
    assert done.out == "0 red 'ann' 1\n"
    assert screen.count("? ") == 1


def test_branches_are_asked_for_one_after_the_other(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    done, screen = at_terminal("run", "flow.py:askers", "x", "--json", script=[("no): ", "yes\n"), ("no): ", "no\n")])
    assert done.out == '["sent x","kept"]\n'
    assert screen.index("no): yes") < screen.rindex("? Send")


def test_what_a_question_says_cannot_harm_the_terminal(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    _, screen = at_terminal("run", "flow.py:send", "\x1b[2J\u202e", script=[("no): ", "yes\n")])
    assert "? Send '\\x1b[2J\\u202e'\n" in screen


def test_bytes_that_are_no_text_are_refused(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    done, screen = at_terminal("run", "flow.py:send", "x", script=[("no): ", "\udcff\n"), ("no): ", "yes\n")])
    assert done.out == "sent x\n"
    assert "can't decode byte 0xff" in screen


def test_the_end_of_the_input_ends_the_run(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    done, screen = at_terminal("run", "flow.py:send", "x", script=[("no): ", "\x04")])
    assert (done.code, done.out) == (1, "")
    assert "\nmai run: AskError: ask(" in screen
    assert "the input of the terminal has ended, so nobody answers" in screen


def test_a_line_without_an_end_is_an_answer(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    assert at_terminal("run", "flow.py:send", "x", script=[("no): ", "yes\x04")])[0].out == "sent x\n"


@pytest.mark.slow
def test_after_a_question_that_was_left_the_next_one_gets_the_line(
    at_terminal: Callable[..., tuple[Done, str]],
) -> None:
    done, screen = at_terminal("run", "flow.py:hasty", "x", script=[("str: ", "now\n")])
    assert done.out == "now\n"
    assert "? Quick?\n  bool (yes or no): \n" in screen


@pytest.mark.slow
def test_a_deadline_ends_the_waiting(at_terminal: Callable[..., tuple[Done, str]]) -> None:
    # The line lets the thread go that reads still, and with it the terminal of this process.
    done, screen = at_terminal("run", "flow.py:send", "x", "--timeout", "0.5", script=[("inherited", "\n")])
    assert (done.code, done.out) == (1, "")
    assert "(yes or no): \n" in screen
    assert "\nmai run: DeadlineExceeded: " in screen


# In a process of its own


def in_process(*words: str, script: Script) -> Done:
    """Run `mai` on a terminal that is its controlling one, so that a typed Ctrl-C interrupts it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    starter = f"import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(*{(sys.executable,)!r}"
    starter += ", [sys.executable, *sys.argv[1:]])"
    with subprocess.Popen(
        [sys.executable, "-c", starter, *command(*words)[1:]],
        stdin=slave, stdout=slave, stderr=slave, env=environment(), start_new_session=True,
    ) as run:  # fmt: skip
        os.close(slave)
        watch = threading.Timer(50, run.send_signal, (signal.SIGKILL,))
        watch.start()
        person = Person(master, script)
        try:
            person.work()
        finally:
            run.kill()
            watch.cancel()
            os.close(master)
    return Done(run.returncode, person.screen, "")


@pytest.mark.slow
def test_a_real_terminal_asks_and_goes_on(here: Path) -> None:
    done = in_process("run", "flow.py:send", "x", script=[("no): ", "perhaps\n"), ("no): ", "yes\n")])
    assert done.code == 0
    assert done.out.endswith("1 call\nsent x\n")


@pytest.mark.slow
def test_ctrl_c_at_a_question_ends_the_run(here: Path) -> None:
    done = in_process("run", "flow.py:send", "x", script=[("no): ", "\x03")])
    assert done.code == 130
    assert "no): ^C\nmai run: interrupted" in done.out
    assert "Fatal" not in done.out


@pytest.mark.slow
def test_what_was_typed_before_the_question_is_no_answer(here: Path) -> None:
    script = [("running", "yes\n"), ("no): ", "no\n")]
    (here / "late.py").write_text(
        "import asyncio\nfrom mai import ask, module\n@module\nasync def send(text: str) -> str:\n"
        "    await asyncio.sleep(3)\n    return 'sent' if await ask('Send?', bool) else 'kept'\n"
    )
    assert in_process("run", "late.py:send", "x", script=script).out.endswith("kept\n")
