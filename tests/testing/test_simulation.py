"""Simulated runs: a seed is an interleaving, time is virtual, and what is wrong is found and can be seen again."""

import asyncio
import contextvars
import gc
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import Module, Parallel, Retry, ask, capture, module
from mai.core.clock import clock
from mai.core.ids import new_id
from mai.errors import ConfigError
from mai.testing import (
    Crash,
    Deadlock,
    Faults,
    Leak,
    Livelock,
    SimulatedFault,
    Simulation,
    SimulationError,
    SimulationLoop,
    explore,
    module_trees,
    simulate,
    simulated,
)

ORDERS = st.sampled_from(["fifo", "random", "pct"])
mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


@module
async def late(x: int) -> int:
    await asyncio.sleep(x)
    return x


# ---------------------------------------------------------------- a seed is an interleaving


@given(module_trees(), st.integers(0, 1000), ORDERS)
def test_a_run_is_a_function_of_its_seed(tree: Any, seed: int, order: Any) -> None:
    made = tree.build()
    one, other = (Simulation(seed=seed, order=order, record=True).run(lambda: made(1)) for _ in range(2))
    assert (one.steps_taken, one.digest, one.elapsed) == (other.steps_taken, other.digest, other.elapsed)
    assert one.value == other.value == tree.expected(1)


@given(module_trees(), st.integers(0, 1000), ORDERS)
def test_taking_it_down_changes_nothing(tree: Any, seed: int, order: Any) -> None:
    made = tree.build()
    plain, taken = (Simulation(seed=seed, order=order, record=record).run(lambda: made(1)) for record in (False, True))
    assert (plain.steps, plain.digest, plain.elapsed) == (taken.steps, taken.digest, taken.elapsed)
    assert len(taken.steps_taken) == taken.steps
    assert plain.steps_taken == ()
    assert plain.schedule == ""


@given(st.integers(0, 100), st.sampled_from(["random", "pct"]))
def test_chance_and_ids_come_from_the_seed(seed: int, order: Any) -> None:
    async def main() -> Any:
        return random.random(), new_id(), Retry(3).pause(1, OSError())

    before = random.getstate()
    assert simulate(main, seed=seed, order=order) == simulate(main, seed=seed, order=order)
    assert simulate(main, seed=seed, order=order) != simulate(main, seed=seed + 1, order=order)
    assert random.getstate() == before


def test_different_seeds_are_different_interleavings_and_fifo_is_one() -> None:
    async def main() -> None:
        await Parallel(late, late, late)(1)

    assert explore(main, seeds=50, orders=("random",)).interleavings > 10
    assert explore(main, seeds=50, orders=("pct",)).interleavings > 10
    assert explore(main, seeds=5, orders=("fifo",)).interleavings == 1


def test_the_callbacks_of_one_task_and_those_that_threads_hand_in_keep_their_order() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        for i in range(5):
            loop.call_soon_threadsafe(seen.append, i)
        await asyncio.sleep(1)
        return seen

    for seed in range(30):
        assert simulate(main, seed=seed) == [0, 1, 2, 3, 4]


def test_priorities_starve_a_task_as_chance_never_does() -> None:
    async def main() -> int:
        turns = 0

        async def busy() -> None:
            nonlocal turns
            for _ in range(30):
                turns += 1
                await asyncio.sleep(0)

        async def quick() -> int:
            return turns

        group = [asyncio.ensure_future(busy()), asyncio.ensure_future(quick())]
        await asyncio.wait(group)
        return group[1].result() or 0

    waited = {order: max(simulate(main, seed=i, order=order) for i in range(60)) for order in ("random", "pct")}
    assert waited["pct"] == 30
    assert waited["random"] < 20


# ---------------------------------------------------------------- time


def test_in_pct_order_too_what_calls_itself_again_starves_no_task_for_ever() -> None:
    async def main() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        async def works() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            ended.set()

        def look() -> None:
            if not ended.is_set():
                loop.call_soon(look)

        look()
        await asyncio.create_task(works())

    explore(main, seeds=20, orders=("pct",))


def test_time_is_virtual_for_the_loop_and_for_mai() -> None:
    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), clock.now()
        await late(86_400)
        assert loop.time() == clock.now() == begun + 86_400
        assert clock.ticks() == int(clock.now() * 1e9)
        assert clock.wall() == 946_684_800 + 86_400

    before = clock.now
    assert Simulation().run(main).elapsed == 86_400
    assert clock.now == before


