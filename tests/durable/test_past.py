"""A past that is repeated: what waits for its end, what ends it, and what is not taken for its end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mai import BlockingDelay, Conditional, Loop, Map, Parallel, PlanChanged, ReplayMismatch, Sequential, module
from mai.durable import DurableEngine, MemoryJournal
from mai.testing import replay_check
from tests.durable.benches import MemoryBench
from tests.durable.conformance import DONE, add, double, slow
from tests.support import loop_of, simulated


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


def thinking(seconds: float) -> Any:
    @module(flow=True)
    async def thinks(n: int) -> int:
        await asyncio.sleep(seconds)
        return await add(n)

    return thinks


def waiting(seconds: float) -> Any:
    """Return a loop whose condition, and no step, takes so long."""

    async def enough(n: int) -> bool:
        await asyncio.sleep(seconds)
        return n > 1

    return Loop(add, until=enough, max_iters=3)


@pytest.mark.parametrize("make", [thinking, waiting])
@pytest.mark.parametrize("seconds", [0.5, 20.0])
@pytest.mark.parametrize("changed", [False, True])
@simulated
async def test_a_branch_that_awaits_something_of_its_own_is_waited_for(
    bench: MemoryBench, make: Any, seconds: float, *, changed: bool
) -> None:
    @module
    async def last(n: int) -> int:
        await asyncio.sleep(2 * seconds + 1)
        return n

    both = Parallel(make(seconds) >> add, last)
    assert await bench.killed((both >> len).with_(name="job"), 1, "r", 1, after=True) is None
    after = [len, add] if changed else [len]
    found = await bench.killed(Sequential(both, *after).with_(name="job"), 1, "r", -1)
    assert found.value == (3 if changed else 2)


@simulated
async def test_a_task_of_a_flow_of_the_users_has_some_seconds_in_changed_code(bench: MemoryBench) -> None:
    @module(flow=True)
    async def two(n: int) -> int:
        async def other() -> int:
            await asyncio.sleep(3)
            return await add.with_(name="late")(n)

        return sum(await asyncio.gather(other(), slow.with_(name="soon")(n)))

    @module
    async def stuck(n: int) -> int:
        await asyncio.sleep(10)
        return n

    old, new = (Sequential(Parallel(two, stuck), *more).with_(name="job") for more in ([], [len]))
    assert await bench.killed(old, 1, "r", 1, after=True) is None
    assert (await bench.killed(new, 1, "r", -1)).value == 2
    assert DONE == ["soon 1", "late 1"]


@simulated
async def test_composites_that_no_longer_fit_are_told_at_once(bench: MemoryBench) -> None:
    assert await bench.killed((add >> double >> slow).with_(name="job"), 1, "r", 1, after=True) is None
    began = loop_of().time()
    found = await bench.killed((double >> add >> slow).with_(name="job"), 1, "r", -1)
    assert isinstance(found.error, PlanChanged)
    assert loop_of().time() == pytest.approx(began, abs=0.01)


@simulated
async def test_what_feeds_a_map_and_waits_for_a_place_keeps_nothing_from_its_end(bench: MemoryBench) -> None:
    async def numbers() -> AsyncIterator[int]:
        for i in range(3):
            yield i

    def job(step: Any) -> Any:
        @module(flow=True)
        async def feeds(n: int) -> list[int]:
            found: list[int] = await step.map(concurrency=2).with_(name="all")(numbers())
            return found

        return feeds.with_(name="job")

    async with bench.engine(linger=1.0) as engine:  # while it waits for a place, and when it has ended
        handle = engine.start(job(add >> BlockingDelay(60)), 1, run_id="waits")
        for _ in range(2):
            await asyncio.sleep(30)
            assert (await engine.info("waits")).status == "waiting"
            await asyncio.sleep(30)
        assert await handle == [1, 2, 3]
    renamed = add.with_(name="plus")
    assert await bench.killed(job(add >> slow), 1, "r", 1, after=True) is None
    assert isinstance((await bench.killed(job(renamed >> slow), 1, "r", -1)).error, ReplayMismatch)


@pytest.mark.parametrize("order", ["fifo", "random", "pct"])
def test_a_branch_that_waits_for_the_past_gives_back_the_places_further_out_too(order: Any) -> None:
    @module
    async def one_more(n: int) -> int:
        return n + 1

    several = Sequential(lambda n: [n], Map(one_more, concurrency=2), sum)
    item = Conditional(lambda n: n % 2 == 0, then=BlockingDelay(1.0), otherwise=several)
    flow = Sequential(lambda n: [n, n + 1, n + 2], Map(item, concurrency=2), sum)
    replay_check(flow, 1, journal=MemoryJournal, engine=DurableEngine, seeds=range(5), order=order)
