"""Which failures a call tries again, how often, and how long it waits in between."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, cast

from ..errors import ConfigError, DeadlineExceeded
from .ids import chance

_NUMBERS = ("attempts", int, "a whole number"), ("base", float, "seconds"), ("limit", float, "seconds")


@dataclass(frozen=True)
class Retry:
    """A policy for ``with_(retry=...)``; ``retry=3`` is ``Retry(3)``.

    An attempt that fails with an exception of *on* is followed by another one, after a random pause between 0 and
    ``min(limit, base * 2 ** (k - 1))`` seconds, where k is the number of attempts so far. An error with an attribute
    ``retry_after`` [s] asks for a pause of that length instead, and one with ``retryable`` False is raised at once. A
    cancelled attempt is never followed by another, and no pause begins that would end after the deadline: then the last
    error is raised at once.

    Attributes:
        attempts: Most attempts in all, at least 1.
        base: Longest pause after the first failure [s], above 0.
        limit: Longest pause of all [s], above 0; an error's ``retry_after`` may be longer.
        on: Exception types that are worth another attempt, or a function that says so of an exception. The default is
            every `Exception`; `mai.DeadlineExceeded` of an attempt is one, but no `OSError` (though it is a
            ``TimeoutError``).

    Raises:
        ConfigError: If a number is out of range, or *on* is neither exception types nor a plain function.

    Source:
        "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

    Example:
        >>> from mai import Retry, module
        >>> @module(retry=Retry(3, base=0.001, on=ConnectionError))
        ... async def fetch(name: str) -> str:
        ...     if len(seen := tries.append(name) or tries) < 3:
        ...         raise ConnectionError("not yet")
        ...     return f"{name}, at last"
        >>> tries = []
        >>> fetch.run("page")
        'page, at last'
    """

    attempts: int = 3
    base: float = 0.1
    limit: float = 30.0
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = Exception

    def __post_init__(self) -> None:
        for key, kind, wanted in _NUMBERS:
            value: Any = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, kind | int) or not 0 < value < math.inf:
                raise ConfigError(f"Retry: {key}={value!r} cannot be used; give {wanted} above 0")
        kinds, on = _kinds(self.on), cast("object", self.on)
        failures = kinds and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
        if not failures and (isinstance(on, type) or not callable(on) or iscoroutinefunction(on)):
            raise ConfigError(f"Retry: on={on!r} is neither exception types (of Exception) nor a plain function")

    def pause(self, attempt: int, error: Exception) -> float | None:
        """Return how long to wait after *attempt* failed with *error* [s]; None: raise it."""
        if attempt >= self.attempts or not getattr(error, "retryable", True) or not self._wants(error):
            return None
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float) and math.isfinite(asked) and asked >= 0:
            return float(asked)
        return chance.draw() * min(self.limit, self.base * 2.0 ** min(attempt - 1, 1000))

    def _wants(self, error: Exception) -> bool:
        on: Any = self.on
        if not isinstance(on, type | tuple):
            return bool(on(error))
        kinds = _kinds(on)
        if isinstance(error, DeadlineExceeded):  # a TimeoutError, and thereby an OSError, which it is not meant to be
            kinds = tuple(kind for kind in kinds if kind is not OSError)
        return isinstance(error, kinds)


def _kinds(on: Any) -> tuple[Any, ...]:
    return on if isinstance(on, tuple) else (on,)  # pyright: ignore[reportUnknownVariableType]
