"""Delays: pauses that pass their input through; their places under a limit are tested with the branch runner."""

import asyncio
import math
from typing import Any

import pytest

from mai import (
    BlockingDelay,
    ConfigError,
    Context,
    DeadlineExceeded,
    NonBlockingDelay,
    WiringError,
    capture,
    module,
)
from tests.support import loop_of, refused_value, simulated

BOTH = pytest.mark.parametrize("delay", [BlockingDelay, NonBlockingDelay])


@BOTH
@simulated
async def test_a_delay_takes_its_time_and_passes_the_very_input_through(delay: Any) -> None:
    began, value = loop_of().time(), object()
    assert await delay(2.5)(value) is value
    assert loop_of().time() == began + 2.5
    assert await delay(0)(value) is value
    assert loop_of().time() == began + 2.5


@BOTH
@simulated
async def test_a_delay_counts_against_every_deadline(delay: Any) -> None:
    began = loop_of().time()
    with pytest.raises(DeadlineExceeded):
        await delay(5).with_(timeout=2)("x")
    with Context.scope(timeout=1), pytest.raises(DeadlineExceeded):
        await (delay(0.6) >> delay(0.6))("x")
    assert loop_of().time() == began + 3


@BOTH
@simulated
async def test_others_go_on_meanwhile(delay: Any) -> None:
    began = loop_of().time()
    await (delay(2) & delay(3) & delay(1))("x")
    assert loop_of().time() == began + 3


@BOTH
@simulated
async def test_a_delay_can_be_cancelled(delay: Any) -> None:
    task = asyncio.create_task(delay(5)("x"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@BOTH
def test_a_delay_tells_its_seconds_and_takes_any_type(delay: Any) -> None:
    assert delay(2).seconds == 2.0
    assert delay(2).Out is Any
    assert delay(0).run("x") == "x"


@BOTH
def test_the_seconds_can_be_set_like_any_setting_and_are_checked_the_same(delay: Any) -> None:
    assert delay(2).with_(name="polite").settings.name == "polite"
    with pytest.raises(ConfigError, match="has no setting 'second"):
        delay(2).with_(seconds=3)


@BOTH
@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, math.inf, "1", None, True])
def test_a_pause_is_a_finite_number_from_zero(delay: Any, seconds: Any) -> None:
    with refused_value(delay.__name__, "seconds", seconds):
        delay(seconds)


@BOTH
@simulated
async def test_kind_and_name_are_in_the_trace(delay: Any) -> None:
    with capture() as trace:
        await delay(1)("x")
    kinds = {"BlockingDelay": "blocking_delay", "NonBlockingDelay": "non_blocking_delay"}
    assert (trace.runs[0].name, trace.runs[0].kind) == (delay.__name__, kinds[delay.__name__])
    assert trace.runs[0].duration == pytest.approx(1)


@BOTH
@simulated
async def test_forward_itself_may_be_called(delay: Any) -> None:
    began = loop_of().time()
    assert await delay(1).forward("x") == "x"
    assert loop_of().time() == began + 1


@BOTH
def test_an_edge_through_a_delay_is_checked_and_spread_as_without_it(delay: Any) -> None:
    @module
    async def pair(text: str) -> tuple[str, int]:
        return text, len(text)

    @module
    async def repeat(text: str, n: int) -> str:
        return text * n

    @module
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert (pair >> delay(0) >> delay(0) >> repeat).run("ab") == "abab"
    with pytest.raises(WiringError, match="cannot connect repeat -> total"):
        repeat.with_(n=1) >> delay(0) >> total
