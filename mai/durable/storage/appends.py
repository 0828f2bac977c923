"""What is added to a run while it goes on: records, signals, and effects in tables of the user's."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ...core.clock import clock
from ...core.ids import new_id
from ...errors import MaiError
from ..records import ENDED, Lease, Record
from .blobs import LARGEST_INLINE
from .checksum import checksum, record_checksum
from .desk import Job
from .rows import (
    SIGNAL_COLUMNS,
    RecordRow,
    SignalRow,
    checked_signal,
    gathered,
    record_row,
    run_row,
    save,
    spread,
)
from .session import Place, Session
from .tables import Tables

__all__ = ["Append", "OwnError", "append_all", "signal", "take", "transact"]

_APPEND: Final = f"INSERT INTO mai_record VALUES({', '.join('?' * (len(RecordRow._fields) + 1))})"


class OwnError(Exception):
    """Carries what the user's part of a transaction raised, which is no matter of the journal's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error: Exception = error


class Append(Job[Session]):
    """A record to be written; several that wait are written by one statement."""

    __slots__ = ("lease", "record")

    def __init__(self, lease: Lease, record: Record) -> None:
        super().__init__()
        self.lease: Lease = lease
        self.record: Record = record

    def do(self, state: Session) -> int:
        """Write it by itself."""
        with state.whole():
            place = state.place(self.lease)
            return _append(state, place, record_row(state.book, self.lease.run_id, self.record, place.seq + 1))


def append_all(session: Session, jobs: Sequence[Append], alone: Callable[[Session, Append], None]) -> None:
    """Write the records of *jobs* in their order, as many as can by one statement, the others by ``alone(...)``.

    There is no savepoint around the statement: SQLite would copy each page before it is changed, of which there is one
    for each run. Where a row is refused, those before it are written, and it and the rest are taken one by one.
    """
    ready: list[Append] = []
    rows: list[tuple[Any, ...]] = []
    for job in jobs:
        row = _plain(session, job)
        if row is None:
            _together(session, ready, rows, alone)
            ready, rows = [], []
            alone(session, job)
        else:
            ready.append(job)
            rows.append(row)
    _together(session, ready, rows, alone)


def _plain(session: Session, job: Append) -> tuple[Any, ...] | None:
    """Return the values of a record about which there is nothing special, and count it; else None."""
    record = job.record
    for payload in (record.input, record.output, record.error):
        if payload is not None and len(payload) > LARGEST_INLINE:
            return None
    try:
        place = session.place(job.lease)
        row = record_row(session.book, job.lease.run_id, record, place.seq + 1)
        values = (*row, record_checksum(session.book.seed, row))
    except (MaiError, UnicodeEncodeError):
        return None
    place.seq = job.value = row.seq
    return values


def _together(
    session: Session, jobs: list[Append], rows: list[tuple[Any, ...]], alone: Callable[[Session, Append], None]
) -> None:
    connection = session.book.connection
    before = connection.total_changes
    try:
        connection.executemany(_APPEND, rows)
    except (sqlite3.IntegrityError, sqlite3.DataError, UnicodeEncodeError, OverflowError):
        session.places.clear()
        for job in jobs[connection.total_changes - before :]:
            alone(session, job)


def _append(session: Session, place: Place, row: RecordRow) -> int:
    """Write a row."""
    book = session.book
    try:
        book.connection.execute(_APPEND, (*row, record_checksum(book.seed, row)))
    except sqlite3.IntegrityError:
        raise session.recorded(row.run_id, row.path) or session.fenced(place.lease) from None
    place.seq = row.seq
    return row.seq


def take(session: Session, lease: Lease, path: str, name: str, started: float) -> bytes | None:
    """Consume the oldest signal *name* and record it."""
    book = session.book
    place = session.place(lease)
    query = f"SELECT {SIGNAL_COLUMNS}, crc FROM mai_signal WHERE run_id = ? AND name = ? AND path IS NULL"
    first = session.recorded(lease.run_id, path)
    if first is not None:
        raise first
    found = book.connection.execute(f"{query} ORDER BY number LIMIT 1", (lease.run_id, name)).fetchone()
    if found is None:
        return None
    sent = checked_signal(book, found)
    record = Record(path, "wait", started=started, ended=clock.wall())
    _append(session, place, record_row(book, lease.run_id, record, place.seq + 1)._replace(output=sent.data))
    taken = sent._replace(path=path)
    update = "UPDATE mai_signal SET path = ?, crc = ? WHERE number = ?"
    book.connection.execute(update, (path, checksum(book.seed, taken), taken.number))
    data: bytes = gathered(book, sent.data)
    return data


def transact(session: Session, lease: Lease, record: Record, work: Callable[[Any], bytes | None]) -> Record:
    """Write what *work* writes, and a record of it."""
    place = session.place(lease)
    first = session.recorded(lease.run_id, record.path)
    if first is not None:
        found: Record = first.record
        return found
    tables = Tables(session.book.connection)
    try:
        with tables.guarded():
            output = work(tables)
    except Exception as error:
        raise OwnError(error) from error
    record = replace(record, output=output, ended=clock.wall())
    return replace(record, seq=_append(session, place, record_row(session.book, lease.run_id, record, place.seq + 1)))


def signal(session: Session, run_id: str, name: str, data: bytes, id: str | None) -> bool:  # noqa: A002
    """Store a signal, and let a run that waits for it go on."""
    book = session.book
    row = run_row(book, run_id)
    if row.status in ENDED:
        return False
    id = new_id() if id is None else id  # noqa: A001
    if book.connection.execute("SELECT 1 FROM mai_signal WHERE run_id = ? AND id = ?", (run_id, id)).fetchone():
        return True
    number = book.connection.execute("SELECT ifnull(max(number), 0) + 1 FROM mai_signal").fetchone()[0]
    sent = SignalRow(number, run_id, name, id, spread(book, run_id, data) or b"", clock.wall(), path=None)
    marks = ", ".join("?" * (len(sent) + 1))
    book.connection.execute(f"INSERT INTO mai_signal VALUES({marks})", (*sent, checksum(book.seed, sent)))
    if row.status == "waiting" and name in json.loads(row.waits).values():
        save(book, row._replace(due=clock.wall()))
    session.tell(run_id, "signal")
    return True
