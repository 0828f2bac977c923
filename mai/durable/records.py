"""What a journal keeps, and what it can be asked: plain values, and the protocol that engines are written against.

A *run* is one execution of a module by name; its *records* are what need not be done again: each has a lexical path,
and no path has two. Whoever carries a run on holds its *lease*. Payloads are the bytes of canonical JSON; a journal
never looks inside. All times are wall-clock seconds since the epoch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

__all__ = ["ENDED", "PRUNABLE", "Journal", "Kind", "Lease", "Record", "RunInfo", "Signal", "Status", "What"]

Kind = Literal["step", "timer", "value", "wait", "flow", "undo"]
Status = Literal["pending", "running", "waiting", "ok", "error", "cancelled", "timeout", "needs_attention"]
What = Literal["created", "signal", "cancel", "ended", "due", "orphaned"]

ENDED: Final[frozenset[Status]] = frozenset({"ok", "error", "cancelled", "timeout"})
PRUNABLE: Final[frozenset[Status]] = frozenset({*ENDED, "needs_attention"})


@dataclass(frozen=True, slots=True)
class Record:
    """Something that a run need not do again.

    Attributes:
        path: Lexical path; no two records of a run have the same.
        kind: What was done there.
        seq: Place in the order of completion, from 1 without gaps; given by the journal.
        input: What went in, None if nothing.
        output: What came out, None if nothing.
        error: The failure as data, None if there was none.
        due: When a timer is over, or a wait gives up [s]; None where nothing is.
        attempt: The attempt that gave this, from 1.
        started: When it began [s].
        ended: When it ended [s].
        version: The ``version`` that the module declared.
    """

    path: str
    kind: Kind
    seq: int = 0
    input: bytes | None = None
    output: bytes | None = None
    error: bytes | None = None
    due: float | None = None
    attempt: int = 1
    started: float = 0.0
    ended: float = 0.0
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a journal knows of a run beside its records.

    Attributes:
        run_id: Its name, chosen by whoever started it.
        target: Name of the module, by which a worker finds the code.
        plan: Content address of the plan's JSON, for `Journal.blob`; ``""`` where there is none.
        fingerprint: Of the plan that the run was started with.
        input: The input.
        metadata: A JSON object.
        status: ``pending`` was never claimed, ``running`` has a lease, ``waiting`` was given back.
        owner: Who holds the lease, None if nobody.
        epoch: How often it was claimed in all; a lease with an older epoch is fenced.
        lease_until: When the lease ends if it is not renewed, as far as is known now [s]; None without one.
        claims: How often it was claimed, the last time included, with no new record in between and without waiting.
        due: When it is to begin or to go on [s]; None while it waits only for signals.
        waits: The signals that a waiting run waits for, by path.
        created: When it was made [s].
        updated: When this last changed [s].
        output: The value, of a run that ended ``ok``.
        error: The failure as data.
        cancelled: Whether somebody asked for its end.
        records: At least so many records there were when this was last written.
    """

    run_id: str
    target: str
    plan: str
    fingerprint: str
    input: bytes
    metadata: bytes = b"{}"
    status: Status = "pending"
    owner: str | None = None
    epoch: int = 0
    lease_until: float | None = None
    claims: int = 0
    due: float | None = None
    waits: Mapping[str, str] = field(default_factory=dict[str, str])
    created: float = 0.0
    updated: float = 0.0
    output: bytes | None = None
    error: bytes | None = None
    cancelled: bool = False
    records: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to carry on a run, as long as no other has a higher epoch."""

    run_id: str
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that was sent to a run.

    Attributes:
        number: Place in the order of arrival, in the whole journal.
        name: What a wait asks for.
        id: By which a second sending of the same signal is known.
        data: The value.
        sent: When it was stored [s].
        path: The wait that took it, None while none has.
    """

    number: int
    name: str
    id: str
    data: bytes
    sent: float
    path: str | None = None


