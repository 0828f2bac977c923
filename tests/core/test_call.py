"""One call: deadlines and cancellation, isolation, notes, and what a forward may be."""

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import pytest
from pydantic import AfterValidator

from mai import CastError, ConfigError, Context, DeadlineExceeded, LocalEngine, Module, Sequential, capture, module
from tests.support import loop_of, simulated, still

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


@module
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@module
async def shout(text: str) -> str:
    return text.upper()


async def elapsed(awaitable: Any) -> tuple[Any, float]:
    """The outcome of an awaitable (its error as a value) and how long it took [s]."""
    began = loop_of().time()
    try:
        outcome = await awaitable
    except BaseException as error:  # noqa: BLE001 (the outcome may be any)
        outcome = error
    return outcome, loop_of().time() - began


# ---------------------------------------------------------------- deadlines


@simulated
async def test_a_timeout_ends_the_step_and_raises_deadline_exceeded() -> None:
    error, took = await elapsed(nap.with_(timeout=2)(5))
    assert took == pytest.approx(2)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error, TimeoutError)
    assert (error.step_id, error.timeout) == ("nap", 2.0)
    assert str(error).startswith("Step 'nap' ran past its ")
    assert len(error.__notes__) == 1
    assert error.__notes__[0].startswith("mai: in nap")


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"timeout": 2}, 2),
        ({"total_timeout": 3}, 3),
        ({"timeout": 2, "total_timeout": 3}, 2),
        ({"timeout": 3, "total_timeout": 2}, 2),
    ],
)
@simulated
async def test_timeout_and_total_timeout_the_nearer_one_counts(settings: dict[str, float], limit: float) -> None:
    error, took = await elapsed(nap.with_(**settings)(5))  # type: ignore[arg-type]
    assert (type(error), took) == (DeadlineExceeded, pytest.approx(limit))
    assert error.timeout == limit
    assert await elapsed(nap.with_(**settings)(1)) == (1, pytest.approx(1))  # type: ignore[arg-type]


@simulated
async def test_an_inherited_deadline_ends_the_step_and_says_so() -> None:
    with Context.scope(timeout=2):
        error, took = await elapsed(nap(5))
        later, more = await elapsed(nap.with_(timeout=9)(5))
    assert (type(error), took) == (DeadlineExceeded, pytest.approx(2))
    assert error.timeout is None
    assert str(error) == "Step 'nap' ran past the deadline that it inherited"
    assert (type(later), more) == (DeadlineExceeded, 0)


@simulated
async def test_the_step_whose_deadline_it_is_raises_and_what_is_inside_is_cancelled() -> None:
    ended: list[str] = []

    @module
    async def inner(x: float) -> float:
        try:
            return await nap(x)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(DeadlineExceeded) as caught:
        await (inner >> inner).with_(timeout=2, name="outer")(5)
    assert caught.value.step_id == "outer"
    assert ended == ["cancelled"]


@simulated
async def test_a_nearer_deadline_inside_a_step_is_served_by_a_timer_of_its_own() -> None:
    @module
    async def outer(x: float) -> str:
        try:
            with Context.scope(timeout=1):
                await nap(x)
        except DeadlineExceeded as error:
            return error.step_id
        return "late"

    assert await elapsed(outer.with_(timeout=4)(5)) == ("outer/nap", pytest.approx(1))


@simulated
async def test_the_deadline_of_one_step_does_not_leak_into_the_next() -> None:
    assert (await elapsed((nap.with_(timeout=2) >> nap >> nap)(1.5)))[1] == pytest.approx(4.5)

    @module
    async def both(x: float) -> float:
        await nap.with_(timeout=1)(0.5)
        return await nap(x)

    assert await elapsed(both(5)) == (5, pytest.approx(5.5))


@simulated
async def test_nothing_starts_past_the_deadline() -> None:
    began: list[str] = []

    @module
    async def step(x: float) -> float:
        began.append("step")
        return x

    @module
    def plain(x: float) -> float:
        began.append("plain")
        return x

    @module
    async def outer(x: float) -> float:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            for late in (step, plain, step & plain):
                with pytest.raises(DeadlineExceeded, match="the deadline that it inherited"):
                    await late(x)
            raise
        return x

    with pytest.raises(DeadlineExceeded):
        await outer.with_(timeout=1)(5)
    assert began == []


