"""Files as tools: a model may read, list, search and, if it is allowed, write below one directory, and nowhere else."""

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Unpack

from mai.layers import Module
from mai.values.checked import COUNT, checked

from .errors import ToolError
from .rooted import Root
from .tool import Tool, ToolPolicy

Kind = Literal["file", "directory", "link", "other"]
_DEPTH = 64  # directories within each other that are looked into
_SCAN = 256  # times as much as may be given is read, to skip lines or to search
_LINE = 500  # characters of a line that is found


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A name in a directory.

    Attributes:
        path: Relative to the root.
        kind: ``"file"``, ``"directory"``, ``"link"`` (which is not followed) or ``"other"``.
        size: Length [bytes] of a file, else None.
    """

    path: str
    kind: Kind
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a directory; *complete* is False where there are more than are listed."""

    entries: list[FileEntry]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A line in which a text was found; *number* counts from 1."""

    path: str
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """The lines in which a text was found; *complete* is False where the search ended early."""

    lines: list[Line]
    complete: bool = True


@dataclass(slots=True)
class _Walk:
    """What a walk through directories may still do."""

    root: Root
    left: int  # entries that may be looked at
    complete: bool = True

    def entries(self, path: str, at: int, *, deep: bool, depth: int = 0) -> Generator[tuple[FileEntry, int]]:
        """Yield each entry of the directory *at*, sorted by name, with the directory that it is in."""
        with os.scandir(at) as listed:
            found = sorted((e for e in listed if not self.root.is_hidden(e.name)), key=lambda entry: entry.name)
        for entry in found:
            if self.left <= 0:
                self.complete = False
                return
            self.left -= 1
            one = _entry(entry, f"{path}/{entry.name}" if path else entry.name)
            yield one, at
            if one.kind == "directory" and deep:
                yield from self._inside(one, entry.name, at, depth + 1)

    def _inside(self, one: FileEntry, name: str, at: int, depth: int) -> Generator[tuple[FileEntry, int]]:
        if depth > _DEPTH:
            self.complete = False
            return
        try:
            inner = self.root.enter(name, at, one.path)
        except (OSError, ToolError):  # it went away, or may not be read: what is there is told all the same
            self.complete = False
            return
        try:
            yield from self.entries(one.path, inner, deep=True, depth=depth)
        finally:
            os.close(inner)


class ReadFile(Module):
    """Reads text files below a root."""

    def __init__(self, root: Root, max_bytes: int) -> None:
        self._root, self._most = root, max_bytes

    def forward(self, path: str, first_line: int = 1, last_line: int | None = None) -> str:
        """Read a text file, whole or some of its lines.

        Args:
            path: The file, relative to the root, such as 'notes/a.txt'.
            first_line: The first line to read, from 1.
            last_line: The last line to read; without it, to the end.
        """
        with self._root.open(path) as found, os.fdopen(os.dup(found), "rb") as file:
            data, left = bytearray(), self._most * _SCAN
            number = 0
            while (last_line is None or number < last_line) and (line := file.readline(self._most + 1)):
                number += line.endswith(b"\n")
                left -= len(line)
                here = number if line.endswith(b"\n") else number + 1
                if here >= first_line:
                    data += line
                if len(data) > self._most or left < 0:
                    return f"{self._text(path, data[: self._most])}\n[cut off in line {here}]"
        return self._text(path, data)

    @staticmethod
    def _text(path: str, data: bytes | bytearray) -> str:
        if b"\0" in data:
            raise ToolError(f"{path!r} is no text: it has null characters")
        return data.decode("utf-8", "replace")


class ListFiles(Module):
    """Lists directories below a root."""

    def __init__(self, root: Root, max_entries: int) -> None:
        self._root, self._most = root, max_entries

    def forward(self, path: str = ".", recursive: bool = False) -> Listing:  # noqa: FBT001, FBT002 (a model names it)
        """List the files and directories in a directory.

        Args:
            path: The directory, relative to the root; '.' is the root.
            recursive: Whether to list what is in the directories below, too.
        """
        walk, base = _Walk(self._root, self._most), "/".join(self._root.parts(path))
        with self._root.directory(path) as at, closing(walk.entries(base, at, deep=recursive)) as entries:
            listed = [entry for entry, _ in entries]
        return Listing(listed, walk.complete)


class SearchFiles(Module):
    """Finds texts in the files below a root."""

    def __init__(self, root: Root, max_bytes: int, max_entries: int) -> None:
        self._root, self._bytes, self._most = root, max_bytes, max_entries

    def forward(
        self,
        text: str,
        path: str = ".",
        names: str = "*",
        ignore_case: bool = False,  # noqa: FBT001, FBT002 (a model names it)
    ) -> Found:
        """Find the lines of text files that contain a text.

        Args:
            text: What to look for, as it stands there (no pattern).
            path: The directory to search, with all below it, relative to the root.
            names: Which files to search, such as '*.py'.
            ignore_case: Whether upper and lower case are the same.
        """
        if not text:
            raise ToolError("there is nothing to look for: text is empty")
        walk, base = _Walk(self._root, self._most * 100), "/".join(self._root.parts(path))
        lines, left = list[Line](), self._bytes * _SCAN
        with self._root.directory(path) as at, closing(walk.entries(base, at, deep=True)) as entries:
            for entry, inside in entries:
                name = entry.path.rpartition("/")[2]
                if entry.kind != "file" or not fnmatchcase(name, names):
                    continue
                data = self._read(name, inside, entry.path)
                lines += _matches(entry.path, data, text, ignore_case=ignore_case)
                left -= len(data)
                if len(lines) > self._most or left < 0:
                    return Found(lines[: self._most], complete=False)
        return Found(lines, walk.complete)

    def _read(self, name: str, at: int, path: str) -> bytes:
        """Return the beginning of a file; nothing of one that cannot be read, or is no text."""
        try:
            found = self._root.file(name, at, path)
        except (OSError, ToolError):
            return b""
        with os.fdopen(found, "rb") as file:
            data = file.read(self._bytes)
        return b"" if b"\0" in data else data


class WriteFile(Module):
    """Writes text files below a root."""

    def __init__(self, root: Root, max_bytes: int) -> None:
        self._root, self._most = root, max_bytes

    def forward(self, path: str, text: str) -> str:
        """Write a text file; it replaces the one that is there, and makes the directories that are missing.

        Args:
            path: The file, relative to the root.
            text: All that shall be in it.
        """
        data = text.encode()
        if len(data) > self._most:
            raise ToolError(f"{len(data)} bytes are too many for {path!r}; it may have {self._most}")
        replaced = self._root.write(path, data)
        return f"{'replaced' if replaced else 'wrote'} {path!r}, {len(data)} bytes"


def files(
    root: str | os.PathLike[str],
    *,
    write: bool = False,
    hidden: bool = False,
    max_bytes: int = 100_000,
    max_entries: int = 1000,
    **policy: Unpack[ToolPolicy],
) -> tuple[Tool[..., Any], ...]:
    """Return tools for the files below *root*: ``read_file``, ``list_files``, ``search_files``, and ``write_file``.

    Nothing outside of *root* can be reached: paths are relative and go down only, links are not followed (neither those
    that lead out nor those that stay), and only regular files are opened. There is no moment between check and use in
    which a directory could be exchanged for a link.

    Args:
        root: The directory.
        write: Whether there is ``write_file``, too.
        hidden: Whether names that begin with a dot (``.git``, ``.env``) are there for the model.
        max_bytes: Most bytes of one file that are read or written, from 1.
        max_entries: Most entries that are listed and lines that are found, from 1.
        policy: As of `Tool`; ``approve`` concerns ``write_file`` alone if there is one.

    Raises:
        ConfigError: If *root* is no directory, or the system cannot confine.

    Example:
        >>> import tempfile, pathlib
        >>> from mai.tools import files
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> written = (folder / "a.txt").write_text("hello")
        >>> read, *others = files(folder)
        >>> read.run("a.txt"), [tool.name for tool in others]
        ('hello', ['list_files', 'search_files'])
        >>> (await read.use({"path": "../a.txt"})).text
        "error: AccessRefused: the path '../a.txt' has '..'; give one that goes down from the root only"
    """
    place = Root(root, hidden=hidden)
    size, count = checked("files", "max_bytes", max_bytes, COUNT), checked("files", "max_entries", max_entries, COUNT)
    modules: dict[str, Module[Any, Any]] = {
        "read_file": ReadFile(place, size),
        "list_files": ListFiles(place, count),
        "search_files": SearchFiles(place, size, count),
    }
    if not write:
        return tuple(Tool(module, name=name, **policy) for name, module in modules.items())
    free: ToolPolicy = {**policy, "approve": False}
    made = [Tool(module, name=name, **free) for name, module in modules.items()]
    return (*made, Tool(WriteFile(place, size), name="write_file", **policy))


def _entry(entry: "os.DirEntry[str]", path: str) -> FileEntry:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:  # it went away meanwhile
        return FileEntry(path, "other")
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(facts.st_mode), "other")
    return FileEntry(path, kind, facts.st_size if kind == "file" else None)


def _matches(path: str, data: bytes, text: str, *, ignore_case: bool) -> Iterator[Line]:
    wanted = text.casefold() if ignore_case else text
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if wanted in (line.casefold() if ignore_case else line):
            yield Line(path, number, line[:_LINE])
