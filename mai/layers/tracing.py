"""Tracing: a function that calls modules, run once with Refs in the place of values, becomes a Graph."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Unpack, overload

from pydantic import ValidationError

from ..core.call import current, current_run
from ..core.drive import enclosed
from ..core.frame import ROOT, Frame, set_current
from ..errors import ConfigError, TracingError, WiringError
from .declared import declared
from .graph import Graph, Rules
from .module import P, R, lifted
from .ref import Ref
from .wiring import Wiring


@overload
def graph(fn: Callable[P, Awaitable[R]], /) -> Graph[P, R]: ...
@overload
def graph(**rules: Unpack[Rules]) -> Callable[[Callable[P, Awaitable[R]]], Graph[P, R]]: ...
def graph(fn: Any = None, /, **rules: Any) -> Any:
    """Make an async function that calls modules a Graph: steps that do not need each other's values run concurrently.

    The function is run once, when it is decorated, with Refs in the place of values. Each module that it awaits
    becomes a node; arguments by position and by name and constants are kept. For a type checker it still is the
    function. Use it bare (``@graph``), or with the arguments of `Graph` (``@graph(limit=8, timeout=60.0)``).

    What needs a value at that time (``if``, ``for``, ``len``, arithmetic, text) raises TracingError, which says what to
    use: Conditional, Switch, Loop, Map, or a step.

    Raises:
        TracingError: If the function does with a value what only a run can do.
        WiringError: If types cannot fit, an argument is missing or unknown, or there is no output.
        ConfigError: If *fn* is no async function, or a keyword is unknown or wrong.

    Example:
        >>> from mai import graph, module
        >>> @module
        ... async def words(text: str) -> list[str]:
        ...     return text.split()
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> @graph
        ... async def both(text: str) -> tuple[str, str]:
        ...     found = await words(text)
        ...     return found[0], await shout(text)
        >>> both.run("to be")
        ('to', 'TO BE')
    """
    if fn is None:
        _new("graph", rules)  # says at once what is wrong with them
        return lambda fn: _graph(fn, rules, sys._getframe(1).f_locals)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]
    return _graph(fn, rules, sys._getframe(1).f_locals)


def _new(name: str, rules: Mapping[str, Any]) -> Graph[..., Any]:
    own = {key: value for key, value in rules.items() if key in ("limit", "on_error")}
    made = Graph(name, **own)
    settings = lifted(name, {key: value for key, value in rules.items() if key not in own})
    made._mai_settings = made._mai_settings.merged(name, settings)
    return made


def _graph(fn: Any, rules: Mapping[str, Any], names: Mapping[str, Any]) -> Graph[..., Any]:
    if not inspect.iscoroutinefunction(fn):
        raise ConfigError(f"graph: {fn!r} is no async function; a graph is traced from one that awaits modules")
    name = fn.__name__
    made = _new(name, rules)
    for key, value in (("__wrapped__", fn), ("__doc__", fn.__doc__), ("__module__", fn.__module__)):
        setattr(made, key, value)
    signature, wiring = declared(fn, name, names=dict(names)), made._wiring
    args, kwargs = list[Ref[Any]](), dict[str, Ref[Any]]()
    for p in signature.params.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise WiringError(f"{name}: a graph has a fixed number of inputs; write them out instead of *{p.name}")
        ref = wiring.add_input(p)
        if p.kind is p.KEYWORD_ONLY:
            kwargs[p.name] = ref
        else:
            args.append(ref)
    made._finish(_traced(wiring, fn(*args, **kwargs)), signature.returns, 4)
    return made


def _traced(wiring: Wiring, coroutine: Any) -> Any:
    """Drive the function to its end and return what it returns."""

    def taken(frame: Any, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ref[Any]:
        if current() is not frame:
            raise TracingError(f"{wiring.owner}: a scope around a step is over when the graph runs; use with_()")
        return wiring.connect(module, args, kwargs)

    try:
        ended, value = _run_traced(coroutine, taken)
    except ValidationError as error:
        if not any(isinstance(one["input"], Ref) for one in error.errors()):
            raise
        hint = f"make it by a step, await module({error.title})(...)"
        message = f"{wiring.owner}: {error.title}(...) checks values that are not there yet: {hint}"
        raise TracingError(message) from error
    if not ended:
        hint = "steps that do not need each other's values run concurrently anyway"
        raise TracingError(f"{wiring.owner}: only modules can be awaited while a graph is traced; {hint}")
    return value


def _run_traced(
    coroutine: Coroutine[Any, Any, Any], take: Callable[[Frame, Any, tuple[Any, ...], dict[str, Any]], Any]
) -> tuple[bool, Any]:
    """Run *coroutine* as far as it comes without waiting; say whether it ended, and with which value.

    A call of a module inside gives what ``take(frame, module, args, kwargs)`` gives; *frame* is the function's.
    """
    f = Frame()
    f.mod = f.deadline = f.since = f.timer = f.handle = f.span = f.seen = f.lost = f.started = None
    f.parent, f.key, f.n, f.quiet, f.run = ROOT, "", 0, 0, current_run()
    f.env = ROOT.env._replace(tracer=partial(take, f))
    inside = enclosed().run
    inside(set_current, f)
    try:
        inside(coroutine.send, None)
    except StopIteration as end:
        return True, end.value
    except RuntimeError as error:  # it waits for something of asyncio's
        if "no running event loop" not in str(error):
            raise
    coroutine.close()
    return False, None
