"""What a started run tells, and its readers."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest

from mai import Module, WouldDeadlock, emit, module
from mai.core.control import Stream
from mai.core.events import AHEAD, MAX_EVENTS, Bell, Bus
from mai.types import Chunk, Emitted, Event, Failed, Finished, Started
from tests.support import simulated

LONG = 20.0


@module
async def tell(n: int) -> int:
    for i in range(n):
        emit(i)
    return n


class Count(Module):
    """Streams numbers, and says how far it is and whether it was closed."""

    def __init__(self) -> None:
        self.at = -1
        self.closed = 0

    async def forward(self, n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                self.at = i
                yield i
                await asyncio.sleep(0)
        finally:
            self.closed += 1


async def read_into(taken: list[Any], stream: AsyncIterable[Any]) -> None:
    """Read a stream, and keep what came even if it fails."""
    async for value in stream:
        taken.append(value)  # noqa: PERF401 (see above)


async def facts(handle: Any) -> list[tuple[Any, ...]]:
    """Return the events of a run, as tuples."""
    return [
        (type(e).__name__, e.step_id, *([e.value] if isinstance(e, Chunk | Emitted) else [])) async for event in handle
        for e in [event]
    ]  # fmt: skip


@simulated
async def test_the_events_of_a_run_come_in_order_and_end_with_it() -> None:
    h = (tell >> str).start(2)
    assert await facts(h) == [
        ("Started", "Sequential"), ("Started", "Sequential/tell"), ("Emitted", "Sequential/tell", 0),
        ("Emitted", "Sequential/tell", 1), ("Finished", "Sequential/tell"), ("Started", "Sequential/str"),
        ("Finished", "Sequential/str"), ("Finished", "Sequential"),
    ]  # fmt: skip
    assert await h == "2"
    assert len(await facts(h)) == 8  # a reader that comes late reads what is kept


@simulated
async def test_the_events_say_names_kinds_durations_and_errors() -> None:
    @module
    async def fail(x: int) -> int:
        await asyncio.sleep(2)
        raise KeyError("x")

    h = (fail >> str).with_(name="line").start(1)
    events: list[Event] = [event async for event in h]
    assert events[0] == Started("line", 1, "line", "sequential")
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.outcome == "error"
    assert last.error is not None
    assert (last.error.type, last.step_id, last.attempt) == ("KeyError", "line", 1)
    h = tell.start(0)
    *_, finished = [event async for event in h]
    assert isinstance(finished, Finished)
    assert finished.duration == 0.0
    assert [type(event).__name__ async for event in h] == ["Started", "Finished"]


@pytest.mark.parametrize("how", ["error", "timeout", "cancelled", "swallowed"])
@simulated
async def test_the_events_of_a_run_end_whatever_its_end_is(how: str) -> None:
    @module
    async def step(x: int) -> AsyncIterator[int]:
        yield x
        try:
            await asyncio.sleep(60 if how != "error" else 0)
        except asyncio.CancelledError:
            if how != "swallowed":
                raise
        if how == "error":
            raise KeyError(x)

    h = step.with_(timeout=1 if how == "timeout" else None).start(1)
    if how in ("cancelled", "swallowed"):
        asyncio.get_running_loop().call_later(1, h.cancel)
    events = [event async for event in h]
    assert [type(event).__name__ for event in events] == ["Started", "Chunk", "Failed"]
    assert h.outcome == ("cancelled" if how == "swallowed" else how)
    taken: list[int] = []
    with pytest.raises((KeyError, TimeoutError, asyncio.CancelledError)):
        await read_into(taken, h.chunks())
    assert taken == [1]


@simulated
async def test_the_newest_events_are_kept_and_the_others_counted() -> None:
    h = tell.start(2 * MAX_EVENTS)
    await h
    reader = aiter(h)
    events = [event async for event in reader]
    assert len(events) == MAX_EVENTS
    assert reader.dropped == MAX_EVENTS + 2
    assert isinstance(events[-1], Finished)


@simulated
async def test_emit_outside_of_a_started_run_does_nothing() -> None:
    emit(1)
    assert await tell(3) == 3


@simulated
async def test_emit_reaches_the_run_from_a_worker_thread() -> None:
    @module
    def plain(x: int) -> int:
        emit("here")
        return x

    assert ("Emitted", "plain", "here") in await facts(plain.start(1))


@simulated
async def test_a_run_inside_a_run_tells_its_own_readers_only() -> None:
    @module
    async def outer(n: int) -> int:
        return len(await facts(tell.start(n)))

    h = outer.start(3)
    assert len(await facts(h)) == 2
    assert await h == 5


# ---------------------------------------------------------------- readers and the generators they slow down


@simulated
async def test_a_generator_is_at_most_a_little_ahead_of_its_slowest_reader() -> None:
    count = Count()
    h = count.start(200)
    slow, fast = aiter(h.chunks()), aiter(h.chunks())
    assert await anext(slow) == await anext(fast) == 0

    async def read_all() -> list[int]:
        return [chunk async for chunk in fast]

    reading = asyncio.create_task(read_all())
    for i in range(1, 100):
        await asyncio.sleep(1)
        assert count.at <= i + AHEAD
        assert await anext(slow) == i
    rest = [chunk async for chunk in slow]
    assert rest == list(range(100, 200))
    assert await reading == list(range(1, 200))
    assert (slow.dropped, fast.dropped) == (0, 0)


@simulated
async def test_without_a_reader_a_generator_does_not_wait() -> None:
    h = Count().start(5000)
    assert len(await h) == 5000


@pytest.mark.parametrize("leave", ["break", "drop", "close", "close in another task", "cancel"])
@simulated
async def test_a_reader_that_goes_away_frees_the_generator_and_the_run_goes_on(
    leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    count = Count()
    h = count.start(200)
    stream = h.chunks()
    if leave == "break":
        async for _ in stream:
            break
    elif leave == "cancel":

        async def read() -> None:
            async for _ in stream:
                await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 1)
    else:
        reader = aiter(stream)
        await anext(reader)
        await asyncio.sleep(1)
        assert count.at < 100
        if leave == "close":
            await reader.aclose()
            assert [chunk async for chunk in reader] == []
        elif leave == "close in another task":
            await asyncio.create_task(reader.aclose())
        else:
            del reader
    assert await h == list(range(200))
    assert count.closed == 1
    gc.collect()
    assert caplog.records == []


@simulated
async def test_a_reader_that_is_closed_while_it_waits_ends() -> None:
    @module
    async def quiet(x: float) -> float:
        await asyncio.sleep(x)
        return x

    h = quiet.start(60.0)
    reader = aiter(h.chunks())
    waits = asyncio.create_task(anext(reader, "end"))  # type: ignore[arg-type]
    await asyncio.sleep(1)
    reader.close()
    assert await waits == "end"
    h.cancel()
    await h.settled()


@simulated
async def test_a_cancel_reaches_a_generator_that_waits_for_its_reader() -> None:
    count = Count()
    h = count.start(200)
    reader = aiter(h.chunks())
    await anext(reader)
    await asyncio.sleep(1)
    h.cancel()
    await h.settled()
    assert count.closed == 1
    assert count.at < 100


def test_sync_code_reads_with_for() -> None:
    h = Count().start(100)
    assert list(h.chunks()) == list(range(100))
    assert [type(event).__name__ for event in tell.start(1)] == ["Started", "Emitted", "Finished"]
    assert h.result() == list(range(100))


def test_sync_code_may_leave_a_loop_early() -> None:
    h = Count().start(100)
    for chunk in h.chunks():
        if chunk == 3:
            break
    assert h.result(LONG) == list(range(100))


@simulated
async def test_for_in_the_thread_of_a_running_loop_is_refused() -> None:
    h = Count().start(1)
    with pytest.raises(WouldDeadlock, match="async for"):
        iter(h.chunks())
    with pytest.raises(WouldDeadlock, match="async for"):
        list(h)
    await h


@simulated
async def test_events_cross_loops_and_threads() -> None:
    far = await asyncio.to_thread(Count().start, 50)
    assert [chunk async for chunk in far.chunks()] == list(range(50))


# ---------------------------------------------------------------- the bell


def test_a_bell_wakes_who_waits_in_a_thread() -> None:
    bell, ready, woke = Bell(), list[int](), list[bool]()
    waits = threading.Thread(target=lambda: woke.append(bell.wait(lambda: bool(ready), LONG)))
    waits.start()
    bell.ring()
    ready.append(1)
    bell.ring()
    waits.join(LONG)
    assert woke == [True]
    assert bell.wait(lambda: False, 0.01) is False


@simulated
async def test_a_bell_forgets_who_was_cancelled() -> None:
    bell = Bell()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bell.heard(lambda: False), 1)
    assert bell._wakes == []


@simulated
async def test_a_change_between_a_look_and_the_wait_is_not_missed() -> None:
    bell = Bell()
    for wait in (bell.heard, bell.wait):
        looks = iter([False, True, True])  # what changes without a ring after the first look
        waiting = wait(lambda looks=looks: next(looks))  # type: ignore[misc]
        if asyncio.iscoroutine(waiting):
            await waiting


@simulated
async def test_a_bell_that_rings_in_the_moment_of_a_cancel_harms_nobody() -> None:
    bell = Bell()
    waits = asyncio.create_task(bell.heard(lambda: False))
    await asyncio.sleep(1)
    waits.cancel()
    bell.ring()
    with pytest.raises(asyncio.CancelledError):
        await waits


def test_a_bell_whose_waiter_sits_in_a_closed_loop_rings_all_the_same() -> None:
    bell = Bell()
    loop = asyncio.new_event_loop()
    waits = loop.create_task(bell.heard(lambda: False))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bell.ring()
    waits._log_destroy_pending = False  # type: ignore[attr-defined]
    waits.get_coro().close()  # type: ignore[union-attr]


def test_a_thread_may_wait_longer_than_a_lock_can() -> None:
    bell, asked, ready, woke = Bell(), list[int](), threading.Event(), list[bool]()
    other = threading.Thread(target=lambda: woke.append(bell.wait(lambda: asked.append(1) or ready.is_set(), 1e12)))
    other.start()
    while len(asked) < 2 and other.is_alive():
        threading.Event().wait(0.001)
    ready.set()
    bell.ring()
    other.join(LONG)
    assert woke == [True]


# ---------------------------------------------------------------- a reader that is closed while it reads


def test_a_reader_that_is_closed_while_it_reads_holds_up_nobody() -> None:
    bus = Bus()
    reader = iter(Stream(bus, lambda event: event, int))

    class Racing(dict[object, int]):
        def __setitem__(self, key: object, at: int) -> None:
            reader.close()  # as another thread does at the worst time
            super().__setitem__(key, at)

    bus.cursors = Racing()
    bus.post(Event("x", 1))
    assert [event.step_id for event in reader] in ([], ["x"])
    assert bus.cursors == {}
