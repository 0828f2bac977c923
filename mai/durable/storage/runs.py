"""What changes a run as a whole: making, claiming, giving back, ending, cancelling, forking and deleting it.

Each function here works inside the transaction that goes on, and is called under a savepoint.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from ...core.clock import clock
from ...errors import RunExists, UnknownRun
from ..records import ENDED, Lease, RunInfo, Status
from ..rules import later, seconds, taken_over
from . import blobs
from .checksum import checksum, record_checksum
from .leases import alive, renew
from .rows import (
    RUN_COLUMNS,
    Book,
    RecordRow,
    RunRow,
    gathered,
    record_rows,
    run_info,
    run_row,
    save,
    spread,
)
from .session import Place, Session

__all__ = ["cancel", "claim", "create", "finish", "fork", "prune", "release", "resume"]

PRUNED_AT_ONCE: Final = 100
FREED_AT_ONCE: Final = 5_000  # pages
_INSERT: Final = f"INSERT INTO mai_run({RUN_COLUMNS}, crc) VALUES({', '.join('?' * (len(RunRow._fields) + 1))})"


def find(book: Book, run_id: str) -> RunRow | None:
    """Return the row of a run, None if there is none."""
    try:
        return run_row(book, run_id)
    except UnknownRun:
        return None


def _insert(session: Session, row: RunRow) -> None:
    session.book.connection.execute(_INSERT, (*row, checksum(session.book.seed, row)))
    session.tell(row.run_id, "created")


def create(
    session: Session,
    run_id: str,
    target: str,
    plan: bytes | None,
    fingerprint: str,
    given: bytes,
    metadata: bytes,
    due: float | None,
    owner: str | None,
    ttl: float,
) -> tuple[RunInfo, bool]:
    """Make a run, or attach to it."""
    book = session.book
    found = find(book, run_id)
    if found is not None:
        other = "target" if found.target != target else "input" if gathered(book, found.input) != given else ""
        if other:
            facts = f"the run {run_id!r} of {found.target!r} was started with another {other}"
            raise RunExists(f"{facts}; choose another run_id", run_id=run_id)
        return run_info(book, found), False
    now = clock.wall()
    row = RunRow(
        run_id,
        target,
        "" if plan is None else blobs.keep(book.connection, run_id, plan),
        fingerprint,
        spread(book, run_id, given) or b"",
        metadata,
        "pending",
        owner=None,
        epoch=0,
        claims=0,
        due=seconds("due", due) or now,
        waits="{}",
        created=now,
        updated=now,
        output=None,
        error=None,
        cancelled=0,
        records=0,
    )
    _insert(session, row)
    if owner is not None:
        row = _claimed(session, row, owner, ttl)
    return run_info(book, row), True


def claim(session: Session, run_id: str, owner: str, ttl: float) -> tuple[Lease, RunInfo] | None:
    """Take the lease of a run, unless another owner lives."""
    row = run_row(session.book, run_id)
    if row.status in ENDED or row.status == "needs_attention":
        return None
    taken = row.owner is not None and row.owner != owner
    if taken and alive(session.book, str(row.owner), session.now()):
        return None
    new = _claimed(session, row, owner, ttl)
    if taken:  # the last run of an owner that is gone takes its row along
        gone = "DELETE FROM mai_owner WHERE owner = ?1 AND NOT EXISTS(SELECT 1 FROM mai_run WHERE owner = ?1)"
        session.book.connection.execute(gone, (row.owner,))
    return Lease(run_id, owner, new.epoch), run_info(session.book, new)


def _claimed(session: Session, row: RunRow, owner: str, ttl: float) -> RunRow:
    renew(session, owner, ttl)
    lease, last = Lease(row.run_id, owner, row.epoch + 1), session.last(row.run_id)
    session.places[row.run_id] = Place(lease, last, session.version)
    session.after.append(partial(session.hold, lease, ttl))
    claims = row.claims + 1 if last == row.records else 1
    return save(
        session.book,
        row._replace(
            status="running", owner=owner, epoch=lease.epoch, claims=claims, due=None, waits="{}", records=last
        ),
    )


def _own(session: Session, lease: Lease) -> RunRow:
    """Return the row of the run that *lease* is for, with the number of its records.

    Raises:
        Fenced: If it is no longer.
    """
    session.check(lease)
    row = run_row(session.book, lease.run_id)._replace(records=session.place(lease).seq)
    session.places.pop(lease.run_id)
    session.after.append(partial(session.drop, lease.run_id))
    return row


def release(session: Session, lease: Lease, status: Status, due: float | None, waits: Mapping[str, str] | None) -> None:
    """Give the lease back; what came since the run last looked lets it go on at once."""
    row = _own(session, lease)
    names = sorted(set((waits or {}).values()))
    query = f"SELECT 1 FROM mai_signal WHERE run_id = ? AND path IS NULL AND name IN ({', '.join('?' * len(names))})"
    here = session.book.connection.execute(query, (lease.run_id, *names)).fetchone() is not None
    if here or row.cancelled:
        due = clock.wall()
    if status == "needs_attention":  # it goes on when somebody says so
        due = None
    claims = row.claims if status == "needs_attention" else 0  # only those are counted that came to nothing
    waiting = json.dumps(dict(waits or {}))
    save(session.book, row._replace(status=status, owner=None, claims=claims, due=seconds("due", due), waits=waiting))


def finish(session: Session, lease: Lease, status: Status, output: bytes | None, error: bytes | None) -> None:
    """End the run."""
    row = _own(session, lease)
    value, failure = spread(session.book, lease.run_id, output), spread(session.book, lease.run_id, error)
    save(session.book, row._replace(status=status, owner=None, due=None, output=value, error=failure))
    session.tell(lease.run_id, "ended")


def cancel(session: Session, run_id: str) -> bool:
    """Ask for the end of the run; one that waits goes on at once, to end."""
    row = run_row(session.book, run_id)
    if row.status in ENDED:
        return False
    if not row.cancelled:
        due = clock.wall() if row.owner is None else None
        status = "waiting" if row.status == "needs_attention" else row.status
        save(session.book, row._replace(cancelled=1, due=due, status=status))
        session.tell(run_id, "cancel")
    return True


def resume(session: Session, run_id: str) -> bool:
    """Let a run that stands still go on now."""
    row = run_row(session.book, run_id)
    if row.owner is not None or row.status in ENDED:
        return False
    status = "waiting" if row.status == "needs_attention" else row.status
    save(session.book, row._replace(status=status, due=clock.wall(), claims=0))
    return True


def fork(session: Session, run_id: str, new_id: str, at: str | None, override: Mapping[str, bytes]) -> RunInfo:
    """Make a new run with the first records of another."""
    book, now = session.book, clock.wall()
    row = run_row(book, run_id)
    if find(book, new_id) is not None:
        raise RunExists(f"there is a run {new_id!r} already; choose another run_id", run_id=new_id)
    rows = taken_over(run_id, record_rows(book, run_id), at, override)
    cut = row.updated if row.status in ENDED else now
    if at is not None:
        cut = rows[-1].ended if rows else now
    for seq, record in enumerate(rows, 1):
        due = None if record.due is None else record.due + max(0.0, now - cut)
        _copy(session, new_id, record._replace(due=due, seq=seq), override.get(record.path))
    metadata = later(row.metadata, max(0.0, now - cut))
    new = row._replace(
        run_id=new_id, metadata=metadata, status="pending", owner=None, epoch=0, claims=0, due=now, waits="{}",
        created=now, updated=now, output=None, error=None, cancelled=0, records=len(rows),
    )  # fmt: skip
    blobs.share(book.connection, new_id, row.plan or None)
    blobs.share(book.connection, new_id, row.input if isinstance(row.input, str) else None)
    _insert(session, new)
    return run_info(book, new)


def _copy(session: Session, new_id: str, row: RecordRow, output: bytes | None) -> None:
    book = session.book
    if output is not None:
        row = row._replace(output=spread(book, new_id, output), error=None)
    for column in (row.input, row.output, row.error):
        blobs.share(book.connection, new_id, column)
    row = row._replace(run_id=new_id)
    marks = ", ".join("?" * (len(row) + 1))
    book.connection.execute(f"INSERT INTO mai_record VALUES({marks})", (*row, record_checksum(book.seed, row)))


def prune(session: Session, before: float, statuses: Sequence[Status]) -> int:
    """Delete at most a hundred of the runs that ended before."""
    connection = session.book.connection
    marks = ", ".join("?" * len(statuses))
    query = f"SELECT run_id FROM mai_run WHERE status IN ({marks}) AND updated < ? ORDER BY number LIMIT ?"
    run_ids = [run_id for (run_id,) in connection.execute(query, (*statuses, before, PRUNED_AT_ONCE))]
    for run_id in run_ids:
        for table in ("mai_record", "mai_signal", "mai_run"):
            connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
        blobs.drop_uses(connection, run_id)
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(min(free, FREED_AT_ONCE)):
        connection.execute("PRAGMA incremental_vacuum(1)")  # without a number, sqlite3 would stop after the first page
    return len(run_ids)
