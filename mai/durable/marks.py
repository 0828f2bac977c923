"""What code says of itself to a durable engine."""

from typing import TypeVar

__all__ = ["replay_safe"]

F = TypeVar("F")


def replay_safe(middleware: F) -> F:
    """Mark a middleware that may be around a flow: it runs again each time that the flow is repeated.

    Such a middleware must call ``next`` each time, with the same input, and do no harm when it is called once more. One
    that answers from a cache is not: a repeated flow would take another way than its records.

    Args:
        middleware: The function, or the object that is called.

    Example:
        >>> from mai import Call, module
        >>> from mai.durable import replay_safe
        >>> @replay_safe
        ... async def loud(call: Call, next) -> str:
        ...     return (await next(call)).upper()
        >>> @module(flow=True, middleware=loud)
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> greet.run("ann")
        'HELLO ANN'
    """
    middleware.replay_safe = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return middleware
