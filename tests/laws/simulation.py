"""What the laws ask of a simulated run, all in random order."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mai.testing import Simulation, SimulationLoop, Trial


def simulate(main: Callable[[], Coroutine[Any, Any, Any]], seed: int = 0, cancel_at: int | None = None) -> Trial[Any]:
    """Run ``main()``, cancelling it before step *cancel_at* of the loop, and return how it ended."""
    return Simulation(seed=seed, cancel_at=cancel_at, max_steps=50_000).run(main)


def loop_of() -> SimulationLoop:
    """Return the loop of the simulated run."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    return loop


def unfinished() -> int:
    """Return how many tasks of the simulated run have not ended."""
    return len(loop_of().unfinished())
