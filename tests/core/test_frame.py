"""Context: what a step knows about its call, what scopes hand down, and that nothing leaks."""

import asyncio
import math
import time
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import ValidationError

from mai import ConfigError, Context, DeadlineExceeded, Module, Parallel, capture, module
from tests.support import loop_of, refused, refused_value, simulated, still

seen: ContextVar[str] = ContextVar("seen", default="outside")


@module
async def look(x: Any) -> Context:
    return Context.get()


@module
def look_in_a_thread(x: Any) -> Context:
    return Context.get()


@module
async def inner(x: Any) -> list[Context]:
    return [await look(x), await look_in_a_thread(x)]


# ---------------------------------------------------------------- what it tells


def test_outside_a_call_there_is_an_empty_context() -> None:
    context = Context.get()
    assert context == Context()
    assert (context.deadline, dict(context.metadata), context.auth, context.step_id) == (None, {}, None, "")
    assert (context.run_id, context.idempotency_key, context.span, context.retry_count) == (None, None, None, 0)


@simulated
async def test_inside_it_tells_path_run_and_key() -> None:
    a, b = await inner(1)
    assert (a.step_id, b.step_id) == ("inner/look", "inner/look_in_a_thread")
    assert a.run_id == b.run_id
    assert len(a.run_id or "") == 32
    assert a.idempotency_key != b.idempotency_key
    assert len(a.idempotency_key or "") == 32
    assert a.retry_count == 0


@simulated
async def test_two_runs_have_two_ids_and_the_key_is_stable_within_one() -> None:
    @module
    async def twice(x: int) -> list[Context]:
        return [Context.get(), Context.get(), await look(1)]

    first, again, below = await twice(1)
    assert (await twice(1))[0].run_id != first.run_id == again.run_id == below.run_id
    assert first.idempotency_key == again.idempotency_key != below.idempotency_key


@simulated
async def test_repeats_are_counted_in_the_path_by_call_site_of_user_code() -> None:
    @module
    async def calls(x: int) -> list[str]:
        return [(await look(x)).step_id for _ in range(3)] + [(await look.with_(name="other")(x)).step_id]

    expected = ["calls/look", "calls/look~2", "calls/look~3", "calls/other"]
    assert await calls(1) == expected
    assert await calls(1) == expected


@simulated
async def test_repeats_are_counted_in_one_call_also_inside_scopes() -> None:
    @module
    async def calls(x: int) -> list[str]:
        first = await look(x)
        with Context.scope(user="ann"):
            second = await look(x)
        return [first.step_id, second.step_id, (await look(x)).step_id]

    assert await calls(1) == ["calls/look", "calls/look~2", "calls/look~3"]


@simulated
async def test_composites_have_static_keys() -> None:
    @module
    async def up(c: Context) -> list[str]:
        return [c.step_id, Context.get().step_id]

    paths = await ((look >> up) & (look >> up))(1)
    assert paths == (
        ["Parallel[0]/Sequential/look", "Parallel[0]/Sequential/up"],
        ["Parallel[1]/Sequential/look", "Parallel[1]/Sequential/up"],
    )
    named = await Parallel(left=look, right=look.with_(name="seek"))(1)
    assert [c.step_id for c in named.values()] == ["Parallel[left]/look", "Parallel[right]/seek"]
    assert await (look >> look >> look >> up)(1) == ["Sequential/look~3", "Sequential/up"]


# ---------------------------------------------------------------- it is frozen and hides auth


def test_a_context_is_frozen_and_its_metadata_read_only() -> None:
    context: Any = Context(metadata={"a": 1})
    with pytest.raises(ValidationError, match="frozen"):
        context.deadline = 1.0
    with pytest.raises(TypeError):
        context.metadata["a"] = 2


def test_metadata_is_a_copy_of_what_was_given() -> None:
    given = {"a": 1}
    context = Context(metadata=given)
    given["a"] = 2
    assert dict(context.metadata) == {"a": 1}
    with Context.scope(**given):
        given["a"] = 3
        assert Context.get().metadata == {"a": 2}


@simulated
async def test_auth_is_inherited_and_never_shown() -> None:
    with Context.scope(auth={"key": "s3cret"}), capture(sizes=True) as trace:
        (context, also) = await inner(1)
        assert Context.get().auth == {"key": "s3cret"}
    assert context.auth == also.auth == {"key": "s3cret"}
    assert Context.get().auth is None
    shown = [repr(context), str(context)]
    shown += [str(trace), *(str(vars(handle)) for handle in trace.runs[0].walk())]
    assert not any("s3cret" in text for text in shown)


@simulated
async def test_a_context_can_be_dumped_without_auth_and_span() -> None:
    with Context.scope(auth="s3cret", user="ann"):
        context = await look(1)
    dumped = context.model_dump()
    assert set(dumped) == {*Context.model_fields, "idempotency_key"} - {"auth", "span"}
    assert dumped["metadata"] == {"user": "ann"}
    assert "s3cret" not in context.model_dump_json()


@simulated
async def test_auth_is_not_in_the_notes_of_an_error() -> None:
    @module
    async def fails(x: int) -> int:
        raise ValueError("no")

    with Context.scope(auth="s3cret"), pytest.raises(ValueError, match="no") as caught:
        await fails(1)
    assert "s3cret" not in "".join(caught.value.__notes__)


# ---------------------------------------------------------------- scopes


@simulated
async def test_a_scope_adds_metadata_for_everything_called_inside_and_only_there() -> None:
    with Context.scope(user="ann", tenant=1):
        with Context.scope(user="bob", trace=True):
            a, b = await inner(1)
            assert dict(a.metadata) == dict(b.metadata) == {"user": "bob", "tenant": 1, "trace": True}
        assert dict((await look(1)).metadata) == {"user": "ann", "tenant": 1}
    assert dict((await look(1)).metadata) == {}


