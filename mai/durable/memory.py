"""A journal in memory, for tests: it behaves like the one in a file, as long as the process lives."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mai.core.clock import clock
from mai.core.ids import new_id
from mai.durable.records import ENDED, PRUNABLE, Lease, Record, RunInfo, Signal, Status, What
from mai.durable.rules import chosen, exported, later, lease_time, seconds, taken_over
from mai.durable.storage.blobs import address_of
from mai.durable.storage.tables import Tables
from mai.errors import AlreadyRecorded, ConfigError, CorruptJournal, Fenced, RunExists, UnknownRun

__all__ = ["MemoryJournal"]

_Watcher = tuple[Callable[[str, What], object], Collection[str] | None]
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1  # of the numbers that SQLite keeps


class MemoryJournal:
    """Behaves like the journal in a file, without the file.

    Several engines may share one; `lose` ends the leases of an owner, as if its process had been killed. Closing it
    ends nothing. What a `transaction` writes goes into tables in memory.

    Example:
        >>> import asyncio
        >>> from mai import module
        >>> from mai.durable import DurableEngine, MemoryJournal
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> async def main() -> int:
        ...     async with DurableEngine(MemoryJournal()) as engine:
        ...         return await engine.start(double, 21, run_id="order-42")
        >>> asyncio.run(main())
        42

    Size: one method for each thing that an engine asks of its storage.
    """

    def __init__(self) -> None:
        self._runs: dict[str, RunInfo] = {}
        self._records: dict[str, dict[str, Record]] = {}
        self._signals: dict[str, list[Signal]] = {}
        self._blobs: dict[str, bytes] = {}
        self._watchers: dict[object, _Watcher] = {}
        self._alive: dict[str, float] = {}  # owners, and for how long their leases are given [s]
        self._count = 0
        self._tables: Tables | None = None

    # ---------------------------------------------------------------- making and holding runs

    async def create(
        self, run_id: str, *, target: str, plan: bytes | None, fingerprint: str, input: bytes,  # noqa: A002
        metadata: bytes = b"{}", due: float | None = None, owner: str | None = None, ttl: float = 30.0,
    ) -> tuple[RunInfo, bool]:  # fmt: skip
        """Make a run, or attach to the one that has this id."""
        known, ttl = self._runs.get(run_id), lease_time(ttl)
        if known is not None:
            other = "target" if known.target != target else "input" if known.input != input else ""
            if other:
                facts = f"the run {run_id!r} of {known.target!r} was started with another {other}"
                raise RunExists(f"{facts}; choose another run_id", run_id=run_id)
            return self._seen(known), False
        _check_texts(run_id, target, fingerprint, owner)
        now = clock.wall()
        address = "" if plan is None else self._kept(plan)
        at = seconds("due", due) or now
        info = RunInfo(run_id, target, address, fingerprint, input, metadata, due=at, created=now, updated=now)
        self._insert(info)
        if owner is not None:
            self._hold(run_id, owner, ttl)
        return self._seen(self._runs[run_id]), True

    def _kept(self, data: bytes) -> str:
        address = address_of(data)
        self._blobs[address] = data
        return address

    def _insert(self, info: RunInfo) -> None:
        self._runs[info.run_id], self._records[info.run_id], self._signals[info.run_id] = info, {}, []
        self._tell(info.run_id, "created")
        self._alarm(info.run_id)

    async def claim(self, run_id: str, owner: str, ttl: float = 30.0) -> tuple[Lease, RunInfo, list[Record]] | None:
        """Take the lease, unless another has it or the run has ended or needs attention."""
        info, ttl = self._of(run_id), lease_time(ttl)
        if info.status in ENDED or info.status == "needs_attention":
            return None
        if info.owner is not None and info.owner != owner and info.owner in self._alive:
            return None
        return self._hold(run_id, owner, ttl), self._seen(self._runs[run_id]), await self.history(run_id)

    def _hold(self, run_id: str, owner: str, ttl: float) -> Lease:
        info, count = self._of(run_id), len(self._records[run_id])
        self._alive[owner] = ttl
        self._change(
            run_id, status="running", owner=owner, epoch=info.epoch + 1, due=None, waits={}, records=count,
            claims=info.claims + 1 if count == info.records else 1,
        )  # fmt: skip
        return Lease(run_id, owner, info.epoch + 1)

    def lose(self, owner: str) -> None:
        """Let the leases of *owner* run out now."""
        self._alive.pop(owner, None)
        for run_id, info in self._runs.items():
            if info.owner == owner and info.status == "running":
                self._tell(run_id, "orphaned")

    async def release(
        self, lease: Lease, *, status: Status = "waiting", due: float | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Give the lease back; what came since the run last looked lets it go on at once."""
        chosen("status", status, {"waiting", "needs_attention"})
        info = self._check(lease)
        wanted = set((waits or {}).values())
        here = any(one.path is None and one.name in wanted for one in self._signals[lease.run_id])
        due, claims = seconds("due", clock.wall() if here or info.cancelled else due), 0
        if status == "needs_attention":  # it goes on when somebody says so
            due, claims = None, info.claims
        count = len(self._records[lease.run_id])
        self._change(
            lease.run_id, status=status, owner=None, due=due, waits=dict(waits or {}), claims=claims, records=count
        )
        self._alarm(lease.run_id)

    async def finish(
        self, lease: Lease, status: Status, *, output: bytes | None = None, error: bytes | None = None
    ) -> None:
        """End the run."""
        chosen("status", status, ENDED)
        self._check(lease)
        count = len(self._records[lease.run_id])
        self._change(lease.run_id, status=status, owner=None, due=None, output=output, error=error, records=count)
        self._tell(lease.run_id, "ended")

    # ---------------------------------------------------------------- records and signals

    async def append(self, lease: Lease, record: Record) -> int:
        """Write a record."""
        self._check(lease)
        return self._write(lease.run_id, record).seq

    def _write(self, run_id: str, record: Record) -> Record:
        known = self._records[run_id]
        if record.path in known:
            raise self._recorded(run_id, record.path)
        _check_texts(record.path, record.version)
        if not _SMALLEST <= record.attempt <= _LARGEST:
            raise ConfigError(f"it cannot be recorded: attempt={record.attempt} is too large")
        started, ended = float(record.started), float(record.ended)
        known[record.path] = written = replace(
            record, seq=len(known) + 1, due=seconds("due", record.due), started=started, ended=ended
        )
        return written

    def _recorded(self, run_id: str, path: str) -> AlreadyRecorded:
        error = AlreadyRecorded(f"the run {run_id!r} has a record at {path!r}, which stands", run_id=run_id)
        error.record = self._records[run_id][path]
        return error

    async def take(self, lease: Lease, path: str, name: str, started: float) -> bytes | None:
        """Consume the oldest signal *name* and record it."""
        self._check(lease)
        if path in self._records[lease.run_id]:
            raise self._recorded(lease.run_id, path)
        signals = self._signals[lease.run_id]
        for i, one in enumerate(signals):
            if one.name == name and one.path is None:
                self._write(lease.run_id, Record(path, "wait", output=one.data, started=started, ended=clock.wall()))
                signals[i] = replace(one, path=path)
                return one.data
        return None

    async def transact(self, lease: Lease, record: Record, work: Callable[[Any], bytes | None]) -> Record:
        """Write what ``work(tables)`` writes into tables in memory, and a record of it, as a whole."""
        self._check(lease)
        known = self._records[lease.run_id].get(record.path)
        if known is not None:
            return known
        self._tables = self._tables or Tables.in_memory()
        with self._tables.transaction():
            output = work(self._tables)
            return self._write(lease.run_id, replace(record, output=output, ended=clock.wall()))

    async def signal(self, run_id: str, name: str, data: bytes, *, id: str | None = None) -> bool:  # noqa: A002
        """Store a signal, and let a run that waits for it go on."""
        info = self._of(run_id)
        if info.status in ENDED:
            return False
        _check_texts(name, id)
        known = self._signals[run_id]
        if id is None or id not in {one.id for one in known}:
            self._count += 1
            known.append(Signal(self._count, name, id or new_id(), data, clock.wall()))
            if info.status == "waiting" and name in info.waits.values():
                self._change(run_id, due=clock.wall())
            self._tell(run_id, "signal")
            self._alarm(run_id)
        return True

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of the run; one that waits goes on at once, to end."""
        info = self._of(run_id)
        if info.status in ENDED:
            return False
        if not info.cancelled:
            status = "waiting" if info.status == "needs_attention" else info.status
            self._change(run_id, cancelled=True, due=clock.wall() if info.owner is None else None, status=status)
            self._tell(run_id, "cancel")
            self._alarm(run_id)
        return True

    async def resume(self, run_id: str) -> bool:
        """Let a run that stands still go on now."""
        info = self._of(run_id)
        if info.owner is not None or info.status in ENDED:
            return False
        status = "waiting" if info.status == "needs_attention" else info.status
        self._change(run_id, status=status, claims=0, due=clock.wall())
        self._alarm(run_id)
        return True

    async def fork(
        self, run_id: str, new_id: str, *, at: str | None = None, override: Mapping[str, bytes] | None = None
    ) -> RunInfo:
        """Make a new run with the records of another that were complete before the one at *at*."""
        info, now, changed = self._of(run_id), clock.wall(), override or {}
        if new_id in self._runs:
            raise RunExists(f"there is a run {new_id!r} already; choose another run_id", run_id=new_id)
        kept = taken_over(run_id, await self.history(run_id), at, changed)
        cut = info.updated if info.status in ENDED else now
        if at is not None:
            cut = kept[-1].ended if kept else now
        by = max(0.0, now - cut)
        self._insert(
            RunInfo(
                new_id, info.target, info.plan, info.fingerprint, info.input, later(info.metadata, by), due=now,
                created=now, updated=now, records=len(kept),
            )
        )  # fmt: skip
        for record in kept:
            again = replace(record, due=None if record.due is None else record.due + by)
            new = changed.get(record.path)
            self._write(new_id, again if new is None else replace(again, output=new, error=None))
        return self._runs[new_id]

    # ---------------------------------------------------------------- looking

    async def run(self, run_id: str) -> RunInfo | None:
        """Return what is known of a run."""
        return self._seen(self._runs[run_id]) if run_id in self._runs else None

    async def runs(self, status: Status | None = None, *, limit: int = 100, after: str | None = None) -> list[RunInfo]:
        """Return runs, newest first."""
        listed = [*reversed(self._runs.values())]
        if after is not None:
            listed = listed[listed.index(self._of(after)) + 1 :]
        return [self._seen(info) for info in listed if status in (None, info.status)][:limit]

    async def history(self, run_id: str) -> list[Record]:
        """Return the records in the order of completion."""
        self._of(run_id)
        return [*self._records[run_id].values()]

    async def signals(self, run_id: str) -> list[Signal]:
        """Return the signals in the order of arrival."""
        self._of(run_id)
        return list(self._signals[run_id])

    async def blob(self, address: str) -> bytes:
        """Return what has this content address."""
        if address not in self._blobs:
            raise CorruptJournal(f"the content {address[:16]}... is missing", path="")
        return self._blobs[address]

    async def due(
        self, now: float | None = None, limit: int = 100, *, targets: Collection[str] | None = None
    ) -> Sequence[str]:
        """Return runs to be claimed, those that wait longest first, then those whose owner is gone."""
        at = clock.wall() if now is None else now
        listed = [info for info in self._runs.values() if targets is None or info.target in targets]
        due = sorted((info.due, info.run_id) for info in listed if info.due is not None and info.due <= at)
        orphans = [info.run_id for info in listed if info.owner is not None and info.owner not in self._alive]
        return [*(run_id for _, run_id in due), *orphans][:limit]

    def watch(
        self, callback: Callable[[str, What], object], *, targets: Collection[str] | None = None
    ) -> Callable[[], None]:
        """Call *callback* when something happens, in the thread of who did it; of due runs, in this loop."""
        key = object()
        self._watchers[key] = callback, targets
        for run_id in self._runs:
            self._alarm(run_id)

        def end() -> None:
            self._watchers.pop(key, None)

        return end

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return all that is known of a run as JSON data."""
        info = self._seen(self._of(run_id))
        plan = self._blobs[info.plan] if info.plan else None
        return exported(info, plan, await self.history(run_id), await self.signals(run_id))

    async def prune(self, before: float, statuses: Sequence[Status] = ("ok", "cancelled")) -> int:
        """Delete runs that ended before that time."""
        for status in statuses:
            chosen("statuses", status, PRUNABLE)
        old = [run_id for run_id, info in self._runs.items() if info.status in statuses and info.updated < before]
        for run_id in old:
            del self._runs[run_id], self._records[run_id], self._signals[run_id]
        return len(old)

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing: what is kept is kept as long as this lives."""

    def _alarm(self, run_id: str) -> None:
        """Tell of a run when it is due."""
        due = self._of(run_id).due
        if due is not None:
            asyncio.get_running_loop().call_later(max(0.0, due - clock.wall()), self._ring, run_id)

    def _ring(self, run_id: str) -> None:
        info = self._runs.get(run_id)
        if info is not None and info.due is not None and info.due <= clock.wall():
            self._tell(run_id, "due")

    def _of(self, run_id: str) -> RunInfo:
        if run_id not in self._runs:
            raise UnknownRun(f"this journal has no run {run_id!r}", run_id=run_id)
        return self._runs[run_id]

    def _seen(self, info: RunInfo) -> RunInfo:
        """Return *info* with the time until which its lease is good."""
        if info.owner is None:
            return info
        return replace(info, lease_until=clock.wall() + self._alive.get(info.owner, 0.0))

    def _check(self, lease: Lease) -> RunInfo:
        info = self._of(lease.run_id)
        if (info.owner, info.epoch, info.status) != (lease.owner, lease.epoch, "running"):
            state = f"{info.owner!r} holds it with epoch {info.epoch}" if info.owner else f"it is {info.status}"
            facts = (
                f"the lease of {lease.owner!r} with epoch {lease.epoch} on the run {lease.run_id!r} is over: {state}"
            )
            raise Fenced(facts, run_id=lease.run_id)
        return info

    def _change(self, run_id: str, **facts: Any) -> None:
        self._runs[run_id] = replace(self._of(run_id), updated=clock.wall(), **facts)

    def _tell(self, run_id: str, what: What) -> None:
        target = self._runs[run_id].target
        for callback, targets in list(self._watchers.values()):
            if what in ("due", "orphaned") and targets is not None and target not in targets:
                continue
            try:
                callback(run_id, what)
            except Exception:  # a watcher's failure is told, and is nobody else's
                logging.getLogger("mai").exception("watcher %r failed on %s of the run %r", callback, what, run_id)


def _check_texts(*texts: str | None) -> None:
    """Raise ConfigError if one of *texts* is none that can be kept."""
    try:
        "".join(text for text in texts if text is not None).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"it cannot be recorded: {error}") from error
