"""The marks and colours of outcomes, and what a call is called: the same in every view."""

from collections.abc import Mapping
from typing import Any

from mai.types import TraceHandle

__all__ = ["COLOURS", "GLYPHS", "glyph", "name_of"]

GLYPHS: Mapping[str, str] = {
    "running": "•", "ok": "✓", "error": "✗", "timeout": "◷", "cancelled": "⊘", "abandoned": "◌", "skipped": "-",
    "suspended": "‖", "replayed": "↻", "cached": "◆",
}  # fmt: skip

# Of a terminal, as rich calls them.
COLOURS: Mapping[str, str] = {
    "running": "blue", "ok": "green", "error": "red", "timeout": "yellow", "cancelled": "magenta",
    "abandoned": "magenta", "skipped": "bright_black", "suspended": "blue", "replayed": "cyan", "cached": "cyan",
}  # fmt: skip


def glyph(outcome: str) -> str:
    """Return the mark of an outcome; a question mark for one that is not known yet.

    Example:
        >>> glyph("ok"), glyph("rewound")
        ('✓', '?')
    """
    return GLYPHS.get(outcome, "?")


def name_of(handle: TraceHandle[Any]) -> str:
    """Return the name of a call; of an attempt with its number."""
    return f"{handle.name} {handle.attempt}" if handle.kind == "attempt" else handle.name
