import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import ConfigError, capture, module
from mai.models import (
    Budget,
    BudgetExhausted,
    Embedder,
    Embeddings,
    Message,
    Model,
    Overloaded,
    Prices,
    Reply,
    Request,
    ScriptedModel,
    Spent,
    Usage,
    spent,
)
from tests.support import refused, refused_value, simulate, simulated

DOLLAR = Prices(input_usd=1e6, output_usd=1e6)  # a dollar a token


def model(output: int = 10, **settings: Any) -> ScriptedModel:
    """Return a model whose every answer uses 5 + *output* tokens, each a dollar."""
    reply = Reply(message=Message.assistant("x"), usage=Usage(input_tokens=5, output_tokens=output))
    return ScriptedModel(reply, repeat=True).with_(prices=DOLLAR, **settings)


PROMPT = "x" * 20  # 5 tokens


@given(limit=st.integers(1, 200), output=st.integers(1, 40), calls=st.integers(1, 30), at_once=st.integers(1, 8))
def test_a_budget_is_never_exceeded_where_the_length_of_answers_is_bounded(
    limit: int, output: int, calls: int, at_once: int
) -> None:
    asked = model(output, max_tokens=output)

    async def main() -> tuple[Budget, int]:
        with Budget(tokens=limit, usd=limit) as budget:
            results = await asked.map(concurrency=at_once, on_error="collect")([PROMPT] * calls)
        return budget, sum(isinstance(result, Reply) for result in results)

    budget, answered = simulate(main)
    assert answered == min(calls, limit // (5 + output))
    assert budget.spent_tokens == budget.spent_usd == answered * (5 + output) <= limit
    assert len(asked.requests) == answered  # what would exceed it was not asked


async def test_a_call_that_would_exceed_the_budget_is_not_made() -> None:
    asked = model(max_tokens=10)
    with Budget(usd=20) as budget:
        await asked(PROMPT)
        with pytest.raises(BudgetExhausted) as caught:
            await asked(PROMPT)
    error = caught.value
    why = "the call needs at least 15 usd, but of 20 only 5 are left, with 15 spent"
    assert (str(error), error.retryable) == (f"scripted:model: {why}", False)
    assert (error.limit, error.spent, error.needed, error.unit) == (20, 15, 15, "usd")
    assert len(asked.requests) == 1
    assert repr(budget) == "<Budget 15 of 20 USD>"
    assert repr(Budget(usd=1, tokens=5)) == "<Budget 0 of 1 USD, 0 of 5 tokens>"


async def test_without_a_bound_on_answers_the_last_call_may_exceed_it_and_none_follows() -> None:
    asked = model(100)
    with Budget(tokens=50) as budget:
        await asked(PROMPT)
        assert budget.spent_tokens == 105
        with pytest.raises(BudgetExhausted, match="of 50 only 0 are left, with 105 spent"):
            await asked("")


@simulated
async def test_calls_under_way_hold_their_share() -> None:
    class Slow(ScriptedModel):
        async def answer(self, request: Request, say: Any) -> Reply:
            await asyncio.sleep(1)
            return await super().answer(request, say)

    slow = Slow("x", repeat=True).with_(max_tokens=10)
    with Budget(tokens=25) as budget:
        first = asyncio.ensure_future(slow(PROMPT))
        await asyncio.sleep(0)
        with pytest.raises(BudgetExhausted, match="of 25 only 10 are left, with 15 spent"):
            await slow(PROMPT)
        await first
        assert budget.spent_tokens == 6
        await slow(PROMPT)


async def test_a_failed_call_gives_its_share_back() -> None:
    asked = ScriptedModel(Overloaded("busy"), "x").with_(max_tokens=10, retry=2)
    with Budget(tokens=15) as budget:
        await asked(PROMPT)
    assert budget.spent_tokens == 6


async def test_budgets_around_each_other_all_count() -> None:
    asked = model(max_tokens=10)
    with Budget(tokens=100) as outer:
        with Budget(tokens=20) as inner:
            await asked(PROMPT)
            with pytest.raises(BudgetExhausted):
                await asked(PROMPT)
        await asked(PROMPT)
    assert (outer.spent_tokens, inner.spent_tokens) == (30, 15)
    await asked(PROMPT)
    assert outer.spent_tokens == 30


async def test_a_refused_call_holds_nothing_in_the_budgets_around() -> None:
    asked = model(max_tokens=10)
    with Budget(tokens=15) as outer:
        with Budget(tokens=5), pytest.raises(BudgetExhausted):
            await asked(PROMPT)
        await asked(PROMPT)
    assert outer.spent_tokens == 15


async def test_a_budget_stands_as_a_middleware_around_whatever_calls_models() -> None:
    asked, budget = model(max_tokens=10), Budget(tokens=20)

    @module
    async def talk(n: int) -> int:
        for _ in range(n):
            await asked(PROMPT)
        return n

    careful = talk.with_(middleware=budget)
    assert await careful(1) == 1
    with pytest.raises(BudgetExhausted):
        await careful(1)
    await talk(1)
    assert budget.spent_tokens == 15


def test_a_budget_counts_in_threads_too() -> None:
    asked = model(max_tokens=10)

    def work(n: int) -> int:
        return len([asked.run(PROMPT) for _ in range(n)])

    with Budget(tokens=1000) as budget:
        assert (module(work) & module(work).with_(name="other")).run(3) == (3, 3)
    assert budget.spent_tokens == 90


async def test_where_no_price_is_known_a_budget_in_money_cannot_hold() -> None:
    unpriced = Model("tiny", url="http://127.0.0.1:9/v1")
    with (
        Budget(usd=1),
        refused(ConfigError, "tiny: its price is not known, so Budget(usd=) cannot hold; give it prices="),
    ):
        await unpriced("x")


def test_a_budget_needs_a_limit_that_can_be_used() -> None:
    with refused(ConfigError, "Budget: give usd=, tokens=, or both"):
        Budget()
    with refused_value("Budget", "usd", 0):
        Budget(usd=0)
    with refused_value("Budget", "tokens", 0):
        Budget(tokens=0)


async def test_a_trace_tells_what_its_models_used_and_cost() -> None:
    asked = model()
    unpriced = ScriptedModel(Reply(message=Message.assistant("x"), usage=Usage(input_tokens=1, cache_read_tokens=1)))

    class Unpriced(ScriptedModel):
        def cost(self, usage: Usage) -> float | None:
            return None

    other = Unpriced(*unpriced._script)
    with capture() as trace:
        await (asked & other.with_(name="other"))(PROMPT)
        await ScriptedModel(Overloaded("x"), "four" * 4).with_(retry=2, prices=DOLLAR)(PROMPT)
    total = spent(trace)
    assert (total.calls, total.usd, total.unpriced) == (3, 15 + 9, 1)
    assert total.usage == Usage(input_tokens=11, output_tokens=14, cache_read_tokens=1)
    assert spent(*trace.runs) == total
    assert spent() == Spent(0, Usage(), 0, 0)


async def test_a_failed_agent_still_tells_what_it_cost() -> None:
    asked = model()

    @module
    async def talk(prompt: str) -> str:
        await asked(prompt)
        raise KeyError(prompt)

    with capture() as trace, pytest.raises(KeyError):
        await talk(PROMPT)
    assert spent(trace).usd == 15


async def test_a_budget_counts_embeddings() -> None:
    embedder = Embedder("openai:text-embedding-3-small")
    with embedder.override(lambda texts: Embeddings(vectors=())), Budget(tokens=5) as budget:
        await embedder(["x"])
    assert budget.spent_tokens == 0  # a double uses nothing


def test_one_budget_may_be_used_by_threads() -> None:
    budget, asked = Budget(tokens=10**6), model(max_tokens=10)

    def work() -> None:
        with budget:
            for _ in range(20):
                asked.run(PROMPT)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent_tokens == 4 * 20 * 15
