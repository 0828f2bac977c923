"""Steps with a behaviour, to stand in for real ones: they fail, dawdle, follow a script, and remember their calls."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from ..core.clock import clock
from ..core.frame import current
from ..errors import ConfigError
from ..layers import Module

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Seen:
    """One call that a `Scripted` step got.

    Attributes:
        args: What it was given by position.
        kwargs: What it was given by name.
        at: When [s, on the clock that mai reads].
        step_id: Its path.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    at: float = field(compare=False)
    step_id: str = field(compare=False)


class Scripted(Module[Any, Any]):
    """A step that gives the outcomes of a script, one for each call, and remembers the calls.

    Once the script is at its end, the last outcome stands for all further calls.

    Args:
        outcomes: What each call gives: an exception, or a class of one, is raised; a function is called with the
            arguments of the call, and awaited if need be; anything else is the value.

    Attributes:
        calls: The calls so far, as `Seen`; copies made by ``with_`` share them.

    Raises:
        ConfigError: If there are no outcomes.

    Example:
        >>> from mai import Retry
        >>> from mai.testing import Scripted
        >>> step = Scripted(ConnectionError("hung up"), "fine", len)
        >>> await step.with_(retry=Retry(2, base=0.001))("hello"), await step("hello")
        ('fine', 5)
        >>> len(step.calls), step.calls[0].args
        (3, ('hello',))
    """

    def __init__(self, *outcomes: object) -> None:
        if not outcomes:
            raise ConfigError("Scripted() has no script: give it at least one outcome")
        self.outcomes: tuple[Any, ...] = outcomes
        self.calls: list[Seen] = []

    async def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give the next outcome."""
        outcome: Any = self.outcomes[min(len(self.calls), len(self.outcomes) - 1)]
        self.calls.append(Seen(args, kwargs, clock.now(), current().path))
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            raise outcome
        return await _answer(outcome, args, kwargs) if callable(outcome) else outcome  # pyright: ignore[reportUnknownArgumentType]


def flaky(
    step: "Callable[P, R | Awaitable[R]]", *, fails: int, error: Callable[[], Exception] | Exception = ConnectionError
) -> "Callable[P, Awaitable[R]]":
    """Return a double of *step* that fails *fails* times before it does what *step* does.

    Args:
        step: A module or a function.
        fails: In how many calls, all callers together.
        error: What it fails with, or what makes that.

    Raises:
        ConfigError: If *fails* is negative.

    Example:
        >>> from mai import Retry, module
        >>> from mai.testing import flaky
        >>> @module(retry=Retry(3, base=0.001))
        ... async def search(query: str) -> str:
        ...     raise ConnectionError("tests have no network")
        >>> with search.override(flaky(lambda query: query.upper(), fails=2)):
        ...     await search("x")
        'X'
    """
    if fails < 0:
        raise ConfigError(f"flaky: fails={fails!r} is negative; it is the number of calls that fail")
    left = [fails]

    @functools.wraps(_target(step))
    async def double(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error() if callable(error) else error
        return await _answer(step, args, kwargs)

    return double


def slow(step: "Callable[P, R | Awaitable[R]]", *, seconds: float) -> "Callable[P, Awaitable[R]]":
    """Return a double of *step* that waits *seconds* before it does what *step* does; in a simulation at once.

    Example:
        >>> from mai import DeadlineExceeded, module
        >>> from mai.testing import simulate, slow
        >>> @module(timeout=60)
        ... async def search(query: str) -> str:
        ...     raise ConnectionError("tests have no network")
        >>> async def main() -> str:
        ...     with search.override(slow(lambda query: query.upper(), seconds=59)):
        ...         return await search("x")
        >>> simulate(main)
        'X'
    """

    @functools.wraps(_target(step))
    async def double(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(seconds)
        return await _answer(step, args, kwargs)

    return double


def _target(step: Any) -> Any:
    return step.forward if isinstance(step, Module) else step  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


async def _answer(step: Any, args: Any, kwargs: Any) -> Any:
    out = step(*args, **kwargs)
    return await out if isinstance(out, Awaitable) else out  # pyright: ignore[reportUnknownVariableType]