class Journal(Protocol):
    """Storage of runs. Every method may be awaited from any event loop; what it wrote is safe when it returns.

    All raise JournalError where the storage fails (CorruptJournal where it was damaged), and, where they are given the
    id of a run that is not there, UnknownRun. A write that was cancelled while it was awaited may have been made.

    Size: one method for each thing that an engine asks of its storage.
    """

    async def create(
        self,
        run_id: str,
        *,
        target: str,
        plan: bytes | None,
        fingerprint: str,
        input: bytes,  # noqa: A002 (what it is called everywhere)
        metadata: bytes = b"{}",
        due: float | None = None,
        owner: str | None = None,
        ttl: float = 30.0,
    ) -> tuple[RunInfo, bool]:
        """Make a run, or attach to the one that has this id; True: it was made now.

        With *owner* a run that is made now is claimed in the same transaction: its lease is
        ``Lease(run_id, owner, info.epoch)``. A run that is to begin later has *due* [s].

        Raises:
            RunExists: If the run that has this id has another target or another input.
        """
        ...

    async def claim(self, run_id: str, owner: str, ttl: float = 30.0) -> tuple[Lease, RunInfo, list[Record]] | None:
        """Take the lease, for ``ttl`` seconds at a time; it is renewed without the event loop until it is given back.

        None: another owner that lives has it, or the run has ended or needs attention. The same owner may claim again,
        which fences its former lease.
        """
        ...

    async def append(self, lease: Lease, record: Record) -> int:
        """Write a record, and return its place in the order of completion.

        Raises:
            Fenced: If the lease is no longer the newest, or was given back.
            AlreadyRecorded: If the path has a record; the error carries it.
        """
        ...

    async def take(self, lease: Lease, path: str, name: str, started: float) -> bytes | None:
        """Consume the oldest signal *name* and record it at *path*, as a ``wait``, in one; None: there is none.

        Raises:
            Fenced: If the lease is no longer the newest, or was given back.
            AlreadyRecorded: If the path has a record; the error carries it.
        """
        ...

    async def transact(self, lease: Lease, record: Record, work: Callable[[Any], bytes | None]) -> Record:
        """Append *record* with what ``work(connection)`` gives as its output, both in one transaction.

        What *work* writes into other tables of the same database so happens exactly once. It runs in the thread that
        writes, so everybody waits for it. If the path has a record already, that is returned and nothing is run.

        Raises:
            Fenced: If the lease is no longer the newest, or was given back.
        """
        ...

    async def release(
        self,
        lease: Lease,
        *,
        status: Status = "waiting",
        due: float | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> None:
        """Give the lease back: the run goes on at *due* [s], or when one of the signals in *waits* (by path) is there.

        With ``status="needs_attention"`` it goes on when `resume` is called.

        Raises:
            Fenced: If the lease is no longer the newest, or was given back.
        """
        ...

    async def finish(
        self, lease: Lease, status: Status, *, output: bytes | None = None, error: bytes | None = None
    ) -> None:
        """End the run and give the lease back.

        Raises:
            Fenced: If the lease is no longer the newest, or was given back.
        """
        ...

    async def signal(self, run_id: str, name: str, data: bytes, *, id: str | None = None) -> bool:  # noqa: A002
        """Store a signal, whoever waits for it or not; False: the run has ended. The same *id* is stored once."""
        ...

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of the run; False: it has ended already."""
        ...

    async def resume(self, run_id: str) -> bool:
        """Let a run that stands still go on now, with a fresh count of claims; False: somebody has it, or it ended."""
        ...

    async def fork(
        self, run_id: str, new_id: str, *, at: str | None = None, override: Mapping[str, bytes] | None = None
    ) -> RunInfo:
        """Make a new run with the records of another that were complete before the one at path *at* (None: all).

        Its time goes on from there: what was due then in so many seconds is so now, as is the ``deadline`` in its
        metadata [s].

        Args:
            run_id: The run to start from, ended or not.
            new_id: The id of the new run, which is pending.
            at: Path of the first record that is not taken over.
            override: Outputs to put in the place of recorded ones, by path.

        Raises:
            RunExists: If there is a run *new_id*.
            ConfigError: If *at* or a path in *override* has no record (that is taken over).
        """
        ...

    async def run(self, run_id: str) -> RunInfo | None:
        """Return what is known of a run, None if there is none."""
        ...

    async def runs(self, status: Status | None = None, *, limit: int = 100, after: str | None = None) -> list[RunInfo]:
        """Return runs, newest first; *after* is the last one of the page before, which must be there."""
        ...

    async def history(self, run_id: str) -> list[Record]:
        """Return the records in the order of completion."""
        ...

    async def signals(self, run_id: str) -> list[Signal]:
        """Return the signals in the order of arrival, with those that a wait has taken."""
        ...

    async def blob(self, address: str) -> bytes:
        """Return what has this content address, such as a plan."""
        ...

    async def due(self, now: float, limit: int = 100, *, targets: Collection[str] | None = None) -> Sequence[str]:
        """Return runs to be claimed: their time has come, a signal or a cancel is there, or their owner is gone.

        With *targets*, only runs of these.
        """
        ...

    def watch(
        self, callback: Callable[[str, What], object], *, targets: Collection[str] | None = None
    ) -> Callable[[], None]:
        """Call ``callback(run_id, what)`` in a thread of the journal when something happens; returns how to end that.

        ``signal``, ``cancel``, ``created`` and ``ended`` tell what was written, by any process; ``due`` and
        ``orphaned`` what is to be claimed, again and again until it is. It may tell too much, never too little.
        With *targets*, only runs of these are told as ``due`` or ``orphaned``.
        """
        ...

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return all that is known of a run as JSON data."""
        ...

    async def prune(self, before: float, statuses: Sequence[Status] = ("ok", "cancelled")) -> int:
        """Delete the runs that ended with one of *statuses* before that time [s]; return how many."""
        ...

    async def open(self) -> object:
        """Open the files; what is open already stays so."""
        ...

    async def close(self) -> None:
        """Write what waits, give back what is held, and close the files."""
        ...
