import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai import ConfigError, capture
from mai.models import (
    AuthError,
    Budget,
    BudgetExhausted,
    Embedder,
    InvalidReply,
    NoRequests,
    Prices,
    RateLimited,
    no_requests,
)
from mai.models.provider import in_order
from tests.examples.fake_model_server import Connection, Request
from tests.models.support import KEY, FakeModelServer, error, send


def vectors(connection: Connection, request: Request) -> None:
    """Answer each text with its length and a one."""
    texts: list[str] = request.body["input"]
    data = [{"object": "embedding", "index": i, "embedding": [float(len(t)), 1.0]} for i, t in enumerate(texts)]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    connection.send(200, json.dumps({"object": "list", "data": data, "model": "e-1", "usage": usage}).encode())


async def test_texts_become_vectors_in_their_order() -> None:
    with FakeModelServer([vectors]) as server, capture() as trace:
        embedder = Embedder("tiny", url=server.url, key=KEY, prices=Prices(input_usd=1e6, output_usd=0))
        found = await embedder(["a", "bbb"])
        await embedder.aclose()
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert found.vectors == ((1.0, 1.0), (3.0, 1.0))
    assert (found.usage.input_tokens, found.cost_usd, found.model) == (8, 8.0, "e-1")
    facts = trace.runs[0].attributes
    assert facts["openinference.span.kind"] == "EMBEDDING"
    assert facts["gen_ai.operation.name"] == "embeddings"
    assert (facts["gen_ai.usage.input_tokens"], facts["mai.cost.usd"]) == (8, 8.0)
    assert facts["gen_ai.embeddings.dimension.count"] == 2
    assert embedder._mai_span == "embeddings tiny"


async def test_no_texts_have_no_vectors_and_nobody_is_asked() -> None:
    assert (await Embedder("openai:text-embedding-3-small")([])).vectors == ()


@pytest.mark.parametrize(("behaviour", "kind"), [(error(401), AuthError), (error(429, Retry_After="1"), RateLimited)])
async def test_a_failure_has_the_name_that_it_has_of_a_model(behaviour: Any, kind: type[Exception]) -> None:
    with FakeModelServer([behaviour]) as server:
        embedder = Embedder("tiny", url=server.url, key=KEY)
        with pytest.raises(kind) as caught:
            await embedder(["a"])
        await embedder.aclose()
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("count", [1, 3])
async def test_vectors_that_are_not_one_for_each_text_are_refused(count: int) -> None:
    data = [{"object": "embedding", "index": number, "embedding": [1.0]} for number in range(count)]
    body = {"object": "list", "model": "t", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    with FakeModelServer([send(json.dumps(body).encode())]) as server:
        embedder = Embedder("tiny", url=server.url, key=KEY)
        with pytest.raises(InvalidReply, match=f"{count} vectors came for 2 texts"):
            await embedder(["a", "b"])
        await embedder.aclose()


def numbered(numbers: list[Any]) -> Any:
    """Answer with vectors that say so whose they are; each is [10], [11], ... as it comes."""
    data = [
        {"object": "embedding", "embedding": [10.0 + at], **({} if number is None else {"index": number})}
        for at, number in enumerate(numbers)
    ]
    return send(json.dumps({"object": "list", "model": "t", "data": data}).encode())


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_each_text_has_the_vector_that_says_so_in_whatever_order_they_come(numbers: list[int]) -> None:
    found = in_order("t", [SimpleNamespace(index=number) for number in numbers])
    assert [one.index for one in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("numbers", "vectors"),
    [
        ([2, 0, 1], [11.0, 12.0, 10.0]),
        ([0, 1, 2], [10.0, 11.0, 12.0]),
        ([0, 0, 0], [10.0, 11.0, 12.0]),  # a vendor that does not count
        ([None, None, None], [10.0, 11.0, 12.0]),
    ],
)
async def test_vectors_are_sorted_by_what_the_vendor_says(numbers: list[Any], vectors: list[float]) -> None:
    with FakeModelServer([numbered(numbers)]) as server:
        embedder = Embedder("tiny", url=server.url, key=KEY)
        found = await embedder(["a", "b", "c"])
        await embedder.aclose()
    assert [vector[0] for vector in found.vectors] == vectors


@pytest.mark.parametrize("numbers", [[0, 1, 1], [0, 1, 7], [0, None, 1], [-1, 0, 1]])
async def test_vectors_of_which_nobody_knows_whose_they_are_are_refused(numbers: list[Any]) -> None:
    with FakeModelServer([numbered(numbers)]) as server:
        embedder = Embedder("tiny", url=server.url, key=KEY)
        with pytest.raises(InvalidReply, match="vectors came for the texts"):
            await embedder(["a", "b", "c"])
        await embedder.aclose()


async def test_an_embedder_keeps_to_budgets_and_to_no_requests() -> None:
    embedder = Embedder("openai:text-embedding-3-small", key=KEY)
    with no_requests(), pytest.raises(NoRequests):
        await embedder(["a"])
    with Budget(tokens=1), pytest.raises(BudgetExhausted):
        await embedder(["a" * 100])


def test_an_embedder_needs_a_vendor() -> None:
    with pytest.raises(ConfigError, match="names no vendor"):
        Embedder("text-embedding-3-small")
    assert Embedder("openai:text-embedding-3-small").with_(key=KEY).key is not None
