"""The tree in colour: on a terminal, and only there."""

import fcntl
import io
import os
import re
import struct
import sys
import termios
from typing import Any

import pytest

from mai.views.coloured import print_trees
from tests.views.handles import call, handle


class Terminal(io.StringIO):
    """A terminal that takes down what is written."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


ROOT: Any = call(
    "rag", 0, 100, call("bad", 0, 50, outcome="error", error={"type": "E", "module": "m", "message": "[red]no[/] :ok:"})
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")


def shown(file: Terminal) -> list[str]:
    return file.getvalue().rstrip("\n").split("\n")


def test_a_terminal_gets_colours_by_outcome() -> None:
    file = Terminal()
    handle(ROOT).print(file)
    lines = shown(file)
    assert lines[0].startswith("\x1b[32m✓\x1b[0m rag")
    assert "\x1b[31m✗\x1b[0m bad" in lines[1]
    assert "\x1b[31mE: [red]no[/] :ok:\x1b[0m" in lines[2]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colours_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    file = Terminal()
    print_trees([handle(ROOT)], file)
    assert "\x1b[3" not in file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 200])
def test_the_lines_are_those_of_the_plain_tree_and_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    file, plain = Terminal(), io.StringIO()
    print_trees([handle(ROOT), handle(ROOT)], file)
    print_trees([handle(ROOT), handle(ROOT)], plain)
    text = f"{handle(ROOT)}\n\n{handle(ROOT)}\n"
    assert file.getvalue() == plain.getvalue() == text
    assert max(map(len, text.split("\n"))) <= width


def test_without_a_terminal_there_are_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    handle(ROOT).print()
    assert capsys.readouterr().out == f"{handle(ROOT)}\n"


def test_what_an_encoding_does_not_have_is_written_as_escapes() -> None:
    file = Terminal("ascii")
    handle(ROOT).print(file)
    assert r"\u2713" in file.getvalue()
    assert file.getvalue().isascii()


def test_the_width_is_that_of_the_terminal_that_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 47, 0, 0))
    with open(theirs, "w", encoding="utf-8") as file, open(ours, "rb") as screen:
        print_trees([handle(call("long name " * 9, 0, 1))], file)
        file.flush()
        text = os.read(screen.fileno(), 10_000).decode()
    assert len(re.sub(r"\x1b\[[\d;]*m", "", text).rstrip("\r\n")) == 47
    monkeypatch.setenv("COLUMNS", "53")
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as file, open(ours, "rb") as screen:
        print_trees([handle(call("long name " * 9, 0, 1))], file)
        file.flush()
        text = os.read(screen.fileno(), 10_000).decode()
    assert len(re.sub(r"\x1b\[[\d;]*m", "", text).rstrip("\r\n")) == 53
    monkeypatch.delenv("COLUMNS")
    print_trees([handle(ROOT)], pretender := Terminal())
    assert len(pretender.getvalue()) > 40


def test_without_rich_the_plain_tree_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    handle(ROOT).print()
    file = Terminal("ascii")
    print_trees([handle(ROOT)], file)
    assert capsys.readouterr().out == f"{handle(ROOT)}\n"
    assert file.getvalue().startswith(r"\u2713 rag ")
    assert "\x1b" not in file.getvalue()