def test_a_run_sees_the_context_variables_of_its_caller_and_changes_none() -> None:
    async def main() -> str:
        seen = mark.get()
        mark.set("inside")
        return seen

    mark.set("outside")
    assert (simulate(main), mark.get()) == ("outside", "outside")


async def test_inside_a_running_loop_it_is_simulated_in_a_thread() -> None:
    async def fails(x: int) -> int:
        raise KeyError(x)

    mark.set("around")
    assert simulate(lambda: late(3600)) == 3600
    with pytest.raises(KeyError):
        simulate(lambda: module(fails)(1))

    async def main() -> str:
        return mark.get()

    assert simulate(main) == "around"
    with pytest.raises(Deadlock):
        simulate(asyncio.Event().wait)


def test_only_one_run_is_simulated_at_a_time() -> None:
    async def main() -> None:
        simulate(lambda: late(1))

    with pytest.raises(SimulationError, match="one after the other"):
        simulate(main)
    assert simulate(lambda: late(1)) == 1


def test_no_garbage_is_collected_meanwhile_and_it_is_again_afterwards() -> None:
    async def main() -> bool:
        return gc.isenabled()

    assert simulate(main) is False
    assert gc.isenabled()
    gc.disable()
    try:
        simulate(main)
        assert not gc.isenabled()
    finally:
        gc.enable()


# ---------------------------------------------------------------- what is found


def test_a_deadlock_is_found_and_says_who_waits_where() -> None:
    class Waits(Module):
        async def forward(self, x: int) -> None:
            await asyncio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        Simulation(record=True).run(lambda: Waits().with_(name="stuck")(1))
    assert "nothing is ready and no timer is set; tasks that have not ended: " in str(caught.value)
    assert "in stuck" in str(caught.value)
    assert "main" in caught.value.schedule
    assert caught.value.step == 1


def test_a_livelock_is_found() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match=r"After 501 steps, at 0.000 s, it goes round in circles"):
        simulate(main, max_steps=500)


async def _forget() -> None:
    asyncio.get_running_loop().create_task(late(5), name="forgotten")


async def _forget_an_error() -> None:
    async def fails() -> None:
        raise KeyError("nobody")

    task = asyncio.ensure_future(fails())
    await asyncio.wait([task])


async def _forget_a_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    left.append(numbers())
    await anext(left[-1])


async def _fail_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(dict[str, int]().__getitem__, "x")
    await asyncio.sleep(1)


async def _fail_later() -> None:
    asyncio.get_running_loop().call_later(30, dict[str, int]().__getitem__, "x")


left: list[Any] = []
LEAKS = {
    "task forgotten is still running": _forget,
    "nobody saw KeyError\\('nobody'\\)": _forget_an_error,
    "async generator .*numbers is still open": _forget_a_generator,
    "Exception in callback .*KeyError": _fail_in_a_callback,
    "KeyError\\('x'\\)": _fail_later,
}


@pytest.mark.parametrize("told", LEAKS)
def test_what_is_left_behind_is_found(told: str) -> None:
    with pytest.raises(Leak, match=told):
        simulate(LEAKS[told])
    simulate(LEAKS[told], allow_leaks=True)


def test_generators_that_were_read_or_dropped_are_no_leaks() -> None:
    async def main() -> list[int]:
        async def numbers() -> AsyncIterator[int]:
            yield 1
            yield 2

        kept = numbers()
        assert [n async for n in kept] == [1, 2]
        async for _ in numbers():
            break
        return [id(kept)]

    simulate(main)


# ---------------------------------------------------------------- threads


@module
def plain(x: int) -> int:
    return late.run(x) + 1


@given(st.integers(0, 10_000), ORDERS)
def test_plain_steps_run_in_simulated_threads_that_may_call_and_wait(seed: int, order: Any) -> None:
    async def main() -> Any:
        with capture() as trace:
            values = await Parallel(*[plain] * 4)(3600)
        return values, trace.runs[0].outcome

    assert simulate(main, seed=seed, order=order, max_threads=2) == ((3601,) * 4, "ok")


