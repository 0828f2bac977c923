"""How numbers and foreign text are written for people."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return *number* with its noun.

    Example:
        >>> counted(1, "file"), counted(1200, "file"), counted(0, "class", "classes")
        ('1 file', '1,200 files', '0 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Return *text* with everything that no terminal or JSON can carry written as an escape.

    Example:
        >>> printable("a\\x1b[2J")
        'a\\\\x1b[2J'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
