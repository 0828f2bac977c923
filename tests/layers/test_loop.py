"""Loop: one step again and again, with a bound."""

import asyncio
import contextvars
import pickle
from typing import Any

import pytest

from mai import ConfigError, DeadlineExceeded, Loop, LoopExhausted, WiringError, capture, module
from tests.support import loop_of, refused, refused_value, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


@module
async def grow(n: int) -> int:
    return n + 1


@module
async def nap(n: int) -> int:
    await asyncio.sleep(1)
    return n + 1


@module
async def enough(n: int) -> bool:
    return n >= 3


@module
async def show(n: int) -> str:
    return str(n)


@simulated
async def test_the_body_is_called_with_what_it_gave_until_that_will_do() -> None:
    assert await Loop(grow, until=lambda n: n >= 3, max_iters=10)(0) == 3


@simulated
async def test_without_until_all_turns_are_made() -> None:
    assert await Loop(grow, max_iters=4)(0) == 4


@simulated
async def test_until_is_asked_after_each_turn_and_never_before_the_first() -> None:
    asked: list[int] = []
    assert await Loop(grow, until=lambda n: asked.append(n) or n >= 3, max_iters=10)(7) == 8  # type: ignore[func-returns-value]
    assert asked == [8]


@simulated
async def test_a_loop_that_is_not_done_at_its_bound_says_so_and_keeps_the_state() -> None:
    with pytest.raises(LoopExhausted) as caught:
        await Loop(grow, until=enough, max_iters=2).with_(name="agent")(0)
    error = caught.value
    assert (error.step_id, error.iterations, error.state) == ("agent", 2, 2)
    assert str(error).startswith("agent: enough was not met in 2 turns; raise max_iters")
    assert error.__notes__ == ["mai: in agent"]
    again = pickle.loads(pickle.dumps(error))
    assert (again.step_id, again.iterations, again.state) == ("agent", 2, 2)


@simulated
async def test_a_loop_that_is_done_in_its_last_turn_is_done() -> None:
    assert await Loop(grow, until=enough, max_iters=3)(0) == 3


@simulated
async def test_until_may_be_a_coroutine_function() -> None:
    async def later(n: int) -> bool:
        await asyncio.sleep(1)
        return n >= 2

    began = loop_of().time()
    assert await Loop(grow, until=later, max_iters=5)(0) == 2
    assert loop_of().time() == began + 2


@simulated
async def test_each_turn_has_a_scope_of_its_own_and_a_module_that_decides_is_a_step_in_it() -> None:
    with capture() as trace:
        await Loop(nap, until=enough, max_iters=5)(1)
        await Loop(grow, until=lambda n: n > 1, max_iters=5)(0)
    first, second = trace.runs
    assert [h.step_id for h in first.children] == ["Loop[0]/nap", "Loop[0]/enough", "Loop[1]/nap", "Loop[1]/enough"]
    assert [h.step_id for h in second.children] == ["Loop[0]/grow", "Loop[1]/grow"]
    assert [h.attributes["mai.branch.index"] for h in second.children] == [0, 1]


@simulated
async def test_a_body_and_an_until_of_one_name_have_paths_of_their_own() -> None:
    check = module(lambda n: n > 0).with_(name="step")
    with capture() as trace:
        await Loop(grow.with_(name="work"), until=check, max_iters=1)(0)
        await Loop(module(str), until=module(str), max_iters=1)("a")
    assert [h.step_id for h in trace.runs[0].children] == ["Loop[0]/work", "Loop[0]/step"]
    assert [h.step_id for h in trace.runs[1].children] == ["Loop[0]/str", "Loop[0]/str~2"]


@simulated
async def test_turns_and_decision_are_in_the_trace() -> None:
    def met(n: int) -> bool:
        return n >= 2

    with capture() as trace:
        await Loop(grow, until=met, max_iters=5)(0)
        await Loop(grow, max_iters=5)(0)
        with pytest.raises(LoopExhausted):
            await Loop(grow, until=met, max_iters=1)(0)
    facts = [dict(run.attributes) for run in trace.runs]
    assert [fact["mai.loop.turns"] for fact in facts] == [2, 5, 1]
    assert [fact["mai.loop.max_iters"] for fact in facts] == [5, 5, 1]
    assert [fact["mai.decision"] for fact in facts] == ["until", "max_iters", "max_iters"]
    assert facts[0]["mai.decision.predicate"].endswith("met")
    assert "mai.decision.predicate" not in facts[1]
    assert str(trace.runs[0]).startswith("✓ Loop x2 → until")


