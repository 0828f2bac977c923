"""A simulated disk: it loses what it may lose when the power fails.

A disk makes few promises. What was written is safe once it was synced, and a name once its folder was; of all else any
part may be there after a loss of power, in any order, and the last write of all may be there in part.
"""

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import IO, Any, TypeVar

from ..errors import ConfigError
from .errors import Crash
from .seeds import Rng, generator

T = TypeVar("T")
SECTOR = 512  # bytes that a disk writes at once
FIRST_NUMBER = 1 << 24  # of a simulated file: none that the system would give
_MODES = {  # what may be there before, whether it is emptied, whether it is appended to
    "r": (True, False, False),
    "w": (None, True, False),
    "a": (None, False, True),
    "x": (False, False, False),
}


class _Inode:
    """The content of a file, whatever its name is."""

    def __init__(self, content: bytes = b"") -> None:
        self.synced: bytes = content
        self.seen: bytearray = bytearray(content)
        self.changes: list[tuple[int, bytes | None]] = []  # since then: what was written where; None: cut there

    def change(self, at: int, data: bytes | None) -> None:
        """Write, as every process sees it at once."""
        _changed(self.seen, at, data)
        self.changes.append((at, data))

    def sync(self) -> None:
        """Make safe what is there."""
        self.synced, self.changes = bytes(self.seen), []

    def after_crash(self, luck: Rng, share: float) -> "_Inode":
        """Return what may be left: each sector of a change is there or not."""
        left = bytearray(self.synced)
        for at, data in self.changes:
            for start, piece in _pieces(at, data):
                if luck.random() >= share:
                    continue
                torn = piece is not None and share < 1 and luck.random() < 0.25
                _changed(left, start, piece[: luck.randrange(len(piece))] if torn and piece else piece)
        return _Inode(bytes(left))


def _changed(content: bytearray, at: int, data: bytes | None) -> None:
    content.extend(bytes(max(0, at - len(content))))
    content[at : len(content) if data is None else at + len(data)] = data or b""


