"""Random trees of modules: their traces come back from data as they were, and their figures are those of references."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import TraceHandle, capture

from .simulation import simulate
from .trees import Kinds, World, build, trees

KINDS = Kinds(endings=("return", "return", "return", "raise", "swallow"), timeouts=(None, None, 0.015))
SEEDS = st.integers(0, 2**16)


def trace_of(tree: Any, seed: int) -> TraceHandle[Any]:
    """Run the tree, and return its handle."""
    runs: list[TraceHandle[Any]] = []

    async def main() -> None:
        with capture() as trace:
            try:
                await build(tree, World())(3)
            except (Exception, asyncio.CancelledError):  # noqa: BLE001
                pass
        runs.extend(trace.runs)

    simulate(main, seed)
    (root,) = runs
    return root


def ns(seconds: float | None) -> int:
    assert seconds is not None
    return round(seconds * 1e9)


@given(trees(KINDS), SEEDS)
def test_the_trace_of_any_tree_comes_back_from_its_data(tree: Any, seed: int) -> None:
    root = trace_of(tree, seed)
    data = root.to_dict()
    again = TraceHandle.from_dict(json.loads(json.dumps(data)))
    assert again.to_dict() == data
    pairs = list(zip(root.walk(), again.walk(), strict=True))
    for one, other in pairs:
        for fact in ("step_id", "name", "kind", "attempt", "outcome", "duration", "self_time", "queue_time", "_error"):
            assert getattr(other, fact) == getattr(one, fact), fact
        assert dict(other.attributes) == dict(one.attributes)
        assert other.started_at == pytest.approx(one.started_at)
    index = {id(one): i for i, (one, _) in enumerate(pairs)}
    other_index = {id(other): i for i, (_, other) in enumerate(pairs)}
    assert [index[id(h)] for h in root.critical_path()] == [other_index[id(h)] for h in again.critical_path()]


@given(trees(KINDS), SEEDS)
def test_the_times_on_the_critical_path_of_any_tree_add_up_to_its_duration(tree: Any, seed: int) -> None:
    root = trace_of(tree, seed)
    path = root.critical_path()
    inside = {id(h): sum(ns(c.duration) for c in path if c.parent is h) for h in path}
    assert sum(ns(h.duration) - inside[id(h)] for h in path) == ns(root.duration)
    assert all(ns(h.self_time) <= ns(h.duration) - inside[id(h)] for h in path)
    for h in root.walk():
        own = ns(h.self_time)
        assert max(0, ns(h.duration) - sum(ns(c.duration) for c in h.children)) <= own <= ns(h.duration)
