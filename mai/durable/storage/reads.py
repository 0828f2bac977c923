"""What can be asked of a journal; each function reads one state of it, and verifies what it reads."""

from collections.abc import Collection
from typing import Any

from ...core.clock import clock
from ...errors import UnknownRun
from ..records import Record, RunInfo, Signal, Status
from ..rules import exported
from . import blobs
from .rows import RUN_COLUMNS, Book, checked_run, records_of, run_info, run_row, signal_of, signal_rows

__all__ = ["blob", "due", "export", "history", "orphans", "run", "runs", "signals"]


def run(book: Book, run_id: str) -> RunInfo | None:
    """Return what is known of a run, None if there is none."""
    try:
        return run_info(book, run_row(book, run_id))
    except UnknownRun:
        return None


def runs(book: Book, status: Status | None, limit: int, after: str | None) -> list[RunInfo]:
    """Return runs, newest first."""
    last = None
    if after is not None:
        run_row(book, after)
        last = book.connection.execute("SELECT number FROM mai_run WHERE run_id = ?", (after,)).fetchone()[0]
    wanted = "(?1 IS NULL OR number < ?1)" + ("" if status is None else " AND status = ?3")
    query = f"SELECT {RUN_COLUMNS}, crc FROM mai_run WHERE {wanted} ORDER BY number DESC LIMIT ?2"
    found = book.connection.execute(query, (last, limit) if status is None else (last, limit, status)).fetchall()
    return [run_info(book, checked_run(book, row)) for row in found]


def history(book: Book, run_id: str) -> list[Record]:
    """Return the records in the order of completion."""
    row, found = run_row(book, run_id), records_of(book, run_id)
    if len(found) < row.records:
        raise book.damaged(
            f"the list of records of the run {run_id!r}, {row.records - len(found)} of which are missing,"
        )
    return found


def signals(book: Book, run_id: str) -> list[Signal]:
    """Return the signals in the order of arrival."""
    run_row(book, run_id)
    return [signal_of(book, row) for row in signal_rows(book, run_id)]


def blob(book: Book, address: str) -> bytes:
    """Return what has this content address."""
    return blobs.load(book.connection, address, book.path)


def _of(targets: Collection[str] | None) -> str:
    return "" if targets is None else f" AND r.target IN ({', '.join('?' * len(targets))})"


def due(book: Book, now: float, limit: int, targets: Collection[str] | None) -> list[str]:
    """Return the runs that are to begin or to go on at *now* [s], those that wait longest first."""
    query = f"SELECT run_id FROM mai_run r WHERE r.due IS NOT NULL AND r.due <= ?{_of(targets)} ORDER BY r.due LIMIT ?"
    return [run_id for (run_id,) in book.connection.execute(query, (now, *(targets or ()), limit))]


def orphans(book: Book, limit: int, targets: Collection[str] | None) -> list[str]:
    """Return the runs whose owner is gone."""
    now = clock.now()
    query = (
        "SELECT r.run_id FROM mai_owner o JOIN mai_run r ON r.owner = o.owner"
        f" WHERE NOT (o.leased <= ? AND ? < o.leased + o.ttl){_of(targets)} LIMIT ?"
    )
    return [run_id for (run_id,) in book.connection.execute(query, (now, now, *(targets or ()), limit))]


def export(book: Book, run_id: str) -> dict[str, Any]:
    """Return all that is known of a run as JSON data."""
    info = run_info(book, run_row(book, run_id))
    plan = blob(book, info.plan) if info.plan else None
    return exported(info, plan, history(book, run_id), signals(book, run_id))
