"""Simulated time and chance: exchange what the kernel's seams give for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mai.core.clock import clock
from mai.core.ids import chance


@contextmanager
def replaced(now: Callable[[], float]) -> Iterator[None]:
    """Take all three readings of the clock from *now* [s] until the block ends."""
    before = dict(vars(clock))
    vars(clock).update(now=now, ticks=lambda: int(now() * 1e9), wall=now)
    try:
        yield
    finally:
        vars(clock).clear()
        vars(clock).update(before)


@contextmanager
def drawn(value: float) -> Iterator[None]:
    """Let every random number be *value* until the block ends."""
    vars(chance)["draw"] = lambda: value
    try:
        yield
    finally:
        vars(chance).clear()
