"""The thread that reads, and that sees what other processes have written."""

import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Final

from ...core.clock import clock
from ..records import ENDED, What
from . import reads
from .desk import Desk, Job
from .files import Files, explained
from .rows import Book
from .writer import Writer

__all__ = ["Reader", "Watcher"]

POLL: Final = 0.1  # seconds between two looks at what has changed
AGAIN: Final = 1.0  # seconds after which a run that is still to be claimed is told again
MOST: Final = 100  # runs told at once


class Watcher:
    """Somebody who is told what happens, from now on.

    Args:
        callback: Called with a run and what happened to it.
        targets: The targets whose runs are to be told as due or orphaned; None for all.
    """

    def __init__(self, callback: Callable[[str, What], object], targets: Collection[str] | None) -> None:
        self.callback = callback
        self.targets = targets
        self.told: dict[str, float] = {}

    def tell(self, run_id: str, what: What) -> None:
        """Call the callback; its failure is logged, and is nobody else's."""
        try:
            self.callback(run_id, what)
        except Exception:  # a watcher's failure is told, and is nobody else's
            logging.getLogger("mai").exception("watcher %r failed on %s of the run %r", self.callback, what, run_id)

    def claimable(self, run_ids: Sequence[str], what: What, now: float) -> None:
        """Tell of runs that are to be claimed, of each once in a while."""
        for run_id in run_ids:
            if not self.told.get(run_id, -AGAIN) + AGAIN > now:
                self.told[run_id] = now
                self.tell(run_id, what)

    def forget(self, now: float) -> None:
        """Forget what was told long ago."""
        self.told = {run_id: told for run_id, told in self.told.items() if told <= now < told + AGAIN}


class Reader(Desk[Book]):
    """Answers questions; while somebody watches, it also looks ten times a second at what has changed."""

    def __init__(self, files: Files, writer: Writer) -> None:
        super().__init__("mai-journal-reader", files.path)
        self.files = files
        self.writer = writer
        self.watchers: dict[object, Watcher] = {}
        self._event = 0  # the newest that was told
        self._version = -1  # of the data, when events were looked for
        self._polled = 0.0
        self._said = ""

    def _open(self) -> Book:
        connection = self.files.connect()
        connection.execute("PRAGMA query_only = ON")
        self._event = connection.execute("SELECT ifnull(max(number), 0) FROM mai_event").fetchone()[0]
        return Book(connection, self.path, self.files.seed)

    def _pause(self) -> float | None:
        return POLL if self.watchers else None

    def _do(self, state: Book, jobs: Sequence[Job[Book]]) -> None:
        for job in jobs:
            state.connection.execute("BEGIN")
            try:
                job.value = job.do(state)
            except sqlite3.Error as error:
                job.error = explained(error, self.path)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
                job.error = error
            state.connection.execute("ROLLBACK")

    def _watch(self, state: Book) -> None:
        now = clock.now()
        if not self.watchers or self._polled <= now < self._polled + POLL:
            return
        self._polled = now
        try:
            self._tell_events(state)
            for watcher in list(self.watchers.values()):
                watcher.forget(now)
                watcher.claimable(reads.due(state, clock.wall(), MOST, watcher.targets), "due", now)
                watcher.claimable(self.orphans(state, MOST, watcher.targets), "orphaned", now)
            self._said = ""
        except sqlite3.Error as error:
            if str(error) != self._said:
                self._said = str(error)
                logging.getLogger("mai").warning("%s", explained(error, self.path))

    def orphans(self, book: Book, limit: int, targets: Collection[str] | None) -> list[str]:
        """Return the runs of owners that are gone; those held here are not orphaned, however late their lease is."""
        held = {} if self.writer.session is None else self.writer.session.leases
        return [run_id for run_id in reads.orphans(book, limit, targets) if run_id not in held]

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell *watcher* what happens from now on; returns how to end that."""
        key = object()
        self.watchers[key] = watcher
        self.wake()

        def end() -> None:
            self.watchers.pop(key, None)

        return end

    def _tell_events(self, state: Book) -> None:
        """Tell what was written since the last look."""
        version = state.connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        query = "SELECT number, run_id, what FROM mai_event WHERE number > ? ORDER BY number"
        events = state.connection.execute(query, (self._event,)).fetchall()
        self._version = version
        if events and events[0][0] > self._event + 1:  # so long ago that some are deleted
            events = [(events[-1][0], *state_) for state_ in self._states(state)]
        for number, run_id, what in events:
            self._event = number
            for watcher in list(self.watchers.values()):
                watcher.tell(run_id, what)

    def _states(self, state: Book) -> list[tuple[str, What]]:
        """Return, in the place of events, what each run may have missed."""
        rows = state.connection.execute("SELECT run_id, status, cancelled FROM mai_run").fetchall()
        ended: list[tuple[str, What]] = [(run_id, "ended") for run_id, status, _ in rows if status in ENDED]
        going = [(run_id, cancelled) for run_id, status, cancelled in rows if status not in ENDED]
        signals: list[tuple[str, What]] = [(run_id, "signal") for run_id, _ in going]
        return ended + signals + [(run_id, "cancel") for run_id, cancelled in going if cancelled]

    def _close(self, state: Book) -> None:
        state.connection.close()
