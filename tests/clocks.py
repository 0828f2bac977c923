"""Simulated time: exchange the readings of the kernel's clock seam for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mai.core.clock import clock


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
