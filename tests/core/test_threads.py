"""Worker threads: daemons of an engine, with the caller's context, that are abandoned and never joined."""

import asyncio
import contextvars
import threading
import types
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from mai import Context, DeadlineExceeded, LocalEngine, Module, Parallel, TooManyAbandoned, capture, module
from mai.core.clock import clock
from mai.core.threads import Door
from mai.testing import explore
from mai.testing.loop import START
from tests.support import loop_of, python, simulated, still

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")
LONG = 10.0  # real seconds that a thread may take on a busy machine


class Gate:
    """A plain step that stands still until it is opened, and tells the loop when it stands."""

    def __init__(self) -> None:
        self.open, self.loop, self.stands = threading.Event(), asyncio.get_running_loop(), asyncio.Semaphore(0)
        self.passed = 0

    def __call__(self, x: Any) -> Any:
        self.loop.call_soon_threadsafe(self.stands.release)
        assert self.open.wait(LONG)
        self.passed += 1
        return x

    async def wait_standing(self, count: int = 1) -> None:
        for _ in range(count):
            await self.stands.acquire()


async def wait_until(true: Callable[[], bool]) -> None:
    """Let threads work until something is true."""
    for _ in range(100_000):
        if true():
            return
        await asyncio.to_thread(lambda: None)
    raise AssertionError("it never became true")


@module
def thread(x: Any) -> threading.Thread:
    return threading.current_thread()


# ---------------------------------------------------------------- workers


@simulated
async def test_workers_are_daemons_with_a_name() -> None:
    async with LocalEngine(max_threads=1):
        found = await thread(1)
    assert found.daemon
    assert found.name.startswith("mai-worker")


@simulated
async def test_an_idle_worker_is_used_again() -> None:
    async with LocalEngine(max_threads=4):
        first = await thread(1)
        assert [await thread(1) for _ in range(5)] == [first] * 5


