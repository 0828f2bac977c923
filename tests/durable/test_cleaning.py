"""A flow that was cut off cleans up, also where its past is repeated: that takes time, and may do something new."""

import asyncio
from typing import Any

import pytest

from mai import NonBlockingDelay, Parallel, module
from tests.durable.benches import MemoryBench
from tests.support import simulated


@module
async def slow(n: int) -> int:
    await asyncio.sleep(1)
    return n


@module
async def broken(n: int) -> int:
    await asyncio.sleep(0.1)
    raise LookupError("nothing left")


@module
async def tidy(n: int) -> int:
    return n


@module(flow=True)
async def waits(n: int) -> int:
    try:
        return await slow(n)
    finally:
        await asyncio.sleep(0.05)


@module(flow=True)
async def calls(n: int) -> int:
    try:
        return await slow(n)
    finally:
        await tidy(n)


@pytest.mark.parametrize("flow", [waits, calls])
@simulated
async def test_a_flow_that_was_cut_off_cleans_up_in_its_own_time(flow: Any) -> None:
    @module(flow=True)
    async def outer(n: int) -> int:
        try:
            await Parallel(flow, broken)(n)
        except LookupError:
            await NonBlockingDelay(3600)(n)
        return n

    bench = MemoryBench()
    async with bench.engine() as engine:
        assert await engine.start(outer, 1, run_id="r") == 1
    for at in range(6):
        bench = MemoryBench()
        found = await bench.killed(outer, 1, "r", at, after=True)
        found = found or await bench.killed(outer, 1, "r", -1)
        assert found is not None
        assert (found.value, found.error) == (1, None)
