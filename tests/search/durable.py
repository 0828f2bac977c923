"""The shapes that are journaled: what they do, and how they are killed at every write of their journal."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import mai
from mai import (
    BlockingDelay,
    Conditional,
    Context,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Retry,
    Sequential,
    UnknownRun,
    module,
)
from mai.durable import DurableEngine, MemoryJournal
from mai.testing import SimulatedFault, crash_check, replay_check

from .world import World

_sequential: Any = Sequential


def flow(world: World) -> Any:
    """Return a flow with every composite; its steps are those of *world*."""
    g = Graph("dag")
    x = g.input("x", int)
    a = g.add(typed(world, "a", 0.01), x)
    g.output((g.add(typed(world, "b", 0.0), a), g.add(typed(world, "c", 0.02), a)))
    steady = typed(world, "steady", 0.01)

    async def unsteady(x: int) -> int:  # fails at first in each run anew
        if Context.get().retry_count == 0:
            raise world.failure("unsteady")
        return await steady.forward(x)

    again = module(unsteady).with_(retry=Retry(3, base=0.01))
    spare = typed(world, "broken", 0.0, fails=1 << 60).with_(fallback=typed(world, "spare", 0.01))
    turns = Loop(typed(world, "turn", 0.01), max_iters=2)
    choice = Conditional(lambda x: x > 0, then=typed(world, "then"), otherwise=typed(world, "otherwise", 0.0))
    items = _sequential(lambda x: [x, x + 1, x + 2], Map(typed(world, "item", 0.01), concurrency=2), sum)
    waits = _sequential(NonBlockingDelay(60.0), typed(world, "late"), BlockingDelay(0.5))
    return Parallel(g, again, spare, turns, choice, items, waits, limit=3).with_(name="flow")


FLOW = ((2, 2), 1, 1, 2, 1, 6, 1)


def typed(world: World, name: str, *seconds: float, **how: Any) -> Module[Any, Any]:
    """Return a step that takes and gives an int, as a journal has to know."""
    work = world.step(name, *seconds, **how)

    async def step(x: int) -> int:
        return int(await work.forward(x))

    return module(step).with_(name=name)


def durable(world: World) -> Callable[[], Any]:
    """A flow with every composite under a durable engine."""
    made = flow(world)

    async def run() -> Any:
        async with DurableEngine(MemoryJournal(), errors=[SimulatedFault]) as engine:
            return await engine.start(made, 0, run_id="r")

    return run


def parcel(world: World) -> Any:
    """Return a flow that waits for two signals and a person."""
    before, after = typed(world, "before", 0.01), typed(world, "after", 0.01)

    async def signalled(x: int) -> int:
        x = await before(x)
        paid = await mai.wait_for("paid", int)
        sure = await mai.ask("Sure?", bool)
        return await after(x + paid + await mai.wait_for("sent", int)) if sure else -1

    return module(flow=True)(signalled)


PARCEL = 14


async def serve(engine: Any) -> None:
    """Send the signals and answer the question, whichever process carries the run on; no signal counts twice."""
    info = None
    while info is None:
        await asyncio.sleep(0.005)
        with suppress(UnknownRun):
            info = await engine.info("checked")
    await engine.signal("checked", "sent", 7, id="sent")
    await asyncio.sleep(0.02)
    await engine.signal("checked", "paid", 5, id="paid")
    while True:
        await asyncio.sleep(0.5)
        info = await engine.info("checked")
        for path, name in info.waits.items():
            if "ask" in path:
                await engine.answer("checked", True, question=name)


def killed(name: str, seeds: range) -> int:
    """Kill a shape at every write of its journal and after every record; return how often it died."""
    died = 0
    for seed in seeds:
        world = World()
        made, wanted = (flow(world), FLOW) if name == "durable" else (parcel(world), PARCEL)
        during = None if name == "durable" else serve
        for check in (crash_check, replay_check):
            order: Any = ("random", "pct")[seed % 2]
            seen = check(made, 0, journal=MemoryJournal, engine=DurableEngine, during=during, seeds=[seed], order=order)
            assert seen.value == wanted, seen
            died += seen.interruptions
    return died
