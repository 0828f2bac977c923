"""The seam for identities and chance: the only file that draws random numbers.

Ids come from the operating system, so neither ``random.seed`` nor a fork can make two runs share one.
"""

import os
import uuid
from collections.abc import Callable


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return os.urandom(16).hex()


def new_uuid() -> str:
    """Return a random UUID, as text."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))


class Chance:
    """Random numbers in [0, 1), behind one attribute, so that a simulation can hand out its own."""

    draw: Callable[[], float] = staticmethod(lambda: int.from_bytes(os.urandom(6), "big") / (1 << 48))


chance: Chance = Chance()
