"""A trace as a Mermaid Gantt chart."""

import heapq
from typing import Any

from mai.types import TraceHandle
from mai.views.figures import critical_path, latest
from mai.views.outcomes import glyph, name_of
from mai.views.text import safe, seconds_text

__all__ = ["gantt"]

_MOST = 200  # beyond some hundred tasks Mermaid draws slowly, and nobody can read it
_FAILED = ("error", "timeout")
# The axis must not depend on the time zone of the reader, so only seconds and milliseconds of it are shown, whatever
# they stand for: of each unit [ns] a thousandth is drawn as a millisecond, and up to sixty of it fit.
_UNITS = (("µs", 10**3), ("ms", 10**6), ("s", 10**9), ("min", 60 * 10**9), ("h", 3600 * 10**9), ("d", 86400 * 10**9))


def gantt(handle: TraceHandle[Any]) -> str:
    """Return the text of a Gantt chart of the calls below *handle*.

    Of more than 200 calls those are drawn that failed, then those on the critical path, then the longest.

    Example:
        >>> from mai import capture, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> with capture() as trace:
        ...     (shout >> len).run("hello")
        5
        >>> print(gantt(trace.runs[0]))  # doctest: +ELLIPSIS
        gantt
          title Sequential, ...
          dateFormat x
          axisFormat %S.%L ...
          ✓ Sequential ...
    """
    zero, end = handle.start_ns, latest(handle)
    if zero is None or end is None:
        return f"gantt\n  title {_text(handle.name)} (no times are known)"
    calls = [call for call in handle.walk() if call.start_ns is not None]
    path = set(map(id, critical_path(handle)))
    drawn = calls if len(calls) <= _MOST else _chosen(calls, path, end)
    unit, size = next(((unit, size) for unit, size in _UNITS if end - zero < 60 * size), _UNITS[-1])
    left = f" (the {len(drawn)} most important of {len(calls):,} calls)" if len(drawn) < len(calls) else ""
    lines = ["gantt", f"  title {_text(handle.name)}, {seconds_text((end - zero) / 1e9)}{left}"]
    lines += ["  dateFormat x", f"  axisFormat %S.%L {unit}"]
    for call in drawn:
        first, last = _begin(call) - zero, (end if call.end_ns is None else call.end_ns) - zero
        at, until = max(0, first) * 1000 // size, max(0, last) * 1000 // size
        took = "" if call.duration is None else f" {seconds_text(call.duration)}"
        tag = _tag(call, path)
        lines.append(f"  {glyph(call.outcome)} {_text(name_of(call) + took)} :{tag}{at}, {max(until, at + 1)}")
    return "\n".join(lines)


def _chosen(calls: list[TraceHandle[Any]], path: set[int], end: int) -> list[TraceHandle[Any]]:
    """Return the most important calls, in their order."""

    def weight(i: int) -> tuple[bool, bool, int]:
        call = calls[i]
        return call.outcome in _FAILED, id(call) in path, (end if call.end_ns is None else call.end_ns) - _begin(call)

    return [calls[i] for i in sorted({0, *heapq.nlargest(_MOST - 1, range(1, len(calls)), key=weight)})]


def _begin(call: TraceHandle[Any]) -> int:
    return call.start_ns or 0


def _tag(call: TraceHandle[Any], path: set[int]) -> str:
    """Return what Mermaid colours a task by: red for a failure, strong for what runs or is on the critical path."""
    if call.outcome in _FAILED:
        return "crit, "
    return "active, " if call.end_ns is None or id(call) in path else "done, "


def _text(name: str) -> str:
    """Return *name* without the characters that mean something in a chart."""
    return "".join(" " if char in ":;#,%" else char for char in safe(name, 100)).strip() or "?"
