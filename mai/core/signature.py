"""The signature of a step: what ``forward`` takes and gives, decided once, when its class or function is seen.

Answers: is it a coroutine, a plain function or a generator; which types go in and come out; do these arguments fit?
"""

import collections.abc as abc
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ..errors import ConfigError
from .casts import caster, show
from .settings import SETTINGS, near

Colour = Literal["coroutine", "plain", "inline", "async generator", "generator"]
_STREAMS = (abc.AsyncIterator, abc.AsyncGenerator, abc.AsyncIterable, abc.Iterator, abc.Generator, abc.Iterable)
_P = inspect.Parameter
_EMPTY = _P.empty
_VARIABLE = (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)


class Signature:
    """What one step takes and gives.

    Attributes:
        owner: Name for messages.
        params: The parameters without ``self``, by name, as `inspect.Parameter` with evaluated annotations.
        positional: Those that can be given by position, in order.
        first: The parameter that a single value goes to.
        returns: The type of the value, for a generator what its chunks become.
        colour: How ``forward`` is run.
    """

    def __init__(self, owner: str, params: list[inspect.Parameter], returns: Any, colour: Colour = "coroutine") -> None:
        self.owner: str = owner
        self.returns: Any = returns
        self.colour: str = colour
        self.params: dict[str, inspect.Parameter] = {p.name: p for p in params}
        self.first: inspect.Parameter = params[0]
        self.positional: list[_P] = [p for p in params if p.kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)]
        slots = [(p.name, p.kind, caster(p.annotation)) for p in params]
        self._alone: bool = self.positional == params[:1] == params
        self._places = slots[: len(self.positional)]
        self._only = [slot for slot in slots if slot[1] is _P.KEYWORD_ONLY]
        self.rest = next((slot for slot in slots if slot[1] is _P.VAR_POSITIONAL), None)
        self._more = next((slot for slot in slots if slot[1] is _P.VAR_KEYWORD), None)
        self.model: type[BaseModel] | None = None  # of the input, once somebody has asked for it
        self._native = inspect.Signature(params, return_annotation=returns)

    @classmethod
    def of(cls, fn: Callable[..., Any], owner: str, *, method: bool = False, names: Any = None) -> "Signature":
        """Read the signature of *fn*; of a method without its first parameter.

        Raises:
            ConfigError: If a step cannot be made of it.
            NameError: If an annotation names something that does not exist (yet).
        """
        hints = _hints(fn, owner, names)
        listed = list(_inspect(fn, owner).parameters.values())[1 if method else 0 :]
        if not listed:
            raise ConfigError(f"{owner}: forward takes no input; a step needs at least one parameter besides self")
        colour, returns = colour_of(fn), hints.get("return", _EMPTY)
        if "generator" in colour or "generator" in _kind(_target(fn)):
            returns = _joined(returns) if "generator" in colour else _EMPTY  # what a wrapper makes of one, who knows
        params = [p.replace(annotation=hints.get(p.name, _EMPTY)) for p in listed]
        return cls(owner, params, returns, colour)

    @classmethod
    def single(cls, owner: str, first: inspect.Parameter, returns: Any) -> "Signature":
        """Return the signature of a composite: one value in, like *first*; one value out."""
        return cls(owner, [_P(first.name, _P.POSITIONAL_ONLY, annotation=first.annotation)], returns)

    def parameter(self, key: str) -> inspect.Parameter | None:
        """Return the parameter that *key* can be given to by name: its own, or ``**kwargs``."""
        own = self.params.get(key)
        if own is not None and own.kind not in _VARIABLE:
            return own
        return next((p for p in self.params.values() if p.kind is _P.VAR_KEYWORD), None)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], defaults: Mapping[str, Any], frame: Any) -> Any:
        """Check and cast the arguments of a call; return ``(args, kwargs)`` for ``forward``.

        Raises:
            ConfigError: If an argument is missing, unknown or given twice.
            CastError: If one cannot be cast to its type.
        """
        if self._alone and len(args) == 1 and not kwargs:
            name, _, cast = self._places[0]
            return (cast(args[0], name, frame),), kwargs
        for key in kwargs:
            if self.parameter(key) is None:
                hint = f": it is a setting; for one call write await m.with_({key}=...)(x)"
                hint = hint if key in SETTINGS else near(key, self.params)
                raise ConfigError(f"{self.owner} has no parameter {key!r}{hint}")
        left, n, here = dict(kwargs), len(args), len(self.positional)
        out = [cast(value, name, frame) for value, (name, _, cast) in zip(args, self._places, strict=False)]
        out += [self._by_name(slot, left, defaults, frame) for slot in self._places[n:here]]
        if n > here:
            if self.rest is None:
                raise self._misfit("too many positional arguments")
            name, _, cast = self.rest
            out += [cast(value, name, frame) for value in args[here:]]
        named = {slot[0]: self._by_name(slot, left, defaults, frame) for slot in self._only}
        if left:
            twice = [key for key in left if key in self.params and self.params[key].kind is _P.POSITIONAL_OR_KEYWORD]
            if twice or self._more is None:
                raise self._misfit(f"{(twice or [*left])[0]!r} is given twice, or by name though it is positional only")
        if self._more is not None:
            named |= {key: value for key, value in defaults.items() if key not in self.params}
            named |= {key: self._more[2](value, key, frame) for key, value in left.items()}
        return tuple(out), named

    def _by_name(self, slot: Any, left: dict[str, Any], defaults: Mapping[str, Any], frame: Any) -> Any:
        """Return the value of a parameter that is not given by position."""
        name, kind, cast = slot
        if name in left and kind is not _P.POSITIONAL_ONLY:
            return cast(left.pop(name), name, frame)
        p = self.params[name]
        value = defaults.get(name, p.default)
        if value is _EMPTY:
            raise ConfigError(f"{self.owner} is missing its argument {name!r} ({show(p.annotation)})")
        return value

    def _misfit(self, what: str) -> ConfigError:
        return ConfigError(f"{self.owner}{self._native}: {what}")

    def __str__(self) -> str:
        return show(self._native)[len("<Signature ") : -1]


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
