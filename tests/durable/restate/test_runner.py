"""Runs that are controlled from outside, on a server that does what a real one was seen to do."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from mai import Context, module
from mai.durable.failures import Failures
from mai.durable.restate import RemoteInfo, RestateRunner
from mai.durable.restate.carry import digest
from mai.errors import (
    AskError,
    CastError,
    ConfigError,
    DeadlineExceeded,
    JournalError,
    PayloadError,
    ReplayMismatch,
    RunExists,
    StepFailed,
    UnknownRun,
)
from tests.durable.restate.fake import FakeRestate, FakeRun, serving
from tests.support import recorded_spans


class Doc(BaseModel):
    """A model."""

    text: str


class Boom(Exception):
    """An exception of the user's."""


@module
async def label(doc: Doc, mark: str = "!") -> Doc:
    raise Boom(doc.text)


@asynccontextmanager
async def opened(*services: str, **settings: Any) -> AsyncIterator[tuple[FakeRestate, RestateRunner]]:
    """Give a server and a runner that knows it."""
    fake = FakeRestate(*(services or ("label",)))
    async with serving(fake) as url, RestateRunner(url, admin=url, **settings) as runner:
        yield fake, runner


def failed(error: BaseException) -> dict[str, Any]:
    """Return what the server gives for a run that failed so."""
    return {"code": 500, "message": str(error), "metadata": {"mai": Failures().crossed(error, ())[0].decode()}}


def only(fake: FakeRestate) -> FakeRun:
    """Return the one run that there is."""
    (run,) = fake.runs.values()
    return run


async def test_a_run_has_the_value_of_its_module() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        assert json.loads(only(fake).input) == {"doc": {"text": "a"}, "mark": "!"}
        assert (run.target, run.run_id) == ("label", only(fake).key)
        only(fake).finish(200, {"text": "A!"})
        assert await run.result() == Doc(text="A!")
        assert await runner.attach(label, run.run_id).result() == Doc(text="A!")


async def test_all_arguments_are_given_by_a_payload() -> None:
    async with opened() as (fake, runner):
        await runner.start(label, label.payload(doc=Doc(text="a"), mark="?"))
        assert json.loads(only(fake).input) == {"doc": {"text": "a"}, "mark": "?"}


async def test_a_module_may_be_told_by_its_name_alone() -> None:
    async with opened() as (fake, runner):
        run = await runner.start("label", {"doc": {"text": "a"}}, run_id="one", delay=2)
        assert (only(fake).key, only(fake).delay, json.loads(only(fake).input)) == (
            "one",
            "2000ms",
            {"doc": {"text": "a"}},
        )
        only(fake).finish(200, {"text": "A!"})
        assert await run.result() == {"text": "A!"}
        again = await runner.start("label", label.payload(doc=Doc(text="b")), run_id="two")
        assert json.loads(fake.runs["label", "two"].input) == {"doc": {"text": "b"}, "mark": "!"}
        assert repr(again) == "<RemoteRun 'two' of label>"


async def test_the_same_id_is_the_same_run_and_has_one_input() -> None:
    async with opened() as (fake, runner):
        await runner.start(label, Doc(text="a"), run_id="one")
        await runner.start(label, Doc(text="a"), run_id="one")  # it has not begun: there is nothing to compare with
        only(fake).about = {"input": digest(only(fake).input)}
        await runner.start(label, Doc(text="a"), run_id="one")
        with pytest.raises(RunExists, match="'one' of 'label' already, with another input"):
            await runner.start(label, Doc(text="b"), run_id="one")


async def test_a_prefix_is_part_of_the_name_of_the_service_only() -> None:
    async with opened("shop-label", prefix="shop-") as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        assert (run.target, only(fake).service) == ("label", "shop-label")


async def test_a_failure_is_raised_as_the_module_knows_it() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).finish(500, failed(Boom("a")))
        with pytest.raises(Boom, match="a"):
            await run.result()
        with pytest.raises(StepFailed, match="Boom: a"):  # the name is looked up nowhere else
            await runner.attach("label", run.run_id).result()


async def test_an_exception_that_the_module_cannot_name_is_raised_if_the_runner_was_given_it() -> None:
    class Local(Exception):
        pass

    async with opened(errors=[Local]) as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).finish(500, failed(Local("a")))
        with pytest.raises(Local):
            await run.result()


