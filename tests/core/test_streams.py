"""Generator forwards: their chunks, their end, and who drives them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from mai import Conditional, Context, LocalEngine, Module, Parallel, Retry, capture, module
from mai.core.events import AHEAD
from mai.types import Chunk
from tests.core.test_events import read_into
from tests.support import recorded_spans, simulated, still

LONG = 20.0
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
            gates[i].wait(LONG)
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
