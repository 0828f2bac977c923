"""The branch runner: spawn on suspend, limits, joins, and who cancelled whom."""

import asyncio
import contextvars
import gc
import itertools
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import pytest

from mai import BlockingDelay, Context, DeadlineExceeded, Module, NonBlockingDelay, Parallel, capture, module
from mai.core.call import current, launch
from mai.core.gather import Group, Slot
from mai.testing import Trial, explore
from tests.support import Simulation, loop_of, recorded_spans, simulated, still

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


class Log:
    """Times at which things happened, from the first entry."""

    def __init__(self) -> None:
        self.began, self.entries = loop_of().time(), list[tuple[str, float]]()

    def add(self, what: str) -> None:
        self.entries.append((what, round(loop_of().time() - self.began, 3)))


class Step(Module):
    """Waits, and notes when it began, ended, was cancelled and had cleaned up."""

    def __init__(self, log: Log, name: str, seconds: float = 1, *, fail: str = "", cleanup: float = 0) -> None:
        self.log, self.label, self.seconds, self.fail, self.cleanup = log, name, seconds, fail, cleanup

    async def forward(self, x: Any) -> str:
        self.log.add(f"{self.label} begins")
        try:
            await self.work()
        except asyncio.CancelledError:
            self.log.add(f"{self.label} is over")
            raise
        self.log.add(f"{self.label} ends")
        return self.label

    async def work(self) -> None:
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.fail:
                raise ValueError(self.fail)
        except asyncio.CancelledError:
            self.log.add(f"{self.label} cancelled")
            raise
        finally:
            if self.cleanup:
                await asyncio.sleep(self.cleanup)
                self.log.add(f"{self.label} clean")


def tasks() -> int:
    return len(asyncio.all_tasks())


# ---------------------------------------------------------------- spawning


@simulated
async def test_branches_that_wait_run_at_the_same_time() -> None:
    log = Log()
    assert await Parallel(Step(log, "a", 1), Step(log, "b", 2), Step(log, "c", 2))(0) == ("a", "b", "c")
    assert loop_of().time() == log.began + 2
    assert [what for what, _ in log.entries[:3]] == ["a begins", "b begins", "c begins"]


@simulated
async def test_branches_that_never_wait_need_no_task_each() -> None:
    seen: set[Any] = set()

    class Look(Module):
        async def forward(self, x: int) -> int:
            seen.add(asyncio.current_task())
            assert tasks() <= 2
            return x

    await Parallel(*[Look()] * 10)(1)
    assert len(seen) == 1


@simulated
async def test_each_branch_that_waits_has_a_task_that_runs_nothing_else_meanwhile() -> None:
    class Look(Module):
        async def forward(self, x: int) -> tuple[Any, Any]:
            before = asyncio.current_task()
            await asyncio.sleep(1)
            return before, asyncio.current_task()

    found = await Parallel(Look(), Look(), Look())(1)
    assert all(before is after for before, after in found)
    assert len({task for task, _ in found}) == 3


@pytest.mark.parametrize(("limit", "turns"), [(None, 8), (20, 6), (1, 1)])
@simulated
async def test_branches_that_wait_begin_in_order_and_in_few_turns_of_the_loop(limit: int | None, turns: int) -> None:
    """The more of them wait, the more tasks take over: without that, each would cost a turn of the loop."""
    began: list[int] = []
    most: list[int] = []
    turn = [0]

    async def count() -> None:
        for turn[0] in range(300):
            await asyncio.sleep(0)

    class Look(Module):
        async def forward(self, x: int) -> int:
            began.append(turn[0])
            most.append(tasks())
            await asyncio.sleep(1)
            return len(began)

    counting = asyncio.create_task(count())
    await Parallel(*[Look()] * 100, limit=limit)(1)
    await counting
    assert began == sorted(began)
    assert len(set(began[:limit])) <= turns
    assert max(most) <= (limit or 100) + 2  # our own, and the one that counts


@simulated
async def test_branches_that_wait_for_a_turn_share_a_few_tasks() -> None:
    """A task whose branch has ended takes another one, so not many are made."""
    seen: set[Any] = set()

    @module
    async def step(x: int) -> int:
        seen.add(asyncio.current_task())
        await asyncio.sleep(0)
        return x

    await Parallel(*[step] * 500)(1)
    assert len(seen) < 50


class Chains:
    """A work source of pairs of steps: the second of each gets ready when the first has ended."""

    feed = None

    def __init__(self, first: list[Module], second: Module) -> None:
        self.ready, self.second = first[::-1], second

    def more(self) -> int:
        return len(self.ready)

    def take(self, slot: Slot | None) -> tuple[Module, Any, BaseException | None]:
        m = self.ready.pop()
        return m, launch(m, current(), "/step", 0), None

    def done(self, key: Module, value: Any, error: BaseException | None) -> bool:
        self.ready += [] if key is self.second else [self.second]
        return error is None


