"""Random graphs: the result is the reference's, whatever waits, fails or is limited; plans keep what they say."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mai import BlockingDelay, Context, Graph, Module, NonBlockingDelay, PartialFailure, WorkflowPlan, capture, graph

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
    shown: bool = False


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

    async def forward(self, a: int, b: int = 0, c: int = 0, d: int = 0, e: int = 0, *, extra: int = 0) -> int:
        world, args = self.world, [a, b, c, d, e]
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
            return value_of(self.ident, args, extra)
        finally:
            world.live -= 1


class Text(Node):
    """The same, its value as text, so that a cast stands on each of its edges."""

    async def forward(self, a: int, b: int = 0, c: int = 0, d: int = 0, e: int = 0, *, extra: int = 0) -> str:  # type: ignore[override]
        return str(await Node.forward(self, a, b, c, d, e, extra=extra))


@st.composite
def graphs(draw: Any, fails: bool = False) -> tuple[Spec, ...]:
    """Return a strategy for random graphs."""
    specs = list[Spec]()
    for i in range(draw(st.integers(1, 12))):
        several = st.lists(st.integers(-1, i - 1), min_size=1, max_size=3).map(tuple)
        sources = st.one_of(st.just((i - 1,)), several)  # chains, too
        waits = st.sampled_from([(), (), (0.0,), (0.01,), (0.02, 0.0)])
        specs.append(
            draw(
                st.builds(
                    Spec,
                    sources,
                    st.sampled_from([(), (), (), (5,)]),
                    st.sampled_from([None] * 5 + [-1, i - 1]),
                    waits,
                    st.sampled_from([False, False, False, True]) if fails else st.just(False),
                    st.sampled_from(["", "", "", "blocking", "other"]),
                    st.booleans(),
                    st.sampled_from([False, False, True]),
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
    return [given_[i] for i in outputs(specs)]


def outputs(specs: tuple[Spec, ...]) -> list[int]:
    """Return the nodes whose values the graph gives: those that nobody else needs, and some more."""
    used = {k for spec in specs for k in (*spec.sources, spec.by_name)}
    return [i for i, spec in enumerate(specs) if spec.shown or i not in used]


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
    async def g(x: int) -> list[Any]:
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
    assert [int(value) for value in out.value] == [values[i] for i in outputs(specs)]
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
        if not spec.delay and i in outputs(specs):
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
        over = not task.cancel()
        await asyncio.wait([task])
        assert over != task.cancelled()
        return "ended"

    assert simulate(main, seed).value == "ended"
    assert world.live == 0


# ---------------------------------------------------------------- plans


def bare(specs: Any) -> Any:
    return by_hand(specs, World(), 2, "collect")


@MANY
@given(graphs())
def test_a_plan_survives_json_and_so_does_the_graph(specs: Any) -> None:
    world = World()
    made = by_hand(specs, world, 2, "collect")
    plan = made.plan()
    plan.validate()
    written = "".join(made.plan_json())
    assert written == plan.model_dump_json()
    again = WorkflowPlan.model_validate_json(written)
    assert again == plan
    assert (again.fingerprint, plan.diff(again)) == (plan.fingerprint, [])
    modules = {made._wiring.id_of(i): made._wiring.module_of(i) for i in range(len(made._wiring.of)) if i}
    rewired = Graph.from_plan(again, modules)
    assert rewired.plan() == plan
    assert (rewired.limit, rewired.on_error) == (2, "collect")
    assert run(rewired, 1, False).value == run(made, 1, False).value


@MANY
@given(graphs())
def test_both_ways_of_wiring_give_one_plan(specs: Any) -> None:
    one, other = (how(specs, World(), None, "cancel").plan() for how in (by_hand, by_tracing))
    assert one.nodes == other.nodes
    assert one.edges == other.edges
    assert (one.name, one.inputs, one.output) == (other.name, other.inputs, other.output)


@MANY
@given(graphs(), st.data())
def test_the_fingerprint_changes_with_an_edge_a_type_or_a_version_and_with_nothing_else(specs: Any, data: Any) -> None:
    plan = bare(specs).plan()
    assert bare(specs).plan().fingerprint == plan.fingerprint
    at = data.draw(st.integers(0, len(specs) - 1))
    waits = tuple(replace(spec, waits=(9.0,), fails=True) for spec in specs)
    assert bare(waits).plan().fingerprint == plan.fingerprint
    changes = {
        "type": replace(specs[at], text=not specs[at].text),
        "edge": replace(specs[at], sources=(*specs[at].sources, -1)),
        "constant": replace(specs[at], constants=(*specs[at].constants, 8)),
        "step": replace(specs[at], delay="" if specs[at].delay else "blocking"),
    }
    for changed in changes.values():
        other = bare((*specs[:at], changed, *specs[at + 1 :])).plan()
        assert other.fingerprint != plan.fingerprint
        assert plan.diff(other)


@MANY
@given(graphs())
def test_every_step_stands_in_one_stage_after_what_feeds_it(specs: Any) -> None:
    plan = bare(specs).plan()
    stage = {ident: k for k, found in enumerate(plan.stages()) for ident in found}
    kinds = {node.id: node.kind for node in plan.nodes}
    assert sorted(stage) == sorted(ident for ident, kind in kinds.items() if kind != "cast")
    for edge in plan.edges:
        if edge.source in stage and edge.target in stage:
            assert stage[edge.source] < stage[edge.target]
    way = plan.critical_path()
    assert way[-1] == plan.output
    assert [stage[ident] for ident in way] == [*range(stage[plan.output] + 1)]
    for chain in plan.chains():
        for a, b in pairwise(chain):
            ends = {edge.target for edge in plan.edges if edge.source == a}
            casts = {end for end in ends if kinds[end] == "cast"}
            ends |= {edge.target for edge in plan.edges if edge.source in casts}
            assert ends - casts == {b}
