"""Retry, fallback and attempts: what is tried again, when, for how long, and what the trace says of it."""

import asyncio
import contextvars
import itertools
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

from mai import ConfigError, Context, DeadlineExceeded, Module, Retry, WiringError, capture, module
from mai.testing import fixed_chance
from tests.support import loop_of, recorded_spans, refused, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


class Flaky(Module):
    """Fails as often as it is told to, each time at another moment, and remembers its attempts."""

    def __init__(self, fails: int, error: Any = ConnectionError, takes: float = 0.0) -> None:
        self.fails, self.error, self.takes = fails, error, takes
        self.begun: list[float] = []

    async def forward(self, x: int) -> int:
        self.begun.append(loop_of().time() - 1000.0)
        if self.takes:
            await asyncio.sleep(self.takes)
        if len(self.begun) <= self.fails:
            raise self.error(f"failure {len(self.begun)}")
        return x


@pytest.fixture(autouse=True)
def longest_pauses() -> Iterator[None]:
    with fixed_chance(1.0):
        yield


# ---------------------------------------------------------------- the policy


@given(
    st.integers(1, 2_000), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3), st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_a_pause_is_random_between_nothing_and_a_bound_that_doubles(
    attempt: int, base: float, limit: float, chance: float
) -> None:
    with fixed_chance(chance):
        pause = Retry(attempt + 1, base=base, limit=limit).pause(attempt, ValueError())
    bound = min(limit, base * 2.0 ** min(attempt - 1, 1000))
    assert pause == pytest.approx(chance * bound)


def test_without_a_draw_replaced_pauses_differ() -> None:
    from mai.core.ids import Chance

    draws = [Chance().draw() for _ in range(100)]
    assert len(set(draws)) > 90
    assert all(0 <= one < 1 for one in draws)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(["attempts"], [0, -1, 2.5, True, "3", None, math.inf]),
        *itertools.product(["base", "limit"], [0, -1, 0.0, -0.5, math.nan, math.inf, True, "1", None]),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"Retry: {key}=.* cannot be used; give .* above 0"):
        Retry(**{key: value})


@pytest.mark.parametrize(
    "on", [None, "ValueError", 3, (), (ValueError, int), int, KeyboardInterrupt, asyncio.CancelledError]
)
def test_an_on_that_is_neither_exceptions_nor_a_function_is_refused(on: Any) -> None:
    with pytest.raises(ConfigError, match=r"neither exception types .* nor a plain function"):
        Retry(on=on)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", object()])
def test_a_setting_that_is_no_policy_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="Flaky: retry="):
        Flaky(0).with_(retry=value)


def test_no_attempt_at_all_is_refused_with_what_to_give() -> None:
    with pytest.raises(
        ConfigError, match=r"Flaky: retry=0 cannot be used: .*give the number of attempts in all, from 1"
    ):
        Flaky(0).with_(retry=0)


def test_an_async_predicate_is_refused() -> None:
    async def on(error: Exception) -> bool:
        return False

    with pytest.raises(ConfigError, match="nor a plain function"):
        Retry(on=on)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_policy_can_be_compared_hashed_and_pickled() -> None:
    policy = Retry(4, base=0.5, on=(KeyError, OSError))
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len({policy, Retry(4, base=0.5, on=(KeyError, OSError))}) == 1


def test_a_number_means_that_many_attempts_with_the_usual_pauses() -> None:
    assert Flaky(0).with_(retry=5).settings.retry == Retry(5)
    assert Flaky(0).with_(retry=5).with_(retry=None).settings.retry is None


# ---------------------------------------------------------------- attempts


@simulated
async def test_a_number_is_the_number_of_attempts_in_all() -> None:
    flaky = Flaky(2)
    assert await flaky.with_(retry=3)(7) == 7
    assert len(flaky.begun) == 3
    hopeless = Flaky(9)
    with pytest.raises(ConnectionError, match="failure 3"):
        await hopeless.with_(retry=3)(7)
    assert len(hopeless.begun) == 3


@simulated
async def test_pauses_double_up_to_their_limit() -> None:
    flaky = Flaky(5)
    await flaky.with_(retry=Retry(6, base=1.0, limit=4.0))(1)
    assert flaky.begun == pytest.approx([0, 1, 3, 7, 11, 15])