@simulated
async def test_a_scope_in_a_step_is_seen_below_and_neither_above_nor_beside() -> None:
    @module
    async def opens(x: int) -> Any:
        Context.set(user="left open")
        seen.set("changed")
        return (await look(x)).metadata

    @module
    async def around(x: int) -> list[Any]:
        return [await opens(x), (await look(x)).metadata, Context.get().metadata, seen.get()]

    assert await around(1) == [{"user": "left open"}, {}, {}, "outside"]
    assert await (opens & look >> (lambda c: c.metadata))(1) == ({"user": "left open"}, {})
    assert (Context.get().metadata, seen.get()) == ({}, "outside")


@simulated
async def test_set_gives_a_token_that_reset_takes() -> None:
    token = Context.set(user="ann")
    inside = await look(1)
    Context.reset(token)
    assert (dict(inside.metadata), dict((await look(1)).metadata)) == ({"user": "ann"}, {})


@simulated
async def test_a_token_of_another_task_is_quietly_ignored() -> None:
    token = await asyncio.create_task(give_token())
    Context.reset(token)
    assert dict(Context.get().metadata) == {}


async def give_token() -> Any:
    return Context.set(user="ann")


@simulated
async def test_a_scope_held_by_an_abandoned_generator_does_no_harm() -> None:
    async def items() -> Any:
        with Context.scope(user="ann"):
            yield 1
            yield 2

    stream = items()
    assert await asyncio.create_task(first_of(stream)) == 1
    await stream.aclose()
    assert dict(Context.get().metadata) == {}


async def first_of(stream: Any) -> Any:
    return await anext(stream)


@simulated
async def test_scopes_without_arguments_change_nothing() -> None:
    with Context.scope():
        assert Context.get() == Context()
        assert (await look(1)).step_id == "look"


@simulated
async def test_falsy_and_none_values_are_values() -> None:
    with Context.scope(user=None, auth="a"), Context.scope(auth=None):
        context = await look(1)
    assert (dict(context.metadata), context.auth) == ({"user": None}, None)


# ---------------------------------------------------------------- deadlines


@simulated
async def test_a_timeout_becomes_a_deadline_that_is_never_later_than_the_inherited_one() -> None:
    now = loop_of().time()
    with still(), Context.scope(timeout=5):
        assert Context.get().deadline == now + 5
        with Context.scope(timeout=9):
            assert (await look(1)).deadline == now + 5
        with Context.scope(timeout=2, deadline=now + 1):
            assert (await look_in_a_thread(1)).deadline == now + 1
        with Context.scope(deadline=now + 100):
            assert Context.get().deadline == now + 5
    assert Context.get().deadline is None


@simulated
async def test_a_steps_timeout_is_its_deadline_and_that_of_what_it_calls() -> None:
    now = loop_of().time()
    with still():
        a, b = await inner.with_(timeout=3)(1)
    assert a.deadline == b.deadline == now + 3
    with Context.scope(timeout=2):
        assert (await look.with_(timeout=3)(1)).deadline == now + 2
        assert (await look.with_(timeout=3, total_timeout=1)(1)).deadline == now + 1


@simulated
async def test_a_deadline_that_has_passed_lets_nothing_start() -> None:
    began: list[int] = []

    @module
    async def step(x: int) -> int:
        began.append(x)
        return x

    @module
    async def around(x: int) -> int:
        return await step(x)

    loop_of()
    with (
        Context.scope(deadline=0),
        pytest.raises(DeadlineExceeded, match="Step 'around' ran past the deadline that it inherited"),
    ):
        await around(1)
    assert began == []


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "5", True])
def test_a_scopes_timeout_is_a_finite_number_above_zero(timeout: Any) -> None:
    with refused_value("Context", "timeout", timeout):
        Context.set(timeout=timeout)
    with refused_value("Context", "timeout", timeout), Context.scope(timeout=timeout):
        pass


@pytest.mark.parametrize("deadline", [-1, math.nan, math.inf, -math.inf, "5", True])
def test_a_deadline_is_a_time(deadline: Any) -> None:
    with refused_value("Context", "deadline", deadline):
        Context.set(deadline=deadline)


def test_a_wall_clock_deadline_is_recognised() -> None:
    deadline = 1.9e9  # the year 2030 since the epoch; no machine has been up so long
    with pytest.raises(ConfigError, match="deadline is monotonic seconds; use timeout=") as caught:
        Context.set(deadline=deadline)
    assert str(caught.value).startswith(f"Context: deadline={deadline!r} ")
    Context.reset(Context.set(deadline=time.monotonic() + 9 * 365 * 86400))


@pytest.mark.parametrize("fact", ["step_id", "run_id", "span", "retry_count", "idempotency_key", "metadata"])
def test_what_mai_itself_tells_cannot_be_metadata(fact: str) -> None:
    with refused(ConfigError, f"Context: {fact!r} is set by mai itself; choose another name for your metadata"):
        Context.set(**{fact: "x"})  # type: ignore[arg-type]
    assert Context.get() == Context()


@simulated
async def test_a_step_sees_its_callers_context_variables_and_changes_none() -> None:
    class Change(Module):
        async def forward(self, x: str) -> str:
            before = seen.get()
            seen.set(x)
            return before

    seen.set("mine")
    assert await Change()("yours") == "mine"
    assert await (Change() & Change().with_(name="b"))("yours") == ("mine", "mine")
    assert seen.get() == "mine"
