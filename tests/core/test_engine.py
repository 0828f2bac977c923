"""The local engine: the door for sync code, the default engine, the verbs, forks and interrupts."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import mai
from mai import ConfigError, Context, DeadlineExceeded, LocalEngine, Module, WouldDeadlock, capture, module
from mai.core.engine import current_run
from tests.support import loop_of, python, refused, refused_value, simulated

LONG = 20.0


@module
async def shout(text: str) -> str:
    return text.upper()


class Loop(Module):
    async def forward(self, x: Any) -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()


@module
def thread(x: Any) -> threading.Thread:
    return threading.current_thread()


# ---------------------------------------------------------------- run, from sync code


def test_run_gives_the_value_as_often_as_needed_on_one_loop() -> None:
    loops = {Loop().run(1) for _ in range(3)}
    assert len(loops) == 1
    assert shout.run("a") == "A"
    assert (shout >> str.lower).run("B") == "b"


def test_run_takes_forwards_arguments() -> None:
    @module
    async def repeat(text: str, times: int = 2) -> str:
        return text * times

    assert repeat.run("a", times=3) == "aaa"
    with pytest.raises(ConfigError, match="no parameter 'tines'; did you mean 'times'"):
        repeat.run("a", tines=3)  # type: ignore[call-arg]


def test_run_raises_what_the_call_raised() -> None:
    @module
    async def fails(x: int) -> int:
        raise KeyError(x)

    with pytest.raises(KeyError) as caught:
        fails.run(1)
    assert caught.value.__notes__ == ["mai: in fails"]


def test_run_sees_the_callers_context_and_changes_none() -> None:
    class Look(Module):
        async def forward(self, x: int) -> Any:
            Context.set(user="changed")
            return Context.get()

    with Context.scope(user="ann", timeout=60):
        outer = Context.get()
        inner = Look().run(1)
        assert Context.get() == outer
        again = Look().run(1)
    assert inner.deadline == again.deadline == outer.deadline
    assert inner.metadata == again.metadata == {"user": "changed"}


def test_run_keeps_a_deadline() -> None:
    @module
    async def for_ever(x: int) -> int:
        await asyncio.Event().wait()
        return x

    with pytest.raises(DeadlineExceeded):
        for_ever.with_(timeout=0.01).run(1)
    with Context.scope(timeout=0.01), pytest.raises(DeadlineExceeded):
        for_ever.run(1)


def test_run_works_in_a_users_own_thread() -> None:
    found: SimpleQueue[str] = SimpleQueue()
    worker = threading.Thread(target=lambda: found.put(shout.run("a")))
    worker.start()
    worker.join(LONG)
    assert found.get(timeout=LONG) == "A"


@simulated
async def test_run_in_the_thread_of_a_running_loop_is_refused_and_says_await() -> None:
    message = "run() was called in the thread of a running event loop: write 'await module(x)' instead"
    with refused(WouldDeadlock, message):
        shout.run("a")

    @module
    async def around(text: str) -> str:
        return shout.run(text)

    with pytest.raises(WouldDeadlock, match="await module"):
        await around("a")


@simulated
async def test_run_in_an_inline_step_is_refused_and_in_a_worker_thread_works() -> None:
    @module
    def around(text: str) -> str:
        return shout.run(text)

    assert await around("a") == "A"
    with pytest.raises(WouldDeadlock):
        await around.with_(inline=True)("a")


def test_a_run_inside_a_worker_thread_of_the_portal_uses_the_portal() -> None:
    @module
    def around(x: int) -> Any:
        return Loop().run(x)

    assert around.run(1) is Loop().run(1)


def test_a_call_that_cancels_itself_raises_that() -> None:
    done = python(
        """
from mai import module
@module
async def exits(x: int) -> int:
    raise asyncio.CancelledError
import asyncio
try:
    exits.run(1)
except asyncio.CancelledError:
    print("cancelled")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled\n", "")


def test_a_ctrl_c_in_a_run_is_raised_after_the_cleanup() -> None:
    ended: list[str] = []

    @module
    async def waits(x: int) -> int:
        main = threading.main_thread().ident  # blocked in `run`
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("clean")
        return x

    with pytest.raises(KeyboardInterrupt):
        waits.run(1)
    assert ended == ["clean"]
    assert shout.run("a") == "A"


