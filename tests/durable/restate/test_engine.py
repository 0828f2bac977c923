"""RestateEngine against a real server: what comes from outside, what ends a run, and what a worker leaves behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import mai
from mai import AskError, Context, DeadlineExceeded, Parallel, module
from mai.core.ids import new_id
from mai.durable.restate import RestateEngine
from mai.durable.restate.tables import about_of, row_of
from mai.errors import CastError, ConfigError, ReplayMismatch, RunExists, StepFailed, UnknownRun
from tests.durable.conformance import DONE, Approve, Boom, add, boom, did, parcel, put_back, slow
from tests.durable.restate_servers import Servers, free_port
from tests.support import recorded_spans

pytestmark = pytest.mark.slow

Given = Callable[..., RestateEngine]


@pytest.fixture
def engine(server: Servers) -> Given:
    """Makes engines that share workflows which no other test has."""
    DONE.clear()
    prefix = f"t{new_id()[:12]}."

    def make(**settings: Any) -> RestateEngine:
        return RestateEngine(server.admin, **{"ingress": server.ingress, "port": 0, "prefix": prefix, **settings})

    return make


async def until(ready: Callable[[], Awaitable[object]]) -> None:
    """Wait until *ready*."""
    for _ in range(500):
        if await ready():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come to that")


async def asked(engine: RestateEngine, run_id: str) -> Any:
    """Return what a run asks."""
    return about_of(await row_of(engine.client, f"{engine.prefix}Approve", run_id)).get("questions")


@module
async def held(n: int) -> int:
    try:
        await asyncio.sleep(60)
    finally:
        did("cleaned up")
    return n


async def test_a_question_is_answered_by_the_handle(engine: Given) -> None:
    async with engine() as here:
        handle = here.start(Approve(), 3, run_id="one")
        async for _ in handle:
            if handle.questions:
                handle.answer(True)
        assert await handle == "4 yes 5"
        assert [step.name for step in handle.children] == ["add", "add"]


async def test_a_question_is_answered_through_the_server_and_an_answer_that_does_not_fit_is_refused(
    engine: Given,
) -> None:
    async with engine(inactivity=0.1) as here:
        handle = here.start(Approve(), 3, run_id="one")

        await until(lambda: asked(here, "one"))
        with pytest.raises(CastError, match="nonsense"):
            await here.answer("one", "nonsense")
        await here.answer("one", False, question="Approve/ask")
        assert await handle == "4 no 5"
        with pytest.raises(AskError):
            await here.answer("one", True)
        with pytest.raises(AskError, match="has ended"):
            await here.answer("one", True, question="Approve/ask")


async def test_a_signal_is_kept_once_however_often_it_is_sent_and_refused_after_the_end(engine: Given) -> None:
    @module(flow=True)
    async def two(n: int) -> list[float]:
        return [await mai.wait_for("paid", float), await mai.wait_for("paid", float)]

    async with engine() as here:
        handle = here.start(two, 3, run_id="one")
        assert await here.signal("one", "paid", 1.5, id="x")
        assert await here.signal("one", "paid", 1.5, id="x")
        assert await here.signal("one", "paid", two.payload(n=1)) is True  # which is no number
        with pytest.raises(Exception, match="float"):
            await handle
        assert await here.signal("one", "paid", 2.5) is False


async def test_signals_that_were_sent_while_nobody_served_the_run_come_in_their_order(engine: Given) -> None:
    @module(flow=True)
    async def three(n: int) -> list[int]:
        return [await mai.wait_for("word", int) for _ in range(n)]

    port = free_port()
    async with engine(port=port) as here:
        here.start(three, 3, run_id="one")
        await until(lambda: here.client.query(f"select key from sys_promise where service_name = '{here.prefix}three'"))
    async with engine(port=port) as other:
        assert (
            await asyncio.gather(other.signal("one", "word", 1), other.signal("one", "word", 1, id="x")) == [True] * 2
        )
        assert (
            await asyncio.gather(other.signal("one", "word", 1, id="x"), other.signal("one", "word", 2)) == [True] * 2
        )
    async with engine(port=port, modules=[three]) as served:
        assert await served.result("one") == [1, 1, 2]
        assert not await served.signal("one", "word", 4)


@pytest.mark.parametrize("by_handle", [True, False])
async def test_a_cancelled_run_is_cleaned_up_and_taken_back(engine: Given, by_handle: bool) -> None:
    async with engine() as here:
        handle = here.start(add.with_(undo=put_back) >> held, 1, run_id="one")
        await until(lambda: asyncio.sleep(0, here.busy.counts["one"]))
        await asyncio.sleep(0.1)
        if by_handle:
            handle.cancel()
        else:
            assert await here.cancel("one")
        with pytest.raises(asyncio.CancelledError):
            await handle
        with pytest.raises(asyncio.CancelledError):
            await here.result("one")
        assert await here.cancel("one") is False
    assert DONE == ["add 1", "held cleaned up", "add!undo 2"]


async def test_a_run_has_one_input_and_those_there_are_not_are_told(engine: Given) -> None:
    async with engine() as here:
        assert await here.start(add, 1, run_id="one") == 2
        with pytest.raises(RunExists, match="another input"):
            await here.start(add, 2, run_id="one")
        assert await here.start(add, 1, run_id="one") == await here.result("one") == 2
        for asking in (here.result("none"), here.signal("none", "x"), here.cancel("none"), here.history("none")):
            with pytest.raises(UnknownRun):
                await asking
    with pytest.raises(ConfigError, match="inside of 'async with"):
        here.start(add, 1)


async def test_a_call_outside_of_a_run_is_one_with_its_metadata_and_what_is_left_of_its_time(engine: Given) -> None:
    @module
    async def tell(n: int) -> str:
        return f"{Context.get().metadata['user']} {Context.get().auth}"

    async with engine(auth="key") as here:
        with Context.scope(user="ann", timeout=30):
            assert await tell(1) == "ann key"
        with pytest.raises(DeadlineExceeded), Context.scope(timeout=0.2):
            await (add >> held)(1)
        assert await here.start(add, 1, delay=0.3) == 2


async def test_a_failure_has_its_class_and_facts_also_for_another_process(engine: Given) -> None:
    async with engine() as here:
        with pytest.raises(Boom) as caught:
            await here.start(add >> boom, 1, run_id="one")
        assert caught.value.code == 2
    async with engine(errors=[Boom]) as other:
        with pytest.raises(Boom) as caught:
            await other.result("one")
        assert caught.value.code == 2
    async with engine() as other:
        with pytest.raises(StepFailed, match="Boom: 2"):
            await other.result("one")


async def test_a_run_that_left_memory_is_told_in_segments_and_what_is_repeated_in_none(engine: Given) -> None:
    flow = (add.with_(undo=put_back) >> parcel >> (lambda text: int(text))).with_(name="told")
    with recorded_spans() as found:
        async with engine(inactivity=0.1) as here:
            handle = here.start(flow, 1, run_id="one")
            await until(lambda: asyncio.sleep(0, "told" in [span.name for span in found.get_finished_spans()]))
            first = found.get_finished_spans()
            found.clear()
            await here.signal("one", "paid", 2.0)
            with pytest.raises(ValueError, match="invalid literal"):
                await handle
    second = found.get_finished_spans()
    assert [span.name for span in first] == ["add", "parcel", "told"]
    assert [span.name for span in second] == ["add", "parcel", "<lambda>", "told", "attempt", "put_back"]
    root = second[3]
    assert [link.context.span_id for link in root.links] == [first[-1].context.span_id]
    assert ((root.attributes or {})["mai.run.segment"], (root.attributes or {})["mai.replay.steps"]) == (2, 1)
    assert ((second[-1].attributes or {})["mai.run.id"], second[-1].parent) == ("one", None)
    assert [child.outcome for child in handle.children] == ["replayed", "ok", "error"]


async def test_a_run_whose_code_has_changed_fails_at_once_and_says_why(engine: Given) -> None:
    steps = [add, slow]

    @module(flow=True)
    async def turned(n: int) -> int:
        found = await steps[0](n)
        await mai.wait_for("go", int)
        return found

    async with engine(inactivity=0.1) as here:
        handle = here.start(turned, 1, run_id="one")
        await until(lambda: asyncio.sleep(0, "add 1" in DONE))
        await asyncio.sleep(0.5)  # it leaves memory
        steps.reverse()
        await here.signal("one", "go", 1)
        for asking in (handle, here.result("one")):
            with pytest.raises(ReplayMismatch) as caught:
                await asking
            assert (caught.value.recorded, caught.value.found) == ("turned/add", "turned/slow")


async def test_a_step_that_takes_longer_than_a_run_may_wait_is_not_begun_anew(engine: Given) -> None:
    async with engine(inactivity=0.1) as here:
        assert await here.start(Parallel(slow, module(_long)), 1) == (101, 1)
    assert DONE.count("_long 1") == 1


async def _long(n: int) -> int:
    did(n)
    await asyncio.sleep(2.5)
    return n


async def test_who_leaves_waits_for_runs_that_do_something_and_leaves_the_others(engine: Given) -> None:
    port = free_port()  # a run goes on with the deployment that it began with
    async with engine(inactivity=60, port=port) as here:
        busy, waiting = here.start(slow >> slow, 1), here.start(parcel, 1, run_id="two")
        await until(lambda: asyncio.sleep(0, here.busy.counts.total()))
        await asyncio.sleep(0.1)
    assert await busy == 201
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with engine(modules=[parcel], port=port) as other:
        await other.signal("two", "paid", 2.0)
        assert await other.result("two") == "1 paid 2.0 2"
        assert [record.path for record in await other.history("two") if record.kind == "step"] == ["parcel/add"]


async def test_what_the_http_server_gave_is_let_go_when_the_block_is_left(engine: Given) -> None:
    """Its threads end with that; one that lived until the interpreter ends would abort the process."""
    gc.collect()
    gc.disable()
    try:
        async with engine() as here:
            handle = here.start(Approve(), 3, run_id="one")
            await until(lambda: asked(here, "one"))
            await here.answer("one", True)
            assert await handle == "4 yes 5"
        assert not [one for one in gc.get_objects() if type(one).__name__ == "ASGIHTTPProtocol"]
    finally:
        gc.enable()


async def test_an_error_in_the_block_leaves_all_runs_to_the_next_worker(engine: Given) -> None:
    port = free_port()

    async def fails() -> None:
        async with engine(port=port) as here:
            here.start(add >> held, 1, run_id="one")
            await until(lambda: asyncio.sleep(0, here.busy.counts["one"]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    async with engine(modules=[add >> held], port=port) as other:
        await until(lambda: asyncio.sleep(0, other.busy.counts["one"]))
        await other.cancel("one")
        with pytest.raises(asyncio.CancelledError):
            await other.result("one")


async def test_code_may_be_handed_over_and_calls_detached_while_runs_go_on(engine: Given) -> None:
    async with engine() as here:
        here.serve(add)
        handle: Any = await add.with_(detached=True)(1)
        assert await handle == 2
        assert await add(2) == 3


async def test_runs_are_told_newest_first_and_by_pages(engine: Given) -> None:
    async with engine(inactivity=0.1) as here:
        assert [*await here.runs()] == []
        for run_id in ("a", "b"):
            await here.start(add, 1, run_id=run_id)
        with pytest.raises(Boom):
            await here.start(boom, 1, run_id="c")
        waiting = here.start(parcel, 1, run_id="d")

        async def waits() -> bool:
            return bool(await here.runs("waiting"))

        await until(waits)
        found = [(one.run_id, one.target, one.status) for one in await here.runs()]
        assert found == [("d", "parcel", "waiting"), ("c", "boom", "error"), ("b", "add", "ok"), ("a", "add", "ok")]
        assert [one.run_id for one in await here.runs("error")] == ["c"]
        assert [one.run_id for one in await here.runs(limit=2)] == ["d", "c"]
        assert [one.run_id for one in await here.runs(limit=2, after="c")] == ["b", "a"]
        assert all(0.0 < one.created <= one.updated for one in await here.runs())
        with pytest.raises(ConfigError, match="cannot begin a workflow with the journal of another one"):
            await here.fork("a", at="add")
        await here.cancel("d")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [one.run_id for one in await here.runs("cancelled")] == ["d"]


async def test_a_run_that_somebody_kills_in_the_server_fails_and_says_so(engine: Given) -> None:
    async with engine() as here:
        handle = here.start(held, 1, run_id="one")
        await until(lambda: asyncio.sleep(0, here.busy.counts["one"]))
        await here.client.kill((await here._row("one"))["id"])
        with pytest.raises(StepFailed, match="killed"):
            await handle
        assert await here.resume("one") is False
    with pytest.raises(ConfigError, match="use it inside of"):
        await here.result("one")


async def test_a_deployment_that_cannot_listen_says_so(engine: Given) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at nowhere\.invalid:0"):
        await engine(host="nowhere.invalid").__aenter__()


async def test_an_extra_that_is_missing_is_named() -> None:
    from mai.durable.restate.commands import needed

    with pytest.raises(ConfigError, match=r"pip install 'mai-kernel\[restate\]'"):
        needed("nothing_of_that_name")
