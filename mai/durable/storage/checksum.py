"""The checksum that each row carries.

SQLite finds a damaged page only where the damage makes no sense; a flipped bit in a value does. So every row ends with
a CRC-32 over all its other columns, begun with the id of the journal, so that a row of another file is seen too.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

__all__ = ["checksum", "record_checksum", "seed_of"]

Column = str | bytes | int | float | None
_NUMBERS: Final = struct.Struct("<9q3d").pack


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


def record_checksum(seed: int, row: Sequence[Any]) -> int:
    """Return the checksum of a row of ``mai_record``, of which there are so many that it has a quick one of its own.

    The numbers come first, with the lengths of all else among them, then the texts, then the payloads.
    """
    run_id, path, seq, kind, given, output, error, due, attempt, started, ended, version = row
    payloads = [payload for payload in (given, output, error) if payload is not None]
    try:
        numbers = _NUMBERS(
            seq, attempt, len(run_id), len(path), len(kind), -1 if version is None else len(version),
            -1 if given is None else _size(given), -1 if output is None else _size(output),
            -1 if error is None else _size(error), math.nan if due is None else due, started, ended,
        )  # fmt: skip
        data = f"{run_id}{path}{kind}{version or ''}".encode()
        for payload in payloads:
            data += payload if type(payload) is bytes else payload.encode()
    except (struct.error, TypeError, AttributeError):
        return -1  # no number, or no text, where one should be: this was damaged
    return crc32(data, crc32(numbers, seed))


def _size(payload: bytes | str) -> int:
    """Return a number that tells a payload from the address of one."""
    return len(payload) if type(payload) is bytes else -2 - len(payload)
