"""The files of a journal: opening and closing them, seeing that they are still the same, and what SQLite says of them.

A journal that is open, or was not closed, is in WAL mode; whoever closes it last puts it back into one plain file. So
a file in WAL mode without its ``-wal`` has lost it, and that is seen.
"""

import os
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal

from ...errors import CorruptJournal, JournalError
from .checksum import seed_of
from .rows import Book
from .schema import identity, mark, migrate

__all__ = ["Durability", "Files", "explained"]

Durability = Literal["power", "process"]

CHECKPOINT: Final = 4_000  # pages in the -wal before they are copied into the file, 16 MB
WAL_LIMIT: Final = 64 << 20  # bytes to which a -wal that a reader held up is cut back
LOOKS: Final = 50  # how often the files must look wrong, since another process may just open or close them
PAUSE: Final = 0.01  # between two looks [s]
CLOSINGS: Final = 10  # how often a journal that was left is looked at once more, as long as others come and leave
PROBES: Final = 2  # how often, while there is a -wal: others have it open, or left in the same moment
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

_pause: Callable[[float], object] = threading.Event().wait
_open: Counter[tuple[int, int, int]] = Counter()  # device, inode and the process that has opened the file


def _size(name: str) -> int | None:
    """Return how many bytes a file has, None if there is none."""
    try:
        return os.stat(name).st_size
    except FileNotFoundError:
        return None


def _node(name: str) -> int | None:
    """Return the inode of a file, None if there is none."""
    try:
        return os.stat(name).st_ino
    except FileNotFoundError:
        return None


