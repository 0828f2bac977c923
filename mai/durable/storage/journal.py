"""`SQLiteJournal`: the protocol of a journal, answered by one file."""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self

from ...core.clock import clock
from ...errors import ConfigError, JournalError
from ...values.checked import SECONDS, checked
from ..records import ENDED, PRUNABLE, Lease, Record, RunInfo, Signal, Status, What
from ..rules import chosen, lease_time
from . import appends, reads, runs, verify
from .files import Durability, Files
from .reader import Reader, Watcher
from .rows import Book
from .session import Session
from .writer import Writer

__all__ = ["SQLiteJournal"]


class SQLiteJournal:
    """Keeps durable runs in one SQLite file, which any number of processes of one machine may have open.

    Writes are gathered: all that wait while one transaction is made safe are the next one. A method returns when its
    transaction is on disk.

    Args:
        path: The file. It is made if there is none, its folder is not. It must be on a local disk.
        durability: ``"power"`` survives a loss of power. ``"process"`` survives the end of the process in whatever
            way, but may lose the newest records when power fails; it is several times faster for a single run.
        create: Whether a file that is not there, or has no journal yet, is to get one.
        patience: How long to wait for another process that holds the file [s].

    Raises:
        ConfigError: If an argument cannot be used.

    Example:
        >>> import asyncio
        >>> from mai.durable import Lease, Record, SQLiteJournal
        >>> async def main() -> None:
        ...     async with SQLiteJournal("runs.db") as journal:
        ...         info, made = await journal.create(
        ...             "order-42", target="ship", plan=None, fingerprint="", input=b'{"id": 42}', owner="worker"
        ...         )
        ...         lease = Lease("order-42", "worker", info.epoch)
        ...         await journal.append(lease, Record("ship/Pack", "step", output=b'"box"'))
        ...         await journal.finish(lease, "ok", output=b'"sent"')
        ...         print([record.path for record in await journal.history("order-42")])
        >>> asyncio.run(main())
        ['ship/Pack']

    Size: one method for each thing that an engine asks of its storage; none does more than hand it on.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        *,
        durability: Durability = "power",
        create: bool = True,
        patience: float = 60.0,
    ) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")):
            raise ConfigError(f"SQLiteJournal: path={path!r} cannot be used: give the name of a file")
        if durability not in ("power", "process"):
            raise ConfigError(f"SQLiteJournal: durability={durability!r} cannot be used: give 'power' or 'process'")
        self.path: str = os.path.realpath(name)
        checked("SQLiteJournal", "patience", patience, SECONDS)
        self._files = Files(self.path, durability, float(patience), create=create)
        self._writer = Writer(self._files)
        self._reader = Reader(self._files, self._writer)
        self._verifier = Reader(self._files, self._writer)  # for what takes long

    async def open(self) -> Self:
        """Open the file, if it is not open; ``async with`` does it, too.

        Raises:
            JournalError: If it cannot be opened, or has tables of a newer mai.
            CorruptJournal: If it is no journal, or was damaged.
        """
        if self._writer.is_open:
            return self
        await self._writer.start()
        try:
            await self._reader.start()
            await self._verifier.start()
            if self._files.lost_wal:
                await self._lost()
        except BaseException:
            await self.close()
            raise
        return self

    async def _lost(self) -> None:
        """The file was in use, and its -wal is gone: go on only with what is whole, and say what may be missing."""
        wrong = await self.check()
        if wrong:
            raise JournalError(
                f"{self.path!r} was not closed, and its -wal file is missing: {wrong[0]}", path=self.path
            )
        said = (
            "%r was not closed, and has no -wal file: if it was moved here without it, its newest records are missing"
        )
        logging.getLogger("mai").warning(said, self.path)

    async def close(self) -> None:
        """Write what waits, and close the file; leases that are still held here end by themselves."""
        await self._verifier.stop()
        await self._reader.stop()
        await self._writer.stop()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _write(self, work: Callable[..., Any], *args: Any) -> Any:
        """Have *work* done under a savepoint."""

        def whole(session: Session) -> Any:
            with session.whole():
                return work(session, *args)

        return await self._writer.ask(whole)

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
        """Make a run, or attach to the one that has this id; see `Journal.create`."""
        facts = (run_id, target, plan, fingerprint, input, metadata, due, owner, lease_time(ttl))
        made: tuple[RunInfo, bool] = await self._write(runs.create, *facts)
        return made

    async def claim(self, run_id: str, owner: str, ttl: float = 30.0) -> tuple[Lease, RunInfo, list[Record]] | None:
        """Take the lease of a run; see `Journal.claim`."""
        claimed: tuple[Lease, RunInfo] | None = await self._write(runs.claim, run_id, owner, lease_time(ttl))
        if claimed is None:
            return None
        lease, info = claimed
        return lease, info, await self.history(run_id) if info.records or info.epoch > 1 else []

    async def append(self, lease: Lease, record: Record) -> int:
        """Write a record; see `Journal.append`."""
        seq: int = await self._writer.post(appends.Append(lease, record))
        return seq

    async def take(self, lease: Lease, path: str, name: str, started: float) -> bytes | None:
        """Consume a signal and record it; see `Journal.take`."""
        data: bytes | None = await self._write(appends.take, lease, path, name, started)
        return data

    async def transact(self, lease: Lease, record: Record, work: Callable[[Any], bytes | None]) -> Record:
        """Write what ``work(tables)`` writes with the `Tables` that it gets, and a record of it, in one transaction.

        See `Journal.transact`. An error of *work* is raised, and nothing is written.
        """
        done: Record = await self._write(appends.transact, lease, record, work)
        return done

    async def release(
        self,
        lease: Lease,
        *,
        status: Status = "waiting",
        due: float | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> None:
        """Give the lease back; see `Journal.release`.

        Raises:
            ConfigError: If *status* is neither ``"waiting"`` nor ``"needs_attention"``.
        """
        chosen("status", status, {"waiting", "needs_attention"})
        await self._write(runs.release, lease, status, due, waits)

    async def finish(
        self, lease: Lease, status: Status, *, output: bytes | None = None, error: bytes | None = None
    ) -> None:
        """End the run; see `Journal.finish`.

        Raises:
            ConfigError: If *status* is not one of an ended run.
        """
        chosen("status", status, ENDED)
        await self._write(runs.finish, lease, status, output, error)

    async def signal(self, run_id: str, name: str, data: bytes, *, id: str | None = None) -> bool:  # noqa: A002
        """Store a signal; see `Journal.signal`."""
        stored: bool = await self._write(appends.signal, run_id, name, data, id)
        return stored

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of a run; see `Journal.cancel`."""
        asked: bool = await self._write(runs.cancel, run_id)
        return asked

    async def resume(self, run_id: str) -> bool:
        """Let a run that stands still go on; see `Journal.resume`."""
        resumed: bool = await self._write(runs.resume, run_id)
        return resumed

    async def fork(
        self, run_id: str, new_id: str, *, at: str | None = None, override: Mapping[str, bytes] | None = None
    ) -> RunInfo:
        """Make a new run with the first records of another; see `Journal.fork`."""
        new: RunInfo = await self._write(runs.fork, run_id, new_id, at, override or {})
        return new

    async def run(self, run_id: str) -> RunInfo | None:
        """Return what is known of a run, None if there is none."""
        return await self._reader.ask(partial(reads.run, run_id=run_id))

    async def runs(self, status: Status | None = None, *, limit: int = 100, after: str | None = None) -> list[RunInfo]:
        """Return runs, newest first; see `Journal.runs`."""
        return await self._reader.ask(partial(reads.runs, status=status, limit=limit, after=after))

    async def history(self, run_id: str) -> list[Record]:
        """Return the records in the order of completion."""
        return await self._reader.ask(partial(reads.history, run_id=run_id))

    async def signals(self, run_id: str) -> list[Signal]:
        """Return the signals in the order of arrival; see `Journal.signals`."""
        return await self._reader.ask(partial(reads.signals, run_id=run_id))

    async def blob(self, address: str) -> bytes:
        """Return what has this content address, such as a plan."""
        return await self._reader.ask(partial(reads.blob, address=address))

    async def due(
        self, now: float | None = None, limit: int = 100, *, targets: Collection[str] | None = None
    ) -> list[str]:
        """Return runs to be claimed; see `Journal.due`. *targets* leaves out those of other targets."""
        at = clock.wall() if now is None else now

        def both(book: Book) -> list[str]:
            found = reads.due(book, at, limit, targets)
            return found + self._reader.orphans(book, limit - len(found), targets)

        return await self._reader.ask(both)

    def watch(
        self, callback: Callable[[str, What], object], *, targets: Collection[str] | None = None
    ) -> Callable[[], None]:
        """Call *callback* when something happens; see `Journal.watch`.

        With *targets*, only runs of these are told as ``due`` or ``orphaned``; what was written is told of all.
        """
        return self._reader.watch(Watcher(callback, targets))

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return all that is known of a run as JSON data."""
        return await self._reader.ask(partial(reads.export, run_id=run_id))

    async def prune(self, before: float, statuses: Sequence[Status] = ("ok", "cancelled")) -> int:
        """Delete runs that ended before that time [s], a hundred in a transaction, and give the space back.

        Raises:
            ConfigError: If one of *statuses* is that of a run that has not ended.
        """
        for status in statuses:
            chosen("statuses", status, PRUNABLE)
        total, pruned = 0, 1
        while pruned:
            pruned = await self._write(runs.prune, before, statuses)
            total += pruned
        return total

    async def check(self) -> list[str]:
        """Read the whole file and return what is wrong with it, nothing if all is well; others go on meanwhile."""
        return await self._verifier.ask(verify.problems)

    async def backup(self, target: "str | os.PathLike[str]") -> None:
        """Copy the journal as it is now into the new file *target*; others go on meanwhile.

        Raises:
            JournalError: If there is such a file, or it cannot be written.
        """
        await self._verifier.ask(partial(verify.backup, target=os.fspath(target)))
