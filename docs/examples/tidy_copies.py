"""Puts aside the files that a folder has twice, once a person has agreed; the question waits for a day.

    mai run docs/examples/tidy_copies.py:tidy FOLDER --aside ASIDE --durable runs.db --run-id tidy-1
    mai runs show tidy-1 --db runs.db
    mai runs answer tidy-1 yes --db runs.db
    mai worker docs/examples/tidy_copies.py:tidy --db runs.db

The process may end while the question is open, and the machine may be switched off: the answer is sent with ``mai runs
answer``, and the next process that has this code, such as the worker, goes on. After a day without one nothing is done.
If a file cannot be moved, those that were are moved back.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from index_files import Index, index
from mai import DeadlineExceeded, Module, ask, module

DAY = 86_400.0


class Move(BaseModel):
    """A file to move."""

    source: Path
    target: Path


class Tidied(BaseModel):
    """What was done, and why nothing was if so."""

    moved: list[str]
    said: str

    def __str__(self) -> str:
        return "\n".join([self.said, *self.moved])


@module
def check_place(folder: Path, aside: Path) -> Path:
    """Return the absolute path of *aside*, which must not be inside of *folder*."""
    if aside.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"Cannot put copies aside to {str(aside)!r}: it is inside of {str(folder)!r}")
    return aside.absolute()


@module
def move_back(done: Move) -> None:
    """Move a file to where it was."""
    if done.target.exists():  # else it was moved back before a crash
        done.target.replace(done.source)


@module(undo=move_back)
def move(one: Move) -> Move:
    """Move a file. It may be done twice: the process can end before it is recorded."""
    if one.source.exists() or not one.target.exists():
        one.target.parent.mkdir(parents=True, exist_ok=True)
        one.source.replace(one.target)
    return one


def extra(found: Index) -> list[str]:
    """Return all copies but the first of each."""
    return [path for one in found.copies for path in one.paths[1:]]


class Tidy(Module, flow=True):
    """Asks, and moves.

    Args (of a call):
        folder: What to tidy.
        aside: Where copies are moved to, on the same file system; outside of *folder*.
        wait: How long an answer may take [s].

    Raises:
        ValueError: If *aside* is inside of *folder*.
        OSError: If a file cannot be moved; then none is.
    """

    async def forward(self, folder: Path, aside: Path, wait: float = DAY) -> Tidied:
        aside = await check_place(folder, aside)
        found = await index(folder)
        paths, room = extra(found), sum(one.bytes * (len(one.paths) - 1) for one in found.copies)
        if not paths:
            return Tidied(moved=[], said="no file is there twice")
        try:
            agreed = await ask(f"Move {len(paths)} copies ({room:,} bytes) to {aside}?", bool, timeout=wait)
        except DeadlineExceeded:
            return Tidied(moved=[], said="nobody answered in time; nothing was moved")
        if not agreed:
            return Tidied(moved=[], said="nothing was moved, as was wished")
        for path in paths:
            await move(Move(source=found.folder / path, target=aside / path))
        return Tidied(moved=paths, said=f"{len(paths)} copies moved to {aside}")


tidy = Tidy()