@simulated
async def test_a_step_that_ends_in_time_but_blocks_past_its_deadline_keeps_its_value() -> None:
    @module
    async def busy(x: int) -> int:
        loop_of().now += 5  # no await: nothing could have stopped it
        return x

    assert await busy.with_(timeout=1)(1) == 1


@simulated
async def test_what_follows_a_step_that_blocked_past_the_deadline_does_not_start() -> None:
    @module
    async def busy(x: float) -> float:
        loop_of().now += 5
        return x

    with pytest.raises(DeadlineExceeded) as caught:
        await (busy >> nap).with_(timeout=1)(1)
    assert caught.value.step_id == "Sequential/nap"


@simulated
async def test_a_step_that_swallows_its_timeout_is_late_all_the_same() -> None:
    @module
    async def stubborn(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # takes its time, and is not cancelled again
        return "done"

    error, took = await elapsed(stubborn.with_(timeout=2)(5))
    assert (type(error), took) == (DeadlineExceeded, pytest.approx(3))
    assert await elapsed(nap(1)) == (1, pytest.approx(1))
    assert (task := asyncio.current_task()) is not None
    assert task.cancelling() == 0


@simulated
async def test_an_error_out_of_cleanup_at_the_timeout_is_the_cause() -> None:
    @module
    async def untidy(x: float) -> float:
        try:
            await asyncio.sleep(x)
        finally:
            raise ValueError("cleanup")
        return x

    with pytest.raises(DeadlineExceeded) as caught:
        await untidy.with_(timeout=2)(5)
    assert isinstance(caught.value.__cause__, ValueError)


@simulated
async def test_cleanup_that_awaits_runs_to_its_end_before_the_caller_goes_on() -> None:
    closed: list[float] = []

    @module
    async def tidy(x: float) -> float:
        try:
            await asyncio.sleep(x)
        finally:
            await asyncio.sleep(1)
            closed.append(loop_of().time())
        return x

    error, took = await elapsed(tidy.with_(timeout=2)(5))
    assert (type(error), took, len(closed)) == (DeadlineExceeded, pytest.approx(3), 1)


@simulated
async def test_the_users_own_timeout_error_is_not_taken_for_ours() -> None:
    @module
    async def own(x: float) -> float:
        async with asyncio.timeout(1):
            await asyncio.sleep(x)
        return x

    with capture() as trace:
        error, took = await elapsed(own.with_(timeout=2)(5))
    assert (type(error), took) == (TimeoutError, pytest.approx(1))
    assert trace.runs[0].outcome == "error"
    error, took = await elapsed(own.with_(timeout=0.5)(5))
    assert (type(error), took) == (DeadlineExceeded, pytest.approx(0.5))


@pytest.mark.parametrize("first", ["ours", "theirs"])
@simulated
async def test_nested_timeouts_at_the_same_moment_end_in_one_error(first: str) -> None:
    outer, inner = (2, 2) if first == "ours" else (2, 2.0)

    @module
    async def around(x: float) -> float:
        return await nap.with_(timeout=inner)(x)

    error, took = await elapsed(around.with_(timeout=outer)(5))
    assert (type(error), took) == (DeadlineExceeded, pytest.approx(2))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@simulated
async def test_an_outer_cancel_in_the_same_tick_as_the_timeout_wins() -> None:
    with capture() as trace:
        task = asyncio.create_task(nap.with_(timeout=2)(5))
        asyncio.get_running_loop().call_later(2, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert trace.runs[0].outcome == "cancelled"


@simulated
async def test_an_outer_cancel_wins_also_over_a_step_that_swallows() -> None:
    @module
    async def stubborn(x: float) -> str:
        for _ in range(2):
            try:
                await asyncio.sleep(x)
            except asyncio.CancelledError:
                pass
        return "done"

    for when in (1.0, 2.0):
        task = asyncio.create_task(stubborn.with_(timeout=2)(5))
        asyncio.get_running_loop().call_later(when, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


@simulated
async def test_a_timer_that_is_no_longer_needed_does_not_fire() -> None:
    for _ in range(3):
        assert await nap.with_(timeout=2)(1) == 1
    await asyncio.sleep(10)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@simulated
async def test_a_step_that_never_waits_needs_no_timer() -> None:
    assert await shout.with_(timeout=1)("a") == "A"
    with pytest.raises(CastError):
        await shout.with_(timeout=1)(5)


@simulated
async def test_a_timeout_inside_anyio_and_asyncio_scopes_stays_inside() -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        with anyio.fail_after(8):
            late = await elapsed(nap.with_(timeout=1)(5))
        task = group.create_task(nap(1))
    assert (type(late[0]), late[1], await task) == (DeadlineExceeded, pytest.approx(1), 1)


@simulated
async def test_an_anyio_scope_around_a_call_cancels_it() -> None:
    with anyio.move_on_after(1) as scope:
        await nap.with_(timeout=3)(5)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError) as caught, anyio.fail_after(1):
        await (nap >> nap)(5)
    assert type(caught.value) is TimeoutError


def outer_of(step: Any, observed: bool) -> Any:
    async def call(x: float) -> Any:
        with capture() if observed else nullcontext():
            return await step(x)

    return call


@pytest.mark.parametrize("settings", [{}, {"timeout": 9}, {"retry": 2}])
@pytest.mark.parametrize("seconds", [5, 5.0])
@pytest.mark.parametrize("observed", [False, True])
@simulated
async def test_an_anyio_scope_knows_its_cancel_again_though_the_step_swallowed_it(
    settings: dict[str, Any], seconds: float, observed: bool
) -> None:
    @module
    async def stubborn(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            pass
        return "done"

    @module
    async def tidy(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
        return "done"

    @module
    async def quiet(x: float) -> str:  # type: ignore[return]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(x)

    @module
    async def unlucky(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                lost = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(lost.set_exception, OSError("connection lost"))
                with suppress(OSError):
                    await lost
                with anyio.move_on_after(0.01), suppress(asyncio.CancelledError):
                    await asyncio.sleep(x)
                child = asyncio.create_task(asyncio.sleep(x))
                child.cancel()
                with suppress(asyncio.CancelledError):
                    await child
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await asyncio.sleep(x)
        return "done"

    steps = (stubborn, tidy, quiet, unlucky)
    for step in (*steps, *(step >> shout for step in steps)):
        with anyio.move_on_after(1) as scope, capture() if observed else nullcontext():
            await step.with_(**settings)(seconds)
        assert scope.cancelled_caught
    for step in steps:
        task = asyncio.create_task(outer_of(step.with_(**settings), observed)(seconds))
        asyncio.get_running_loop().call_later(1, task.cancel, "why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("settings", [{}, {"retry": 2}])
@pytest.mark.parametrize("fails", [False, True])
@simulated
async def test_a_cancel_that_comes_after_a_timeout_has_its_own_words(settings: dict[str, Any], fails: bool) -> None:
    async def cleans() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(2)
        if fails:
            raise ValueError("clean-up")

    async def waits(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            await cleans()
        return "done"

    @module
    async def within(x: float) -> str:
        async with asyncio.timeout(0.5):
            return await waits(x)

    @module
    async def freed(x: float) -> str:
        with anyio.move_on_after(0.3):
            await asyncio.sleep(x)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.sleep(x)
        with suppress(ValueError):
            await waits(x)
        return "done"

    @module
    async def lastly(x: float) -> str:
        try:
            await asyncio.sleep(x)
        finally:
            await cleans()
        return "done"

    steps: Any = module(waits).with_(timeout=0.5), lastly.with_(timeout=0.5), freed
    for step in steps if fails else (*steps, within):  # which makes a failure of a cancel if its clean-up fails
        with anyio.move_on_after(1) as scope:
            await step.with_(**settings)(5.0)
        assert scope.cancelled_caught
        task = asyncio.create_task(step.with_(**settings)(5.0))
        asyncio.get_running_loop().call_later(1, task.cancel, "why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("settings", [{}, {"retry": 2}])
@simulated
async def test_a_cancel_that_comes_while_a_value_is_cast_is_told_once(settings: dict[str, Any]) -> None:
    def stopping(x: int) -> int:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        return x

    @module
    async def step(x: int) -> Annotated[int, AfterValidator(stopping)]:
        await asyncio.sleep(1)
        return x

    told: list[Any] = []
    async with LocalEngine() as engine:
        engine.subscribe(lambda handle: told.append((handle.outcome, handle.output_size)))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(step.with_(**settings)(1))
    assert told == [("cancelled", None)]


@pytest.mark.parametrize("settings", [{"timeout": 1}, {"timeout": 1, "retry": 2}, {"total_timeout": 1}])
@simulated
async def test_an_anyio_scope_knows_its_cancel_though_the_deadline_of_a_step_passed_and_its_cleanup_failed(
    settings: dict[str, Any],
) -> None:
    @module
    async def fails(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            raise ValueError("clean-up") from None
        return "done"

    with anyio.move_on_after(1) as scope:
        await fails.with_(**settings)(5.0)
    assert scope.cancelled_caught
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@simulated
async def test_a_deadline_reaches_modules_called_from_a_thread() -> None:
    seen: list[float | None] = []

    @module
    async def inner(x: float) -> float:
        seen.append(Context.get().deadline)
        return x

    @module
    def plain(x: float) -> float:
        return inner.run(x)

    now = loop_of().time()
    with still():
        assert await plain.with_(timeout=3)(1) == 1
    assert seen == [now + 3]


@simulated
async def test_a_timeout_of_a_generator_closes_it() -> None:
    closed: list[str] = []

    @module
    async def stream(n: int) -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(1)
                yield n
        finally:
            closed.append("closed")

    error, took = await elapsed(stream.with_(timeout=2.5)(1))
    assert (type(error), took, closed) == (DeadlineExceeded, pytest.approx(2.5), ["closed"])


# ---------------------------------------------------------------- cancellation


@simulated
async def test_a_step_that_raises_cancelled_error_itself_ends_as_cancelled() -> None:
    @module
    async def quits(x: int) -> int:
        raise asyncio.CancelledError

    with capture() as trace, pytest.raises(asyncio.CancelledError):
        await quits(1)
    assert trace.runs[0].outcome == "cancelled"


@pytest.mark.parametrize("timeout", [None, 9])
@pytest.mark.parametrize("seconds", [5, 5.0])  # one has to be cast, one has not
@simulated
async def test_a_step_that_swallows_a_cancel_does_not_win_and_nothing_follows(
    timeout: float | None, seconds: float
) -> None:
    began: list[str] = []

    @module
    async def stubborn(x: float) -> str:
        try:
            await asyncio.sleep(x)
        except asyncio.CancelledError:
            pass
        return "done"

    @module
    async def next_one(text: str) -> str:
        began.append(text)
        return text

    for step in (stubborn, stubborn >> next_one, (stubborn >> next_one) >> next_one):
        task = asyncio.create_task(step.with_(timeout=timeout)(seconds))
        asyncio.get_running_loop().call_later(1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert began == []


@simulated
async def test_a_cancel_between_two_steps_reaches_the_next_one() -> None:
    began: list[int] = []

    @module
    async def cancels(x: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return x

    @module
    async def waits(x: int) -> int:
        began.append(x)
        await asyncio.sleep(1)
        began.append(x)
        return x

    task = asyncio.create_task((cancels >> waits)(1))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert began == [1]


@simulated
async def test_an_error_out_of_cleanup_after_a_cancel_is_the_error() -> None:
    @module
    async def untidy(x: float) -> float:
        try:
            await asyncio.sleep(x)
        finally:
            raise ValueError("cleanup")
        return x

    task = asyncio.create_task(untidy(5))
    asyncio.get_running_loop().call_later(1, task.cancel)
    with pytest.raises(ValueError, match="cleanup"):
        await task


@simulated
async def test_keyboard_interrupt_and_system_exit_pass_unchanged() -> None:
    class Stop(BaseException): ...

    @module
    async def stops(x: int) -> int:
        raise Stop

    with capture() as trace, pytest.raises(Stop) as caught:
        await (shout >> stops)("1")
    assert not hasattr(caught.value, "__notes__")
    assert [h.outcome for h in trace.runs[0].walk()] == ["cancelled", "ok", "cancelled"]


# ---------------------------------------------------------------- isolation


class Changes(Module):
    def __init__(self, how: str) -> None:
        self.how = how

    async def forward(self, x: int) -> str:
        before = mark.get()
        mark.set(self.how)
        if self.how == "after a wait":
            await asyncio.sleep(1)
            mark.set("again")
        if self.how == "fails":
            raise ValueError("no")
        return before


@pytest.mark.parametrize("how", ["at once", "after a wait", "fails"])
@pytest.mark.parametrize("settings", [{}, {"timeout": 9}])
@simulated
async def test_nothing_that_a_step_does_to_a_contextvar_leaks(how: str, settings: dict[str, Any]) -> None:
    mark.set("mine")
    step = Changes(how).with_(**settings)
    with capture():
        outcome, _ = await elapsed(step(1))
    assert outcome == "mine" or isinstance(outcome, ValueError)
    outcome, _ = await elapsed((step >> Changes("at once"))(1)) if how != "fails" else ("mine", 0)
    assert mark.get() == "mine"


@simulated
async def test_a_contextvar_set_in_a_thread_or_a_generator_does_not_leak() -> None:
    @module
    def plain(x: int) -> str:
        before = mark.get()
        mark.set("thread")
        return before

    @module
    async def stream(x: int) -> AsyncIterator[str]:
        before = mark.get()
        mark.set("stream")
        yield before
        yield mark.get()

    @module
    def inline(x: int) -> str:
        mark.set("inline")
        return mark.get()

    mark.set("mine")
    assert await plain(1) == "mine"
    assert await stream(1) == "minestream"
    assert await inline.with_(inline=True)(1) == "inline"
    assert mark.get() == "mine"


@simulated
async def test_isolate_gives_each_call_its_own_copy() -> None:
    @module
    async def change(values: list[int], *, more: dict[str, list[int]] | None = None) -> list[int]:
        values.append(9)
        if more is not None:
            more["a"].append(9)
        return values

    mine, more = [1], {"a": [1]}
    assert await change.with_(isolate=True)(mine, more=more) == [1, 9]
    assert (mine, more) == ([1], {"a": [1]})
    assert await change(mine) is mine
    assert mine == [1, 9]


@simulated
async def test_isolate_keeps_the_identity_of_what_was_given_twice() -> None:
    @module
    async def same(a: list[int], b: list[int]) -> bool:
        return a is b

    both = [1]
    assert await same.with_(isolate=True)(both, both) is True


@simulated
async def test_what_cannot_be_copied_fails_the_isolated_call() -> None:
    @module
    async def step(x: Any) -> Any:
        return x

    with pytest.raises(TypeError, match="lock") as caught:
        await step.with_(isolate=True)(threading.Lock())
    assert caught.value.__notes__[0].startswith("mai: in step")


# ---------------------------------------------------------------- notes


class SlottedError(Exception):
    __slots__ = ()


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@simulated
async def test_a_users_exception_keeps_its_identity_and_gains_one_note_that_names_the_innermost_step() -> None:
    mine = KeyError("x")

    @module
    async def fails(x: str) -> str:
        raise mine

    @module
    async def outer(x: str) -> str:
        return await (shout >> fails)(x)

    with pytest.raises(KeyError) as caught:
        await outer("x")
    assert caught.value is mine
    assert mine.__notes__ == ["mai: in outer/Sequential/fails"]
    assert mine.__mai_trace__.step_id == "outer"  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["observed", "timeout"])
@simulated
async def test_the_note_tells_the_time_if_the_call_was_observed(how: str) -> None:
    @module
    async def fails(x: float) -> float:
        await asyncio.sleep(x)
        raise KeyError("x")

    with pytest.raises(KeyError) as caught, capture():
        await fails(0.5)
    assert caught.value.__notes__ == ["mai: in fails (after 0.500 s)"]


@simulated
async def test_the_note_of_a_call_with_a_deadline_tells_the_time() -> None:
    @module
    async def fails(x: float) -> float:
        await asyncio.sleep(x)
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        await fails.with_(timeout=3)(0.5)
    assert caught.value.__notes__ == ["mai: in fails (after 0.500 s)"]


@simulated
async def test_an_exception_that_takes_no_attributes_passes_unchanged() -> None:
    @module
    async def fails(x: int) -> int:
        raise FrozenError(x) if x else SlottedError

    for x, kind in ((0, SlottedError), (1, FrozenError)):
        with pytest.raises(kind):
            await (fails >> fails)(x)


@simulated
async def test_a_wrapped_error_gains_its_own_note() -> None:
    @module
    async def fails(x: int) -> int:
        raise KeyError("inner")

    @module
    async def wraps(x: int) -> int:
        try:
            return await fails(x)
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        await wraps(1)
    assert caught.value.__notes__ == ["mai: in wraps"]
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__notes__ == ["mai: in wraps/fails"]


@simulated
async def test_an_exception_object_that_is_raised_again_and_again_carries_one_note_the_newest() -> None:
    shared = KeyError("shared")
    shared.add_note("the user's own")

    @module
    async def first(x: int) -> int:
        raise shared

    for step in (first, first.with_(name="second")):
        with pytest.raises(KeyError):
            await step(1)
    assert shared.__notes__ == ["the user's own", "mai: in second"]


# ---------------------------------------------------------------- what a forward may be


@simulated
async def test_a_plain_forward_runs_in_a_worker_thread_and_inline_ones_on_the_loop() -> None:
    @module
    def where(x: int) -> str:
        return threading.current_thread().name

    here = threading.current_thread().name
    assert await where(1) != here
    assert await where.with_(inline=True)(1) == here
    assert await where.with_(inline=False)(1) != here
    assert await where.with_(inline=True).with_(inline=None)(1) != here


@simulated
async def test_a_type_may_be_sent_to_a_thread() -> None:
    class Where:
        def __init__(self, x: int) -> None:
            self.name = threading.current_thread().name

    here = threading.current_thread().name
    assert (await module(Where)(1)).name == here
    assert (await module(Where).with_(inline=False)(1)).name != here


@pytest.mark.parametrize("inline", [True, False])
@simulated
async def test_an_awaitable_result_of_a_plain_function_is_awaited(inline: bool) -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(1)
        return x + 1

    @functools.cache
    def cached(x: int) -> Any:
        return Lazy(x)

    class Lazy:
        def __init__(self, x: int) -> None:
            self.x = x

        def __await__(self) -> Iterator[Any]:
            return later(self.x).__await__()

    @module
    def hidden(x: int):  # type: ignore[no-untyped-def]
        return later(x)

    assert await hidden.with_(inline=inline)(1) == 2
    assert await module(cached).with_(inline=inline)(1) == 2
    with pytest.raises(CastError):
        await (module(lambda x: later(x)).with_(inline=inline) >> needs_text)(1)


@module
async def needs_text(x: list[str]) -> int:
    return len(x)


@simulated
async def test_generators_of_both_kinds_are_drained_and_closed() -> None:
    closed: list[str] = []

    class Words(Module):
        def forward(self, text: str) -> Iterator[str]:
            try:
                yield from text.split()
            finally:
                closed.append(threading.current_thread().name)

    class Slow(Module):
        async def forward(self, text: str) -> AsyncIterator[bytes]:
            for word in text.split():
                await asyncio.sleep(1)
                yield word.encode()

    assert await Words()("to be") == "tobe"
    assert await Slow()("to be") == b"tobe"
    assert closed[0] != threading.current_thread().name


@simulated
async def test_a_generator_that_fails_midway_fails_the_call() -> None:
    @module
    async def stream(x: int) -> AsyncIterator[int]:
        yield x
        raise ValueError("midway")

    @module
    def plain(x: int) -> Iterator[int]:
        yield x
        raise ValueError("midway")

    for step in (stream, plain):
        with pytest.raises(ValueError, match="midway"):
            await step(1)


@simulated
async def test_stop_iteration_out_of_any_forward_is_an_error_and_not_an_end() -> None:
    @module
    def plain(x: int) -> int:
        raise StopIteration(x)

    @module
    async def async_(x: int) -> int:
        raise StopIteration(x)

    @module
    async def stream(x: int) -> AsyncIterator[int]:
        raise StopIteration(x)
        yield x

    for step in (plain, plain.with_(inline=True), async_, stream):
        for whole in (step, step >> str, step & step):
            with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
                await whole(1)  # type: ignore[operator]
            assert not isinstance(caught.value, StopIteration)


@simulated
async def test_stop_async_iteration_is_an_error_too() -> None:
    @module
    async def step(x: int) -> int:
        raise StopAsyncIteration

    @module
    def plain(x: int) -> int:
        raise StopAsyncIteration

    for each in (step, plain):
        with pytest.raises((RuntimeError, StopAsyncIteration)):
            await each(1)


@simulated
async def test_a_forward_may_yield_to_the_loop_in_any_way() -> None:
    @module
    async def ways(x: int) -> int:
        await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        await asyncio.gather(asyncio.sleep(0.1), asyncio.sleep(0.2))
        async with anyio.create_task_group() as group:
            group.start_soon(asyncio.sleep, 0.1)
        async with asyncio.timeout(5):
            await asyncio.sleep(0.1)
        return x

    for step in (ways, ways.with_(timeout=9), ways >> ways, ways & ways):
        assert await step(1) in (1, (1, 1))  # type: ignore[operator]


@simulated
async def test_errors_of_the_loop_are_thrown_into_the_step() -> None:
    @module
    async def waits(x: int) -> str:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_exception, KeyError("from outside"))
        try:
            await future
        except KeyError as error:
            return str(error)
        return "nothing"

    for step in (waits, waits.with_(timeout=9)):
        assert await step(1) == "'from outside'"


@simulated
async def test_a_call_that_was_never_awaited_runs_nothing() -> None:
    began: list[int] = []

    @module
    async def step(x: int) -> int:
        began.append(x)
        return x

    call = step(1)
    call.close()
    assert began == []


@simulated
async def test_one_module_may_run_many_times_at_once() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(nap.with_(timeout=9)(i / 10)) for i in range(20)]
    assert [task.result() for task in tasks] == [i / 10 for i in range(20)]


@simulated
async def test_two_thousand_nested_modules_do_not_overflow_the_stack() -> None:
    @module
    async def deeper(n: int) -> int:
        if not n:
            await asyncio.sleep(1)
            return 0
        return 1 + await deeper(n - 1)

    assert await deeper(2_000) == 2_000


@simulated
async def test_four_hundred_nested_composites_do_not_overflow_the_stack() -> None:
    nested: Any = shout
    for _ in range(400):
        nested = (nested >> str.lower).with_(name="line")
    assert await nested("A") == "a"


@simulated
async def test_two_thousand_steps_in_a_row_are_ordinary() -> None:
    async def add(n: int) -> int:
        return n + 1

    assert await Sequential(*[module(add)] * 2000)(0) == 2000


@simulated
async def test_settings_do_not_reach_forward() -> None:
    @module
    async def all_of_it(x: int, **more: Any) -> dict[str, Any]:
        return more

    assert await all_of_it.with_(timeout=5, name="n", tags=("t",), extra=1)(1) == {"extra": 1}


@simulated
async def test_a_bad_call_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"^nap has no parameter 'timeout': it is a setting; .*with_\(timeout=\.\.\.\)"
    ):
        await nap(1, timeout=2)  # type: ignore[call-arg]


def test_the_clock_is_the_real_one_outside_simulations() -> None:
    with capture() as trace:
        before = time.time()
        shout.run("a")
    started = trace.runs[0].started_at
    assert started is not None
    assert before - 1 <= started <= time.time() + 1
