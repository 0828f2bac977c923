"""The watchdog: a step that blocks the event loop is named, once, and nothing else is."""

import asyncio
import gc
import logging
import os
import threading
import weakref
from typing import Any

import pytest

from mai import Conditional, Module, Parallel, capture, module
from mai.core.watch import Watchdog, watchdog
from tests.support import loop_of, python, simulated

LONG = 10.0


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the watchdog of the process see nothing: here each test has one of its own."""
    monkeypatch.setattr(watchdog, "look", lambda: True)


def looks(dog: Watchdog, times: int = 1) -> list[bool]:
    """Block this thread while another one looks."""
    found = list[bool]()
    other = threading.Thread(target=lambda: found.extend(dog.look() for _ in range(times)))
    other.start()
    other.join(LONG)
    return found


def named(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the paths that were warned of."""
    assert {(r.name, r.levelno) for r in caplog.records} <= {("mai", logging.WARNING)}
    return [r.args[0] for r in caplog.records if isinstance(r.args, tuple)]


class Blocks(Module):
    """Blocks the loop while its watchdog looks."""

    def __init__(self, dog: Watchdog, times: int) -> None:
        self.dog, self.times = dog, times

    async def forward(self, x: Any) -> Any:
        assert looks(self.dog, self.times) == [True] * self.times
        return x


@simulated
async def test_a_step_that_blocks_is_named_once_with_the_time_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    dog, loop = Watchdog(), loop_of()

    @module
    async def slow(x: int) -> int:
        looks(dog)
        loop.now += 0.3
        looks(dog, 3)
        return x

    await (module(str) >> int >> slow)(1)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Step 'Sequential/slow' has blocked the event loop for 0.3 s so far: nothing else runs and no timeout fires "
        "meanwhile; make its forward a plain function, which runs in a thread"
    )


@simulated
async def test_one_look_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    blocks = Blocks(Watchdog(), 1)
    for _ in range(3):
        await blocks(1)
        await asyncio.sleep(1)
    assert named(caplog) == []


@simulated
async def test_each_block_is_told_anew(caplog: pytest.LogCaptureFixture) -> None:
    blocks = Blocks(Watchdog(), 2)
    for _ in range(3):
        await blocks(1)
        await asyncio.sleep(1)
    assert named(caplog) == ["Blocks"] * 3


