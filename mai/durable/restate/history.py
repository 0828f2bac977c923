"""What a journal of the server says of a run, as records."""

from collections.abc import Iterable
from typing import Any

from mai.durable.records import Kind, Record
from mai.durable.restate.body import Entry

__all__ = ["records_of"]


def records_of(entries: Iterable[dict[str, Any]]) -> list[Record]:
    """Return the steps, values and timers among the *entries*, in the order in which they were completed."""
    names: dict[int, tuple[str, str]] = {}
    found: list[Record] = []
    for entry in entries:
        command: dict[str, Any] = entry.get("Command", {})
        for kind in ("Run", "Sleep"):
            if kind in command:
                names[command[kind]["completion_id"]] = kind, command[kind]["name"]
        completion: dict[str, Any] = entry.get("Notification", {}).get("Completion", {})
        for kind, facts in completion.items():
            name = names.get(facts["completion_id"])
            record = None if name is None else _record(kind, name[1], facts.get("result"), len(found) + 1)
            found += [] if record is None else [record]
    return found


def _record(kind: str, path: str, result: Any, seq: int) -> Record | None:
    """Return a record; None of a step that was cut off."""
    if kind == "Sleep":
        return Record(path, "timer", seq)
    data = bytes(result["Success"])
    if data.startswith(b"["):
        return Record(path, "value", seq, output=data[1:-1])
    entry = Entry.load(data)
    if entry.cancelled:
        return None
    shown, error = (None if text is None else text.encode() for text in (entry.input, entry.error))
    kept: Kind = "undo" if path.endswith("!undo") else "step"
    return Record(path, kept, seq, input=shown, output=entry.output, error=error, version=entry.version)
