"""Large payloads: kept once, under the address that their content gives, and deleted with the last run that uses them.

In a payload column bytes are the payload itself, and a text is its address.
"""

import hashlib
import sqlite3
from typing import Final

from ...errors import CorruptJournal

__all__ = ["LARGEST_INLINE", "address_of", "drop_uses", "keep", "load", "share"]

LARGEST_INLINE: Final = 1 << 20  # bytes


def address_of(data: bytes) -> str:
    """Return the content address of *data*."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def keep(connection: sqlite3.Connection, run_id: str, data: bytes) -> str:
    """Keep *data* for the run, and return its address."""
    address = address_of(data)
    connection.execute("INSERT OR IGNORE INTO mai_blob VALUES(?, ?)", (address, data))
    connection.execute("INSERT OR IGNORE INTO mai_blob_use VALUES(?, ?)", (run_id, address))
    return address


def share(connection: sqlite3.Connection, run_id: str, column: str | bytes | None) -> None:
    """Note that *run_id* uses what stands in a payload column of another row."""
    if isinstance(column, str):
        connection.execute("INSERT OR IGNORE INTO mai_blob_use VALUES(?, ?)", (run_id, column))


def load(connection: sqlite3.Connection, address: str, path: str) -> bytes:
    """Return what has this address.

    Raises:
        CorruptJournal: If nothing has, or it is something else by now.
    """
    row = connection.execute("SELECT data FROM mai_blob WHERE address = ?", (address,)).fetchone()
    if row is None or type(row[0]) is not bytes or address_of(row[0]) != address:
        state = "is missing" if row is None else "was damaged"
        raise CorruptJournal(f"{path!r}: the content {address[:16]}... {state}; restore a backup", path=path)
    return row[0]


def drop_uses(connection: sqlite3.Connection, run_id: str) -> None:
    """Forget what the run used, and delete what no other uses."""
    own = "SELECT address FROM mai_blob_use WHERE run_id = ?"
    others = "SELECT 1 FROM mai_blob_use u WHERE u.address = mai_blob.address AND u.run_id != ?"
    connection.execute(f"DELETE FROM mai_blob WHERE address IN ({own}) AND NOT EXISTS ({others})", (run_id, run_id))
    connection.execute("DELETE FROM mai_blob_use WHERE run_id = ?", (run_id,))
