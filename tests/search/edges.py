"""More shapes: deadlines of every kind, places that are parked, sources of maps, generators that are left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio

from mai import (
    Context,
    DeadlineExceeded,
    LocalEngine,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Retry,
    Sequential,
)
from mai.core.clock import clock
from mai.core.events import AHEAD

from .world import MARK, Chunks, Streaming, Threaded, World, joined

Run = Callable[[], Awaitable[Any]]
_sequential: Any = Sequential


class Doing(Module[Any, Any]):
    """Does what it is given, whatever that calls."""

    def __init__(self, work: Callable[[Any], Awaitable[Any]]) -> None:
        self.work = work

    async def forward(self, x: Any) -> Any:
        """Do it."""
        return await self.work(x)


async def failure(call: Awaitable[Any]) -> str:
    """Return the name of the error that a call ends with."""
    try:
        await call
    except (DeadlineExceeded, ValueError) as error:
        return type(error).__name__
    return "none"


def bounded(world: World) -> Run:
    """Deadlines: of a scope, of anyio, of what a thread calls; of fallbacks and pauses that they do not let begin."""
    never = world.step("never")
    far, first, slower = world.step("far", 9.0), world.step("first", 9.0), world.step("slower", 9.0, cleanup=0.01)
    spoiled = world.step("spoiled", 9.0, stubborn="fail").with_(total_timeout=0.02, fallback=never)
    fresh = first.with_(timeout=0.02, fallback=slower)
    cleans: Any = Parallel(world.step("cleans", 9.0, cleanup=0.01), world.step("beside", 9.0, cleanup=0.0))
    swallows = world.step("swallows", 9.0, stubborn="swallow")
    blocked = Threaded(world, "blocked", ())
    blocked.inner = world.step("below", 90.0)

    async def busy(x: int) -> int:
        with world.inside("busy"):
            await asyncio.sleep(0.01)
            error = world.failure("busy")
            error.retry_after = 9.0  # type: ignore[attr-defined]
            raise error

    async def scope(x: int) -> str:
        with Context.scope(timeout=0.02):
            return await failure(far(x))

    async def foreign(x: int) -> tuple[bool, bool]:
        with anyio.move_on_after(0.02) as own:
            await cleans(x)
        with anyio.move_on_after(0.02) as other:
            await swallows(x)
        return own.cancelled_caught, other.cancelled_caught

    async def at_once(x: int) -> str:
        before = clock.now()
        said = await failure(hasty(x))
        return f"{said} after {clock.now() - before:.2f} s"

    hasty: Any = Doing(busy).with_(retry=Retry(3), total_timeout=0.5)
    calls: Any = Parallel(
        Doing(scope),
        Doing(foreign),
        Doing(at_once),
        Doing(lambda x: failure(spoiled(x))),
        Doing(lambda x: failure(fresh(x))),
        Doing(lambda x: failure(blocked.with_(timeout=0.02)(x))),
    )
    return lambda: calls(0)


BOUNDED = ("DeadlineExceeded", (True, True), "ValueError after 0.01 s", *("DeadlineExceeded",) * 3)


def parked(world: World) -> Run:
    """Places that their branches give back while they wait, and take again: in tasks of theirs, in time, or never."""
    part = {"group": "parked"}

    def branch(i: int) -> Any:
        before, after = world.step(f"before{i}", 0.01, **part), world.step(f"after{i}", 0.03, **part)
        return _sequential(before, NonBlockingDelay(0.015), after)

    delays = [NonBlockingDelay(0.01).with_(name=name) for name in ("left", "right")]

    async def tasks(x: int) -> int:  # its own ones, which give the place back, each at its own time
        with world.inside("tasks"):
            made = [asyncio.create_task(Doing(delay)(x)) for delay in delays]
            try:
                return sum([await task for task in made])
            finally:
                for task in made:
                    task.cancel()
                await joined(*made)

    strand = _sequential(NonBlockingDelay(0.01), world.step("strand"))
    late = _sequential(NonBlockingDelay(0.01), world.step("late")).with_(timeout=0.02)
    strands = Parallel(
        strand, Doing(lambda x: failure(late(x)))
    )  # the late one waits for the place when its time is up
    holds = world.step("holds", 0.06, group="holds")

    async def source() -> AsyncIterator[int]:
        for i in range(4):
            yield i

    parks = Map(_sequential(world.step("fed", 0.005), NonBlockingDelay(0.02)), concurrency=1)
    some: Any = Parallel(*(branch(i) for i in range(5)), limit=2)
    own: Any = Parallel(Doing(tasks), *(world.step(f"t{i}", 0.02, group="tasks") for i in range(5)), limit=2)
    taken: Any = Parallel(strands, holds, limit=1)

    async def items(x: int) -> tuple[list[int], bool]:
        before = clock.now()
        return await parks(source()), clock.now() - before < 0.05  # all of them at the same time

    whole: Any = Parallel(some, own, taken, Doing(items))
    return lambda: whole(0)


PARKED = ((2,) * 5, (0, *(1,) * 5), ((1, "DeadlineExceeded"), 1), ([1, 2, 3, 4], True))


def mapped(world: World) -> Run:
    """Maps over generators that set context variables of their own, and over one that is not to run ahead."""

    def numbers() -> Iterator[int]:
        with world.inside("numbers"):
            yield from range(5)

    async def source() -> AsyncIterator[int]:
        with world.inside("source"):
            for i in range(5):
                await asyncio.sleep(0.0)
                yield i
                if world.active["held"] >= 2:
                    world.wrong.append("an item was taken, and there was no place for it")

    def item(name: str, *seconds: float, **how: Any) -> Any:
        work = world.step(name, *seconds, **how)

        async def one(x: int) -> Any:
            if MARK.get() in ("numbers", "source"):
                world.wrong.append(f"{name} sees what its source has set")
            return await work(x)

        return Doing(one)

    plain = Map(item("plain", 0.01, cleanup=0.0), concurrency=2)
    fed = Map(item("fed", 0.01, group="held"), concurrency=2)
    whole: Any = Parallel(Doing(lambda x: plain(numbers())), Doing(lambda x: fed(source())))
    return lambda: whole(0)


MAPPED = ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])


def left(world: World) -> Run:
    """Generators whose reader leaves them, or whose time is up; they are not further ahead than they may."""
    flood, plain = Streaming(world, "flood", ()), Chunks(world, "plain", ())
    flood.count, plain.count = 2 * AHEAD + 8, 400
    plain.inner = world.step("begins", 0.005)  # so that its reader is there
    flood_, plain_ = flood.with_(name="flood"), plain.with_(name="plain", timeout=0.03)

    async def first(run: Any) -> int:
        async for _ in run.chunks():
            return 1
        return 0

    async def dropped(x: int) -> tuple[int, int]:
        run = flood_.start(x)
        try:
            return await first(run), len(await run)
        finally:
            run.cancel()
            await joined(run=run)

    async def slowly(chunks: AsyncIterator[int]) -> None:
        read = 0
        async for _ in chunks:
            read += 1
            if world.made["plain"] > read + 2 * AHEAD:
                world.wrong.append("the generator is too far ahead")
            await asyncio.sleep(0.001)

    async def in_time(x: int) -> str:
        run = plain_.start(x)
        reader = asyncio.create_task(slowly(aiter(run.chunks())))
        try:
            return await failure(run)
        finally:
            run.cancel()
            try:
                await joined(run=run)  # a generator that nobody reads any more may go on
            finally:
                reader.cancel()
                await joined(reader)

    whole: Any = Parallel(Doing(dropped), Doing(in_time))
    return lambda: whole(0)


LEFT = ((1, 2 * AHEAD + 8), "DeadlineExceeded")


def abandoned(world: World) -> Run:
    """One thread at most: one that is abandoned, which takes its time, leaves room for another."""
    blocked = Threaded(world, "blocked", ())
    blocked.inner = world.step("below", 9.0, cleanup=5.0)
    again = Threaded(world, "again", ())

    async def after(x: int) -> tuple[str, int, bool]:
        said = await failure(blocked.with_(timeout=0.02)(x))
        before = clock.now()
        return said, await again(x), clock.now() - before < 1.0

    made: Any = Doing(after)
    return lambda: made(0)


ABANDONED = ("DeadlineExceeded", 1, True)


def entered(world: World) -> Run:
    """Two tasks that enter one engine, and leave it one after the other."""

    async def calls(x: int) -> list[int]:
        engine = LocalEngine()

        async def enter(name: str, seconds: float) -> int:
            async with engine:
                first = await world.step(f"{name} first", seconds)(x)
                return int((await Parallel(world.step(f"{name} again", 0.01), world.step(f"{name} beside"))(first))[0])

        tasks = [asyncio.create_task(enter(name, seconds)) for name, seconds in (("a", 0.01), ("b", 0.03))]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await joined(*tasks)

    return lambda: calls(0)


ENTERED = [2, 2]
