"""Driving: a call's first step runs at once, the rest when the loop comes back, all in a context that is dropped."""

import asyncio
import contextvars
import gc
import sys
import tracemalloc
import weakref
from contextlib import suppress
from typing import Any

import pytest

from mai import DeadlineExceeded, Module, Parallel, Retry, module
from mai.core.drive import failed
from mai.core.frame import Frame
from mai.core.recorded import Suspended
from tests.support import simulate, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


@module
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@simulated
async def test_a_step_that_never_waits_ends_without_the_loop() -> None:
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "the loop turned")

    @module
    async def quick(x: int) -> int:
        return x

    assert await (quick >> quick)(1) == 1
    assert turns == []


@simulated
async def test_the_context_of_a_step_is_the_same_before_and_after_a_wait() -> None:
    @module
    async def steps(x: int) -> list[str]:
        found = []
        for i in range(3):
            mark.set(f"{i}")
            await asyncio.sleep(1)
            found.append(mark.get())
        return found

    assert await steps(1) == ["0", "1", "2"]
    assert mark.get() == "clean"


@simulated
async def test_tokens_of_a_step_stay_usable_across_waits() -> None:
    @module
    async def scoped(x: int) -> str:
        token = mark.set("inside")
        await asyncio.sleep(1)
        mark.reset(token)
        return mark.get()

    mark.set("mine")
    assert await scoped(1) == "mine"
    assert await asyncio.gather(scoped(1), scoped(2)) == ["mine", "mine"]


@simulated
async def test_a_step_runs_in_its_callers_task() -> None:
    class Task(Module):
        async def forward(self, x: int) -> Any:
            await asyncio.sleep(1)
            return asyncio.current_task()

    assert await Task()(1) is asyncio.current_task()
    assert await Task().with_(timeout=5)(1) is asyncio.current_task()


@simulated
async def test_a_call_can_be_driven_by_a_plain_coroutine_and_no_task() -> None:
    @module
    async def quick(x: int) -> int:
        return x + 1

    call = quick(1)
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    assert stop.value.value == 2


@simulated
async def test_a_call_that_is_closed_midway_runs_its_cleanup() -> None:
    closed: list[str] = []

    @module
    async def waits(x: int) -> int:
        try:
            await asyncio.sleep(5)
        finally:
            closed.append("closed")
        return x

    call = (waits >> waits)(1)
    call.send(None)
    call.close()
    assert closed == ["closed"]


def test_calls_that_ended_well_leave_no_reference_cycles_and_failed_ones_none_that_stays() -> None:
    class Big: ...

    @module
    async def step(x: Big) -> Big:
        await asyncio.sleep(0.1)
        return x

    @module
    async def fails(x: Big) -> Big:
        await asyncio.sleep(0.1)
        raise ValueError("no")

    async def left(*lines: Any) -> list[Any]:
        references = []
        for line in lines:
            big = Big()
            references.append(weakref.ref(big))
            try:
                await line(big)
            except (ValueError, TimeoutError):
                pass
            del big
        return references

    gc.collect()
    gc.disable()
    try:
        well = simulate(lambda: left(step, step >> step, step & step, step.with_(timeout=5), step >> (step & step)))
        assert [reference() for reference in well] == [None] * 5
    finally:
        gc.enable()
    badly = simulate(lambda: left(step >> fails, step & fails, step.with_(timeout=0.05), fails.with_(timeout=5)))
    gc.collect()
    assert [reference() for reference in badly] == [None] * 4