def test_a_thread_that_waits_for_a_started_run_lends_its_place_and_its_timeout_is_virtual() -> None:
    @module
    def waits(x: int) -> str:
        handle = late.start(x)
        try:
            return str(handle.result(timeout=10))
        except TimeoutError:
            handle.cancel()
            return "late"

    assert Simulation(max_threads=1).run(lambda: Parallel(waits, waits)(5)).value == ("5", "5")
    slow = Simulation(max_threads=1).run(lambda: Parallel(waits, waits)(50))
    assert slow.value == ("late", "late")
    assert slow.elapsed < 21


def test_a_thread_that_never_comes_back_is_a_leak_and_is_ended() -> None:
    async def main() -> None:
        with Faults() as faults:
            faults.block("thread.job")
            await plain.with_(timeout=5, fallback=lambda x: x)(1)

    with pytest.raises(Leak, match=r"thread mai-worker-1 is still in a job"):
        simulate(main)


def test_two_plain_steps_race_in_a_seed_and_the_schedule_tells() -> None:
    async def main() -> None:
        seen: list[str] = []

        @module
        def first(x: int) -> None:
            seen.append("first")

        @module
        def second(x: int) -> None:
            seen.append("second")

        await Parallel(first, second)(1)
        assert seen == ["first", "second"]

    with pytest.raises(AssertionError) as caught:
        explore(main, seeds=100)
    assert "Parallel[1]/second" in caught.value.__notes__[-1]


def test_a_real_thread_is_waited_for_with_patience() -> None:
    import threading

    async def main() -> str:
        loop, turn = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(turn.set_result, "heard"))
        thread.start()
        return str(await turn)

    assert simulate(main, patience=5.0) == "heard"


# ---------------------------------------------------------------- cancels, faults, crashes


def test_a_cancel_meets_the_program_at_each_step() -> None:
    met: list[int] = []

    def look(trial: Any) -> None:
        met.append(trial.at_step)
        assert isinstance(trial.error, asyncio.CancelledError) == (trial.at is not None)

    explore(lambda: late(1), seeds=1, at_every_step="cancel", check=look)
    assert met[1:] == [*range(1, len(met) - 1), 0]
    trial = Simulation(cancel_at=99).run(lambda: late(1))
    assert (trial.at, trial.at_step, trial.result()) == (None, 0, 1)


def test_a_fault_meets_each_pause() -> None:
    async def main() -> str:
        try:
            await late(1)
            return await late(2) and "ok"
        except SimulatedFault:
            return "failed"

    seen: list[Any] = []
    explore(main, seeds=1, at_every_step="fail", check=lambda trial: seen.append((trial.value, trial.at)))
    assert seen == [("ok", None), ("failed", 1.0), ("failed", 3.0), ("ok", None)]


def test_a_crash_is_the_end_and_no_failure_of_a_step() -> None:
    ran: list[str] = []

    async def main() -> None:
        try:
            await late.with_(retry=3, fallback=lambda x: x)(1)
        except Exception:  # noqa: BLE001 (to see that it is none)
            ran.append("caught")
        ran.append("went on")

    trial = Simulation(crash_at=3).run(main)
    assert isinstance(trial.error, Crash)
    assert ran == []
    with pytest.raises(Crash):
        trial.result()
    assert explore(main, seeds=1, at_every_step="crash").runs == Simulation().run(main).steps + 1


def test_a_thread_dies_with_the_process() -> None:
    went_on: list[int] = []

    @module
    def waits(x: int) -> None:
        late.run(x)
        went_on.append(x)

    def look(trial: Any) -> None:
        assert trial.error is not None or went_on
        assert went_on == [] or trial.elapsed >= 1.0
        went_on.clear()

    assert explore(lambda: waits(1), seeds=5, at_every_step="crash", check=look).runs > 30


# ---------------------------------------------------------------- how it is told


