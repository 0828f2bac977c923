"""In which order what is ready runs: the rule by which a seed becomes an interleaving."""

import asyncio
from collections import deque
from typing import Any, Literal, Protocol

from ..errors import ConfigError
from .seeds import Rng

Order = Literal["fifo", "random", "pct"]
_Ready = deque[asyncio.Handle]


class Chooser(Protocol):
    """Chooses which of the callbacks that are ready runs next."""

    def choose(self, ready: _Ready, step: int) -> int:  # pyright: ignore[reportReturnType]
        """Return the index of one of *ready*, of which there are at least two."""


def owner_of(handle: asyncio.Handle) -> "asyncio.Future[Any] | None":
    """Return the task or future that *handle* is a callback of."""
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner if isinstance(owner, asyncio.Future) else None  # pyright: ignore[reportUnknownVariableType]


class _Fifo:
    """As an ordinary loop does it."""

    def choose(self, ready: _Ready, step: int) -> int:
        return 0


class _Random:
    """Any of them, with equal chances."""

    def __init__(self, rng: Rng) -> None:
        self.draw = rng.random

    def choose(self, ready: _Ready, step: int) -> int:
        return int(self.draw() * len(ready))


class _Pct:
    """The task of the highest priority; priorities are random and change at a few random steps.

    It finds orders that random choice hardly ever gives: one task starved for long, while the others go on. Far beyond
    its horizon it chooses at random: what calls itself again until a task has run, as a cancelled scope of anyio does,
    would starve that task for ever.

    Source:
        Burckhardt, Kothari, Musuvathi, Nagarakatte: "A Randomized Scheduler with Probabilistic Guarantees of Finding
        Bugs", ASPLOS 2010.
    """

    CHANGES = 3

    def __init__(self, rng: Rng, horizon: int) -> None:
        self.draw = rng.random
        self.last = 1_000 + 10 * horizon
        self.changes = {int(rng.random() * horizon) for _ in range(self.CHANGES)}
        self.tasks: dict[object, float] = {}  # by task, which is kept: an address may come again
        self.others: dict[int, tuple[object, float]] = {}  # by address; with the callback, so that none comes again

    def choose(self, ready: _Ready, step: int) -> int:
        if step > self.last:
            return int(self.draw() * len(ready))
        rank = [self._priority(handle) for handle in ready]
        if step in self.changes and (owner := owner_of(ready[rank.index(max(rank))])) is not None:
            self.tasks[owner] = -self.draw()
            rank = [self._priority(handle) for handle in ready]
        return rank.index(max(rank))

    def _priority(self, handle: asyncio.Handle) -> float:
        owner = owner_of(handle)
        if owner is None:
            if id(handle) not in self.others:
                self.others[id(handle)] = handle, self.draw()
            return self.others[id(handle)][1]
        if owner not in self.tasks:
            self.tasks[owner] = self.draw()
        return self.tasks[owner]


def chooser(order: str, rng: Rng, horizon: int) -> Chooser:
    """Return what chooses in that *order*.

    Raises:
        ConfigError: If there is no such order.
    """
    if order == "fifo":
        return _Fifo()
    if order == "random":
        return _Random(rng)
    if order == "pct":
        return _Pct(rng, horizon)
    raise ConfigError(f"Simulation: order={order!r} is unknown; it is 'fifo', 'random' or 'pct'")
