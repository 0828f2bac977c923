"""What a started run tells, and its readers."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from mai import Conditional, Context, LocalEngine, Module, Parallel, Retry, WouldDeadlock, capture, emit, module
from mai.core.control import Stream
from mai.core.events import AHEAD, MAX_EVENTS, Bell, Bus
from mai.types import Chunk, Emitted, Event, Failed, Finished, Started
from tests.support import recorded_spans, simulated, still

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


# ---------------------------------------------------------------- generator forwards: chunks, end, and who drives them

mark = ContextVar("mark", default="none")


class Words(Module):
    async def forward(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            await asyncio.sleep(1)
            yield word


class Letters(Module):
    def forward(self, text: str) -> Iterator[str]:
        yield from text


async def chunks_of(handle: Any) -> list[tuple[str, int, Any, bool]]:
    """Return path, index, value and nesting of each chunk event."""
    events = [event async for event in handle]
    return [(e.step_id, e.index, e.value, e.nested) for e in events if isinstance(e, Chunk)]


@simulated
async def test_both_kinds_of_generators_give_their_chunks_one_by_one() -> None:
    for step in (Words(), Letters()):
        h = step.start("a b")
        got = [chunk async for chunk in h.chunks()]
        assert "".join(got) == await h == ("ab" if isinstance(step, Words) else "a b")


@simulated
async def test_chunks_come_when_they_are_made() -> None:
    loop, times = asyncio.get_running_loop(), list[float]()
    start = loop.time()
    async for _ in Words().start("a b c").chunks():
        times.append(round(loop.time() - start, 3))
    assert times == [1.0, 2.0, 3.0]


def test_chunks_of_a_generator_in_a_thread_come_when_they_are_made() -> None:
    gates = [threading.Event() for _ in range(3)]

    @module
    def steps(n: int) -> Iterator[int]:
        for i in range(n):
            assert gates[i].wait(LONG)
            yield i

    gates[0].set()
    for chunk in steps.start(3).chunks():
        if chunk < 2:
            gates[chunk + 1].set()


@simulated
async def test_streams_go_through_composites_and_tell_their_path() -> None:
    step = Conditional(bool, then=Parallel(a=Words(), b=Letters() >> str.upper))
    h = step.start("x")
    assert sorted(await chunks_of(h)) == [
        ("Conditional/Parallel[a]/Words", 0, "x", False),
        ("Conditional/Parallel[b]/Sequential/Letters", 0, "x", False),
    ]
    assert await h == {"a": "x", "b": "X"}


@simulated
async def test_a_stream_may_read_another_one_that_it_has_started() -> None:
    class Louder(Module):
        async def forward(self, text: str) -> AsyncIterator[str]:
            async for chunk in (Words() >> Letters()).with_(retry=2).start(text).chunks():
                yield chunk.upper()

    h = Louder().with_(retry=2).start("a b")
    assert [chunk async for chunk in h.chunks()] == ["A", "B", "A", "B"]
    assert await h == "ABAB"


@simulated
async def test_a_stream_inside_a_stream_is_not_told_twice() -> None:
    class Outer(Module):
        async def forward(self, text: str) -> AsyncIterator[str]:
            inner = await (Words() >> str.upper)(text)
            yield inner

    h = (Outer() >> Letters()).start("a b")
    assert [chunk async for chunk in h.chunks()] == ["AB", "A", "B"]
    nested = [value for _, _, value, nested in await chunks_of(h) if nested]
    assert nested == ["a", "b"]


@simulated
async def test_a_generator_is_driven_by_its_calls_own_task_and_context() -> None:
    seen: list[Any] = []

    class Looks(Module):
        async def forward(self, n: int) -> AsyncIterator[int]:
            mark.set("inside")
            for i in range(n):
                seen.append((asyncio.current_task(), mark.get()))
                yield i
            async with asyncio.timeout(5):  # a scope that is open over a yield
                yield n
                seen.append((asyncio.current_task(), mark.get()))

    mark.set("reader")
    h = Looks().start(3)
    async for _ in h.chunks():
        assert mark.get() == "reader"
    assert len({id(task) for task, _ in seen}) == 1
    assert {value for _, value in seen} == {"inside"}
    assert seen[0][0] is not asyncio.current_task()


@pytest.mark.parametrize("observed", [False, True])
@simulated
async def test_spans_of_a_streamed_run_nest_and_nothing_is_logged(
    observed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Outer(Module):
        async def forward(self, text: str) -> AsyncIterator[str]:
            yield await Words()(text)
            yield "!"

    with recorded_spans() as exporter:
        h = Outer().start("a b")
        async for _ in h.chunks():
            if not observed:
                break
        await h
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["Outer"].parent is None
    assert spans["Words"].parent is not None
    assert spans["Words"].parent.span_id == spans["Outer"].context.span_id
    assert (h.trace_id, h.span_id) == (
        f"{spans['Outer'].context.trace_id:032x}",
        f"{spans['Outer'].context.span_id:016x}",
    )
    assert caplog.records == []


@simulated
async def test_an_error_in_the_middle_comes_after_the_chunks_and_names_the_step() -> None:
    class Breaks(Module):
        def __init__(self, cls: type[Exception]) -> None:
            self.cls = cls

        def forward(self, n: int) -> Iterator[int]:
            yield n
            raise self.cls("midway")

    class BreaksToo(Breaks):
        async def forward(self, n: int) -> AsyncIterator[int]:  # type: ignore[override]
            yield n
            raise self.cls("midway")

    for step in (Breaks(ValueError), BreaksToo(ValueError)):
        h = (step >> str).start(1)
        got: list[int] = []
        with pytest.raises(ValueError, match="midway") as caught:
            await read_into(got, h.chunks())
        assert got == [1]
        assert caught.value.__notes__[0].startswith(f"mai: in Sequential/{type(step).__name__}")


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@simulated
async def test_an_async_generator_is_closed_before_the_call_ends(how: str) -> None:
    log: list[str] = []

    class Slow(Module):
        async def forward(self, n: int) -> AsyncIterator[int]:
            try:
                yield n
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(1)
                log.append("closed")

    h = Slow().with_(timeout=2 if how == "timeout" else None).start(1)
    if how == "cancel":
        asyncio.get_running_loop().call_later(3, h.cancel)
    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        await h
    assert log == ["closed"]


@simulated
async def test_an_async_generator_that_waits_for_its_reader_is_closed_before_the_call_ends() -> None:
    log: list[str] = []

    class Many(Module):
        async def forward(self, n: int) -> AsyncIterator[int]:
            try:
                for i in range(n):
                    log[:] = [str(i)]
                    yield i
            finally:
                await asyncio.sleep(1)
                log.append("closed")

    h = Many().start(1000)
    reader = aiter(h.chunks())
    assert await anext(reader) == 0
    await asyncio.sleep(1)
    h.cancel()
    with pytest.raises(asyncio.CancelledError):
        await h
    assert log[1:] == ["closed"]
    assert int(log[0]) <= 1 + AHEAD  # it did wait
    await reader.aclose()


@simulated
async def test_a_generator_in_a_thread_is_closed_there_though_nobody_listens() -> None:
    closed, gate = threading.Event(), threading.Event()
    made: list[int] = []

    @module
    def slow(n: int) -> Iterator[int]:
        try:
            for i in range(n):
                made.append(i)
                gate.wait(LONG)
                yield i
        finally:
            closed.set()

    with still():
        task = asyncio.create_task(slow(3))
        while not made:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await asyncio.to_thread(closed.wait, LONG)
    assert made == [0]


@simulated
async def test_a_generator_in_a_thread_is_closed_there_when_its_call_is_cancelled() -> None:
    closed, gate = threading.Event(), threading.Event()
    names: list[str] = []

    @module
    def slow(n: int) -> Iterator[int]:
        try:
            yield n
            names.append(threading.current_thread().name)
            gate.wait(LONG)
            yield n
            names.append("went on")
        finally:
            names.append(threading.current_thread().name)
            closed.set()

    with still(), capture() as trace:
        h = slow.start(1)
        async for _ in h.chunks():
            break
        while not names:
            await asyncio.sleep(0)
        h.cancel()
        with pytest.raises(asyncio.CancelledError):
            await h
        gate.set()
        assert await asyncio.to_thread(closed.wait, LONG)
    assert len(names) == 2
    assert names[0] == names[1]
    assert trace.runs[0].attributes == {"mai.thread.abandoned": True}


@simulated
async def test_a_generator_in_a_thread_that_waits_for_its_reader_is_freed_by_a_cancel() -> None:
    closed = threading.Event()

    @module
    def many(n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            closed.set()

    with still():
        h = many.start(1000)
        reader = aiter(h.chunks())
        assert await anext(reader) == 0
        await asyncio.to_thread(closed.wait, 0.05)
        assert not closed.is_set()
        h.cancel()
        await h.settled()
        assert await asyncio.to_thread(closed.wait, LONG)
    assert h.outcome == "cancelled"


def test_a_generator_in_a_thread_waits_for_its_reader() -> None:
    made, gate = list[int](), threading.Event()

    @module
    def many(n: int) -> Iterator[int]:
        yield -1
        gate.wait(LONG)
        for i in range(n):
            made.append(i)
            yield i

    reader = iter(many.start(200).chunks())
    assert next(reader) == -1
    gate.set()
    for i in range(200):
        assert next(reader) == i
        assert len(made) <= i + 1 + AHEAD
    assert list(reader) == []


def test_a_full_pool_of_threads_that_read_streams_goes_on() -> None:
    @module
    def reads(text: str) -> str:
        return "-".join(Letters().start(text).chunks())

    async def main() -> Any:
        async with LocalEngine(max_threads=1):
            return await asyncio.wait_for(Parallel(*[reads] * 3)("a" * 40), LONG)

    assert asyncio.run(main()) == ("-".join("a" * 40),) * 3


# ---------------------------------------------------------------- attempts


@simulated
async def test_chunks_tell_their_attempt_and_an_attempt_joins_what_it_started() -> None:
    ended: list[str] = []

    @module
    async def work(text: str) -> str:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(text)
        return text

    @module(retry=Retry(2, base=1.0))
    async def words(text: str) -> AsyncIterator[str]:
        attempt = Context.get().retry_count + 1
        assert len(ended) == attempt - 1
        yield f"{text}{attempt}"
        work.start(f"work of {attempt}")
        await asyncio.sleep(1)
        if attempt == 1:
            raise ConnectionError

    handle = words.start("a")
    events = [event async for event in handle]
    assert await handle == "a2"
    assert ended == ["work of 1", "work of 2"]
    told = [(event.attempt, event.value, event.nested) for event in events if isinstance(event, Chunk)]
    assert told == [(1, "a1", False), (2, "a2", False)]
    kinds = [type(event).__name__ for event in events if event.step_id == "words"]
    assert kinds == ["Started", "Chunk", "Retrying", "Chunk", "Finished"]


def test_a_ring_that_comes_before_its_time_ends_no_wait() -> None:
    bell, looked, over = Bell(), threading.Semaphore(0), list[bool]()

    def ready() -> bool:
        looked.release()
        return bool(over)

    found = list[bool]()
    waiting = threading.Thread(target=lambda: found.append(bell.wait(ready, 20.0)))
    waiting.start()
    for _ in range(30):  # the looks that it takes by itself, one a second, would be too few
        assert looked.acquire(timeout=LONG)
        assert looked.acquire(timeout=LONG)  # from here on it would hear
        bell.ring()
    over.append(True)
    bell.ring()
    waiting.join()
    assert found == [True]
