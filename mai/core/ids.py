"""The seam for identities: the only file that draws random numbers.

Ids come from the operating system, so neither ``random.seed`` nor a fork can make two runs share one.
"""

import os


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return os.urandom(16).hex()
