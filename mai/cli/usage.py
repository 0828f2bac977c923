"""What is wrong with a command line, said so that the next try works."""

import difflib
from collections.abc import Sequence

from mai.errors import MaiError

__all__ = ["BadUsage", "check_format", "short"]


class BadUsage(MaiError, ValueError):
    """The command line, the target or the input cannot be used; the run does not start and the exit code is 2."""


def check_format(form: str, formats: Sequence[str]) -> None:
    """Accept what ``--format`` says, if it is one of *formats*.

    Raises:
        BadUsage: If it is none; it says which one was meant.
    """
    if form not in formats:
        close = difflib.get_close_matches(form, formats, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; give one of {', '.join(formats)}"
        raise BadUsage(f"--format {form}: there is no such format{hint}")


def short(value: object, limit: int = 60) -> str:
    """Return the ``repr`` of *value*, its middle left out if it is longer than *limit*.

    Example:
        >>> short("x" * 100, limit=21)
        "'xxxxxxxx … xxxxxxxx'"
    """
    text = repr(value)
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
