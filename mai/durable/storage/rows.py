"""How runs, records and signals become rows, and rows become them again, with their checksum verified."""

import json
import sqlite3
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ...core.clock import clock
from ...errors import CorruptJournal, UnknownRun
from ..records import Record, RunInfo, Signal
from ..rules import seconds
from . import blobs
from .checksum import checksum, record_checksum

__all__ = [
    "RECORD_COLUMNS", "RUN_COLUMNS", "SIGNAL_COLUMNS", "Book", "RecordRow", "RunRow", "SignalRow", "checked_record",
    "checked_run", "checked_signal", "gathered", "lease_of", "record_of", "record_row", "record_rows", "records_of",
    "run_info", "run_row", "save", "signal_of", "signal_rows", "spread",
]  # fmt: skip


class Book(NamedTuple):
    """A connection to a journal, with what its rows are checked by."""

    connection: sqlite3.Connection
    path: str
    seed: int

    def damaged(self, what: str) -> CorruptJournal:
        """Return the error of something whose checksum is wrong."""
        return CorruptJournal(f"{self.path!r}: {what} was damaged; restore a backup", path=self.path)


class RunRow(NamedTuple):
    """A row of ``mai_run`` without its number and checksum."""

    run_id: str
    target: str
    plan: str
    fingerprint: str
    input: bytes | str
    metadata: bytes
    status: Any  # a Status: what the checksum covers is what was written
    owner: str | None
    epoch: int
    claims: int
    due: float | None
    waits: str
    created: float
    updated: float
    output: bytes | str | None
    error: bytes | str | None
    cancelled: int
    records: int


class RecordRow(NamedTuple):
    """A row of ``mai_record`` without its checksum."""

    run_id: str
    path: str
    seq: int
    kind: Any  # a Kind
    input: bytes | str | None
    output: bytes | str | None
    error: bytes | str | None
    due: float | None
    attempt: int
    started: float
    ended: float
    version: str | None


class SignalRow(NamedTuple):
    """A row of ``mai_signal`` without its checksum."""

    number: int
    run_id: str
    name: str
    id: str
    data: bytes | str
    sent: float
    path: str | None


_SEQ: Final = itemgetter(2)
RUN_COLUMNS: Final = ", ".join(RunRow._fields)
RECORD_COLUMNS: Final = ", ".join(RecordRow._fields)
SIGNAL_COLUMNS: Final = ", ".join(SignalRow._fields)
_UPDATE: Final = f"UPDATE mai_run SET {' = ?, '.join(RunRow._fields)} = ?, crc = ? WHERE run_id = ?"


def run_row(book: Book, run_id: str) -> RunRow:
    """Read the row of a run.

    Raises:
        UnknownRun: If there is none.
    """
    found = book.connection.execute(f"SELECT {RUN_COLUMNS}, crc FROM mai_run WHERE run_id = ?", (run_id,)).fetchone()
    if found is None:
        raise UnknownRun(f"{book.path!r} has no run {run_id!r}", run_id=run_id)
    return checked_run(book, found)


def checked_run(book: Book, found: tuple[Any, ...]) -> RunRow:
    """Return the row of a run that was selected with its checksum."""
    if checksum(book.seed, found[:-1]) != found[-1]:
        raise book.damaged(f"the run {found[0]!r}")
    return RunRow(*found[:-1])


def save(book: Book, row: RunRow) -> RunRow:
    """Write the row of a run that is there, with the time; return it."""
    row = row._replace(updated=clock.wall())
    book.connection.execute(_UPDATE, (*row, checksum(book.seed, row), row.run_id))
    return row


def spread(book: Book, run_id: str, data: bytes | None) -> bytes | str | None:
    """Return what stands in a payload column for *data*, which is kept apart if it is large."""
    if data is None or len(data) <= blobs.LARGEST_INLINE:
        return data
    return blobs.keep(book.connection, run_id, data)


def gathered(book: Book, column: bytes | str | None) -> Any:
    """Return the payload of a column; the opposite of `spread`."""
    return blobs.load(book.connection, column, book.path) if isinstance(column, str) else column


