"""Timeouts at random places: the right step raises at the right time, nothing starts late, and clean-up runs."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mai import DeadlineExceeded
from mai.testing import Trial

from .simulation import simulate, unfinished
from .trees import (
    Call,
    Cond,
    Delay,
    Kinds,
    Par,
    Scope,
    Seq,
    Step,
    Wait,
    World,
    arrived,
    build,
    evaluate,
    fresh_env,
    leaves,
    nodes,
    numbered,
    trees,
)

CLEANUP = 0.001
# Work takes whole seconds and clean-up some milliseconds, timeouts end in a half: chance has no say in what ends first.
KINDS = Kinds(
    endings=("return", "return", "swallow", "fail"),
    colours=("async", "async", "stream"),
    limits=(None,),
    timeouts=(None, None, 0.5, 1.5, 2.5, 4.5),
    seconds=(0.0, 1.0, 2.0, 3.0),
    cleanups=(CLEANUP,),
    collect=(False,),
    guards=(False,),
)
SLACK = 0.2


@dataclass
class Schedule:
    """When everything would happen if no timeout did anything."""

    fires: list[tuple[float, int]] = field(default_factory=list)  # when the timeout of which node fires
    deadlines: dict[int, float | None] = field(default_factory=dict)  # of steps

    def end(self, node: Any, now: float, deadline: float | None, served: bool = True) -> float:
        """The reference: when *node* ends; *served* says that a call around raises at *deadline*."""
        start = now
        if node.timeout is not None and (deadline is None or now + node.timeout < deadline):
            deadline, served = now + node.timeout, False
        match node:
            case Step():
                self.deadlines[node.ident] = deadline
                now = self.work(node.actions, now, deadline) + CLEANUP
            case Delay():
                now += node.seconds
            case Seq():
                for step in node.steps:
                    now = self.end(step, now, deadline)
            case Par():
                now = max(self.end(branch, now, deadline) for branch in node.branches)
        if not served and deadline is not None and deadline < now:
            self.fires.append((max(deadline, start), node.ident))
        return now

    def work(self, actions: tuple[Any, ...], now: float, deadline: float | None, served: bool = True) -> float:
        for action in actions:
            match action:
                case Wait(seconds):
                    now += seconds
                case Call(node, _):
                    now = self.end(node, now, deadline, served)
                case Scope(_, timeout, inner):
                    nearer = timeout is not None and (deadline is None or now + timeout < deadline)
                    now = self.work(inner, now, now + timeout if nearer else deadline, served and not nearer)
        return now


def timed(tree: Any, seed: int, world: World) -> Trial[Any]:
    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            return await build(tree, world)(3)
        finally:
            assert task.cancelling() == 0
            assert {*world.entered} == {*world.cleaned}
            assert unfinished() == 1

    return simulate(main, seed)


MANY = settings(max_examples=settings.default.max_examples * 4)
TREES = trees(KINDS).filter(lambda tree: not any(isinstance(node, Cond) for node in nodes(tree)))


def in_scope(timeout: float | None, *actions: Any) -> Any:
    return Step("async", (Scope(1, timeout, actions),), "return", cleanup=CLEANUP)


SLOW = Call(Step("async", (Wait(3.0),), "return", cleanup=CLEANUP), guarded=False)


@MANY
@example(numbered(in_scope(1.5, SLOW)), 0)
@example(numbered(in_scope(1.5, Wait(2.0), SLOW)), 0)
@example(numbered(in_scope(4.5, Call(in_scope(1.5, SLOW), guarded=False))), 0)
@example(numbered(in_scope(1.5, Call(in_scope(4.5, SLOW), guarded=False))), 0)
@given(TREES, st.integers(0, 2**16))
def test_the_right_step_raises_at_its_deadline_and_nothing_starts_after_it(tree: Any, seed: int) -> None:
    world, plan = World(named=True), Schedule()
    out = timed(tree, seed, world)
    plan.end(tree, 0.0, None)
    first = min((when for when, _ in plan.fires), default=None)
    for ident, (when, deadline) in world.began.items():
        wanted = plan.deadlines[ident]
        assert deadline == (wanted if wanted is None else pytest.approx(1000 + wanted, abs=SLACK))
        assert deadline is None or when < deadline
    if first is None:
        assert out.error is None
        assert arrived(out.value, evaluate(tree, 3, fresh_env()), {})
        return
    assert first - 1e-6 <= out.elapsed < first + SLACK
    errors = list(leaves(out.error))
    late = [error for error in errors if isinstance(error, DeadlineExceeded)]
    due = {f"s{ident}" for when, ident in plan.fires if when < first + SLACK}
    assert {error.step_id.rsplit("/", 1)[-1] for error in late} <= due
    assert late
    assert all(error in late or error in world.raised.values() for error in errors)


def test_the_trees_have_timeouts_that_fire_and_timeouts_that_do_not() -> None:
    met: set[bool] = set()

    @settings(MANY, derandomize=True)
    @given(TREES)
    def look(tree: Any) -> None:
        plan = Schedule()
        plan.end(tree, 0.0, None)
        met.update((bool(plan.fires), False) if any(node.timeout for node in nodes(tree)) else ())

    look()
    assert met == {True, False}