@simulated
async def test_no_more_than_max_threads_run_at_once_and_the_rest_wait_in_order() -> None:
    lock, running, most, order = threading.Lock(), 0, 0, []

    @module
    def count(i: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            order.append(i)
        barrier.wait(LONG)
        with lock:
            running -= 1
        return i

    barrier = threading.Barrier(2)
    async with LocalEngine(max_threads=2):
        assert await asyncio.gather(*[count(i) for i in range(10)]) == list(range(10))
    assert most == 2
    assert [i // 2 for i in order] == [i // 2 for i in range(10)]


@simulated
async def test_threads_start_only_when_needed() -> None:
    engine = LocalEngine(max_threads=8)
    async with engine:
        assert engine.threads.started == 0
        await thread(1)
        await thread(1)
        assert engine.threads.started == 1


@simulated
async def test_idle_workers_end_with_their_engine() -> None:
    async with LocalEngine(max_threads=3):
        workers = set(await asyncio.gather(*[thread(i) for i in range(3)]))
    await wait_until(lambda: not any(worker.is_alive() for worker in workers))


@simulated
async def test_a_busy_worker_ends_after_its_job_when_the_engine_was_left() -> None:
    gate = Gate()
    async with LocalEngine(max_threads=1):
        task = asyncio.create_task(module(gate)(1))
        await gate.wait_standing()
        worker = next(t for t in threading.enumerate() if t.name.startswith("mai-worker") and t.is_alive())
        queued = asyncio.create_task(thread(1))
        await asyncio.sleep(0)
    gate.open.set()
    assert await task == 1
    assert (await queued).name.startswith("mai-worker")
    assert worker.daemon


@simulated
async def test_an_engine_that_was_left_can_be_entered_again() -> None:
    engine = LocalEngine(max_threads=1)
    for _ in range(2):
        async with engine:
            assert (await thread(1)).daemon


# ---------------------------------------------------------------- context and results


@simulated
async def test_a_thread_sees_the_callers_context_and_changes_none() -> None:
    @module
    def look(x: int) -> list[Any]:
        before = mark.get()
        mark.set("thread")
        return [before, Context.get().metadata["user"], Context.get().step_id]

    mark.set("mine")
    with Context.scope(user="ann"):
        assert await look(1) == ["mine", "ann", "look"]
        assert await (look & look)(1) == (["mine", "ann", "Parallel[0]/look"], ["mine", "ann", "Parallel[1]/look"])
    assert mark.get() == "mine"


@simulated
async def test_errors_of_a_thread_keep_their_identity_and_traceback() -> None:
    error = KeyError("x")

    @module
    def fails(x: int) -> int:
        raise error

    with pytest.raises(KeyError) as caught:
        await fails(1)
    assert caught.value is error
    assert any(entry.name == "fails" for entry in caught.traceback)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@simulated
async def test_an_exit_in_a_thread_reaches_the_caller(kind: type[BaseException]) -> None:
    @module
    def exits(x: int) -> int:
        raise kind("from the thread")

    async def main() -> None:
        with pytest.raises(kind, match="from the thread"):
            await exits(1)

    await main()


@simulated
async def test_a_stop_iteration_in_a_thread_becomes_a_runtime_error_with_its_cause() -> None:
    @module
    def ends(x: int) -> int:
        raise StopIteration(x)

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await ends(1)
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_a_caller_that_begins_to_wait_when_the_thread_is_done_goes_on() -> None:
    call = thread(1).__await__()
    job: Any = next(call)
    await wait_until(lambda: job.state == "done")

    @types.coroutine
    def late() -> Any:
        yield job
        return (yield from call)

    assert (await late()).name.startswith("mai-worker")


async def with_two_results_ready(first: Callable[[list[Any]], Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks of ``first(tasks)`` and of two plain steps; each goes on with a result, two of them at once."""
    stands, open_ = threading.Event(), threading.Event()

    @module
    def third(x: int) -> int:
        stands.set()
        assert open_.wait(LONG)
        return x

    tasks = list[asyncio.Task[Any]]()
    async with LocalEngine(max_threads=1):
        tasks += [asyncio.ensure_future(work) for work in (first(tasks), Nested()(0), third(3))]
        await asyncio.sleep(0)
        assert stands.wait(LONG)  # the loop stands still meanwhile
        open_.set()
        await asyncio.wait(tasks)
    return tasks


def test_a_caller_that_ends_the_loop_does_not_hold_up_the_others() -> None:
    async def exits(tasks: object) -> None:
        await thread(1)
        raise SystemExit("now")

    loop = asyncio.new_event_loop()
    whole = loop.create_task(with_two_results_ready(exits))
    with pytest.raises(SystemExit, match="now"):
        loop.run_until_complete(whole)
    first, *others = loop.run_until_complete(whole)
    assert isinstance(first.exception(), SystemExit)
    assert [len(others[0].result()), others[1].result()] == [1, 3]
    loop.close()


async def test_a_caller_that_runs_the_loop_inside_does_not_hold_up_the_others() -> None:
    async def nests(tasks: list[asyncio.Task[Any]]) -> bool:
        await thread(1)
        loop, task, own = asyncio.get_running_loop(), asyncio.current_task(), vars(asyncio.tasks)
        own["_leave_task"](loop, task)  # as nest_asyncio does
        for _ in range(10):
            loop.call_soon(int)
            loop._run_once()  # type: ignore[attr-defined]
        own["_enter_task"](loop, task)
        return tasks[1].done()

    tasks = await with_two_results_ready(nests)
    assert tasks[0].result()


@simulated
async def test_a_cancel_of_a_plain_step_keeps_its_message() -> None:
    gate = Gate()
    async with LocalEngine(max_threads=1):
        task = asyncio.create_task(module(gate)(1))
        await gate.wait_standing()
        task.cancel("enough")
        task.cancel("more than enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        gate.open.set()


@pytest.mark.slow
@simulated
async def test_a_thousand_results_arrive() -> None:
    @module
    def double(x: int) -> int:
        return 2 * x

    async with LocalEngine(max_threads=4):
        assert await asyncio.gather(*[double(i) for i in range(1000)]) == [2 * i for i in range(1000)]


def test_threads_serve_several_loops_one_after_the_other() -> None:
    engine = LocalEngine(max_threads=2)

    async def main() -> threading.Thread:
        async with engine:
            return await thread(1)

    workers = [asyncio.run(main()) for _ in range(3)]
    assert all(worker.daemon for worker in workers)


def test_threads_serve_several_loops_at_once() -> None:
    found: SimpleQueue[list[int]] = SimpleQueue()

    @module
    def double(x: int) -> int:
        return 2 * x

    def loop() -> None:
        async def main() -> list[int]:
            return await asyncio.gather(*[double(i) for i in range(50)])

        found.put(asyncio.run(main()))

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(LONG)
    assert [found.get(timeout=LONG) for _ in threads] == [[2 * i for i in range(50)]] * 4


# ---------------------------------------------------------------- abandoned


@simulated
async def test_a_blocked_thread_is_abandoned_at_the_deadline_and_its_result_dropped() -> None:
    gate, loop = Gate(), loop_of()
    loop.freeze()

    async def thaw() -> None:
        await gate.wait_standing()
        loop.thaw()

    thawing = asyncio.create_task(thaw())
    engine = LocalEngine(max_threads=1)
    async with engine:
        before = loop.time()
        with capture() as trace, pytest.raises(DeadlineExceeded):
            await module(gate).with_(timeout=2, name="stuck")(1)
        assert loop.time() - before == pytest.approx(2)
        assert engine.threads.abandoned == 1
        run = trace.runs[0]
        assert (run.outcome, run.attributes["mai.thread.abandoned"]) == ("timeout", True)
        assert await thread(1) is not None  # an abandoned thread does not count against the limit
        gate.open.set()
        await wait_until(lambda: engine.threads.abandoned == 0)
        assert gate.passed == 1
        await thawing


@simulated
async def test_a_result_that_comes_with_the_deadline_comes_too_late() -> None:
    loop = loop_of()

    @module(timeout=2)
    def late(x: int) -> int:
        loop.now += 2
        return x

    with still(), capture() as trace, pytest.raises(DeadlineExceeded):
        await late(1)
    assert "mai.thread.abandoned" not in trace.runs[0].attributes


@simulated
async def test_a_cancelled_caller_is_free_at_once() -> None:
    gate = Gate()
    async with LocalEngine(max_threads=1):
        task = asyncio.create_task(module(gate)(1))
        await gate.wait_standing()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.passed == 0
        gate.open.set()


def test_a_plain_step_whose_caller_is_free_before_its_thread_comes_to_it_does_not_begin() -> None:
    began, free = list[int](), list[int]()

    @module
    def plain(x: int) -> None:
        began.append(x)

    async def main() -> None:
        began.clear()
        free.clear()
        try:
            await plain(1)
        finally:
            free.append(len(began))

    def look(trial: object) -> None:
        assert free == [] or free == [len(began)]

    assert explore(main, seeds=10, at_every_step="cancel", check=look).runs > 30


@pytest.mark.parametrize("by", ["timeout", "cancel"])
def test_the_call_that_an_abandoned_thread_waits_for_is_cancelled_with_it(by: str) -> None:
    times: list[float] = []

    @module
    async def long(x: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            times.append(clock.now() - START)

    @module
    def waits(x: int) -> None:
        try:
            long.run(x)
        finally:
            times.append(clock.now() - START)

    async def main() -> None:
        task = asyncio.ensure_future(waits.with_(timeout=10 if by == "timeout" else None)(1))
        if by == "cancel":
            await asyncio.wait([task], timeout=10)
            task.cancel()
        with pytest.raises(DeadlineExceeded if by == "timeout" else asyncio.CancelledError):
            await task
        assert clock.now() - START == pytest.approx(10)

    seen = explore(main, seeds=20)
    assert len(times) == 2 * (seen.runs + 1)
    assert times == [pytest.approx(11, abs=0.02)] * len(times)


@pytest.mark.parametrize("door", ["run", "start"])
@simulated
async def test_an_abandoned_thread_begins_no_call_any_more(door: str) -> None:
    gate, ran, ended = Gate(), list[int](), list[type]()

    @module
    async def effect(x: int) -> None:
        ran.append(x)

    @module
    def goes_on(x: int) -> None:
        gate(x)
        try:
            getattr(effect, door)(x)
        except BaseException as error:
            ended.append(type(error))
            raise

    async with LocalEngine(max_threads=1) as engine:
        task = asyncio.create_task(goes_on(1))
        await gate.wait_standing()
        task.cancel()
        await asyncio.wait([task])
        gate.open.set()
        await wait_until(lambda: not engine.threads.abandoned)
    assert (ran, ended) == ([], [asyncio.CancelledError])


@simulated
async def test_a_plain_step_cancelled_while_it_is_queued_never_runs() -> None:
    gate, ran = Gate(), []

    @module
    def record(x: int) -> int:
        ran.append(x)
        return x

    async with LocalEngine(max_threads=1):
        with capture() as trace:
            blocking = asyncio.create_task(module(gate)(1))
            await gate.wait_standing()
            queued = asyncio.create_task(record(1))
            await asyncio.sleep(0)
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued
        gate.open.set()
        await blocking
        assert await record(2) == 2
    assert ran == [2]
    assert "mai.thread.abandoned" not in trace.runs[1].attributes


@simulated
async def test_a_result_that_is_ready_when_the_cancel_comes_is_not_an_abandoned_thread() -> None:
    done = threading.Event()

    @module
    def quick(x: int) -> int:
        done.set()
        return x

    engine = LocalEngine(max_threads=1)
    async with engine:
        task = asyncio.create_task(quick(1))
        await asyncio.sleep(0)
        assert done.wait(LONG)  # blocks the loop, so the result cannot be delivered yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: engine.threads.abandoned == 0)
        assert await thread(1) is not None


@simulated
async def test_an_error_of_an_abandoned_thread_is_dropped_in_silence() -> None:
    gate = Gate()

    def fails(x: int) -> int:
        gate(x)
        raise ValueError("nobody listens")

    engine = LocalEngine(max_threads=1)
    async with engine:
        task = asyncio.create_task(module(fails)(1))
        await gate.wait_standing()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        await wait_until(lambda: engine.threads.abandoned == 0)


def test_a_thread_that_ends_after_its_loop_is_closed_does_no_harm() -> None:
    engine, open_, ended = LocalEngine(max_threads=1), threading.Event(), threading.Event()

    async def main() -> None:
        loop, stands = asyncio.get_running_loop(), asyncio.Event()

        def blocks(x: int) -> int:
            loop.call_soon_threadsafe(stands.set)
            assert open_.wait(LONG)
            ended.set()
            return x

        async with engine:
            task = asyncio.create_task(module(blocks)(1))
            await stands.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    open_.set()
    assert ended.wait(LONG)

    async def again() -> threading.Thread:
        async with engine:
            return await thread(1)

    assert asyncio.run(again()).daemon


# ---------------------------------------------------------------- nested


class Nested(Module):
    """A plain step that calls itself through `run`, from its worker thread."""

    def forward(self, depth: int) -> list[str]:
        here = [f"{threading.current_thread().name}"]
        return here if depth == 0 else here + self.run(depth - 1)


@simulated
async def test_nested_plain_steps_do_not_deadlock_with_one_thread() -> None:
    async with LocalEngine(max_threads=1):
        names = await Nested()(5)
    assert len(names) == 6
    assert len(set(names)) == 1  # the blocked thread serves the nested calls itself


@simulated
async def test_many_nested_plain_steps_at_once_do_not_deadlock() -> None:
    async with LocalEngine(max_threads=2):
        results = await asyncio.gather(*[Nested()(3) for _ in range(8)])
    assert {len(names) for names in results} == {4}


@simulated
async def test_a_composite_run_from_a_thread_may_need_more_threads_than_there_are() -> None:
    @module
    def add(x: int) -> int:
        return x + 1

    @module
    def outer(x: int) -> Any:
        return Parallel(add, add >> add, add & add).run(x)

    async with LocalEngine(max_threads=1):
        assert await outer(1) == (2, 3, (2, 2))


@simulated
async def test_a_nested_error_comes_through_and_names_the_path() -> None:
    @module
    def fails(x: int) -> int:
        raise KeyError(x)

    @module
    def outer(x: int) -> int:
        return fails.run(x)

    async with LocalEngine(max_threads=1):
        with pytest.raises(KeyError) as caught:
            await outer(1)
    assert caught.value.__notes__[0].startswith("mai: in outer/fails")


@simulated
async def test_a_nested_call_runs_on_the_loop_that_waits_for_the_thread() -> None:
    class Loop(Module):
        async def forward(self, x: int) -> Any:
            return asyncio.get_running_loop()

    @module
    def outer(x: int) -> Any:
        return Loop().run(x)

    assert await outer(1) is asyncio.get_running_loop()


@simulated
async def test_a_nested_call_is_cancelled_with_its_caller() -> None:
    ended, loop = asyncio.Event(), loop_of()

    @module
    async def waits(x: int) -> int:
        try:
            loop.thaw()
            await asyncio.sleep(50)
        finally:
            ended.set()
        return x

    @module
    def outer(x: int) -> int:
        return waits.run(x)

    loop.freeze()
    with pytest.raises(DeadlineExceeded):
        await outer.with_(timeout=2)(1)
    await ended.wait()


@simulated
async def test_a_nested_job_that_is_cancelled_while_it_waits_for_the_blocked_thread_never_runs() -> None:
    gate, ran = Gate(), list[int]()

    @module
    def record(x: int) -> int:
        ran.append(x)
        return x

    @module
    async def impatient(x: int) -> int:
        blocks = asyncio.create_task(module(gate)(x))
        await gate.wait_standing()  # in the thread that waits for this very call
        queued = asyncio.create_task(record(x))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.wait([queued])
        gate.open.set()
        return await blocks

    @module
    def outer(x: int) -> int:
        return impatient.run(x)

    async with LocalEngine(max_threads=1):
        assert await outer(1) == 1
        assert await record(2) == 2
    assert ran == [2]


@simulated
async def test_a_task_that_outlives_a_nested_call_still_gets_its_threads() -> None:
    gate, go, left = Gate(), asyncio.Event(), list[asyncio.Task[threading.Thread]]()

    async def behind() -> threading.Thread:
        await go.wait()
        return await thread(1)

    @module
    async def leaves(x: int) -> int:
        left.append(asyncio.create_task(behind()))
        return x

    @module
    def outer(x: int) -> int:
        return leaves.run(x)

    async with LocalEngine(max_threads=1):
        assert await outer(1) == 1
        blocks = asyncio.create_task(module(gate)(1))
        await gate.wait_standing()
        go.set()  # now the only thread is busy, and nobody is behind the door of `outer` any more
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.open.set()
        assert await blocks == 1
        assert (await left[0]).daemon


def test_a_door_runs_what_came_while_it_was_being_shut() -> None:
    door, ran = Door(), list[int]()
    for work in (lambda: ran.append(1), None, lambda: ran.append(2), None):
        door.put(work)
    door.serve()
    assert ran == [1, 2]


def test_a_nested_job_whose_caller_gave_up_does_not_run() -> None:
    done = python(
        """
import asyncio, threading
from mai import LocalEngine, module
ran = []
@module
def record(x: int) -> int:
    ran.append(x)
    return x
@module
async def impatient(x: int) -> int:
    task = asyncio.create_task(record(x))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    return x
@module
def outer(x: int) -> int:
    gate.wait(10)
    return impatient.run(x)
gate = threading.Event()
async def main():
    async with LocalEngine(max_threads=1):
        task = asyncio.create_task(outer(1))
        await asyncio.sleep(0)
        gate.set()
        return await task
print(asyncio.run(main()), ran in ([], [1]))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 True\n", "")


def test_the_interpreter_ends_though_a_timed_out_thread_still_blocks() -> None:
    done = python(
        """
import threading
from mai import DeadlineExceeded, module
@module
def stuck(x: int) -> int:
    threading.Event().wait()
    return x
try:
    stuck.with_(timeout=0.05).run(1)
except DeadlineExceeded:
    print("free")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "free\n", "")


@pytest.mark.slow
async def test_a_nested_job_that_timed_out_costs_the_pool_no_thread() -> None:
    hold = threading.Event()

    @module
    def slow(x: int) -> int:
        assert hold.wait(LONG)
        return x

    @module
    def quick(x: int) -> int:
        return x + 1

    @module
    def outer(x: int) -> int:
        with pytest.raises(DeadlineExceeded):
            slow.with_(timeout=1.0).run(x)  # its thread begins within that
        return quick.run(x)

    async with LocalEngine(max_threads=1) as engine:
        task = asyncio.create_task(outer(1))
        await wait_until(lambda: engine.threads.abandoned == 1)
        assert await quick(10) == 11
        hold.set()
        assert await asyncio.wait_for(task, LONG) == 2


@pytest.mark.slow
def test_a_thread_that_is_no_worker_serves_no_jobs_and_is_free_at_the_deadline() -> None:
    done = python(
        """
import threading
from mai import DeadlineExceeded, Parallel, module
@module
def blocks(x: int) -> int:
    threading.Event().wait()
    return x
try:
    Parallel(*[blocks] * 70).with_(timeout=0.5).run(1)
except DeadlineExceeded:
    print("free")
"""
    )
    assert (done.returncode, done.stdout) == (0, "free\n")


# ---------------------------------------------------------------- too many abandoned


@simulated
async def test_with_too_many_abandoned_threads_a_step_is_refused_until_one_comes_back() -> None:
    gate, engine = Gate(), LocalEngine(max_threads=2, max_abandoned=2)
    async with engine:
        for count in (1, 2):
            task = asyncio.create_task(module(gate)(1))
            await gate.wait_standing()
            task.cancel()
            await asyncio.wait([task])
            assert engine.threads.abandoned == count
        with pytest.raises(TooManyAbandoned) as caught:
            await thread(1)
        assert (caught.value.count, caught.value.limit) == (2, 2)
        assert str(caught.value) == (
            "No thread for a step: 2 threads still hang after a timeout or a cancel (max_abandoned=2); "
            "give what blocks there a timeout of its own"
        )
        assert engine.threads.started == 2
        gate.open.set()
        await wait_until(lambda: engine.threads.abandoned < 2)
        assert (await thread(1)).daemon


@simulated
async def test_a_cancel_of_a_queued_step_abandons_no_thread() -> None:
    gate, engine = Gate(), LocalEngine(max_threads=1, max_abandoned=1)
    async with engine:
        busy = asyncio.create_task(module(gate)(1))
        await gate.wait_standing()
        for _ in range(3):
            queued = asyncio.create_task(thread(1))
            await asyncio.sleep(0)
            queued.cancel()
            await asyncio.wait([queued])
        gate.open.set()
        assert await busy == 1
        assert (await thread(1)).daemon


@simulated
async def test_an_engine_that_is_entered_again_keeps_its_idle_threads() -> None:
    engine = LocalEngine(max_threads=1)
    async with engine:
        before = await thread(1)
    async with engine:
        first = await thread(1)
        await wait_until(lambda: not before.is_alive() or before is first)
        assert await thread(1) is first
