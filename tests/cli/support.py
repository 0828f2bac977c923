"""What the tests of the command line share: a file to run, and what a run of `mai` gave."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FLOW = '''\
"""A file of a user."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from mai import Conditional, Module, ask, module


class Doc(BaseModel):
    text: str
    stars: int = 0


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Report(BaseModel):
    title: str

    def __str__(self) -> str:
        return f"* {self.title} *"


@dataclass
class Point:
    x: float
    y: float


class Search(Module):
    """Find documents.

    The newest come first.
    """

    def forward(self, query: str, k: int = 3, full: bool = False, tags: list[str] = []) -> list[Doc]:
        return [Doc(text=f"{query} {full} {tags}", stars=n) for n in range(k)]


class Scale(Module):
    def __init__(self, factor: int) -> None:
        self.factor = factor

    async def forward(self, n: int) -> int:
        return n * self.factor


search = Search()
one = search.with_(query="set", k=1)
triple = Scale(3)


@module
async def shout(text: str, mark: str = "!") -> str:
    """Say it louder."""
    return text.upper() + mark


@module
async def echo(value: str) -> str:
    return value


@module
async def described(text: Annotated[str, Field(description="What to say")], file: Path = Path("notes.txt")) -> str:
    return text


@module
async def send(text: str) -> str:
    return f"sent {text}" if await ask(f"Send {text!r}\\n  now?", bool) else "kept"


@module
async def order(text: str) -> str:
    doc = await ask("Which document?", Doc)
    return f"{doc.stars} {await ask('Colour?', Colour)} {await ask('Name?')!r} {await ask('Thing?', object)}"


@module
async def hasty(text: str) -> str:
    try:
        await ask("Quick?", bool, timeout=0.5)
    except TimeoutError:
        return await ask("Slow?")
    return "quick"


@module
async def own(text: str) -> str:
    handle = send.start(text)
    async for _ in handle:
        if handle.questions:
            handle.answer(True)
    return await handle


askers = send & send.with_(name="again")


@module
async def add(a: int, b: int) -> int:
    return a + b


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@module
async def stars(doc: Doc) -> int:
    return doc.stars


@module
async def look(path: Path, top: int = 1) -> str:
    return f"{path.name} {top}"


@module
async def size(data: bytes) -> int:
    return len(data)


@module
async def raw(text: str) -> bytes:
    return text.encode()


@module
async def report(title: str) -> Report:
    return Report(title=title)


@module
async def point(x: float) -> Point:
    return Point(x, -x)


@module
async def anything(value):
    return value


@module
async def thing(name: str) -> object:
    return sys.modules[name]


@module
async def patient(timeout: float, json: bool = False) -> str:
    return f"{timeout} {json}"


@module
async def options(first: str = "a", **more: str) -> str:
    return f"{first} {sorted(more.items())}"


@module
async def named(**more: int) -> int:
    return len(more)


@module
async def several(first: int = 0, *parts: int, sign: str = "") -> str:
    return f"{first} {parts} {sign}"


@module
async def places(a: int, b: int = 2, /, c: int = 3, *, _d: int = 4) -> str:
    return f"{a} {b} {c} {_d}"


@module
async def fail(text: str) -> str:
    raise ValueError(f"cannot take {text!r}")


@module
async def two(text: str) -> str:
    raise ExceptionGroup("both", [ValueError("first"), KeyError("second")])


@module
async def interrupt(text: str) -> str:
    """Press Ctrl-C, and again in the cleanup if the text says so."""
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaning up", file=sys.stderr)
        if text == "fail":
            raise ValueError("the cleanup failed")
        if text == "again":
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
    return text


@module
def press(text: str) -> str:
    """Press Ctrl-C where nothing listens to it: in a worker thread, for the main one."""
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)
    return text


@module
async def give_up(text: str) -> str:
    raise asyncio.CancelledError


@module
async def wait(text: str) -> str:
    await asyncio.Event().wait()
    return text


brief = wait.with_(timeout=0.01)


@module
async def leave(code: int) -> str:
    sys.exit(code)


fast = search >> (lambda docs: len(docs)) >> triple
both = shout & echo
kind = Conditional(str.isdigit, then=echo, otherwise=shout)


def plain(text: str) -> str:
    return text


number = 42
'''


class Done:
    """What one run of `mai` gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __iter__(self) -> Iterator[Any]:
        return iter((self.code, self.out, self.err))


def command(*words: str) -> list[str]:
    """Return how a shell would call the `mai` of this Python."""
    return [sys.executable, "-m", "mai.cli", *words]


def environment() -> dict[str, str]:
    """Return an environment in which this very source is imported, and nothing about a terminal is set."""
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error", "TERM": "xterm-256color"}
