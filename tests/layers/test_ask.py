"""Questions: who may ask, who answers, and what an answer must be."""

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator

from mai import AskError, CastError, ConfigError, DeadlineExceeded, PayloadError, answers, ask, module
from mai.types import Asked, Question
from tests.support import refused, refused_value, simulated


class Plan(BaseModel):
    steps: list[str]


@module
async def send(text: str) -> str:
    return f"sent {text}" if await ask(f"Send {text!r}?", bool) else "kept"


@module
async def name(text: str) -> str:
    return await ask(text)


both = send & name


async def asked(handle: Any, n: int = 1) -> tuple[Question, ...]:
    """Wait until *n* questions are open."""
    async for event in handle:
        if isinstance(event, Asked) and len(handle.questions) == n:
            break
    return handle.questions  # type: ignore[no-any-return]


@simulated
async def test_the_holder_of_the_handle_answers() -> None:
    h = send.start("x")
    (question,) = await asked(h)
    assert (question.prompt, question.step_id, question.expected) == ("Send 'x'?", "send", "bool")
    assert question.schema == {"type": "boolean"}
    h.answer("yes")
    assert await h == "sent x"
    assert h.questions == ()


@simulated
async def test_an_answer_is_of_the_type_that_was_asked_for() -> None:
    @module
    async def plan(x: int) -> Plan:
        return await ask("Plan?", Plan)

    h = plan.start(1)
    await asked(h)
    with pytest.raises(CastError, match="Plan"):
        h.answer({"step": []})
    assert len(h.questions) == 1
    h.answer({"steps": ["a"]})
    assert await h == Plan(steps=["a"])


@simulated
async def test_with_several_questions_open_the_answer_says_which() -> None:
    h = both.start("x")
    first, second = await asked(h, 2)
    with refused(
        AskError, "answer(True) belongs to no single open question; open: \"Send 'x'?\", 'x'; say which with question="
    ):
        h.answer(True)
    h.answer("Ann", question=second)
    h.answer(False, question=first)
    assert await h == ("kept", "Ann")


@simulated
async def test_an_answer_that_no_question_waits_for_is_refused() -> None:
    h = send.start("x")
    with refused(AskError, "answer(True) belongs to no single open question; open: none"):
        h.answer(True)
    (question,) = await asked(h)
    h.answer(True)
    about = f"answer(True, question={question.prompt!r})"
    with refused(AskError, f"{about} belongs to no single open question; open: none"):
        h.answer(True, question)
    await h


@simulated
async def test_an_answer_may_come_from_another_thread() -> None:
    h = send.start("x")
    await asked(h)
    await asyncio.to_thread(h.answer, "yes")
    assert await h == "sent x"


@simulated
async def test_of_two_answers_the_first_one_counts_and_the_other_is_told() -> None:
    seen: list[int] = []

    def look(value: Any) -> Any:
        seen.append(value)
        if value == 1 and len(seen) == 1:
            h.answer(2)  # somebody else is quicker
        return value

    @module
    async def number(x: int) -> int:
        return await ask("n?", Annotated[int, BeforeValidator(look)])  # type: ignore[no-any-return]

    h = number.start(1)
    await asked(h)
    with refused(AskError, "answer(1): 'n?' was answered already, or waits no more"):
        h.answer(1)
    assert await h == 2


@simulated
async def test_who_asks_where_nobody_can_answer_is_told_at_once() -> None:
    message = "ask(\"Send 'x'?\") in 'send': nobody can answer; start() the run, or call it in 'with answers(fn):'"
    with refused(AskError, message):
        await send("x")
    with pytest.raises(AskError, match=r"ask\('x'\) outside of a call"):
        await ask("x")


@simulated
async def test_a_function_answers_what_the_calls_inside_ask() -> None:
    seen: list[Question] = []

    async def slowly(question: Question) -> object:
        await asyncio.sleep(1)
        seen.append(question)
        return "no"

    with answers(slowly):
        assert await send("x") == "kept"
        with answers(lambda question: "yes"):
            assert await send("x") == "sent x"
            assert await ask("hello") == "yes"
    assert [question.step_id for question in seen] == ["send"]
    with pytest.raises(AskError):
        await send("x")


@simulated
async def test_a_function_answers_in_a_started_run_too_and_the_question_is_told() -> None:
    with answers(lambda question: True):
        h = send.start("x")
    assert [type(event).__name__ async for event in h] == ["Started", "Asked", "Finished"]
    assert await h == "sent x"


@simulated
async def test_an_answer_of_a_function_that_does_not_fit_or_fails_fails_the_step() -> None:
    def broken(question: Question) -> object:
        raise TimeoutError("mine")

    with answers(lambda question: "perhaps"), pytest.raises(CastError):
        await send("x")
    with answers(broken), pytest.raises(TimeoutError, match="mine") as caught:
        await send("x")
    assert type(caught.value) is TimeoutError


@simulated
async def test_a_question_waits_no_longer_than_its_timeout() -> None:
    @module
    async def impatient(x: int) -> int:
        return await ask("n?", int, timeout=3)

    h = impatient.start(1)
    with refused(DeadlineExceeded, "Nobody answered 'n?' within 3 s"):
        await h
    assert h.questions == ()
    with answers(lambda question: asyncio.sleep(60)), pytest.raises(DeadlineExceeded):
        await impatient(1)
    late = send.with_(timeout=1).start("x")
    with pytest.raises(DeadlineExceeded, match="Step 'send'"):
        await late
    assert late.questions == ()


@simulated
async def test_a_run_that_is_cancelled_while_it_asks_has_no_question_any_more() -> None:
    h = send.start("x")
    (question,) = await asked(h)
    h.cancel()
    with pytest.raises(asyncio.CancelledError):
        await h
    assert h.questions == ()
    with pytest.raises(AskError):
        h.answer(True, question)


@simulated
async def test_what_cannot_be_asked_is_refused_at_once() -> None:
    with answers(lambda question: 1):
        with pytest.raises(PayloadError, match="Cannot ask for a Event"):
            await ask("n?", asyncio.Event)
        with refused_value("ask", "timeout", -1):
            await ask("n?", int, timeout=-1)
        with pytest.raises(ConfigError, match="prompt=3 is not a text"):
            await ask(3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="answers: 3 is not a function"), answers(3):  # type: ignore[arg-type]
        pass


@simulated
async def test_the_same_step_may_ask_again() -> None:
    @module
    async def twice(x: int) -> list[int]:
        return [await ask("a?", int), await ask("b?", int)]

    h = twice.start(1)
    async for event in h:
        if isinstance(event, Asked):
            h.answer(len(event.question.prompt) if event.question.prompt == "a?" else 9)
    assert await h == [2, 9]


def test_sync_code_answers() -> None:
    h = send.start("x")
    for event in h:
        if isinstance(event, Asked):
            h.answer(True, event.question)
    assert h.result() == "sent x"


@simulated
async def test_the_question_and_the_answer_are_events_of_the_call_that_asks() -> None:
    @module
    async def wonder(x: int) -> int:
        try:
            await ask("Quick?", int, timeout=1)
        except TimeoutError:
            pass
        return await ask("n?", int)

    h = wonder.start(1)
    async for event in h:
        if isinstance(event, Asked) and event.question.prompt == "n?":
            await asyncio.sleep(2)
            h.answer(7)
    assert h.start_ns is not None
    assert [(e.name, (e.at_ns - h.start_ns) / 1e9) for e in h.events] == [
        ("mai.asked", pytest.approx(0)), ("mai.asked", pytest.approx(1)), ("mai.answered", pytest.approx(3)),
    ]  # fmt: skip
