"""The thread that writes: what waits is one transaction, and who waits hears of it when it is on disk.

There is no timer: while one transaction is made safe, the next batch gathers. So one run alone pays for a transaction
a record, and a hundred runs share each one.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from threading import Event
from typing import Final, cast

from ...core.clock import clock
from ...errors import ConfigError, JournalError
from .appends import Append, OwnError, append_all
from .desk import Desk, Job
from .files import Files, explained
from .leases import renew, renewal
from .session import Session

__all__ = ["Writer"]

AGAIN: Final = 1.0  # seconds after which a renewal that failed is tried again


class Writer(Desk[Session]):
    """Group commit; also keeps the leases held here alive, with or without an event loop."""

    def __init__(self, files: Files) -> None:
        super().__init__("mai-journal-writer", files.path)
        self.files = files
        self.session: Session | None = None
        self._renewed = 0.0  # when the leases held here were renewed
        self._lost = False  # the files are no longer those that were opened

    def _open(self) -> Session:
        self.session = Session(self.files.open())
        return self.session

    def _pause(self) -> float | None:
        share = None if self.session is None else renewal(self.session)
        return None if share is None else min(share, max(0.0, self._renewed + share - clock.now()))

    def _do(self, state: Session, jobs: Sequence[Job[Session]]) -> None:
        connection, idle = state.book.connection, not state.leases
        try:
            connection.execute("BEGIN IMMEDIATE")
            state.look()
            self._renew(state)
            for kind, group in groupby(jobs, type):
                if kind is Append:
                    append_all(state, cast("list[Append]", list(group)), self._one)
                else:
                    for job in group:
                        self._one(state, job)
            connection.execute("COMMIT")
            self.files.same()
        except BaseException:
            self._renewed = clock.now() - (renewal(state) or 0.0) + AGAIN
            state.forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        for then in state.after:
            then()
        state.after.clear()
        if idle:  # the claims in this batch have just renewed what there is
            self._renewed = clock.now()

    def _one(self, state: Session, job: Job[Session]) -> None:
        """Do one item; an error of its own is noted, one of the transaction is raised."""
        try:
            job.value = job.do(state)
        except OwnError as error:
            job.error = error.error
        except (UnicodeEncodeError, OverflowError) as error:
            job.error = ConfigError(f"it cannot be recorded: {error}")
        except sqlite3.DataError as error:
            job.error = explained(error, self.path)
        except sqlite3.Error:
            raise
        except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
            job.error = error
        if not state.book.connection.in_transaction:  # a full disk rolls all of it back
            raise job.error or sqlite3.OperationalError("the transaction was rolled back")

    def _renew(self, state: Session) -> None:
        """Say that the owners here live, if it is time to."""
        share, now = renewal(state), clock.now()
        if share is not None and not self._renewed <= now < self._renewed + share:
            for owner, ttl in state.ttls.items():
                renew(state, owner, ttl)
            state.after.append(lambda: setattr(self, "_renewed", now))

    def _close(self, state: Session) -> None:
        try:
            self.files.same()
        except JournalError:
            self._lost = True
            return
        with suppress(sqlite3.Error):  # else the leases end a little later
            for owner in state.ttls:
                renew(state, owner, 0.0)
        self.files.close(state.book.connection)

    def _serve(self, opening: Job[Session]) -> None:
        super()._serve(opening)
        if self._lost:  # to close the connection would delete the -wal of whatever has the name of the file now
            Event().wait()
