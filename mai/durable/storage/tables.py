"""A program's own tables in the file of the journal, open to it for one transaction."""

import sqlite3
import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["ERRORS", "Tables"]

ERRORS: Final = (  # which replays may raise
    sqlite3.DataError, sqlite3.DatabaseError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.InternalError,
    sqlite3.NotSupportedError, sqlite3.OperationalError, sqlite3.ProgrammingError,
)  # fmt: skip

Parameters = Sequence[Any] | Mapping[str, Any]  # whatever sqlite3 takes

_NEVER: Final = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH,
                 sqlite3.SQLITE_PRAGMA}  # fmt: skip
_READS: Final = {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT}


class Tables:
    """What the function given to `transaction` writes with.

    It can do everything with the program's own tables in the same file, and read those of the journal; it can neither
    write those nor end the transaction.

    Example:
        >>> import asyncio
        >>> from mai.durable import Lease, Record, SQLiteJournal, Tables
        >>> def book(tables: Tables) -> bytes:
        ...     tables.execute("CREATE TABLE IF NOT EXISTS seat(number INTEGER PRIMARY KEY)")
        ...     tables.execute("INSERT INTO seat VALUES(?)", (12,))
        ...     return b"12"
        >>> async def main() -> None:
        ...     async with SQLiteJournal("seats.db") as journal:
        ...         info, _ = await journal.create("r", target="t", plan=None, fingerprint="", input=b"1", owner="me")
        ...         lease = Lease("r", "me", info.epoch)
        ...         print((await journal.transact(lease, Record("Book", "step"), book)).output)
        >>> asyncio.run(main())
        b'12'
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> sqlite3.Cursor:
        """Run one statement for each set of parameters."""
        return self._connection.executemany(sql, parameters)

    @classmethod
    def in_memory(cls) -> "Tables":
        """Return tables that are in no file, and end with their last user."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        tables = cls(connection)
        weakref.finalize(tables, connection.close)
        return tables

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Let what is written in the block be written as a whole or not at all."""
        self._connection.execute("BEGIN")
        try:
            with self.guarded():
                yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Refuse, inside the block, what would break the journal."""
        self._connection.set_authorizer(_allowed)
        try:
            yield
        finally:
            self._connection.set_authorizer(None)


def _allowed(action: int, *names: str | None) -> int:
    """Say whether a statement may be run, as SQLite asks it."""
    own = any(name is not None and name.startswith("mai_") for name in names)
    return sqlite3.SQLITE_DENY if action in _NEVER or (own and action not in _READS) else sqlite3.SQLITE_OK
