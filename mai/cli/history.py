"""A durable run as text: one line in a list, or the tree of its records with what it waits for."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mai.durable import Record, RunInfo, Signal
from mai.durable.segments import is_mark, traces

__all__ = ["line", "lines"]

_MOST = 60  # characters of a payload


def line(info: RunInfo, now: float) -> str:
    """Return the run in one line."""
    parts = [_time(info.created), f"{info.status:<15}", info.run_id, info.target, *_state(info, now)]
    return "  ".join(parts).rstrip()


def lines(info: RunInfo, history: Sequence[Record], signals: Sequence[Signal], now: float) -> Iterator[str]:
    """Yield the lines of the run: what is known of it, the tree of its records, and its signals."""
    yield f"{info.run_id}  {info.target}  {info.status}"
    yield f"  began {_time(info.created)}, last change {_time(info.updated)}"
    yield from (f"  {state}" for state in _state(info, now))
    yield f"  input {_short(info.input)}"
    if info.output is not None:
        yield f"  output {_short(info.output)}"
    if info.error is not None:
        yield f"  error {_short(info.error)}"
    root = _Node()
    for record in history:
        if is_mark(record.path):
            continue
        path, mark, rest = record.path.partition("!asked")
        if mark and not rest and record.output is not None:
            root.at(path).asks = json.loads(record.output)
        else:
            root.at(record.path).record = record
    for path, name in info.waits.items():
        root.at(path).waits = name
    yield from root.lines("  ", now)
    yield from (f"  trace {trace} of segment {number}" for number, trace in traces(history))
    for signal in signals:
        taken = f"taken at {signal.path}" if signal.path is not None else "waits to be taken"
        yield f"  signal {signal.name} {_short(signal.data)}  {_time(signal.sent)}, {taken}"


@dataclass
class _Node:
    """A segment of a path."""

    record: Record | None = None
    waits: str | None = None
    asks: Mapping[str, str] | None = None
    below: dict[str, "_Node"] = field(default_factory=dict[str, "_Node"])

    def at(self, path: str) -> "_Node":
        """Return the node of *path*, which is made if there is none."""
        node = self
        for segment in path.split("/"):
            node = node.below.setdefault(segment, _Node())
        return node

    def lines(self, indent: str, now: float) -> Iterator[str]:
        """Yield a line for each node below, in the order of completion."""
        for segment, node in self.below.items():
            facts = [] if node.record is None else [*_facts(node.record, now)]
            if node.asks is not None:
                facts.append(f"asks {node.asks['prompt']!r} ({node.asks['expected']})")
            if node.waits is not None:
                facts.append(f"waits for {node.waits!r}")
            yield "  ".join([f"{indent}{segment}", *facts])
            yield from node.lines(indent + "  ", now)


def _facts(record: Record, now: float) -> Iterator[str]:
    """Yield what a record says."""
    yield f"[{record.seq}] {record.kind}"
    if record.due is not None:
        yield f"until {_time(record.due)}" + (f" ({_span(record.due - now)} to go)" if record.due > now else "")
    elif record.ended > record.started:
        yield f"{record.ended - record.started:.3f} s"
    if record.attempt > 1:
        yield f"attempt {record.attempt}"
    if record.error is not None:
        yield f"failed: {_short(record.error)}"
    elif record.output is not None:
        yield f"-> {_short(record.output)}"


def _state(info: RunInfo, now: float) -> Iterator[str]:
    """Yield what is going on with the run."""
    if info.owner is not None:
        until = "" if info.lease_until is None else f", lease for {_span(info.lease_until - now)}"
        gone = info.lease_until is not None and info.lease_until <= now
        yield f"owner {info.owner}" + (", who is gone" if gone else until)
    if info.due is not None:
        yield "to be taken up now" if info.due <= now else f"goes on at {_time(info.due)} (in {_span(info.due - now)})"
    if info.waits:
        yield f"waits for {', '.join(sorted(set(info.waits.values())))}"
    if info.claims > 1:
        yield f"claimed {info.claims} times without a new record"
    if info.cancelled and info.status in ("pending", "running", "waiting"):
        yield "asked to end"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def _span(seconds: float) -> str:
    """Return a length of time, in the unit that fits."""
    units: Mapping[str, float] = {"d": 86400.0, "h": 3600.0, "min": 60.0}
    unit = next((name for name, length in units.items() if abs(seconds) >= 2 * length), "s")
    return f"{seconds / units.get(unit, 1.0):.0f} {unit}"


def _short(data: bytes) -> str:
    text = data.decode(errors="backslashreplace")
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
