"""Runs whose journal is read by position: what is repeated is what was done, whatever breaks down in between."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mai
from mai import Context, Module, ask, module
from mai.durable.code import Codes
from mai.durable.failures import Failures
from mai.durable.restate.carry import Ended
from mai.durable.restate.mail import letter, promise_of
from mai.errors import ReplayMismatch
from mai.types import Question
from mai.values.casts import caster
from tests.durable.conformance import CASES, DONE, Approve, Outcome, add, boom, did, outcome, parcel, put_back, slow
from tests.durable.restate.paper import Crash, Paper, PaperEngine, attempted, carried
from tests.support import recorded_spans, simulate, simulated


def came(ended: Ended, m: Any) -> Outcome:
    """Return an end as what a handle gives."""
    if ended.status == "ok":
        return Outcome(caster(m._mai_spec.signature.returns).load(ended.output))
    return Outcome(error=Failures().load(ended.facts, Codes().add(m).modules))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_breaks_down_after_each_completion_gives_what_it_gives_in_memory(case: str) -> None:
    m, x = CASES[case]

    async def main() -> None:
        wanted = await outcome(m.start(x))
        paper = Paper()
        async with PaperEngine() as engine:
            ended = await carried(engine, m, x, paper, lambda: 1)
        assert came(ended, m) == wanted, (ended, wanted)
        assert paper.attempts > 1 or len(paper.done) < 3  # several may come at once
        assert max(Counter(name for kind, name in paper.commands if kind == "run").values()) == 1

    simulate(main)


@pytest.mark.slow
@settings(max_examples=60)
@given(case=st.sampled_from(sorted(CASES)), lasts=st.lists(st.integers(1, 6), max_size=12))
def test_a_run_that_breaks_down_anywhere_gives_what_it_gives_without(case: str, lasts: list[int]) -> None:
    m, x = CASES[case]

    async def main() -> None:
        async with PaperEngine() as engine:
            wanted = await carried(engine, m, x, Paper(), lambda: None)
            ended = await carried(engine, m, x, Paper(), lambda: lasts.pop() if lasts else None)
        assert came(ended, m) == came(wanted, m)

    simulate(main)


async def broken(m: Any, x: Any, paper: Paper, **headers: str) -> Ended:
    """Carry a run on in attempts that break down after each completion."""
    DONE.clear()
    async with PaperEngine(auth="key") as engine:
        return await carried(engine, m, x, paper, lambda: 1, **headers)


@simulated
async def test_no_step_that_was_recorded_is_done_again() -> None:
    assert (await broken(add >> (add & add) >> sum >> slow, 1, Paper())).output == b"106"
    assert Counter(DONE) == Counter(["add 1", "add 2", "add 2", "slow 6"])


@simulated
async def test_signals_go_to_the_waits_in_their_order_whether_sent_before_or_after() -> None:
    @module(flow=True)
    async def both(n: int) -> list[str]:
        first = await mai.wait_for("word")
        return [first, *await asyncio.gather(mai.wait_for("word"), mai.wait_for("word"))]

    paper = Paper()
    paper.send(promise_of("word", 0), letter("a", None))
    loop = asyncio.get_running_loop()
    loop.call_later(1, paper.send, promise_of("word", 1), letter("b", None))
    loop.call_later(2, paper.send, promise_of("word", 2), letter("c", None))
    assert (await broken(both, 1, paper)).output == b'["a","b","c"]'


@simulated
async def test_a_signal_that_comes_when_nobody_waits_any_more_goes_to_the_next_one_who_asks() -> None:
    @module(flow=True)
    async def late(n: int) -> str:
        try:
            return await mai.wait_for("word", timeout=1)
        except mai.DeadlineExceeded:
            await asyncio.sleep(5)
            return "late " + await mai.wait_for("word")

    paper = Paper()
    asyncio.get_running_loop().call_later(3, paper.send, promise_of("word", 0), letter("a", None))
    assert (await broken(late, 1, paper)).output == b'"late a"'


@simulated
async def test_an_answer_that_does_not_fit_is_put_aside_on_record_and_the_question_stays_open() -> None:
    paper, seen = Paper(), list[Any]()
    loop = asyncio.get_running_loop()
    loop.call_later(1, paper.send, promise_of("Approve/ask", 0), letter("nonsense", None))
    loop.call_later(2, lambda: seen.append(paper.facts["about"]))
    loop.call_later(3, paper.send, promise_of("Approve/ask", 1), letter(True, None))
    ended = await broken(Approve(), 1, paper)
    assert ended.output == b'"2 yes 3"'
    (aside,) = [place for place, (_, name) in enumerate(paper.commands) if name == "Approve/ask!refused[1]"]
    assert dict(paper.done)[aside] == b'["nonsense"]'
    assert [name for kind, name in paper.commands[aside:] if kind == "promise"] == ["signal/Approve/ask/1"]
    assert b'"questions":{"Approve/ask":{"prompt":"Is 2 good?","expected":"bool"}}' in seen[0]
    assert b'"status":"ok","questions":{}' in paper.facts["about"]


@simulated
async def test_answers_that_came_before_the_question_are_put_aside_one_after_the_other() -> None:
    paper = Paper()
    for number, value in enumerate(["nonsense", "more", True]):
        paper.send(promise_of("Approve/ask", number), letter(value, None))
    assert (await broken(Approve(), 1, paper)).output == b'"2 yes 3"'
    refused = [name for _, name in paper.commands if "!refused" in name]
    assert refused == ["Approve/ask!refused[1]", "Approve/ask!refused[2]"]


@simulated
async def test_a_function_that_answers_is_asked_once() -> None:
    asked = list[str]()

    def yes(question: Question) -> bool:
        asked.append(question.prompt)
        return True

    @module(flow=True)
    async def around(n: int) -> str:
        with mai.answers(yes):
            return await Approve()(n)

    assert (await broken(around, 1, Paper())).output == b'"2 yes 3"'
    assert asked == ["Is 2 good?"]


@simulated
async def test_a_cancelled_run_cleans_up_takes_its_steps_back_and_ends_as_cancelled() -> None:
    @module
    async def held(n: int) -> int:
        try:
            await asyncio.sleep(100)
        finally:
            did("cleaned up")
        return n

    paper = Paper()
    asyncio.get_running_loop().call_later(1, paper.cancel)
    ended = await broken(add.with_(undo=put_back) >> held, 1, paper)
    assert ended.status == "cancelled"
    assert DONE == ["add 1", "held cleaned up", "add!undo 2"]


@simulated
async def test_a_cancel_while_steps_are_taken_back_leaves_none_of_them_out() -> None:
    @module
    async def slowly(n: int) -> None:
        await asyncio.sleep(2)
        did(n)

    paper = Paper()
    asyncio.get_running_loop().call_later(1, paper.cancel)
    ended = await broken(add.with_(undo=slowly) >> boom, 1, paper)
    assert ended.status == "error"
    assert DONE[-1] == "add!undo 2"


@simulated
async def test_an_undo_that_fails_is_told_with_what_the_run_failed_of() -> None:
    @module(retry=1)
    async def stuck(n: int) -> None:
        raise ValueError("stuck")

    ended = await broken(add.with_(undo=stuck) >> (lambda n: n / 0), 1, Paper())
    assert b"could not be undone: ValueError('stuck')" in ended.facts


@simulated
async def test_time_limits_of_a_run_are_those_of_its_beginning() -> None:
    @module(flow=True)
    async def waits(n: int) -> int:
        for _ in range(10):
            await asyncio.sleep(1)
            n = await add(n)
        return n

    loop = asyncio.get_running_loop()
    before = loop.time()
    ended = await broken(waits, 1, Paper(), x_mai_timeout="4.5")
    assert (ended.status, loop.time() - before) == ("timeout", 4.5)


@simulated
async def test_timers_and_tasks_of_user_code_are_repeated_as_well() -> None:
    @module(flow=True)
    async def free(n: int) -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        loop.call_later(1, seen.append, 7)
        loop.call_later(0.5, seen.append, 8).cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.sleep(2), add(n), asyncio.create_task(add(n)))
        assert loop.is_running()
        return [*seen, round(loop.time())]

    assert (await broken(free, 1, Paper())).output == b"[7,2]"


@simulated
async def test_what_reads_or_computes_elsewhere_is_refused_in_a_flow() -> None:
    @module(flow=True)
    async def elsewhere(n: int) -> int:
        return await asyncio.to_thread(lambda: n)

    ended = await broken(elsewhere, 1, Paper())
    assert ended.message.startswith("ConfigError: loop.run_in_executor() in a flow: ")


@simulated
async def test_a_plain_flow_runs_in_a_thread_and_its_steps_are_recorded() -> None:
    @module(flow=True)
    def plain(n: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return add.run(n) + add.run(n)

    assert (await broken(plain, 1, Paper())).output == b"4"
    assert DONE == ["add 1", "add~2 1"]


@simulated
async def test_a_run_knows_its_metadata_its_secret_its_id_and_that_its_code_is_as_it_began() -> None:
    @module
    async def tell(n: int) -> str:
        here = Context.get()
        return f"{here.metadata['user']} {here.auth} {here.run_id}"

    @module(flow=True)
    async def new(n: int) -> str:
        assert await mai.patched("new")
        return await tell(n)

    ended = await broken(new, 1, Paper(), x_mai_metadata='{"user": "ann"}')
    assert ended.output == b'"ann key one"'


class Turned(Module, flow=True):
    """A flow that does something else when it is repeated."""

    def __init__(self, *steps: Module[Any, Any]) -> None:
        self.steps = [*steps]

    async def forward(self, n: int) -> int:
        found = await self.steps.pop(0)(n)
        await asyncio.sleep(1)
        return int(found)


@module
async def shown(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("first", "second", "recorded", "found"),
    [
        (add, shown, "Turned/add", "Turned/shown"),
        (add, module(lambda n: n + 1).with_(name="add"), '{"n":1}', '{"n":1}'),
        (add, add.with_(version="2"), "version None", "version '2'"),
        (module(lambda n: n).with_(name="one"), module(lambda m: m).with_(name="one"), '{"n":1}', '{"m":1}'),
    ],
)
@simulated
async def test_a_flow_that_does_something_else_than_its_journal_stops_its_run(
    first: Any, second: Any, recorded: str, found: str
) -> None:
    paper, m = Paper(), Turned(first, second)
    async with PaperEngine() as engine:
        with pytest.raises(Crash):
            await attempted(engine, m, 1, paper, 1)
        if recorded == found:
            assert (await attempted(engine, m, 1, paper)).status == "ok"
            return
        with pytest.raises(ReplayMismatch) as caught:
            await attempted(engine, m, 1, paper)
    assert (caught.value.recorded, caught.value.found, caught.value.run_id) == (recorded, found, "one")


@simulated
async def test_a_value_that_no_longer_fits_stops_the_run() -> None:
    @module
    async def text(n: int) -> str:
        return "no number"

    @module
    async def number(n: int) -> int:
        return n

    paper, m = Paper(), Turned(text.with_(name="same"), number.with_(name="same"))
    async with PaperEngine() as engine:
        with pytest.raises(Crash):
            await attempted(engine, m, 1, paper, 1)
        with pytest.raises(ReplayMismatch, match='recorded: "no number"'):
            await attempted(engine, m, 1, paper)


@simulated
async def test_an_attempt_that_breaks_down_cancels_its_steps_and_ends_every_task() -> None:
    @module
    async def held(n: int) -> int:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            did("cut off")
            raise
        return n

    @module(flow=True)
    async def stubborn(n: int) -> None:
        try:
            await (add & held)(n)
        finally:
            await asyncio.sleep(1)  # which is not waited for in an attempt that is over

    paper = Paper()
    DONE.clear()
    async with PaperEngine() as engine:
        with pytest.raises(Crash):
            await attempted(engine, stubborn, 1, paper, 1)
    assert DONE == ["add 1", "held cut off"]


@simulated
async def test_an_attempt_that_is_cancelled_ends_and_its_run_goes_on_in_another() -> None:
    paper = Paper()
    async with PaperEngine() as engine:
        task = asyncio.ensure_future(attempted(engine, parcel, 1, paper))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        paper.send(promise_of("paid", 0), letter(1.5, None))
        assert (await attempted(engine, parcel, 1, paper)).output == b'"1 paid 1.5 2"'


@simulated
async def test_an_input_that_does_not_fit_fails_the_run() -> None:
    paper = Paper()
    async with PaperEngine() as engine:
        from mai.durable.restate.carry import Carried
        from tests.durable.restate.paper import PaperCommands

        ended = await Carried(engine, Codes().add(add), "one", b'{"m": 1}', {}).out(PaperCommands(paper, None))  # type: ignore[arg-type]
    assert ended.status == "error"
    assert ended.message.startswith("PayloadError: ")


@simulated
async def test_asking_in_a_step_is_refused() -> None:
    @module
    async def asks(n: int) -> bool:
        return await ask("Really?", bool)

    assert (await broken(asks, 1, Paper())).message.startswith("ConfigError: asks/ask: a question or signal inside of")


@simulated
async def test_the_span_of_a_flow_that_is_only_repeated_is_not_told_again() -> None:
    @module(flow=True)
    async def inner(n: int) -> int:
        return await add(n)

    @module(flow=True)
    async def outer(n: int) -> int:
        return await add(await inner(await add(n)))

    paper = Paper()
    async with PaperEngine() as engine:
        with recorded_spans() as spans, pytest.raises(Crash):
            await attempted(engine, outer, 1, paper, 2)
        assert [span.name for span in spans.get_finished_spans()] == ["add", "add", "inner", "outer"]
        with recorded_spans() as spans:
            assert (await attempted(engine, outer, 1, paper)).output == b"4"
        assert [span.name for span in spans.get_finished_spans()] == ["add", "outer"]


@simulated
async def test_the_spans_of_a_run_belong_to_the_trace_in_which_it_was_begun() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with recorded_spans() as spans:
        ended = await broken(add >> add, 1, Paper(), traceparent=f"00-{trace}-b7ad6b7169203331-01")
    assert ended.output == b"3"
    assert {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()} == {trace}
