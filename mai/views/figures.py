"""The figures of a trace that follow from the times and attributes of its handles."""

from typing import Any

from mai.types import TraceHandle
from mai.values.names import BRANCH_INDEX, BRANCH_KEY, PARALLEL_LIMIT, PARALLEL_WIDTH

__all__ = ["critical_path", "latest", "queue_time", "self_time", "total"]

_ATTEMPT = "attempt"
_FIELDS = ("input_size", "output_size", "items", "dropped", "self_time", "queue_time")


def self_time(handle: TraceHandle[Any]) -> float | None:
    """Return how long *handle* ran while none of its children did [s]; None where that is not known."""
    begin, end = handle.start_ns, handle.end_ns
    if begin is None or end is None or handle.dropped:
        return None
    spans = [(c.start_ns, end if c.end_ns is None else c.end_ns) for c in handle.children if c.start_ns is not None]
    covered, reached = 0, begin
    for first, last in sorted(spans):
        covered += max(0, min(last, end) - max(first, reached))
        reached = max(reached, min(last, end))
    return (end - begin - covered) / 1e9


def queue_time(handle: TraceHandle[Any]) -> float | None:
    """Return how long *handle* was ready and had to wait [s]; None where that is not known.

    The branches of a Parallel, and the items of a Map that knows how many there are, are all ready when it begins; what
    an iterator gives is ready when it is taken. When the node of a graph was ready is nowhere kept. For what runs in a
    thread the kernel has taken the time.
    """
    begin, around = handle.start_ns, handle.parent
    if begin is None or (around is not None and around.kind == "graph" and PARALLEL_LIMIT in around.attributes):
        return None
    waited = handle._queued
    if (
        around is not None
        and around.start_ns is not None
        and not {BRANCH_INDEX, BRANCH_KEY}.isdisjoint(handle.attributes)
    ):
        facts = {**_call_of(around).attributes, **around.attributes}
        if PARALLEL_LIMIT in facts and PARALLEL_WIDTH in facts:
            waited += begin - around.start_ns
    return waited / 1e9


def _call_of(handle: TraceHandle[Any]) -> TraceHandle[Any]:
    """Return the call that *handle* is an attempt of, else itself."""
    return handle.parent if handle.kind == _ATTEMPT and handle.parent is not None else handle


def latest(handle: TraceHandle[Any]) -> int | None:
    """Return the end of *handle* [ns], and while it runs the last moment that anything below it tells of."""
    if handle.end_ns is not None or handle.start_ns is None:
        return handle.end_ns
    return max(at for h in handle.walk() for at in (h.start_ns, h.end_ns) if at is not None)


def critical_path(handle: TraceHandle[Any]) -> list[TraceHandle[Any]]:
    """Return the calls that the duration of *handle* was spent in, parents first, then by their beginning."""
    horizon = latest(handle)
    path: list[TraceHandle[Any]] = []
    stack = [handle]
    while stack:
        call = stack.pop()
        path.append(call)
        until = call.end_ns if call.end_ns is not None else horizon
        ends = [
            (horizon if c.end_ns is None and handle.end_ns is None else c.end_ns, c.start_ns, i)
            for i, c in enumerate(call.children)
        ]
        known = [(end, start, i) for end, start, i in ends if end is not None and start is not None]
        for end, start, i in sorted(known, reverse=True):
            if until is not None and end <= until:
                stack.append(call.children[i])
                until = start
    return path


def total(handle: TraceHandle[Any], key: str) -> float:
    """Return the sum of the attribute or figure *key* over *handle* and all below."""
    found = (getattr(h, key) if key in _FIELDS else h.attributes.get(key) for h in handle.walk())
    return sum(value for value in found if isinstance(value, int | float) and not isinstance(value, bool))