@pytest.mark.parametrize("how", ["async def", "def"])
def test_an_exit_in_a_step_reaches_the_caller_of_run_and_the_next_run_works(how: str) -> None:
    done = python(
        f"""
from mai import module
@module
{how} leave(kind: type) -> int:
    raise kind(3)
@module
async def fine(x: object) -> object:
    return x
for line in (leave, leave >> fine, leave & fine, fine & leave):
    for kind in (SystemExit, KeyboardInterrupt):
        try:
            line.run(kind)
        except kind as error:
            print(*error.args, fine.run(2))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 2\n" * 8, "")


# ---------------------------------------------------------------- choosing an engine


@pytest.mark.parametrize("threads", [0, -1, 1.5, "4", None, True])
def test_max_threads_is_a_number_of_threads(threads: Any) -> None:
    with refused_value("LocalEngine", "max_threads", threads):
        LocalEngine(max_threads=threads)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "4", None, True])
def test_max_abandoned_is_a_number_of_threads(threads: Any) -> None:
    with refused_value("LocalEngine", "max_abandoned", threads):
        LocalEngine(max_abandoned=threads)


@simulated
async def test_an_engine_serves_the_calls_inside_its_block_only() -> None:
    engine = LocalEngine(max_threads=1)
    before = await thread(1)
    async with engine as entered:
        assert entered is engine
        inside = await thread(1)
        with Context.scope(user="ann"):
            assert await (thread >> thread)(1) is inside
        async with LocalEngine(max_threads=1):
            assert await thread(1) not in (inside, before)
        assert await thread(1) is inside
    assert await thread(1) is not inside
    assert engine.threads.abandoned == 0


def test_an_engine_serves_what_its_threads_run() -> None:
    @module
    def outer(x: int) -> list[Any]:
        return [threading.current_thread(), thread.run(x)]

    async def main() -> list[Any]:
        async with LocalEngine(max_threads=1):
            return await outer(1)

    first, second = asyncio.run(main())
    assert first is second


@simulated
async def test_an_engine_may_be_entered_more_than_once() -> None:
    engine = LocalEngine(max_threads=1)
    async with engine:
        async with engine:
            first = await thread(1)
        assert await thread(1) is first


@simulated
async def test_an_engine_entered_by_two_tasks_serves_each_until_it_leaves() -> None:
    engine, gate = LocalEngine(max_threads=1), asyncio.Event()

    async def first() -> tuple[Any, Any, Any]:
        async with engine:
            one = await thread(1)
            await gate.wait()
        return one, await thread(1), await thread(2)

    async def second() -> tuple[Any, Any, Any]:
        async with engine:
            gate.set()
            while not leaves.done():
                await asyncio.sleep(0)
            one = await thread(1)
        return one, await thread(1), await thread(2)

    leaves = asyncio.create_task(first())
    await asyncio.sleep(0)
    for one, after, again in await asyncio.gather(leaves, asyncio.create_task(second())):
        assert one not in (after, again)  # outside, the default engine serves
    assert engine.threads.closed


@simulated
async def test_engines_are_left_in_the_opposite_order_in_which_they_were_entered() -> None:
    outer, inner = LocalEngine(max_threads=1), LocalEngine(max_threads=1)
    await outer.__aenter__()
    await inner.__aenter__()
    with pytest.raises(ConfigError, match=r"^LocalEngine: another engine was entered inside this block; leave that"):
        await outer.__aexit__(None, None, None)
    worker = await thread(1)
    await inner.__aexit__(None, None, None)
    assert await thread(1) is not worker
    await outer.__aexit__(None, None, None)
    assert inner.threads.closed
    assert outer.threads.closed


@simulated
async def test_an_engine_left_in_another_task_than_it_was_entered_in_ends_its_threads() -> None:
    engine = LocalEngine(max_threads=1)

    async def enter() -> Any:
        await engine.__aenter__()
        return await thread(1)

    worker = await asyncio.create_task(enter())
    await engine.__aexit__(None, None, None)
    await asyncio.to_thread(worker.join, LONG)
    assert not worker.is_alive()


@simulated
async def test_an_engine_cannot_be_changed_inside_a_run() -> None:
    @module
    async def changes(x: int) -> int:
        async with LocalEngine():
            return x

    with pytest.raises(ConfigError, match=r"^LocalEngine: a run goes on here already, and keeps its engine"):
        await changes(1)


@simulated
async def test_a_task_that_outlives_the_block_keeps_its_engine() -> None:
    gate = asyncio.Event()

    @module
    async def later(x: int) -> Any:
        await gate.wait()
        return await thread(x)

    async with LocalEngine(max_threads=1):
        task = asyncio.create_task(later(1))
        await asyncio.sleep(0)
    gate.set()
    assert (await task).name.startswith("mai-worker")


# ---------------------------------------------------------------- the verbs


class Verbs(Module):
    """Asks its run for what engines answer."""

    def __init__(self, use: Any) -> None:
        self.use = use

    async def forward(self, x: Any) -> Any:
        return await self.use(current_run(), Context.get().step_id, x)


@simulated
async def test_a_value_is_made_and_not_recorded() -> None:
    async def use(run: Any, path: str, x: int) -> Any:
        return [await run.value(path, lambda: x), run.records, run.replaying, run.durable]

    assert await Verbs(use)(1) == [1, False, False, False]


@simulated
async def test_a_sleep_takes_its_time() -> None:
    began = loop_of().time()
    await Verbs(lambda run, path, x: run.sleep(path, x))(3)
    assert loop_of().time() == began + 3


async def test_all_that_ask_in_one_call_find_one_run_id_and_the_next_call_has_another() -> None:
    meet = threading.Barrier(4)

    @module
    def asks(x: int) -> str | None:
        meet.wait(LONG)  # none knows it yet
        return Context.get().run_id

    @module
    async def outer(x: int) -> list[str | None]:
        with Context.scope(user="ann"):
            four = await (asks & asks & asks & asks)(x)
        return [*four, Context.get().run_id]

    async def inside(x: int) -> str | None:
        with Context.scope(user="ann"):  # the first to ask, and in a scope
            first = Context.get().run_id
        return first if first == Context.get().run_id else None

    runs = [{*await outer(1)}, {*await outer(1)}, {await module(inside)(1)}, {await module(inside)(1)}]
    assert [len(ids) for ids in runs] == [1, 1, 1, 1]
    assert len({*itertools.chain(*runs)} - {None}) == 4


# ---------------------------------------------------------------- programs of their own

BLOCKED = """
import asyncio, os, sys, threading
from mai import Parallel, capture, module
@module
def stuck(x: int) -> int:
    os.write(1, b"begun\\n")  # whole lines, from many threads
    threading.Event().wait()
    return x
@module
async def tidy(x: int) -> int:
    try:
        os.write(1, b"begun\\n")
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("clean", flush=True)
    return x
"""


def interrupt(code: str, after: str, count: int = 1) -> tuple[int, str, str]:
    """Send SIGINT to a program once it has printed *after* *count* times."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(mai.__file__).resolve().parents[1],
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        lines = []
        while lines.count(f"{after}\n") < count:
            lines.append(program.stdout.readline())
            assert lines[-1], program.stderr.read()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=LONG)
    return program.returncode, "".join(lines) + out, err


