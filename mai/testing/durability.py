"""Durable runs that are interrupted on purpose: after every record, and at every write of the journal.

This room stands below the durable engines and imports none of them: journal and engine are handed in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import ConfigError
from ..layers import Module
from .errors import Crash, SimulationError
from .orders import Order
from .simulation import Simulation

RECORDS = ("append", "take", "transact")
WRITES = ("create", "claim", *RECORDS, "release", "finish")
MOST = 1_000  # lives of one run
RUN_ID = "checked"
Ended = tuple[Any, ...]  # "ok" and the value, or the class of the error and what it says
Engine = Callable[[Any], AbstractAsyncContextManager[Any]]
During = Callable[[Any], Awaitable[object]]


class DurabilityError(SimulationError):
    """A run that was interrupted did not come to the same end as one that was not."""


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


class Mortal:
    """A journal whose process dies at its write number *at* from 0, before or *after* it; then it does nothing more."""

    def __init__(self, journal: Any, names: tuple[str, ...], *, at: int = -1, after: bool = False) -> None:
        self.journal: Any = journal
        self.names: tuple[str, ...] = names
        self.at: int = at
        self.after: bool = after
        self.count: int = 0
        self.where: str = ""
        self.died: asyncio.Event = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.journal, name)
        return self._guarded(name, method) if name in WRITES else method

    def _guarded(self, name: str, method: Any) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.where:
                raise Crash("this process is gone")
            after = self.after or name == "take"  # only then it shows whether there was something to take
            found = await method(*args, **kwargs) if after else None
            if name in self.names and not (name == "take" and found is None):
                self.count += 1
                if self.count - 1 == self.at:
                    self.where = f"{'after' if after else 'before'} {name} number {self.at + 1}"
                    self.died.set()
                    raise Crash(self.where)
            return found if after else await method(*args, **kwargs)

        return call

    async def close(self) -> None:
        """Close the journal, if there is still somebody to do it."""
        if not self.where:
            await self.journal.close()


async def _ended(handle: Any) -> Ended:
    try:
        return "ok", await handle
    except asyncio.CancelledError:
        return asyncio.CancelledError, ""
    except Exception as error:  # noqa: BLE001 (the outcome of the run)
        return type(error), str(error)


async def _life(mortal: Mortal, engine: Engine, module: Any, value: Any, during: During | None) -> Ended | None:
    """Run, or carry on, until the end; None: the process died before."""
    found, owner, tasks = None, "", list[asyncio.Task[Any]]()
    with suppress(Crash):
        async with engine(mortal) as running:
            owner = running.owner
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
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # of a process that is gone nobody hears
    if found is None and owner:
        mortal.journal.lose(owner)
    return found


async def _meanwhile(during: During | None, engine: Any, died: "asyncio.Task[Any]") -> None:
    """Do what is to be done beside the run, and end with the process: before that only with an error."""
    if during is not None:
        await during(engine)
    await asyncio.wait([died])


class _Check:
    """One check: what is run, on what, and under which seed."""

    def __init__(self, module: Any, value: Any, journal: Callable[[], Any], engine: Engine, during: During | None):
        if not hasattr(journal(), "lose"):
            raise ConfigError(
                f"journal={journal!r} makes one that cannot lose the leases of a process that died; use MemoryJournal"
            )
        self.parts: tuple[Any, ...] = engine, module, value, during
        self.journal = journal

    async def straight(self) -> Ended | None:
        """Run without an interruption."""
        return await _life(Mortal(self.journal(), WRITES), *self.parts)

    async def replayed(self) -> tuple[Ended | None, int]:
        """Let the process die after each record."""
        journal = self.journal()
        for count in range(MOST):
            if (found := await _life(Mortal(journal, RECORDS, at=0, after=True), *self.parts)) is not None:
                return found, count
        raise DurabilityError(f"The run does not get on: it was taken up {MOST} times")

    async def crashed(self, at: int, *, after: bool) -> tuple[Ended | None, str]:
        """Let the process die once, and another one carry on."""
        mortal = Mortal(self.journal(), WRITES, at=at, after=after)
        found = await _life(mortal, *self.parts)
        if mortal.where:
            found = await _life(Mortal(mortal.journal, WRITES), *self.parts)
        return found, mortal.where


def replay_check(
    module: Module[Any, Any], value: object, *, journal: Callable[[], Any], engine: Engine,
    during: During | None = None, seeds: int | Iterable[int] = 3, order: Order = "random",
) -> Lives:  # fmt: skip
    """Run a module durably so that its process dies after every record, and see that it ends as it does undisturbed.

    So the past is repeated after every step, which shows a flow that does on replay what it did not do at first: it
    looks at the clock, draws chance or reads what is not recorded. All is simulated, delays take no time.

    Args:
        module: The module; steps that it calls should give the same each time.
        value: What it is called with.
        journal: Makes an empty journal that can ``lose`` the leases of a process, such as `MemoryJournal`.
        engine: Makes an engine over a journal, such as `DurableEngine`; keep it from serving others.
        during: Called with each engine that carries the run on; there it may send signals and answers.
        seeds: How many interleavings to try, or which.
        order: Their order.

    Returns:
        How often the process died, and how the run ended.

    Raises:
        DurabilityError: If the run ended in another way than it does undisturbed.
        ConfigError: If the journal cannot lose leases.

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
    check, died, ended = _Check(module, value, journal, engine, during), 0, None
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        simulation = Simulation(seed=seed, order=order)
        ended = simulation.run(check.straight).result()
        found, count = simulation.run(check.replayed).result()
        died += count
        _same(ended, found, f"with seed {seed}, after the process died after each of {count} records")
    return _lives(died, ended)


def crash_check(
    module: Module[Any, Any], value: object, *, journal: Callable[[], Any], engine: Engine,
    during: During | None = None, seeds: int | Iterable[int] = 1, order: Order = "random",
) -> Lives:  # fmt: skip
    """Run a module durably once for each write of its journal, let the process die there, and let another carry on.

    The process dies right before the write in one run, and right after it in the next. Whatever the write was, the run
    has to end as it does undisturbed.

    Args:
        module: As of `replay_check`, like all others.
        value: What it is called with.
        journal: Makes an empty journal.
        engine: Makes an engine over a journal.
        during: Called with each engine that carries the run on.
        seeds: How many interleavings to try, or which.
        order: Their order.

    Returns:
        How often the process died, and how the run ended.

    Raises:
        DurabilityError: If the run ended in another way than it does undisturbed.
        ConfigError: If the journal cannot lose leases.

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
    check, died, ended = _Check(module, value, journal, engine, during), 0, None
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        simulation = Simulation(seed=seed, order=order)
        ended = simulation.run(check.straight).result()
        for after in (False, True):
            for at in range(MOST):
                found, where = simulation.run(partial(check.crashed, at, after=after)).result()
                _same(ended, found, f"with seed {seed}, after the process died {where or 'never'}")
                if not where:
                    break
                died += 1
    return _lives(died, ended)


def _same(ended: Ended | None, found: Ended | None, when: str) -> None:
    if ended != found:
        raise DurabilityError(f"{when[0].upper()}{when[1:]}, the run ended with {found!r} instead of {ended!r}")


def _lives(died: int, ended: Ended | None) -> Lives:
    assert ended is not None
    return Lives(died, ended[1]) if ended[0] == "ok" else Lives(died, None, f"{ended[0].__name__}: {ended[1]}")