@simulated
async def test_an_error_may_ask_for_its_own_pause() -> None:
    class Throttled(Exception):
        retry_after = 60

    flaky = Flaky(2, Throttled)
    await flaky.with_(retry=Retry(3, base=1.0, limit=2.0))(1)
    assert flaky.begun == [0, 60, 120]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1, "soon", None])
@simulated
async def test_a_pause_that_makes_no_sense_is_not_taken_from_an_error(odd: Any) -> None:
    class Throttled(Exception):
        retry_after = odd

    flaky = Flaky(1, Throttled)
    await flaky.with_(retry=Retry(3, base=1.0))(1)
    assert flaky.begun == [0, 1]


@simulated
async def test_only_the_errors_of_on_are_tried_again() -> None:
    for on, attempts in [
        (ConnectionError, 3), (OSError, 3), ((KeyError, OSError), 3), (KeyError, 1), ((KeyError, ValueError), 1),
        (lambda error: "failure 1" in str(error), 2), (lambda error: False, 1),
    ]:  # fmt: skip
        flaky = Flaky(9)
        with pytest.raises(ConnectionError):
            await flaky.with_(retry=Retry(3, base=0.1, on=on))(1)
        assert len(flaky.begun) == attempts, on


@simulated
async def test_a_timeout_is_tried_again_but_is_no_oserror() -> None:
    for on, attempts in [(Exception, 3), (TimeoutError, 3), (DeadlineExceeded, 3), (OSError, 1), ((OSError,), 1)]:
        slow = Flaky(0, takes=5.0)
        with pytest.raises(DeadlineExceeded):
            await slow.with_(timeout=1.0, retry=Retry(3, base=0.1, on=on))(1)
        assert len(slow.begun) == attempts, on


@simulated
async def test_a_cancel_is_never_tried_again() -> None:
    flaky = Flaky(0, takes=5.0)
    task = asyncio.ensure_future(flaky.with_(retry=3, fallback=Flaky(0))(1))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(flaky.begun) == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_a_step_that_raises_a_cancel_or_an_interrupt_is_neither_tried_again_nor_a_success(error: Any) -> None:
    tries: list[int] = []

    @module(retry=Retry(3, base=0.001), fallback=lambda x: x)
    async def step(x: int) -> int:
        tries.append(x)
        raise error

    with pytest.raises(error):
        step.run(1)
    assert tries == [1]


@pytest.mark.parametrize("depth", [0, 62, 63])
@simulated
async def test_a_cancel_whose_clean_up_fails_is_followed_by_no_attempt_and_no_fallback(depth: int) -> None:
    tries: list[str] = []

    @module
    async def step(x: int) -> int:
        tries.append("step")
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError("the clean-up failed")

    async def other(x: int) -> int:
        tries.append("fallback")
        return x

    whole: Module[int, int] = step.with_(retry=Retry(3, base=0.001), fallback=other)
    for _ in range(depth):
        whole = module(whole.__call__)
    task = asyncio.ensure_future(whole(1))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(ConnectionError):
        await task
    assert tries == ["step"]


@simulated
async def test_a_cancel_during_the_pause_ends_the_call() -> None:
    flaky = Flaky(9)
    task = asyncio.ensure_future(flaky.with_(retry=Retry(3, base=10.0))(1))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(flaky.begun) == 1


@simulated
async def test_a_timeout_bounds_each_attempt_and_a_total_timeout_all_of_them() -> None:
    slow = Flaky(0, takes=5.0)
    with pytest.raises(DeadlineExceeded, match=r"timeout=2 s"):
        await slow.with_(timeout=2.0, retry=Retry(3, base=1.0))(1)
    assert slow.begun == [0, 3, 7]
    assert loop_of().time() == pytest.approx(1009)
    slow = Flaky(0, takes=5.0)
    with pytest.raises(DeadlineExceeded, match=r"timeout=4 s"):
        await slow.with_(timeout=2.0, total_timeout=4.0, retry=Retry(3, base=1.0))(1)
    assert slow.begun == [9, 12]
    assert loop_of().time() == pytest.approx(1013)