def test_one_ctrl_c_ends_a_run_though_many_threads_block() -> None:
    code, _, err = interrupt(BLOCKED + "Parallel(*[stuck] * 32).run(1)", "begun", 32)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_ctrl_c_lets_the_call_clean_up_and_shows_it_as_cancelled() -> None:
    code, out, err = interrupt(
        BLOCKED
        + """
with capture() as trace:
    try:
        (stuck & tidy).run(1)
    except KeyboardInterrupt:
        print([run.outcome for run in trace.runs[0].walk()])
""",
        "begun",
        2,
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["clean", "['cancelled', 'cancelled', 'cancelled']"]


@pytest.mark.slow
def test_cleanup_that_never_ends_does_not_hold_a_ctrl_c() -> None:
    code, _, err = interrupt(
        """
import asyncio
from mai import module
@module
async def stubborn(x: int) -> int:
    print("waits", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
stubborn.run(1)
""",
        "waits",
    )
    assert code == -signal.SIGINT
    assert "\nKeyboardInterrupt" in err


def test_after_a_ctrl_c_that_was_handled_run_works_again() -> None:
    code, out, err = interrupt(
        BLOCKED
        + """
try:
    stuck.run(1)
except KeyboardInterrupt:
    pass
@module
async def fine(x: int) -> int:
    return x
print(fine.run(2))
""",
        "begun",
    )
    assert (code, out.splitlines()[-1], err) == (0, "2", "")


def test_a_ctrl_c_ends_asyncio_run_with_blocked_threads_at_once() -> None:
    code, _, err = interrupt(BLOCKED + "asyncio.run(Parallel(*[stuck] * 4)(1))", "begun", 4)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this system")
def test_run_works_in_a_forked_child_after_use() -> None:
    done = python(
        """
import os, sys, warnings
from mai import module
@module
async def shout(text: str) -> str:
    return text.upper()
@module
def measure(text: str) -> int:
    return len(text)
both = shout & measure
assert both.run("ab") == ("AB", 2)
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
child = os.fork()
if not child:
    try:
        ok = both.run("abc") == ("ABC", 3) and both.run("abc") == ("ABC", 3)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        ok = False
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
assert both.run("ab") == ("AB", 2)
print(os.waitstatus_to_exitcode(status))
""",
        timeout=LONG,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this system")
def test_an_engine_used_before_a_fork_works_in_the_child() -> None:
    done = python(
        """
import asyncio, os, sys, warnings
from mai import LocalEngine, module
@module
def measure(text: str) -> int:
    return len(text)
warnings.simplefilter("ignore", DeprecationWarning)
engine = LocalEngine(max_threads=2)
async def main(text):
    async with engine:
        return await asyncio.wait_for(measure(text), 10)
assert asyncio.run(main("ab")) == 2
child = os.fork()
if not child:
    try:
        os._exit(0 if asyncio.run(main("abc")) == 3 else 1)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(2)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
""",
        timeout=LONG,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_importing_mai_starts_no_thread_and_no_loop() -> None:
    done = python(
        """
import threading
import mai
print(threading.active_count())
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_program_with_a_used_portal_ends_in_silence() -> None:
    done = python(
        """
from mai import module
@module
def measure(text: str) -> int:
    return len(text)
print(measure.run("ab"))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_a_client_that_is_bound_to_its_loop_stays_usable() -> None:
    class Client(Module):
        lock: asyncio.Lock | None = None

        async def forward(self, x: int) -> int:
            if self.lock is None:
                self.lock = asyncio.Lock()
                await self.lock.acquire()
                asyncio.get_running_loop().call_soon(self.lock.release)
            async with self.lock:  # of another loop this raises
                return x

    client = Client()
    assert [client.run(i) for i in range(3)] == [0, 1, 2]


def test_sync_runs_from_many_threads_at_once() -> None:
    found: SimpleQueue[str] = SimpleQueue()
    workers = [threading.Thread(target=lambda i=i: found.put((shout & shout).run(f"a{i}")[0])) for i in range(20)]
    with capture() as trace:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(LONG)
    assert sorted(found.get(timeout=LONG) for _ in workers) == sorted(f"A{i}" for i in range(20))
    assert trace.runs == []


# ---------------------------------------------------------------- subscribers


@simulated
async def test_subscribers_see_each_top_level_call_that_ends_in_whatever_way() -> None:
    @module
    async def step(x: str) -> str:
        await asyncio.sleep(1)
        if x == "fails":
            raise KeyError(x)
        return await shout(x)

    seen: list[Any] = []
    async with LocalEngine() as engine:
        unsubscribe = engine.subscribe(seen.append)
        await (step >> str.lower)("ok")
        with pytest.raises(KeyError):
            await step("fails")
        task = asyncio.create_task(step("cancelled"))
        asyncio.get_running_loop().call_later(0.5, task.cancel)
        await asyncio.wait([task])
        with pytest.raises(DeadlineExceeded):
            await step.with_(timeout=0.5)("late")
        await step.start("started")
        await step.with_(detached=True)("detached")
        assert len(seen) == 5
        await asyncio.sleep(2)
        unsubscribe()
        unsubscribe()
        await step("unseen")
    assert [(h.name, h.outcome, len(list(h.walk()))) for h in seen] == [
        ("Sequential", "ok", 4), ("step", "error", 1), ("step", "cancelled", 1), ("step", "timeout", 1),
        ("step", "ok", 2), ("step", "ok", 2),
    ]  # fmt: skip


@simulated
async def test_a_subscriber_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def broken(handle: Any) -> None:
        raise ValueError("broken")

    async with LocalEngine() as engine:
        engine.subscribe(broken)
        engine.subscribe(lambda handle: seen.append(Context.get().metadata))
        with Context.scope(user="ann"):
            assert await shout("a") == "A"
    assert seen == [{}]
    assert [record.name for record in caplog.records] == ["mai"]
    assert "ValueError: broken" in caplog.text


@pytest.mark.parametrize("fn", [3, shout.__wrapped__])
def test_what_cannot_be_a_subscriber_is_refused(fn: Any) -> None:
    with pytest.raises(ConfigError, match="needs a plain function of a handle"):
        LocalEngine().subscribe(fn)


def test_the_default_engine_may_be_subscribed_to() -> None:
    seen: list[str] = []
    unsubscribe = LocalEngine.default().subscribe(lambda handle: seen.append(handle.step_id))
    try:
        shout.run("a")
    finally:
        unsubscribe()
    shout.run("b")
    assert seen == ["shout"]
    assert LocalEngine.default() is LocalEngine.default()
