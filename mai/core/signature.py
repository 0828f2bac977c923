"""The signature of a step: what ``forward`` takes and gives, decided once, when its class or function is seen.

Answers: is it a coroutine, a plain function or a generator; which types go in and come out; do these arguments fit?
"""

import collections.abc as abc
import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model

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
        self._alone: bool = self.positional == params[:1] == params
        self._casts = {p.name: caster(p.annotation) for p in params}
        self._native = inspect.Signature(params, return_annotation=returns)
        self._model: type[BaseModel] | None = None

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
        colour, returns = _colour(fn), hints.get("return", _EMPTY)
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
            return (self._cast(self.first.name, args[0], frame),), {}
        for key in kwargs:
            if self.parameter(key) is None:
                hint = f": it is a setting; for one call write await m.with_({key}=...)(x)"
                hint = hint if key in SETTINGS else near(key, self.params)
                raise ConfigError(f"{self.owner} has no parameter {key!r}{hint}")
        try:
            bound = self._native.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{self.owner}{self._native}: {error}") from error
        given = bound.arguments
        for key, value in given.items():
            given[key] = self._cast(key, value, frame)
        for p in self.params.values():
            if p.name not in given and p.name in defaults:
                given[p.name] = defaults[p.name]
            if p.name not in given and p.default is _EMPTY and p.kind not in _VARIABLE:
                raise ConfigError(f"{self.owner} is missing its argument {p.name!r} ({show(p.annotation)})")
        extra = {key: value for key, value in defaults.items() if key not in self.params}
        bound.apply_defaults()  # a positional-only one may stand before one that was given
        return bound.args, {**extra, **bound.kwargs}

    def _cast(self, key: str, value: Any, frame: Any) -> Any:
        """Return what is given to the parameter *key*, cast; of a variable one each item."""
        kind, cast = self.params[key].kind, self._casts[key]
        if kind is _P.VAR_POSITIONAL:
            return tuple(cast(item, key, frame) for item in value)
        if kind is _P.VAR_KEYWORD:
            return {name: cast(item, name, frame) for name, item in value.items()}
        return cast(value, key, frame)

    def model(self, defaults: Mapping[str, Any]) -> type[BaseModel]:
        """Return the pydantic model with a field for each parameter (``In``), with *defaults* of ``with_``."""
        if self._model is not None and not defaults:
            return self._model
        fields: dict[str, Any] = {}
        for p in self.params.values():
            tp: Any = Any if p.annotation is _EMPTY else p.annotation
            default = defaults.get(p.name, ... if p.default is _EMPTY else p.default)
            if p.kind is _P.VAR_POSITIONAL:
                tp, default = tuple.__class_getitem__((tp, ...)), ()
            if p.kind is not _P.VAR_KEYWORD:
                alias = p.name.startswith("_")  # pydantic keeps such names to itself
                fields[f"p{p.name}" if alias else p.name] = (tp, Field(default, alias=p.name) if alias else default)
        extra: Any = "forbid" if self.parameter("") is None else "allow"
        config = ConfigDict(arbitrary_types_allowed=True, extra=extra, protected_namespaces=(), title=self.owner)
        with warnings.catch_warnings():  # a parameter may well be called like a method of BaseModel
            warnings.simplefilter("ignore", UserWarning)
            made: type[BaseModel] = create_model(f"{self.owner}.In", __config__=config, **fields)
        self._model = self._model if defaults else made
        return made

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


def _colour(fn: Any) -> Colour:
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
