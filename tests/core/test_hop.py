"""Deep nests: every 64 calls the body goes on in a joined task, and all promises hold across it."""

import asyncio
import contextvars
import itertools
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from mai import DeadlineExceeded, capture, module
from mai.testing import Trial, explore
from tests.support import loop_of, recorded_spans, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")
DEPTH = 200
log: list[str] = []


@module
async def late(n: int, limit: float | None) -> Any:
    if n:
        return await late.with_(timeout=limit if n == 1 else None, limit=limit)(n - 1)
    await asyncio.sleep(1)
    raise ValueError("in the tick of the cancel")


@module
async def deep(n: int) -> Any:
    mark.set(f"{n}")
    if n:
        return await deep(n - 1)
    return await bottom(0)


@module
async def bottom(n: int) -> Any:
    log.append(mark.get())
    try:
        await asyncio.sleep(5)
    finally:
        await asyncio.sleep(1)
        log.append("cleaned up")


@module
async def fails(n: int) -> Any:
    if n:
        return await fails(n - 1)
    raise ValueError("at the bottom")


@simulated
async def test_a_cancel_reaches_the_bottom_and_waits_for_its_clean_up() -> None:
    log.clear()
    task = asyncio.ensure_future(deep(DEPTH))
    await asyncio.sleep(2)
    assert len(asyncio.all_tasks()) == 2 + (DEPTH + 2) // 64
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["0", "cleaned up"]
    assert loop_of().time() == 1003
    assert mark.get() == "clean"


@simulated
async def test_a_cancel_in_the_tick_of_a_failure_wins_below_a_hop_as_it_does_above() -> None:
    for n, limit, turns in itertools.product((10, 62, 63, 64, DEPTH), (None, 0.5), range(10)):
        task = asyncio.ensure_future(late.with_(limit=limit)(n))
        await asyncio.sleep(limit or 1.0)
        for _ in range(turns):
            await asyncio.sleep(0)
        met = task.cancel()
        with pytest.raises(asyncio.CancelledError if met else ValueError if limit is None else DeadlineExceeded):
            await task


@simulated
async def test_a_cancel_in_the_tick_of_a_success_wins_below_a_hop_as_it_does_above() -> None:
    @module
    async def nest(n: int) -> str:
        if n:
            return await nest(n - 1)
        await asyncio.sleep(1)
        return "value"

    for n, turns in itertools.product((10, 62, 63, 64, DEPTH), range(10)):
        task = asyncio.ensure_future(nest(n))
        await asyncio.sleep(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task == "value"


@pytest.mark.parametrize("observed", [False, True])
@simulated
async def test_a_step_just_below_a_hop_that_swallows_its_own_timeout_is_late_all_the_same(observed: bool) -> None:
    @module
    async def swallows(n: int) -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        return n

    @module
    async def above(n: int) -> int:
        return await (above if n else swallows.with_(timeout=1))(max(0, n - 1))

    task = asyncio.current_task()
    assert task is not None
    for n in range(60, 66):
        with capture() if observed else nullcontext() as trace, pytest.raises(DeadlineExceeded):
            await above(n)
        assert task.cancelling() == 0
        if trace is not None:
            assert [h.name for h in trace.runs[0].walk() if h.outcome == "timeout"][-1:] == ["swallows"]


@simulated
async def test_a_deadline_reaches_the_bottom_and_is_told_from_a_cancel() -> None:
    for n in (62, 63, 64, 65, DEPTH):
        log.clear()
        with pytest.raises(DeadlineExceeded):
            await deep.with_(timeout=2.0)(n)
        assert log == ["0", "cleaned up"]
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@simulated
async def test_a_deadline_just_below_a_hop_is_told_from_a_cancel() -> None:
    @module
    async def nest(n: int) -> Any:
        inner = nest.with_(timeout=2.0) if n == 1 else nest
        return await inner(n - 1) if n else await asyncio.sleep(5)

    for n in (61, 62, 63, 64, 65, 66):
        with pytest.raises(DeadlineExceeded):
            await nest(n)


@simulated
async def test_an_error_from_the_bottom_names_its_step_once() -> None:
    with pytest.raises(ValueError, match="at the bottom") as caught:
        await fails(DEPTH)
    assert caught.value.__notes__ == ["mai: in " + "/".join(["fails"] * (DEPTH + 1))]


@simulated
async def test_the_trace_has_every_level() -> None:
    with capture() as trace, pytest.raises(ValueError, match="at the bottom"):
        await fails(DEPTH)
    handles = [*trace.runs[0].walk()]
    assert len(handles) == DEPTH + 1
    assert {h.outcome for h in handles} == {"error"}


@simulated
async def test_a_step_below_a_hop_that_cancels_itself_is_no_success() -> None:
    @module
    async def nest(n: int) -> Any:
        if n:
            return await nest(n - 1)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await nest(DEPTH)


@simulated
async def test_a_step_below_a_hop_that_swallows_a_cancel_does_not_win() -> None:
    @module
    async def nest(n: int) -> Any:
        if n:
            return await nest(n - 1)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "swallowed"

    task = asyncio.ensure_future(nest(DEPTH))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(DeadlineExceeded):
        await nest.with_(timeout=1.0)(DEPTH)


def test_a_call_that_is_cancelled_before_it_begins_below_a_hop_has_ended_all_the_same() -> None:
    traces: list[Any] = []

    async def main() -> Any:
        with recorded_spans() as exporter, capture() as trace:
            traces[:] = [trace, exporter]
            return await deep(DEPTH)

    def look(trial: Trial[Any]) -> None:
        trace, exporter = traces
        handles = list(trace.runs[0].walk()) if trace.runs else []
        assert [h.step_id for h in handles if h.outcome == "running"] == []
        assert len(exporter.get_finished_spans()) == len(handles)

    seen = explore(main, seeds=4, at_every_step="cancel", check=look)
    assert seen.runs > 30
