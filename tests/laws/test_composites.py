"""Random trees of Switch, Loop, Map and Race: the reference's result, and a cancel at any moment loses nothing."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mai import Loop, Map, Module, NonBlockingDelay, Parallel, Race, Sequential, Switch, capture, module

from .simulation import simulate, unfinished

VAR: ContextVar[int] = ContextVar("law.composites", default=0)
SEEDS = st.integers(0, 2**16)
MANY = settings(max_examples=settings.default.max_examples * 2)
MOST_MOMENTS = 40
FAILED: Any = object()  # the reference's word for a failure


class Boom(Exception):
    """The failure of a leaf or a source."""


@dataclass(frozen=True)
class Leaf:
    """Waits, sets a contextvar, then fails or gives a number; cleans up in so many seconds."""

    salt: int
    wait: float | None
    fails: bool
    cleanup: float


@dataclass(frozen=True)
class Chain:
    """A Sequential, with a place given back between its steps."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class Choice:
    """A Switch over the cases but the last, which is otherwise."""

    cases: tuple[Any, ...]
    leaf: Leaf | None  # the selector, where it is a step


@dataclass(frozen=True)
class Turns:
    """A Loop; *modulus*: until the state can be divided by it, None: all turns."""

    body: Any
    most: int
    modulus: int | None


@dataclass(frozen=True)
class Each:
    """A Map over so many items made from the input."""

    body: Any
    count: int
    concurrency: int
    collect: bool
    source: str  # list, plain, async
    pause: float | None
    breaks: bool  # the source fails after the last item


@dataclass(frozen=True)
class Fastest:
    """A Race; who wins is a matter of time, so every value becomes the same."""

    runners: tuple[Any, ...]


def digest(*parts: Any) -> int:
    return hash(parts) % 1_000_003


# ---------------------------------------------------------------- the reference


def evaluate(node: Any, x: Any) -> Any:
    """Return the value of *node*, by plain recursion."""
    if x is FAILED:
        return FAILED
    match node:
        case Leaf():
            return FAILED if node.fails else digest(node.salt, x, 5)
        case Chain():
            for step in node.steps:
                x = evaluate(step, x)
            return x
        case Choice():
            key = x if node.leaf is None else evaluate(node.leaf, x)
            return FAILED if key is FAILED else evaluate(node.cases[key % len(node.cases)], x)
        case Turns():
            for _ in range(node.most):
                x = evaluate(node.body, x)
                if x is FAILED or (node.modulus and x % node.modulus == 0):
                    return x
            return FAILED if node.modulus else x
        case Each():
            outs = [evaluate(node.body, digest(x, i)) for i in range(node.count)]
            bad = node.breaks or (FAILED in outs and not node.collect)
            return FAILED if bad else digest(*(-1 if out is FAILED else out for out in outs))
    return FAILED if all(evaluate(runner, x) is FAILED for runner in node.runners) else digest("won", x)


# ---------------------------------------------------------------- the modules


class World:
    """What happened in one run."""

    def __init__(self) -> None:
        self.entered = self.cleaned = self.opened = self.closed = self.cut = 0
        self.calls = itertools.count()
        self.flying: dict[int, int] = {}
        self.crowded: list[Each] = []

    @contextmanager
    def opens(self) -> Iterator[None]:
        self.opened += 1
        try:
            yield
        finally:
            self.closed += 1


class Work(Module):
    def __init__(self, leaf: Leaf, world: World) -> None:
        self.leaf, self.world = leaf, world

    async def forward(self, x: int) -> int:
        self.world.entered += 1
        cancelled = False
        try:
            seen = VAR.get()
            VAR.set(self.leaf.salt)
            if self.leaf.wait is not None:
                await asyncio.sleep(self.leaf.wait)
            if self.leaf.fails:
                raise Boom
            return digest(self.leaf.salt, x, seen)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            try:
                if self.leaf.wait is not None:
                    await asyncio.sleep(self.leaf.cleanup)
            except asyncio.CancelledError:  # the first one may well meet the clean-up itself, as in plain asyncio
                self.world.cut += cancelled
                raise
            finally:
                self.world.cleaned += 1


class Body(Module):
    """Counts how many items of one Map are in flight."""

    def __init__(self, node: Each, world: World) -> None:
        self.node, self.world, self.inner = node, world, build(node.body, world)

    async def forward(self, item: tuple[int, int]) -> int:
        call, x = item
        flying = self.world.flying
        flying[call] = flying.get(call, 0) + 1
        parks = "Chain(" in repr(self.node.body)
        if flying[call] > self.node.concurrency and not parks:
            self.world.crowded.append(self.node)
        try:
            return await self.inner(x)
        finally:
            flying[call] -= 1


def source(node: Each, world: World, x: int, call: int) -> Any:
    """Return the items of one call of a Map."""

    def plain() -> Iterator[tuple[int, int]]:
        with world.opens():
            for i in range(node.count):
                VAR.set(-i)
                yield call, digest(x, i)
            if node.breaks:
                raise Boom

    async def slow() -> AsyncIterator[tuple[int, int]]:
        with world.opens():
            for item in plain():
                if node.pause is not None:
                    await asyncio.sleep(node.pause)
                yield item

    return slow() if node.source == "async" else plain() if node.source == "plain" or node.breaks else [*plain()]


def folded(values: list[Any]) -> int:
    return digest(*(-1 if isinstance(value, Boom | ExceptionGroup | RuntimeError) else value for value in values))


