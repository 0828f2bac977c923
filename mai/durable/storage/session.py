"""What the thread that writes works with: its connection, the leases held here, and the place in each run's records."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...core.clock import clock
from ...errors import AlreadyRecorded, Fenced
from ..records import Lease, What
from .rows import RECORD_COLUMNS, Book, checked_record, record_of, run_row

__all__ = ["Place", "Session"]

MOST_EVENTS = 10_000


@dataclass(slots=True)
class Place:
    """Where the records of a run end, under one lease."""

    lease: Lease
    seq: int  # of the last one
    version: int  # of the data, when the lease was last seen to hold


@dataclass(slots=True)
class Session:
    """The connection that writes, and what is remembered between its transactions."""

    book: Book
    leases: dict[str, Lease] = field(default_factory=dict[str, Lease])
    ttls: dict[str, float] = field(default_factory=dict[str, float])  # of their owners
    held: Counter[str] = field(default_factory=Counter[str])  # how many leases each owner has
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    version: int = -1  # of the data: another one if another process has written anything
    after: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])  # once this transaction stands

    def place(self, lease: Lease) -> Place:
        """Return where the next record goes.

        Raises:
            Fenced: If the lease is no longer the newest.
        """
        place = self.places.get(lease.run_id)
        if place is not None and place.version == self.version and (place.lease is lease or place.lease == lease):
            return place
        self.check(lease)
        place = self.places[lease.run_id] = Place(lease, self.last(lease.run_id), self.version)
        return place

    def last(self, run_id: str) -> int:
        """Return the place of the last record of a run, 0 if there is none."""
        query = "SELECT ifnull(max(seq), 0) FROM mai_record WHERE run_id = ?"
        seq: int = self.book.connection.execute(query, (run_id,)).fetchone()[0]
        return seq

    def check(self, lease: Lease) -> None:
        """See that *lease* holds.

        Raises:
            Fenced: If not.
        """
        query = "SELECT owner, epoch, status FROM mai_run WHERE run_id = ?"
        found = self.book.connection.execute(query, (lease.run_id,)).fetchone()
        if found != (lease.owner, lease.epoch, "running"):
            raise self.fenced(lease)

    def look(self) -> None:
        """See, at the beginning of a transaction, whether another process has written since the last one."""
        self.version = self.book.connection.execute("PRAGMA data_version").fetchone()[0]

    def fenced(self, lease: Lease) -> Fenced:
        """Return the error of a write under *lease*, saying who holds the run now."""
        row = run_row(self.book, lease.run_id)
        state = f"{row.owner!r} holds it with epoch {row.epoch}" if row.owner else f"it is {row.status}"
        facts = f"the lease of {lease.owner!r} with epoch {lease.epoch} on the run {lease.run_id!r} is over: {state}"
        return Fenced(facts, run_id=lease.run_id)

    def recorded(self, run_id: str, path: str) -> AlreadyRecorded | None:
        """Return the error of a second record at *path*, None if there is no first."""
        query = f"SELECT {RECORD_COLUMNS}, crc FROM mai_record WHERE run_id = ? AND path = ?"
        found = self.book.connection.execute(query, (run_id, path)).fetchone()
        if found is None:
            return None
        error = AlreadyRecorded(f"the run {run_id!r} has a record at {path!r}, which stands", run_id=run_id)
        error.record = record_of(self.book, checked_record(self.book, found))
        return error

    @contextmanager
    def whole(self) -> Generator[None]:
        """Let what is written in the block be written as a whole or not at all."""
        run = self.book.connection.execute
        run("SAVEPOINT item")
        before = len(self.after)
        try:
            yield
        except BaseException:
            self.places.clear()  # a place in it may count what is not there
            del self.after[before:]
            if self.book.connection.in_transaction:  # else SQLite has rolled back all of it
                run("ROLLBACK TO item")
                run("RELEASE item")
            raise
        run("RELEASE item")

    def forget(self) -> None:
        """Forget what the transaction would have changed: it was rolled back."""
        self.places.clear()
        self.after.clear()

    def tell(self, run_id: str, what: What) -> None:
        """Let all processes know."""
        run = self.book.connection.execute
        number = run("INSERT INTO mai_event(run_id, what) VALUES(?, ?)", (run_id, what)).lastrowid or 0
        if number % 256 == 0:
            run("DELETE FROM mai_event WHERE number <= ?", (number - MOST_EVENTS,))

    def hold(self, lease: Lease, ttl: float) -> None:
        """Remember a lease, and keep it alive from now on."""
        self.drop(lease.run_id)
        self.leases[lease.run_id] = lease
        self.held[lease.owner] += 1
        self.ttls[lease.owner] = ttl

    def drop(self, run_id: str) -> None:
        """Forget the lease of a run."""
        lease = self.leases.pop(run_id, None)
        if lease is not None:
            self.held[lease.owner] -= 1
            if not self.held[lease.owner]:
                del self.held[lease.owner], self.ttls[lease.owner]

    def now(self) -> float:
        """Return the time that leases are counted in: monotonic, and the same in all processes of this machine."""
        return clock.now()
