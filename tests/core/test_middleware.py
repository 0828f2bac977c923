"""Middleware: around the call, inside its deadline and span, outside of fallbacks and attempts."""

import asyncio
import dataclasses
from contextvars import ContextVar
from typing import Any

import pytest

from mai import Call, CastError, ConfigError, Context, DeadlineExceeded, Module, Retry, capture, module
from mai.core.middleware import Next
from tests.support import simulated

mark: ContextVar[str] = ContextVar("mark", default="clean")


def noting(log: list[str], name: str) -> Any:
    async def around(call: Call, next: Next) -> Any:  # noqa: A002
        log.append(f"{name} in")
        try:
            return await next(call)
        finally:
            log.append(f"{name} out")

    return around


@simulated
async def test_the_first_one_is_outermost_and_all_are_outside_of_the_attempts() -> None:
    log: list[str] = []

    @module(
        middleware=(noting(log, "a"), noting(log, "b")),
        retry=Retry(2, base=0.1),
        fallback=lambda x: log.append("other") or x,
    )
    async def step(x: int) -> int:
        log.append("forward")
        raise ValueError

    assert await step(1) == 1
    assert log == ["a in", "b in", "forward", "forward", "other", "b out", "a out"]


@simulated
async def test_it_sees_the_bound_arguments_and_the_place() -> None:
    seen: list[Call] = []

    async def look(call: Call, next: Next) -> Any:  # noqa: A002
        seen.append(call)
        return await next(call)

    class Search(Module, middleware=look):
        async def forward(self, query: str, *, k: int = 3) -> str:
            return query * k

    assert await (Search() >> str.upper)(b"5") == "555"  # type: ignore[arg-type]
    assert seen == [Call("Search", "Sequential/Search", ("5",), {"k": 3})]


@simulated
async def test_it_may_answer_by_itself() -> None:
    async def cached(call: Call, next: Next) -> Any:  # noqa: A002
        return "9"

    @module(middleware=cached)
    async def step(x: int) -> int:
        raise AssertionError("not asked")

    assert await step(1) == 9  # cast, like the value of forward


@simulated
async def test_what_it_answers_must_fit() -> None:
    async def wrong(call: Call, next: Next) -> Any:  # noqa: A002
        return "no number"

    @module(middleware=wrong)
    async def step(x: int) -> int:
        return x

    with pytest.raises(CastError, match="step: the returned value must be int"):
        await step(1)


@simulated
async def test_it_may_hand_on_another_input_which_is_cast() -> None:
    async def other(call: Call, next: Next) -> Any:  # noqa: A002
        return await next(dataclasses.replace(call, args=("41",)))

    @module(middleware=other)
    async def step(x: int) -> int:
        return x + 1

    assert await step(1) == 42
    assert await step.with_(retry=2)(1) == 42


@simulated
async def test_it_may_ask_more_than_once() -> None:
    async def twice(call: Call, next: Next) -> Any:  # noqa: A002
        return await next(call) + await next(call)

    @module(middleware=twice)
    async def step(x: int) -> int:
        return x

    assert await step(4) == 8


@simulated
async def test_a_timeout_bounds_the_attempt_inside_and_a_total_timeout_the_middleware_too() -> None:
    async def slow(call: Call, next: Next) -> Any:  # noqa: A002
        await asyncio.sleep(3)
        return await next(call)

    @module(middleware=slow)
    async def step(x: int) -> int:
        return x

    assert await step.with_(timeout=1.0)(1) == 1
    with pytest.raises(DeadlineExceeded):
        await step.with_(total_timeout=1.0)(1)


@simulated
async def test_what_it_sets_reaches_the_step_and_nobody_else() -> None:
    async def user(call: Call, next: Next) -> Any:  # noqa: A002
        with Context.scope(user="ann"):
            return await next(call)

    @module
    async def who(x: int) -> Any:
        return Context.get().metadata.get("user")

    assert await who.with_(middleware=user, retry=2)(1) == "ann"
    assert await who.with_(middleware=user, fallback=who)(1) == "ann"
    assert await who(1) is None


@pytest.mark.parametrize("settings", [{}, {"retry": 2}, {"timeout": 5.0}])
@simulated
async def test_what_the_step_sets_reaches_neither_it_nor_the_next_try(settings: Any) -> None:
    seen: list[str] = []

    async def twice(call: Call, next_: Any) -> Any:
        await next_(call)
        seen.append(mark.get())
        return await next_(call)

    @module(middleware=twice, **settings)
    async def step(x: int) -> int:
        seen.append(mark.get())
        mark.set("dirty")
        return x

    await step(1)
    assert seen == ["clean"] * 3


@pytest.mark.parametrize("settings", [{}, {"retry": Retry(2, base=0.001)}])
@simulated
async def test_after_a_cancel_it_cannot_ask_once_more(settings: Any) -> None:
    tries: list[int] = []

    async def again(call: Call, next_: Any) -> Any:
        try:
            return await next_(call)
        except ConnectionError:
            return await next_(call)

    @module(middleware=again, **settings)
    async def step(x: int) -> int:
        tries.append(x)
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError("the clean-up failed")

    task = asyncio.ensure_future(step(1))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tries == [1]


@simulated
async def test_its_failure_is_the_failure_of_the_call() -> None:
    async def refuse(call: Call, next: Next) -> Any:  # noqa: A002
        raise PermissionError("not today")

    @module(middleware=refuse)
    async def step(x: int) -> int:
        return x

    with capture() as trace, pytest.raises(PermissionError) as caught:
        await step(1)
    assert trace.runs[0].outcome == "error"
    assert caught.value.__notes__[0].startswith("mai: in step")


@simulated
async def test_it_works_on_threads_streams_and_composites() -> None:
    log: list[str] = []

    @module(middleware=noting(log, "m"))
    def plain(x: int) -> int:
        return x

    @module(middleware=noting(log, "m"))
    async def words(x: int) -> Any:
        yield "a"
        yield "b"

    assert await plain(1) == 1
    assert await words(1) == "ab"
    assert await (plain >> plain).with_(middleware=noting(log, "m"))(1) == 1
    assert len(log) == 2 + 2 + 6


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"middleware=3 cannot be used: .*give one that can be called"):

        @module(middleware=3)
        async def step(x: int) -> int:
            return x


@pytest.mark.parametrize(
    "wrong", [lambda call: None, lambda call, go_on, more: None, len, test_what_cannot_be_called_is_refused]
)
def test_what_takes_another_number_of_arguments_is_refused(wrong: Any) -> None:
    @module
    async def plain(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=r"middleware=<.*> cannot be used: .*called with a call and what comes next"):
        assert plain.with_(middleware=wrong)
    for fits in (print, lambda *args: None, lambda call, go_on, more=1: None):
        assert plain.with_(middleware=(fits,))


@simulated
async def test_a_deadline_that_it_sets_bounds_the_step() -> None:
    async def hurry(call: Call, next: Next) -> Any:  # noqa: A002
        with Context.scope(timeout=1.0):
            return await next(call)

    @module(middleware=hurry)
    async def slow(x: int) -> int:
        assert Context.get().deadline is not None
        await asyncio.sleep(5)
        return x

    with pytest.raises(DeadlineExceeded):
        await slow(1)
