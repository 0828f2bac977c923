"""Leases: who carries on which run, and who is alive.

An owner is alive as long as its row was renewed less than its ``ttl`` ago, by the monotonic clock, which all processes
of one machine share; a step of the wall clock changes nothing. After a reboot that clock begins anew, so a row from
before lies in the future, and its owner is taken for dead. One row is renewed for all runs of an owner.
"""

from .checksum import checksum
from .rows import Book, lease_of
from .session import Session

__all__ = ["alive", "renew", "renewal"]

SHARE = 3  # a lease is renewed so often in its ttl


def renew(session: Session, owner: str, ttl: float) -> None:
    """Write that *owner* lives."""
    row = (owner, session.now(), ttl)
    execute = session.book.connection.execute
    execute("REPLACE INTO mai_owner VALUES(?, ?, ?, ?)", (*row, checksum(session.book.seed, row)))


def alive(book: Book, owner: str, now: float) -> bool:
    """Whether *owner* was heard of in time.

    Raises:
        CorruptJournal: If its row was damaged.
    """
    lease = lease_of(book, owner)
    return lease is not None and lease[0] <= now < sum(lease)


def renewal(session: Session) -> float | None:
    """Return after how many seconds the leases held here are to be renewed, None if there are none."""
    return min(session.ttls.values()) / SHARE if session.ttls else None
