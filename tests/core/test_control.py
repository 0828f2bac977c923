"""Started runs: where they run, who joins them, what outlives what."""

import asyncio
import gc
import logging
import threading
import warnings
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from mai import Context, DeadlineExceeded, LocalEngine, Module, Parallel, TraceHandle, WouldDeadlock, capture, module
from mai.core.control import Control
from mai.types import Failed, Started
from tests.support import python, refused, simulated

LONG = 20.0
mark = ContextVar("mark", default="none")


@module
async def shout(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


@module
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@module
async def fail(x: Any) -> Any:
    await asyncio.sleep(0)
    raise KeyError(x)


class Sleeper(Module):
    """Sleeps for ever, and says how it was cleaned up."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def forward(self, x: float) -> float:
        self.log.append("began")
        try:
            await asyncio.sleep(x)
        finally:
            await asyncio.sleep(1)
            self.log.append("cleaned")
        self.log.append("done")
        return x


# ---------------------------------------------------------------- the value


@simulated
async def test_a_started_run_gives_its_value_as_often_as_it_is_awaited() -> None:
    h = (shout >> str.lower).start("Ab")
    assert (h.outcome, h.step_id, h.parent) == ("running", "Sequential", None)
    assert [await h, await h, await asyncio.gather(h, h)] == ["ab", "ab", ["ab", "ab"]]
    assert h.ok
    assert [child.step_id for child in h.children] == ["Sequential/shout", "Sequential/lower"]
    assert h.result() == "ab"


@simulated
async def test_start_takes_forwards_arguments() -> None:
    @module
    async def repeat(text: str, times: int = 2) -> str:
        return text * times

    assert await repeat.start("a", times=3) == "aaa"
    with pytest.raises(TypeError, match="no parameter 'tines'"):
        await repeat.start("a", tines=3)  # type: ignore[call-arg]


@simulated
async def test_a_failed_run_raises_its_error_to_all_who_ask() -> None:
    h = fail.start(1)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            await h
    assert caught.value.__notes__ == [f"mai: in fail (after {h.duration:.3f} s)"]
    assert (h.outcome, h.error and h.error.type) == ("error", "KeyError")
    with pytest.raises(KeyError):
        h.result()


def test_without_a_loop_a_run_goes_on_in_the_portal_loop() -> None:
    @module
    async def where(x: int) -> tuple[str, str]:
        return threading.current_thread().name, mark.get()

    mark.set("mine")
    h = where.start(1)
    mark.set("later")
    assert h.result(LONG) == ("mai-portal", "mine")
    assert h.result() == ("mai-portal", "mine")


@simulated
async def test_a_handle_may_be_awaited_in_another_loop_than_its_own() -> None:
    h = shout.start("a")
    there: list[Any] = []

    async def elsewhere() -> None:
        there.append(await h)

    other = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    other.start()
    while other.is_alive():
        await asyncio.sleep(0)
    assert there == ["A"]
    far = await asyncio.to_thread(shout.start, "b")
    assert await far == "B"


@simulated
async def test_a_run_sees_the_context_and_the_deadline_of_its_caller() -> None:
    @module
    async def look(x: int) -> Any:
        return Context.get().metadata, mark.get()

    mark.set("mine")
    with Context.scope(user="ann", timeout=5):
        h, slow = look.start(1), nap.start(9)
    mark.set("later")
    assert await h == ({"user": "ann"}, "mine")
    with pytest.raises(DeadlineExceeded):
        await slow


@simulated
async def test_result_is_refused_where_it_would_block_the_loop() -> None:
    h = shout.start("a")
    message = "result() would block the event loop that it waits for: write 'await handle' instead"
    with refused(WouldDeadlock, message):
        h.result()
    await h


@simulated
async def test_a_run_that_waits_for_itself_is_refused() -> None:
    @module
    async def itself(x: int) -> Any:
        await asyncio.sleep(0)
        return await cell[0]

    @module
    def in_thread(x: int) -> Any:
        return cell[1].result()

    @module
    async def settles(x: int) -> Any:
        await cell[2].settled()

    cell: list[TraceHandle[Any]] = [itself.start(1), in_thread.start(1), settles.start(1)]
    for h in cell:
        with pytest.raises(WouldDeadlock):
            await h


@pytest.mark.parametrize("wait", ["await", "settled", "events", "chunks"])
@simulated
async def test_a_run_that_waits_for_one_around_it_is_refused(wait: str) -> None:
    @module
    async def waits(x: int) -> Any:
        h = cell[0]
        if wait == "events":
            return [event async for event in h]
        if wait == "chunks":
            return [chunk async for chunk in h.chunks()]
        return await (h if wait == "await" else h.settled())

    @module
    async def joins(x: int) -> Any:
        return await waits.start(x)

    @module
    async def outer(x: int) -> Any:
        return await joins.start(x)

    cell: list[TraceHandle[Any]] = [outer.start(1)]
    with pytest.raises(WouldDeadlock, match="inside its own run"):
        await cell[0]


@simulated
async def test_detached_work_may_wait_for_the_run_around_but_not_for_the_detached_work_of_it() -> None:
    @module
    async def later(x: int) -> Any:
        events = [event async for event in cell[0]]
        return await cell[0], len(events), [event async for event in cell[0]] == events

    @module
    async def settles(x: int) -> Any:
        await cell[0].settled()

    @module
    async def outer(x: int) -> Any:
        cell.append(await later.with_(detached=True)(x))
        cell.append(await settles.with_(detached=True)(x))
        return x

    cell: list[TraceHandle[Any]] = [outer.start(1)]
    await cell[0].settled()
    assert await cell[1] == (1, 2, True)
    with pytest.raises(WouldDeadlock):
        await cell[2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@simulated
async def test_an_exit_in_a_run_that_is_joined_goes_on_unless_somebody_took_it(kind: type[BaseException]) -> None:
    @module
    async def leaves(x: int) -> None:
        await asyncio.sleep(0)
        raise kind

    @module
    async def parent(x: int) -> int:
        h = leaves.start(x)
        if x:
            with pytest.raises(kind):
                await h
        return x

    assert await parent(1) == 1
    with pytest.raises(kind):
        await parent(0)
    engine, sleeper = LocalEngine(), Sleeper()
    await engine.__aenter__()
    await sleeper.with_(detached=True)(60.0)
    leaves.start(0)
    with pytest.raises(kind):
        await engine.__aexit__(None, None, None)
    assert sleeper.log == ["began", "cleaned"]


def test_result_gives_up_after_its_timeout_and_the_run_goes_on() -> None:
    gate = threading.Event()

    @module
    def waits(x: int) -> int:
        gate.wait(LONG)
        return x

    h = waits.start(1)
    with pytest.raises(DeadlineExceeded, match=r"has not ended after 0\.01 s"):
        h.result(timeout=0.01)
    gate.set()
    assert h.result(timeout=LONG) == 1


def test_a_full_pool_of_threads_that_wait_for_results_goes_on() -> None:
    @module
    def inner(x: int) -> int:
        return x + 1

    @module
    def outer(x: int) -> int:
        return inner.start(x).result()

    async def main() -> Any:
        async with LocalEngine(max_threads=2, max_abandoned=1) as engine:  # of which there is none
            values = await Parallel(*[outer] * 6)(1)
            assert engine.threads.started <= 2 + 6
            return values

    assert asyncio.run(main()) == (2,) * 6


@pytest.mark.parametrize("act", ["await", "cancel", "chunks", "result", "questions", "read", "for"])
@simulated
async def test_a_handle_that_was_not_started_says_so(act: str) -> None:
    with capture() as trace:
        await shout("a")
    h: Any = trace.runs[0]
    acts: dict[str, Any] = {
        "await": lambda: h.__await__().send(None),
        "cancel": h.cancel,
        "chunks": h.chunks,
        "result": h.result,
        "questions": lambda: h.questions,
        "read": h.__aiter__,
        "for": h.__iter__,
    }
    with pytest.raises(TypeError, match=r"was not given by start\(\)"):
        acts[act]()


# ---------------------------------------------------------------- cancel


@simulated
async def test_cancel_ends_the_run_with_its_cleanup() -> None:
    sleeper = Sleeper()
    h = Parallel(sleeper, nap).start(60.0)
    await asyncio.sleep(1)
    h.cancel()
    with pytest.raises(asyncio.CancelledError):
        await h
    assert sleeper.log == ["began", "cleaned"]
    assert h.outcome == "cancelled"
    h.cancel()


@simulated
async def test_a_run_may_be_cancelled_before_it_began() -> None:
    sleeper = Sleeper()
    h = sleeper.start(60.0)
    h.cancel()
    with pytest.raises(asyncio.CancelledError):
        await h
    assert (sleeper.log, h.outcome) == ([], "cancelled")


@pytest.mark.parametrize("apart", [False, True])
@simulated
async def test_a_run_that_is_cancelled_before_it_began_is_told_to_all_who_would_hear_of_it(apart: bool) -> None:
    seen, sleeper = list[Any](), Sleeper()
    async with LocalEngine() as engine:
        engine.subscribe(seen.append)
        with capture() as outer, capture() as trace:
            h: Any = await sleeper.with_(detached=True)(60.0) if apart else sleeper.start(60.0)
            h.cancel()
            await h.settled()
    assert seen == trace.runs == outer.runs == [h]
    assert [type(event) for event in [event async for event in h]] == [Started, Failed]
    assert sleeper.log == []


@simulated
async def test_a_run_whose_loop_was_closed_counts_as_cancelled() -> None:
    loop, handles = asyncio.new_event_loop(), list[TraceHandle[Any]]()

    async def start() -> None:
        handles.append(nap.start(100.0))
        handles.append(await nap.with_(detached=True)(100.0))
        await asyncio.sleep(0)

    def elsewhere() -> None:
        loop.run_until_complete(start())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            left = asyncio.all_tasks(loop)
            loop.close()
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    async with LocalEngine() as engine:
        await asyncio.to_thread(elsewhere)
        first, second = handles
        assert (first.outcome, len(engine.ongoing)) == ("running", 2)
        await first.settled()
        assert [type(event) for event in [event async for event in second]] == [Started, Failed]
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(asyncio.CancelledError):
            second.result()
    assert not engine.ongoing


@pytest.mark.slow
def test_who_blocks_when_a_loop_is_closed_learns_of_it() -> None:
    loop, told = asyncio.new_event_loop(), list[str]()

    async def start() -> TraceHandle[float]:
        return nap.start(100.0)

    def waits() -> None:
        try:
            handle.result()
        except asyncio.CancelledError:
            told.append("cancelled")

    handle = loop.run_until_complete(start())
    other = threading.Thread(target=waits)
    other.start()
    threading.Event().wait(0.05)  # it blocks by now, as a rule
    left = asyncio.all_tasks(loop)
    loop.close()
    other.join(LONG)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()  # type: ignore[union-attr]
    assert told == ["cancelled"]


def test_cancel_works_from_any_thread() -> None:
    h = nap.start(60.0)
    h.cancel()
    with pytest.raises(asyncio.CancelledError):
        h.result(LONG)


@simulated
async def test_a_cancelled_awaiter_does_not_cancel_the_run() -> None:
    h = nap.start(5.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(h, 1)
    assert h.outcome == "running"
    assert await h == 5.0


# ---------------------------------------------------------------- inside a call


@simulated
async def test_a_call_joins_what_was_started_in_it() -> None:
    sleeper, handles = Sleeper(), list[TraceHandle[Any]]()

    @module
    async def outer(x: float) -> str:
        handles.append(sleeper.start(x))
        return "value"

    with capture() as trace:
        assert await outer(3.0) == "value"
    assert sleeper.log == ["began", "cleaned", "done"]
    (inner,) = handles
    assert (inner.parent, inner.step_id) == (trace.runs[0], "outer/Sleeper")
    sleeper.log.clear()
    assert await (outer >> str.upper)(3.0) == "VALUE"
    assert sleeper.log == ["began", "cleaned", "done"]


@pytest.mark.parametrize("how", ["fails", "times out", "is cancelled", "is cancelled while it joins"])
@pytest.mark.parametrize("observed", [False, True])
@simulated
async def test_a_call_that_ends_without_a_value_cancels_what_was_started_in_it(how: str, observed: bool) -> None:
    sleeper = Sleeper()

    @module
    async def outer(x: str) -> str:
        sleeper.start(60.0)
        await asyncio.sleep(0)
        if how == "fails":
            await asyncio.sleep(1)
            raise KeyError(x)
        if "joins" not in how:
            await asyncio.sleep(60)
        return x

    step = outer.with_(timeout=2) if how == "times out" else outer
    task = asyncio.create_task(step("x"))
    if observed:
        with capture():
            task.cancel()
            await asyncio.wait([task])
            task = asyncio.create_task(step("x"))
    if "cancelled" in how:
        asyncio.get_running_loop().call_later(2, task.cancel)
    with pytest.raises((KeyError, DeadlineExceeded, asyncio.CancelledError)):
        await task
    assert sleeper.log == ["began", "cleaned"]
    sleepers = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert sleepers == []


@simulated
async def test_a_nested_call_that_fails_unobserved_joins_what_was_started_in_it() -> None:
    sleeper = Sleeper()

    @module
    async def fails(x: str) -> str:
        sleeper.start(60.0)
        await asyncio.sleep(1)
        raise KeyError(x)

    @module
    async def handles(x: str) -> list[str]:
        try:
            return [await fails(x)]
        except KeyError:
            return sleeper.log[:]

    assert await handles("x") == ["began", "cleaned"]


@simulated
async def test_a_second_cancel_does_not_cut_the_join_short() -> None:
    sleeper = Sleeper()

    @module
    async def outer(x: str) -> str:
        sleeper.start(60.0)
        await asyncio.sleep(60)
        return x

    task = asyncio.create_task(outer("x"))
    for seconds in (2, 2.5):
        asyncio.get_running_loop().call_later(seconds, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleeper.log == ["began", "cleaned"]


@simulated
async def test_a_call_that_is_dropped_cancels_what_was_started_in_it() -> None:
    sleeper = Sleeper()

    @module
    async def outer(x: str) -> str:
        sleeper.start(60.0)
        await asyncio.sleep(60)
        return x

    call = outer("x")
    call.send(None)
    await asyncio.sleep(0)
    call.close()
    await asyncio.sleep(2)
    assert sleeper.log == ["began", "cleaned"]


@simulated
async def test_a_run_may_be_started_in_a_worker_thread() -> None:
    @module
    def outer(x: str) -> str:
        return shout.start(x).result() + shout.start("b").result()

    assert await outer("a") == "AB"


@simulated
async def test_repeats_are_numbered_together_with_calls() -> None:
    @module
    async def outer(x: str) -> list[str]:
        await shout(x)
        first, second = shout.start(x), shout.start(x)
        await first
        return [first.step_id, second.step_id]

    assert await outer("a") == ["outer/shout~2", "outer/shout~3"]


# ---------------------------------------------------------------- the loss of a handle


@simulated
async def test_a_failure_that_nobody_asks_for_is_told_once_when_the_handle_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    h = fail.start(1)
    await h.settled()
    assert caplog.records == []
    del h
    gc.collect()
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
        ("mai", logging.ERROR, "run fail failed and nobody asked")
    ]
    assert "KeyError: 1" in caplog.text


@pytest.mark.parametrize("ask", ["await", "error", "chunks", "print"])
@simulated
async def test_a_failure_that_somebody_asked_for_is_not_told_again(ask: str, caplog: pytest.LogCaptureFixture) -> None:
    h = fail.start(1)
    await h.settled()
    if ask == "error":
        assert h.error is not None
    elif ask == "print":
        assert "KeyError" in str(h)
    else:
        with pytest.raises(KeyError):
            await (h if ask == "await" else anext(aiter(h.chunks())))
    del h
    gc.collect()
    assert caplog.records == []


@simulated
async def test_a_cancelled_run_and_a_running_one_whose_handle_is_dropped_say_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[float] = []

    @module
    async def slow(x: float) -> None:
        await asyncio.sleep(x)
        done.append(x)

    slow.start(1.0)
    slow.start(9.0).cancel()
    gc.collect()
    await asyncio.sleep(2)
    gc.collect()
    assert (done, caplog.records) == ([1.0], [])


@simulated
async def test_runs_leave_nothing_behind() -> None:
    async def some(n: int) -> None:
        for i in range(n):
            for step in (shout, fail):
                h: Any = step.start(str(i))
                try:
                    [event async for event in h]
                    await h
                except KeyError:
                    pass
            nap.start(5.0).cancel()
        await asyncio.sleep(1)

    known = set(LocalEngine.default().ongoing)
    await some(10)
    gc.collect()
    before = len(gc.get_objects())
    await some(100)
    gc.collect()
    assert len(gc.get_objects()) - before < 30
    assert LocalEngine.default().ongoing == known


# ---------------------------------------------------------------- detached work


@simulated
async def test_a_detached_call_gives_its_handle_at_once_and_goes_on() -> None:
    sleeper = Sleeper()

    @module
    async def outer(x: float) -> Any:
        with Context.scope(timeout=1):
            return await sleeper.with_(detached=True)(x)

    top = outer.start(5.0)
    inner: Any = await top
    assert (inner.outcome, inner.parent) == ("running", top)
    assert inner.attributes == {"mai.detached": True}
    await top.settled()
    assert sleeper.log == ["began", "cleaned", "done"]
    assert await inner == 5.0


@simulated
async def test_detached_work_has_its_own_timeouts_only() -> None:
    late: Any = await nap.with_(detached=True, timeout=2)(5.0)
    with pytest.raises(DeadlineExceeded):
        await late


@simulated
async def test_settled_waits_for_detached_work_of_all_depths() -> None:
    @module
    async def outer(x: float) -> Any:
        return await middle.with_(detached=True)(x)

    @module
    async def middle(x: float) -> Any:
        return await nap.with_(detached=True)(x)

    h = outer.start(5.0)
    await h.settled()
    assert [(each.name, each.outcome) for each in h.walk()] == [("outer", "ok"), ("middle", "ok"), ("nap", "ok")]


@simulated
async def test_leaving_the_engine_waits_for_detached_and_started_work() -> None:
    sleeper = Sleeper()
    async with LocalEngine() as engine:
        await sleeper.with_(detached=True)(5.0)
        started = nap.start(3.0)
        assert len(engine.ongoing) == 2
    assert sleeper.log == ["began", "cleaned", "done"]
    assert started.ok
    assert engine.ongoing == set()


@simulated
async def test_an_error_out_of_the_block_of_an_engine_cancels_what_was_started_and_joins_detached_work() -> None:
    sleeper = Sleeper()
    handles: list[TraceHandle[Any]] = []

    async def main() -> None:
        async with LocalEngine():
            await sleeper.with_(detached=True)(5.0)
            handles.append(nap.start(60.0))
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await main()
    assert sleeper.log == ["began", "cleaned", "done"]
    assert handles[0].outcome == "cancelled"


@simulated
async def test_a_cancel_of_an_engine_that_waits_for_detached_work_cancels_that() -> None:
    sleeper = Sleeper()

    async def main() -> None:
        async with LocalEngine():
            await sleeper.with_(detached=True)(60.0)

    task = asyncio.create_task(main())
    asyncio.get_running_loop().call_later(3, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleeper.log == ["began", "cleaned"]


@simulated
async def test_leaving_the_engine_joins_what_is_started_meanwhile() -> None:
    handles = list[TraceHandle[Any]]()

    class Growing(Control):
        def __getattribute__(self, name: str) -> Any:
            if name == "apart":  # it is looked at; at that time a thread starts another run
                engine.ongoing.discard(self)
                handles.append(inside.run(nap.start, 1.0))
            return super().__getattribute__(name)

    async with LocalEngine() as engine:
        inside = copy_context()
        engine.ongoing.add(Growing(asyncio.get_running_loop(), None, apart=False))
        for control in engine.ongoing:
            control.end()
    assert [h.outcome for h in handles] == ["ok"]


@simulated
async def test_a_detached_branch_takes_no_place_under_a_limit() -> None:
    later = nap.with_(detached=True)
    async with LocalEngine():
        handles: Any = await Parallel(later, later, nap.with_(name="last"), limit=1)(2.0)
        assert [getattr(h, "outcome", h) for h in handles] == ["ok", "ok", 2.0]


def test_a_detached_step_is_wired_as_what_it_gives() -> None:
    later = shout.with_(detached=True)
    assert later.Out is TraceHandle
    assert later.schema() == shout.schema()
    with pytest.raises(TypeError, match="cannot connect"):
        later >> shout


def test_detached_work_in_the_portal_loop_has_a_little_time_when_the_interpreter_ends() -> None:
    done = python(
        """
import asyncio
from mai import module
@module(detached=True)
async def save(x: int) -> None:
    await asyncio.sleep(0.2)
    print("saved", x)
save.run(1)
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("saved 1\n", "", 0)


@simulated
async def test_a_cancel_that_comes_while_what_a_failed_call_has_started_is_joined_is_not_lost() -> None:
    went_on: list[str] = []

    @module
    async def cleans(x: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)

    @module
    async def leaves(x: int) -> None:
        cleans.start(x)
        await asyncio.sleep(1)
        raise ValueError(x)

    @module
    async def catches(x: int) -> None:
        with suppress(ValueError):
            await leaves(x)
        went_on.append("past the failure")

    task = asyncio.ensure_future(catches(1))
    await asyncio.sleep(1.5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert went_on == []