@simulated
async def test_no_pause_goes_past_the_deadline() -> None:
    for settings in ({"total_timeout": 2.0}, {}):
        before, flaky = loop_of().time(), Flaky(9)
        with Context.scope(timeout=2.0), pytest.raises(ConnectionError, match="failure 1"):
            await flaky.with_(retry=Retry(3, base=2.0), **settings)(1)
        assert (len(flaky.begun), loop_of().time()) == (1, before)


@simulated
async def test_nothing_starts_after_the_deadline() -> None:
    late = Flaky(9, takes=3.0)
    other = Flaky(0)
    with Context.scope(timeout=2.0), pytest.raises(DeadlineExceeded):
        await late.with_(retry=3, fallback=other)(1)
    assert (late.begun, other.begun) == ([0], [])


@simulated
async def test_each_attempt_has_a_context_of_its_own() -> None:
    seen: list[tuple[str, int, str]] = []

    @module(retry=3)
    async def step(x: int) -> int:
        seen.append((mark.get(), Context.get().retry_count, Context.get().step_id))
        mark.set("dirty")
        inner = await look(x)
        if len(seen) < 3:
            raise ValueError
        return inner

    @module
    async def look(x: int) -> int:
        return Context.get().retry_count

    assert await step(1) == 0
    assert seen == [("clean", 0, "step"), ("clean", 1, "step"), ("clean", 2, "step")]
    assert mark.get() == "clean"


@simulated
async def test_calls_inside_have_the_same_path_in_each_attempt() -> None:
    paths: list[str] = []

    @module
    async def leaf(x: int) -> int:
        paths.append(Context.get().step_id)
        if len(paths) < 3:
            raise ValueError
        return x

    @module(retry=3)
    async def outer(x: int) -> int:
        return await leaf(x)

    await outer(1)
    assert paths == ["outer/leaf"] * 3


@simulated
async def test_isolated_attempts_do_not_see_what_a_failed_one_changed() -> None:
    @module(retry=2)
    async def append(xs: list[int]) -> list[int]:
        xs.append(Context.get().retry_count)
        if Context.get().retry_count == 0:
            raise ValueError
        return xs

    given_ = [9]
    assert await append.with_(isolate=True)(given_) == [9, 1]
    assert given_ == [9]
    assert await append(given_) == [9, 0, 1]  # by reference, as everywhere in Python


@simulated
async def test_a_plain_step_is_tried_again_in_a_thread() -> None:
    tries: list[int] = []

    @module(retry=Retry(3, base=0.001))
    def step(x: int) -> int:
        tries.append(x)
        if len(tries) < 3:
            raise ValueError
        return x

    assert await step(4) == 4
    assert tries == [4, 4, 4]


@simulated
async def test_inputs_are_cast_once_and_outputs_in_each_attempt() -> None:
    got: list[object] = []

    @module(retry=2)
    async def step(x: int) -> int:
        got.append(x)
        return "no number" if len(got) == 1 else "5"  # type: ignore[return-value]

    assert await step("3") == 5  # type: ignore[arg-type]
    assert got == [3, 3]


# ---------------------------------------------------------------- what is left behind


@simulated
async def test_the_note_names_the_attempt() -> None:
    with pytest.raises(ConnectionError) as caught:
        await Flaky(9, takes=0.1).with_(retry=Retry(2, base=0.1))(1)
    assert caught.value.__notes__ == ["mai: in Flaky (attempt 2/2, after 0.100 s)"]


@simulated
async def test_each_attempt_is_a_child_and_a_retried_error_marks_only_it() -> None:
    with capture() as trace:
        await Flaky(2).with_(retry=Retry(3, base=1.0))(1)
    [root] = trace.runs
    assert (root.outcome, root.error) == ("ok", None)
    assert root.attributes["mai.retry.max"] == 3
    assert root.attributes["mai.retry.count"] == 2
    assert [(h.name, h.kind, h.outcome, h.step_id, h.attempt) for h in root.children] == [
        ("attempt", "attempt", "error", "Flaky", 1),
        ("attempt", "attempt", "error", "Flaky", 2),
        ("attempt", "attempt", "ok", "Flaky", 3),
    ]
    assert [h.attributes.get("mai.retry.delay") for h in root.children] == [None, 1.0, 2.0]