@simulated
async def test_where_one_branch_gets_ready_at_a_time_no_task_begins_for_nothing() -> None:
    log = Log()
    begun: list[Any] = []

    class Second(Module):
        async def forward(self, x: int) -> int:
            await asyncio.sleep(100)
            begun.append(tasks())
            return x

    await Group(Chains([Step(log, str(i), 1 + i) for i in range(50)], Second())).run()
    assert len(begun) == 50
    assert max(begun) == 51
    assert tasks() == 1


@simulated
async def test_a_branch_may_use_task_bound_scopes_while_others_run() -> None:
    class Scoped(Module):
        async def forward(self, x: float) -> str:
            with anyio.move_on_after(x) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(asyncio.sleep, 9)
            async with asyncio.timeout(9):
                await asyncio.sleep(0.1)
            return "timed out" if scope.cancelled_caught else "ended"

    scoped = Scoped()
    assert await Parallel(scoped, scoped, scoped)(0.5) == ("timed out",) * 3


@pytest.mark.slow
@simulated
async def test_a_thousand_branches_are_ordinary() -> None:
    log = Log()
    assert len(await Parallel(*[Step(log, str(i)) for i in range(1000)])(0)) == 1000
    assert loop_of().time() == log.began + 1
    assert tasks() == 1


@simulated
async def test_many_branches_that_never_wait_let_the_loop_run_now_and_then() -> None:
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        asyncio.get_running_loop().call_soon(turn)

    class Busy(Module):
        async def forward(self, x: int) -> int:
            loop_of().now += 0.0001  # a tenth of a millisecond of work
            return x

    asyncio.get_running_loop().call_soon(turn)
    await Parallel(*[Busy()] * 500)(1)
    assert len(turns) > 3


@simulated
async def test_branches_see_the_callers_context_variables_and_not_each_others() -> None:
    class Look(Module):
        async def forward(self, x: Any) -> str:
            before = mark.get()
            mark.set("branch")
            await asyncio.sleep(1)
            return before

    mark.set("mine")
    assert await Parallel(Look(), Look() >> Look(), Look())(1) == ("mine", "mine", "mine")
    assert mark.get() == "mine"


# ---------------------------------------------------------------- failures


@simulated
async def test_on_the_first_failure_the_others_are_cancelled_and_joined_before_the_error_is_raised() -> None:
    log = Log()
    line = Parallel(
        Step(log, "a", 1), Step(log, "b", 3, fail="no"), Step(log, "c", 5, cleanup=2), Step(log, "d", 5, cleanup=1)
    )
    with pytest.raises(ValueError, match="no"):
        await line(0)
    assert [entry for entry in log.entries if not entry[0].endswith("is over")] == [
        ("a begins", 0),
        ("b begins", 0),
        ("c begins", 0),
        ("d begins", 0),
        ("a ends", 1),
        *sorted([("c cancelled", 3), ("d cancelled", 3)], key=log.entries.index),  # in either order
        ("d clean", 4),
        ("c clean", 5),
    ]
    assert loop_of().time() == log.began + 5
    assert tasks() == 1


@pytest.mark.parametrize("place", [0, 1, 2])
@simulated
async def test_one_failure_raises_itself_wherever_it_stands(place: int) -> None:
    log, error = Log(), KeyError("mine")

    class Fails(Module):
        async def forward(self, x: int) -> int:
            await asyncio.sleep(1)
            raise error

    branches: list[Any] = [Step(log, "a", 5), Step(log, "b", 5)]
    branches.insert(place, Fails())
    with pytest.raises(KeyError) as caught:
        await Parallel(*branches)(0)
    assert caught.value is error
    assert sorted(what for what, _ in log.entries if "cancelled" in what) == ["a cancelled", "b cancelled"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)  # no cancel is left behind


@simulated
async def test_a_branch_that_fails_at_once_keeps_the_later_ones_from_beginning() -> None:
    log = Log()
    with pytest.raises(ValueError, match="no"):
        await Parallel(Step(log, "a", 5), Step(log, "b", 0, fail="no"), Step(log, "c", 5))(0)
    assert log.entries == [("a begins", 0), ("b begins", 0), ("a cancelled", 0), ("a is over", 0)]


@simulated
async def test_two_failures_raise_a_group_of_both() -> None:
    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        await Parallel(Step(log, "a", 1, fail="one"), Step(log, "b", 1, fail="two"), Step(log, "c", 9))(0)
    assert sorted(str(error) for error in caught.value.exceptions) == ["one", "two"]
    assert "2 branches of Parallel failed" in str(caught.value)


