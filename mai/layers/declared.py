"""What a function declares: read once, when it becomes a step, and never by a call.

Answers: is it a coroutine, a plain function or a generator; which types go in and come out?
"""

import collections.abc as abc
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from ..errors import ConfigError
from ..values.signature import Colour, Signature

_STREAMS = (abc.AsyncIterator, abc.AsyncGenerator, abc.AsyncIterable, abc.Iterator, abc.Generator, abc.Iterable)
_P = inspect.Parameter
_EMPTY = _P.empty


def declared(fn: Callable[..., Any], owner: str, *, method: bool = False, names: Any = None) -> Signature:
    """Read the signature of *fn*; of a method without its first parameter.

    Raises:
        ConfigError: If a step cannot be made of it.
        NameError: If an annotation names something that does not exist (yet).
    """
    hints = _hints(fn, owner, names)
    if not (listed := list(_inspect(fn, owner).parameters.values())[1 if method else 0 :]):
        raise ConfigError(f"{owner}: forward takes no input; a step needs at least one parameter besides self")
    colour, returns = colour_of(fn), hints.get("return", _EMPTY)
    if "generator" in colour or "generator" in _kind(_target(fn)):
        returns = _joined(returns) if "generator" in colour else _EMPTY  # what a wrapper makes of one, who knows
    params = [p.replace(annotation=hints.get(p.name, _EMPTY)) for p in listed]
    return Signature(owner, params, returns, colour)


def single(owner: str, first: inspect.Parameter, returns: Any) -> Signature:
    """Return the signature of a composite: one value in, like *first*; one value out."""
    return Signature(owner, [_P(first.name, _P.POSITIONAL_ONLY, annotation=first.annotation)], returns)


def _inspect(fn: Callable[..., Any], owner: str) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError) as error:
        if isinstance(fn, type) or inspect.isbuiltin(fn) or inspect.ismethoddescriptor(fn):
            return inspect.Signature([_P("value", _P.POSITIONAL_ONLY)])  # it tells nothing; here it takes one value
        raise ConfigError(f"{owner}: {fn!r} cannot be a step's forward: {error}") from error


def _called(fn: Any) -> Any:
    """Look through partials and callable objects at the function that a call runs."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else type(fn).__call__


def _target(fn: Any) -> Any:
    """Look through wrappers, too, at the function that has the annotations."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return _called(inspect.unwrap(fn))


def _hints(fn: Any, owner: str, names: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the types that *fn* declares, by parameter, with ``"return"``."""
    target = _target(fn)
    if isinstance(target, type):
        return {"return": target}
    if inspect.ismethoddescriptor(target):
        return {"self": target.__objclass__}  # str.upper takes a str
    try:
        return typing.get_type_hints(target, localns=dict(names) if names else None, include_extras=True)
    except NameError:
        raise
    except Exception as error:
        raise ConfigError(f"{owner}: its annotations cannot be read: {error}") from error


def colour_of(fn: Any) -> Colour:
    """Return how *fn* itself is run, whatever it wraps.

    Two kinds of wrappers pass on what they wrap: one that is not written in Python, such as that of `functools.cache`,
    and a plain function around a generator.
    """
    own, wrapped = _kind(_called(fn)), _kind(_target(fn))
    return wrapped if own == "inline" or (own == "plain" and "generator" in wrapped) else own


def _kind(fn: Any) -> Colour:
    for test, colour in _COLOURS:
        if test(fn):
            return colour
    return "inline"


_COLOURS: tuple[tuple[Any, Colour], ...] = (
    (inspect.iscoroutinefunction, "coroutine"), (inspect.isasyncgenfunction, "async generator"),
    (inspect.isgeneratorfunction, "generator"), (inspect.isfunction, "plain"), (inspect.ismethod, "plain"),
)  # fmt: skip


def _joined(stream: Any) -> Any:
    """Return the type of a generator's value: str and bytes chunks are joined, others listed."""
    args = get_args(stream)
    if get_origin(stream) not in _STREAMS or not args:
        return _EMPTY
    return args[0] if args[0] in (str, bytes) else list.__class_getitem__(args[0])