@simulated
async def test_without_a_policy_there_is_no_attempt() -> None:
    with capture() as trace:
        await Flaky(0)(1)
        await Flaky(0).with_(timeout=1.0, total_timeout=2.0)(1)
    assert [len(h.children) for h in trace.runs] == [0, 0]
    assert [h.attempt for h in trace.runs] == [1, 1]


@simulated
async def test_an_unobserved_failure_leaves_all_its_attempts() -> None:
    with pytest.raises(ConnectionError) as caught:
        await Flaky(9).with_(retry=Retry(3, base=0.1))(1)
    handle = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert [(h.attempt, h.error.message) for h in handle.children] == [
        (1, "failure 1"), (2, "failure 2"), (3, "failure 3"),
    ]  # fmt: skip


@simulated
async def test_spans_of_failed_attempts_are_errors_and_that_of_the_call_is_not() -> None:
    with recorded_spans() as spans:
        await Flaky(1).with_(retry=Retry(3, base=1.0))(1)
    first, second, call = spans.get_finished_spans()
    assert [span.name for span in (first, second, call)] == ["attempt", "attempt", "Flaky"]
    assert first.parent == second.parent == call.context
    assert [span.status.status_code for span in (first, second, call)] == [
        StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET,
    ]  # fmt: skip
    assert [len(span.events) for span in (first, second, call)] == [1, 0, 0]
    assert call.attributes is not None
    assert (call.attributes["mai.retry.max"], call.attributes["mai.retry.count"]) == (3, 1)
    assert second.attributes is not None
    assert (second.attributes["mai.retry.attempt"], second.attributes["mai.retry.delay"]) == (2, 1.0)


# ---------------------------------------------------------------- fallbacks


@simulated
async def test_fallbacks_are_asked_in_order_after_the_last_failure() -> None:
    main, second, third = Flaky(9), Flaky(9), Flaky(0)
    step = main.with_(retry=Retry(2, base=0.1), fallback=(second.with_(name="second"), third.with_(name="third")))
    with capture() as trace:
        assert await step(5) == 5
    assert [len(one.begun) for one in (main, second, third)] == [2, 1, 1]
    [root] = trace.runs
    assert [(h.name, h.outcome, h.step_id) for h in root.children] == [
        ("attempt", "error", "Flaky"),
        ("attempt", "error", "Flaky"),
        ("second", "error", "Flaky!fallback[0]/second"),
        ("third", "ok", "Flaky!fallback[1]/third"),
    ]
    assert (root.outcome, root.attributes["mai.fallback.index"]) == ("ok", 1)


@simulated
async def test_when_all_fail_the_last_error_is_raised_and_shows_the_one_before() -> None:
    with pytest.raises(KeyError, match="failure 1") as caught:
        await Flaky(9).with_(fallback=Flaky(9, KeyError))(1)
    assert caught.value.__notes__ == ["mai: in Flaky!fallback[0]/Flaky"]
    assert isinstance(caught.value.__context__, ConnectionError)


@simulated
async def test_a_failure_that_a_fallback_has_dealt_with_is_not_raised_again_by_the_branches_around() -> None:
    whole = Flaky(9).with_(fallback=Flaky(0)) & Flaky(0, takes=1.0) & Flaky(1).with_(retry=Retry(2, base=2.0))
    assert await whole(5) == (5, 5, 5)


@simulated
async def test_a_fallback_has_a_fresh_timeout_inside_the_total_one() -> None:
    for total, ends in [(None, 1.0 + 2.0), (2.5, 2.5)]:
        before, slow, other = loop_of().time(), Flaky(0, takes=5.0), Flaky(0, takes=5.0)
        with pytest.raises(DeadlineExceeded):
            await slow.with_(
                timeout=1.0, total_timeout=total, fallback=other.with_(timeout=2.0 if total is None else None)
            )(1)
        assert loop_of().time() - before == pytest.approx(min(ends, 2.0))
        assert len(other.begun) == 1


@simulated
async def test_a_fallback_gets_the_arguments_of_the_call_not_the_defaults() -> None:
    @module(fallback=lambda query: [f"fallback for {query}"])
    async def search(query: str, k: int = 3) -> list[str]:
        raise ConnectionError

    assert await search("x") == ["fallback for x"]


