"""The shapes: pipelines that have, each, one thing to do that depends on order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from mai import (
    BlockingDelay,
    Conditional,
    Context,
    DeadlineExceeded,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Race,
    Retry,
    Sequential,
    Switch,
    ask,
    emit,
    module,
)
from mai.core.clock import clock
from mai.types import Asked

from .durable import BOOKS, FLOW, booked, durable
from .edges import (
    ABANDONED,
    BOUNDED,
    ENTERED,
    LEFT,
    MAPPED,
    PARKED,
    abandoned,
    bounded,
    entered,
    left,
    mapped,
    parked,
)
from .world import Chunks, Streaming, Threaded, World, joined

Run = Callable[[], Awaitable[Any]]
_sequential: Any = Sequential  # of modules that are made here its overloads know nothing


@dataclass(frozen=True)
class Shape:
    """One kind of pipeline.

    Attributes:
        name: What it is about.
        build: Builds it in a world; what it returns runs it.
        expected: What it gives if nothing meets it.
        errors: Or the types of the errors that it may end with.
        limits: How many steps of a group may run at once.
        max_threads: Worker threads of its engine.
        guards: It catches failures itself, so that after a fault it may give another value.
        unloads: After a cancel its calls have not ended: others carry them on.
        abandons: Calls of its threads outlive those that have abandoned the thread.
        within: How long it may take if nothing meets it [simulated s].
        uncaught: Steps whose failures must all be in the error that it ends with.
    """

    name: str
    build: Callable[[World], Run]
    expected: Any = None
    errors: tuple[type[BaseException], ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    max_threads: int = 64
    guards: bool = False
    unloads: bool = False
    abandons: bool = False
    within: float = 0.0
    uncaught: tuple[str, ...] = ()


class Nest(Module[Any, Any]):
    """Calls another module, and nothing else."""

    def __init__(self, inner: Module[Any, Any]) -> None:
        self.inner = inner

    async def forward(self, x: Any) -> Any:
        """Call it."""
        return await self.inner(x)


def deep(world: World) -> Run:
    """240 calls, one inside the other, with two branches at the bottom: three hops to a fresh stack; and a failure."""
    made: Any = Parallel(world.step("left", 0.01, 0.0, cleanup=0.01), world.step("right", 0.0, 0.01))
    for _ in range(240):
        made = Nest(made)
    fails: Any = world.step("fails", 0.01, fails=9)
    for _ in range(70):
        fails = Nest(fails)
    goes_on = world.step("goes on", 0.1)

    class Guard(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            try:
                return await fails(x)
            except ValueError as error:
                if not any("/fails" in note for note in error.__notes__):
                    world.wrong.append(f"it does not say where it began: {error.__notes__}")
                return await goes_on(x)

    all_of_them: Any = Parallel(made, Guard(), Guard(), Guard())
    whole = all_of_them.with_(timeout=60)
    return lambda: whole(1)


def wide(world: World) -> Run:
    """40 branches; some never wait, some only yield, some wait for the same moment."""
    waits: list[tuple[float, ...]] = [(), (0.0,), (0.01,), (0.0, 0.0), (0.02, 0.0), (0.01, 0.01), (), (0.02,)]
    branches = [world.step(f"b{i}", *waits[i % 8], cleanup=0.0 if i % 3 else -1) for i in range(40)]
    made = Parallel(*branches)
    return lambda: made(0)


def nested(world: World) -> Run:
    """Composites inside composites, and a graph."""
    g = Graph("dag")
    x = g.input("x", int)
    a, b = g.add(world.step("a", 0.01, gives=int), x), g.add(world.step("b", 0.0, gives=int), x)
    both = g.add(_sequential(lambda pair: pair, sum).with_(name="both"), (a, b))
    g.output((both, g.add(world.step("c", 0.02, cleanup=0.01), a), g.add(world.step("d"), b)))
    fork = Conditional(lambda x: x > 0, then=world.step("then", 0.01), otherwise=world.step("otherwise"))
    turn = Loop(world.step("turn", 0.0, 0.01), max_iters=3)
    case = Switch(lambda x: x % 2, {0: world.step("even", 0.01), 1: world.step("odd", 0.01)})
    inner = Parallel(world.step("i", 0.01), world.step("j", 0.01, cleanup=0.02), world.step("k"), limit=2)
    branches = Parallel(fork, turn, case, _sequential(inner, sum), g)
    made: Any = _sequential(world.step("first", 0.0), branches)
    return lambda: made(0)


def delayed(world: World) -> Run:
    """Places under a limit, given back while their branches are parked."""

    def branch(i: int) -> Any:
        work = {"group": "places"}
        delay = NonBlockingDelay(0.03) if i % 3 else BlockingDelay(0.03)
        strands = Parallel(NonBlockingDelay(0.02), NonBlockingDelay(0.03 * i))
        before, after = world.step(f"before{i}", 0.01, **work), world.step(f"after{i}", 0.01, cleanup=0.0, **work)
        return _sequential(before, delay, strands, sum, after)

    made: Any = Parallel(*(branch(i) for i in range(5)), limit=2)
    return lambda: made(0)


def limited(world: World) -> Run:
    """A Map over an async source, whose items are Parallels with a limit of their own."""

    async def source() -> AsyncIterator[int]:
        for i in range(6):
            await asyncio.sleep(0.01 if i % 2 else 0.0)
            yield i

    inner = Parallel(
        world.step("x", 0.01, group="inner"),
        world.step("y", 0.0, group="inner"),
        world.step("z", group="inner"),
        limit=1,
    )
    steps = _sequential(world.step("item", 0.01, cleanup=0.01), inner, sum)

    class Whole(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            with world.inside("whole", "items"):
                return await steps(x)

    items = Map(Whole(), concurrency=3, progress=True)

    class All(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            return await items(source())

    made: Any = All()
    return lambda: made(0)


def failing(world: World) -> Run:
    """Several branches fail at once, one in its clean-up; some are caught."""
    third = world.step("third", 0.5, cleanup=0.01, stubborn="fail")
    caught: Any = Parallel(world.step("e", 0.01, fails=9), world.step("f", 0.02), on_error="collect")
    g = Graph("partial", on_error="collect")
    x = g.input("x", int)
    g.output((g.add(world.step("g", 0.01, fails=9), x), g.add(world.step("h", 0.02), x)))

    started, before = world.step("started", 1.0, cleanup=0.0), world.step("before", 0.001)

    class Leaves(Module[Any, Any]):
        async def forward(self, x: int) -> int:
            started.start(x)
            await before(x)
            raise world.failure("leaves")

    leaves: Any = Leaves()

    at_once: Any = Parallel(world.step("at once", 0.0, fails=9), *(world.step(f"m{i}", 0.0) for i in range(3)))
    torn = Streaming(world, "torn", (0.001,), fails=9).with_(name="torn")

    class Guard(Module[Any, Any]):
        async def forward(self, x: int) -> int:
            for call in (leaves, at_once, torn):
                try:
                    await call(x)
                except ValueError:
                    continue
                world.wrong.append(f"{call} did not fail")
            try:
                await g(x)
            except ExceptionGroup:
                pass
            values: Any = await caught(x)
            if not isinstance(values[1], Exception) and values[1] != x + 1:
                world.wrong.append(f"the other branch gave {values[1]!r}")
            return x

    several = Parallel(world.step("one", 0.01, fails=9), world.step("two", 0.01, fails=9), third)
    made: Any = _sequential(world.step("first"), Guard(), several)
    return lambda: made(0)


def retrying(world: World) -> Run:
    """Attempts with backoff, timeouts of attempts, fallbacks, middleware."""

    async def around(call: Any, following: Any) -> Any:
        await asyncio.sleep(0.0)
        return await following(call)

    async def stubborn(call: Any, following: Any) -> Any:  # asks again, whatever it was
        try:
            return await following(call)
        except BaseException:  # noqa: BLE001 (what it must not come through with)
            world.cleanup += 0.05
            await asyncio.sleep(0.05)
            return await following(call)

    policy = Retry(3, base=0.01, on=lambda error: True)
    unsteady = world.step("unsteady", 0.01, fails=2, cleanup=0.0).with_(retry=policy, middleware=around)
    late = world.step("late", 9.0, cleanup=0.01).with_(timeout=0.05, retry=Retry(2, base=0.01), fallback=lambda x: x)
    broken = world.step("broken", 0.0, fails=99).with_(
        fallback=(world.step("also", fails=99), world.step("spare", 0.01))
    )
    many = world.step("many", 0.01, fails=3).with_(retry=Retry(5, base=0.01)).map(concurrency=2)
    spoiled = world.step("spoiled", 0.02, 0.02, stubborn="fail").with_(retry=Retry(3, base=0.5))
    again = world.step("again", 0.01, fails=1).with_(middleware=stubborn)

    async def itself(x: int) -> int:
        with world.inside("itself"):
            await asyncio.sleep(0.01)
            raise asyncio.CancelledError

    own = module(itself).with_(retry=policy)

    class Alone(Module[Any, Any]):
        async def forward(self, x: int) -> int:
            try:
                await own(x)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            return world.begun["itself"]

    whole = _sequential(lambda x: [x] * 3, many)
    made: Any = Parallel(unsteady, late, broken, whole, spoiled, again, Alone())
    return lambda: made(0)


def streaming(world: World) -> Run:
    """Runs that were started, read by several readers, of which one leaves early."""
    words = Streaming(world, "words", (0.01,)).with_(name="words")
    plain = Chunks(world, "plain", ()).with_(name="plain")

    fan: Any = Parallel(words, _sequential(plain, sum), world.step("beside", 0.015, cleanup=0.01))

    class Talk(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            emit("begins")
            run = fan.start(x)
            early, all_of_it = asyncio.create_task(self.first(run)), asyncio.create_task(self.every(run))
            try:
                value = await run
                return value, await early, await all_of_it
            finally:
                early.cancel()
                all_of_it.cancel()
                await joined(early, all_of_it)

        async def first(self, run: Any) -> int:
            async for _ in run.chunks():
                return 1
            return 0

        async def every(self, run: Any) -> list[Any]:
            async with aclosing(aiter(run.chunks())) as chunks:
                return sorted([chunk async for chunk in chunks])

    made: Any = Talk()
    return lambda: made(0)


def flooding(world: World) -> Run:
    """Generators that are ahead of a slow reader as far as they may, and wait for it."""
    flood, plain = Streaming(world, "flood", ()), Chunks(world, "plain", ())
    flood.count = plain.count = 18
    fan: Any = Parallel(flood.with_(name="flood"), plain.with_(name="plain"))

    class Slow(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            run = fan.start(x)
            reader = asyncio.create_task(self.read(run))
            try:
                return [len(chunks) for chunks in await run], await reader
            finally:
                reader.cancel()
                await joined(reader)

        async def read(self, run: Any) -> int:
            count = 0
            async with aclosing(aiter(run.chunks())) as chunks:
                async for _ in chunks:
                    count += 1
                    await asyncio.sleep(0.001)
            return count

    made: Any = Slow()
    return lambda: made(0)


def cancelling(world: World) -> Run:
    """Races, timeouts that are swallowed or caught, runs and tasks that are cancelled."""
    race = Race(
        world.step("fast", 0.02, cleanup=0.0),
        world.step("slow", 0.05, cleanup=0.01),
        world.step("stubborn", 0.05, stubborn="swallow"),
        world.step("broken", 0.0, fails=9),
    )

    swallows = world.step("swallows", 1.0, stubborn="swallow").with_(timeout=0.01)
    started, tasked = world.step("started", 1.0, cleanup=0.01), world.step("tasked", 1.0, cleanup=0.01)
    before = world.step("before", 0.02)

    class Timed(Module[Any, Any]):
        async def forward(self, x: int) -> str:
            try:
                return str(await swallows(x))
            except DeadlineExceeded:
                return "late"

    class Stops(Module[Any, Any]):
        async def forward(self, x: int) -> str:
            run, task = started.start(x), asyncio.create_task(tasked(x))
            try:
                await before(x)
            finally:
                run.cancel()
                task.cancel()
                await joined(task, run=run)
            return f"{run.outcome} {task.cancelled() or task.exception()}"

    async def itself(x: int) -> int:
        raise asyncio.CancelledError

    holed: Any = Parallel(world.step("beside", 0.02, cleanup=0.0), itself)

    class Alone(Module[Any, Any]):
        async def forward(self, x: int) -> str:
            try:
                await holed(x)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                return "no success"
            return "a success with a hole"

    wins: Any = Race(itself, world.step("wins", 0.01), world.step("loses", 0.05))
    made: Any = Parallel(race, Timed(), Stops(), Alone(), wins)
    return lambda: made(0)


def expiring(world: World) -> Run:
    """A deadline that is met: after the steps that came in time, by one who swallows it and by one who goes on."""
    quick = world.step("quick", 0.01).with_(timeout=0.015)
    inner = world.step("inner", gives=lambda x: Context.get().deadline).with_(timeout=60)
    swallows, never = world.step("swallows", 1.0, stubborn="swallow"), world.step("never")

    class Bounded(Module[Any, Any]):
        async def forward(self, x: int) -> int:
            if await inner(x) != Context.get().deadline:
                world.wrong.append("inner has a deadline that is not the inherited one")
            return x

    class GoesOn(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            try:
                await swallows(x)
            except (DeadlineExceeded, asyncio.CancelledError):
                deadline = Context.get().deadline
                if deadline is None or clock.now() < deadline:  # a cancel from outside
                    raise
            return await never(x)

    last: Any = Parallel(Bounded(), GoesOn(), world.step("beside", 0.01), world.step("cleans", 9.0, cleanup=0.0))
    made = _sequential(quick, world.step("after", 0.02), last).with_(timeout=0.05)
    return lambda: made(0)


def threaded(world: World) -> Run:
    """More plain steps than threads, which call async steps from there."""

    def plain(name: str, inner: Module[Any, Any] | None = None) -> Any:
        step = Threaded(world, name, ())
        step.inner = inner
        return step.with_(name=name)

    deepest = plain("deepest")
    inner = _sequential(world.step("async", 0.01, cleanup=0.0), deepest)
    branches = [plain(f"t{i}", inner.with_(name=f"inner{i}")) for i in range(4)]
    made: Any = Parallel(*branches, plain("lone"), Chunks(world, "chunks", ()).with_(name="chunks"))
    return lambda: made(0)


def signalled(world: World) -> Run:
    """Questions that are answered in any order, too late, or never."""

    async def question(x: int) -> int:
        return x + await ask("How many?", int, timeout=5)

    async def unanswered(x: int) -> int:
        try:
            return await ask("Anyone?", int, timeout=0.03)
        except DeadlineExceeded:
            return -1

    fan: Any = Parallel(question, question, unanswered, world.step("beside", 0.02))

    class Asks(Module[Any, Any]):
        async def forward(self, x: int) -> Any:
            run = fan.start(x)
            clerk = asyncio.create_task(self.answer(run))
            try:
                return await run
            finally:
                clerk.cancel()
                await joined(clerk)

        async def answer(self, run: Any) -> None:
            async for event in run:
                if isinstance(event, Asked) and event.question.prompt == "How many?":
                    await asyncio.sleep(0.01)
                    run.answer(5, event.question)

    made: Any = Asks()
    return lambda: made(0)


SHAPES = (
    Shape("deep", deep, ((2, 2), 2, 2, 2), guards=True, within=0.12),
    Shape("wide", wide, (1,) * 40, within=0.02),
    Shape("nested", nested, (2, 4, 2, 6, (2, 2, 2)), within=0.04),
    Shape("delayed", delayed, (3,) * 5, limits={"places": 2}, within=0.21),
    Shape("limited", limited, [6, 9, 12, 15, 18, 21], limits={"items": 3, "inner": 3}, within=0.08),
    Shape(
        "failing", failing, errors=(ValueError, ExceptionGroup), guards=True, within=0.065,
        uncaught=("one", "two", "third"),
    ),
    Shape("retrying", retrying, (1, 0, 1, [1, 1, 1], 1, 1, 1), guards=True, within=0.16),
    Shape("streaming", streaming, (([0, 1, 2], 3, 1), 1, [0, 0, 1, 1, 2, 2]), guards=True, within=0.03),
    Shape("flooding", flooding, ([18, 18], 36), guards=True, within=0.06),
    Shape("cancelling", cancelling, (1, "late", "cancelled True", "no success", 1), guards=True, within=0.03),
    Shape("expiring", expiring, errors=(DeadlineExceeded,), within=0.05),
    Shape("bounded", bounded, BOUNDED, guards=True, within=0.1),
    Shape("parked", parked, PARKED, limits={"parked": 2, "tasks": 2, "holds": 1}, guards=True, within=0.3),
    Shape("mapped", mapped, MAPPED, limits={"held": 2}, guards=True, within=0.06),
    Shape("left", left, LEFT, guards=True, within=0.1),
    Shape("abandoned", abandoned, ABANDONED, max_threads=1, guards=True, abandons=True, within=0.1),
    Shape("entered", entered, ENTERED, within=0.05),
    Shape("threaded", threaded, (3, 3, 3, 3, 1, [0, 1, 2]), max_threads=2, within=0.1),
    Shape("durable", durable, FLOW, guards=True, unloads=True, within=60.6),
    Shape("booked", booked, BOOKS, guards=True, unloads=True, within=0.1),
    Shape("signalled", signalled, (5, 5, -1, 1), guards=True, within=0.03),
)  # fmt: skip
