"""The seam for identities and chance: the only file that draws random numbers.

Ids come from the operating system, so neither ``random.seed`` nor a fork can make two runs share one.
"""

import os
from collections.abc import Callable


class Chance:
    """Random numbers in [0, 1) and random bytes, behind attributes, so that a simulation can hand out its own."""

    draw: Callable[[], float] = staticmethod(lambda: int.from_bytes(os.urandom(6), "big") / (1 << 48))
    take: Callable[[int], bytes] = staticmethod(os.urandom)


chance: Chance = Chance()


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return chance.take(16).hex()
