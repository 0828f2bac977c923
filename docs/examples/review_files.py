"""Which Python files a directory holds, and what reading one of them gives: its facts, or why there are none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from review_facts import FileFacts, parse_facts
from review_text import printable

LARGEST_BYTES = 10_000_000
"""A bigger file is reported, not parsed: it is data written as Python."""

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
"""Directories that hold no source of the tree itself. Hidden ones and virtual environments are skipped as well."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or directory that could not be reviewed.

    Attributes:
        path: Where, relative to the reviewed directory.
        line: The line that the parser stopped at, or 0 if there is none.
        reason: What went wrong, as the error says it.
    """

    path: str
    line: int
    reason: str


def find_files(directory: Path) -> tuple[list[str], list[Problem]]:
    """Return the Python files under *directory*, sorted, and what could not be looked into.

    Left out are hidden directories, caches, installed packages, virtual environments, linked directories, what is no
    regular file, and links to a file that is in the list already.

    Args:
        directory: Where to look.

    Raises:
        FileNotFoundError: If *directory* does not exist.
        NotADirectoryError: If it is something else than a directory.
    """
    if not directory.exists():
        raise FileNotFoundError(f"Cannot review {str(directory)!r}: there is no such directory")
    if not directory.is_dir():
        raise NotADirectoryError(
            f"Cannot review {str(directory)!r}: it is not a directory; give the directory that holds the source"
        )
    found: list[str] = []
    problems: list[Problem] = []

    def unreadable(error: OSError) -> None:
        problems.append(Problem(printable(os.path.relpath(error.filename, directory)), 0, _why(error)))

    for here, folders, names in os.walk(directory, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_skipped(os.path.join(here, name))]
        for path in (os.path.join(here, name) for name in names if name.endswith(".py")):
            short = os.path.relpath(path, directory)
            if short != printable(short):
                problems.append(Problem(printable(short), 0, "its name holds characters that cannot be printed"))
            elif os.path.isfile(path) or not os.path.exists(
                path
            ):  # a link that leads nowhere is reported when it is read
                found.append(short)
    return _without_twins(directory, found), sorted(problems, key=lambda problem: problem.path)


def read_facts(directory: Path, path: str) -> FileFacts | Problem:
    """Return the facts of the file *path* under *directory*, or why there are none."""
    try:
        size = (directory / path).stat().st_size
        if size > LARGEST_BYTES:
            return Problem(path, 0, f"it has {size} bytes, more than the {LARGEST_BYTES} that are parsed")
        return parse_facts(path, (directory / path).read_bytes())
    except SyntaxError as error:
        return Problem(path, error.lineno or 0, f"{type(error).__name__}: {error.msg}")
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # what opening and parsing can raise
        return Problem(path, 0, _why(error))


def _is_skipped(path: str) -> bool:
    name = os.path.basename(path)
    if name.startswith(".") or name in SKIPPED:
        return True
    return os.path.exists(os.path.join(path, "pyvenv.cfg"))


def _without_twins(directory: Path, paths: Iterable[str]) -> list[str]:
    """The *paths* in order, each file once: one that is no link is kept rather than a link to it."""
    kept: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (os.path.islink(directory / path), path)):
        kept.setdefault(os.path.realpath(directory / path), path)
    return sorted(kept.values())


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