def build(node: Any, world: World) -> Module:
    """Make the modules of a tree."""
    match node:
        case Leaf():
            return Work(node, world)
        case Chain():
            parts = [build(step, world) for step in node.steps]
            return Sequential(parts[0], NonBlockingDelay(0.01), *parts[1:])
        case Choice():
            *cases, other = [build(case, world) for case in node.cases]
            count = len(node.cases)
            selector: Any = (lambda x: x % count) if node.leaf is None else build(node.leaf, world) >> count.__rmod__
            table = dict(enumerate(cases)) if cases else {-1: other}
            return Switch(selector, table, otherwise=other)
        case Turns():
            until: Any = (lambda x: x % node.modulus == 0) if node.modulus else None
            return Loop(build(node.body, world), until=until, max_iters=node.most)
        case Each():
            spread = module(lambda x: source(node, world, x, next(world.calls))).with_(inline=True)
            mapped = Map(
                Body(node, world), concurrency=node.concurrency, on_error="collect" if node.collect else "cancel"
            )
            return spread >> mapped >> module(folded).with_(inline=True)
    won = module(lambda x: digest("won", x)).with_(inline=True)
    keep = [Parallel(build(runner, world), won) for runner in node.runners]
    return Race(*(Sequential(one, module(lambda out: out[1]).with_(inline=True)) for one in keep))


# ---------------------------------------------------------------- random trees


def trees(*, failing: bool) -> st.SearchStrategy[Any]:
    fails = st.sampled_from([False, False, False, True]) if failing else st.just(False)
    waits = st.sampled_from([None, 0.0, 0.01, 0.02])
    leaf = st.builds(Leaf, st.integers(1, 99), waits, fails, st.sampled_from([0.0, 0.01, 0.03]))
    counts = st.integers(1, 3)

    def extend(inner: Any) -> Any:
        several = st.lists(inner, min_size=1, max_size=3).map(tuple)
        modulus = st.sampled_from([None, 2, 3]) if failing else st.none()
        kinds, breaks = st.sampled_from(["list", "plain", "async"]), fails
        return (
            st.builds(Chain, several)
            | st.builds(Choice, several, st.none() | leaf)
            | st.builds(Turns, inner, counts, modulus)
            | st.builds(Each, inner, st.integers(0, 4), counts, st.booleans(), kinds, waits, breaks)
            | st.builds(Fastest, several)
        )

    return st.recursive(leaf, extend, max_leaves=6)


def blamed(error: BaseException | None) -> bool:
    """Say whether a failure is one of the tree's own."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(blamed, error.exceptions))
    return isinstance(error, Boom) or (type(error).__name__ == "LoopExhausted")


@MANY
@given(trees(failing=True), SEEDS, st.booleans())
def test_every_result_is_that_of_the_reference_and_nothing_leaks(tree: Any, seed: int, observed: bool) -> None:
    world = World()

    async def main() -> Any:
        VAR.set(5)
        try:
            if not observed:
                return await build(tree, world)(3)
            with capture():
                return await build(tree, world)(3)
        finally:
            task = asyncio.current_task()
            assert task is not None
            assert (VAR.get(), task.cancelling(), unfinished()) == (5, 0, 1)

    out, wanted = simulate(main, seed), evaluate(tree, 3)
    assert (out.value, out.error) == (wanted, None) if wanted is not FAILED else blamed(out.error)
    assert (world.entered, world.opened, world.cut) == (world.cleaned, world.closed, 0)
    assert world.crowded == []


@MANY
@given(trees(failing=False), SEEDS)
def test_a_cancel_at_any_moment_leaves_no_task_and_loses_no_cleanup(tree: Any, seed: int) -> None:
    def run(moment: int | None) -> Any:
        world, after = World(), list[Any]()

        async def main() -> Any:
            VAR.set(5)
            try:
                return await build(tree, world)(3)
            finally:
                after.append((world.entered - world.cleaned, world.opened - world.closed, world.cut, unfinished()))

        out = simulate(main, seed, moment)
        assert after == [(0, 0, 0, 1)]
        return out

    steps = run(None).steps
    for moment in range(2, steps + 1, 1 + steps // MOST_MOMENTS):
        out = run(moment)
        if out.at is not None:
            assert isinstance(out.error, asyncio.CancelledError)


RUNNER = st.builds(Leaf, st.integers(1, 99), st.sampled_from([0.01, 0.02, 0.03]), st.booleans(), st.just(0.0))
RUNNERS = st.lists(RUNNER, min_size=1, max_size=4, unique_by=lambda leaf: leaf.salt)


@given(RUNNERS, SEEDS)
def test_a_race_is_won_by_one_of_the_fastest_that_succeed(runners: list[Leaf], seed: int) -> None:
    async def main() -> Any:
        with capture() as trace:
            value = await Race(*(Work(leaf, World()) for leaf in runners))(3)
        return value, trace.runs[0].attributes["mai.decision"]

    out = simulate(main, seed)
    best = min((leaf.wait or 0.0 for leaf in runners if not leaf.fails), default=None)
    if best is None:
        assert blamed(out.error)
        assert isinstance(out.error, ExceptionGroup) == (len(runners) > 1)
    else:
        value, winner = out.value
        assert (runners[winner].wait, runners[winner].fails) == (best, False)
        assert value == digest(runners[winner].salt, 3, 0)
