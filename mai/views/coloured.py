"""The text tree in the colours of a terminal, which needs rich; without it, or without a terminal, plain text."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from mai.types import TraceHandle
from mai.views.outcomes import COLOURS
from mai.views.tree import Piece, pieces, runs

__all__ = ["print_trees"]

_STYLES = {"lines": "bright_black", "name": "", "facts": "bright_black", "error": "red"}


def print_trees(handles: Iterable[TraceHandle[Any]], file: TextIO | None = None) -> None:
    """Print the trees of *handles* to *file*, an empty line between them.

    They are as wide as the terminal that *file* is. There are no colours where it is none, where ``NO_COLOR`` is set,
    and where rich is not installed. Characters that the encoding of *file* does not have are written as escapes.

    Args:
        handles: The roots, in the order to show them.
        file: Where to write; None: standard output.
    """
    out = sys.stdout if file is None else file
    try:
        from rich.console import Console  # noqa: PLC0415 (an extra)
    except ImportError:
        print(_writable(runs(handles, _width(out)), out), file=out)
        return
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    width = _width(out)
    for i, handle in enumerate(handles):
        if i:
            console.print()
        for line in pieces(handle, width):
            _print_line(console, line, out)


def _print_line(console: Any, line: list[Piece], out: TextIO) -> None:
    """Print the pieces of a line; *console* is one of rich."""
    from rich.text import Text  # noqa: PLC0415 (an extra)

    text = Text(no_wrap=True, overflow="ignore")
    for piece in line:
        text.append(_writable(piece.text, out), _STYLES.get(piece.role, COLOURS.get(piece.role, "")))
    text.rstrip()
    console.print(text, soft_wrap=True)


def _width(out: TextIO) -> int | None:
    """Return how wide the terminal *out* is; None where it is none, or ``COLUMNS`` says it."""
    try:
        return os.get_terminal_size(out.fileno()).columns if out.isatty() and "COLUMNS" not in os.environ else None
    except OSError:  # it only looks like one
        return None


def _writable(text: str, out: TextIO) -> str:
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