async def test_a_timeout_and_a_cancel_are_raised_as_what_they_are() -> None:
    async with opened() as (fake, runner):
        late, gone = await runner.start(label, Doc(text="a"), run_id="l"), await runner.start(label, Doc(text="a"))
        fake.runs["label", "l"].finish(408, failed(DeadlineExceeded("late")))
        with pytest.raises(DeadlineExceeded):
            await late.result()
        assert await gone.cancel()
        assert not await gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone.result()


async def test_why_a_run_was_given_up_is_asked_where_the_server_does_not_say_so() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        facts = json.loads(Failures().crossed(ReplayMismatch("it differs", run_id=run.run_id), ())[0])
        only(fake).about = {"status": "error", "error": facts}
        only(fake).finish(409, {"code": 409, "message": "killed"})
        with pytest.raises(ReplayMismatch, match="it differs"):
            await run.result()


async def test_an_end_that_the_server_alone_knows_of_is_told_in_its_words() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"), run_id="one")
        only(fake).finish(500, {"code": 500, "message": "no memory"})
        with pytest.raises(StepFailed, match="run 'one': no memory"):
            await run.result()


async def test_a_wait_that_is_cancelled_leaves_the_run_alone() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        wait = asyncio.ensure_future(run.result())
        while not any("attach" in one for one in fake.asked):
            await asyncio.sleep(0.001)
        wait.cancel()
        await asyncio.wait([wait])
        assert only(fake).end is None


async def test_a_signal_carries_a_value_and_is_refused_after_the_end() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        assert await run.signal("paid", 9.5, id="bank-1")
        assert await run.signal("seen", Doc(text="x"))
        assert await run.signal("named", label.payload(doc=Doc(text="y")))
        assert only(fake).signals[0] == {"name": "paid", "value": 9.5, "id": "bank-1", "answers": False}
        assert [one["value"] for one in only(fake).signals[1:]] == [{"text": "x"}, {"doc": {"text": "y"}, "mark": "!"}]
        with pytest.raises(PayloadError):
            await run.signal("paid", object())
        only(fake).finish(200, {"text": "A!"})
        assert not await run.signal("paid", 9.5)


@pytest.mark.slow
async def test_a_signal_that_no_worker_takes_now_is_kept_once_and_taken_later() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        fake.is_served, fake.troubles = False, [470, 503, 503]  # it goes on; and the server is not ready
        assert await run.signal("paid", 9.5)
        assert only(fake).signals == []
        assert len(fake.keys) == 1
        fake.is_served = True
        assert await runner._client.sent("inv_call_0", 1.0) == b"true"
        assert [one["value"] for one in only(fake).signals] == [9.5]


@pytest.mark.slow
async def test_a_run_that_ended_meanwhile_takes_no_signal() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        fake.is_served = False
        asyncio.get_running_loop().call_later(0.5, only(fake).finish, 200, {"text": "A!"})
        assert not await run.signal("paid", 9.5)


async def test_where_no_worker_says_what_a_run_asks_the_tables_do() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).about = {"questions": {"a": {"prompt": "A?"}}}
        fake.is_served = False
        assert await run.questions() == {"a": "A?"}


async def test_an_answer_of_which_a_worker_says_that_it_does_not_fit_is_refused() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        fake.refuses = {"refused": "no bool", "expected": "bool"}
        with pytest.raises(CastError, match="no bool") as told:
            await run.answer("perhaps", question="a")
        assert (told.value.step_id, told.value.expected) == ("a", "bool")
        fake.refuses = "killed"
        with pytest.raises(JournalError, match="The server ended the call inv_call_1: killed"):
            await run.answer("yes", question="a")


async def test_the_one_open_question_is_answered() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"), run_id="one")
        with pytest.raises(AskError, match=r"no single open question of 'one'; open: \[\]"):
            await run.answer(True)
        only(fake).about = {"questions": {"label/ask": {"prompt": "Go on?", "expected": "bool"}}}
        assert await run.questions() == {"label/ask": "Go on?"}
        await run.answer(True)
        assert only(fake).signals == [{"name": "label/ask", "value": True, "id": None, "answers": True}]


async def test_of_several_questions_one_must_be_named() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).about = {"questions": {"a": {"prompt": "A?"}, "b": {"prompt": "B?"}}}
        with pytest.raises(AskError, match="say which with question="):
            await run.answer("yes")
        await run.answer("yes", question="b")
        assert only(fake).signals[0]["name"] == "b"


