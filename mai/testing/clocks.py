"""Simulated time and chance: exchange what the kernel's seams give for the length of a block."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

from ..core.clock import clock
from ..core.ids import chance
from ..errors import ConfigError


@contextmanager
def exchanged(seam: object, **readings: Callable[..., Any]) -> Generator[None]:
    """Let the attributes of a *seam* be *readings* until the block ends."""
    before = dict(vars(seam))
    vars(seam).update(readings)
    try:
        yield
    finally:
        vars(seam).clear()
        vars(seam).update(before)


class FakeClock:
    """A clock that goes when it is told to, in place of the one that `mai` reads, until the block ends.

    It is for code that looks at the time; what an event loop waits for goes by the loop's own clock, which `simulate`
    makes virtual. It concerns the whole process, so only one test at a time should use it.

    Args:
        now: Where it begins [s, monotonic].
        wall: What it takes for the time of day at its beginning [s since the epoch]; None: *now*.

    Example:
        >>> from mai import Context
        >>> from mai.testing import FakeClock
        >>> with FakeClock(now=100.0) as clock, Context.scope(timeout=30):
        ...     clock.advance(20)
        ...     Context.get().deadline - clock.now
        10.0
    """

    def __init__(self, now: float = 1000.0, *, wall: float | None = None) -> None:
        self.now: float = now
        self.wall: float = now if wall is None else wall
        self._blocks: list[Any] = []

    def advance(self, seconds: float) -> None:
        """Let both times pass.

        Raises:
            ConfigError: If *seconds* is negative: monotonic time never goes back; assign to ``wall`` for that.
        """
        if seconds < 0:
            raise ConfigError(f"FakeClock: advance({seconds!r}) would go back; assign to wall to set the time of day")
        self.now += seconds
        self.wall += seconds

    def __enter__(self) -> Self:
        readings = {"now": lambda: self.now, "ticks": lambda: round(self.now * 1e9), "wall": lambda: self.wall}
        self._blocks.append(exchanged(clock, **readings))
        self._blocks[-1].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._blocks.pop().__exit__(None, None, None)


@contextmanager
def fixed_chance(value: float) -> Generator[None]:
    """Let every random number that `mai` draws, such as the jitter of a backoff, be *value* until the block ends.

    Args:
        value: From 0 to 1.

    Raises:
        ConfigError: If it is outside of that.

    Example:
        >>> from mai import Retry
        >>> from mai.testing import fixed_chance
        >>> with fixed_chance(0.5):
        ...     Retry(3, base=8.0).pause(1, OSError())
        4.0
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"fixed_chance({value!r}) is not in [0, 1]")
    with exchanged(chance, draw=lambda: value):
        yield
