"""Who answers when a run asks: the texts given by ``--answer``, one a question, then the person at the terminal."""

import os
import sys
import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pydantic import TypeAdapter

from mai import answers
from mai.cli.interrupt import Interrupt
from mai.cli.output import say, write_prompt
from mai.core.events import Bell
from mai.core.threads import start_thread
from mai.errors import AskError, CastError
from mai.types import Question
from mai.values.casts import is_open
from mai.views.text import safe

__all__ = ["Terminal", "answering", "fitted"]

_JSON: TypeAdapter[Any] = TypeAdapter(Any)  # Any: whatever a person writes
_LONGEST_LINE_BYTES = 65_536


def answering(given: Sequence[str], terminal: "Terminal | None") -> AbstractContextManager[None]:
    """Answer what is asked in a block with the texts *given*, in their order, then at the *terminal*.

    Where there is neither, nothing is changed: a question fails at once, unless somebody inside the run answers it.
    """
    if not given and terminal is None:
        return nullcontext()
    left = deque(given)

    async def answer(question: Question) -> object:
        if left:
            return _from_command_line(question, left.popleft())
        if terminal is None:
            raise AskError(f"{_asked(question)}: each --answer is used already ({len(given)} given); add another one")
        return await terminal.answer(question)

    return answers(answer)


def fitted(question: Question, text: str) -> object:
    """Return the value that *text* stands for: itself where that fits the question, else what it is as JSON.

    Raises:
        CastError: If neither fits.
    """
    try:
        decoded: object = _JSON.validate_json(text)
    except ValueError:
        decoded = text
    if is_open(question.type):
        return decoded
    readings: list[object] = [text, text.strip(), decoded]
    if isinstance(decoded, dict | list):
        readings.reverse()  # what is wrong with it as JSON is then what to say
    misfit: CastError | None = None
    for value in readings:
        try:
            question.data(value)
        except CastError as error:
            misfit = misfit or error
        else:
            return value
    assert misfit is not None
    raise misfit


def _from_command_line(question: Question, text: str) -> object:
    try:
        return fitted(question, text)
    except CastError as error:
        message = f"--answer {text!r} does not fit the question {question.prompt!r}"
        raise CastError(message, step_id=question.step_id, where="answer", expected=question.expected) from error


def _asked(question: Question) -> str:
    return f"ask({question.prompt!r}) in {question.step_id!r}"


class Terminal:
    """The person at the terminal, who is asked one question at a time, in the order in which they come.

    A line is read in a thread, since nothing else can wait for one and be left: the loop goes on, Ctrl-C and deadlines
    are heard. The thread reads the file descriptor, not ``sys.stdin``, whose lock it would hold when Python ends.

    Args:
        paused: Takes the live display away for a block.
        interrupt: Is told while the cursor stands in a line that has been begun.
    """

    def __init__(self, paused: Callable[[], AbstractContextManager[None]], interrupt: Interrupt) -> None:
        self._paused = paused
        self._interrupt = interrupt
        self._waiting: deque[object] = deque()
        self._lock = threading.Lock()
        self._reading = False  # whether a thread waits for a line
        self._lines: deque[bytes] = deque()
        self._bell = Bell()  # the questions may come from several loops

    async def answer(self, question: Question) -> object:
        """Show *question* and return the answer; a line that does not fit is refused, and another one asked for.

        Raises:
            AskError: If the input has ended.
        """
        turn = object()
        self._waiting.append(turn)
        try:
            await self._bell.heard(lambda: self._waiting[0] is turn)
            with self._paused():
                return await self._talk(question)
        finally:
            self._waiting.remove(turn)
            self._bell.ring()

    async def _talk(self, question: Question) -> object:
        _forget_typed()
        say(_shown(question.prompt))
        while True:
            line = await self._read(f"  {_expected(question)}: ")
            if not line.endswith(b"\n"):
                say("")
            if not line:
                raise AskError(f"{_asked(question)}: the input of the terminal has ended, so nobody answers")
            try:
                return fitted(question, line.decode(sys.stdin.encoding).rstrip("\r\n"))
            except ValueError as error:  # a CastError, or no text
                say(f"  {safe(str(error))}")

    async def _read(self, prompt: str) -> bytes:
        """Return the next line that is typed from now on; nothing at the end of the input."""
        with self._lock:  # before the prompt is shown: a line that follows it at once is not to be lost
            self._lines.clear()
            wanted, self._reading = not self._reading, True
        if wanted:  # else the thread of a question that was left waits still
            start_thread(self._work, "mai-terminal")
        write_prompt(prompt)
        self._interrupt.mid_line = True
        try:
            await self._bell.heard(lambda: bool(self._lines))
        except CancelledError:
            if self._interrupt.mid_line:  # a deadline: an interrupt has ended the line itself
                say("")
            raise
        finally:
            self._interrupt.mid_line = False
        return self._lines.popleft()

    def _work(self) -> None:
        try:
            line = os.read(sys.stdin.fileno(), _LONGEST_LINE_BYTES)
        except (OSError, ValueError):  # it has been closed
            line = b""
        with self._lock:
            self._lines.append(line)
            self._reading = False
        self._bell.ring()


def _forget_typed() -> None:
    """Drop what was typed before the question was there: it cannot be meant for it."""
    if sys.platform != "win32":
        import termios  # noqa: PLC0415 (there is none on Windows)

        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _shown(prompt: str) -> str:
    """Return the text of a question with its lines and indentation, and nothing that a terminal obeys."""
    lines = [" " * (len(line) - len(line.lstrip())) + safe(line, len(line)) for line in prompt.splitlines()]
    return "? " + "\n  ".join(lines)


def _expected(question: Question) -> str:
    """Return the type of the answer, and how to write it where that is not plain."""
    schema = question.schema
    if schema.get("type") == "boolean":
        how = " (yes or no)"
    elif "enum" in schema and not question.expected.startswith("Literal"):
        how = f" ({', '.join(map(str, schema['enum']))})"
    else:
        how = " (as JSON)" if schema.get("type") in ("array", "object") else ""
    return safe(question.expected + how)