@simulated
async def test_a_failing_cleanup_of_a_sibling_does_not_hide_the_first_error() -> None:
    class Untidy(Module):
        async def forward(self, x: int) -> int:
            try:
                await asyncio.sleep(9)
            finally:
                raise KeyError("cleanup")
            return x

    log = Log()
    with pytest.raises(ExceptionGroup) as caught:
        await Parallel(Untidy(), Step(log, "b", 1, fail="first"))(0)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]


@simulated
async def test_a_sibling_that_swallows_its_cancel_is_waited_for_and_its_value_dropped() -> None:
    class Stubborn(Module):
        async def forward(self, x: int) -> str:
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                await asyncio.sleep(2)
            return "done"

    log = Log()
    for branches in ([Stubborn(), Step(log, "b", 1, fail="no")], [Step(log, "b", 1, fail="no"), Stubborn()]):
        began = loop_of().time()
        with pytest.raises(ValueError, match="no"):
            await Parallel(*branches)(0)
        assert loop_of().time() == pytest.approx(began + 3)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("seconds", [0, 1])
@simulated
async def test_a_branch_that_cancels_itself_is_never_a_success_with_a_hole(place: int, seconds: float) -> None:
    class Quits(Module):
        async def forward(self, x: int) -> int:
            if seconds:
                await asyncio.sleep(seconds)
            raise asyncio.CancelledError

    log = Log()
    branches: list[Any] = [Step(log, "a", 5)]
    branches.insert(place, Quits())
    for on_error in ("cancel", "collect"):
        with capture() as trace, pytest.raises(asyncio.CancelledError):
            await Parallel(*branches, on_error=on_error)(0)
        assert trace.runs[0].outcome == "cancelled"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("place", [0, 1])
@simulated
async def test_a_branch_that_cancels_its_own_task_cancels_the_whole(place: int) -> None:
    class Quits(Module):
        async def forward(self, x: int) -> int:
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(1)
            return x

    log = Log()
    branches: list[Any] = [Step(log, "a", 5)]
    branches.insert(place, Quits())
    with pytest.raises(asyncio.CancelledError):
        await Parallel(*branches)(0)
    assert ("a is over", 1) in log.entries
    assert tasks() == 1


@simulated
async def test_keyboard_interrupt_in_a_branch_stops_and_joins_the_others() -> None:
    class Stop(BaseException): ...

    class Stops(Module):
        async def forward(self, x: float) -> int:
            await asyncio.sleep(x)
            raise Stop

    log = Log()
    for branches in ([Stops(), Step(log, "b", 5)], [Step(log, "b", 5), Stops()]):
        log.entries.clear()
        with pytest.raises(Stop):
            await Parallel(*branches)(1)
        assert [what for what, _ in log.entries] == ["b begins", "b cancelled", "b is over"]


# ---------------------------------------------------------------- cancelled from outside


