"""A cancel at any moment: no task is left, no clean-up is lost, and what the cancel was for happens."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mai.testing import Trial
from mai.testing.loop import START

from .simulation import simulate, unfinished
from .trees import Kinds, Par, Step, Wait, World, build, nodes, numbered, trees

MOST_MOMENTS = 60
SLACK = 0.001
MANY = settings(max_examples=settings.default.max_examples * 2)
SEEDS = st.integers(0, 2**16)
SECONDS = (0.0, 0.0, 1.0, 2.0, 3.0)  # long against any clean-up: what goes on after a cancel is seen by its time
WELL = Kinds(guards=(False,), seconds=SECONDS)
STUBBORN = Kinds(endings=("return", "return", "swallow", "fail"), guards=(False,), seconds=SECONDS)
FAILING = Kinds(endings=("return", "return", "raise"), seconds=SECONDS)
TIMED = Kinds(
    endings=("return", "return", "swallow"), timeouts=(None, None, 0.5, 1.5, 2.5), guards=(False,), seconds=SECONDS
)


@dataclass
class Story:
    """One run, and how things stood when the caller had its turn again."""

    out: Trial[Any]
    world: World
    took: float  # from the cancel to the end of the call
    clean: float  # all clean-ups of the tree, one after the other
    late: set[int]  # steps that began after the moment of the cancel (within it, what is ready may come first)
    later: set[int]  # steps that began after the caller had its turn again
    unclean: list[int]
    tasks: int
    cancels: int  # what task.cancelling() said


def cancelled(tree: Any, seed: int, moment: int | None) -> Story:
    """Run the tree and cancel it at a moment."""
    world, after = World(), dict[str, Any]()

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            return await build(tree, world)(3)
        finally:
            after["unclean"] = sorted({*world.entered} - {*world.cleaned})
            after["tasks"], after["cancels"] = unfinished(), task.cancelling()
            after["later"] = {*world.began}

    out = simulate(main, seed, moment)
    met = math.inf if out.at is None else START + out.at
    clean = sum(max(0.0, node.cleanup) for node in nodes(tree) if isinstance(node, Step))
    after["later"] = {*world.began} - after["later"]
    after["late"] = {ident for ident, (when, _) in world.began.items() if when > met}
    return Story(out, world, took=START + out.elapsed - met, clean=clean, **after)


def stories(tree: Any, seed: int) -> Any:
    """Cancel the tree at each step of the loop, or at as many as there is time for."""
    steps = cancelled(tree, seed, None).out.steps
    for moment in range(2, steps + 1, 1 + steps // MOST_MOMENTS):
        story = cancelled(tree, seed, moment)
        assert story.tasks == 1
        assert story.unclean == []
        assert story.later == set()
        assert story.cancels == (story.out.at is not None)
        if story.out.at is not None:
            yield story


@MANY
@given(trees(WELL), SEEDS)
def test_a_cancel_at_any_moment_ends_the_call_and_loses_no_cleanup(tree: Any, seed: int) -> None:
    for story in stories(tree, seed):
        assert isinstance(story.out.error, asyncio.CancelledError)
        assert story.world.cut == []
        assert story.took < story.clean + SLACK
        assert story.late == set()


def at_once(*branches: Step, limit: int | None = None, collect: bool = False) -> Any:
    return numbered(Par(branches, limit, collect, False))


LONG = Step("async", (Wait(3.0),), "return")
FAILS = Step("async", (Wait(1.0),), "fail")


@MANY
@example(at_once(FAILS, LONG, collect=True), 0)
@example(at_once(FAILS, LONG, LONG, limit=1, collect=True), 0)
@example(at_once(LONG, FAILS, LONG, limit=1, collect=True), 0)
@given(trees(STUBBORN), SEEDS)
def test_a_step_that_swallows_the_cancel_or_fails_in_its_cleanup_does_not_win(tree: Any, seed: int) -> None:
    for story in stories(tree, seed):
        assert story.out.error is not None
        assert isinstance(story.out.error, asyncio.CancelledError) or story.world.raised
        assert story.world.cut == []
        assert story.took < story.clean + SLACK
        assert story.late == set()


@MANY
@given(trees(FAILING), SEEDS)
def test_a_cancel_that_meets_failures_leaves_nothing_either(tree: Any, seed: int) -> None:
    for story in stories(tree, seed):
        assert isinstance(story.out.error, asyncio.CancelledError) or story.world.raised
        assert story.world.cut == []


@MANY
@given(trees(TIMED), SEEDS)
def test_a_cancel_wins_over_timeouts(tree: Any, seed: int) -> None:
    for story in stories(tree, seed):
        assert isinstance(story.out.error, asyncio.CancelledError)


@given(trees(WELL), SEEDS, st.integers(2, 40))
def test_a_caller_that_absorbs_the_cancel_goes_on_undisturbed(tree: Any, seed: int, moment: int) -> None:
    world = World()

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            await build(tree, world)(3)
        except asyncio.CancelledError:
            assert task.uncancel() == 0
        await asyncio.sleep(3600)
        return await build(tree, World())(3), task.cancelling()

    async def alone() -> Any:
        return await build(tree, World())(3)

    out = simulate(main, seed, moment)
    if not isinstance(out.error, asyncio.CancelledError):  # that is a cancel in the sleep after a short tree
        assert out.value == (simulate(alone).value, 0)
