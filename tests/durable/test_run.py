"""One run: what is done again after a crash, what is not, and what ends a run that its code no longer fits."""

import asyncio
import gc
import inspect
import math
import weakref
from collections import Counter
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

import mai
from mai import (
    AskError,
    BlockingDelay,
    CastError,
    ConfigError,
    Context,
    DeadlineExceeded,
    JournalError,
    Loop,
    Module,
    NeedsAttention,
    NonBlockingDelay,
    Parallel,
    PayloadError,
    PlanChanged,
    Race,
    ReplayMismatch,
    Retry,
    RunExists,
    Sequential,
    StepFailed,
    UnknownRun,
    answers,
    module,
)
from mai.durable import DurableEngine, MemoryJournal, replay_safe
from tests.durable.benches import STEPS, WRITES, Crash, MemoryBench, Mortal
from tests.durable.conformance import DONE, Approve, Boom, add, boom, double, many, outcome, parcel, put_back, slow
from tests.support import loop_of, simulated


@pytest.fixture(autouse=True)
def fresh() -> None:
    DONE.clear()


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


async def paths(bench: MemoryBench, run_id: str = "r") -> list[str]:
    return [one.path for one in await bench.journal.history(run_id) if not one.path.startswith("!segment/")]


# ---------------------------------------------------------------- crashes

PIPE = add >> Parallel(double, slow >> add) >> sum >> BlockingDelay(0.01) >> add


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", [*STEPS, *WRITES])
@simulated
async def test_a_crash_at_any_write_costs_at_most_the_step_in_flight(
    bench: MemoryBench, name: str, after: bool
) -> None:
    wanted, whole = await outcome(PIPE(1)), Counter(DONE)
    for at in range(20):
        DONE.clear()
        run_id = f"run {at}"
        died = await bench.killed(PIPE, 1, run_id, at, after=after, names=(name,)) is None
        assert await bench.killed(PIPE, 1, run_id, -1) == wanted
        again = Counter(DONE) - whole
        assert whole <= Counter(DONE)
        assert sum(again.values()) <= (2 if died else 0)  # as many as were in flight
        assert len(set(await paths(bench, run_id))) == len(await paths(bench, run_id))
        if not died:
            return
    raise AssertionError("there is no end of writes")


@simulated
async def test_a_crash_inside_a_body_repeats_that_step_alone(bench: MemoryBench) -> None:
    lives = [True]

    @module
    async def fatal(n: int) -> int:
        DONE.append("fatal")
        if lives.pop():
            raise Crash
        return n

    lives[:] = [False, True]
    pipe = add >> fatal >> add
    mortal = Mortal(bench.journal)
    with pytest.raises(Crash):
        async with bench.engine(journal=mortal) as engine:
            await engine.start(pipe, 1, run_id="r")
    assert (await bench.killed(pipe, 1, "r", -1)).value == 3
    assert DONE == ["add 1", "fatal", "fatal", "add~2 2"]


@simulated
async def test_a_crash_with_many_branches_in_flight_keeps_those_that_were_recorded(bench: MemoryBench) -> None:
    wide = Parallel(*[slow >> add] * 8) >> len
    assert await bench.killed(wide, 1, "r", 5, after=True) is None
    recorded = len(await paths(bench))
    DONE.clear()
    assert (await bench.killed(wide, 1, "r", -1)).value == 8
    assert len(DONE) == 16 - recorded


@simulated
async def test_a_run_that_kills_its_process_again_and_again_needs_attention(bench: MemoryBench) -> None:
    @module
    async def poison(n: int) -> int:
        DONE.append("poison")
        raise Crash

    for _ in range(10):
        with pytest.raises(Crash):
            async with bench.engine() as engine:
                await engine.start(poison, 1, run_id="r")
    async with bench.engine(poison) as engine:
        with pytest.raises(NeedsAttention, match="10 times"):
            await engine.start(poison, 1, run_id="r")
        assert [info.run_id for info in await engine.runs("needs_attention")] == ["r"]
        with pytest.raises(NeedsAttention):
            await engine.result("r")
        with pytest.raises(NeedsAttention):
            await engine.start(poison, 1, run_id="r")
    assert len(DONE) == 10


@simulated
async def test_an_orphaned_run_is_taken_over_by_a_process_that_serves_its_code(bench: MemoryBench) -> None:
    first = DurableEngine(Mortal(bench.journal, at=1, after=True))
    with pytest.raises(Crash):
        async with first:
            await first.start(add >> double >> add, 1, run_id="r")
    async with bench.engine(add >> double >> add) as engine:
        bench.journal.lose(first.owner)
        assert await engine.result("r") == 5
    assert DONE == ["add 1", "double 2", "add~2 4"]


@simulated
async def test_two_processes_resume_one_run_and_its_steps_are_done_once(bench: MemoryBench) -> None:
    pipe = slow >> slow >> slow
    async with bench.engine(pipe) as one, bench.engine(pipe) as two:
        found = await asyncio.gather(one.start(pipe, 1, run_id="r"), two.start(pipe, 1, run_id="r"))
    assert found == [301, 301]
    assert len(DONE) == 3


@simulated
async def test_a_stopped_owner_that_wakes_writes_nothing_more(bench: MemoryBench) -> None:
    gate = asyncio.Event()

    @module
    async def stopped(n: int) -> int:
        DONE.append(f"stopped {n}")
        if len(DONE) == 2:
            await gate.wait()
        return n

    pipe = add >> stopped >> add
    async with bench.engine() as one, bench.engine(pipe) as two:
        slept = one.start(pipe, 1, run_id="r")
        await asyncio.sleep(1)
        bench.journal.lose(one.owner)
        assert await two.result("r") == 3
        gate.set()
        assert await slept == 3
    assert DONE == ["add 1", "stopped 2", "stopped 2", "add~2 2"]


# ---------------------------------------------------------------- starting


