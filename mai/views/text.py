"""Text for terminals: how many columns it takes, how to cut it, how to make it safe, how to say quantities."""

import re
import unicodedata
from functools import lru_cache

__all__ = ["bytes_text", "cells", "cut", "pad", "safe", "seconds_text"]

_ELLIPSIS = "…"
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
# Symbols of the I Ching and Tai Xuan Jing are wide since Unicode 16, which is newer than the tables of some Pythons.
# A terminal with older tables shows them in one column; then a line ends a column early, and none is too long.
_WIDE_SINCE_16 = re.compile("[\u2630-\u2637\u268a-\u268f\u4dc0-\u4dff\U0001d300-\U0001d356\U0001d360-\U0001d376]")


@lru_cache(maxsize=4096)
def _char_cells(char: str) -> int:
    """Return the columns of one safe character: 0 for a combining mark, 2 for a wide one, else 1."""
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" or _WIDE_SINCE_16.match(char) else 1


@lru_cache(maxsize=4096)
def _safe_char(char: str) -> str:
    """Return *char* if a terminal shows it as it is, nothing for a variation selector, else its escape.

    A variation selector is left out because it makes the character before it wider in some terminals and not in others.
    """
    if ord(char) in _VARIATION_SELECTORS:
        return ""
    if unicodedata.category(char).startswith("C"):  # control, format (bidi, zero width), surrogate, private, unassigned
        return char.encode("unicode_escape").decode("ascii")
    return char


def cells(text: str) -> int:
    """Return the number of terminal columns that *text* takes.

    Example:
        >>> cells("abc"), cells("日本")
        (3, 4)
    """
    return len(text) if text.isascii() else sum(map(_char_cells, text))


def cut(text: str, width: int) -> str:
    """Return *text* shortened to *width* columns, an ellipsis marking what was left out.

    Example:
        >>> cut("summarise", 6), cut("日本語", 4)
        ('summa…', '日…')
    """
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    kept, room = 0, width - 1
    while (room := room - _char_cells(text[kept])) >= 0:
        kept += 1
    return text[:kept] + _ELLIPSIS


def pad(text: str, width: int) -> str:
    """Return *text* followed by spaces up to *width* columns.

    Example:
        >>> pad("日本", 6)
        '日本  '
    """
    return text + " " * (width - cells(text))


def safe(text: str, limit: int = 1000) -> str:
    r"""Return *text* on one line, without a character that could move the cursor, hide or reorder what follows.

    White space of any kind and length becomes one space; control and format characters become their escapes.

    Args:
        text: What a step was called, or what an error said.
        limit: Number of characters looked at; what follows becomes an ellipsis.

    Example:
        >>> safe("red \x1b[31malert\n  now")
        'red \\x1b[31malert now'
    """
    head = text[: limit + 1]
    if len(head) > limit:
        head = head[:limit] + _ELLIPSIS
    line = " ".join(head.split())
    if line.isascii() and line.isprintable():
        return line
    return "".join(map(_safe_char, line))


def seconds_text(seconds: float) -> str:
    """Return *seconds* as a person says it.

    Example:
        >>> [seconds_text(value) for value in (0.0000021, 0.0999, 0.99996, 75.5, 7384)]
        ['2.1 µs', '99.9 ms', '1 s', '1 m 16 s', '2 h 03 m']
    """
    for unit, factor in (("µs", 1e6), ("ms", 1e3), ("s", 1.0)):
        value = float(f"{seconds * factor:.3g}")
        if value < (60 if unit == "s" else 1000):
            return f"{value:g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} m"


def bytes_text(size: int) -> str:
    """Return a number of bytes in the decimal unit that fits it.

    Example:
        >>> [bytes_text(value) for value in (0, 999, 1_234, 999_999, 20_000_000)]
        ['0 B', '999 B', '1.23 kB', '1 MB', '20 MB']
    """
    for unit, factor in (("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = float(f"{size / factor:.3g}")
        if value < 1000:
            return f"{value:g} {unit}"
    return f"{size / 1e12:,.3g} TB"