def _in_wal(connection: sqlite3.Connection) -> bool:
    """Whether the file is in WAL mode; if so nobody takes it out of it as long as this connection is open."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # what is asked next does not look by itself
    return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def explained(error: BaseException, path: str) -> JournalError:
    """Return what to tell of an error of SQLite or of the file system."""
    if isinstance(error, JournalError):
        return error
    code = sqlite3.SQLITE_PERM if isinstance(error, PermissionError) else getattr(error, "sqlite_errorcode", 0)
    plain = code & 0xFF
    if plain in _DAMAGE or "decode to UTF-8" in str(error):
        said = _DAMAGE.get(plain, "it was damaged; restore a backup")
        told: JournalError = CorruptJournal(f"{path!r}: {said} ({error})", path=path)
    else:
        told = JournalError(f"{path!r}: {_SAID.get(plain, 'it cannot be used')} ({error})", path=path)
    told.__cause__ = error
    return told


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
        self._nodes: dict[str, int] = {}
        self.seed: int = 0
        self.lost_wal: bool = False

    def open(self) -> Book:
        """Open the first connection, the one that writes, and bring the tables up to date."""
        misses_wal = self._look()
        made = not _size(self.path)
        connection = self.connect()
        try:
            if made:  # with tables in it this would be a write, and change nothing
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            self.lost_wal = mode == "wal" and misses_wal and self._alone(connection)
            self._prepare(connection)
            self._to_wal(connection)
        except BaseException:
            connection.close()
            raise
        facts = os.stat(self.path)
        self._key = (facts.st_dev, facts.st_ino, os.getpid())
        self._nodes = {end: os.stat(self.path + end).st_ino for end in ("", "-wal", "-shm")}
        _open[self._key] += 1
        return Book(connection, self.path, self.seed)

    def connect(self, patience: float | None = None) -> sqlite3.Connection:
        """Open a connection, to be used in this thread only."""
        wait = self.patience if patience is None else patience
        connection = sqlite3.connect(
            self.path, timeout=wait, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        settings = {
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

    def _to_wal(self, connection: sqlite3.Connection) -> None:
        """Put the file into WAL mode, and keep it there; SQLite does not wait by itself for those who read or leave it.

        Who left it in the meantime took the mark away: that is put back.
        """
        left = round(self.patience / PAUSE)
        while not _in_wal(connection):
            try:
                if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                    raise JournalError(f"{self.path!r} cannot be in WAL mode; put it on a local disk", path=self.path)
            except sqlite3.OperationalError as error:
                left -= 1
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or left < 0:
                    raise
                _pause(PAUSE)
        connection.execute("DELETE FROM mai_owner WHERE owner NOT IN (SELECT owner FROM mai_run WHERE owner > '')")
        connection.execute("BEGIN IMMEDIATE")
        mark(connection, self.path, opened=True)
        connection.execute("COMMIT")
        if not self._said():  # it stands in the -wal only
            connection.execute("PRAGMA wal_checkpoint(FULL)")

    def same(self) -> None:
        """See that the files are still those that were opened.

        Raises:
            JournalError: If not; what was written is in files that nobody will find.
        """
        for end, node in self._nodes.items():
            name = self.path + end
            if _node(name) != node:
                facts = f"{name!r} was deleted or replaced while it was open; nothing more is written"
                raise JournalError(f"{facts}; start again on the right file", path=self.path)

    def close(self, connection: sqlite3.Connection) -> None:
        """Close the last connection; if no other process has one, only the plain file is left."""
        self._leave(connection)
        _open[self._key] -= 1
        probes = PROBES
        with suppress(sqlite3.Error):  # what is there is whole; who leaves it next puts it back into one file
            for _ in range(CLOSINGS):  # who leaves while another one does is not alone, and yet may be the last
                if _node(self.path) != self._nodes[""] or not self._said():
                    return
                if _size(self.path + "-wal") is not None:
                    probes -= 1
                    if probes < 0:
                        return
                    _pause(PAUSE * (1 + os.getpid() % 8) / 8)  # those who leave it do not try again at once
                self._leave(self.connect(0.0))

    def _leave(self, connection: sqlite3.Connection) -> None:
        with closing(connection), suppress(sqlite3.Error):  # another process has it open, or the disk is full
            connection.execute("PRAGMA busy_timeout = 0")
            if not _in_wal(connection):  # another one has just taken it out of it, or will put it into it
                return
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # nobody comes in between these two
            connection.execute("PRAGMA journal_mode = DELETE")
            mark(connection, self.path, opened=False)

    def _look(self) -> bool:
        """Look at what is there before SQLite opens, and so makes, the files; say whether there should be a -wal.

        Nothing keeps other processes from opening and closing the file meanwhile: what looks wrong is looked at again.
        """
        wrong = self._wrong()
        for _ in range(LOOKS):
            if not wrong:
                return False
            _pause(PAUSE)
            wrong = self._wrong()
        if wrong == "strays":
            wal = f"{self.path}-wal"
            why = f"{wal!r} does not belong to {self.path!r}, which was closed without one, as a backup is"
            raise JournalError(f"{why}; move the -wal away", path=self.path)
        return wrong == "misses"

    def _wrong(self) -> Literal["", "misses", "strays"]:
        """Say what the -wal does that it should not do, as it looks now."""
        filled = _size(self.path + "-wal")
        said = self._said() if self._exists(filled) else None  # None: SQLite would use any that is there
        return "misses" if filled is None and said else "strays" if filled and said is False else ""

    def _exists(self, filled: int | None) -> bool:
        """Whether the file is there and not empty, with *filled* bytes in its -wal; if not, whether it can be made."""
        try:
            facts = os.stat(self.path)
        except FileNotFoundError:
            folder = os.path.dirname(self.path)
            if not os.path.isdir(folder):
                raise JournalError(f"{self.path!r}: there is no folder {folder!r}", path=self.path) from None
            if filled:
                why = f"there is a file {self.path + '-wal'!r}, but not the one that it belongs to"
                raise JournalError(f"{why}; bring that back, or move this away", path=self.path) from None
            if not self._create:
                raise JournalError(f"{self.path!r}: there is no such file", path=self.path) from None
            return False
        if not stat.S_ISREG(facts.st_mode):
            raise JournalError(f"{self.path!r} is no regular file", path=self.path)
        node = (facts.st_dev, facts.st_ino)
        if any(key[:2] == node and key[2] != os.getpid() and count for key, count in _open.items()):
            why = f"{self.path!r} was open in the process that this one was forked from, where SQLite keeps its locks"
            raise JournalError(f"{why}; start workers by spawn, or fork before it is opened", path=self.path)
        return facts.st_size > 0

    def _said(self) -> bool | None:
        """Whether the file itself, without its -wal, says that there may be one; None if it does not say."""
        look = sqlite3.connect(f"{Path(self.path).as_uri()}?immutable=1&mode=ro", uri=True)
        with closing(look), suppress(sqlite3.Error, CorruptJournal):  # what is half copied into it may look damaged
            found = identity(look, self.path)
            return None if found is None else bool(found.open)
        return None

    def _alone(self, connection: sqlite3.Connection) -> bool:
        """Whether no other process has the file open, nor has just closed it in order."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
            found = identity(connection, self.path)
        except sqlite3.OperationalError:
            return False
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(self.patience * 1000)}")
        return found is not None and bool(found.open)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make or migrate the tables, and learn by which journal's id the rows are checked."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._create and identity(connection, self.path) is None:
                raise JournalError(f"{self.path!r} has no journal", path=self.path)
            self.seed = seed_of(migrate(connection, self.path).id)
            mark(connection, self.path, opened=True)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
