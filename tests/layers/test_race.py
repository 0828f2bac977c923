"""Race: the first success wins, the others are cancelled and joined."""

import asyncio
from typing import Any

import pytest

from mai import DeadlineExceeded, Module, Race, WiringError, capture, module
from tests.support import loop_of, refused, simulated


class Runner(Module):
    def __init__(self, label: str, seconds: float = 1, *, fail: bool = False, cleanup: float = 0) -> None:
        self.label, self.seconds, self.fail, self.cleanup = label, seconds, fail, cleanup
        self.log: list[str] = []

    async def forward(self, x: str) -> str:
        self.log.append("begins")
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.fail:
                raise ValueError(self.label)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            await asyncio.sleep(self.cleanup)
            self.log.append("clean")
            raise
        return self.label + x


@module
async def length(text: str) -> int:
    return len(text)


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@simulated
async def test_the_first_success_wins_and_the_others_are_cancelled_and_joined() -> None:
    slow, fast, slower = Runner("slow", 3, cleanup=5), Runner("fast", 1), Runner("slower", 9)
    began = loop_of().time()
    assert await Race(slow, fast, slower)("!") == "fast!"
    assert loop_of().time() == began + 1 + 5
    assert slow.log == slower.log == ["begins", "cancelled", "clean"]


@simulated
async def test_a_step_that_gives_its_value_without_waiting_wins_before_later_ones_begin() -> None:
    later = Runner("later")
    assert await Race(length, later)("abc") == 3
    assert later.log == []


@simulated
async def test_of_several_that_succeed_at_the_same_moment_one_wins() -> None:
    assert await Race(*(Runner(label) for label in "abc"))("!") in ("a!", "b!", "c!")


@simulated
async def test_a_failure_is_out_of_the_race_and_the_others_go_on() -> None:
    assert await Race(Runner("bad", 0, fail=True), Runner("worse", 1, fail=True), Runner("good", 2))("!") == "good!"


@simulated
async def test_where_all_fail_one_failure_raises_itself_and_several_a_group() -> None:
    with pytest.raises(ValueError, match=r"^bad") as one:
        await Race(Runner("bad", fail=True))("!")
    assert one.value.__notes__[0].startswith("mai: in Race[0]/Runner")
    with pytest.raises(ExceptionGroup, match=r"^2 branches of Race failed") as both:
        await Race(Runner("bad", fail=True), Runner("worse", 2, fail=True))("!")
    assert [str(error) for error in both.value.exceptions] == ["bad", "worse"]


@simulated
async def test_a_step_that_cancels_itself_is_no_success() -> None:
    @module
    async def gives_up(x: str) -> str:
        raise asyncio.CancelledError("enough")

    assert await Race(gives_up, Runner("good"))("!") == "good!"
    with pytest.raises(ValueError, match="bad"):
        await Race(gives_up, Runner("bad", fail=True))("!")
    with pytest.raises(asyncio.CancelledError):
        await Race(gives_up, gives_up)("!")


@simulated
async def test_a_failure_in_the_cleanup_of_a_loser_does_not_touch_the_value() -> None:
    @module
    async def sore(x: str) -> str:
        try:
            await asyncio.sleep(9)
        finally:
            raise ValueError("sore loser")

    assert await Race(sore, Runner("good"))("!") == "good!"


@simulated
async def test_a_loser_that_swallows_its_cancel_does_not_win() -> None:
    @module
    async def stubborn(x: str) -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    assert await Race(stubborn, Runner("good"))("!") == "good!"


@simulated
async def test_a_cancel_of_the_caller_ends_all_and_joins_them() -> None:
    one, two = Runner("one", 9, cleanup=2), Runner("two", 9)
    task = asyncio.create_task(Race(one, two)("!"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.log == two.log == ["begins", "cancelled", "clean"]
    assert loop_of().time() == 1003


@simulated
async def test_what_ends_the_interpreter_ends_the_race() -> None:
    @module
    async def stops(x: str) -> str:
        await asyncio.sleep(1)
        raise SystemExit(3)

    for steps in ((stops, Runner("late", 2)), (Runner("bad", 0.5, fail=True), stops, Runner("late", 2))):
        with pytest.raises(SystemExit):
            await Race(*steps)("!")


@simulated
async def test_a_timeout_of_a_step_is_a_failure_and_one_of_the_race_ends_it() -> None:
    assert await Race(Runner("slow", 9).with_(timeout=1), Runner("good", 2))("!") == "good!"
    with pytest.raises(DeadlineExceeded):
        await Race(Runner("slow", 9), Runner("slower", 9)).with_(timeout=1)("!")


@simulated
async def test_none_is_a_value() -> None:
    nothing = module(lambda x: None).with_(inline=True)
    assert await Race(nothing, Runner("late"))("!") is None


@simulated
async def test_the_index_of_the_winner_is_in_the_trace() -> None:
    with capture() as trace:
        await Race(Runner("slow", 3), Runner("fast"))("!")
        with pytest.raises(ValueError, match="bad"):
            await Race(Runner("bad", fail=True))("!")
    won, lost = trace.runs
    assert (won.kind, won.attributes["mai.decision"]) == ("race", 1)
    assert [(h.step_id, h.outcome) for h in won.children] == [
        ("Race[0]/Runner", "cancelled"), ("Race[1]/Runner", "ok"),
    ]  # fmt: skip
    assert "mai.decision" not in lost.attributes


@simulated
async def test_steps_share_the_input_unless_isolated() -> None:
    async def change(values: list[int]) -> list[int]:
        values.append(len(values))
        return values

    mine = [0]
    assert await Race(change, change)(mine) is mine
    assert await Race(change, change).with_(isolate=True)(mine) == [0, 1, 2]
    assert mine == [0, 1]


@simulated
async def test_types_go_in_and_come_out() -> None:
    race = Race(length, Runner("a"))
    assert (race.Out, race.In.model_fields["text"].annotation) == (int | str, str)
    assert Race(length, len).Out is Any


def test_what_cannot_be_wired_is_refused() -> None:
    with refused(WiringError, "Race has no steps; give it at least one"):
        Race()
    with refused(WiringError, "Race: 3 is neither a Module nor a function"):
        Race(length, 3)  # type: ignore[call-overload]
    with refused(WiringError, "Race: total takes list[int], another branch str"):
        Race(length, total)
