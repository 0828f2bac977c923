"""The checksum that each row carries.

SQLite finds a damaged page only where the damage makes no sense; a flipped bit in a value does. So every row ends with
a CRC-32 over all its other columns, begun with the id of the journal, so that a row of another file is seen too.
"""

from collections.abc import Sequence
from zlib import crc32

__all__ = ["checksum", "seed_of"]

Column = str | bytes | int | float | None


def seed_of(journal_id: str) -> int:
    """Return what the checksums of a journal begin with."""
    return crc32(journal_id.encode())


def checksum(seed: int, columns: Sequence[Column]) -> int:
    """Return the checksum of a row.

    ``ascii`` is the same in every Python, as ``repr`` is not: which characters are printable changes.
    """
    crc = crc32(ascii([(len(column),) if type(column) is bytes else column for column in columns]).encode(), seed)
    for column in columns:
        if type(column) is bytes:
            crc = crc32(column, crc)
    return crc
