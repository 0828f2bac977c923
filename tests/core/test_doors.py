"""The door for sync code, ``run``: from every kind of thread, after a fork, and when it is shut."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import mai
from mai import Context, DeadlineExceeded, Module, NonBlockingDelay, Parallel, WouldDeadlock, capture, module
from tests.support import python, simulated, still

LONG = 20.0
mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this system")


@module
async def shout(text: str) -> str:
    return text.upper()


@module
def measure(text: str) -> int:
    return len(text)


class Client(Module):
    """Holds a client that works in one loop only."""

    def __init__(self) -> None:
        self.loops = set[asyncio.AbstractEventLoop]()
        self.lock = asyncio.Lock()  # bound to the loop in which it is first waited for

    async def forward(self, x: int) -> int:
        self.loops.add(asyncio.get_running_loop())
        asyncio.get_running_loop().call_later(0.001, self.lock.release)
        await self.lock.acquire()
        async with self.lock:
            return x


# ---------------------------------------------------------------- from which threads


async def test_a_thread_beside_a_running_loop_may_run_modules() -> None:
    """So it is in a notebook: its own loop runs in the main thread all the time."""
    client = Client()

    def cell() -> list[Any]:
        return [(shout & measure).run("ab"), client.run(1), client.run(2)]

    found: SimpleQueue[list[Any]] = SimpleQueue()
    thread = threading.Thread(target=lambda: found.put(cell()))
    thread.start()
    assert await asyncio.to_thread(found.get, timeout=LONG) == [("AB", 2), 1, 2]
    assert await asyncio.to_thread(cell) == [("AB", 2), 1, 2]
    assert client.loops == {*client.loops} - {asyncio.get_running_loop()}
    assert len(client.loops) == 1
    with pytest.raises(WouldDeadlock, match="await module"):
        client.run(3)


def test_a_client_bound_to_its_loop_serves_runs_of_all_threads() -> None:
    client, found = Client(), SimpleQueue[int]()
    assert client.run(0) == 0
    threads = [threading.Thread(target=lambda i=i: found.put(client.run(i))) for i in range(1, 4)]
    for thread in threads:
        thread.start()
        thread.join(LONG)
    assert [found.get(timeout=LONG) for _ in threads] == [1, 2, 3]

    @module
    def from_worker(x: int) -> int:
        return client.run(x)

    assert from_worker.run(4) == 4
    assert len(client.loops) == 1


@simulated
async def test_a_step_may_run_modules_in_a_thread_of_asyncios_pool_as_a_part_of_the_same_run() -> None:
    class Look(Module):
        async def forward(self, x: int) -> Any:
            context = Context.get()
            mark.set("changed")
            return context.step_id, context.metadata["user"], context.run_id

    look = Look()

    class Elsewhere(Module):
        async def forward(self, x: int) -> Any:
            mark.set("mine")
            inside = await asyncio.to_thread(look.run, x)
            return inside, Context.get().run_id, mark.get()

    with still(), Context.scope(user="ann"), capture() as trace:
        (step_id, user, inner), outer, seen = await Elsewhere()(1)
    assert (step_id, user, inner, seen) == ("Elsewhere/Look", "ann", outer, "mine")
    assert [handle.step_id for handle in trace.runs[0].walk()] == ["Elsewhere", "Elsewhere/Look"]


async def test_a_deadline_reaches_a_run_in_a_thread_of_asyncios_pool() -> None:
    @module
    async def waits(x: int) -> int:
        await asyncio.Event().wait()
        return x

    class Elsewhere(Module):
        async def forward(self, x: int) -> Any:
            with Context.scope(timeout=0.02), pytest.raises(DeadlineExceeded) as caught:
                await asyncio.to_thread(waits.run, x)
            return caught.value.step_id

    assert await Elsewhere()(1) == "Elsewhere/waits"


def test_a_loop_of_the_users_own_in_a_step_may_run_modules_too() -> None:
    @module
    def around(text: str) -> Any:
        async def own() -> Any:
            return await (NonBlockingDelay(0.001) >> shout & measure)(text)

        return asyncio.run(own())

    assert Parallel(around, around, limit=1).run("ab") == (("AB", 2), ("AB", 2))


def test_a_run_that_is_cancelled_before_it_begins_says_so() -> None:
    @module
    async def cancels_all(x: int) -> list[Any]:
        """Hold the loop until another thread's run waits for it, then cancel whatever comes of that."""
        loop = asyncio.get_running_loop()
        asked = threading.Event()
        call = loop.call_soon_threadsafe

        def heard(*args: Any, **kwargs: Any) -> Any:
            del loop.call_soon_threadsafe  # type: ignore[method-assign]
            call(*args, **kwargs)
            call(lambda: [task.cancel() for task in asyncio.all_tasks() - mine])
            asked.set()

        mine, found = asyncio.all_tasks(), SimpleQueue[str]()

        def other() -> None:
            try:
                shout.run("never")
            except BaseException as error:  # noqa: BLE001 (the test looks at it)
                found.put(type(error).__name__)

        loop.call_soon_threadsafe = heard  # type: ignore[method-assign]
        threading.Thread(target=other).start()
        assert asked.wait(LONG)
        await asyncio.sleep(0.01)
        return [found.get(timeout=LONG)]

    assert cancels_all.run(1) == ["CancelledError"]
    assert shout.run("a") == "A"


