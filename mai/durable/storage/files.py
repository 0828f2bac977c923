"""The files of a journal: opening and closing them, seeing that they are still the same, and what SQLite says of them.

A journal that is open, or was not closed, is in WAL mode; whoever closes it last puts it back into one plain file. So
a file in WAL mode without its ``-wal`` has lost it, and that is seen.
"""

import os
import sqlite3
import stat
from collections import Counter
from contextlib import suppress
from typing import Final, Literal

from ...errors import CorruptJournal, JournalError
from .checksum import seed_of
from .rows import Book
from .schema import identity, migrate

__all__ = ["Durability", "Files", "explained"]

Durability = Literal["power", "process"]

CHECKPOINT: Final = 4_000  # pages in the -wal before they are copied into the file, 16 MB
WAL_LIMIT: Final = 64 << 20  # bytes to which a -wal that a reader held up is cut back
_SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}
_SAID: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this was written; free some space, then go on",
    sqlite3.SQLITE_BUSY: "another process held the file for too long",
    sqlite3.SQLITE_LOCKED: "another connection holds a table",
    sqlite3.SQLITE_READONLY: "it cannot be written; look at the permissions of the file and of its folder",
    sqlite3.SQLITE_PERM: "it cannot be written; look at the permissions of the file and of its folder",
    sqlite3.SQLITE_AUTH: "it cannot be written; look at the permissions of the file and of its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and of its folder",
    sqlite3.SQLITE_IOERR: "reading or writing failed; look at the disk",
    sqlite3.SQLITE_TOOBIG: "a payload is larger than SQLite can keep, 1 GB",
}
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT: "it was damaged; restore a backup", sqlite3.SQLITE_NOTADB: "it is no journal"}

_open: Counter[tuple[int, int, int]] = Counter()  # device, inode and the process that has opened the file


def explained(error: BaseException, path: str) -> JournalError:
    """Return what to tell of an error of SQLite or of the file system."""
    if isinstance(error, JournalError):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    plain = None if code is None else code & 0xFF
    if plain in _DAMAGE or (plain is None and "decode to UTF-8" in str(error)):
        said = _DAMAGE.get(plain or 0, "it was damaged; restore a backup")
        return CorruptJournal(f"{path!r}: {said} ({error})", path=path)
    return JournalError(f"{path!r}: {_SAID.get(plain or 0, 'it cannot be used')} ({error})", path=path)


class Files:
    """The file of a journal and those that SQLite puts beside it, opened in this process.

    Raises:
        JournalError: If they cannot be opened, or not in this process.
        CorruptJournal: If they are no journal, or a damaged one.
    """

    def __init__(self, path: str, durability: Durability, patience: float, *, create: bool) -> None:
        self.path = path
        self.durability = durability
        self.patience = patience  # how long to wait for another process [s]
        self._create = create
        self._key = (0, 0, 0)
        self._had_wal = False
        self._nodes: dict[str, int] = {}
        self.seed = 0
        self.lost_wal = False

    def open(self) -> Book:
        """Open the first connection, the one that writes, and bring the tables up to date."""
        self._look()
        connection = self.connect()
        try:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            self.lost_wal = mode == "wal" and not self._had_wal
            self._prepare(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("DELETE FROM mai_owner WHERE owner NOT IN (SELECT owner FROM mai_run WHERE owner > '')")
        except BaseException:
            connection.close()
            raise
        facts = os.stat(self.path)
        self._key = (facts.st_dev, facts.st_ino, os.getpid())
        self._nodes = {end: os.stat(self.path + end).st_ino for end in ("", "-wal", "-shm")}
        _open[self._key] += 1
        return Book(connection, self.path, self.seed)

    def connect(self) -> sqlite3.Connection:
        """Open a connection, to be used in this thread only."""
        connection = sqlite3.connect(
            self.path, timeout=self.patience, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        settings = {
            "auto_vacuum": "INCREMENTAL",
            "synchronous": _SYNCHRONOUS[self.durability],
            "wal_autocheckpoint": CHECKPOINT,
            "journal_size_limit": WAL_LIMIT,
            "cell_size_check": "ON",
            "trusted_schema": "OFF",
        }
        try:
            for name, value in settings.items():
                connection.execute(f"PRAGMA {name} = {value}")
        except BaseException:
            connection.close()
            raise
        return connection

    def same(self) -> None:
        """See that the files are still those that were opened.

        Raises:
            JournalError: If not; what was written is in files that nobody will find.
        """
        for end, node in self._nodes.items():
            name = self.path + end
            try:
                same = os.stat(name).st_ino == node
            except FileNotFoundError:
                same = False
            if not same:
                facts = f"{name!r} was deleted or replaced while it was open; nothing more is written"
                raise JournalError(f"{facts}; start again on the right file", path=self.path)

    def close(self, connection: sqlite3.Connection) -> None:
        """Close the last connection; if no other process has one, only the plain file is left."""
        with suppress(sqlite3.Error):  # another process has it open, or the disk is full: the -wal stays
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        _open[self._key] -= 1

    def _look(self) -> None:
        """Look at what is there before SQLite opens, and so makes, the files."""
        try:
            facts = os.stat(self.path)
        except FileNotFoundError:
            folder = os.path.dirname(self.path)
            if not os.path.isdir(folder):
                raise JournalError(f"{self.path!r}: there is no folder {folder!r}", path=self.path) from None
            if not self._create:
                raise JournalError(f"{self.path!r}: there is no such file", path=self.path) from None
            self._had_wal = os.path.exists(self.path + "-wal")
            return
        if not stat.S_ISREG(facts.st_mode):
            raise JournalError(f"{self.path!r} is no regular file", path=self.path)
        self._had_wal = os.path.exists(self.path + "-wal")
        node = (facts.st_dev, facts.st_ino)
        if any(key[:2] == node and key[2] != os.getpid() and count for key, count in _open.items()):
            why = f"{self.path!r} was open in the process that this one was forked from, where SQLite keeps its locks"
            raise JournalError(f"{why}; start workers by spawn, or fork before it is opened", path=self.path)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make or migrate the tables, and learn by which journal's id the rows are checked."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._create and identity(connection, self.path) is None:
                raise JournalError(f"{self.path!r} has no journal", path=self.path)
            self.seed = seed_of(migrate(connection, self.path).id)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
