"""What is wrong with a command line, said so that the next try works."""

from mai.errors import MaiError

__all__ = ["BadUsage", "short"]


class BadUsage(MaiError, ValueError):
    """The command line, the target or the input cannot be used; the run does not start and the exit code is 2."""


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
