"""The engine whose journal is one SQLite file."""

from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal

from mai.durable.engine import DurableEngine
from mai.durable.storage import SQLiteJournal

__all__ = ["SQLiteEngine"]


class SQLiteEngine(DurableEngine):
    """Runs calls durably, with a journal in one SQLite file, which several processes may share.

    Args:
        path: The file; it is made if it is not there.
        modules: Code for runs that were begun elsewhere, as by `DurableEngine.serve`.
        durability: ``"power"``: what was recorded survives a power cut. ``"process"``: it survives the process, but the
            newest records may be lost when power fails; faster on a slow disk.
        errors: As of `DurableEngine`.
        auth: As of `DurableEngine`.
        ttl: As of `DurableEngine`.
        linger: As of `DurableEngine`.
        max_runs: As of `DurableEngine`.
        max_threads: As of `mai.LocalEngine`.
        max_abandoned: As of `mai.LocalEngine`.

    Raises:
        ConfigError: If an argument cannot be used.
        JournalError: If the file cannot be opened.

    Example:
        >>> import asyncio, tempfile
        >>> from mai import module
        >>> from mai.durable import SQLiteEngine
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> async def main() -> int:
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         async with SQLiteEngine(f"{folder}/runs.db") as engine:
        ...             return await engine.start(double, 21, run_id="order-42")
        >>> asyncio.run(main())
        42
    """

    def __init__(
        self,
        path: "str | PathLike[str]",
        *,
        modules: Iterable[Any] = (),
        durability: Literal["power", "process"] = "power",
        errors: Iterable[type[Exception]] = (),
        auth: Any = None,
        ttl: float = 30.0,
        linger: float = 1.0,
        max_runs: int = 1000,
        max_threads: int = 64,
        max_abandoned: int = 64,
    ) -> None:
        super().__init__(
            SQLiteJournal(path, durability=durability), modules=modules, errors=errors, auth=auth, ttl=ttl,
            linger=linger, max_runs=max_runs, max_threads=max_threads, max_abandoned=max_abandoned,
        )  # fmt: skip
