"""Runs that crash in company of something else: another order, another type, another branch, nobody there to hear."""

import asyncio
from itertools import permutations
from typing import Any

import pytest

import mai
from mai import AskError, BlockingDelay, Graph, NeedsAttention, Parallel, Sequential, module
from tests.durable.benches import MemoryBench
from tests.durable.conformance import DONE, add, double
from tests.support import loop_of, simulated


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


ORDERS = [*permutations((1, 2, 3))]
PACE: dict[str, float] = {}  # how long the branch of a name takes [s]


@module
async def paced(n: int) -> int:
    name = mai.Context.get().step_id.rpartition("/")[2]
    await asyncio.sleep(PACE[name])
    DONE.append(name)
    return n + int(name[1:])


@pytest.mark.slow
@pytest.mark.parametrize("again", ORDERS, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
@simulated
async def test_branches_may_end_in_any_order_before_a_crash_and_in_any_other_after_it(
    bench: MemoryBench, order: tuple[int, ...], again: tuple[int, ...]
) -> None:
    branches = Parallel(*(paced.with_(name=f"b{k}") >> paced.with_(name=f"b{10 * k}") for k in (1, 2, 3)))
    for at in range(6):
        for paces, dies_at in ((order, at), (again, -1)):
            PACE.update({f"b{k}": pace * 0.1 for k, pace in enumerate(paces, 1)})
            PACE.update({f"b{10 * k}": pace * 0.1 for k, pace in enumerate(reversed(paces), 1)})
            found = await bench.killed(branches, 0, f"r{at}", dies_at, after=True)
        assert found is not None
        assert found.value == (11, 22, 33)
        history = await bench.journal.history(f"r{at}")
        assert len(history) == 6
        assert len(DONE) <= 6 + 3  # three may have been under way
        DONE.clear()


# ---------------------------------------------------------------- code that has changed


def typed(returns: Any) -> Any:
    @module(name="give")
    async def give(n: int) -> returns:
        return returns(n)

    return Sequential(give, BlockingDelay(60), module(repr)).with_(name="shop")


def text(n: str) -> str:
    return n


RETYPED = {"float": (float, "1.0"), "str": (str, None), "list": (list[int], None)}


@pytest.mark.parametrize("new", RETYPED)
@simulated
async def test_a_value_on_record_goes_on_with_a_new_type_that_it_fits_and_with_no_other(
    bench: MemoryBench, new: str
) -> None:
    returns, found = RETYPED[new]
    async with bench.engine() as engine:
        engine.start(typed(int), 1, run_id="r")
        await asyncio.sleep(5)
    async with bench.engine(typed(returns)) as engine:
        await asyncio.sleep(100)
        if found is not None:
            assert await engine.result("r") == found
        else:
            with pytest.raises(NeedsAttention):
                await engine.result("r")


@simulated
async def test_a_branch_that_was_added_is_done_and_the_others_are_not_again(bench: MemoryBench) -> None:
    def graph(more: bool) -> Any:
        g = Graph("shop")
        n = g.input("n", int)
        one, two = g.add(add, n), g.add(BlockingDelay(60), n)
        return g.output((one, two, g.add(double, n)) if more else (one, two))

    def parallel(more: bool) -> Any:
        steps = [add, BlockingDelay(60), *([double] if more else [])]
        return Parallel(*steps).with_(name="both")

    for make in (graph, parallel):
        run_id = make.__name__
        async with bench.engine() as engine:
            engine.start(make(False), 1, run_id=run_id)
            await asyncio.sleep(5)
        async with bench.engine(make(True)) as engine:
            assert tuple(await engine.result(run_id)) == (2, 1, 2)
        assert DONE == ["add 1", "double 1"]
        DONE.clear()


# ---------------------------------------------------------------- time and signals


@pytest.mark.parametrize("away", [10.0, 59.0, 61.0, 86_400.0])
@simulated
async def test_a_delay_that_is_over_while_no_process_lives_is_not_waited_for_again(
    bench: MemoryBench, away: float
) -> None:
    pipe = add >> BlockingDelay(60) >> add
    assert await bench.killed(pipe, 1, "r", 1, after=True) is None
    await asyncio.sleep(away)
    began = loop_of().time()
    async with bench.engine(pipe) as engine:
        assert await engine.result("r") == 3
    assert loop_of().time() == pytest.approx(began + max(0.0, 60 - away), abs=0.5)
    assert DONE == ["add 1", "add~2 2"]


@simulated
async def test_what_is_sent_to_a_run_that_has_ended_is_refused(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        assert await engine.start(add, 1, run_id="r") == 2
        assert not await engine.signal("r", "paid", 9.5)
        assert not await engine.cancel("r")
        assert not await engine.resume("r")
        with pytest.raises(AskError, match="has ended"):
            await engine.answer("r", "yes")
        with pytest.raises(AskError, match="has ended"):
            await engine.answer("r", "yes", question="add/ask")
    assert await bench.journal.signals("r") == []
