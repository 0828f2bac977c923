"""Durable runs that are interrupted on purpose: after every record, and at every write of the journal.

This room stands below the durable engines and imports none of them: journal and engine are handed in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..layers import Module
from .errors import Crash, DurabilityError
from .folder import Disk
from .mortal import RECORDS, RUN_ID, WRITES, Mortal
from .orders import Order
from .simulation import Simulation

MOST = 1_000  # lives of one run
RESTART = 3600.0  # simulated seconds until another process carries on: longer than any lease
Ended = tuple[Any, ...]  # "ok" and the value, or the class of the error and what it says
Engine = Callable[[Any], AbstractAsyncContextManager[Any]]
During = Callable[[Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Lives:
    """What `replay_check` and `crash_check` have seen, when nothing was wrong.

    Attributes:
        interruptions: How often the process died.
        value: What the run gave each time; None if it failed each time.
        error: What it said of its failure each time; empty if it gave a value.
    """

    interruptions: int
    value: Any
    error: str = ""


async def _ended(handle: Any) -> Ended:
    try:
        return "ok", await handle
    except asyncio.CancelledError:
        return asyncio.CancelledError, ""
    except Exception as error:  # noqa: BLE001 (the outcome of the run)
        return type(error), str(error)


async def _life(mortal: Mortal, engine: Engine, module: Any, value: Any, during: During | None) -> Ended | None:
    """Run, or carry on, until the end; None: the process died before."""
    found, tasks = None, list[asyncio.Task[Any]]()
    try:
        async with engine(mortal) as running:
            mortal.owner = running.owner
            ended = asyncio.ensure_future(_ended(running.start(module, value, run_id=RUN_ID)))
            dead = asyncio.ensure_future(mortal.died.wait())
            beside = asyncio.ensure_future(_meanwhile(during, running, dead))
            tasks = [ended, dead, beside]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks[1:]:
                task.cancel()
            if mortal.where:
                raise Crash(mortal.where)
            if not ended.done():
                await beside  # raises what went wrong there
            found = await ended
            await mortal.look()
    except Crash as crash:
        mortal.dead(str(crash))
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # of a process that is gone nobody hears
    return found


async def _meanwhile(during: During | None, engine: Any, died: "asyncio.Task[Any]") -> None:
    """Do what is to be done beside the run, and end with the process: before that only with an error."""
    if during is not None:
        await during(engine)
    await asyncio.wait([died])


class _Death(NamedTuple):
    """When a process dies, and what its disk keeps."""

    at: int = -1  # the number of a write of the journal, from 0
    after: bool = False  # that write
    fails_at: int = 0  # the number of an operation of the disk, from 1
    seed: int = 0  # of what is left on the disk


_ON_DISK: tuple[Callable[[int], _Death], ...] = (
    lambda n: _Death(at=n),
    lambda n: _Death(at=n, after=True),
    lambda n: _Death(fails_at=n + 1),  # these two on a simulated disk only
    lambda n: _Death(fails_at=n + 1, seed=n + 2),
)


class _Check:
    """One check: what is run, on what, and under which seed."""

    def __init__(
        self, module: Any, value: Any, journal: Callable[..., Any], engine: Engine, during: During | None,
        disk: Callable[[], Disk] | None, simulation: Simulation,
    ) -> None:  # fmt: skip
        if disk is None and not hasattr(journal(), "lose"):
            raise ConfigError(
                f"journal={journal!r} makes one that cannot lose the leases of a process that died; use MemoryJournal, "
                "or give a disk= on which it is made"
            )
        self.parts: tuple[Any, ...] = engine, module, value, during
        self.journal = journal
        self.disk = disk
        self.simulation = simulation
        self.ended: Ended | None = simulation.run(self._straight).result()

    def _fresh(self) -> Any:
        """Return what outlives a process: an empty disk, or a journal in memory."""
        return self.journal() if self.disk is None else self.disk()

    async def _lived(
        self, kept: Any, told: dict[str, Any], names: tuple[str, ...] = WRITES, **when: Any
    ) -> tuple[Ended | None, Mortal]:
        """Return what one process came to, and how it died, if it did."""
        mortal = Mortal(kept if self.disk is None else self.journal(kept), names, told, **when)
        return await _life(mortal, *self.parts), mortal

    async def _found(self, kept: Any, mortal: Mortal, seed: int = 0) -> Any:
        """Return what the next process finds when this one has died and its leases are over."""
        if self.disk is None:
            mortal.journal.lose(mortal.owner)
            return kept
        found = kept.after_crash(seed)
        with suppress(Exception):  # it may have threads; whatever it still does is done to what nobody will see
            await mortal.journal.close()
        await asyncio.sleep(RESTART)
        return found

    async def _straight(self) -> Ended | None:
        """Run without an interruption."""
        return (await self._lived(self._fresh(), {}))[0]

    async def _replayed(self) -> tuple[Ended | None, int]:
        """Let the process die after each record."""
        kept, told = self._fresh(), dict[str, Any]()
        for count in range(MOST):
            found, mortal = await self._lived(kept, told, RECORDS, at=0, after=True)
            if found is not None:
                return found, count
            kept = await self._found(kept, mortal)
        raise DurabilityError(f"The run does not get on: it was taken up {MOST} times")

    async def _crashed(self, death: "_Death") -> tuple[Ended | None, str]:
        """Let the process die once, and another one carry on."""
        kept, told = self._fresh(), dict[str, Any]()
        if death.fails_at:
            kept.fails_at = death.fails_at
        found, mortal = await self._lived(kept, told, at=death.at, after=death.after)
        where = mortal.where
        try:
            if where:
                kept = await self._found(kept, mortal, death.seed)
                found, mortal = await self._lived(kept, told)
            if self.disk is not None:
                await self._look(kept, mortal, told)
        except DurabilityError as error:
            raise DurabilityError(self._when(where or "never", str(error))) from None
        return found, where

    async def _look(self, kept: Any, mortal: Mortal, told: dict[str, Any]) -> None:
        """Look at what is on the disk when the run is over and its last process gone, too."""
        last = Mortal(self.journal(await self._found(kept, mortal)), (), told)
        await last.journal.open()
        await last.look()
        await last.journal.close()

    def replayed(self) -> int:
        """Do it, compare, and return how often the process died."""
        found, count = self.simulation.run(self._replayed).result()
        self._same(found, f"after each of {count} records")
        return count

    def crashed(self) -> int:
        """Do it at each write of the journal, before and after it, and at each operation of a simulated disk."""
        kinds = _ON_DISK if hasattr(self._fresh(), "fails_at") else _ON_DISK[:2]
        return sum(map(self._crashes, kinds))

    def _crashes(self, kind: Callable[[int], "_Death"]) -> int:
        for number in range(MOST):
            found, where = self.simulation.run(partial(self._crashed, kind(number))).result()
            self._same(found, where or "never")
            if not where:
                return number
        return MOST

    def _same(self, found: Ended | None, where: str) -> None:
        if self.ended != found:
            raise DurabilityError(self._when(where, f"The run ended with {found!r} instead of {self.ended!r}"))

    def _when(self, where: str, what: str) -> str:
        return f"With seed {self.simulation.seed}, after the process died {where}, {what[0].lower()}{what[1:]}"


def _all(seeds: int | Iterable[int], check: Callable[[int], _Check], work: Callable[[_Check], int]) -> Lives:
    died, ended = 0, None
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        made = check(seed)
        died, ended = died + work(made), made.ended
    assert ended is not None
    return Lives(died, ended[1]) if ended[0] == "ok" else Lives(died, None, f"{ended[0].__name__}: {ended[1]}")


def replay_check(
    module: Module[Any, Any], value: object, *, journal: Callable[..., Any], engine: Engine,
    during: During | None = None, disk: Callable[[], Disk] | None = None, seeds: int | Iterable[int] = 3,
    order: Order = "random", patience: float = 0.0,
) -> Lives:  # fmt: skip
    """Run a module durably so that its process dies after every record, and see that it ends as it does undisturbed.

    So the past is repeated after every step, which shows a flow that does on replay what it did not do at first: it
    looks at the clock, draws chance or reads what is not recorded. All is simulated, delays take no time.

    Args:
        module: The module; steps that it calls should give the same each time.
        value: What it is called with.
        journal: Makes an empty journal that can ``lose`` the leases of a process, such as `MemoryJournal`; with *disk*
            it is called with one, anew for each process, and makes a journal of what is there.
        engine: Makes an engine over a journal, such as `DurableEngine`; keep it from serving others.
        during: Called with each engine that carries the run on; there it may send signals and answers.
        disk: Makes an empty disk for the journal, `SimulatedDisk` or `CopiedFolder`. A process that died is followed by
            the next one an hour later, when its leases are over; it finds what the disk has kept.
        seeds: How many interleavings to try, or which.
        order: Their order.
        patience: As of `Simulation`, for journals that have threads; with `SQLiteJournal` 0.1 will do.

    Returns:
        How often the process died, and how the run ended.

    Raises:
        DurabilityError: If the run ended in another way than it does undisturbed, or a record that was acknowledged is
            lost or is another one.
        ConfigError: If there is no disk, and the journal cannot lose leases.

    Example:
        >>> from mai import module
        >>> from mai.durable import DurableEngine, MemoryJournal
        >>> from mai.testing import replay_check
        >>> @module
        ... async def add(n: int) -> int:
        ...     return n + 1
        >>> @module(flow=True)
        ... async def thrice(n: int) -> int:
        ...     for _ in range(3):
        ...         n = await add(n)
        ...     return n
        >>> replay_check(thrice, 1, journal=MemoryJournal, engine=DurableEngine, seeds=1)
        Lives(interruptions=3, value=4, error='')
    """

    def check(seed: int) -> _Check:
        simulation = Simulation(seed=seed, order=order, patience=patience)
        return _Check(module, value, journal, engine, during, disk, simulation)

    return _all(seeds, check, _Check.replayed)


def crash_check(
    module: Module[Any, Any], value: object, *, journal: Callable[..., Any], engine: Engine,
    during: During | None = None, disk: Callable[[], Disk] | None = None, seeds: int | Iterable[int] = 1,
    order: Order = "random", patience: float = 0.0,
) -> Lives:  # fmt: skip
    """Run a module durably once for each write of its journal, let the process die there, and let another carry on.

    The process dies right before the write in one run, and right after it in the next; on a `SimulatedDisk` also in
    each operation of the disk, twice: once nothing of what was not synced is left, once some of it. Whatever it was,
    the run has to end as it does undisturbed, with all records that were acknowledged.

    Args:
        module: As of `replay_check`, like all others.
        value: What it is called with.
        journal: Makes an empty journal.
        engine: Makes an engine over a journal.
        during: Called with each engine that carries the run on.
        disk: Makes an empty disk.
        seeds: How many interleavings to try, or which.
        order: Their order.
        patience: As of `Simulation`, for journals that have threads; with `SQLiteJournal` 0.1 will do.

    Returns:
        How often the process died, and how the run ended.

    Raises:
        DurabilityError: If the run ended in another way than it does undisturbed, or a record that was acknowledged is
            lost or is another one.
        ConfigError: If there is no disk, and the journal cannot lose leases.

    Example:
        >>> from mai import module
        >>> from mai.durable import DurableEngine, MemoryJournal
        >>> from mai.testing import crash_check
        >>> @module
        ... async def add(n: int) -> int:
        ...     return n + 1
        >>> crash_check(add >> add, 1, journal=MemoryJournal, engine=DurableEngine).value
        3
    """

    def check(seed: int) -> _Check:
        simulation = Simulation(seed=seed, order=order, patience=patience)
        return _Check(module, value, journal, engine, during, disk, simulation)

    return _all(seeds, check, _Check.crashed)
