"""RestateEngine against a real server, as a bench of the conformance suite."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from restate.exceptions import RetryableError

from mai.core.ids import new_id
from mai.durable.restate import RestateEngine
from mai.durable.restate.commands import ContextCommands
from tests.durable.conformance import outcome
from tests.durable.restate_servers import free_port

__all__ = ["RestateBench"]


class Breaking(ContextCommands):
    """The journal of a process that breaks down with what it is doing: the n-th attempt after n completions."""

    def __init__(self, context: Any, attempts: Counter[str]) -> None:
        super().__init__(context)
        key = context.request().id
        attempts[key] += 1
        self.left = attempts[key]

    async def wait(self, durables: Sequence[Any]) -> list[tuple[Any, bytes]]:
        """Wait, unless it is over."""
        if self.left <= 0:
            raise RetryableError("the process is gone", retry_after=timedelta(milliseconds=1))
        found = await super().wait(durables)
        self.left -= len(found)
        return found


class RestateBench:
    """One application of its own on a server that many share: its workflows have names that no other has."""

    def __init__(self, admin: Any, ingress: Any) -> None:
        self.admin, self.ingress = admin, ingress
        self.prefix = f"t{new_id()[:12]}."
        self.port = free_port()  # a run goes on at the address that it began at

    @asynccontextmanager
    async def engine(self, *modules: Any, **settings: Any) -> AsyncIterator[RestateEngine]:
        """Return the engine of one more process."""
        settings = {"ingress": self.ingress, "port": self.port, "prefix": self.prefix, **settings}
        async with RestateEngine(self.admin, modules=modules, **settings) as engine:
            yield engine

    async def interrupted(self, m: Any, x: Any, run_id: str, during: Any) -> Any:
        """Let each attempt to carry the run on break off when there is one thing more in its journal."""
        attempts = Counter[str]()
        async with self.engine() as engine:
            engine.commands = lambda context: Breaking(context, attempts)
            handle = engine.start(m, x, run_id=run_id)
            busy = None if during is None else asyncio.ensure_future(during(engine))
            found = await outcome(handle)
            if busy is not None:
                busy.cancel()
            return found

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run in real time."""
        asyncio.run(main())  # type: ignore[arg-type]
