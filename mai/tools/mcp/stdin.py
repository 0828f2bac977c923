"""The messages that come on standard input, line by line.

The SDK reads them in a thread that a cancel has to wait for, so that Ctrl-C would do nothing until the client says
something more. Here a daemon thread reads, which nobody has to wait for.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

from mai.core.threads import start_thread

_READ = 65536


@asynccontextmanager
async def lines_of(fd: int = 0) -> "AsyncGenerator[AsyncIterator[str]]":
    """Give the lines of the descriptor *fd*, which whatever runs inside of the block finds empty."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()
    wire, empty = os.dup(fd), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, fd)
    os.close(empty)

    def read() -> None:
        rest = b""
        with suppress(RuntimeError, OSError):  # the loop was closed; the descriptor was
            while data := os.read(wire, _READ):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    async def told() -> AsyncIterator[str]:
        while (line := await lines.get()) is not None:
            yield line.decode("utf-8", "replace")

    start_thread(read, "mai-stdin")
    try:
        yield told()
    finally:
        os.dup2(wire, fd)  # the thread may still read *wire*, so it stays open