@pytest.mark.parametrize("when", [0.0, 0.5, 1.0, 1.5, 2.0])
@simulated
async def test_a_cancel_from_outside_at_any_moment_cancels_and_joins_all_branches(when: float) -> None:
    log = Log()
    task = asyncio.create_task(Parallel(Step(log, "a", 1), Step(log, "b", 2, cleanup=1), Step(log, "c", 3))(0))
    asyncio.get_running_loop().call_later(when, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    began = [what[0] for what, _ in log.entries if what.endswith("begins")]
    over = [what[0] for what, _ in log.entries if what.endswith(("ends", "is over"))]
    assert sorted(began) == sorted(over)
    assert tasks() == 1


@pytest.mark.parametrize("nested", [False, True])
@simulated
async def test_a_cancel_from_outside_reaches_every_branch_at_once(nested: bool) -> None:
    log = Log()
    line = Parallel(Step(log, "a", 9, cleanup=3), Step(log, "b", 9), Step(log, "c", 9, cleanup=1))
    whole = Parallel(line, Step(log, "d", 9)) if nested else line
    task = asyncio.create_task(whole(0))
    asyncio.get_running_loop().call_later(2, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled = {what[0]: when for what, when in log.entries if what.endswith("cancelled")}
    assert cancelled == dict.fromkeys("abcd" if nested else "abc", 2)
    assert loop_of().time() == log.began + 5


@simulated
async def test_a_second_cancel_during_the_join_does_not_cut_it_short() -> None:
    log = Log()
    task = asyncio.create_task(Parallel(Step(log, "a", 5), Step(log, "b", 5, cleanup=3))(0))
    for when in (1, 2, 3):
        asyncio.get_running_loop().call_later(when, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("b clean", 4) in log.entries


@simulated
async def test_a_cancel_during_the_join_of_a_failure_wins_over_it() -> None:
    log = Log()
    line = Parallel(Step(log, "a", 1, fail="no"), Step(log, "b", 5, cleanup=3))
    task = asyncio.create_task(line(0))
    asyncio.get_running_loop().call_later(2, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("b clean", 4) in log.entries


@simulated
async def test_a_cancel_by_an_anyio_scope_is_joined_without_spinning() -> None:
    log = Log()
    with anyio.move_on_after(1) as scope:
        await Parallel(Step(log, "a", 5), Step(log, "b", 5, cleanup=3))(0)
    assert scope.cancelled_caught
    assert tasks() == 1
    assert ("b clean", 4) in log.entries


@simulated
async def test_a_failure_under_a_scope_that_is_cancelled_already_still_ends_the_other_branches() -> None:
    log, told = Log(), list[str]()
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            try:
                await Parallel(Step(log, "a", 1, fail="a"), Step(log, "b", 5, cleanup=1))(0)
            except ValueError as error:
                told.append(str(error))
    assert told == ["a"]
    assert ("b cancelled", 1.0) in log.entries
    assert ("b clean", 2.0) in log.entries


@simulated
async def test_branches_that_nobody_else_holds_are_not_collected() -> None:
    ends: list[str] = []

    @module
    async def forgotten(x: int) -> int:
        try:
            await asyncio.get_running_loop().create_future()  # known to this step alone
        finally:
            ends.append("closed")
        return x

    async def collect() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            gc.collect()
        assert ends == []

    with pytest.raises(DeadlineExceeded):
        await Parallel(forgotten, forgotten & forgotten, collect_at_times(collect)).with_(timeout=5)(1)
    assert ends == ["closed"] * 3


def collect_at_times(collect: Any) -> Module[int, int]:
    @module
    async def collector(x: int) -> int:
        await collect()
        return x

    return collector


@simulated
async def test_a_timeout_of_the_whole_cancels_and_joins_every_branch() -> None:
    log = Log()
    with pytest.raises(DeadlineExceeded) as caught:
        await Parallel(Step(log, "a", 5), Step(log, "b", 5, cleanup=1)).with_(timeout=2)(0)
    assert caught.value.step_id == "Parallel"
    assert loop_of().time() == log.began + 3
    assert ("b clean", 3) in log.entries


@simulated
async def test_a_timeout_of_one_branch_is_a_failure_of_that_branch() -> None:
    log = Log()
    with pytest.raises(DeadlineExceeded) as caught:
        await Parallel(Step(log, "a", 5), Step(log, "b", 5).with_(timeout=1, name="b"))(0)
    assert caught.value.step_id == "Parallel[1]/b"
    assert ("a cancelled", 1.0) in log.entries


@simulated
async def test_nested_parallels_are_joined_from_the_inside_out() -> None:
    log = Log()
    inner = Parallel(Step(log, "a", 9, cleanup=1), Step(log, "b", 9, cleanup=2))
    with pytest.raises(ValueError, match="no"):
        await Parallel(inner, Parallel(inner, Step(log, "c", 1, fail="no")))(0)
    assert [entry for entry in log.entries if entry[0].endswith("clean")] == [
        ("a clean", 2), ("b clean", 3), ("a clean", 4), ("b clean", 5)
    ]  # fmt: skip
    assert tasks() == 1


@simulated
async def test_a_cancel_between_branches_that_never_wait_is_seen() -> None:
    began: list[int] = []

    class Busy(Module):
        async def forward(self, x: int) -> int:
            loop_of().now += 0.001
            began.append(x)
            return x

    task = asyncio.create_task(Parallel(*[Busy()] * 500)(1))
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(began) < 500


@pytest.mark.parametrize("whom", ["all", "workers"])
@simulated
async def test_a_closing_loop_may_cancel_every_task_at_once(whom: str) -> None:
    began: list[int] = []

    class Busy(Module):
        async def forward(self, x: int) -> int:
            loop_of().now += 0.001
            began.append(x)
            return x

    def cancel() -> None:
        for one in asyncio.all_tasks() - {me, None if whom == "all" else task}:
            one.cancel()

    me, log = asyncio.current_task(), Log()
    task = asyncio.create_task(Parallel(Step(log, "a", 5), *[Busy()] * 500)(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < len(began) < 500
    assert [what for what, _ in log.entries] == ["a begins", "a cancelled", "a is over"]
    assert tasks() == 1


@simulated
async def test_a_branch_whose_input_cannot_be_copied_fails_and_the_others_are_joined() -> None:
    class Rare:
        copies = 0

        def __deepcopy__(self, memo: Any) -> "Rare":
            Rare.copies += 1
            if Rare.copies > 2:
                raise ValueError("no more copies")
            return self

    log = Log()
    with pytest.raises(ValueError, match="no more copies"):
        await Parallel(Step(log, "a", 5), Step(log, "b", 5), Step(log, "c", 5)).with_(isolate=True)(Rare())
    assert "a is over" in [what for what, _ in log.entries]
    assert tasks() == 1


# ---------------------------------------------------------------- limit


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 20])
@simulated
async def test_no_more_than_the_limit_run_at_once_and_all_run(limit: int) -> None:
    running = most = 0

    class Count(Module):
        async def forward(self, x: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(x)
            running -= 1
            return x

    began = loop_of().time()
    assert await Parallel(*[Count()] * 10, limit=limit)(1) == (1,) * 10
    assert most == min(limit, 10)
    assert loop_of().time() == pytest.approx(began + -(-10 // limit))


@simulated
async def test_branches_under_a_limit_begin_in_order() -> None:
    log = Log()
    await Parallel(*[Step(log, str(i), i % 3) for i in range(9)], limit=3)(0)
    assert [what for what, _ in log.entries if "begins" in what] == [f"{i} begins" for i in range(9)]


@simulated
async def test_a_limit_and_branches_that_never_wait() -> None:
    log = Log()
    assert await Parallel(*[Step(log, str(i), 0) for i in range(5)], limit=1)(0) == tuple("01234")
    assert tasks() == 1


@simulated
async def test_after_a_failure_under_a_limit_nothing_more_begins() -> None:
    log = Log()
    steps = [Step(log, "a", 1, fail="no"), Step(log, "b", 2), Step(log, "c", 2), Step(log, "d", 2)]
    with pytest.raises(ValueError, match="no"):
        await Parallel(*steps, limit=2)(0)
    assert log.entries == [("a begins", 0), ("b begins", 0), ("b cancelled", 1), ("b is over", 1)]


@simulated
async def test_with_collect_a_limit_goes_on_after_failures() -> None:
    log = Log()
    steps = [Step(log, "a", 1, fail="no"), Step(log, "b", 1), Step(log, "c", 0, fail="also"), Step(log, "d", 1)]
    values = await Parallel(*steps, limit=1, on_error="collect")(0)
    assert [value if isinstance(value, str) else str(value) for value in values] == ["no", "b", "also", "d"]


# ---------------------------------------------------------------- giving back a place


def begun(log: Log) -> dict[str, float]:
    return {what.split()[0]: when for what, when in log.entries if what.endswith("begins")}


@simulated
async def test_a_blocking_delay_keeps_its_place_and_a_non_blocking_one_gives_it_back() -> None:
    log = Log()
    for delay, total, second in ((BlockingDelay(4), 10, 5), (NonBlockingDelay(4), 6, 0)):
        log.entries.clear()
        log.began = loop_of().time()
        line = Parallel(delay >> Step(log, "a"), Step(log, "x", 0) >> delay >> Step(log, "b"), limit=1)
        assert await line(0) == ("a", "b")
        assert begun(log)["x"] == second
        assert loop_of().time() - log.began == total


@simulated
async def test_places_are_taken_again_in_the_order_in_which_the_delays_end() -> None:
    log = Log()
    line = Parallel(
        NonBlockingDelay(3) >> Step(log, "c"),
        NonBlockingDelay(1) >> Step(log, "a", 5),
        NonBlockingDelay(2) >> Step(log, "b"),
        limit=1,
    )
    assert await line(0) == ("c", "a", "b")
    assert begun(log) == {"a": 1, "b": 6, "c": 7}


@simulated
async def test_a_strand_that_comes_back_does_not_overtake_one_that_was_just_called() -> None:
    log = Log()
    line = Parallel(
        NonBlockingDelay(1) >> Step(log, "first"),
        NonBlockingDelay(5 + 5e-10) >> Step(log, "second"),  # in the same turn of the loop, after the place is free
        Step(log, "works", 5),
        limit=1,
    )
    await line(0)
    assert begun(log) == {"works": 0, "first": 5, "second": 6}


@simulated
async def test_a_branch_that_waits_for_its_place_goes_before_one_that_has_not_begun() -> None:
    log = Log()
    parked = NonBlockingDelay(1) >> Step(log, "parked")
    await Parallel(parked, Step(log, "a", 2), Step(log, "b", 2), limit=1)(0)
    assert begun(log) == {"a": 0, "parked": 2, "b": 3}


@simulated
async def test_the_limit_holds_with_delays_of_all_kinds() -> None:
    running = most = 0

    class Count(Module):
        async def forward(self, x: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            return x

    lines = [NonBlockingDelay(i % 4) >> Count() >> NonBlockingDelay(i % 3) >> Count() for i in range(12)]
    await Parallel(*lines, limit=3)(0)
    assert most == 3


@pytest.mark.parametrize("delay", [0, 1])
@simulated
async def test_the_limit_holds_after_inner_parallels_too(delay: float) -> None:
    running = most = 0

    class Count(Module):
        async def forward(self, x: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            return x

    inner = Parallel(NonBlockingDelay(delay), NonBlockingDelay(delay) >> NonBlockingDelay(1), lambda x: x)
    await Parallel(*[inner >> Count() >> inner >> Count()] * 6, limit=2)(0)
    assert most == 2


@simulated
async def test_an_inner_parallel_without_a_limit_gives_the_place_back_when_all_its_branches_are_parked() -> None:
    log = Log()
    inner = Parallel(NonBlockingDelay(4) >> Step(log, "a"), NonBlockingDelay(2) >> Step(log, "b"))
    assert await Parallel(inner, Step(log, "other", 1), limit=1)(0) == (("a", "b"), "other")
    assert begun(log) == {"other": 0, "b": 2, "a": 4}


@simulated
async def test_an_inner_parallel_keeps_the_place_while_one_of_its_branches_works() -> None:
    log = Log()
    inner = Parallel(NonBlockingDelay(4), Step(log, "works", 3))
    await Parallel(inner, Step(log, "other", 1), limit=1)(0)
    assert begun(log) == {"works": 0, "other": 3}
    assert loop_of().time() - log.began == 4


@simulated
async def test_an_inner_parallel_whose_last_worker_ends_gives_the_place_to_who_waits() -> None:
    log = Log()
    inner = Parallel(Step(log, "works", 1), NonBlockingDelay(5) >> Step(log, "later", 1))
    await Parallel(inner, Step(log, "x", 2), Step(log, "y", 2), limit=1)(0)
    assert begun(log) == {"works": 0, "x": 1, "y": 3, "later": 5}


@simulated
async def test_an_inner_limit_is_the_nearest_one() -> None:
    log = Log()
    inner = Parallel(NonBlockingDelay(2) >> Step(log, "a", 1), Step(log, "b", 1), limit=1)
    await Parallel(inner, Step(log, "other", 1), limit=1)(0)
    assert begun(log)["b"] == 0
    assert begun(log)["a"] == 2
    assert begun(log)["other"] == 3


@simulated
async def test_a_call_below_a_branch_gives_back_the_branchs_place() -> None:
    log = Log()

    @module
    async def around(x: int) -> int:
        await NonBlockingDelay(3)(x)
        return x

    await Parallel(around >> Step(log, "a"), Step(log, "b"), limit=1)(0)
    assert begun(log) == {"b": 0, "a": 3}


@simulated
async def test_strands_of_one_branch_that_park_one_after_the_other_come_back_in_order() -> None:
    log = Log()
    later, late = NonBlockingDelay(1) >> Step(log, "first"), NonBlockingDelay(2) >> Step(log, "second")
    await Parallel(Parallel(later, late), Step(log, "other", 5), limit=1)(0)
    assert begun(log)["other"] == 0
    assert begun(log)["first"] == 5
    assert begun(log)["second"] in (5, 6)


@pytest.mark.parametrize("when", [0.5, 1.5, 2.5])
@simulated
async def test_a_cancel_of_a_parked_or_waiting_branch_leaves_the_rest_their_places(when: float) -> None:
    log = Log()

    class Cancels(Module):
        async def forward(self, x: int) -> str:
            try:
                with Context.scope(timeout=when):
                    return await (NonBlockingDelay(1) >> Step(log, "a", 1))(x)
            except DeadlineExceeded:
                await asyncio.sleep(1)
                return "late"

    values = await Parallel(Cancels(), Step(log, "b", 2), Step(log, "c", 2), limit=1)(0)
    assert values[1:] == ("b", "c")
    assert values[0] == "late"
    assert begun(log)["c"] == {0.5: 2, 1.5: 2.5, 2.5: 3.5}[when]  # clean-up counts, beyond the limit if need be
    assert tasks() == 1


@simulated
async def test_a_failure_while_branches_are_parked_and_waiting_joins_them() -> None:
    log = Log()
    line = Parallel(
        NonBlockingDelay(9), NonBlockingDelay(1) >> Step(log, "waits"), Step(log, "fails", 3, fail="no"), limit=1
    )
    with pytest.raises(ValueError, match="no"):
        await line(0)
    assert "waits" not in begun(log)
    assert loop_of().time() - log.began == 3
    assert tasks() == 1


@simulated
async def test_cleanup_after_a_parked_delay_does_not_wait_for_a_place() -> None:
    log = Log()

    class Tidy(Module):
        async def forward(self, x: int) -> int:
            try:
                await NonBlockingDelay(9)(x)
            finally:
                log.add("clean")
            return x

    with pytest.raises(DeadlineExceeded):
        await Parallel(Tidy(), Step(log, "b", 9), limit=1).with_(timeout=2)(0)
    assert ("clean", 2) in log.entries


@simulated
async def test_a_non_blocking_delay_without_a_limit_is_a_pause() -> None:
    began = loop_of().time()
    assert await NonBlockingDelay(3)("x") == "x"
    assert await Parallel(NonBlockingDelay(3), NonBlockingDelay(2))("x") == ("x", "x")
    assert loop_of().time() == began + 6


def test_the_simulation_is_a_loop_of_asyncio() -> None:
    assert issubclass(Simulation, asyncio.SelectorEventLoop)


# ---------------------------------------------------------------- isolation of what makes room


@simulated
async def test_a_parked_branch_does_not_hand_its_contextvars_to_the_branch_that_takes_its_place() -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")

    @module
    async def parks(x: int) -> str:
        mark.set("secret")
        await NonBlockingDelay(1)(x)
        return mark.get()

    @module
    async def looks(x: int) -> str:
        return mark.get()

    assert await Parallel(parks, looks, looks, limit=1)(0) == ("secret", "clean", "clean")


# ---------------------------------------------------------------- places, other loops and tasks of the user's own


@simulated
async def test_a_delay_in_another_loop_leaves_the_place_of_this_loop_alone() -> None:
    delay = NonBlockingDelay(0.001) & NonBlockingDelay(0.001)

    class Elsewhere(Module):
        async def forward(self, x: int) -> Any:
            return await asyncio.to_thread(delay.run, x)

    log = Log()
    with still():
        assert await Parallel(Elsewhere() >> Step(log, "a", 0), Elsewhere() >> Step(log, "b", 0), limit=1)(1)
    assert [what for what, _ in log.entries] == ["a begins", "a ends", "b begins", "b ends"]


def test_a_run_of_its_own_inside_a_branch_has_no_place() -> None:
    delay = NonBlockingDelay(0.001)

    @module
    def elsewhere(x: int) -> int:
        return asyncio.run(delay(x))

    assert Parallel(elsewhere, elsewhere, limit=1).run(1) == (1, 1)


@simulated
async def test_strands_of_one_place_that_wait_for_it_go_on_together() -> None:
    done = asyncio.Event()

    @module
    async def waits(x: int) -> str:
        await done.wait()
        return "waits"

    @module
    async def sets(x: int) -> str:
        done.set()
        return "sets"

    inner = Parallel(NonBlockingDelay(1) >> waits, NonBlockingDelay(2) >> sets)
    log = Log()
    line = Parallel(NonBlockingDelay(3) >> Step(log, "last"), inner, Step(log, "other", 5), limit=1)
    assert await asyncio.wait_for(line(0), 50) == ("last", ("waits", "sets"), "other")
    assert begun(log) == {"other": 0, "last": 5}


@simulated
async def test_strands_that_come_back_park_again_and_come_back_again() -> None:
    log = Log()
    twice = NonBlockingDelay(1) >> NonBlockingDelay(0) >> NonBlockingDelay(1)
    inner = Parallel(twice >> Step(log, "a"), twice >> Step(log, "b"))
    assert await asyncio.wait_for(Parallel(inner, Step(log, "other", 5), inner, limit=1)(0), 50)
    assert begun(log)["other"] == 0


@simulated
async def test_tasks_of_the_users_own_that_park_bring_the_place_back_and_the_limit_holds() -> None:
    running = most = 0

    class Count(Module):
        async def forward(self, x: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            return x

    count, short, long_ = Count(), NonBlockingDelay(1).with_(name="short"), NonBlockingDelay(2).with_(name="long")

    class Own(Module):
        async def forward(self, x: int) -> int:
            await asyncio.gather(short(x), long_(x))
            return await count(x)

    await Parallel(*[Own()] * 5, limit=2)(0)
    assert most == 2


@simulated
async def test_a_task_that_outlives_its_branch_takes_and_gives_no_place() -> None:
    left = list[asyncio.Task[int]]()
    go, delay = asyncio.Event(), NonBlockingDelay(1)

    async def behind() -> int:
        await go.wait()
        return await delay(1)

    class Leaves(Module):
        async def forward(self, x: int) -> int:
            left.append(asyncio.create_task(behind()))
            left.append(asyncio.create_task(delay(x)))
            await asyncio.sleep(0)
            return x

    log = Log()
    wait = Step(log, "frees", 0.5)

    class Frees(Module):
        async def forward(self, x: int) -> str:
            go.set()
            return await wait(x)

    line = Parallel(Leaves(), Frees(), Step(log, "a", 2), Step(log, "b", 2), Step(log, "c", 2), limit=1)
    await line(0)
    assert begun(log) == {"frees": 0, "a": 0.5, "b": 2.5, "c": 4.5}
    assert await asyncio.gather(*left) == [1, 0]


@simulated
async def test_a_parked_task_whose_branch_ends_while_it_waits_for_the_place_goes_on() -> None:
    left, delay = list[asyncio.Task[int]](), NonBlockingDelay(1)

    class Leaves(Module):
        async def forward(self, x: int) -> int:
            left.append(asyncio.create_task(delay(x)))
            await asyncio.sleep(2)  # while another branch has the place that the task gave back
            return x

    log = Log()
    assert await Parallel(Leaves(), Step(log, "long", 50), Step(log, "next", 1), limit=1)(0)
    assert begun(log) == {"long": 0, "next": 50}
    assert left[0].done()


@simulated
async def test_a_cancel_from_outside_before_a_worker_has_begun_ends_the_gather() -> None:
    log = Log()
    before = asyncio.all_tasks()
    task = asyncio.create_task((Step(log, "a") & Step(log, "b"))(0))
    await asyncio.sleep(0)
    (fresh,) = asyncio.all_tasks() - before - {task}
    fresh.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await asyncio.wait_for(task, 5)
    assert log.entries == []


@simulated
async def test_a_cancel_of_the_worker_that_would_take_over_ends_the_branches_that_wait() -> None:
    log = Log()

    class Cancels(Module):
        async def forward(self, x: int) -> int:
            before = asyncio.all_tasks()
            asyncio.get_running_loop().call_soon(lambda: [t.cancel() for t in asyncio.all_tasks() - before])
            await asyncio.sleep(5)
            return x

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(Parallel(Cancels(), Step(log, "b"))(0), 50)
    assert log.entries == []


@simulated
async def test_a_strand_that_is_cancelled_while_it_waits_for_the_place_takes_the_others_along() -> None:
    log = Log()
    impatient = NonBlockingDelay(1).with_(timeout=2)
    patient = NonBlockingDelay(1) >> Step(log, "patient", 0)

    class CleansUp(Module):
        async def forward(self, x: int) -> int:
            with pytest.raises(DeadlineExceeded):
                await impatient(x)
            await asyncio.sleep(1)  # with the place, beyond the limit
            return x

    await Parallel(Parallel(CleansUp(), patient), Step(log, "long", 50), limit=1)(0)
    assert begun(log) == {"long": 0, "patient": 2}


# ---------------------------------------------------------------- odd sources


class Odd:
    """A work source of two branches, which fails when it is told how one of them ended."""

    feed = None

    def __init__(self, log: Log) -> None:
        self.steps = [Step(log, "b", 5), Step(log, "a", 1)]

    def more(self) -> bool:
        return bool(self.steps)

    def take(self, slot: Slot | None) -> tuple[int, Any, BaseException | None]:
        return len(self.steps), launch(self.steps.pop(), current(), "/step", 0), None

    def done(self, key: int, value: Any, error: BaseException | None) -> bool:
        raise ArithmeticError(f"{key} ended")


@simulated
async def test_a_source_that_fails_is_raised_once_its_branches_have_ended() -> None:
    log = Log()
    with pytest.raises(ArithmeticError, match="2 ended"):
        await Group(Odd(log)).run()
    assert log.entries[2:] == [("a ends", 1.0), ("b cancelled", 1.0), ("b is over", 1.0)]
    assert tasks() == 1


# ---------------------------------------------------------------- deep nests: every 64 calls a task of its own

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


def test_nobody_need_watch_a_call_that_is_cancelled_before_it_begins_below_a_hop() -> None:
    async def main() -> Any:
        return await deep(DEPTH)

    assert explore(main, seeds=8, at_every_step="cancel").runs > 60


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


def test_branches_that_are_dropped_with_their_loop_run_no_others_and_end_without_a_word() -> None:
    began = list[int]()

    @module
    async def waits(x: int) -> int:
        began.append(x)
        await asyncio.Event().wait()
        return x

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it tells of tasks that were destroyed
    whole = loop.create_task(Parallel(*[waits] * 6, limit=2)(1))
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop) - {whole}:
        body: Any = task.get_coro()
        body.close()
    loop.close()
    assert began == [1, 1]
