"""What runs around a call: ``async (call, next) -> value``, the first one of the setting outermost."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """What a middleware gets to see of a call.

    To hand on another input, give ``next`` a changed copy: ``await next(dataclasses.replace(call, args=(x,)))``; it is
    cast again. A middleware may call ``next`` never, once or several times; what it returns is cast to the type that
    ``forward`` promises.

    Attributes:
        name: The name of the step.
        step_id: Its path.
        args: The positional arguments of ``forward``, cast, with defaults.
        kwargs: Its keyword arguments, likewise.

    Example:
        >>> from mai import Call, module
        >>> async def loud(call: Call, next) -> str:
        ...     print("before", call.name, call.args)
        ...     return (await next(call)).upper()
        >>> @module(middleware=loud)
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> greet.run("ann")
        before greet ('ann',)
        'HELLO ANN'
    """

    name: str
    step_id: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


Next = Callable[[Call], Awaitable[Any]]
Middleware = Callable[[Call, Next], Awaitable[Any]]


def through(layers: tuple[Middleware, ...], innermost: Next) -> Next:
    """Return what calls the first of *layers*, which calls the second, and so on down to *innermost*."""
    if not layers:
        return innermost
    inner = through(layers[1:], innermost)
    return lambda call: layers[0](call, inner)
