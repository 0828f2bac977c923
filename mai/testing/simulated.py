"""Async tests in simulated time."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Unpack, overload

from ..errors import ConfigError
from .exploration import explore
from .simulation import Conditions, simulate

P = ParamSpec("P")
_Test = Callable[P, Coroutine[Any, Any, Any]]


@overload
def simulated(test: _Test[P], /) -> Callable[P, None]: ...
@overload
def simulated(*, seeds: int = 1, **conditions: Unpack[Conditions]) -> Callable[[_Test[P]], Callable[P, None]]: ...
def simulated(test: Any = None, /, *, seeds: int = 1, **conditions: Any) -> Any:
    """Make an async test a plain one that runs in a simulation, so that no second of it is waited for.

    Test runners see its own signature, so fixtures and parameters work. What it works on should be made inside of it,
    or by what runs anew for each seed: fixtures are made once.

    Args:
        test: An async function.
        seeds: 1: run it once, in the order of an ordinary loop; more: `explore` so many.
        conditions: Those of `Simulation`.

    Raises:
        ConfigError: If *test* is not an async function.

    Example:
        >>> import asyncio
        >>> from mai.testing import simulated
        >>> @simulated
        ... async def test_an_hour_takes_no_time() -> None:
        ...     await asyncio.sleep(3600)
        >>> test_an_hour_takes_no_time()
    """
    if test is None:
        return functools.partial(simulated, seeds=seeds, **conditions)
    if not inspect.iscoroutinefunction(inspect.unwrap(test)):
        raise ConfigError(f"simulated: {test!r} is not an async function")

    def run(*args: Any, **kwargs: Any) -> None:
        if seeds == 1:
            simulate(lambda: test(*args, **kwargs), order="fifo", **conditions)
        else:
            explore(lambda: test(*args, **kwargs), seeds=seeds, **conditions)

    made: Any = functools.update_wrapper(run, test)
    made.__signature__ = inspect.signature(test)
    del made.__wrapped__  # else a runner would take it for the async function
    return made