@simulated
async def test_the_innermost_step_is_named_where_something_observes_it_too(caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog()

    class Outer(Module):
        async def forward(self, x: int) -> Any:
            await asyncio.sleep(1)
            return await inner(x)

    inner = Conditional(bool, then=Parallel(Blocks(dog, 2).with_(timeout=5), str))
    with capture():
        await Outer()(1)
    assert named(caplog) == ["Outer/Conditional/Parallel[0]/Blocks"]


@simulated
async def test_a_plain_step_that_runs_inline_is_named_and_one_in_a_thread_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dog = Watchdog()

    @module
    def plain(x: int) -> list[bool]:
        return looks(dog, 2)

    assert await plain(1) == [True, True]
    assert named(caplog) == []
    assert await plain.with_(inline=True)(1) == [True, True]
    assert named(caplog) == ["plain"]


@simulated
async def test_many_quick_steps_in_one_callback_are_named_by_what_they_are_in(caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog()
    one, two = Blocks(dog, 1).with_(name="one"), Blocks(dog, 1).with_(name="two")
    await (one >> two)(1)
    await asyncio.sleep(1)
    await (one & two)(1)
    assert named(caplog) == ["Sequential", "Parallel"]


@simulated
async def test_quick_steps_that_are_in_nothing_together_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog()
    await Blocks(dog, 1).with_(name="one")(1)
    await Blocks(dog, 1).with_(name="two")(1)
    assert named(caplog) == []
    await Blocks(dog, 2).with_(name="three")(1)
    assert named(caplog) == ["three"]


@simulated
async def test_a_step_that_waits_between_the_looks_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog()

    @module
    async def polite(x: int) -> int:
        for _ in range(4):
            looks(dog)
            await asyncio.sleep(0)
        return x

    await polite(1)
    assert named(caplog) == []


@simulated
async def test_what_blocks_outside_of_steps_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    assert looks(Watchdog(), 3) == [True] * 3
    assert named(caplog) == []


def test_two_loops_that_block_at_once_are_both_named(caplog: pytest.LogCaptureFixture) -> None:
    dog, stand, go = Watchdog(), threading.Semaphore(0), threading.Event()

    @module
    async def stands(x: str) -> str:
        stand.release()
        assert go.wait(LONG)
        return x

    async def main(name: str) -> str:
        return await stands.with_(name=name)(name)

    threads = [threading.Thread(target=asyncio.run, args=(main(name),)) for name in ("a", "b")]
    threads.append(threading.Thread(target=stands.with_(name="portal").run, args=("c",)))
    for thread in threads:
        thread.start()
    for _ in threads:
        assert stand.acquire(timeout=LONG)
    looks(dog, 3)
    go.set()
    for thread in threads:
        thread.join(LONG)
    assert sorted(named(caplog)) == ["a", "b", "portal"]


@simulated
async def test_it_keeps_no_value_and_no_callback_between_two_looks() -> None:
    class Big: ...

    def callback(big: Big) -> None:
        with pytest.raises(StopIteration):
            Blocks(dog, 1)(big).send(None)  # it never waits, so it needs no task
        seen.append(weakref.ref(big))

    dog, seen = Watchdog(), list[weakref.ref[Big]]()
    asyncio.get_running_loop().call_soon(callback, Big())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert [ref() for ref in seen] == [None]


def test_without_a_running_loop_it_rests_and_a_run_wakes_it_again() -> None:
    began = threading.Semaphore(0)

    class Sees(Watchdog):
        left = 3

        def look(self) -> bool:
            began.release()
            self.left -= 1
            return self.left > 0

    dog = Sees(period=0.0001)
    for _ in range(2):
        assert dog.resting
        dog.wake()
        dog.wake()  # as another thread may at the same time
        assert began.acquire(timeout=LONG)
        for _ in range(20_000):
            if dog.resting:
                break
            threading.Event().wait(0.001)
        assert dog.resting


def test_a_thread_that_cannot_be_started_fails_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    dog = Watchdog()
    dog.wake()
    assert not dog.resting  # it does not try again and again


@pytest.mark.slow
def test_a_program_whose_step_sleeps_is_told_and_ends_at_once() -> None:
    done = python(
        """
import asyncio, logging, threading
from mai import module
heard = threading.Event()
class Heard(logging.StreamHandler):
    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        heard.set()
logging.lastResort = Heard()
@module
async def sleeps(x: int) -> int:
    assert heard.wait(30)
    return x
@module
async def waits(x: int) -> int:
    await asyncio.sleep(0.4)
    return x
print(asyncio.run((waits >> sleeps >> waits)(1)))
print([thread.name for thread in threading.enumerate()][1:])
""",
        watched=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n['mai-watchdog']\n")
    assert done.stderr.startswith("Step 'Sequential/sleeps' has blocked the event loop for ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this system")
def test_a_forked_child_has_a_watchdog_of_its_own() -> None:
    done = python(
        """
import os, threading, warnings
from mai import module
@module
async def shout(text: str) -> str:
    return text.upper()
def watchdogs():
    return [thread.name for thread in threading.enumerate()].count("mai-watchdog")
shout.run("a")
shout.run("b")
print(watchdogs(), flush=True)
warnings.simplefilter("ignore", DeprecationWarning)
if not (child := os.fork()):
    before = watchdogs()
    shout.run("c")
    os.write(1, f"{before} {watchdogs()}\\n".encode())
    os._exit(0)
os.waitpid(child, 0)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n0 1\n", "")


@pytest.mark.slow
def test_a_look_is_safe_though_the_garbage_collector_lets_other_threads_go_on() -> None:
    """In Python 3.11 what a collection runs may end the frames that a look is about to see."""
    ended = python(
        """if True:
        import asyncio, gc, logging, threading, time
        from typing import Any
        from mai import module
        from mai.core.watch import Watchdog

        @module
        async def nest(n: int) -> int:
            await asyncio.sleep(0)
            list(deep(20))
            return await nest(n - 1) if n else 0

        def deep(n: int) -> Any:
            if n:
                yield from deep(n - 1)
            yield [n]

        def look() -> None:
            watchdog = Watchdog()
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                watchdog.look()
                time.sleep(0.0002)

        async def main() -> None:
            looking = threading.Thread(target=look, name="looking")
            looking.start()
            while looking.is_alive():
                await nest(20)

        def collecting(phase: str, info: Any) -> None:
            if threading.current_thread().name == "looking":
                time.sleep(0)

        gc.callbacks.append(collecting)
        gc.set_threshold(3)
        logging.disable()  # so many looks see the same callback twice
        asyncio.run(main())
        assert gc.isenabled()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_look_leaves_the_garbage_collector_as_it_was() -> None:
    watching = Watchdog()
    try:
        for switch in (gc.disable, gc.enable):
            switch()
            watching.look()
            assert gc.isenabled() == (switch is gc.enable)
    finally:
        gc.enable()