async def test_a_run_that_has_ended_asks_nothing_and_takes_no_answer() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"), run_id="one")
        only(fake).about = {"questions": {"a": {"prompt": "A?"}}}
        only(fake).finish(200, {"text": "A!"})
        assert await run.questions() == {}
        with pytest.raises(AskError, match="run 'one' has ended"):
            await run.answer("yes", question="a")


CONTROLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "result": lambda run: run.result(),
    "info": lambda run: run.info(),
    "signal": lambda run: run.signal("x"),
    "answer": lambda run: run.answer(1),
    "cancel": lambda run: run.cancel(),
    "resume": lambda run: run.resume(),
    "questions": lambda run: run.questions(),
}


@pytest.mark.parametrize("what", CONTROLS)
async def test_a_run_that_is_not_there_is_told_as_such(what: str) -> None:
    async with opened() as (_, runner):
        with pytest.raises(UnknownRun, match="There is no run 'none' of 'label'") as told:
            await CONTROLS[what](runner.attach(label, "none"))
        assert told.value.run_id == "none"


@pytest.mark.parametrize(
    ("server", "wanted"),
    [
        ("scheduled", "pending"), ("pending", "pending"), ("running", "running"), ("suspended", "waiting"),
        ("backing-off", "running"), ("paused", "needs_attention"), ("something new", "running"),
    ],
)  # fmt: skip
async def test_how_a_run_stands_is_told_in_our_words(server: str, wanted: str) -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).status = server
        assert (await run.info()).status == wanted


async def test_how_a_run_ended_is_told_as_it_said_itself() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"))
        only(fake).finish(200, {"text": "A!"})
        assert (await run.info()).status == "ok"
        late = await runner.start(label, Doc(text="a"), run_id="late")
        fake.runs["label", "late"].about = {"status": "timeout"}
        fake.runs["label", "late"].finish(408, failed(DeadlineExceeded("late")))
        assert (await late.info()).status == "timeout"


async def test_attempts_that_failed_are_told_with_what_they_failed_of_and_may_be_made_again() -> None:
    async with opened() as (fake, runner):
        run = await runner.start(label, Doc(text="a"), run_id="one")
        only(fake).about = {"questions": {"a": {"prompt": "A?"}}}
        only(fake).row = {"retry_count": 3, "last_failure": "[500] no connection"}
        only(fake).status = "backing-off"
        began = datetime(2026, 11, 21, 20, tzinfo=UTC).timestamp()
        facts = {"run_id": "one", "target": "label", "created": began, "updated": began}
        assert await run.info() == RemoteInfo(
            "running", {"a": "A?"}, 2, "[500] no connection", "inv_label_one", **facts
        )
        assert await run.resume()
        only(fake).status = "running"
        assert ((await run.info()).retries, (await run.info()).failure) == (0, "")


async def test_deadline_metadata_and_trace_go_along() -> None:
    async with opened() as (fake, runner):
        with recorded_spans():

            @module
            async def begin(text: str) -> None:
                await runner.start(label, Doc(text=text))

            with Context.scope(timeout=60.0, user="änn", secret=object()):
                await begin("a")
        headers = only(fake).headers
        assert json.loads(headers["x-mai-metadata"]) == {"user": "änn"}
        assert 50.0 < float(headers["x-mai-timeout"]) <= 60.0
        assert headers["traceparent"].startswith("00-")


async def test_without_any_of_these_nothing_goes_along() -> None:
    async with opened(headers={"x-key": "k"}) as (fake, runner):
        await runner.start(label, Doc(text="a"))
        assert not {key for key in only(fake).headers if key.startswith(("x-mai", "trace"))}
        assert only(fake).headers["x-key"] == "k"


async def test_what_cannot_be_started_is_refused_with_the_reason() -> None:
    async with opened() as (_, runner):
        with pytest.raises(ConfigError, match="for a module by its name give a mapping of its arguments"):
            await runner.start("label", 1)
        with pytest.raises(ConfigError, match="give a Module, or its name"):
            runner.attach(len, "one")  # type: ignore[call-overload]
        with pytest.raises(ConfigError, match="delay"):
            await runner.start(label, Doc(text="a"), delay=-1)
        with pytest.raises(ConfigError, match="patience"):
            RestateRunner(patience=-1)