def test_a_failure_says_how_to_see_it_again_and_so_it_is() -> None:
    async def main() -> None:
        seen: list[int] = []

        async def add(n: int) -> None:
            await asyncio.sleep(1)
            seen.append(n)

        await asyncio.gather(*(add(n) for n in range(3)))
        assert seen == sorted(seen), seen

    with pytest.raises(AssertionError) as caught:
        explore(main, seeds=100)
    told = caught.value.__notes__[-1].splitlines()
    assert told[0].startswith("mai.testing: seed ")
    assert len(told) > 5
    call = told[0].partition("again: ")[2]
    with pytest.raises(AssertionError) as again:
        eval(call, {"simulate": simulate, "main": main})
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    "simulation",
    [
        Simulation(),
        Simulation(seed=3, order="pct", horizon=7),
        Simulation(cancel_at=4, max_threads=2, record=True),
        Simulation(fail_at=1, allow_leaks=True, max_steps=50),
    ],
    ids=str,
)
def test_a_simulation_is_told_as_the_call_that_repeats_it(simulation: Simulation) -> None:
    seen: list[Simulation] = []

    def repeat(main: Any, **conditions: Any) -> None:
        seen.append(Simulation(**conditions))

    eval(str(simulation), {"simulate": repeat, "main": None})
    assert str(seen[0]) == str(simulation)


def test_leaks_and_deadlocks_are_told_with_a_schedule_too() -> None:
    with pytest.raises(Deadlock) as caught:
        explore(asyncio.Event().wait, seeds=3)
    assert "main" in caught.value.__notes__[-1]


def test_what_does_not_fail_again_says_so() -> None:
    runs: list[int] = []

    async def main() -> None:
        runs.append(1)
        if len(runs) == 2:
            await asyncio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        explore(main, seeds=3)
    assert "It did not fail again" in caught.value.__notes__[-1]


def test_a_ctrl_c_is_no_failure_of_a_seed() -> None:
    async def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        explore(main)
    assert not hasattr(caught.value, "__notes__")


def test_the_answers_of_a_check_are_failures_of_a_seed() -> None:
    def look(trial: Any) -> None:
        assert trial.value == 2, "not two"

    with pytest.raises(AssertionError, match="not two"):
        explore(lambda: late(1), check=look)


def test_only_the_last_steps_are_shown_and_long_paths_by_their_end() -> None:
    class Nest(Module):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def forward(self, x: int) -> Any:
            return await self.inner(x)

    @module
    async def many(x: int) -> None:
        for _ in range(50):
            await asyncio.sleep(1)

    made: Any = many
    for _ in range(20):
        made = Nest(made)
    lines = Simulation(record=True).run(lambda: made(1)).schedule.splitlines()
    assert len(lines) == 40
    assert all("  ..." in line and line.endswith("/many") for line in lines[:30])


@pytest.mark.parametrize("kind", [Deadlock, Leak, Livelock])
def test_an_error_of_a_simulation_can_be_pickled(kind: type[SimulationError]) -> None:
    import pickle

    error = kind("what", step=3, time=1.5)
    error.schedule = "   1"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.step, again.time, again.schedule) == (kind, "what", 3, 1.5, "   1")


# ---------------------------------------------------------------- misuse, and the loop by itself


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="order='lifo' is unknown"):
        simulate(lambda: late(1), order="lifo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="orders=\\(\\) names none"):
        explore(lambda: late(1), orders=())
    with pytest.raises(ConfigError, match="is not an async function"):
        simulated(lambda: 1)  # type: ignore[arg-type, return-value]


def test_the_loop_is_an_ordinary_one_for_a_runner() -> None:
    with asyncio.Runner(loop_factory=lambda: SimulationLoop(3, order="pct")) as runner:
        assert runner.run(late(3600)) == 3600


# ---------------------------------------------------------------- tests in simulated time

ran: list[str] = []


@simulated
async def test_an_async_test_runs_in_the_order_of_an_ordinary_loop(tmp_path: Any) -> None:
    assert tmp_path.exists()
    await asyncio.sleep(1e6)


@pytest.mark.parametrize("x", [1, 2])
@simulated(seeds=5)
async def test_an_async_test_runs_under_many_seeds(x: int) -> None:
    """It has a docstring."""
    ran.append(f"seed of {x}")
    assert await late(x) == x


def test_the_one_above_did() -> None:
    assert ran.count("seed of 1") == 6
    assert test_an_async_test_runs_under_many_seeds.__doc__ == "It has a docstring."


def test_a_question_may_be_answered_in_simulated_time() -> None:
    async def main() -> int:
        async def asks(x: int) -> int:
            return await ask("How many?", int, timeout=60)

        run = module(asks).start(1)
        await asyncio.sleep(30)
        run.answer(5)
        return await run

    assert simulate(main) == 5