@simulated
async def test_one_id_is_one_run(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        first, second = engine.start(slow, 1, run_id="r"), engine.start(slow, 1, run_id="r")
        assert [await first, await second] == [101, 101]
        with pytest.raises(RunExists, match="another input"):
            await engine.start(slow, 2, run_id="r")
        with pytest.raises(RunExists, match="another target"):
            await engine.start(add, 1, run_id="r")
    assert len(DONE) == 1


@pytest.mark.parametrize("wrong", ["", 3, b"r", "\udc80"])
@simulated
async def test_an_id_that_is_no_text_makes_no_run(bench: MemoryBench, wrong: Any) -> None:
    async with bench.engine(slow) as engine:
        with pytest.raises(ConfigError, match="start: run_id="):
            engine.start(slow, 1, run_id=wrong)
        await engine.start(slow, 1, run_id="r")
        with pytest.raises(ConfigError, match="fork: new_id="):
            await engine.fork("r", new_id=wrong)
        assert [info.run_id for info in await engine.runs()] == ["r"]


@simulated
async def test_a_fork_does_not_take_the_place_of_a_run_that_goes_on(bench: MemoryBench) -> None:
    @module(flow=True)
    async def waits(n: int) -> int:
        return await add(n) + await mai.wait_for("more", int)

    async with bench.engine(slow, waits) as engine:
        await engine.start(slow, 1, run_id="r")
        other = engine.start(waits, 1, run_id="other")
        await asyncio.sleep(0.01)
        with pytest.raises(RunExists, match="there is a run 'other' already"):
            await engine.fork("r", new_id="other")
        assert engine.drives("other")
        await engine.signal("other", "more", 5)
        assert await other == 7


@simulated
async def test_calls_outside_of_a_run_are_runs(bench: MemoryBench) -> None:
    async with bench.engine():
        assert await (add >> double)(1) == 4
        handle = add.start(n=4)
        assert await handle == 5
        assert await add.with_(detached=True)(7) is not None
    assert [info.status for info in await bench.journal.runs()] == ["ok", "ok", "ok"]


@simulated
async def test_a_payload_gives_several_arguments(bench: MemoryBench) -> None:
    @module
    async def area(wide: int, high: int = 2, *more: int, unit: str = "m", **facts: int) -> str:
        return f"{wide * high} {unit}{sorted(facts.items())}"

    async with bench.engine() as engine:
        assert await engine.start(area, area.payload(wide=3, unit="cm")) == "6 cm[]"
        assert await area(3, 4, 5, 6, depth=7) == "12 m[('depth', 7)]"


@simulated
async def test_a_delayed_run_begins_when_it_is_due(bench: MemoryBench) -> None:
    began = loop_of().time()
    async with bench.engine() as engine:
        assert await engine.start(add, 1, run_id="r", delay=30) == 2
    assert loop_of().time() == pytest.approx(began + 30, abs=0.1)


@simulated
async def test_a_run_is_started_inside_of_the_block_only(bench: MemoryBench) -> None:
    engine = DurableEngine(bench.journal)
    with pytest.raises(ConfigError, match="inside of 'async with engine:'"):
        engine.start(add, 1)
    async with engine:
        with pytest.raises(PayloadError):
            engine.start(module(lambda x: x), object())
        with pytest.raises(UnknownRun):
            await engine.result("nobody")


@simulated
async def test_a_cancelled_call_cancels_its_run_and_a_cancelled_wait_for_a_handle_does_not(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        waiting = asyncio.create_task((slow >> BlockingDelay(9))(1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [info.status for info in await engine.runs()] == ["cancelled"]
        handle = engine.start(slow >> BlockingDelay(9), 1, run_id="r")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(_of(handle)), 0.1)
        assert await handle == 101


async def _of(handle: Any) -> Any:
    return await handle


class Slow:
    """A journal of which each method takes a while before it acts, and after that."""

    def __init__(self, journal: Any) -> None:
        self.journal = journal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.journal, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(1)
            found = await method(*args, **kwargs)
            await asyncio.sleep(1)
            return found

        return call if inspect.iscoroutinefunction(method) and name not in ("open", "close") else method


@simulated
async def test_a_run_of_which_several_things_are_heard_at_once_is_taken_up_once(bench: MemoryBench) -> None:
    pipe = add >> BlockingDelay(5) >> slow >> add
    assert await bench.killed(pipe, 1, "r", 1, after=True) is None
    await asyncio.sleep(10)
    async with bench.engine(pipe, journal=Slow(bench.journal)) as engine:  # which looks for runs that are due
        for _ in range(3):
            await bench.journal.signal("r", "news", b"1")
        assert await engine.result("r") == 103
        assert (await engine.info("r")).epoch == 2
    assert DONE == ["add 1", "slow 2", "add~2 102"]


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
@pytest.mark.parametrize("begun", [False, True])
@simulated
async def test_a_cancel_by_a_handle_that_is_only_beginning_ends_the_run(
    bench: MemoryBench, after: float, *, begun: bool
) -> None:
    pipe = add >> BlockingDelay(60) >> add
    if begun:
        assert await bench.killed(pipe, 1, "r", 1, after=True) is None
    async with bench.engine(journal=Slow(bench.journal)) as engine:
        handle = engine.start(pipe, 1, run_id="r")
        await asyncio.sleep(after)
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
        known = await bench.journal.run("r")
        assert known is None or known.status == "cancelled"
    assert "add~2 2" not in DONE


@simulated
async def test_each_handle_of_a_run_cancels_it(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handles = [engine.start(add >> BlockingDelay(60), 1, run_id="r") for _ in range(3)]
        await asyncio.sleep(0.1)
        handles[1].cancel()
        for handle in handles:
            with pytest.raises(asyncio.CancelledError):
                await handle
        assert (await engine.info("r")).status == "cancelled"
    async with bench.engine() as engine:
        handles = [engine.start(add >> BlockingDelay(60), 1, run_id="late") for _ in range(2)]
        await asyncio.sleep(0.1)
    assert [handle.outcome for handle in handles] == ["suspended", "suspended"]
    assert (await bench.journal.run("late")).status == "waiting"


@simulated
async def test_calls_with_settings_of_their_own_are_not_kept_as_code(bench: MemoryBench) -> None:
    async with bench.engine():
        await add(0)
        copies: list[weakref.ref[Any]] = []
        for n in range(5):
            copy = add.with_(timeout=60)
            assert await copy(n) == n + 1
            copies.append(weakref.ref(copy))
        del copy
        gc.collect()
        assert [ref() for ref in copies] == [None] * 5


# ---------------------------------------------------------------- time


@simulated
async def test_a_delay_goes_on_where_it_was_and_takes_no_longer_than_it_was_to(bench: MemoryBench) -> None:
    pipe = add >> BlockingDelay(60) >> add
    assert await bench.killed(pipe, 1, "r", 1, after=True) is None
    await asyncio.sleep(20)
    began = loop_of().time()
    assert (await bench.killed(pipe, 1, "r", -1)).value == 3
    assert loop_of().time() == pytest.approx(began + 40, abs=0.1)


@pytest.mark.parametrize(("jump", "takes"), [(86400.0, 0.0), (-86400.0, 60.0)])
@simulated
async def test_a_clock_that_jumps_by_a_day_ends_a_delay_or_lets_it_begin_anew(
    bench: MemoryBench, jump: float, takes: float
) -> None:
    from mai.core.clock import clock

    pipe = add >> BlockingDelay(60) >> add
    assert await bench.killed(pipe, 1, "r", 1, after=True) is None
    wall = clock.wall
    vars(clock)["wall"] = lambda: wall() + jump
    began = loop_of().time()
    assert (await bench.killed(pipe, 1, "r", -1)).value == 3
    assert loop_of().time() == pytest.approx(began + takes, abs=0.1)


@simulated
async def test_a_wait_whose_clock_was_set_back_and_forth_is_repeated(bench: MemoryBench) -> None:
    from mai.core.clock import clock

    @module(flow=True)
    async def two(n: int) -> str:
        return await mai.wait_for("a", timeout=60) + await mai.wait_for("b", timeout=60)

    assert await bench.killed(two, 1, "r", 0, after=True) is None
    wall = clock.wall
    vars(clock)["wall"] = lambda: wall() - 86400
    assert await bench.killed(two, 1, "r", 0, after=True) is None  # which begins the wait anew
    vars(clock)["wall"] = wall
    async with bench.engine(two) as engine:
        handle = engine.start(two, 1, run_id="r")
        await engine.signal("r", "a", "A")
        await asyncio.sleep(5)  # it is unloaded meanwhile
        await engine.signal("r", "b", "B")
        assert await handle == "AB"


@simulated
async def test_a_run_that_waits_leaves_memory_and_comes_back_when_it_is_due(bench: MemoryBench) -> None:
    pipe = add >> BlockingDelay(3600) >> add
    async with bench.engine(linger=1.0) as engine:
        handle = engine.start(pipe, 1, run_id="r")
        await asyncio.sleep(5)
        info = await engine.info("r")
        assert (info.status, info.owner) == ("waiting", None)
        assert await handle == 3
        assert handle.outcome == "ok"
        assert [child.outcome for child in handle.children] == ["replayed", "ok", "ok"]
    assert DONE == ["add 1", "add~2 2"]


@module(flow=True)
async def asks(x: int) -> str:
    first = await mai.ask("First?", bool)
    return f"{first} {await mai.ask('Second?', int)}"


@simulated
async def test_an_answer_that_does_not_fit_is_put_aside_also_when_the_run_goes_on_elsewhere(bench: MemoryBench) -> None:
    async with bench.engine(linger=1.0) as engine:
        engine.start(asks, 1, run_id="r")
        await asyncio.sleep(5)
        for wrong in (b'"perhaps"', b"[1]"):
            await bench.journal.signal("r", "asks/ask", wrong)
        await asyncio.sleep(5)
        assert (await engine.info("r")).status == "waiting"
    async with bench.engine(asks, linger=1.0) as engine:
        await engine.signal("r", "asks/ask", "yes")
        await asyncio.sleep(5)
        assert (await engine.info("r")).status == "waiting"
    async with bench.engine(asks, linger=1.0) as engine:
        await bench.journal.signal("r", "asks/ask~2", b"null")
        await engine.signal("r", "asks/ask~2", 7)
        assert await engine.result("r") == "True 7"
    assert await paths(bench) == [
        "asks/ask!asked", "asks/ask!refused[1]", "asks/ask!refused[2]", "asks/ask",
        "asks/ask~2!asked", "asks/ask~2!refused[1]", "asks/ask~2",
    ]  # fmt: skip


@simulated
async def test_a_place_that_the_past_of_another_branch_needs_is_given_back(bench: MemoryBench) -> None:
    parked = Parallel(NonBlockingDelay(3) >> add.with_(name="late"), add.with_(name="soon"), limit=1)
    assert (await bench.killed(parked, 1, "r", 2)) is None  # after the delay and the other branch were recorded
    await asyncio.sleep(60)
    assert (await bench.killed(parked, 1, "r", -1)).value == (2, 2)


@simulated
async def test_a_branch_at_work_of_its_own_is_not_begun_anew_because_the_others_wait(bench: MemoryBench) -> None:
    @module(flow=True)
    async def thinks(x: int) -> int:
        DONE.append("thinks")
        await asyncio.sleep(5)
        return x

    pipe = Parallel(thinks >> add, *(BlockingDelay(3) >> BlockingDelay(2.5) for _ in range(3)))
    async with bench.engine(linger=1.0) as engine:
        assert await engine.start(pipe, 1, run_id="r") == (2, 1, 1, 1)
    assert DONE == ["thinks", "add 1"]


@simulated
async def test_once_its_own_work_is_done_a_run_that_waits_leaves_memory(bench: MemoryBench) -> None:
    @module(flow=True)
    async def thinks(x: int) -> int:
        await asyncio.sleep(5)
        return x

    async with bench.engine(linger=1.0) as engine:
        handle = engine.start(thinks & BlockingDelay(60), 1, run_id="r")
        await asyncio.sleep(4)
        assert (await engine.info("r")).status == "running"
        await asyncio.sleep(4)
        assert (await engine.info("r")).status == "waiting"
        assert await handle == (1, 1)


@simulated
async def test_leaving_the_block_leaves_runs_that_wait_to_the_journal(bench: MemoryBench) -> None:
    pipe = add >> BlockingDelay(3600) >> add
    async with bench.engine() as engine:
        handle = engine.start(pipe, 1, run_id="r")
    with pytest.raises(asyncio.CancelledError):
        await handle
    assert (await bench.journal.run("r")).status == "waiting"
    await asyncio.sleep(3600)
    async with bench.engine(pipe) as engine:
        assert await engine.result("r") == 3
    assert DONE == ["add 1", "add~2 2"]


@simulated
async def test_an_exception_that_leaves_the_block_gives_every_run_back(bench: MemoryBench) -> None:
    handle: Any = None
    with suppress(KeyError):
        async with bench.engine() as engine:
            handle = engine.start(add >> slow >> add, 1, run_id="r")
            await asyncio.sleep(0.01)
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        await handle
    assert (await bench.journal.run("r")).status == "waiting"
    assert (await bench.killed(add >> slow >> add, 1, "r", -1)).value == 103
    assert DONE == ["add 1", "slow 2", "add~2 102"]


@simulated
async def test_a_flow_has_only_what_is_left_of_its_time_after_a_crash(bench: MemoryBench) -> None:
    pipe = (add >> BlockingDelay(50) >> add).with_(timeout=60.0)
    assert await bench.killed(pipe, 1, "r", 2, after=True) is None
    await asyncio.sleep(30)
    assert (await bench.killed(pipe, 1, "r", -1)).value == 3
    pipe = (add >> BlockingDelay(100) >> add).with_(timeout=60.0)
    assert await bench.killed(pipe, 1, "late", 2, after=True) is None
    await asyncio.sleep(90)
    found = await bench.killed(pipe, 1, "late", -1)
    assert isinstance(found.error, DeadlineExceeded)
    assert (await bench.journal.run("late")).status == "timeout"


@simulated
async def test_the_deadline_around_the_start_is_kept(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        with Context.scope(timeout=5), pytest.raises(DeadlineExceeded):
            await (add >> BlockingDelay(9))(1)
        with Context.scope(timeout=20):
            handle = engine.start(add >> BlockingDelay(60), 1, run_id="r")
        await asyncio.sleep(3)
    async with bench.engine(add >> BlockingDelay(60)) as engine:
        await asyncio.sleep(10)
        with pytest.raises(DeadlineExceeded):
            await engine.result("r")
    with pytest.raises(asyncio.CancelledError):
        await handle


# ---------------------------------------------------------------- questions and signals


@simulated
async def test_a_question_waits_through_crashes_for_its_answer(bench: MemoryBench) -> None:
    assert await bench.killed(Approve(), 1, "r", 0, after=True) is None
    async with bench.engine(Approve()) as engine:
        await asyncio.sleep(10)
        assert (await engine.info("r")).waits == {"Approve/ask": "Approve/ask"}
        with pytest.raises(CastError):
            await engine.answer("r", "perhaps")
        await engine.answer("r", "yes")
        assert await engine.result("r") == "2 yes 3"
        with pytest.raises(AskError, match="has ended"):
            await engine.answer("r", "yes")
    assert DONE == ["add 1", "add~2 2"]


@simulated
async def test_a_handle_answers_a_question_also_while_the_run_is_unloaded(bench: MemoryBench) -> None:
    async with bench.engine(linger=1.0) as engine:
        handle = engine.start(Approve(), 1)
        await asyncio.sleep(10)
        assert [question.expected for question in handle.questions] == ["bool"]
        handle.answer(False)
        assert await handle == "2 no 3"


@simulated
async def test_a_second_handle_of_a_run_answers_too(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        first = engine.start(Approve(), 1, run_id="r")
        second = engine.start(Approve(), 1, run_id="r")
        await asyncio.sleep(0.1)
        assert [asked.prompt for asked in second.questions] == [asked.prompt for asked in first.questions]
        second.answer(True)
        assert await first == await second


@simulated
async def test_a_function_around_the_start_answers(bench: MemoryBench) -> None:
    async with bench.engine():
        with answers(lambda question: "no"):
            assert await Approve()(1) == "2 no 3"


@simulated
async def test_a_signal_counts_before_the_wait_during_a_crash_and_once(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handle = engine.start(parcel, 1, run_id="early", delay=5)
        await asyncio.sleep(1)
        assert await engine.signal("early", "paid", 9.5, id="x")
        assert await engine.signal("early", "paid", 1.0, id="x")
        assert await handle == "1 paid 9.5 2"
        assert not await engine.signal("early", "paid", 2.0)
        assert len(await bench.journal.signals("early")) == 1
    mortal = Mortal(bench.journal, at=0)
    with suppress(Crash):
        async with bench.engine(journal=mortal) as engine:
            handle = engine.start(parcel, 1, run_id="crash")
            await asyncio.sleep(0.1)
            await bench.journal.signal("crash", "paid", b"3.5")
            await handle
    assert (await bench.killed(parcel, 1, "crash", -1)).value == "1 paid 3.5 2"


@simulated
async def test_a_wait_gives_up_at_the_time_that_was_recorded_first(bench: MemoryBench) -> None:
    @module(flow=True)
    async def patient(n: int) -> str:
        try:
            return await mai.wait_for("go", timeout=60)
        except DeadlineExceeded as error:
            return str(error)

    assert await bench.killed(patient, 1, "r", 0, after=True) is None
    await asyncio.sleep(50)
    began = loop_of().time()
    assert (await bench.killed(patient, 1, "r", -1)).value == "Nobody answered 'signal go' within 60 s"
    assert loop_of().time() == pytest.approx(began + 10, abs=0.1)


@pytest.mark.parametrize("inner", [BlockingDelay(1), Approve(), parcel])
@simulated
async def test_what_waits_inside_of_a_step_is_refused(bench: MemoryBench, inner: Any) -> None:
    @module
    async def step(n: int) -> str:
        return str(await inner(n))

    async with bench.engine():
        with pytest.raises(ConfigError, match="flow=True"):
            await step(1)
        with pytest.raises(ConfigError, match="flow=True"):
            await module(_patched)(1)


async def _patched(n: int) -> bool:
    return await mai.patched("x")


# ---------------------------------------------------------------- cancels


@simulated
async def test_a_cancel_from_elsewhere_ends_a_run_wherever_it_is(bench: MemoryBench) -> None:
    pipe = add >> BlockingDelay(3600) >> add
    async with bench.engine(linger=1.0) as engine:
        for pause in (0.0, 0.5, 10.0):  # before it began, while it waits, when it has left memory
            handle = engine.start(pipe, 1, run_id=f"{pause}")
            await asyncio.sleep(pause)
            if pause == 0.0:
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.gather(_of(handle), engine.cancel(f"{pause}"))
            assert (await engine.info(f"{pause}")).status == "cancelled"
            assert not await engine.cancel(f"{pause}")


@simulated
async def test_a_cancelled_run_tidies_up_once_also_across_a_crash(bench: MemoryBench) -> None:
    class Tidy(Module, flow=True):
        async def forward(self, n: int) -> int:
            try:
                return await (slow >> BlockingDelay(100))(n)
            finally:
                await add(n)
                await double(n)

    async def during(engine: Any) -> None:
        await asyncio.sleep(1)
        await engine.cancel("r")
        await asyncio.sleep(100)

    assert await bench.killed(Tidy(), 1, "r", 2, after=True, during=during) is None
    assert DONE == ["slow 1", "add 1"]
    found = await bench.killed(Tidy(), 1, "r", -1)
    assert isinstance(found.error, asyncio.CancelledError)
    assert DONE == ["slow 1", "add 1", "double 1"]


@simulated
async def test_a_cancel_that_comes_with_the_end_leaves_one_outcome(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        for turns in range(12):
            run_id = f"r{turns}"
            handle = engine.start(add >> add, 1, run_id=run_id)
            for _ in range(turns):
                await asyncio.sleep(0)
            if await bench.journal.run(run_id) is not None:
                await engine.cancel(run_id)
            found = await outcome(handle)
            assert (await engine.info(run_id)).status == ("ok" if found.error is None else "cancelled")


# ---------------------------------------------------------------- undo


@module
async def take_back(n: int) -> None:
    DONE.append(f"back {n}")


@module
async def twice(n: int) -> int:
    await asyncio.sleep(0.01)
    return 2 * n


def trip(last: Any) -> Any:
    both = Parallel(twice.with_(undo=take_back), slow.with_(undo=take_back))
    return add.with_(undo=take_back) >> both >> max >> last


@simulated
async def test_undo_goes_backwards_once_whatever_crashes(bench: MemoryBench) -> None:
    for at in range(12):
        DONE.clear()
        run_id = f"run {at}"
        died = await bench.killed(trip(boom), 1, run_id, at, after=True) is None
        found = await bench.killed(trip(boom), 1, run_id, -1)
        assert isinstance(found.error, Boom)
        recorded = await bench.journal.history(run_id)
        undone = [one.path for one in recorded if one.kind == "undo"]
        assert undone == [f"{one.path}!undo" for one in reversed(recorded) if f"{one.path}!undo" in undone]
        assert Counter(what for what in DONE if what.startswith("back")) == Counter(["back 102", "back 4", "back 2"])
        if not died:
            return
    raise AssertionError("there is no end of writes")


@simulated
async def test_a_cancelled_run_is_undone_and_one_that_caught_its_failure_is_not(bench: MemoryBench) -> None:
    async with bench.engine() as engine:
        handle = engine.start(trip(BlockingDelay(99)), 1)
        await asyncio.sleep(1)
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
        assert Counter(DONE[-3:]) == Counter(["back 102", "back 4", "back 2"])
        DONE.clear()
        assert await engine.start(trip(boom).with_(fallback=add), 1) == 2
    assert not [what for what in DONE if what.startswith("back")]


@simulated
async def test_an_undo_is_tried_again_and_one_that_fails_for_good_is_told(bench: MemoryBench) -> None:
    tries: list[int] = []

    @module
    async def stubborn(n: int) -> None:
        tries.append(n)
        if len(tries) < 3:
            raise ConnectionError("not yet")

    @module
    async def hopeless(n: int) -> None:
        raise ConnectionError("never")

    pipe = add.with_(undo=hopeless) >> add.with_(undo=stubborn) >> boom
    async with bench.engine() as engine:
        with pytest.raises(Boom) as caught:
            await engine.start(pipe, 1, run_id="r")
        assert len(tries) == 3
        assert any("Sequential/add could not be undone: ConnectionError('never')" in n for n in caught.value.__notes__)
        with pytest.raises(Boom) as again:
            await engine.result("r")
        assert any("could not be undone" in note for note in again.value.__notes__)


# ---------------------------------------------------------------- failures as data


class Rich(Exception):
    """Knows things that no record can hold."""

    def __init__(self, what: str, client: object = None) -> None:
        super().__init__(what)
        self.client = client


class Unread(OSError):
    """An exception of the user's with a constructor of its own."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first, second)


def known(error: Exception) -> bool:
    return type(error).__name__ not in ("Local", "UnicodeDecodeError")


@simulated
async def test_a_failure_is_the_same_at_first_and_in_each_replay(bench: MemoryBench) -> None:
    class Hidden(Exception):
        pass

    def make() -> Exception:
        class Local(Exception):
            pass

        return Local("out of sight")

    errors: list[Exception] = [
        Boom(3), KeyError("k"), OSError(2, "gone"), ConfigError("c"), DeadlineExceeded("d", step_id="x", timeout=2.0),
        Hidden("h"), Rich("r"), Rich("r", object()), make(), ExceptionGroup("g", [Boom(1), ValueError("v")]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError("no", math.nan), Boom(("a", "tuple")),
        asyncio.CancelledError("own"), FileNotFoundError(2, "no such file", "a.txt"), Unread("a", "b"),
        OSError(18, "another disk", "a.txt", None, "b.txt"), ExceptionGroup("g", [PermissionError(13, "no", "a.txt")]),
    ]  # fmt: skip

    @module
    async def fails(n: int) -> int:
        raise errors[n]

    @module(flow=True)
    async def look(n: int) -> str:
        assert Hidden is not Rich  # the flow's code can name them
        try:
            await fails(n)
        except BaseException as error:  # noqa: BLE001 (to look at it)
            seen = f"{type(error).__name__} {error} {error.args!r} {getattr(error, 'client', '-')}"
            seen += f" {getattr(error, 'filename', '')} {getattr(error, 'filename2', '')}"
            return f"{seen} {sorted(vars(error).keys() - {'__notes__', '__mai_trace__'})} {await add(n)}"
        return ""

    for n, error in enumerate(errors):
        first = await bench.killed(look, n, f"one {n}", -1)
        assert f" {error} {error.args!r} " in first.value or not isinstance(error, OSError)
        assert await bench.killed(look, n, f"two {n}", 0, after=True) is None
        assert (await bench.killed(look, n, f"two {n}", -1)) == first
        assert first.value.startswith(type(error).__name__ if known(error) else "StepFailed")


@simulated
async def test_an_exception_of_an_unknown_class_is_told_by_its_name(bench: MemoryBench) -> None:
    def make() -> Exception:
        class Local(Exception):
            pass

        return Local("out of sight")

    @module
    async def fails(n: int) -> int:
        raise make()

    async with bench.engine() as engine:
        with pytest.raises(StepFailed, match="Local: out of sight") as caught:
            await fails(1)
        assert type(caught.value.__cause__).__name__ == "Local"
        assert caught.value.module == __name__
    unknown = type(make())
    async with bench.engine(errors=[unknown]) as engine:
        assert await engine.history((await engine.runs())[0].run_id)


@simulated
async def test_retries_of_a_step_share_one_record_and_begin_anew_after_a_crash(bench: MemoryBench) -> None:
    tries: list[int] = []
    keys: set[Any] = set()

    @module(retry=Retry(3, base=0.001))
    async def flaky(n: int) -> int:
        tries.append(Context.get().retry_count)
        keys.add(Context.get().idempotency_key)
        if len(tries) == 2:
            raise Crash
        raise ConnectionError(str(len(tries)))

    with pytest.raises(Crash):
        async with bench.engine(journal=Mortal(bench.journal)) as engine:
            await engine.start(add >> flaky, 1, run_id="r")
    found = await bench.killed(add >> flaky, 1, "r", -1)
    assert tries == [0, 1, 0, 1, 2]
    assert repr(found.error) == "ConnectionError('5')"
    assert await paths(bench) == ["Sequential/add", "Sequential/flaky"]
    assert len(keys) == 1


# ---------------------------------------------------------------- values


def nested(depth: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(depth):
        nest = [nest]
    return nest


@pytest.mark.parametrize("value", [math.nan, math.inf, "", "\N{SNOWMAN}" * 3, "x" * 100_000, nested(150)])
@simulated
async def test_odd_values_come_back(bench: MemoryBench, value: Any) -> None:
    tp = type(value)

    @module
    async def give(n: int) -> tp:  # type: ignore[valid-type]
        return value

    @module
    async def take(x: tp) -> str:  # type: ignore[valid-type]
        return repr(x)[:50]

    assert await bench.killed(give >> take, 1, "r", 0, after=True) is None
    assert (await bench.killed(give >> take, 1, "r", -1)).value == repr(value)[:50]


@simulated
async def test_a_value_that_no_json_holds_fails_its_step_before_it_is_acknowledged(bench: MemoryBench) -> None:
    @module
    async def surrogate(n: int) -> str:
        return "\ud800"

    @module
    async def untyped(n: int) -> Any:
        return object()

    @module
    async def too_deep(n: int) -> list[Any]:
        return nested(5_000)

    async with bench.engine() as engine:
        for step in (surrogate, untyped, too_deep):
            handle = engine.start(step, 1, run_id=step.settings.name)
            with pytest.raises(PayloadError):
                await handle
            assert [one.error is None for one in await engine.history(str(step.settings.name))] == [False]


@simulated
async def test_an_input_that_no_json_holds_is_not_compared(bench: MemoryBench) -> None:
    @module
    async def use(x: Any) -> int:
        return 1

    @module(flow=True)
    async def flow(n: int) -> int:
        return await use(object()) + await add(n)

    assert await bench.killed(flow, 1, "r", 1, after=True) is None
    assert (await bench.killed(flow, 1, "r", -1)).value == 3


@simulated
async def test_now_chance_and_ids_are_given_once(bench: MemoryBench) -> None:
    @module(flow=True)
    async def facts(n: int) -> list[str]:
        one = [str(await mai.now()), str(await mai.random()), await mai.uuid(), str(await mai.now())]
        await slow(n)
        return one

    async with bench.engine() as engine:
        handle = engine.start(facts, 1, run_id="straight")
        assert len(set(await handle)) >= 3
    assert await bench.killed(facts, 1, "r", 4, after=True) is None
    recorded = [one.output.decode() for one in await bench.journal.history("r") if one.kind == "value"]
    await asyncio.sleep(100)
    found = (await bench.killed(facts, 1, "r", -1)).value
    assert found[1] == recorded[1]
    assert found[2].replace("-", "")[:12] == recorded[2].strip('"')[:12]
    assert UUID(found[2]).version == 4
    assert len(await mai.uuid()) == 36


# ---------------------------------------------------------------- code that has changed


def shop(*steps: Any) -> Any:
    return Sequential(*steps).with_(name="shop")


@module(version="1")
async def priced(n: int) -> int:
    DONE.append("priced")
    return n


@module
async def inserted(n: int) -> int:
    DONE.append("inserted")
    return n


OLD = shop(add, priced, slow)
CHANGES: dict[str, tuple[Any, bool]] = {
    "nothing": (shop(add, priced, slow), True),
    "a step added behind": (shop(add, priced, slow, inserted), True),
    "the last step exchanged": (shop(add, priced, double), True),
    "a step inserted in the middle": (shop(add, inserted, priced, slow), False),
    "a step inserted in front": (shop(inserted, add, priced, slow), False),
    "a step removed": (shop(priced, slow), False),
    "a step renamed": (shop(add.with_(name="plus"), priced, slow), False),
    "steps reordered": (shop(priced, add, slow), False),
    "a step with a new version": (shop(add, priced.with_(version="2"), slow), False),
    "a step with another input": (shop(module(lambda n: n + 5).with_(name="five"), add, priced, slow), False),
}


@pytest.mark.parametrize("change", CHANGES)
@simulated
async def test_code_that_has_changed_goes_on_where_every_record_still_stands(bench: MemoryBench, change: str) -> None:
    new, fits = CHANGES[change]
    assert await bench.killed(OLD, 1, "r", 1, after=True) is None
    DONE.clear()
    async with bench.engine(new) as engine:
        if fits:
            await engine.result("r")
            assert "add 1" not in DONE
            assert "priced" not in DONE
            return
        with pytest.raises(NeedsAttention):
            await engine.result("r")
        assert (await engine.info("r")).status == "needs_attention"
        assert DONE == []
        await engine.resume("r")
        with pytest.raises(NeedsAttention):
            await engine.result("r")


@simulated
async def test_a_changed_plan_is_told_with_its_changes_and_ways_out(bench: MemoryBench) -> None:
    assert await bench.killed(OLD, 1, "r", 1, after=True) is None
    async with bench.engine() as engine:
        with pytest.raises(PlanChanged) as caught:
            await engine.start(shop(add.with_(name="plus"), priced, slow), 1, run_id="r")
        assert "step shop/add is gone" in str(caught.value)
        assert caught.value.diff == tuple(OLD.plan().diff(shop(add.with_(name="plus"), priced, slow).plan()))
        assert "moved=" in str(caught.value)
    async with bench.engine() as engine:  # a way out: the new names of old records
        engine.serve(shop(add.with_(name="plus"), priced, slow), moved={"shop/add": "shop/plus"})
        await engine.resume("r")
        assert await engine.result("r") == 102


@simulated
async def test_an_old_module_that_is_served_too_carries_its_old_runs_on(bench: MemoryBench) -> None:
    assert await bench.killed(OLD, 1, "r", 1, after=True) is None
    async with bench.engine(OLD, shop(inserted, slow)) as engine:
        assert await engine.result("r") == 102
        assert await engine.start(shop(inserted, slow), 1) == 101


@simulated
async def test_a_step_whose_input_differs_shows_both(bench: MemoryBench) -> None:
    factor = [1]

    @module(flow=True)
    async def flow(n: int) -> int:
        return await slow(await add(n * factor[0]))

    assert await bench.killed(flow, 2, "r", 0, after=True) is None
    factor[0] = 10
    async with bench.engine() as engine:
        with pytest.raises(ReplayMismatch) as caught:
            await engine.start(flow, 2, run_id="r")
        assert (caught.value.recorded, caught.value.found, caught.value.step_id) == ('{"n":2}', '{"n":20}', "flow/add")
        assert '{"n":2}' in str(caught.value)
        factor[0] = 1
        await engine.resume("r")
        assert (await bench.killed(flow, 2, "r", -1)).value == 103


@simulated
async def test_a_flow_that_asks_less_than_is_on_record_needs_attention(bench: MemoryBench) -> None:
    count = [3]

    @module(flow=True)
    async def flow(n: int) -> int:
        return sum([await add(i) for i in range(count[0])]) + await slow(n)

    assert await bench.killed(flow, 2, "r", 2, after=True) is None
    count[0] = 1
    async with bench.engine() as engine:
        with pytest.raises(ReplayMismatch, match="'flow/add~2' is on record, and nothing asks for it"):
            await engine.start(flow, 2, run_id="r")
    assert "slow 2" not in DONE


@simulated
async def test_a_patch_lets_old_runs_keep_their_old_code(bench: MemoryBench) -> None:
    new = [False]

    @module(flow=True)
    async def flow(n: int) -> int:
        n = await add(n)
        if new[0] and await mai.patched("fast"):
            return await inserted(n)
        return await double(await add(n))

    assert await bench.killed(flow, 1, "r", 1, after=True) is None
    new[0] = True
    assert (await bench.killed(flow, 1, "r", -1)).value == 6
    assert (await bench.killed(flow, 1, "fresh", -1)).value == 2
    assert await bench.killed(flow, 1, "young", 0, after=True) is None
    assert (await bench.killed(flow, 1, "young", -1)).value == 2


@simulated
async def test_a_patch_may_be_asked_for_again_and_in_several_branches(bench: MemoryBench) -> None:
    @module(flow=True)
    async def flow(n: int) -> int:
        for _ in range(2):
            n += await mai.patched("fast")
        return n

    assert (await bench.killed(Parallel(flow, flow), 1, "r", -1)).value == (3, 3)
    assert await paths(bench) == ["!patched/fast"]


@simulated
async def test_a_fork_takes_over_what_came_before(bench: MemoryBench) -> None:
    pipe = add >> double >> slow
    async with bench.engine(pipe) as engine:
        assert await engine.start(pipe, 1, run_id="r") == 104
        for i, record in enumerate(await engine.history("r")):
            DONE.clear()
            assert await (await engine.fork("r", at=record.path)) == 104
            assert len(DONE) == 3 - i
        other = await engine.fork("r", at="Sequential/slow", override={"Sequential/double": 50}, new_id="other")
        assert await other == 150
        with pytest.raises(RunExists):
            await engine.fork("r", new_id="other")
        with pytest.raises(ConfigError):
            await engine.fork("r", at="nowhere")
    async with bench.engine() as engine:
        with pytest.raises(ConfigError, match="not served here"):
            await engine.fork("r")
        assert await engine.result("r") == 104


@pytest.mark.parametrize("at", ["shop/missing", None])
@simulated
async def test_a_fork_has_the_time_that_was_left_at_its_beginning(bench: MemoryBench, at: str | None) -> None:
    stock = [0]

    @module
    async def missing(n: int) -> int:
        if not stock[0]:
            raise LookupError("nothing left")
        return n

    shop = (add >> missing).with_(name="shop", timeout=60)
    async with bench.engine(shop) as engine:
        with pytest.raises(LookupError):
            await engine.start(shop, 1, run_id="r")
        stock[0] = 1
        await asyncio.sleep(3600)
        fork = await engine.fork("r", at=at, new_id="fork")
        if at is None:
            with pytest.raises(LookupError):
                await fork
        else:
            assert await fork == 2
        (due,) = [one.due for one in await engine.history("fork") if one.path == "shop!due"]
        assert due == pytest.approx(loop_of().time() + 60, abs=1)


# ---------------------------------------------------------------- flows


@simulated
async def test_middleware_around_a_flow_must_say_that_it_may_be_repeated(bench: MemoryBench) -> None:
    async def loud(call: Any, inner: Any) -> Any:
        DONE.append("loud")
        return await inner(call)

    async with bench.engine() as engine:
        with pytest.raises(ConfigError, match="mark it @replay_safe"):
            await many.with_(middleware=loud)(2)
        assert await add.with_(middleware=loud)(1) == 2
        replay_safe(loud)
        assert await engine.start(many.with_(middleware=loud), 2, run_id="r") == [1, 2]
        with pytest.raises(ConfigError, match="detached"):
            await module(flow=True)(_detaches)(1)


async def _detaches(n: int) -> int:
    await add.with_(detached=True)(n)
    return n


@simulated
async def test_a_plain_flow_may_call_the_same_step_in_a_row(bench: MemoryBench) -> None:
    @module(flow=True)
    def plain(n: int) -> int:
        return sum(add.run(n) for _ in range(3))

    async with bench.engine() as engine:
        assert await engine.start(plain, 1, run_id="r") == 6
        assert [record.path for record in await engine.history("r")] == ["plain/add", "plain/add~2", "plain/add~3"]


@simulated
async def test_calls_in_tasks_of_the_users_own_must_have_names(bench: MemoryBench) -> None:
    @module(flow=True)
    async def nameless(n: int) -> int:
        return sum(await asyncio.gather(add(n), add(n)))

    @module(flow=True)
    async def named(n: int) -> int:
        return sum(await asyncio.gather(*(add.with_(name=f"add{i}")(n) for i in range(2))))

    async with bench.engine():
        assert await named(1) == 4
        with pytest.warns(RuntimeWarning, match="give each its own name"):
            assert await nameless(1) == 4


@simulated
async def test_a_race_that_was_won_stays_won(bench: MemoryBench) -> None:
    @module
    async def quick(n: int) -> int:
        DONE.append("quick")
        await asyncio.sleep(0.005 if len(DONE) < 3 else 1)
        return n

    pipe = Race(quick >> quick >> quick, slow >> add, quick) >> add
    for at in range(8):
        DONE.clear()
        await bench.killed(pipe, 1, f"r{at}", at, after=True)
        history = {one.path: one.output for one in await bench.journal.history(f"r{at}")}
        stop = history.get("Sequential/Race!stop")
        found = (await bench.killed(pipe, 1, f"r{at}", -1)).value
        if stop is not None:
            after = {one.path: one.output for one in await bench.journal.history(f"r{at}")}
            assert after["Sequential/Race!stop"] == stop
        assert found in (2, 103)


@simulated
async def test_loops_with_branches_in_them_go_on_in_their_turn(bench: MemoryBench) -> None:
    loop = Loop(Parallel(add, double >> add) >> max, max_iters=4)
    wanted = await loop(1)
    for at in range(13):
        await bench.killed(loop, 1, f"r{at}", at, after=bool(at % 2))
        assert (await bench.killed(loop, 1, f"r{at}", -1)).value == wanted


@simulated
async def test_a_failing_branch_with_others_in_flight_fails_in_the_same_way_after_a_crash(bench: MemoryBench) -> None:
    pipe = Parallel(add >> boom, slow >> slow, add >> add.with_(undo=put_back) >> slow).with_(name="p")
    wanted = await bench.killed(pipe, 1, "straight", -1)
    assert isinstance(wanted.error, Boom)
    for at in range(8):
        for after in (False, True):
            await bench.killed(pipe, 1, f"r{at}{after}", at, after=after)
            assert await bench.killed(pipe, 1, f"r{at}{after}", -1) == wanted


@simulated
async def test_auth_is_given_again_and_is_in_no_journal(bench: MemoryBench) -> None:
    @module
    async def who(n: int) -> str:
        return f"{Context.get().auth} {Context.get().metadata.get('user')}"

    pipe = add >> BlockingDelay(60) >> who
    async with bench.engine() as engine:
        with Context.scope(auth="secret", user="ann", client=object()):
            handle = engine.start(pipe, 1, run_id="r")
            assert await handle == "secret ann"
            engine.start(pipe, 1, run_id="s")
    async with bench.engine(pipe, auth="again") as engine:
        assert await engine.result("s") == "again ann"
    assert "secret" not in repr(await bench.journal.export("s"))


@simulated
async def test_a_journal_that_fails_ends_the_call_and_not_the_run(bench: MemoryBench) -> None:
    class Full(MemoryJournal):
        full = True

        async def append(self, lease: Any, record: Any) -> int:
            if self.full and record.path.endswith("double"):
                raise JournalError("the disk is full")
            return await super().append(lease, record)

    bench.journal = full = Full()
    async with bench.engine() as engine:
        with pytest.raises(JournalError, match="full"):
            await engine.start(add >> double, 1, run_id="r")
        full.full = False
        assert await engine.start(add >> double, 1, run_id="r") == 4
    assert DONE == ["add 1", "double 2", "double 2"]


class Damaged:
    """A journal that has lost what it knew of one run."""

    def __init__(self, journal: Any) -> None:
        self.journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    async def run(self, run_id: str) -> Any:
        if run_id == "bad":
            raise JournalError("the run 'bad' was damaged")
        return await self.journal.run(run_id)


@simulated
async def test_a_run_that_cannot_be_taken_up_is_told_once_and_keeps_no_other(
    bench: MemoryBench, caplog: pytest.LogCaptureFixture
) -> None:
    later = add >> BlockingDelay(5) >> add
    async with bench.engine() as engine:
        for run_id in ("bad", "good"):
            engine.start(later, 1, run_id=run_id)
        await asyncio.sleep(0.1)
    await asyncio.sleep(10)
    async with bench.engine(later, journal=Damaged(bench.journal)) as engine:
        await asyncio.sleep(0.1)
        await bench.journal.signal("bad", "x", b"1")
        await bench.journal.signal("bad", "x", b"1")
        assert await engine.result("good") == 3
    assert caplog.messages == ["run 'bad' cannot be taken up: the run 'bad' was damaged"]


@simulated
async def test_a_handle_tells_what_happens_and_what_was_replayed(bench: MemoryBench) -> None:
    pipe = add >> double
    assert await bench.killed(pipe, 1, "r", 0, after=True) is None
    async with bench.engine() as engine:
        handle = engine.start(pipe, 1, run_id="r")
        events = [f"{type(event).__name__} {event.step_id}" async for event in handle]
        assert events == [
            "Started Sequential", "Started Sequential/double", "Finished Sequential/double", "Finished Sequential",
        ]  # fmt: skip
        assert [child.outcome for child in handle.children] == ["replayed", "ok"]
        seen: list[str] = []
        engine.subscribe(lambda handle: seen.append(handle.outcome))
        assert await pipe(3) == 8
        assert seen == ["ok"]


@pytest.mark.slow
def test_a_run_of_a_hundred_thousand_steps(bench: MemoryBench) -> None:
    @module(flow=True)
    async def long(n: int) -> int:
        for i in range(n):
            await nothing(i)
        return n

    @module
    async def nothing(n: int) -> None:
        DONE.append("")

    async def main() -> None:
        assert await bench.killed(long, 100_000, "r", 99_990, after=True) is None
        assert (await bench.killed(long, 100_000, "r", -1)).value == 100_000
        assert len(DONE) == 100_000

    asyncio.run(main())


@simulated
async def test_the_attempts_of_a_flow_are_numbered_in_paths_from_the_second_on() -> None:
    tries: list[int] = []

    @module(flow=True, retry=Retry(2, base=0.01))
    async def unsteady(n: int) -> int:
        tries.append(await add(n))
        if len(tries) < 2:
            raise ConnectionError("again")
        return n

    async with DurableEngine(MemoryJournal()) as engine:
        await engine.start(unsteady, 1, run_id="r")
        paths = [record.path for record in await engine.journal.history("r") if record.kind == "step"]
    assert paths == ["unsteady/add", "unsteady#2/add"]