# ---------------------------------------------------------------- after a fork

FORKS = """
import asyncio, logging, os, sys, threading, warnings
from mai import LocalEngine, NonBlockingDelay, Parallel, module
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
logging.disable()  # a step that forks and waits for the child blocks its loop
@module
def measure(text: str) -> int:
    return len(text)
@module
async def shout(text: str) -> str:
    return text.upper()
both = (NonBlockingDelay(0.001) >> shout) & measure & (lambda text: measure.run(text))
def in_child() -> int:
    "Fork, use mai in the child, and return how it ended."
    child = os.fork()
    if not child:
        try:
            ok = all(both.run("abc") == ("ABC", 3, 3) for _ in range(2))
            ok = ok and asyncio.run(both("ab")) == ("AB", 2, 2) if asyncio._get_running_loop() is None else ok
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            ok = False
        os._exit(0 if ok else 1)
    for _ in range(4000):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        threading.Event().wait(0.01)
    os.kill(child, 9)
    return os.waitpid(child, 0)[1]
@module
async def in_loop(text: str) -> int:
    await measure(text)
    return in_child()
@module
def in_thread(text: str) -> int:
    measure.run(text)
    return in_child()
"""


@forks
@pytest.mark.parametrize(
    "use",
    [
        "in_loop.run('x')",
        "asyncio.run(in_thread('x'))",
        pytest.param("in_child()", marks=pytest.mark.slow),
        pytest.param("in_thread.run('x')", marks=pytest.mark.slow),
        pytest.param("asyncio.run(in_loop('x'))", marks=pytest.mark.slow),
        pytest.param("sum(Parallel(in_loop, in_thread, in_loop, limit=1).run('x'))", marks=pytest.mark.slow),
    ],
)
def test_a_child_forked_anywhere_has_threads_and_a_loop_of_its_own(use: str) -> None:
    done = python(f"{FORKS}\nassert both.run('ab') == ('AB', 2, 2)\nprint({use}, both.run('ab'))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 ('AB', 2, 2)\n", "")


@forks
def test_a_forked_child_cannot_wait_for_a_run_of_its_parent() -> None:
    done = python(
        FORKS
        + """
from mai import WouldDeadlock, module
@module
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds
ended, goes_on = nap.start(0.0), nap.start(1000.0)
assert ended.result() == 0.0
child = os.fork()
if not child:
    told = []
    for wait in (goes_on.result, goes_on.chunks, lambda: asyncio.run(goes_on.settled())):
        try:
            wait()
        except WouldDeadlock as error:
            told.append("was started before this process was forked" in str(error))
    os._exit(0 if told == [True] * 3 and ended.result() == 0.0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), goes_on.outcome)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 running\n", "")


@forks
@pytest.mark.slow
def test_a_child_forked_under_an_engine_keeps_the_engine_with_threads_of_its_own() -> None:
    done = python(
        FORKS
        + """
async def main():
    async with LocalEngine(max_threads=2) as engine:
        await measure("x")
        return await in_loop("x"), engine.threads.started
print(asyncio.run(main()))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(0, 1)\n", "")


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("how", ["Parallel(*[stuck] * 32).run(1)", "asyncio.run(Parallel(*[stuck] * 32)(1))"])
def test_one_ctrl_c_ends_a_program_with_32_blocked_threads_within_a_second(how: str) -> None:
    code = f"""
import asyncio, os, threading
from mai import Parallel, module
@module
def stuck(x: int) -> int:
    os.write(1, b"stuck\\n")
    threading.Event().wait()
    return x
{how}
"""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(mai.__file__).resolve().parents[1],
    ) as program:
        assert program.stdout is not None
        for _ in range(32):
            assert program.stdout.readline() == "stuck\n"
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=LONG)
        took = time.monotonic() - began
    assert program.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert took < 4  # a second, and what a busy machine adds: less than detached work has when a program ends


def test_one_ctrl_c_ends_a_program_with_detached_work_within_a_second() -> None:
    code = """
import asyncio, threading
from mai import module
@module(detached=True)
async def save(x: int) -> None:
    print("saves")
    await asyncio.sleep(60)
save.run(1)
threading.Event().wait()
"""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(mai.__file__).resolve().parents[1],
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "saves\n"
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=LONG)
        took = time.monotonic() - began
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert took < 4  # a second, and what a busy machine adds: less than detached work has when a program ends


def test_a_program_ends_though_threads_of_timed_out_and_cancelled_steps_still_block() -> None:
    done = python(
        """
import asyncio, threading
from mai import DeadlineExceeded, Parallel, capture, module
stands = threading.Event()
@module
def stuck(x: int) -> int:
    stands.set()
    threading.Event().wait()
    return x
@module
async def fails(x: int) -> int:
    await asyncio.to_thread(stands.wait)
    raise KeyError(x)
with capture() as trace:
    try:
        Parallel(*[stuck] * 8).with_(timeout=0.05).run(1)
    except DeadlineExceeded:
        print("free")
    stands.clear()
    try:
        asyncio.run((stuck & fails)(1))
    except KeyError:
        print("free")
last = trace.runs[1].find("stuck")[0]
print(last.outcome, last.attributes["mai.thread.abandoned"])
""",
        timeout=LONG,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "free\nfree\ncancelled True\n"
