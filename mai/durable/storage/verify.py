"""Reading all of a file to see whether it is whole, and copying it whole."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from ...errors import CorruptJournal, JournalError, UnknownRun
from . import blobs
from .checksum import checksum
from .files import explained
from .reads import history, signals
from .rows import RUN_COLUMNS, Book, checked_run, run_info
from .schema import mark

__all__ = ["backup", "problems"]


def problems(book: Book) -> list[str]:
    """Return what is wrong with the file, nothing if all is well: every page, and the checksum of every row."""
    found: list[str] = []
    try:
        found += [said for (said,) in book.connection.execute("PRAGMA integrity_check(20)") if said != "ok"]
        found += _wrong(book)
    except sqlite3.Error as error:
        found.append(str(explained(error, book.path)))
    return found


def _wrong(book: Book) -> Iterator[str]:
    read = book.connection.execute
    for (run_id,) in read("SELECT run_id FROM mai_run ORDER BY number").fetchall():
        try:
            row = read(f"SELECT {RUN_COLUMNS}, crc FROM mai_run WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                raise UnknownRun(f"{book.path!r}: the run {run_id!r} is in the table but not in its index")
            run_info(book, checked_run(book, row))
            history(book, run_id)
            signals(book, run_id)
        except (CorruptJournal, UnknownRun) as error:
            yield str(error)
    for (address,) in read("SELECT address FROM mai_blob").fetchall():
        try:
            blobs.load(book.connection, str(address), book.path)  # a damaged one may be anything
        except CorruptJournal as error:
            yield str(error)
    for row in read("SELECT owner, leased, ttl, crc FROM mai_owner").fetchall():
        if checksum(book.seed, row[:3]) != row[3]:
            yield str(book.damaged(f"the row of the owner {row[0]!r}"))
    yield from _strays(read)


def _strays(read: Any) -> Iterator[str]:
    """Yield what belongs to no run."""
    for table in ("mai_record", "mai_signal", "mai_blob_use"):
        query = f"SELECT DISTINCT run_id FROM {table} WHERE run_id NOT IN (SELECT run_id FROM mai_run)"
        for (run_id,) in read(query).fetchall():
            yield f"{table} has rows of the run {run_id!r}, which is not there"
    lost = (
        "SELECT run_id FROM mai_run WHERE status = 'running' AND ifnull(owner, '') NOT IN (SELECT owner FROM mai_owner)"
    )
    for (run_id,) in read(lost).fetchall():
        yield f"the run {run_id!r} is running, but its owner has no row"


def backup(book: Book, target: str) -> None:
    """Copy the journal as it is now into one new file.

    Raises:
        JournalError: If there is a file *target*, or it cannot be written.
    """
    if os.path.exists(target):
        raise JournalError(f"{target!r} is there already; a backup overwrites nothing", path=target)
    part = target + ".part"
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            book.connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            mark(copy, part, opened=False)
        os.rename(part, target)
    except (OSError, sqlite3.Error) as error:
        for left in (part, f"{part}-journal", f"{part}-wal", f"{part}-shm"):
            if os.path.exists(left):
                os.remove(left)
        raise explained(error, target) from error
