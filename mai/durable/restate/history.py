"""What a journal of the server says of a run, as records."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from mai.durable.records import Kind, Record
from mai.durable.restate.body import Entry
from mai.durable.restate.mail import opened

__all__ = ["records_of"]

_REFUSED = re.compile(r"(.*)!refused\[\d+\]", re.DOTALL)
_SIGNAL = re.compile(r"signal/(.*)/\d+", re.DOTALL)


class _Asked(NamedTuple):
    """A command: its kind, what it is called, when it was given [s], and when its timer is over [s]."""

    kind: str
    name: str
    given: float
    due: float | None


def records_of(entries: Iterable[tuple[dict[str, Any], float]]) -> list[Record]:
    """Return what was completed among the *entries*, which have a time each [s], in the order of completion.

    A signal stands at its name, the answer to a question so at the path of that. An answer that was put aside stands
    only as such.
    """
    asked: dict[int, _Asked] = {}
    taken = Counter[str]()
    found: list[Record] = []
    for entry, at in entries:
        for kind, facts in entry.get("Command", {}).items():
            if kind in ("Run", "Sleep", "GetPromise"):
                due = facts["wake_up_time"] / 1000.0 if kind == "Sleep" else None
                asked[facts["completion_id"]] = _Asked(kind, facts.get("key") or facts["name"], at, due)
        for facts in entry.get("Notification", {}).get("Completion", {}).values():
            one = asked.get(facts["completion_id"])
            record = None if one is None else _record(one, facts.get("result"), at)
            if record is None:
                continue
            if (refused := _REFUSED.fullmatch(record.path)) is not None:  # which was the last thing that came
                taken[refused[1]] -= 1
                found = [other for other in found if (other.path, other.kind) != (refused[1], "wait")]
            elif record.kind == "wait":
                taken[record.path] += 1
                number = taken[record.path]
                record = record if number == 1 else replace(record, path=f"{record.path}~{number}")
            found.append(record)
    return [replace(record, seq=seq) for seq, record in enumerate(found, 1)]


def _record(asked: _Asked, result: Any, at: float) -> Record | None:
    """Return a record; None of a step that was cut off."""
    path, given = asked.name, asked.given
    if asked.kind == "Sleep":
        return Record(path, "timer", due=asked.due, started=given, ended=at)
    data = bytes(result["Success"])
    if asked.kind == "GetPromise":
        return Record(_SIGNAL.sub(r"\1", path), "wait", output=opened(data)[0], started=given, ended=at)
    if data.startswith(b"["):
        kept: Kind = "wait" if _REFUSED.fullmatch(path) else "value"
        return Record(path, kept, output=data[1:-1], started=given, ended=at)
    entry = Entry.load(data)
    if entry.cancelled:
        return None
    shown, error = (None if text is None else text.encode() for text in (entry.input, entry.error))
    kind: Kind = "undo" if path.endswith("!undo") else "step"
    return Record(
        path, kind, input=shown, output=entry.output, error=error, version=entry.version, started=given, ended=at
    )