@simulated
async def test_what_a_fallback_gives_is_cast_like_the_value_of_the_step() -> None:
    @module
    async def other(x: int) -> int:
        return x

    @module(fallback=other)
    async def half(x: int) -> float:
        raise ValueError

    value = await half(3)
    assert (value, type(value)) == (3.0, float)


@simulated
async def test_a_composite_has_attempts_and_fallbacks_too() -> None:
    flaky = Flaky(1)
    line = (flaky >> Flaky(0)).with_(retry=Retry(2, base=0.1))
    assert await line(3) == 3
    assert len(flaky.begun) == 2


def test_a_fallback_whose_types_do_not_fit_is_refused_when_it_is_given() -> None:
    @module
    async def words(text: str) -> list[str]:
        return [text]

    @module
    async def count(text: str) -> int:
        return len(text)

    @module
    async def keys(table: dict[str, int]) -> list[str]:
        return [*table]

    @module
    async def both(a: str, b: str) -> list[str]:
        return [a, b]

    with refused(WiringError, "words returns list[str], but its fallback count returns int"):
        words.with_(fallback=count)
    with refused(WiringError, "words takes str, but its fallback keys takes dict[str, int]"):
        words.with_(fallback=(words, keys))
    with refused(WiringError, "words: its fallback both needs 2 values (a, b)"):
        words.with_(fallback=both)
    with refused(WiringError, "words: fallback: 3 is neither a Module nor a function"):
        words.with_(fallback=3)  # type: ignore[arg-type]
    with pytest.raises(WiringError, match="but its fallback count returns int"):

        class Words(Module, fallback=count):
            async def forward(self, text: str) -> list[str]:
                return [text]

    with pytest.raises(WiringError, match="but its fallback count returns int"):

        @module(fallback=count)
        async def other(text: str) -> list[str]:
            return [text]


@simulated
async def test_a_fallback_gets_what_was_given_as_far_as_it_has_places() -> None:
    got: list[Any] = []

    @module
    async def far(query: str) -> str:
        got.append(query)
        return "far"

    @module
    async def named(query: str, *, loud: bool = False, **more: Any) -> str:
        got.append((query, loud, more))
        return "named"

    @module
    async def near(text: str, k: int = 1, *, loud: bool = False) -> str:
        raise ConnectionError

    for step in (near.with_(fallback=far), near.with_(fallback=(str.upper, far))):
        got.clear()
        for call in (step(text="x"), step("x", k=2), step("x", 2), step("x", loud=True), step("x")):
            assert await call in ("far", "X")
    assert got == []
    await near.with_(fallback=far)(text="y", k=3)
    assert got == ["y"]
    await near.with_(fallback=named)("z", 3, loud=True)
    assert got[-1] == ("z", True, {})


@simulated
async def test_an_error_that_the_step_and_its_fallbacks_share_is_no_context_of_itself() -> None:
    shared = ConnectionError("down")

    @module
    async def down(x: int) -> int:
        raise shared

    @module
    async def other(x: int) -> int:
        raise KeyError("other")

    with pytest.raises(ConnectionError) as caught:
        await down.with_(fallback=(down.with_(name="again"), other, down.with_(name="last")))(1)
    assert caught.value is shared
    seen, error = set[int](), caught.value.__context__
    while error is not None and len(seen) < 10:
        assert id(error) not in seen
        assert error is not shared
        seen.add(id(error))
        error = error.__context__


@simulated
async def test_detached_work_has_its_attempts_and_fallbacks_inside() -> None:
    flaky = Flaky(2)
    handle: Any = await flaky.with_(detached=True, retry=Retry(3, base=1.0))(7)
    assert await handle == 7
    hopeless: Any = await Flaky(9).with_(detached=True, fallback=lambda x: x + 1)(7)
    assert await hopeless == 8


@simulated
async def test_an_error_that_says_it_is_not_retryable_is_raised_at_once() -> None:
    class Final(ConnectionError):
        retryable = False

    class Passing(ConnectionError):
        retryable = True

    flaky = Flaky(fails=2, error=Final)
    with pytest.raises(Final, match="failure 1"):
        await flaky.with_(retry=Retry(3, on=ConnectionError))(1)
    assert len(flaky.begun) == 1
    assert await Flaky(fails=2, error=Passing).with_(retry=3)(1) == 1
