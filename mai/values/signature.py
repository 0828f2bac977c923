"""The signature of a step: what ``forward`` takes and gives, and whether the arguments of a call fit.

It is made once, when a class or function is seen: `mai.layers.declared` reads it off a function.
"""

import inspect
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from ..errors import ConfigError, PayloadError
from .casts import caster, show, written
from .checked import near

Colour = Literal["coroutine", "plain", "inline", "async generator", "generator"]
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
        takes: The type of that.
        returns: The type of the value, for a generator what its chunks become.
        colour: How ``forward`` is run.
    """

    def __init__(self, owner: str, params: list[inspect.Parameter], returns: Any, colour: Colour = "coroutine") -> None:
        self.owner: str = owner
        self.returns: Any = returns
        self.colour: str = colour
        self.params: dict[str, inspect.Parameter] = {p.name: p for p in params}
        self.first: inspect.Parameter = params[0]
        self.takes: Any = params[0].annotation
        self.positional: list[_P] = [p for p in params if p.kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)]
        slots = [(p.name, p.kind, caster(p.annotation)) for p in params]
        self._alone: bool = self.positional == params[:1] == params
        self._places = slots[: len(self.positional)]
        self._only = [slot for slot in slots if slot[1] is _P.KEYWORD_ONLY]
        self.rest: Any = next((slot for slot in slots if slot[1] is _P.VAR_POSITIONAL), None)
        self._more = next((slot for slot in slots if slot[1] is _P.VAR_KEYWORD), None)
        self.model: type[BaseModel] | None = None  # of the input, once somebody has asked for it
        self._native = inspect.Signature(params, return_annotation=returns)

    def parameter(self, key: str) -> inspect.Parameter | None:
        """Return the parameter that *key* can be given to by name: its own, or ``**kwargs``."""
        own = self.params.get(key)
        if own is not None and own.kind not in _VARIABLE:
            return own
        return next((p for p in self.params.values() if p.kind is _P.VAR_KEYWORD), None)

    def bind(self, args: Any, kwargs: Any, defaults: Mapping[str, Any], frame: Any, settings: Any = ()) -> Any:
        """Check and cast the arguments of a call; return ``(args, kwargs)`` for ``forward``.

        An argument that is called like one of *settings* was meant to be one.

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
                hint = hint if key in settings else near(key, self.params)
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

    def dump(self, args: Any, kwargs: Mapping[str, Any]) -> bytes:
        """Return bound arguments as a JSON object with a member for each parameter.

        Raises:
            PayloadError: If that cannot be without loss.
        """
        plain = {key: json.loads(caster(tp).dump(value)) for key, tp, value in self._named(args, kwargs)}
        return written(plain, sort_keys=True).encode()

    def load(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that `dump` wrote.

        Raises:
            PayloadError: If *data* does not fit the parameters.
        """
        given: dict[str, Any] = json.loads(data)
        left = {key: written(value) for key, value in given.items()}
        args = [caster(p.annotation).load(left.pop(p.name)) for p in self.positional if p.name in left]
        if self.rest is not None:
            args += caster(self._many()).load(left.pop(self.rest[0], "[]"))
        found = {key: self.parameter(key) for key in left}
        if unknown := [key for key, p in found.items() if p is None]:
            raise PayloadError(f"{self.owner} has no parameter {unknown[0]!r}{near(unknown[0], self.params)}")
        return tuple(args), {key: caster(p.annotation).load(left[key]) for key, p in found.items() if p is not None}

    def shown(self, args: Any, kwargs: Mapping[str, Any]) -> bytes | None:
        """Return bound arguments as canonical JSON to compare and to look at, None where there is none of them."""
        try:
            plain = {key: caster(tp).plain(value) for key, tp, value in self._named(args, kwargs)}
            return written(plain, sort_keys=True).encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 (a value that no JSON can be made of is not compared)
            return None

    def _many(self) -> Any:
        """Return the type of what ``*args`` takes, as a list."""
        tp = self.params[self.rest[0]].annotation
        return list.__class_getitem__(Any if tp is _EMPTY else tp)

    def _named(self, args: Any, kwargs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """Return name, type and value of each argument."""
        count, pairs = len(self.positional), zip(self.positional, args, strict=False)
        found = [(p.name, p.annotation, value) for p, value in pairs]
        if self.rest is not None:
            found.append((self.rest[0], self._many(), [*args[count:]]))
        types = {key: p.annotation for key in kwargs if (p := self.parameter(key)) is not None}
        return found + [(key, types.get(key, Any), value) for key, value in kwargs.items()]

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
