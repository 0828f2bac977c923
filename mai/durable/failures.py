"""Failures as data: what a journal keeps of an exception, and what a replay raises in its place.

No class is ever imported by a name found in data. A name is looked up among the classes that code has handed us: those
of Python and of mai, those given to the engine, and those that the failing step and the flows around it can name
themselves. What a replay raises the first run raises too, so that ``except`` and ``retry=`` do the same in both.
"""

import builtins
import inspect
import json
from asyncio import CancelledError
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import mai.errors
from mai.errors import PayloadError, StepFailed
from mai.values.casts import written

__all__ = ["Failures"]

_Types = dict[tuple[str, str], type[BaseException]]
_RAISED = (Exception, CancelledError, BaseExceptionGroup)  # no record ends the process, as a SystemExit would
_OWN = frozenset({"__notes__", "__mai_trace__"})


class Failures:
    """Writes and reads failures; *known* are classes that every replay may raise."""

    def __init__(self, known: Iterable[type[BaseException]] = ()) -> None:
        given = [*vars(builtins).values(), *vars(mai.errors).values(), CancelledError, *known]
        self._known: _Types = dict(_classes(given))
        self._named: dict[Any, _Types] = {}  # by function: the classes that it can name

    def crossed(self, error: BaseException, modules: Iterable[Any]) -> tuple[bytes, BaseException]:
        """Return *error* as data, and what to raise: itself, if its record gives an equal one back."""
        facts = _facts(error)
        types = self._types(modules)
        back = _made(facts, types)
        if type(back) is type(error) and not facts["lossy"]:
            return written(facts).encode("utf-8", "backslashreplace"), error
        back.__cause__ = error
        return written(facts).encode("utf-8", "backslashreplace"), back

    def load(self, data: bytes, modules: Iterable[Any] = ()) -> BaseException:
        """Return the exception that a record stands for, as the code of *modules* may know it.

        Raises:
            PayloadError: If *data* is no failure.
        """
        try:
            return _made(json.loads(data), self._types(modules))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise PayloadError(f"Cannot read a failure from {data[:60]!r}: {error!r}; restore a backup") from error

    def _types(self, modules: Iterable[Any]) -> _Types:
        types = self._known | dict(_classes(_ours(mai.errors.MaiError)))
        for module in modules:
            on: Any = () if module._mai_spec is None else module._mai_spec.retry.on
            types |= dict(_classes(on if isinstance(on, tuple) else [on]))  # pyright: ignore[reportUnknownArgumentType]
            types |= self._names(module.forward)
        return types

    def _names(self, fn: Any) -> _Types:
        """Return the exceptions that the code of *fn* can name."""
        if fn not in self._named:
            self._named[fn] = dict(_classes(named_by(fn)))
        return self._named[fn]


def named_by(fn: Any) -> list[Any]:
    """Return what the code of *fn* can name: its globals, what is in the modules among them, what it closes over."""
    fn = getattr(inspect.unwrap(fn), "__func__", fn)
    if not inspect.isfunction(fn):
        return []
    seen = [*fn.__globals__.values(), *(cell.cell_contents for cell in fn.__closure__ or () if _filled(cell))]
    return [value for one in seen if isinstance(one, ModuleType) for value in list(vars(one).values())] + seen


def _filled(cell: Any) -> bool:
    with suppress(ValueError):  # the variable has no value yet
        return cell.cell_contents is not None
    return False


def _classes(values: Iterable[Any]) -> Iterator[tuple[tuple[str, str], type[BaseException]]]:
    for value in values:
        if isinstance(value, type) and issubclass(value, _RAISED):
            yield (value.__module__, value.__qualname__), value


def _ours(root: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield the errors of mai's own rooms, as far as these are in use."""
    for cls in root.__subclasses__():
        if cls.__module__.startswith("mai."):
            yield cls
            yield from _ours(cls)


def _facts(error: BaseException) -> dict[str, Any]:
    """Return what is kept of *error*; ``lossy`` where that is not all."""
    kind = type(error)
    facts: dict[str, Any] = {"type": kind.__qualname__, "module": kind.__module__, "message": _text(error)}
    group: Any = error
    is_group = isinstance(error, BaseExceptionGroup)
    if is_group:
        inner: Any = [_facts(one) for one in group.exceptions]
        facts |= {"errors": inner, "args": [group.message], "lossy": any(one["lossy"] for one in inner)}
    else:
        args = _plain(_given(error))
        facts |= {"args": args, "lossy": args is None}
    state = {key: _plain([value]) for key, value in vars(error).items() if key not in _OWN}
    facts["state"] = {key: value[0] for key, value in state.items() if value is not None}
    facts["lossy"] = facts["lossy"] or None in state.values()
    facts["notes"] = [note for note in getattr(group, "__notes__", ()) if not note.startswith("mai: in ")]
    return facts


def _given(error: BaseException) -> list[Any]:
    """Return what makes an exception like *error*; an OSError keeps the names of files out of its ``args``."""
    if not isinstance(error, OSError) or error.filename is None:
        return list(error.args)
    others = [] if error.filename2 is None else [None, error.filename2]
    return [*error.args, error.filename, *others]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (an exception whose text fails has none)
        return ""


def _plain(value: list[Any]) -> list[Any] | None:
    """Return *value* if JSON gives it back as it is, else None."""
    with suppress(TypeError, ValueError, RecursionError):
        back = json.loads(written(value))
        if back == value and repr(back) == repr(value):
            return value
    return None


def _made(facts: dict[str, Any], types: _Types) -> BaseException:
    """Return an exception of the recorded class, or StepFailed where that class is not known or cannot be had."""
    cls, message = types.get((facts["module"], facts["type"])), facts["message"]
    if cls is not None:
        with suppress(Exception):  # what the constructor of a user's class does not like
            args = facts["args"] if facts["args"] is not None else [message]
            if "errors" in facts:
                args = [*args, [_made(one, types) for one in facts["errors"]]]
            error = cls.__new__(cls, *args)
            if isinstance(error, OSError):  # the constructor of a class of the user's is not called
                OSError.__init__(error, *args)
            else:
                error.args = tuple(args)
            vars(error).update(facts["state"])
            if _text(error) == message:
                return _noted(error, facts["notes"])
    return _noted(StepFailed(f"{facts['type']}: {message}", type=facts["type"], module=facts["module"]), facts["notes"])


def _noted(error: BaseException, notes: list[str]) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error
