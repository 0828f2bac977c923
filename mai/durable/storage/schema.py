"""The tables of a journal, and how those of an older version become those of today.

All names begin with ``mai_``, so that a program may keep tables of its own in the same file.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.clock import clock
from ...core.ids import new_id
from ...errors import CorruptJournal, JournalError
from .checksum import checksum

# Each member leads from the version that is its index to the next one; version 0 is a file without a journal.
STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE mai_journal(
            id TEXT PRIMARY KEY, version INTEGER, created REAL, open INTEGER, crc INTEGER) WITHOUT ROWID""",
        """CREATE TABLE mai_run(
            number INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, target TEXT, plan TEXT, fingerprint TEXT, input,
            metadata BLOB, status TEXT, owner TEXT, epoch INTEGER, claims INTEGER, due REAL, waits TEXT, created REAL,
            updated REAL, output, error, cancelled INTEGER, records INTEGER, crc INTEGER)""",
        "CREATE INDEX mai_run_status ON mai_run(status, number)",
        "CREATE INDEX mai_run_due ON mai_run(due) WHERE due IS NOT NULL",
        "CREATE INDEX mai_run_owner ON mai_run(owner) WHERE owner IS NOT NULL",
        """CREATE TABLE mai_record(
            run_id TEXT, path TEXT, seq INTEGER, kind TEXT, input, output, error, due REAL, attempt INTEGER,
            started REAL, ended REAL, version TEXT, crc INTEGER, PRIMARY KEY(run_id, path)) WITHOUT ROWID""",
        """CREATE TABLE mai_signal(
            number INTEGER PRIMARY KEY, run_id TEXT, name TEXT, id TEXT, data, sent REAL, path TEXT, crc INTEGER,
            UNIQUE(run_id, id))""",
        "CREATE TABLE mai_blob(address TEXT PRIMARY KEY, data BLOB)",
        """CREATE TABLE mai_blob_use(
            run_id TEXT, address TEXT, PRIMARY KEY(run_id, address)) WITHOUT ROWID""",
        "CREATE INDEX mai_blob_use_address ON mai_blob_use(address)",
        "CREATE TABLE mai_owner(owner TEXT PRIMARY KEY, leased REAL, ttl REAL, crc INTEGER) WITHOUT ROWID",
        "CREATE TABLE mai_event(number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, what TEXT)",
    ),
)


class Identity(NamedTuple):
    """Which journal a file has."""

    id: str
    version: int
    created: float
    open: int = 0  # 1 from before there is a -wal until after it is gone; in the file itself, not only in the -wal


def identity(connection: sqlite3.Connection, path: str) -> Identity | None:
    """Return which journal the file has, None if it has none.

    Raises:
        CorruptJournal: If it has one that does not say which.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mai_journal'").fetchone():
        return None
    rows = connection.execute("SELECT id, version, created, open, crc FROM mai_journal").fetchall()
    if len(rows) != 1 or checksum(0, rows[0][:-1]) != rows[0][-1]:
        raise CorruptJournal(f"{path!r} does not say which journal it is: it was damaged", path=path)
    return Identity(*rows[0][:-1])


def migrate(connection: sqlite3.Connection, path: str, steps: Sequence[Sequence[str]] = STEPS) -> Identity:
    """Bring the tables to the newest version, in the transaction that goes on, and return which journal it is.

    Raises:
        JournalError: If they are newer than this program.
    """
    found = identity(connection, path) or Identity(new_id(), 0, clock.wall())
    newest = len(steps)
    if found.version > newest:
        facts = f"{path!r} was written by a newer mai: its tables have version {found.version}, this mai knows {newest}"
        raise JournalError(f"{facts}; upgrade mai", path=path)
    if found.version == newest:
        return found
    for statements in steps[found.version :]:
        for statement in statements:
            connection.execute(statement)
    return write(connection, found._replace(version=newest))


def write(connection: sqlite3.Connection, now: Identity) -> Identity:
    """Write which journal the file has."""
    connection.execute("REPLACE INTO mai_journal VALUES(?, ?, ?, ?, ?)", (*now, checksum(0, now)))
    return now


def mark(connection: sqlite3.Connection, path: str, *, opened: bool) -> None:
    """Write whether there may be a -wal."""
    found = identity(connection, path)
    if found is not None and found.open != opened:
        write(connection, found._replace(open=int(opened)))
