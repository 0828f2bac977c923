"""Random graphs: the result is the reference's, whatever waits, fails or is limited; plans keep what they say."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai import BlockingDelay, Context, Graph, Module, NonBlockingDelay, PartialFailure, capture, graph

from .simulation import simulate, unfinished

MANY = settings(max_examples=settings.default.max_examples * 3)
SEEDS = st.integers(0, 2**16)
MARK: ContextVar[str] = ContextVar("tests.laws.graph", default="caller's")


@dataclass(frozen=True)
class Spec:
    """One node: what it takes (earlier nodes by index, -1 the input, or constants), and how it behaves."""

    sources: tuple[int, ...]
    constants: tuple[int, ...] = ()
    by_name: int | None = None
    waits: tuple[float, ...] = ()
    fails: bool = False
    delay: str = ""
    text: bool = False


class Boom(Exception):
    """What a node raises."""


class World:
    """What the nodes of one run saw."""

    def __init__(self) -> None:
        self.live = self.most = 0
        self.began: list[int] = []
        self.leaks: list[str] = []
        self.raised: dict[int, Boom] = {}


def value_of(ident: int, args: list[int], extra: int) -> int:
    """Return what node *ident* makes of its arguments."""
    return (7 * ident + sum((i + 2) * arg for i, arg in enumerate(args)) + 13 * extra) % 1009


class Node(Module):
    """A node that does as its Spec says."""

    def __init__(self, ident: int, spec: Spec, world: World) -> None:
        self.ident, self.spec, self.world = ident, spec, world

    async def forward(self, *args: int, extra: int = 0) -> int:
        world = self.world
        if MARK.get() != "caller's":
            world.leaks.append(f"{self.ident}: {MARK.get()}")
        MARK.set(f"{self.ident}'s")
        world.began.append(self.ident)
        world.live += 1
        world.most = max(world.most, world.live)
        try:
            for seconds in self.spec.waits:
                await asyncio.sleep(seconds)
            if self.spec.fails:
                world.raised[self.ident] = Boom(self.ident)
                raise world.raised[self.ident]
            return value_of(self.ident, list(args), extra)
        finally:
            world.live -= 1


class Text(Node):
    """The same, its value as text, so that a cast stands on each of its edges."""

    async def forward(self, *args: int, extra: int = 0) -> str:  # type: ignore[override]
        return str(await Node.forward(self, *args, extra=extra))


@st.composite
def graphs(draw: Any, fails: bool = False) -> tuple[Spec, ...]:
    """Return a strategy for random graphs."""
    specs = list[Spec]()
    for i in range(draw(st.integers(1, 12))):
        sources = st.lists(st.integers(-1, i - 1), min_size=1, max_size=3).map(tuple)
        waits = st.lists(st.sampled_from([0.0, 0.01, 0.02]), max_size=2).map(tuple)
        specs.append(
            draw(
                st.builds(
                    Spec,
                    sources,
                    st.sampled_from([(), (), (5,)]),
                    st.none() | st.integers(-1, i - 1),
                    waits,
                    st.sampled_from([False, False, False, True]) if fails else st.just(False),
                    st.sampled_from(["", "", "", "blocking", "other"]),
                    st.booleans(),
                )
            )
        )
    return tuple(specs)


def reference(specs: tuple[Spec, ...], x: int) -> dict[int, int | None]:
    """Return the value of every node, None where it fails or cannot begin: ten lines that need no explanation."""
    values: dict[int, int | None] = {-1: x}
    for i, spec in enumerate(specs):
        args = [values[k] for k in spec.sources]
        extra = 0 if spec.by_name is None else values[spec.by_name]
        known = [arg for arg in args if arg is not None]
        if spec.fails or extra is None or len(known) < len(args):
            values[i] = None
        else:
            values[i] = value_of(i, [*known, *spec.constants], extra)
    return values


def wire(specs: tuple[Spec, ...], world: World, call: Any, x: Any) -> list[Any]:
    """Wire all nodes with *call*; return what they give."""
    given_: dict[int, Any] = {-1: x}
    for i, spec in enumerate(specs):
        node = (Text if spec.text else Node)(i, spec, world).with_(name=f"n{i}")
        named = {} if spec.by_name is None else {"extra": given_[spec.by_name]}
        value = call(node, *[given_[k] for k in spec.sources], *spec.constants, **named)
        if spec.delay:
            value = call((BlockingDelay if spec.delay == "blocking" else NonBlockingDelay)(0.01), value)
        given_[i] = value
    return [given_[i] for i in range(len(specs))]


def by_hand(specs: tuple[Spec, ...], world: World, limit: int | None, on_error: Any) -> Graph[..., Any]:
    g = Graph("g", limit=limit, on_error=on_error)
    return g.output(wire(specs, world, g.add, g.input("x", int)))


def by_tracing(specs: tuple[Spec, ...], world: World, limit: int | None, on_error: Any) -> Graph[..., Any]:
    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        coroutine = node(*args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value

    @graph(limit=limit, on_error=on_error)
    async def g(x: int) -> list[int]:
        return wire(specs, world, call, x)

    return g


WIRED = st.sampled_from([by_hand, by_tracing])
LIMITS = st.sampled_from([None, None, 1, 2, 3])


def run(made: Any, seed: int, observed: bool) -> Any:
    async def main() -> Any:
        with Context.scope(user="ann"):
            if observed:
                with capture():
                    return await made(3)
            out = await made(3)
            assert (MARK.get(), unfinished()) == ("caller's", 1)
            return out

    return simulate(main, seed)


@MANY
@given(graphs(), WIRED, LIMITS, SEEDS, st.booleans())
def test_a_graph_gives_what_the_reference_gives(specs: Any, how: Any, limit: Any, seed: int, observed: bool) -> None:
    world = World()
    out = run(how(specs, world, limit, "cancel"), seed, observed)
    assert out.error is None
    values = reference(specs, 3)
    assert [int(value) for value in out.value] == [values[i] for i in range(len(specs))]
    assert sorted(world.began) == [*range(len(specs))]
    assert world.leaks == []
    assert limit is None or world.most <= limit


@MANY
@given(graphs(fails=True), WIRED, LIMITS, SEEDS, st.booleans())
def test_a_failure_ends_the_others_and_none_is_lost(
    specs: Any, how: Any, limit: Any, seed: int, observed: bool
) -> None:
    world = World()
    out = run(how(specs, world, limit, "cancel"), seed, observed)
    assert world.live == 0
    assert world.leaks == []
    if world.raised:
        group = isinstance(out.error, ExceptionGroup)
        found = list(out.error.exceptions) if isinstance(out.error, ExceptionGroup) else [out.error]
        assert group == (len(found) > 1)
        assert {*map(id, found)} == {*map(id, world.raised.values())}
        for ident, error in world.raised.items():
            notes = [note for note in error.__notes__ if note.startswith("mai: in ")]
            assert len(notes) == 1
            assert notes[0].split(" ")[2] == f"g/n{ident}"
    else:
        assert out.error is None


@MANY
@given(graphs(fails=True), WIRED, LIMITS, SEEDS)
def test_collecting_runs_all_that_does_not_depend_on_a_failure(specs: Any, how: Any, limit: Any, seed: int) -> None:
    world = World()
    out = run(how(specs, world, limit, "collect"), seed, False)
    values = reference(specs, 3)
    able = [i for i, spec in enumerate(specs) if values[i] is not None or i in world.raised]
    assert sorted(world.began) == able
    if not world.raised:
        assert out.error is None
        return
    assert isinstance(out.error, PartialFailure)
    assert out.error.errors == {f"n{i}": error for i, error in sorted(world.raised.items())}
    skipped = {f"n{i}" for i in range(len(specs)) if i not in able}
    assert skipped == {step for step in out.error.skipped if step.startswith("n")}
    for i, spec in enumerate(specs):
        if not spec.delay:
            result = out.error.results.get(f"n{i}")
            assert (None if result is None else int(str(result))) == values[i]


@MANY
@given(graphs(), WIRED, st.integers(0, 40), SEEDS)
def test_a_cancel_at_any_step_reaches_every_node(specs: Any, how: Any, at: int, seed: int) -> None:
    world = World()

    async def main() -> str:
        task = asyncio.ensure_future(how(specs, world, None, "collect")(3))
        for _ in range(at):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            if await task:
                raise asyncio.CancelledError  # it was over before
        return "ended"

    assert simulate(main, seed).value == "ended"
    assert world.live == 0
