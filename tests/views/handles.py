"""Handles of calls that never were, and stored traces of all kinds."""

from typing import Any, get_args

from hypothesis import strategies as st

from mai import TraceHandle
from mai.types import Outcome

MS = 1_000_000
OUTCOMES: tuple[str, ...] = get_args(Outcome)


def call(name: str, start_ms: float | None, end_ms: float | None, *inside: Any, **more: Any) -> dict[str, Any]:
    """Return a call with the calls *inside* it, as `handle` takes it."""
    times = {"start_ns": start_ms, "end_ns": end_ms}
    facts = {key: round(value * MS) for key, value in times.items() if value is not None}
    plain = {"name": name, "kind": "module", "module": "m.f", "key": f"/{name}", "outcome": "ok"}
    return {**plain, **facts, **more, "inside": inside}


def stored(root: dict[str, Any], *, started_at: float | None = 1000.0) -> dict[str, Any]:
    """Return the trace of *root*, as data."""
    calls: list[dict[str, Any]] = []
    stack: list[tuple[dict[str, Any], int | None]] = [(root, None)]
    while stack:
        one, parent = stack.pop()
        around = {} if parent is None else {"parent": parent}
        stack += [(inner, len(calls)) for inner in reversed(one["inside"])]
        calls.append({**around, **{key: value for key, value in one.items() if key != "inside"}})
    return {"schema": "mai.trace/1", "started_at": started_at, "within": "", "calls": calls}


def handle(root: dict[str, Any]) -> TraceHandle[Any]:
    """Return the handle of *root*."""
    return TraceHandle.from_dict(stored(root))


# ---------------------------------------------------------------- random ones


def _digits(count: int) -> st.SearchStrategy[str]:
    return st.integers(0, 16**count - 1).map(lambda number: f"{number:0{count}x}")


_TEXT = st.text(max_size=8)
_NUMBER = st.integers(0, 2**62)
_VALUE = _TEXT | st.integers(-(2**63) + 1, 2**63 - 1) | st.booleans() | st.floats(-1e300, 1e300) | st.none()
_FACTS = st.dictionaries(_TEXT, _VALUE | st.lists(_VALUE, max_size=2), min_size=1, max_size=2)
_EVENT = st.fixed_dictionaries({"at_ns": _NUMBER, "name": _TEXT, "attributes": _FACTS})
_OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "attempt": st.integers(2, 9),
    **dict.fromkeys(("start_ns", "end_ns"), st.integers(-(2**40), 2**62)),
    **dict.fromkeys(("input_size", "output_size", "items"), _NUMBER),
    **dict.fromkeys(("queued_ns", "dropped"), st.integers(1, 2**62)),
    "error": st.fixed_dictionaries(dict.fromkeys(("type", "module", "message"), _TEXT)),
    "attributes": _FACTS,
    "events": st.lists(_EVENT, min_size=1, max_size=2),
    "links": st.lists(
        st.fixed_dictionaries({"relation": _TEXT, "trace_id": _digits(32), "span_id": _digits(16)}),
        min_size=1,
        max_size=1,
    ),
}
_CALL = st.fixed_dictionaries(
    {**dict.fromkeys(("name", "kind", "module", "key"), _TEXT), "outcome": st.sampled_from(OUTCOMES)},
    optional=_OPTIONAL,
)
_SPAN = st.none() | st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))


@st.composite
def traces(draw: Any) -> dict[str, Any]:
    """Return a stored trace with anything in it; times are counted from its first call."""
    calls: list[dict[str, Any]] = []
    around: list[int] = []
    span = draw(_SPAN)
    for i, (one, depth) in enumerate(draw(st.lists(st.tuples(_CALL, st.integers(0, 4)), min_size=1, max_size=7))):
        around = [*around[: depth + 1], i]
        parent = {} if i == 0 else {"parent": around[-2] if len(around) > 1 else 0}
        around = around if len(around) > 1 else [0, i]
        ids = {} if span is None else {"span_id": f"{span[1]:016x}", "trace_flags": span[2]}
        trace = {"trace_id": f"{span[0]:032x}"} if span is not None and i == 0 else {}
        start = {"start_ns": 0} if i == 0 else {}
        calls.append({**parent, **one, **start, **ids, **trace})
    return {
        "schema": "mai.trace/1",
        "started_at": draw(st.none() | st.floats(0, 1e10)),
        "within": draw(_TEXT),
        "calls": calls,
    }


@st.composite
def timed(draw: Any, begin: int = 0, end: int = 40) -> dict[str, Any]:
    """Return a tree as calls leave it: what is inside lies within, but for detached work, which may end later."""
    inside: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 3 if end - begin > 4 else 0))):
        first = draw(st.integers(begin, end))
        last = draw(st.integers(first, end))
        late = draw(st.sampled_from([0, 0, 0, 0, 5]))
        inside.append(draw(timed(first, last + late)))
    inside.sort(key=lambda one: one["start_ns"])
    return call("step", begin / MS, end / MS, *inside)
