"""A directory that cannot be left: every way into it goes from its root, name by name, and follows no link.

Each name is opened relative to the directory before it (``openat``) with ``O_NOFOLLOW``, so there is no moment between
the check of a path and its use in which somebody could exchange a directory for a link.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mai.core.ids import new_id
from mai.errors import ConfigError

from .errors import AccessRefused

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Root:
    """A directory, and what may be opened below it.

    Args:
        path: The directory; a link to one is followed here, once.
        hidden: Whether names that begin with a dot are there.

    Raises:
        ConfigError: If it is no directory, or the system cannot open files relative to a directory.
    """

    def __init__(self, path: str | os.PathLike[str], *, hidden: bool = False) -> None:
        self.path: Path = Path(path).resolve()
        self.hidden: bool = hidden
        if not self.path.is_dir():
            raise ConfigError(f"{str(path)!r} is no directory")
        if os.open not in os.supports_dir_fd or os.scandir not in os.supports_fd:
            raise ConfigError("this system cannot open a file relative to a directory, so nothing can be confined")

    def parts(self, path: str) -> list[str]:
        """Return the names in *path*, which is relative to the root.

        Raises:
            AccessRefused: If it could lead out of the root, or names what is hidden.
        """
        if "\0" in path:
            raise AccessRefused(f"the path {path!r} has a null character")
        if path.startswith("/"):
            raise AccessRefused(f"the path {path!r} is absolute; give one relative to the root, such as 'a/b.txt'")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for part in parts:
            if part == "..":
                raise AccessRefused(f"the path {path!r} has '..'; give one that goes down from the root only")
            if self.is_hidden(part):
                raise AccessRefused(f"the path {path!r} has a name that begins with a dot; such files are not shown")
        return parts

    def is_hidden(self, name: str) -> bool:
        """Say whether a file of this name is to be treated as if it were not there."""
        return name.startswith(".") and not self.hidden

    @contextmanager
    def directory(self, path: str, *, make: bool = False) -> Generator[int]:
        """Open the directory *path* for the length of a block; with *make*, make those that are missing."""
        at = os.open(self.path, _DIRECTORY)
        try:
            for part in self.parts(path):
                if make:
                    _make(part, at)
                inner = self.enter(part, at, path)
                os.close(at)
                at = inner
            yield at
        finally:
            os.close(at)

    def enter(self, name: str, at: int, path: str) -> int:
        """Open the directory *name* of the directory *at*; *path* is what messages call it."""
        try:
            return os.open(name, _DIRECTORY, dir_fd=at)
        except OSError as error:
            raise _explained(error, name, at, path) from None

    def file(self, name: str, at: int, path: str) -> int:
        """Open the regular file *name* of the directory *at* for reading."""
        try:
            found = os.open(name, _FILE, dir_fd=at)
        except OSError as error:
            raise _explained(error, name, at, path) from None
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise AccessRefused(f"{path!r} is no regular file")
        return found

    @contextmanager
    def open(self, path: str) -> Generator[int]:
        """Open the regular file *path* for reading, for the length of a block."""
        *above, name = self.parts(path) or [""]
        if not name:
            raise AccessRefused(f"{path!r} is the root, not a file")
        with self.directory("/".join(above)) as at:
            found = self.file(name, at, path)
        try:
            yield found
        finally:
            os.close(found)

    def write(self, path: str, data: bytes) -> bool:
        """Put *data* into the file *path*, in one step that nobody sees half done; say whether there was one before.

        A new file takes the place of the old one, so that other names (hard links) of the old one keep its content.
        """
        *above, name = self.parts(path) or [""]
        if not name:
            raise AccessRefused(f"{path!r} is the root, not a file")
        with self.directory("/".join(above), make=True) as at:
            before = _look(name, at)
            if before is not None and not stat.S_ISREG(before.st_mode):
                raise AccessRefused(f"{path!r} is there, and is no regular file")
            temporary = f".{new_id()}.tmp"
            out = os.open(temporary, _NEW, 0o666, dir_fd=at)
            try:
                with os.fdopen(out, "wb") as file:
                    if before is not None:
                        os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode) & 0o777)
                    file.write(data)
                os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                os.unlink(temporary, dir_fd=at)
                raise
        return before is not None


def _make(name: str, at: int) -> None:
    try:
        os.mkdir(name, dir_fd=at)
    except FileExistsError:
        pass


def _look(name: str, at: int) -> os.stat_result | None:
    """Return what the name itself is, be it a link; None: there is none."""
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _explained(error: OSError, name: str, at: int, path: str) -> Exception:
    """Return *error* with the path that was asked for; where it was a link that failed, say so."""
    found = None if error.errno == errno.ENAMETOOLONG else _look(name, at)
    if found is not None and stat.S_ISLNK(found.st_mode):
        return AccessRefused(f"{path!r} leads through a link, and links are not followed")
    return OSError(error.errno, error.strerror, path)
