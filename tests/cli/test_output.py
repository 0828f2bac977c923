"""What is printed: results that cannot be encoded or read, errors that are long."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mai.cli.output import failure_text, result_text, say, write_result
from mai.cli.usage import short
from tests.cli.support import Done


@dataclass
class Grade:
    value: int

    def __str__(self) -> str:
        return f"grade {self.value}"


def test_a_dataclass_that_can_say_itself_does() -> None:
    assert result_text(Grade(3), Grade, as_json=False) == "grade 3"
    assert result_text(Grade(3), Grade, as_json=True) == '{"value":3}'


def test_what_the_encoding_lacks_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write_result("é \udc80")
    assert raw.getvalue() == rb"\xe9 \udc80" + b"\n"
    errors = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(errors, encoding="latin-1"))
    say("é 日")
    assert errors.getvalue() == rb"\xe9 \u65e5".replace(rb"\xe9", b"\xe9") + b"\n"


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        write_result("nobody reads this")
        write_result(b"nor this")
        monkeypatch.undo()


def test_a_stream_without_an_encoding_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    say("x")
    assert stream.getvalue() == "x\n"


def test_a_long_message_is_cut() -> None:
    text = failure_text(ValueError("line\n" * 100), with_traceback=False)
    assert text.count("line") == 20
    assert "\n…\n" in text


def test_the_cause_is_told_and_what_an_error_group_holds_is_counted() -> None:
    error = ExceptionGroup("many", [ValueError(str(n)) for n in range(15)])
    error.__cause__ = KeyError("first")
    lines = failure_text(error, with_traceback=False).splitlines()
    assert lines[:3] == [
        "mai run: ExceptionGroup: many (15 sub-exceptions)",
        "  because of KeyError: 'first'",
        "  - ValueError: 0",
    ]
    assert lines[-2:] == ["  … and 5 more", "  (--traceback shows where)"]


def test_an_error_without_a_message_is_its_type() -> None:
    assert failure_text(ValueError(), with_traceback=False).startswith("mai run: ValueError\n")


@pytest.mark.parametrize("value", ["x" * 1_000, ["x"] * 1_000, 10**50])
def test_a_long_value_is_shown_by_its_ends(value: Any) -> None:
    text = short(value, 21)
    assert len(text) <= 21
    assert repr(value).startswith(text.partition(" … ")[0])
    assert repr(value).endswith(text.partition(" … ")[2])


def test_closed_standard_input_is_no_input(mai: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    assert "text is missing" in mai("run", "flow.py:shout").err