def _pieces(at: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield at, None
        return
    start = at
    while start < at + len(data):
        end = min(at + len(data), (start // SECTOR + 1) * SECTOR)
        yield start, data[start - at : end - at]
        start = end


class SimulatedDisk:
    """A disk in memory that can fail at any of its operations, and then keeps only what it has to.

    `open`, `fsync`, `replace` and `remove` are used as those of the standard library, and stand in for them in a
    program that is handed them. It has one folder, whose names `fsync_folder` makes safe. After a loss of power

    - what was synced is there, whole;
    - of what was written after that any sectors may be there, whatever the order, and any of them in part;
    - of the names that were made, replaced and removed since the folder was synced, the first ones may be;
    - what a program kept in a buffer is lost in any case.

    Args:
        fails_at: The number of the operation in which the power fails, from 1; 0: it does not.

    Attributes:
        operations: How many there were.
        failed: Whether the power has failed; then nothing happens any more.

    Example:
        >>> from mai.testing import SimulatedDisk
        >>> disk = SimulatedDisk()
        >>> with disk.open("notes", "wb") as file:
        ...     _ = file.write(b"safe")
        ...     file.flush()
        ...     disk.fsync(file)
        ...     _ = file.write(b", or not")
        >>> disk.fsync_folder()
        >>> [disk.after_crash(seed).open("notes", "rb").read() for seed in (0, 1)]
        [b'safe', b'safe, or not']
    """

    def __init__(self, *, fails_at: int = 0) -> None:
        if fails_at < 0:
            raise ConfigError(f"SimulatedDisk: fails_at={fails_at!r} is negative; operations count from 1")
        self.fails_at: int = fails_at
        self.operations: int = 0
        self.failed: bool = False
        self._names: dict[str, _Inode] = {}
        self._safe: dict[str, _Inode] = {}
        self._moves: list[tuple[str, _Inode | None]] = []  # since the folder was synced: which name means what
        self._numbers: dict[int, _Inode] = {}

    def open(
        self, name: "str | os.PathLike[str]", mode: str = "r", buffering: int = -1, encoding: str | None = None
    ) -> IO[Any]:
        """Open a file as the builtin does.

        Args:
            name: Of the file; the folder of a path is passed over.
            mode: As of the builtin.
            buffering: As of the builtin.
            encoding: Of a text; None: UTF-8.

        Raises:
            ConfigError: If *mode* is none.
            FileNotFoundError: If the file is to be there, and is not.
            FileExistsError: If it is not to be there, and is.
        """
        letters = mode.replace("b", "").replace("t", "").replace("+", "")
        if letters not in _MODES or len(mode) != len(set(mode)):
            raise ConfigError(f"SimulatedDisk: mode={mode!r} cannot be used: give one of r, w, a, x, with + and b")
        there, emptied, appends = _MODES[letters]
        inode = self._found(_plain(name), there=there)
        if emptied and inode.seen:
            inode.change(0, None)
            self._happens(f"emptying {name!r}")
        writes = "+" in mode or letters != "r"
        raw = _File(self, inode, reads="+" in mode or letters == "r", writes=writes, appends=appends)
        self._numbers[raw.fileno()] = inode
        return _layered(raw, mode, buffering, encoding)

    def _found(self, name: str, *, there: bool | None) -> _Inode:
        known = self._names.get(name)
        if known is None and there:
            raise FileNotFoundError(errno.ENOENT, "there is no such file on the simulated disk", name)
        if known is not None and there is False:
            raise FileExistsError(errno.EEXIST, "there is such a file on the simulated disk", name)
        if known is None:
            known = _Inode()
            self._name(name, known, f"making {name!r}")
        return known

    def fsync(self, file: Any) -> None:
        """Make safe what was written to a file, as `os.fsync` does; what a buffer keeps is to be flushed before.

        Args:
            file: The file, or its number.

        Raises:
            OSError: If it is none of this disk's.
        """
        number = file if isinstance(file, int) else file.fileno()
        if number not in self._numbers:
            raise OSError(errno.EBADF, "this is no file of the simulated disk")
        self._happens("fsync")
        if not self.failed:
            self._numbers[number].sync()

    def fsync_folder(self) -> None:
        """Make safe which names there are, as `os.fsync` of a folder does."""
        self._happens("fsync of the folder")
        if not self.failed:
            self._safe, self._moves = dict(self._names), []

    def replace(self, old: "str | os.PathLike[str]", new: "str | os.PathLike[str]") -> None:
        """Give a file another name, and take it from whatever has it, as `os.replace` does.

        Raises:
            FileNotFoundError: If there is no file *old*.
        """
        inode = self._found(_plain(old), there=True)
        if self.failed:
            return
        del self._names[_plain(old)]
        self._names[_plain(new)] = inode
        self._moves += [(_plain(new), inode), (_plain(old), None)]
        self._happens(f"replacing {_plain(new)!r}")

    def remove(self, name: "str | os.PathLike[str]") -> None:
        """Remove a file, as `os.remove` does.

        Raises:
            FileNotFoundError: If there is none.
        """
        self._found(_plain(name), there=True)
        self._name(_plain(name), None, f"removing {_plain(name)!r}")

    def names(self) -> list[str]:
        """Return the names of the files that there are, sorted."""
        return sorted(self._names)

    def after_crash(self, seed: int = 0) -> "SimulatedDisk":
        """Return the disk as it may be found after a loss of power now.

        Args:
            seed: Chooses what is left of what was not safe: with 0 nothing, with 1 everything, else some of it.
        """
        luck, found = generator("disk", seed), SimulatedDisk()
        share = float(seed) if seed in (0, 1) else luck.choice((0.3, 0.7, 0.95))
        moves = len(self._moves) * seed if seed in (0, 1) else luck.randint(0, len(self._moves))
        names = dict(self._safe)
        for name, inode in self._moves[:moves]:
            names = {**names, name: inode} if inode is not None else {key: names[key] for key in names if key != name}
        left = {id(inode): inode.after_crash(luck, share) for inode in names.values()}
        found._names = {name: left[id(inode)] for name, inode in names.items()}
        found._safe = dict(found._names)
        return found

    def _name(self, name: str, inode: _Inode | None, what: str) -> None:
        if self.failed:
            return
        if inode is None:
            del self._names[name]
        else:
            self._names[name] = inode
        self._moves.append((name, inode))
        self._happens(what)

    def _happens(self, what: str) -> None:
        if self.failed:
            return
        self.operations += 1
        if self.operations == self.fails_at:
            self.failed = True
            raise Crash(f"the power failed in operation {self.operations} of the disk, {what}")


class _File(io.RawIOBase):
    """An open file of a simulated disk, without a buffer."""

    def __init__(self, disk: SimulatedDisk, inode: _Inode, *, reads: bool, writes: bool, appends: bool) -> None:
        self._disk, self._inode = disk, inode
        self._reads, self._writes, self._appends = reads, writes, appends
        self._at = len(inode.seen) if appends else 0
        self._number = FIRST_NUMBER + len(disk._numbers)

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return self._writes

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def readinto(self, buffer: Any) -> int:
        data = self._inode.seen[self._at : self._at + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        written = bytes(data)
        if not self._disk.failed:
            if self._appends:
                self._at = len(self._inode.seen)
            self._inode.change(self._at, written)
            self._at += len(written)
            self._disk._happens("a write")
        return len(written)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._inode.seen)}[whence]
        self._at = start + offset
        return self._at

    def truncate(self, size: int | None = None) -> int:
        at = self._at if size is None else size
        if not self._disk.failed:
            self._inode.change(at, None)
            self._disk._happens("a truncation")
        return at


def _plain(name: "str | os.PathLike[str]") -> str:
    return os.path.basename(os.fspath(name))


def _layered(raw: _File, mode: str, buffering: int, encoding: str | None) -> IO[Any]:
    """Put the layers of the standard library around a raw file."""
    some: Any = raw
    if buffering != 0:
        layer: Any = io.BufferedRandom if "+" in mode else io.BufferedWriter if raw.writable() else io.BufferedReader
        some = layer(raw)
    return some if "b" in mode else io.TextIOWrapper(some, encoding=encoding or "utf-8")


def disk_check(
    write: Callable[[SimulatedDisk], Iterable[T]],
    check: Callable[[SimulatedDisk, list[T]], object],
    *,
    seeds: int | Iterable[int] = 10,
) -> int:
    """Let the power fail in each operation of the disk, and check what is found then.

    Args:
        write: The program: it writes to the disk that it is given, and yields whatever is safe from then on. It is run
            anew for each operation and has to do the same each time.
        check: Called with the disk as it is found, and with what *write* had yielded before the power failed; it raises
            what is wrong.
        seeds: How many of the disks that may be found to try each time, or which; see `SimulatedDisk.after_crash`.

    Returns:
        How often the power failed.

    Raises:
        Exception: What *check* raises, with a note that tells operation and seed.

    Example:
        >>> from mai.testing import disk_check
        >>> def save(disk):
        ...     for version in (b"old text", b"new text"):
        ...         with disk.open("new", "wb") as file:
        ...             _ = file.write(version)
        ...         disk.replace("new", "text")  # and no fsync before it
        ...         disk.fsync_folder()
        ...         yield version
        >>> def check(disk, saved):
        ...     text = disk.open("text", "rb").read() if "text" in disk.names() else None
        ...     assert text in (*saved[-1:], b"old text", b"new text", None), f"found {text!r}"
        >>> try:
        ...     disk_check(save, check)
        ... except AssertionError as error:
        ...     print(error, *error.__notes__, sep=chr(10))
        found b''
        mai.testing: power failed in operation 3; to see it again: SimulatedDisk(fails_at=3), then after_crash(5)
    """
    chosen = range(seeds) if isinstance(seeds, int) else tuple(seeds)
    for at in count(1):
        disk, told = SimulatedDisk(fails_at=at), list[T]()
        try:
            for done in write(disk):
                told.append(done)
        except Crash:
            pass
        for seed in chosen:
            try:
                check(disk.after_crash(seed), list(told))
            except Exception as error:
                again = f"SimulatedDisk(fails_at={at}), then after_crash({seed})"
                error.add_note(f"mai.testing: power failed in operation {at}; to see it again: {again}")
                raise
        if not disk.failed:
            return at - 1
    raise AssertionError("count() has no end")
