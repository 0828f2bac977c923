"""What a span keeps of an exception: enough to write its traceback later, and nothing that keeps frames alive."""

import traceback
from typing import Any

__all__ = ["Stack"]


class Stack:
    """An exception whose traceback is not written out yet; source lines are read when it is.

    Args:
        error: The exception.
    """

    def __init__(self, error: BaseException) -> None:
        kind, module = type(error).__qualname__, type(error).__module__
        self._type: str = kind if module in ("", "builtins") else f"{module}.{kind}"
        self._message: str = str(error)
        self._stack = traceback.TracebackException.from_exception(error, lookup_lines=False, compact=True)

    def facts(self) -> dict[str, Any]:
        """Return the attributes of OpenTelemetry's ``exception`` event."""
        return {
            "exception.type": self._type,
            "exception.message": self._message,
            "exception.stacktrace": "".join(self._stack.format()),
        }
