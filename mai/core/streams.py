"""Generator forwards: a generator is driven by its call's own task, or in one worker thread, and never by a reader."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

from .events import Chunk, post
from .frame import Frame, current
from .threads import offload


async def drain(stream: Callable[[], Any]) -> list[Any]:
    """Drive an async generator in this task to its end, and close it whatever happens."""
    f, chunks = current(), list[Any]()
    bus, nested = f.env.bus, _is_nested(f)
    async with aclosing(stream()) as source:
        async for chunk in source:
            chunks.append(chunk)
            if bus is not None:
                number = post(Chunk, chunk, len(chunks) - 1, nested, frame=f)
                await bus.read.heard(lambda number=number: bus.has_room(number))
    return chunks


async def drain_in_thread(stream: Callable[[], Any]) -> list[Any]:
    """Drive a generator in one worker thread; after a cancel it is closed there when it gives its next chunk."""
    f, chunks, gone = current(), list[Any](), threading.Event()
    bus, nested = f.env.bus, _is_nested(f)

    def drive() -> None:
        with closing(stream()) as source:
            for chunk in source:
                if gone.is_set():
                    return
                chunks.append(chunk)
                if bus is not None:
                    number = post(Chunk, chunk, len(chunks) - 1, nested, frame=f)
                    bus.read.wait(lambda number=number: gone.is_set() or bus.has_room(number))

    try:
        await offload(drive)
    except asyncio.CancelledError:
        gone.set()
        if bus is not None:
            bus.read.ring()
        raise
    return chunks


def _is_nested(f: Frame) -> bool:
    """Say whether a call around streams too; asked only where it is told."""
    f = f.parent if f.n < 0 else f  # from an attempt to its call
    while f.env.bus is not None and (f := f.parent).mod is not None:
        if f.n >= 0 and "generator" in f.mod._mai_spec.colour:
            return True
    return False