@simulated
async def test_a_failing_turn_fails_the_loop_and_the_trace_says_in_which_turn() -> None:
    @module
    async def fragile(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n + 1

    with capture() as trace, pytest.raises(ValueError, match="two") as caught:
        await Loop(fragile, max_iters=5)(0)
    assert caught.value.__notes__[0].startswith("mai: in Loop[2]/fragile")
    assert trace.runs[0].attributes["mai.loop.turns"] == 2


@simulated
async def test_a_failing_until_fails_the_loop() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await Loop(grow, until=lambda n: 1 / 0, max_iters=5)(0)
    assert caught.value.__notes__ == ["mai: in Loop"]


@simulated
async def test_what_until_and_body_do_to_a_contextvar_stays_with_them() -> None:
    seen: list[str] = []

    async def body(n: int) -> int:
        seen.append(mark.get())
        mark.set("body")
        return n + 1

    def until(n: int) -> bool:
        seen.append(mark.get())
        mark.set("until")
        return n > 1

    await Loop(body, until=until, max_iters=3)(0)
    assert {*seen, mark.get()} == {"clean"}


@simulated
async def test_a_deadline_bounds_all_turns_together() -> None:
    with pytest.raises(DeadlineExceeded):
        await Loop(nap, max_iters=100).with_(timeout=2.5)(0)


@simulated
async def test_a_body_that_never_waits_lets_others_run_and_can_be_cancelled() -> None:
    turns = [0]

    async def spin(n: int) -> int:
        turns[0] = n
        return n + 1

    task = asyncio.create_task(Loop(spin, max_iters=50_000)(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < turns[0] < 1000
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@simulated
async def test_a_deadline_ends_a_body_that_never_waits() -> None:
    async def spin(n: int) -> int:
        loop_of().now += 0.01
        return n + 1

    with pytest.raises(DeadlineExceeded):
        await Loop(spin, max_iters=10**9).with_(timeout=5)(0)


@simulated
async def test_types_go_in_and_come_out_and_are_cast_from_turn_to_turn() -> None:
    @module
    async def widen(n: float) -> int:
        assert type(n) is float
        return int(n) + 1

    loop = Loop(widen, max_iters=3)
    assert (loop.Out, loop.In.model_fields["n"].annotation) == (int, float)
    assert await loop(1.5) == 4


def test_a_loop_without_a_bound_is_refused() -> None:
    with refused(ConfigError, "Loop needs a bound: max_iters=..., the most turns that it may make"):
        Loop(grow)  # type: ignore[call-overload]


@pytest.mark.parametrize("max_iters", [0, -1, 1.5, "2", True, None])
def test_the_bound_is_a_number_of_turns(max_iters: Any) -> None:
    with refused_value("Loop", "max_iters", max_iters):
        Loop(grow, max_iters=max_iters)


def test_what_cannot_be_wired_is_refused() -> None:
    @module
    async def add(a: int, b: int) -> int:
        return a + b

    @module
    async def listed(n: int) -> list[int]:
        return [n]

    with refused(WiringError, "Loop: 3 is neither a Module nor a function"):
        Loop(3, max_iters=2)  # type: ignore[call-overload]
    with refused(WiringError, "Loop: until=3 is neither a Module nor a function"):
        Loop(grow, until=3, max_iters=2)  # type: ignore[call-overload]
    with pytest.raises(WiringError, match=r"^Loop: add needs 2 values \(a, b\)"):
        Loop(add, max_iters=2)
    with pytest.raises(WiringError, match=r"^cannot connect listed -> listed\n  listed returns list\[int\]"):
        Loop(listed, max_iters=2)  # type: ignore[arg-type]
    with pytest.raises(WiringError, match=r"^cannot connect grow -> total\n"):
        Loop(grow, until=module(_total), max_iters=2)  # type: ignore[arg-type]
    with refused(WiringError, "Loop: two steps are named 'x'; names in one scope must differ"):
        Loop(grow.with_(name="x"), until=enough.with_(name="x"), max_iters=2)


def _total(numbers: list[int]) -> bool:
    return sum(numbers) > 3


_total.__name__ = "total"


def test_a_loop_can_be_a_step_and_hold_composites() -> None:
    inner = Loop(grow >> grow, max_iters=2)
    assert (inner >> show).run(0) == "4"
    assert Loop(Loop(grow, max_iters=3), max_iters=3).run(0) == 9