@pytest.mark.slow
def test_a_thousand_runs_leave_nothing_behind() -> None:
    @module
    async def fails(x: float) -> float:
        raise ValueError("no")

    quick = Retry(2, base=0.001)
    kinds: list[Module[float, float]] = [
        nap >> nap.with_(timeout=9),
        nap >> fails,
        nap.with_(timeout=0.01),
        (nap & fails & nap).with_(retry=quick),
        fails.with_(retry=quick, fallback=nap),
        nap.with_(timeout=0.01, retry=quick, fallback=(fails, nap)),
        (nap & nap).with_(total_timeout=0.03, retry=quick, fallback=fails & nap),
    ]

    async def once(i: int) -> None:
        task = asyncio.ensure_future(kinds[i // 2 % len(kinds)](0.02))
        if i % 2:
            await asyncio.sleep(0.001 * (i % 25))
            task.cancel()
        with suppress(ValueError, TimeoutError, asyncio.CancelledError):
            await task

    async def left() -> tuple[float, float]:
        asyncio.get_running_loop().set_debug(False)  # it keeps a stack for each task
        for i in range(100):
            await once(i)
        gc.collect()
        objects, held = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        for i in range(1000):
            await once(i)
        gc.collect()
        return (len(gc.get_objects()) - objects) / 1000, (tracemalloc.get_traced_memory()[0] - held) / 1000

    tracemalloc.start()
    try:
        objects, held = simulate(left)
    finally:
        tracemalloc.stop()
    assert objects < 0.1
    assert held < 200


@simulated
async def test_the_value_of_a_call_is_not_kept_by_it() -> None:
    class Big: ...

    @module
    async def make(x: int) -> Big:
        return Big()

    value = await make(1)
    assert sys.getrefcount(value) == 2


@simulated
async def test_a_task_that_outlives_its_step_does_not_keep_the_value_of_the_step() -> None:
    class Big: ...

    tasks: list[Any] = []

    @module
    async def make(x: int) -> Big:
        tasks.append(
            asyncio.ensure_future(asyncio.sleep(60))
        )  # in the context of the step, from which its frame is seen
        return Big()

    value = weakref.ref(await make(1))
    assert value() is None
    await tasks[0]


@simulated
async def test_a_deadline_reaches_a_module_in_a_task_that_user_code_made_and_that_outlives_its_call() -> None:
    tasks: list[asyncio.Task[float]] = []

    @module(timeout=2.0)
    async def leaves(x: int) -> int:
        tasks.append(asyncio.create_task(nap(10.0)))
        return x

    @module(timeout=2.0)
    async def waits(x: int) -> int:
        tasks.append(asyncio.create_task(nap(10.0)))
        await asyncio.sleep(1)
        return x

    @module(timeout=2.0)
    async def fails(x: int) -> int:
        tasks.append(asyncio.create_task(nap(10.0)))
        raise ValueError(x)

    assert [await leaves(1), await waits(2)] == [1, 2]
    with pytest.raises(ValueError, match="3"):
        await fails(3)
    began = asyncio.get_running_loop().time()
    for task, left in zip(tasks, (1.0, 1.0, 2.0), strict=True):
        with pytest.raises(DeadlineExceeded):
            await task
        assert asyncio.get_running_loop().time() - began == pytest.approx(left)


@simulated
async def test_a_deadline_reaches_the_tasks_of_a_task_group_in_a_step_and_ends_as_one_error() -> None:
    ended: list[str] = []

    @module
    async def careful(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.sleep(1)
            ended.append("cleaned up")

    @module(timeout=2.0)
    async def group(x: int) -> int:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(careful(10.0))
        return x

    with pytest.raises(DeadlineExceeded) as caught:
        await group(1)
    assert caught.value.step_id == "group"
    assert ended == ["cleaned up"] * 3


@pytest.mark.slow
async def test_a_deadline_reaches_a_loop_that_a_plain_step_runs() -> None:
    outcome: list[str] = []
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    @module(timeout=1.0)  # in which a thread begins, on a busy machine too
    def own_loop(x: int) -> int:
        try:
            asyncio.run(nap(60.0))
        except DeadlineExceeded as error:
            outcome.append(error.step_id)
        loop.call_soon_threadsafe(seen.set)
        return x

    with pytest.raises(DeadlineExceeded):
        await own_loop(1)
    await asyncio.wait_for(seen.wait(), 5)
    assert outcome == ["own_loop/nap"]


@simulated
async def test_branches_need_no_timers_of_their_own() -> None:
    loop = asyncio.get_running_loop()
    timers: list[int] = []

    @module
    async def look(x: int) -> int:
        await asyncio.sleep(0)
        timers.append(len(loop._scheduled))  # type: ignore[attr-defined]
        return x

    await Parallel(*[look] * 20).with_(timeout=5.0)(1)
    assert set(timers) == {1}


def test_a_call_without_a_handle_that_leaves_memory_has_not_failed() -> None:
    f = Frame()
    f.handle = None
    error = Suspended()
    failed(f, error)
    assert not hasattr(error, "__mai_trace__")
    assert not hasattr(error, "__notes__")
