"""An agent under a durable engine: what the model said and what tools did is recorded, and is not done again."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mai import Parallel, module
from mai.agents import Agent, TurnsExhausted
from mai.models import (
    AuthError,
    Budget,
    BudgetExhausted,
    Embedder,
    Embeddings,
    Message,
    ModelError,
    Prices,
    RateLimited,
    Reply,
    Request,
    ScriptedModel,
    ToolCall,
    Usage,
)
from mai.tools import Tool
from tests.durable.benches import MemoryBench

USED: list[str] = []


class Sum(BaseModel):
    total: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    USED.append(f"add {a} {b}")
    return a + b


async def double(n: int) -> int:
    """Double a number."""
    USED.append(f"double {n}")
    return 2 * n


def turn(request: Request) -> Any:
    """Say what the model says after so many messages; its first answer does not fit."""
    said = len(request.messages)
    if said == 1:
        return [ToolCall.of("add", id="1", a=1, b=2), ToolCall.of("double", id="2", n=5)]
    if said == 3:
        return ToolCall.of("add", id="3", a=3, b=10)
    return "thirteen" if said == 5 else '{"total": 13}'


def made(parallel: int = 8) -> tuple[ScriptedModel, Agent[Sum]]:
    USED.clear()
    model = ScriptedModel(turn, repeat=True)
    return model, Agent(model, [add, double], returning=Sum, name="adder", parallel=parallel)


@pytest.mark.parametrize("parallel", [1, 8])
def test_an_agent_that_is_killed_after_each_record_does_nothing_again_that_is_recorded(parallel: int) -> None:
    bench, (model, agent) = MemoryBench(), made(parallel)

    async def main() -> None:
        found = await bench.interrupted(agent, "go", "run-1", None)
        assert found.value == Sum(total=13)

    bench.run(main)
    assert [len(request.messages) for request in model.requests] == [1, 3, 5, 7]
    assert set(USED) == {"add 1 2", "add 3 10", "double 5"}
    if parallel == 1:  # else the process may end while a tool beside has run and is not recorded
        assert len(USED) == 3


def test_each_call_of_the_model_and_of_a_tool_is_a_record() -> None:
    bench, (_, agent) = MemoryBench(), made()

    async def main() -> None:
        async with bench.engine() as engine:
            await engine.start(agent, "go", run_id="run-1")
            records = await engine.history("run-1")
            paths = [record.path for record in records if record.kind == "step"]
        assert len(paths) == 7
        assert sum("ScriptedModel" in path for path in paths) == 4

    bench.run(main)


def test_an_agent_waits_for_a_person_though_its_process_ends() -> None:
    bench = MemoryBench()
    USED.clear()
    model = ScriptedModel(lambda request: turn_once(request), repeat=True)
    agent = Agent(model, [Tool(add, approve=True)], name="careful")

    async def main() -> None:
        assert await bench.killed(agent, "go", "run-1", 0, after=True) is None
        assert USED == []
        async with bench.engine(agent) as engine:
            await asyncio.sleep(5)
            await engine.answer("run-1", True)
            assert await engine.result("run-1") == "done"

    bench.run(main)
    assert USED == ["add 1 2"]
    assert len(model.requests) == 2


def test_instructions_that_a_function_gives_are_those_of_the_first_call_when_a_run_goes_on() -> None:
    bench, count = MemoryBench(), itertools.count(1)
    model = ScriptedModel(lambda request: turn_once(request, said=2), repeat=True)
    agent = Agent(model, [add], name="dated", instructions=lambda: f"Today is day {next(count)}.")

    async def main() -> None:
        found = await bench.interrupted(agent, "go", "run-1", None)
        assert found.value == "done"

    bench.run(main)
    assert next(count) > 2  # it was asked again, in vain
    assert [request.messages[0].text for request in model.requests] == ["Today is day 1."] * 2


def test_a_tool_that_ran_unasked_is_not_asked_for_when_a_run_goes_on() -> None:
    bench, careful = MemoryBench(), itertools.chain([False], itertools.repeat(True))
    USED.clear()
    model = ScriptedModel(lambda request: turn_once(request), repeat=True)
    agent = Agent(model, [Tool(add, approve=lambda arguments: next(careful))], name="careful")

    async def main() -> None:
        found = await bench.interrupted(agent, "go", "run-1", None)
        assert found.value == "done"

    bench.run(main)
    assert USED == ["add 1 2"]


@pytest.mark.parametrize("failure", [AuthError("no key", model="m", status=401), RateLimited("slow", retry_after=2.0)])
def test_what_fails_in_a_durable_run_is_the_error_that_the_model_raises(failure: ModelError) -> None:
    bench, agent = MemoryBench(), Agent(ScriptedModel(failure, repeat=True), name="a")

    async def main() -> None:
        for at in (0, 100):  # killed after the record of the failure; then to the end
            found = await bench.killed(agent, "go", "run-1", at, after=True)
        assert found is not None
        back: Any = found.error
        assert type(back) is type(failure)
        assert (back.retryable, back.retry_after) == (failure.retryable, failure.retry_after)

    bench.run(main)


def test_an_agent_without_an_answer_says_so_in_a_durable_run_too() -> None:
    bench = MemoryBench()
    agent = Agent(ScriptedModel(ToolCall.of("add", a=1, b=2), repeat=True), [add], name="a", max_turns=2)

    async def main() -> None:
        found = await bench.interrupted(agent, "go", "run-1", None)
        back: Any = found.error
        assert type(back) is TurnsExhausted
        assert (back.turns, back.messages) == (2, ())

    bench.run(main)


def turn_once(request: Request, said: int = 1) -> Any:
    return ToolCall.of("add", a=1, b=2) if len(request.messages) == said else "done"


def test_a_budget_may_stand_around_an_agent_that_is_replayed() -> None:
    bench, (_, agent) = MemoryBench(), made(1)
    budget = Budget(tokens=100_000)

    async def main() -> None:
        found = await bench.interrupted(agent.with_(middleware=budget), "go", "run-1", None)
        assert found.value == Sum(total=13)

    bench.run(main)
    assert budget.spent_tokens > 0


# ---------------------------------------------------------------- what was spent

DOLLAR = Prices(input_usd=1e6, output_usd=1e6)  # a dollar a token


def costing(*parts: Any, **how: Any) -> ScriptedModel:
    """Return a model whose every answer is *parts*, uses 15 tokens and costs 15 dollars."""
    reply = Reply(message=Message.assistant(*parts), usage=Usage(input_tokens=5, output_tokens=10))
    return ScriptedModel(reply, repeat=True).with_(prices=DOLLAR, **how)


@pytest.mark.slow
@given(limit=st.integers(60, 200), at=st.lists(st.integers(0, 12), max_size=4), after=st.booleans())
@settings(max_examples=20)
def test_the_limits_of_an_agent_hold_for_the_whole_run_however_often_it_is_killed(
    limit: int, at: list[int], after: bool
) -> None:
    def limited() -> tuple[ScriptedModel, Agent[str]]:
        model = costing(ToolCall.of("add", a=1, b=2))
        return model, Agent(model, [add], name="a", max_tokens=limit, max_usd=limit)

    straight, agent = limited()
    with pytest.raises(BudgetExhausted) as caught:
        agent.run("go")
    bench, (model, agent) = MemoryBench(), limited()

    async def main() -> None:
        found = None
        for where in [*at, 1000]:
            found = found or await bench.killed(agent, "go", "run-1", where, after=after)
        assert found is not None
        back: Any = found.error
        assert (back.limit, back.spent, back.needed) == (caught.value.limit, caught.value.spent, caught.value.needed)

    bench.run(main)
    once = len(straight.requests)
    assert once <= len(model.requests) <= once + len(at)  # what was under way in a crash is asked again


def spending(model: Any, times: int) -> Any:
    @module(flow=True)
    async def spend(text: str) -> float:
        with Budget(tokens=1000, usd=1000) as budget:
            for _ in range(times):
                await model(text)
            await Parallel(model, model.with_(name="other"))(text)
        assert budget.spent_tokens == budget.spent_usd
        return budget.spent_usd

    return spend


@pytest.mark.parametrize("how", [{}, {"retry": 3}, {"fallback": ScriptedModel("x", repeat=True)}])
def test_a_budget_in_a_flow_knows_what_was_spent_before_the_process_ended(how: Any) -> None:
    bench, model = MemoryBench(), costing("yes", **how)

    async def main() -> None:
        found = await bench.interrupted(spending(model, 3), "go", "run-1", None)
        assert found.value == 75.0

    bench.run(main)


@pytest.mark.slow
def test_a_budget_that_lives_on_counts_each_recorded_call_once() -> None:
    bench, budget, own = MemoryBench(), Budget(usd=1000), Budget(usd=1000)
    first, second = costing("yes"), costing("yes", middleware=own)
    around, inside = spending(first, 3).with_(middleware=budget), spending(second, 3)

    async def main() -> None:
        for number, flow in enumerate([around, inside]):
            found = await bench.interrupted(flow, "go", f"run-{number}", None)
            assert found.value == 75.0
        assert budget.spent_usd == 15 * len(first.requests)  # more than 5, if a branch was under way in a crash
        assert own.spent_usd == 15 * len(second.requests)
        before = budget.spent_usd
        async with bench.engine() as engine:
            await engine.start(around, "go", run_id="run-2")  # another run is another matter
        assert budget.spent_usd == before + 75.0

    bench.run(main)


def test_what_a_fallback_cost_counts_once() -> None:
    bench, budget, other = MemoryBench(), Budget(usd=1000), costing("yes")
    model = ScriptedModel(AuthError("no key"), repeat=True).with_(fallback=other)
    flow = spending(model, 2).with_(middleware=budget)

    async def main() -> None:
        assert (await bench.interrupted(flow, "go", "run-1", None)).value == 60.0
        assert budget.spent_usd == 15 * len(other.requests)

    bench.run(main)


def test_an_answer_of_a_type_is_asked_for_in_recorded_steps_and_its_cost_counts() -> None:
    bench, model = MemoryBench(), ScriptedModel("nine", "ten", "11").with_(prices=DOLLAR)
    asking = model.returning(int)

    @module(flow=True)
    async def number(text: str) -> tuple[int, float]:
        with Budget(usd=1000) as budget:
            return await asking(text), budget.spent_usd

    with Budget(usd=1000) as straight:
        ScriptedModel("nine", "ten", "11").with_(prices=DOLLAR).returning(int).run("go")

    async def main() -> None:
        found = await bench.interrupted(number, "go", "run-1", None)
        assert found.value == (11, straight.spent_usd)

    bench.run(main)
    assert len(model.requests) == 3


class Numbers(Embedder):
    async def _embed(self, texts: list[str]) -> Embeddings:
        return Embeddings(vectors=((1.0,),), usage=Usage(input_tokens=15))


def test_vectors_that_are_on_record_have_been_paid_for() -> None:
    bench = MemoryBench()

    @module(flow=True)
    async def embed(text: str) -> float:
        with Budget(usd=1000) as budget:
            for _ in range(3):
                await Numbers("openai:x", prices=DOLLAR)([text])
        return budget.spent_usd

    async def main() -> None:
        assert (await bench.interrupted(embed, "go", "run-1", None)).value == 45.0

    bench.run(main)
