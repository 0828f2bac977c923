"""Effects in the file of the journal, in the transaction of their own record: exactly once."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, get_type_hints

from mai.core.engine import current_run
from mai.core.frame import current, repeat
from mai.durable.rules import INSIDE
from mai.durable.storage.tables import Tables
from mai.errors import ConfigError
from mai.values.casts import Caster, caster

__all__ = ["Transaction", "transaction"]

T = TypeVar("T")


async def transaction(work: Callable[[Tables], T]) -> T:
    """Write into tables of the journal's file and return what *work* gives: what it writes happens exactly once.

    *work* runs in one SQLite transaction together with the record of its value, so that after a crash either both are
    there, and it is not run again, or neither is. In a flow the record is a step of its own; a failure of *work* is
    rolled back, recorded and raised, like that of a step. In a step the record stands beside that of the step: where
    the step is tried again, or repeated after a crash, what was committed is not done again; a failure is rolled back
    and raised, and no record is left, so that the next attempt tries again.

    It runs in the thread that writes the journal, and all runs wait for it: it should be short, and do nothing but
    write and read these tables. Under a `MemoryJournal` they are in memory.

    Args:
        work: A plain function of the `Tables`. What it returns must be JSON of the type that it declares, if it does.

    Raises:
        ConfigError: Outside of a run of an engine that has such a journal, or if *work* is not a plain function.
        PayloadError: If the value cannot be written as JSON; nothing was written then.

    Example:
        >>> import asyncio
        >>> from mai import module
        >>> from mai.durable import SQLiteEngine, Tables, transaction
        >>> @module
        ... async def pay(amount: int) -> int:
        ...     def book(tables: Tables) -> int:
        ...         tables.execute("CREATE TABLE IF NOT EXISTS entry(amount INTEGER)")
        ...         tables.execute("INSERT INTO entry VALUES(?)", (amount,))
        ...         return tables.execute("SELECT sum(amount) FROM entry").fetchone()[0]
        ...     return await transaction(book)
        >>> async def main() -> int:
        ...     async with SQLiteEngine("books.db") as engine:
        ...         await engine.start(pay, 20, run_id="order-1")
        ...         await engine.start(pay, 20, run_id="order-1")  # attaches
        ...         return await engine.start(pay, 22, run_id="order-2")
        >>> asyncio.run(main())
        42
    """
    asked = Transaction(work)
    p, run = current(), current_run()
    key = "/transaction" if run.records else INSIDE
    n = repeat(p, key)
    found: T = await run.value(f"{p.path}{key}~{n}" if n > 1 else f"{p.path}{key}", asked)
    return found


class Transaction:
    """What a run is asked to make the value of; one that has a journal makes it in there.

    Attributes:
        raised: What the work of the user's raised, when it was run last.
    """

    def __init__(self, work: Any) -> None:
        if not callable(work) or inspect.iscoroutinefunction(work):
            raise ConfigError(f"transaction: {work!r} is not a plain function of tables, which is run in a thread")
        self.raised: BaseException | None = None
        self._work = work
        hints: dict[str, Any] = {}
        with suppress(Exception):  # a hint that cannot be evaluated says nothing
            hints = get_type_hints(work)
        self._type: Caster = caster(hints.get("return", Any))

    def __call__(self) -> Any:
        """Refuse: it is asked for where nothing is recorded."""
        raise ConfigError(
            "transaction: no journal records this; call it in a flow or a step of a run of a SQLiteEngine"
        )

    def write(self, tables: Tables) -> bytes:
        """Do the work and return its value as JSON, in the thread that writes."""
        self.raised = None
        try:
            return self._type.dump(self._work(tables))
        except Exception as error:
            self.raised = error
            raise

    def read(self, output: bytes | None) -> Any:
        """Return the value that stands in a record."""
        return self._type.load(output or b"null")
