"""What `mai run` prints: the result on standard output, failures on standard error."""

import dataclasses
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from typing import Any, TextIO, cast

from pydantic import BaseModel

from mai.errors import PayloadError
from mai.types import Payload

__all__ = ["failure_text", "result_text", "say", "write_prompt", "write_result"]

_MOST_LINES = 20
_MOST_ERRORS = 10
_PLAIN_STRS = (object.__str__, BaseModel.__str__)


def result_text(value: object, out: Any, *, as_json: bool) -> str | bytes:
    """Return what to print for the result *value* of a module whose return type is *out*.

    A ``str`` is printed as it is, ``bytes`` too, a model or dataclass that has a ``__str__`` of its own by that, all
    else as indented JSON, or by its ``str`` where it has no JSON.

    Args:
        value: What the run gave.
        out: The type that the JSON is written by.
        as_json: Write compact JSON, whatever the value.

    Raises:
        PayloadError: If *as_json* is set and the value cannot be written as JSON.
    """
    if as_json:
        return Payload[Any].of(value, out).json().decode()
    if isinstance(value, str | bytes) and type(value) in (str, bytes):  # an enum of texts is written as JSON
        return value
    if _has_own_str(value):
        return str(value)
    try:
        data = json.loads(Payload[Any].of(value, out).json())
    except PayloadError:
        return str(value)
    return json.dumps(data, indent=2, ensure_ascii=False)


def _has_own_str(value: object) -> bool:
    return (isinstance(value, BaseModel) or dataclasses.is_dataclass(value)) and type(value).__str__ not in _PLAIN_STRS


def write_result(result: str | bytes | Iterator[str]) -> None:
    """Write the result to standard output, a text (or its pieces) with one line end; no reader ends it quietly."""
    try:
        if isinstance(result, bytes):
            sys.stdout.flush()
            sys.stdout.buffer.write(result)
        else:
            for piece in (result.removesuffix("\n"),) if isinstance(result, str) else result:
                _write(sys.stdout, piece)
            _write(sys.stdout, "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Write a line to standard error."""
    write_prompt(text + "\n")


def write_prompt(text: str) -> None:
    """Write the beginning of a line to standard error."""
    _write(sys.stderr, text)
    sys.stderr.flush()


def _write(stream: TextIO, text: str) -> None:
    """Write *text*; characters that the stream's encoding does not have are written as escapes."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def failure_text(error: BaseException, *, with_traceback: bool) -> str:
    """Return what to say about a run that failed: the error, its notes (one of which names the step), its cause."""
    if with_traceback:
        return "".join(traceback.format_exception(error)).rstrip()
    return "\n".join([f"mai run: {_headline(error)}", *_details(error), "  (--traceback shows where)"])


def _headline(error: BaseException) -> str:
    """Return type and message, the latter cut if it is long."""
    lines = f"{type(error).__qualname__}: {error}".rstrip(": \n").splitlines()
    return "\n".join([*lines[:_MOST_LINES], *(["…"] if len(lines) > _MOST_LINES else [])])


def _details(error: BaseException) -> Iterator[str]:
    for note in getattr(error, "__notes__", ()):
        yield textwrap.indent(str(note), "  ")
    if isinstance(error.__cause__, Exception):  # how a deadline was carried out is no news
        yield textwrap.indent(f"because of {_headline(error.__cause__)}", "  ")
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)  # isinstance tells nothing of what is in it
        for inner in group.exceptions[:_MOST_ERRORS]:
            yield textwrap.indent("\n".join([f"- {_headline(inner)}", *_details(inner)]), "  ")
        if len(group.exceptions) > _MOST_ERRORS:
            yield f"  … and {len(group.exceptions) - _MOST_ERRORS} more"
