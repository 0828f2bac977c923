"""The steps that are timed, and beside each the probe whose code takes its place while promises are checked.

A probe runs with the globals of the step that it stands in for, which is why both live in this file.
"""

import asyncio
import threading
import types
from collections.abc import Generator
from typing import Any

from pydantic import BaseModel

from mai import Context, Module

from .promises import look, look_again, promise

__all__ = [
    "Doc",
    "Inside",
    "Knows",
    "Length",
    "Level",
    "Meet",
    "Meeting",
    "Noop",
    "Plain",
    "Same",
    "Summary",
    "Summarise",
    "Wait",
    "depth",
    "hang",
    "probe",
    "probe_length",
    "probe_level",
    "probe_meet",
    "probe_plain",
    "probe_summarise",
    "probe_wait",
    "stuck",
    "suspend",
]

_main = threading.main_thread()
_freed = threading.Event()


@types.coroutine
def suspend() -> Generator[None, None, None]:
    """Wait for the next turn of the loop."""
    yield


class Noop(Module):
    """The least that a step can be."""

    async def forward(self, x):
        return x


class Same(Module):
    """The same with types."""

    async def forward(self, x: int) -> int:
        return x


async def probe(self: Any, x: Any) -> Any:
    """Stand in for `Noop` and `Same`."""
    look()
    return x


async def hang(self: Any, x: Any) -> Any:
    """Stand in for any coroutine step, and never end."""
    await asyncio.Event().wait()


class Wait(Module):
    """A step that waits once."""

    async def forward(self, x):
        await asyncio.sleep(0)
        return x


async def probe_wait(self: Any, x: Any) -> Any:
    """Stand in for `Wait`: what the step set is still its own after the wait, and so is its task."""
    mine, task = look(), asyncio.current_task()
    await asyncio.sleep(0)
    look_again(mine)
    promise(asyncio.current_task() is task, "a step stays in its task")
    return x


class Meeting:
    """Ends the waits of *n* steps when all of them wait: so that they really wait at the same time."""

    def __init__(self, n: int) -> None:
        self.missing, self.all_here = n, asyncio.Event()

    async def arrive(self) -> None:
        """Wait for the others."""
        self.missing -= 1
        if not self.missing:
            self.all_here.set()
        await self.all_here.wait()


class Meet(Module):
    """A step that waits for all of its siblings."""

    async def forward(self, meeting):
        await meeting.arrive()
        return 1


async def probe_meet(self: Any, meeting: Any) -> int:
    """Stand in for `Meet`."""
    mine, task = look(), asyncio.current_task()
    await meeting.arrive()
    look_again(mine)
    promise(asyncio.current_task() is task, "a step stays in its task")
    return 1


class Length(Module):
    """A step with scalar types that looks at its Context."""

    async def forward(self, text: str) -> int:
        Context.get()
        return len(text)


class Knows(Module):
    """The same without a look at the Context."""

    async def forward(self, text: str) -> int:
        return len(text)


async def probe_length(self: Any, text: str) -> int:
    """Stand in for `Length` and `Knows`."""
    look()
    return len(text)


class Doc(BaseModel):
    """An input."""

    title: str
    text: str


class Summary(BaseModel):
    """An output."""

    title: str
    words: int


DOC = Doc(title="mai", text="everything that runs is a module")
SUMMARY = Summary(title="mai", words=6)


class Summarise(Module):
    """A step with pydantic models that looks at its Context."""

    async def forward(self, doc: Doc) -> Summary:
        Context.get()
        return SUMMARY


async def probe_summarise(self: Any, doc: Doc) -> Summary:
    """Stand in for `Summarise`."""
    look()
    return SUMMARY


class Plain(Module):
    """A sync step: it runs in a worker thread."""

    def forward(self, x):
        return x


def probe_plain(self: Any, x: Any) -> Any:
    """Stand in for `Plain`."""
    look()
    promise(threading.current_thread() is not _main, "a sync step runs in a worker thread")
    return x


def stuck(self: Any, x: Any) -> Any:
    """Stand in for `Plain` and block, longer than any deadline of a check."""
    _freed.wait(0.2)


class Level(Module):
    """One level of nested calls; at the bottom the step waits *x* times."""

    def __init__(self, inner: Module | None) -> None:
        self.inner = inner

    async def forward(self, x):
        inner = self.inner
        if inner is not None:
            return await inner(x)
        for _ in range(x):
            await suspend()
        return x


async def probe_level(self: Any, x: Any) -> Any:
    """Stand in for `Level`."""
    mine = look()
    if self.inner is not None:
        await self.inner(x)
    else:
        for _ in range(x):
            await suspend()
    look_again(mine)
    return x


def depth(levels: int) -> Level:
    """Return calls nested *levels* deep."""
    m = Level(None)
    for _ in range(levels - 1):
        m = Level(m)
    return m


class Inside(Module):
    """Calls a module from a running one, which is the usual case."""

    def __init__(self, m: Module, value: Any = 1) -> None:
        self.m, self.value = m, value

    async def forward(self, n):
        m, value = self.m, self.value
        for _ in range(n):
            await m(value)
        return n
