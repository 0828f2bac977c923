"""The settings of a module: what ``with_`` and class keywords take, how they are checked and merged.

Three kinds of names are kept apart: kernel settings (this file), parameters of ``forward`` and declared attributes
(both in `mai.layers.checks`). Kernel settings never reach ``forward``.
"""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from ..core.retry import Retry
from ..errors import ConfigError
from ..values.checked import Seconds, checked, near

_Flag = Annotated[bool, Field(strict=True)]
_Name = Annotated[str, Field(pattern=r"^[^/\[\]~#!]+$", strict=True)]  # those signs structure a path
NAME: TypeAdapter[str] = TypeAdapter(_Name, config=ConfigDict(defer_build=True))


def _policy(value: Any) -> Any:
    """Return a number of attempts as a Retry."""
    if type(value) is int and value < 1:
        raise ValueError("give the number of attempts in all, from 1; None or 1 means no second one")
    return Retry(value) if type(value) is int else value


def _many(value: Any) -> Any:
    """Return one thing, several or None as a tuple of callables."""
    listed: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not all(map(callable, listed)):
        raise ValueError("give one that can be called, or several in a tuple")
    return listed


def _around(value: Any) -> Any:
    """Return middleware as a tuple."""
    listed = _many(value)
    for one in listed:
        try:
            inspect.signature(one).bind("call", "next")
        except TypeError as error:
            raise ValueError(f"it is called with a call and what comes next, so: {error}") from error
        except ValueError:  # of some builtins nothing is known
            continue
    return listed


def _callable(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError("give a module or a function of the step's value")
    return value


class Settings(BaseModel, frozen=True, arbitrary_types_allowed=True, defer_build=True):
    """The settings of one module; frozen.

    Attributes:
        name: Name of the step in paths, traces and errors; None means the class's or function's name.
        timeout: Limit of each attempt [s]; None means none.
        total_timeout: Limit of the whole call [s]; None means none.
        retry: How often a failure is tried again: attempts in all, or a `Retry`; None means one attempt.
        fallback: Modules that are tried in order after the last failure.
        middleware: What runs around each call, the first one outermost; each is ``async (call, next) -> value``.
        inline: Run a plain ``forward`` on the event loop instead of a worker thread; None means that the kernel
            decides (only builtins and types run inline).
        isolate: Give each call, branch and attempt a deep copy of its input.
        detached: Return the handle of the call at once; the engine owns the work. ``"link"``: as a trace of its own.
        flow: Under a durable engine ``forward`` is repeated and the modules that it calls are the recorded steps; None:
            that is so of composites and graphs.
        undo: What takes back a step, under a durable engine, when its run fails; it gets the step's value.
        version: What the step's behaviour is called; a change of it changes the fingerprint of plans.
        tags: Labels for traces.
        params: Defaults for parameters of ``forward`` that were set by ``with_``.
    """

    name: _Name | None = None
    timeout: Seconds | None = None
    total_timeout: Seconds | None = None
    retry: Annotated[Retry | None, BeforeValidator(_policy)] = None
    fallback: Annotated[tuple[Any, ...], BeforeValidator(_many)] = ()
    middleware: Annotated[tuple[Any, ...], BeforeValidator(_around)] = ()
    inline: _Flag | None = None
    isolate: _Flag = False
    detached: _Flag | Literal["link"] = False
    flow: _Flag | None = None
    undo: Annotated[Any, BeforeValidator(_callable)] = None
    version: Annotated[str, Field(strict=True)] | None = None
    tags: tuple[Annotated[str, Field(strict=True)], ...] = ()
    params: Mapping[str, Any] = {}

    def merged(self, owner: str, given: Mapping[str, Any], params: Mapping[str, object] | None = None) -> "Settings":
        """Return these settings with *given* (checked) on top.

        Raises:
            ConfigError: If a value has the wrong type or range.
        """
        if not given and not params:
            return self
        for key in given:
            if key not in SETTINGS:
                raise ConfigError(f"{owner} has no setting {key!r}{near(key, SETTINGS)}")
        valid = checked(owner, "", given, _ALL)
        fresh = {key: getattr(valid, key) for key in given}
        if params:
            fresh["params"] = {**self.params, **params}
        return self.model_copy(update=fresh)


SETTINGS = frozenset(Settings.model_fields) - {"params"}
_ALL = TypeAdapter(Settings)
