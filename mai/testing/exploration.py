"""Many simulated runs of one program: the first failure is raised, and says how to see it again."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, Unpack

from ..errors import ConfigError
from .errors import Crash, SimulationError
from .orders import Order
from .simulation import Conditions, Main, Simulation, Trial

T = TypeVar("T")
Event = Literal["cancel", "fail", "crash"]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What `explore` has seen, when nothing failed.

    Attributes:
        runs: How many runs were simulated.
        interleavings: How many of them were different. If it is 1, nothing in the program runs concurrently.
        steps: All their steps.
    """

    runs: int
    interleavings: int
    steps: int


def explore(
    main: Main[T],
    *,
    seeds: "int | Iterable[int]" = 1000,
    orders: tuple[Order, ...] = ("random", "pct"),
    at_every_step: Event | None = None,
    check: Callable[[Trial[T]], object] | None = None,
    **conditions: Unpack[Conditions],
) -> Exploration:
    """Simulate ``await main()`` under many seeds; raise the first failure, saying how to see it again.

    A run fails if *main* or *check* raises, if it could not end, or if it left something behind. The error is the
    original one; a note tells the seed and the last steps of the schedule. Before all others the program runs once in
    the order of an ordinary loop.

    Args:
        main: Makes the program; it is called anew for each run, so what the program works on is to be made inside.
        seeds: How many, from 0, or which.
        orders: The orders to take turns with, seed by seed.
        at_every_step: For each seed cancel the program at its first step, in the next run at its second one, and so
            on; or let the pause fail that ends there, or let the process die. That the program then ends with the
            cancel, the fault or the crash is no failure; what else has to hold is for *check* to say.
        check: Called with the `Trial` of each run; it raises what is wrong.
        conditions: Those of `Simulation`.

    Raises:
        ConfigError: If *orders* is empty.

    Example:
        >>> import asyncio
        >>> from mai import Parallel, module
        >>> from mai.testing import explore
        >>> async def main() -> None:
        ...     loaded = set()
        ...     @module
        ...     async def load(name: str) -> None:
        ...         await asyncio.sleep(1)
        ...         loaded.add(name)
        ...     @module
        ...     async def use(name: str) -> None:
        ...         await asyncio.sleep(1)
        ...         assert name in loaded, "used before it was loaded"
        ...     await Parallel(load, use)("model")
        >>> try:
        ...     explore(main, seeds=100)
        ... except AssertionError as error:
        ...     print(error, error.__notes__[-1].splitlines()[0], sep=chr(10))
        used before it was loaded
        mai.testing: seed 1; to see it again: simulate(main, seed=1, order='pct', horizon=9)
    """
    if not orders:
        raise ConfigError("explore: orders=() names none; give at least one of 'random', 'pct' and 'fifo'")
    plain = _tried(Simulation(order="fifo", **conditions), main, None, check)
    runs, steps, seen = 0, 0, set[int]()
    given: Any = {"horizon": plain.steps, **conditions}
    for number in range(seeds) if isinstance(seeds, int) else seeds:
        base = Simulation(seed=number, order=orders[number % len(orders)], **given)
        for outcome in _trials(base, main, at_every_step, check):
            runs, steps = runs + 1, steps + outcome.steps
            seen.add(outcome.digest)
    return Exploration(runs, len(seen), steps)


_EXPECTED: dict[Event, Any] = {"cancel": asyncio.CancelledError, "fail": Exception, "crash": Crash}


def _trials(
    base: Simulation, main: Main[T], event: Event | None, check: Callable[[Trial[T]], object] | None
) -> Iterator[Trial[T]]:
    """Yield the outcomes of one seed."""
    step = 1
    while True:
        at: Any = {} if event is None else {f"{event}_at": step}
        trial = replace(base, **at)
        outcome = _tried(trial, main, event, check)
        yield outcome
        if event is None or not outcome.at_step:
            return
        step = outcome.at_step + 1


def _tried(
    trial: Simulation, main: Main[T], event: Event | None, check: Callable[[Trial[T]], object] | None
) -> Trial[T]:
    try:
        outcome = trial.run(main)
        if outcome.error is not None and not (event is not None and _is_due(outcome, event)):
            raise outcome.error
        if check is not None:
            check(outcome)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        error.add_note(_how_to_repeat(trial, main, error))
        raise
    return outcome


def _is_due(outcome: Trial[Any], event: Event) -> bool:
    """Say whether the run ended as it may after what met it."""
    return outcome.at is not None and isinstance(outcome.error, _EXPECTED[event])


def _how_to_repeat(trial: Simulation, main: Main[Any], error: BaseException) -> str:
    """Run it once more, recorded, and tell what happened."""
    told = f"mai.testing: seed {trial.seed}; to see it again: {trial}"
    try:
        outcome = replace(trial, record=True).run(main)
    except SimulationError as again:
        return f"{told}\n{again.schedule}"
    if isinstance(error, SimulationError):
        return f"{told}\nIt did not fail again: something that is not simulated has a say in it"
    return f"{told}\n{outcome.schedule}"
