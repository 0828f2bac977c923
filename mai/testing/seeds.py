"""Chance that can be had again: the only file here that touches `random`, and only ever with a seed."""

import random
from collections.abc import Generator
from contextlib import contextmanager

Rng = random.Random


def generator(*seed: object) -> Rng:
    """Return a generator of its own for *seed*; it must be the same each time, so it is no secret."""
    return random.Random(" ".join(map(str, seed)))  # nosec B311


@contextmanager
def seeded(seed: float) -> Generator[None]:
    """Let what the program itself draws from `random` be a function of *seed*, until the block ends."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
