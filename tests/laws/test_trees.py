"""Random trees of modules: the result is the reference's, no contextvar leaks, the handles have the calls' shape."""

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mai import Conditional, Context, Module, TraceHandle, capture
from mai.testing import Trial

from .simulation import simulate, unfinished
from .trees import (
    VARS,
    Cond,
    Delay,
    Failed,
    Kinds,
    Par,
    Seq,
    Step,
    Wait,
    World,
    arrived,
    build,
    calls,
    evaluate,
    fresh_env,
    leaves,
    nodes,
    numbered,
    seen,
    trees,
)

MANY = settings(max_examples=settings.default.max_examples * 4)
SEEDS = st.integers(0, 2**16)
FAILING = Kinds(endings=("return", "return", "return", "raise", "fail"))


def run(tree: Any, world: World, seed: int, *, observed: bool) -> tuple[Trial[Any], list[TraceHandle[Any]]]:
    """Run the tree in surroundings that have values of their own, which must be the same afterwards."""
    runs: list[TraceHandle[Any]] = []

    async def main() -> Any:
        VARS[0].set(5)
        with Context.scope(user=6, auth=7):
            before = seen()
            try:
                if not observed:
                    return await build(tree, world)(3)
                with capture() as trace:
                    runs_of.append(trace)
                    return await build(tree, world)(3)
            finally:
                task = asyncio.current_task()
                assert task is not None
                assert (seen(), task.cancelling(), unfinished()) == (before, 0, 1)

    runs_of: list[Any] = []
    out = simulate(main, seed)
    for trace in runs_of:
        runs.extend(trace.runs)
    return out, runs


def wanted(tree: Any) -> Any:
    return evaluate(tree, 3, {**fresh_env(), 0: 5, "user": 6, "auth": 7})


def fails_after(seconds: float) -> Step:
    return Step("async", (Wait(seconds),), "raise", cleanup=0.0)


SLOW_TO_CLEAN = Step("async", (Wait(10.0),), "return", cleanup=1.0)


@MANY
@example(
    numbered(Par((Par((SLOW_TO_CLEAN, fails_after(1.0)), None, False, False), fails_after(1.5)), None, False, False)),
    0,
    True,
)
@given(trees(FAILING), SEEDS, st.booleans())
def test_every_result_arrives_or_its_error_does_and_no_contextvar_leaks(tree: Any, seed: int, observed: bool) -> None:
    world = World()
    out, _ = run(tree, world, seed, observed=observed)
    given_ = out.value if out.error is None else out.error
    target = wanted(tree)
    assert isinstance(target, Failed) == (out.error is not None)
    assert arrived(given_, target, world.raised)
    assert world.leaked == []
    assert sorted(world.entered) == sorted(world.cleaned)
    assert world.cut == []


def test_the_plain_test_of_a_conditional_changes_nothing_for_its_branches() -> None:
    class Look(Module):
        async def forward(self, x: int) -> int:
            return VARS[0].get()

    def leaky(x: int) -> bool:
        VARS[0].set(99)
        return x > 0

    tree = Conditional(leaky, then=Look(), otherwise=Look())
    assert [simulate(lambda x=x: tree(x)).value for x in (0, 1)] == [0, 0]


@MANY
@given(trees(FAILING), SEEDS)
def test_a_failure_says_once_where_it_began_and_leads_from_the_top_to_there(tree: Any, seed: int) -> None:
    world = World()
    out, _ = run(tree, world, seed, observed=False)
    for ident, error in world.raised.items():
        notes = [note.split(" ")[2] for note in getattr(error, "__notes__", ()) if note.startswith("mai: in ")]
        dropped = [] if notes or error in list(leaves(out.error)) else [world.paths[ident]]  # by a thread left behind
        assert notes + dropped == [world.paths[ident]]
    if out.error is not None:
        top: TraceHandle[Any] = out.error.__mai_trace__  # type: ignore[attr-defined]
        assert top.parent is None
        failed = {handle.step_id for handle in top.walk() if handle.outcome == "error"}
        first = {world.paths[ident] for ident, error in world.raised.items() if error in list(leaves(out.error))}
        assert first <= failed
        assert all(handle.step_id.startswith(top.step_id) for handle in top.walk())


@MANY
@given(trees(FAILING), SEEDS)
def test_the_handle_tree_has_the_shape_of_the_calls(tree: Any, seed: int) -> None:
    world = World()
    out, runs = run(tree, world, seed, observed=True)
    assert len(runs) == 1
    assert runs[0].parent is None
    compare(runs[0], tree, name_of(tree))
    assert runs[0].ok == (out.error is None)
    ids = [handle.step_id for handle in runs[0].walk()]
    assert len(set(ids)) == len(ids)
    assert {world.paths[ident] for ident in world.entered} <= set(ids)


FLAT = st.builds(
    Step,
    st.just("async"),
    st.sampled_from([(), (Wait(0.0),), (Wait(1.0),)]),
    st.sampled_from(["return", "raise", "raise", "fail"]),
    cleanup=st.just(-1.0),
)


