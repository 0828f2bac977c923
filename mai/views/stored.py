"""A trace as plain data, to be kept in a file and read again: the schema ``mai.trace/1``.

The calls are a flat list, parents first, each with the index of the call around it, so that neither the depth of a
trace nor a program that reads it meets a limit of recursion. Times are relative to the first call; only its wall-clock
time is absolute. What has its default is left out. A reader passes over keys that it does not know.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from mai.errors import PayloadError
from mai.types import ErrorInfo, Outcome, TraceEvent, TraceHandle, TraceLink

__all__ = ["SCHEMA", "flattened", "from_dict", "to_dict", "to_json"]

SCHEMA = "mai.trace/1"
_OUTCOMES: tuple[str, ...] = get_args(Outcome)
_SIZES = ("input_size", "output_size", "items")
_LARGEST = 2**63 - 1
_SHOWN = 60  # characters of what is refused
_LONGEST = 1000  # characters of an attribute that is neither text nor a number


def to_json(handle: TraceHandle[Any], indent: int | None = None) -> str:
    """Return `to_dict` as JSON in ASCII."""
    return json.dumps(to_dict(handle), indent=indent, allow_nan=False)


def to_dict(handle: TraceHandle[Any]) -> dict[str, Any]:
    """Return the trace below *handle* as plain data."""
    return flattened(handle)[0]


def flattened(handle: TraceHandle[Any], most: int | None = None) -> tuple[dict[str, Any], list[TraceHandle[Any]]]:
    """Return the trace below *handle* as plain data, and the handles of its calls in their order.

    Args:
        handle: The root of the tree.
        most: How many calls to keep at most, those near the root first; the others are counted in ``dropped``.
    """
    kept, cut = _kept(handle, most)
    zero = handle.start_ns or 0
    found = [call for call in handle.walk() if kept is None or id(call) in kept]
    numbers = {id(call): i for i, call in enumerate(found)}
    calls: list[dict[str, Any]] = []
    for call in found:
        around = None if call is handle or call.parent is None else numbers[id(call.parent)]
        calls.append(_call(call, around, zero, cut.get(id(call), 0)))
    within = handle._base.removeprefix("/") if handle.parent is None else handle.parent.step_id
    return {"schema": SCHEMA, "started_at": handle.started_at, "within": within, "calls": calls}, found


def _kept(handle: TraceHandle[Any], most: int | None) -> tuple[set[int] | None, dict[int, int]]:
    """Return which calls are kept (None: all), and how many children of which call are not."""
    if most is None:
        return None, {}
    kept, cut, waiting = set[int](), dict[int, int](), deque([handle])
    while waiting:
        call = waiting.popleft()
        kept.add(id(call))
        room = max(0, most - len(kept) - len(waiting))
        waiting.extend(call.children[:room])
        if len(call.children) > room:
            cut[id(call)] = len(call.children) - room
    return kept, cut


def _call(h: TraceHandle[Any], around: int | None, zero: int, cut: int) -> dict[str, Any]:
    """Return one call as plain data."""
    facts: dict[str, Any] = {
        "parent": around,
        "name": h.name,
        "kind": h.kind,
        "module": h.module,
        "key": f"{h._key}~{h._n}" if h._n > 1 else h._key,
        "attempt": h.attempt if h.attempt > 1 else None,
        "outcome": h.outcome,
        "start_ns": None if h.start_ns is None else h.start_ns - zero,
        "end_ns": None if h.end_ns is None else h.end_ns - zero,
        "queued_ns": h._queued or None,
        **{key: getattr(h, key) for key in _SIZES},
        "dropped": h.dropped + cut or None,
    }
    if h._error is not None:
        facts["error"] = {"type": h._error.type, "module": h._error.module, "message": h._error.message}
    if h.attributes:
        facts["attributes"] = {str(key): _plain(value) for key, value in h.attributes.items()}
    if h.events:
        facts["events"] = [
            {"at_ns": e.at_ns - zero, "name": e.name, "attributes": {k: _plain(v) for k, v in e.attributes.items()}}
            for e in h.events
        ]
    if h.links:
        facts["links"] = [link._asdict() for link in h.links]
    if h.span_id is not None:
        inherited = around is not None and h.parent is not None and h.parent.trace_id == h.trace_id
        facts |= {"trace_id": None if inherited else h.trace_id, "span_id": h.span_id, "trace_flags": h._span[2]}
    return {key: value for key, value in facts.items() if value is not None}


def _plain(value: object) -> Any:
    """Return *value* if JSON has it, a list for a sequence, else a text."""
    if isinstance(value, list | tuple):
        many = list[object](value)  # pyright: ignore[reportUnknownArgumentType]
        return [_plain(item) for item in many]
    if value is None or type(value) in (str, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return f"{value:#x}" if isinstance(value, int) else str(value)[:_LONGEST]


# ---------------------------------------------------------------- reading


def from_dict(data: object) -> TraceHandle[Any]:
    """Return the handle of a trace that `to_dict` gave *data* for.

    Raises:
        PayloadError: If *data* is something else; it says what and where.
    """
    whole = _Part(data, "data")
    if (schema := whole.data.get("schema")) != SCHEMA:
        raise whole.refused("schema", schema, repr(SCHEMA))
    began = whole.seconds("started_at")
    handles, inside = list[TraceHandle[Any]](), list[list[Any]]()
    for call in whole.parts("calls"):
        _add(call, handles, inside)
    if not handles:
        raise whole.refused("calls", [], "a list with at least one call")
    handles[0]._base = whole.text("within")
    for h in handles:
        h._zero = None if began is None else (began, 0)
    return handles[0]


def _add(call: "_Part", handles: list[TraceHandle[Any]], inside: list[list[Any]]) -> None:
    """Add the handle of *call* to the *handles* of the calls before it, and to those *inside* the call around it."""
    h: TraceHandle[Any] = TraceHandle()
    h.parent = _parent(call, handles)
    h.name, h.kind, h.module, h._key = (call.text(key) for key in ("name", "kind", "module", "key"))
    h._n = -(call.whole("attempt", least=2) or 0)
    outcome: Any = call.text("outcome")
    if outcome not in _OUTCOMES:
        raise call.refused("outcome", outcome, f"one of {', '.join(_OUTCOMES)}")
    h.outcome = outcome
    h.start_ns, h.end_ns = call.whole("start_ns", least=-_LARGEST), call.whole("end_ns", least=-_LARGEST)
    h._queued, h.dropped = call.whole("queued_ns") or 0, call.whole("dropped") or 0
    h.input_size, h.output_size, h.items = (call.whole(key) for key in _SIZES)
    h._error = next((ErrorInfo(*one.texts("type", "module", "message")) for one in call.parts("error")), None)
    h.attributes = call.facts()
    h.events = tuple(
        TraceEvent(one.whole("at_ns", least=-_LARGEST) or 0, one.text("name"), one.facts())
        for one in call.parts("events")
    )
    h.links = tuple(
        TraceLink(one.text("relation"), one.digits("trace_id", 32), one.digits("span_id", 16))
        for one in call.parts("links")
    )
    h._span, h._control, h._base, h._zero, below = _span(call, h.parent), None, "", None, list[TraceHandle[Any]]()
    h.children = below
    if h.parent is not None:
        inside[call.data["parent"]].append(h)
    handles.append(h)
    inside.append(below)


def _parent(call: "_Part", handles: list[TraceHandle[Any]]) -> TraceHandle[Any] | None:
    parent = call.data.get("parent")
    if not handles:
        if parent is None:
            return None
        raise call.refused("parent", parent, "None: the first call is the root")
    if type(parent) is int and 0 <= parent < len(handles):
        return handles[parent]
    raise call.refused("parent", parent, f"the index of an earlier call, from 0 to {len(handles) - 1}")


def _span(call: "_Part", parent: TraceHandle[Any] | None) -> tuple[int, int, int]:
    """Return the ids of the span and its flags; a call has the trace id of the one around it unless it says another."""
    if "span_id" not in call.data:
        return 0, 0, 0
    trace = int(call.digits("trace_id", 32), 16) if "trace_id" in call.data or parent is None else parent._span[0]
    return trace, int(call.digits("span_id", 16), 16), call.whole("trace_flags") or 0


class _Part:
    """One object in the data of a trace, which knows where it stands."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise _refused(where, data, "an object")
        self.data: Mapping[str, Any] = data
        self.where: str = where

    def refused(self, key: str, got: object, wanted: str) -> PayloadError:
        return _refused(f"{self.where}.{key}", got, wanted)

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if isinstance(value, str):
            return value
        raise self.refused(key, value, "a text")

    def texts(self, *keys: str) -> list[str]:
        return [self.text(key) for key in keys]

    def whole(self, key: str, *, least: int = 0) -> int | None:
        value = self.data.get(key)
        if value is None or (type(value) is int and least <= value <= _LARGEST):
            return value
        raise self.refused(key, value, "a whole number" + (f" from {least}" if least >= 0 else ""))

    def seconds(self, key: str) -> float | None:
        value = self.data.get(key)
        if value is None or (type(value) in (int, float) and abs(value) <= _LARGEST):  # no NaN, no infinity
            return None if value is None else float(value)
        raise self.refused(key, value, "a number of seconds")

    def digits(self, key: str, count: int) -> str:
        value = self.text(key)
        if len(value) == count and set(value) <= set("0123456789abcdef"):
            return value
        raise self.refused(key, value, f"{count} hexadecimal digits")

    def parts(self, key: str) -> "Iterator[_Part]":
        """Yield the objects of a list, or the only one; nothing where there is none."""
        value = self.data.get(key)
        if isinstance(value, Mapping):
            yield _Part(value, f"{self.where}.{key}")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, list):
            many: list[object] = value  # pyright: ignore[reportUnknownVariableType]
            yield from (_Part(one, f"{self.where}.{key}[{i}]") for i, one in enumerate(many))
        elif value is not None:
            raise self.refused(key, value, "a list of objects")

    def facts(self) -> dict[str, Any]:
        """Return the attributes; a list in them becomes the tuple that it was."""
        value = self.data.get("attributes", {})
        if not isinstance(value, dict):
            raise self.refused("attributes", value, "an object")
        facts: dict[object, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {str(key): _fact(one, f"{self.where}.attributes.{key}") for key, one in facts.items()}


def _fact(value: object, where: str) -> Any:
    if isinstance(value, list):
        many: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        return tuple(_fact(one, where) for one in many)
    fits = math.isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) <= _LARGEST
    if value is None or isinstance(value, str) or fits:
        return value
    raise _refused(where, value, "a text, a number, a truth value, or a list of them")


def _refused(where: str, got: object, wanted: str) -> PayloadError:
    text = repr(got)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return PayloadError(f"Cannot read a trace: {where} is {shown}, not {wanted}", expected=SCHEMA)
