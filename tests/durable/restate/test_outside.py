"""Runs on a real server, begun and told things by a runner while an engine serves them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import mai
from mai import BlockingDelay, Context, DeadlineExceeded, Parallel, ask, module
from mai.durable.restate import RemoteRun, RestateEngine, RestateRunner
from mai.errors import CastError, ConfigError, RunExists, UnknownRun
from tests.durable.restate_servers import Servers

pytestmark = pytest.mark.slow


class Refused(Exception):
    """An exception of the user's."""


@module
async def add(n: int) -> int:
    return n + 1


@module
async def refuse(n: int) -> int:
    raise Refused(n)


@module
async def who(n: int) -> str:
    return f"{Context.get().metadata.get('user')} {n}"


@module(flow=True)
async def approve(n: int) -> str:
    return f"{await add(n)} {await ask('Good?', bool)}"


@module(flow=True)
async def parcel(n: int) -> str:
    return f"{n} {await mai.wait_for('paid', float)}"


both = (Parallel(add, add >> add) >> max).with_(name="both")
refusing = (add >> refuse).with_(name="refusing")
waiting = (add >> BlockingDelay(600.0)).with_(name="waiting")
named = (add >> who).with_(name="named")
MODULES = [both, refusing, waiting, named, approve, parcel]


@asynccontextmanager
async def opened(server: Servers) -> AsyncIterator[RestateRunner]:
    """Serve the modules, and give a runner."""
    async with (
        RestateEngine(server.admin, ingress=server.ingress, modules=MODULES, port=0),
        RestateRunner(server.ingress, admin=server.admin) as runner,
    ):
        await registered(runner)
        yield runner


async def registered(runner: RestateRunner) -> None:
    """Wait until the modules are known to the server."""
    while True:
        try:
            await runner.start(both, 0, run_id="known")
        except ConfigError:
            await asyncio.sleep(0.05)
        else:
            return


async def asked(run: RemoteRun[Any]) -> Any:
    """Return the questions of *run* once there are some."""
    while not (found := await run.questions()):
        await asyncio.sleep(0.05)
    return found


async def stands(run: RemoteRun[Any], *statuses: str) -> str:
    """Return the status of *run* once it is one of these."""
    while (found := (await run.info()).status) not in statuses:
        await asyncio.sleep(0.05)
    return found


async def test_a_run_is_begun_and_its_value_is_got_as_often_as_wanted(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(both, 3, run_id="o'brien/1 ü")
        assert await run.result() == await runner.attach(both, "o'brien/1 ü").result() == 5
        assert await (await runner.start("both", {"n": 3}, run_id="by name")).result() == 5
        assert (await run.info()).status == "ok"
        with pytest.raises(RunExists):
            await runner.start(both, 4, run_id="o'brien/1 ü")
        with pytest.raises(UnknownRun):
            await runner.attach(both, "nothing").result()


async def test_a_failure_has_the_class_that_the_module_names(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(refusing, 1)
        with pytest.raises(Refused) as told:
            await run.result()
        assert told.value.args == (2,)
        assert (await run.info()).status == "error"


async def test_a_question_is_answered_from_outside(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(approve, 1)
        assert [*(await asked(run)).values()] == ["Good?"]
        await run.answer(True)
        assert await run.result() == "2 True"
        assert await run.questions() == {}


async def test_an_answer_that_does_not_fit_leaves_the_question_open(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(approve, 1)
        await asked(run)
        with pytest.raises(CastError, match=r"\[1, 2\] does not fit the question 'Good\?'"):
            await run.answer([1, 2])
        assert await run.questions()
        await run.answer(False)
        assert await run.result() == "2 False"


async def test_a_signal_may_come_before_it_is_waited_for_and_counts_once(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(parcel, 1, delay=0.5)
        assert await run.signal("paid", 9.5, id="bank-1")
        assert await run.signal("paid", 9.5, id="bank-1")
        assert await run.result() == "1 9.5"
        assert not await run.signal("paid", 9.5)


async def test_a_run_that_waits_is_cancelled(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(waiting, 1)
        assert await stands(run, "running", "waiting")
        assert await run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.result()
        assert not await run.cancel()
        assert await stands(run, "cancelled") == "cancelled"


async def test_the_deadline_and_the_metadata_of_who_begins_it_are_those_of_the_run(server: Servers) -> None:
    async with opened(server) as runner:
        with Context.scope(user="ann"):
            run = await runner.start(named, 1)
        assert await run.result() == "ann 2"
        with Context.scope(timeout=0.3):
            late = await runner.start(waiting, 1)
        with pytest.raises(DeadlineExceeded):
            await late.result()
        assert (await late.info()).status == "timeout"


async def test_a_run_that_begins_later_is_pending(server: Servers) -> None:
    async with opened(server) as runner:
        run = await runner.start(both, 1, delay=1.0)
        assert (await run.info()).status == "pending"
        assert await run.result() == 3