@MANY
@given(st.lists(FLAT, min_size=1, max_size=5).map(tuple), st.sampled_from([None, 2, 5]), st.booleans(), SEEDS)
def test_of_several_failures_at_once_none_is_lost(branches: Any, limit: int | None, collect: bool, seed: int) -> None:
    world = World()
    out, _ = run(numbered(Par(branches, limit, collect, False)), world, seed, observed=False)
    found = [part for part in out.value if isinstance(part, Exception)] if collect else list(leaves(out.error))
    assert sorted(map(id, found)) == sorted(map(id, world.raised.values()))
    assert isinstance(out.error, ExceptionGroup) == (len(found) > 1 and not collect)


# ---------------------------------------------------------------- the shape of the calls

KINDS = {Seq: "sequential", Par: "parallel", Cond: "conditional", Step: "module"}


def kind_of(node: Any) -> str:
    if isinstance(node, Delay):
        return "blocking_delay" if node.blocking else "non_blocking_delay"
    return KINDS[type(node)]


def name_of(node: Any) -> str:
    match node:
        case Step(colour="inline"):
            return f"s{node.ident}" if node.named else "Thread"
        case Step():
            return f"s{node.ident}" if node.named else node.colour.capitalize()
        case Delay():
            return "BlockingDelay" if node.blocking else "NonBlockingDelay"
    return {Seq: "Sequential", Par: "Parallel", Cond: "Conditional"}[type(node)]


def keys(items: list[Any]) -> list[str]:
    """Number the repeats of names in one scope."""
    names = [name_of(item) for item in items]
    repeats = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if n == 1 else f"{name}~{n}" for name, n in zip(names, repeats, strict=True)]


def flat(node: Seq) -> list[Any]:
    """A Sequential without settings inside another is part of it."""
    return [part for step in node.steps for part in (flat(step) if isinstance(step, Seq) else [step])]


def compare(handle: TraceHandle[Any], node: Any, path: str) -> None:
    """Check one handle and all below against the tree."""
    assert (handle.step_id, handle.name, handle.kind) == (path, name_of(node), kind_of(node))
    assert handle.outcome in ("ok", "error", "cancelled")
    assert handle.dropped == 0
    assert (handle.error is not None) == (handle.outcome == "error")
    assert handle.start_ns is not None
    assert handle.end_ns is not None
    parts, labels = shape(handle, node)
    assert len(handle.children) <= len(parts)
    if handle.ok:
        assert len(handle.children) == len(parts)
    for child, part, label in zip(handle.children, parts, labels, strict=False):
        assert child.parent is handle
        assert handle.start_ns <= (child.start_ns or 0) <= (child.end_ns or 0) <= handle.end_ns
        if isinstance(node, Par):
            compare(child, part, f"{path}[{label}]/{name_of(part)}")
        else:
            compare(child, part, f"{path}/{label}")
    outcomes(handle, node)


def shape(handle: TraceHandle[Any], node: Any) -> tuple[list[Any], list[str]]:
    """Return the parts that a whole call of *node* calls, in order, and what they are called."""
    match node:
        case Step():
            parts = [call.node for call in calls(node.actions)]
            return parts, keys(parts)
        case Seq():
            return flat(node), keys(flat(node))
        case Par():
            return list(node.branches), [f"k{i}" if node.named else str(i) for i in range(len(node.branches))]
        case Cond():
            members = [part for part in (node.test, node.then, node.otherwise) if part is not None]
            known = dict(zip(map(id, members), keys(members), strict=True))
            decision = handle.attributes.get("mai.decision")
            branch = {"then": node.then, "otherwise": node.otherwise}.get(decision)
            assert (decision == "pass") <= (node.otherwise is None)
            taken = [part for part in (node.test, branch) if part is not None]
            return taken, [known[id(part)] for part in taken]
    return [], []


def outcomes(handle: TraceHandle[Any], node: Any) -> None:
    """Check that the outcome of a call follows from those inside."""
    inside = [child.outcome for child in handle.children]
    match node:
        case Seq() | Cond():
            assert all(outcome == "ok" for outcome in inside[:-1])
            assert handle.outcome == (inside[-1] if inside else handle.outcome)
        case Par(collect=True):
            assert handle.outcome in ("ok", "cancelled")
            assert handle.outcome == "cancelled" or "cancelled" not in inside
        case Par():
            failures = inside.count("error")
            if handle.outcome == "ok":
                assert {*inside} == {"ok"}
            elif handle.outcome == "error":
                assert failures
                assert handle.error is not None
                child = next(child for child in handle.children if child.outcome == "error")
                assert handle.error.type == "ExceptionGroup" if failures > 1 else handle.error == child.error
        case Step():
            guarded = [call.guarded for call in calls(node.actions)]
            fatal = [o != "ok" and not g for o, g in zip(inside, guarded, strict=False)]
            assert not any(fatal[:-1])
            assert handle.outcome != "ok" or not any(fatal)
        case Delay():
            assert handle.outcome != "error"


def test_the_trees_have_every_part() -> None:
    """A guard for the laws above: a strategy that no longer makes some kind of part would let them pass for nothing."""
    met: set[str] = set()

    @settings(MANY, derandomize=True)
    @given(trees(FAILING))
    def look(tree: Any) -> None:
        for node in nodes(tree):
            met.add(kind_of(node))
            met.update((node.colour, node.ending) if isinstance(node, Step) else ())
            met.update(("limit",) if isinstance(node, Par) and node.limit and len(node.branches) > node.limit else ())

    look()
    assert met >= {*"async stream thread chunks inline return raise limit parallel sequential conditional".split()}
    assert met >= {"module", "blocking_delay", "non_blocking_delay"}
