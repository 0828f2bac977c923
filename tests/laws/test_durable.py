"""Laws of durable runs, on random trees: a run gives what it gives in memory, wherever its processes are killed."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import PayloadError
from mai.durable.code import modules_in
from tests.durable.benches import MemoryBench
from tests.durable.conformance import Outcome
from tests.laws.trees import Failed, Kinds, Work, World, build, evaluate, fresh_env, leaves, trees
from tests.support import simulate

KINDS = Kinds(
    endings=("return", "return", "return", "raise"), colours=("async", "async", "inline", "stream"), collect=(False,),
    seconds=(0.0, 0.01, 0.02), cleanups=(-1.0, 0.0, 0.01),
)  # fmt: skip
CRASHES = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6)


def made(tree: Any, world: World) -> Any:
    """Make the modules of a tree; a step that calls others is a flow, so that there may be delays in it."""
    module = build(tree, world)
    for one in list(modules_in(module)):
        if isinstance(one, Work) and one.modules:
            vars(one).update(_mai_flow=True, _mai_spec=None)
    return module


def fits(found: Outcome, wanted: Any) -> bool:
    """Say whether an outcome is what the reference wants, or the refusal of what a journal cannot keep.

    A Conditional whose branches give an int and a tuple gives Any, and of a tuple JSON would make a list.
    """
    if isinstance(found.error, PayloadError):
        return "it would come back as" in str(found.error)
    if not isinstance(wanted, Failed):
        return found.error is None and bool(found.value == wanted)
    idents = [error.args[0] for error in leaves(found.error) if isinstance(error, KeyError)]
    return bool(idents) and set(idents) <= wanted.of


@pytest.mark.slow
@given(trees(KINDS), CRASHES)
def test_a_run_gives_what_it_gives_in_memory_wherever_its_processes_are_killed(tree: Any, crashes: Any) -> None:
    async def main() -> None:
        bench, world = MemoryBench(), World(named=True)
        module = made(tree, world)
        found = None
        for at, after in [*crashes, (-1, False)]:
            found = found or await bench.killed(module, 1, "r", at, after=after)
        assert found is not None
        assert fits(found, evaluate(tree, 1, fresh_env())), found
        assert not world.leaked

    simulate(main)


@pytest.mark.slow
@given(trees(KINDS))
def test_a_run_whose_past_is_repeated_after_each_step_does_each_step_once(tree: Any) -> None:
    async def main() -> None:
        bench, world = MemoryBench(), World(named=True)
        wanted = evaluate(tree, 1, fresh_env())
        found = await bench.interrupted(made(tree, world), 1, "r", None)
        assert fits(found, wanted), found
        history = await bench.journal.history("r")
        assert len({record.path for record in history}) == len(history)
        again = await bench.killed(made(tree, World(named=True)), 1, "r", -1)
        assert again == found

    simulate(main)


@pytest.mark.slow
@given(trees(KINDS), st.integers(0, 12))
def test_a_fork_at_any_record_gives_the_same(tree: Any, at: int) -> None:
    async def main() -> None:
        bench, world = MemoryBench(), World(named=True)
        module = made(tree, world)
        found = await bench.killed(module, 1, "r", -1)
        assert found is not None
        history = await bench.journal.history("r")
        async with bench.engine(module) as engine:
            record = history[at % len(history)].path if history else None
            handle = await engine.fork("r", at=record)
            await asyncio.wait([asyncio.ensure_future(_ended(handle))])
            error = handle._started().error
            assert (error is None) == (found.error is None)
            assert error is not None or handle._started().value == found.value

    simulate(main)


async def _ended(handle: Any) -> None:
    try:
        await handle
    except Exception:  # noqa: BLE001 (it is compared by the test)
        return
