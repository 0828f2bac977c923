"""A journal in memory, for tests: it behaves like the one in a file, as long as the process lives."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

from mai.core.clock import clock
from mai.core.ids import new_id
from mai.durable.records import ENDED, Lease, Record, RunInfo, Signal, Status, What
from mai.errors import AlreadyRecorded, ConfigError, Fenced, RunExists, UnknownRun

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """Behaves like the journal in a file, without the file.

    Size: one method for each thing that an engine asks of its storage.

    Several engines may share one; `lose` ends the leases of an owner, as if its process had been killed.

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
    """

    def __init__(self) -> None:
        self._runs: dict[str, RunInfo] = {}
        self._records: dict[str, dict[str, Record]] = {}
        self._signals: dict[str, list[Signal]] = {}
        self._blobs: dict[str, bytes] = {}
        self._watchers: dict[object, Callable[[str, What], object]] = {}
        self._alive = Counter[str]()  # owners
        self._count = 0

    # ---------------------------------------------------------------- making and holding runs

    async def create(
        self, run_id: str, *, target: str, plan: bytes | None, fingerprint: str, input: bytes,  # noqa: A002
        metadata: bytes = b"{}", due: float | None = None, owner: str | None = None, ttl: float = 30.0,
    ) -> tuple[RunInfo, bool]:  # fmt: skip
        """Make a run, or attach to the one that has this id."""
        known = self._runs.get(run_id)
        if known is not None:
            if (known.target, known.input) != (target, input):
                what = f"target {known.target!r}" if known.target != target else f"input {known.input[:200]!r}"
                raise RunExists(f"Run {run_id!r} exists with another {what}; choose another id", run_id=run_id)
            return known, False
        address = ""
        if plan is not None:
            address = blake2b(plan, digest_size=16).hexdigest()
            self._blobs[address] = plan
        now = clock.wall()
        self._runs[run_id] = RunInfo(
            run_id, target, address, fingerprint, input, metadata, due=due, created=now, updated=now
        )
        self._records[run_id], self._signals[run_id] = {}, []
        if owner is not None:
            self._hold(run_id, owner, ttl)
        self._tell(run_id, "created")
        self._alarm(run_id)
        return self._runs[run_id], True

    async def claim(self, run_id: str, owner: str, ttl: float = 30.0) -> tuple[Lease, RunInfo, list[Record]] | None:
        """Take the lease, unless another has it or the run has ended or needs attention."""
        info = self._of(run_id)
        if info.status in ENDED or info.status == "needs_attention":
            return None
        if info.owner is not None and info.owner != owner and self._alive[info.owner]:
            return None
        return self._hold(run_id, owner, ttl), self._runs[run_id], await self.history(run_id)

    def _hold(self, run_id: str, owner: str, ttl: float) -> Lease:
        info = self._of(run_id)
        self._alive[owner] = 1
        self._change(
            run_id, status="running", owner=owner, epoch=info.epoch + 1, claims=info.claims + 1,
            lease_until=clock.wall() + ttl, due=None, waits={},
        )  # fmt: skip
        return Lease(run_id, owner, info.epoch + 1)

    def lose(self, owner: str) -> None:
        """Let the leases of *owner* run out now."""
        del self._alive[owner]
        for run_id, info in self._runs.items():
            if info.owner == owner and info.status == "running":
                self._tell(run_id, "orphaned")

    async def release(
        self, lease: Lease, *, status: Status = "waiting", due: float | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Give the lease back."""
        self._check(lease)
        claims = 0 if status == "waiting" else self._of(lease.run_id).claims
        self._change(
            lease.run_id, status=status, owner=None, lease_until=None, due=due, waits=dict(waits or {}), claims=claims
        )
        self._alarm(lease.run_id)

    async def finish(
        self, lease: Lease, status: Status, *, output: bytes | None = None, error: bytes | None = None
    ) -> None:
        """End the run."""
        self._check(lease)
        self._change(lease.run_id, status=status, owner=None, lease_until=None, output=output, error=error)
        self._tell(lease.run_id, "ended")

    # ---------------------------------------------------------------- records and signals

    async def append(self, lease: Lease, record: Record) -> int:
        """Write a record."""
        self._check(lease)
        return self._write(lease.run_id, record).seq

    def _write(self, run_id: str, record: Record) -> Record:
        known = self._records[run_id]
        if record.path in known:
            error = AlreadyRecorded(f"Run {run_id!r} has a record at {record.path!r} already", run_id=run_id)
            error.record = known[record.path]
            raise error
        written = known[record.path] = replace(record, seq=len(known) + 1)
        self._change(run_id, claims=0, records=len(known))
        return written

    async def take(self, lease: Lease, path: str, name: str, started: float) -> bytes | None:
        """Consume the oldest signal *name* and record it."""
        self._check(lease)
        signals = self._signals[lease.run_id]
        for i, one in enumerate(signals):
            if one.name == name and one.path is None:
                self._write(lease.run_id, Record(path, "wait", output=one.data, started=started, ended=clock.wall()))
                signals[i] = replace(one, path=path)
                return one.data
        return None

    async def transact(self, lease: Lease, record: Record, work: Callable[[Any], bytes | None]) -> Record:
        """Append a record of what *work* gives; there is no connection, so it is given None."""
        self._check(lease)
        known = self._records[lease.run_id].get(record.path)
        return known or self._write(lease.run_id, replace(record, output=work(None)))

    async def signal(self, run_id: str, name: str, data: bytes, *, id: str | None = None) -> bool:  # noqa: A002
        """Store a signal."""
        info = self._of(run_id)
        if info.status in ENDED:
            return False
        known = self._signals[run_id]
        if id is None or id not in {one.id for one in known}:
            self._count += 1
            known.append(Signal(self._count, name, id or new_id(), data, clock.wall()))
            self._tell(run_id, "signal")
        return True

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of the run."""
        if self._of(run_id).status in ENDED:
            return False
        self._change(run_id, cancelled=True)
        self._tell(run_id, "cancel")
        return True

    async def resume(self, run_id: str) -> bool:
        """Let a run that waits or needs attention go on now."""
        if self._of(run_id).status not in ("waiting", "needs_attention"):
            return False
        self._change(run_id, status="waiting", claims=0, due=clock.wall())
        self._tell(run_id, "due")
        return True

    async def fork(
        self, run_id: str, new_id: str, *, at: str | None = None, override: Mapping[str, bytes] | None = None
    ) -> RunInfo:
        """Make a new run with the records of another that were complete before the one at *at*."""
        info, known = self._of(run_id), await self.history(run_id)
        paths = [record.path for record in known]
        if at is not None and at not in paths:
            raise ConfigError(f"fork: run {run_id!r} has no record at {at!r}")
        kept = known[: len(known) if at is None else paths.index(at)]
        for path in override or {}:
            if path not in [record.path for record in kept]:
                raise ConfigError(f"fork: no record at {path!r} is taken over, so nothing is there to override")
        if new_id in self._runs:
            raise RunExists(f"Run {new_id!r} exists; choose another id", run_id=new_id)
        plan, now = self._blobs.get(info.plan), clock.wall()
        cut = info.updated if info.status in ENDED else now
        if at is not None:
            cut = kept[-1].ended if kept else now
        await self.create(
            new_id, target=info.target, plan=plan, fingerprint=info.fingerprint, input=info.input,
            metadata=info.metadata,
        )  # fmt: skip
        for record in kept:
            changed = (override or {}).get(record.path)
            due = None if record.due is None else record.due + max(0.0, now - cut)
            again = replace(record, due=due)
            self._write(new_id, again if changed is None else replace(again, output=changed, error=None))
        return self._runs[new_id]

    # ---------------------------------------------------------------- looking

    async def run(self, run_id: str) -> RunInfo | None:
        """Return what is known of a run."""
        return self._runs.get(run_id)

    async def runs(self, status: Status | None = None, *, limit: int = 100, after: str | None = None) -> list[RunInfo]:
        """Return runs, newest first."""
        listed = [info for info in reversed(self._runs.values()) if status in (None, info.status)]
        ids = [info.run_id for info in listed]
        start = ids.index(after) + 1 if after in ids else 0
        return listed[start : start + limit]

    async def history(self, run_id: str) -> list[Record]:
        """Return the records in the order of completion."""
        self._of(run_id)
        return sorted(self._records[run_id].values(), key=lambda record: record.seq)

    async def signals(self, run_id: str) -> list[Signal]:
        """Return the signals in the order of arrival."""
        self._of(run_id)
        return list(self._signals[run_id])

    async def blob(self, address: str) -> bytes:
        """Return what has this content address."""
        return self._blobs[address]

    async def due(self, now: float, limit: int = 100, *, targets: Collection[str] | None = None) -> Sequence[str]:
        """Return runs to be claimed."""
        due = [info for info in self._runs.values() if self._is_due(info, now)]
        return [info.run_id for info in due if targets is None or info.target in targets][:limit]

    def _is_due(self, info: RunInfo, now: float) -> bool:
        if info.status == "running":
            return info.owner is not None and not self._alive[info.owner]
        if info.status not in ("pending", "waiting"):
            return False
        names = {one.name for one in self._signals[info.run_id] if one.path is None}
        asked = info.cancelled or not names.isdisjoint(info.waits.values())
        starts = info.due is None and info.status == "pending"
        return asked or starts or (info.due is not None and info.due <= now)

    def watch(
        self, callback: Callable[[str, What], object], *, targets: Collection[str] | None = None
    ) -> Callable[[], None]:
        """Call *callback* when something happens, in the thread of who did it; of due runs, in this loop."""
        key = object()
        self._watchers[key] = callback
        for run_id in self._runs:
            self._alarm(run_id)
        return lambda: self._watchers.pop(key, None) and None

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return all that is known of a run."""
        return {"run": asdict(self._of(run_id)), "records": [asdict(one) for one in await self.history(run_id)]}

    async def prune(self, before: float, statuses: Sequence[Status] = ("ok", "cancelled")) -> int:
        """Delete runs that ended before that time."""
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
        if run_id in self._runs and self._is_due(self._runs[run_id], clock.wall()):
            self._tell(run_id, "due")

    def _of(self, run_id: str) -> RunInfo:
        if run_id not in self._runs:
            raise UnknownRun(f"There is no run {run_id!r}", run_id=run_id)
        return self._runs[run_id]

    def _check(self, lease: Lease) -> None:
        info = self._of(lease.run_id)
        if info.epoch != lease.epoch or info.owner != lease.owner or info.status != "running":
            raise Fenced(f"{lease.owner!r} no longer holds run {lease.run_id!r}", run_id=lease.run_id)

    def _change(self, run_id: str, **facts: Any) -> None:
        self._runs[run_id] = replace(self._of(run_id), updated=clock.wall(), **facts)

    def _tell(self, run_id: str, what: What) -> None:
        for callback in list(self._watchers.values()):
            callback(run_id, what)