def lease_of(book: Book, owner: str) -> tuple[float, float] | None:
    """Return when *owner* was last heard of, and for how long that counts [s]; None if it has no row.

    Raises:
        CorruptJournal: If its row was damaged.
    """
    query = "SELECT owner, leased, ttl, crc FROM mai_owner WHERE owner = ?"
    row = book.connection.execute(query, (owner,)).fetchone()
    if row is not None and checksum(book.seed, row[:3]) != row[3]:
        raise book.damaged(f"the row of the owner {owner!r}")
    return None if row is None else (row[1], row[2])


def run_info(book: Book, row: RunRow) -> RunInfo:
    """Return what the row of a run says."""
    until = None
    if row.owner is not None:
        lease, now = lease_of(book, row.owner), clock.now()
        if lease is not None:  # one of the future was written before this machine was started again
            until = clock.wall() + (sum(lease) - now if lease[0] <= now else 0.0)
    facts: Mapping[str, Any] = row._asdict() | {
        "input": gathered(book, row.input),
        "output": gathered(book, row.output),
        "error": gathered(book, row.error),
        "waits": json.loads(row.waits),
        "cancelled": bool(row.cancelled),
        "lease_until": until,
    }
    return RunInfo(**facts)


def record_row(book: Book, run_id: str, record: Record, seq: int) -> RecordRow:
    """Return the row of a record; what is large in it is kept apart."""
    return RecordRow(
        run_id,
        record.path,
        seq,
        record.kind,
        spread(book, run_id, record.input),
        spread(book, run_id, record.output),
        spread(book, run_id, record.error),
        seconds("due", record.due),
        record.attempt,
        float(record.started),
        float(record.ended),
        record.version,
    )


def checked_record(book: Book, found: tuple[Any, ...]) -> RecordRow:
    """Return the row of a record that was selected with its checksum."""
    if record_checksum(book.seed, found[:-1]) != found[-1]:
        raise book.damaged(f"the record {found[1]!r} of the run {found[0]!r}")
    return RecordRow(*found[:-1])


def record_of(book: Book, row: tuple[Any, ...]) -> Record:
    """Return the record that a row keeps."""
    _, path, seq, kind, given, output, error, due, attempt, started, ended, version, *_ = row
    if str in (type(given), type(output), type(error)):
        given, output, error = (gathered(book, column) for column in (given, output, error))
    return Record(path, kind, seq, given, output, error, due, attempt, started, ended, version)


def _record_rows(book: Book, run_id: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {RECORD_COLUMNS}, crc FROM mai_record WHERE run_id = ?"
    found, seed = book.connection.execute(query, (run_id,)).fetchall(), book.seed
    for row in found:
        if record_checksum(seed, row[:-1]) != row[-1]:
            checked_record(book, row)  # raises
    found.sort(key=_SEQ)
    if [row[2] for row in found] != list(range(1, len(found) + 1)):
        raise book.damaged(f"the list of records of the run {run_id!r}")
    return found


def record_rows(book: Book, run_id: str) -> list[RecordRow]:
    """Return the rows of all records of a run, in the order of completion.

    Raises:
        CorruptJournal: If one is missing between the others.
    """
    return [RecordRow(*row[:-1]) for row in _record_rows(book, run_id)]


def records_of(book: Book, run_id: str) -> list[Record]:
    """Return all records of a run, in the order of completion, as `record_rows` finds them."""
    return [record_of(book, row) for row in _record_rows(book, run_id)]


def signal_rows(book: Book, run_id: str) -> list[SignalRow]:
    """Return the rows of all signals of a run, in the order of arrival."""
    query = f"SELECT {SIGNAL_COLUMNS}, crc FROM mai_signal WHERE run_id = ? ORDER BY number"
    return [checked_signal(book, found) for found in book.connection.execute(query, (run_id,))]


def checked_signal(book: Book, found: tuple[Any, ...]) -> SignalRow:
    """Return the row of a signal that was selected with its checksum."""
    if checksum(book.seed, found[:-1]) != found[-1]:
        raise book.damaged(f"a signal of the run {found[1]!r}")
    return SignalRow(*found[:-1])


def signal_of(book: Book, row: SignalRow) -> Signal:
    """Return the signal that a row keeps."""
    return Signal(row.number, row.name, row.id, gathered(book, row.data), row.sent, row.path)
