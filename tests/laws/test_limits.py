"""``limit``: never more branches at once, never a place lost, and parked branches hold none."""

import heapq
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai import Parallel

from .simulation import simulate
from .trees import Delay, Kinds, Par, Seq, Step, Wait, World, build, nodes, numbered, trees

MANY = settings(max_examples=settings.default.max_examples * 4)
SEEDS = st.integers(0, 2**16)
CROWDED = Kinds(
    endings=("return", "return", "return", "raise"), limits=(1, 1, 2, 2, 3), seconds=(0.0, 0.01, 0.02, 0.03)
)


@MANY
@given(trees(CROWDED, max_leaves=14), SEEDS)
def test_never_more_branches_than_the_limit_run_at_once(tree: Any, seed: int) -> None:
    world = World()
    simulate(lambda: build(tree, world)(3), seed)  # which raises Deadlock if a place is lost
    for par in (node for node in nodes(tree) if isinstance(node, Par)):
        assert world.most[par.ident] <= (par.limit or 0)


def lasts(jobs: list[tuple[float, float | None, float]], limit: int) -> float:
    """The reference: when the last of *jobs* (work, pause, work) ends on *limit* places, in arrival order."""
    now, free, new, back = 0.0, limit, deque(range(len(jobs))), deque[int]()
    events: list[tuple[float, int, str]] = []
    while new or back or events:
        while free and (new or back):
            free -= 1
            job, part = (back.popleft(), 2) if back else (new.popleft(), 0)
            heapq.heappush(events, (now + jobs[job][part], job, "ends" if part else "pauses"))
        now, job, what = heapq.heappop(events)
        pause = jobs[job][1]
        if what == "pauses" and pause is not None:
            heapq.heappush(events, (now + pause, job, "comes back"))
        elif what == "pauses":
            heapq.heappush(events, (now + jobs[job][2], job, "ends"))
        if what == "comes back":
            back.append(job)
        elif what == "ends" or pause is not None:
            free += 1
    return now


times = st.integers(1, 5)
jobs = st.lists(st.tuples(times, st.none() | times, times), min_size=1, max_size=7)


@MANY
@given(jobs, st.integers(1, 4), SEEDS, st.booleans())
def test_places_are_given_in_arrival_order_and_none_stays_empty(
    plan: list[tuple[int, int | None, int]], limit: int, seed: int, nested: bool
) -> None:
    # No two moments are the same, so that chance has no say: each time has a fraction of its own.
    exact = [
        (a + 0.0001 * 4.0**i, b and b + 0.00001 * 4.0**i, c + 0.000001 * 4.0**i) for i, (a, b, c) in enumerate(plan)
    ]
    world = World()

    def work(seconds: float) -> Step:
        return Step("async", (Wait(seconds),), "return", cleanup=0.0)

    branches = [Seq((work(a), *([] if b is None else [Delay(b, blocking=False)]), work(c))) for a, b, c in exact]
    if nested:  # several strands of one branch hold one place
        branches = [Seq((Par((branch, work(0.00001)), None, False, False),)) for branch in branches]
    tree = numbered(Par(tuple(branches), limit, False, False))
    out = simulate(lambda: build(tree, world)(3), seed)
    assert out.error is None
    assert out.elapsed == pytest.approx(lasts(exact, limit), abs=0.00005 if nested else 1e-9)


@given(st.integers(1, 30), st.integers(1, 40), SEEDS)
def test_as_many_branches_run_as_the_limit_allows(width: int, limit: int, seed: int) -> None:
    step = Step("async", (Wait(1.0),), "return", cleanup=0.0)
    world = World()
    tree = numbered(Par((step,) * width, limit, False, False))
    out = simulate(lambda: build(tree, world)(3), seed)
    assert world.most[tree.ident] == min(width, limit)
    assert out.elapsed == pytest.approx(-(-width // limit))


def test_a_branch_that_is_parked_gives_its_place_back() -> None:
    tree = numbered(Par((Seq((Delay(3600.0, blocking=False), Step("inline", (), "return"))),) * 50, 1, False, False))
    out = simulate(lambda: build(tree, World())(3))
    assert out.elapsed == pytest.approx(3600.0)
    assert isinstance(build(tree, World()), Parallel)
