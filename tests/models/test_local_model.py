"""`mai.models` against a real model server: llama.cpp with random weights, on this machine."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from mai import Retry, capture
from mai.models import (
    AuthError,
    ContextTooLong,
    Embedder,
    InvalidOutput,
    Message,
    Model,
    ReplayModel,
    Unreachable,
    no_requests,
    spent,
)

pytest.importorskip("xllamacpp", reason="needs xllamacpp, gguf and numpy; a CI step of its own installs them")
pytestmark = pytest.mark.slow
KEY = "sk-local-0123456789"


class Verdict(BaseModel):
    """What random weights can say under a grammar."""

    severity: Literal["low", "medium", "high"]
    urgent: bool
    lines: list[int] = Field(max_length=3)


def server(path: Path, *how: str) -> Iterator[str]:
    """Serve a tiny model in a process of its own; yield its address."""
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(path), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip() + "/v1"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from server(tmp_path_factory.mktemp("chat") / "tiny.gguf", "chat", KEY)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from server(tmp_path_factory.mktemp("vectors") / "tiny.gguf", "embeddings")


def tiny(url: str, **settings: Any) -> Model:
    return Model("tiny", url=url, key=KEY, **{"max_tokens": 20, "temperature": 0, **settings})


async def test_it_answers_and_counts_its_tokens(chat: str) -> None:
    model = tiny(chat)
    with capture() as trace:
        reply = await model("hello")
        again = await model("hello")
    await model.aclose()
    assert (reply.finish, reply.usage.output_tokens, reply.cost_usd) == ("length", 20, None)
    assert reply.text == again.text  # at temperature 0
    assert spent(trace).usage.output_tokens == 40


async def test_it_streams(chat: str) -> None:
    model = tiny(chat)
    handle = model.start("hello")
    chunks = [text async for text in handle.chunks()]
    reply = await handle
    whole = await model("hello")
    await model.aclose()
    assert len(chunks) > 3
    assert "".join(chunks) == reply.text == whole.text
    assert reply.usage.output_tokens == 20


async def test_it_keeps_to_a_schema_and_is_asked_again_where_it_does_not(chat: str) -> None:
    model = tiny(chat, max_tokens=300, temperature=1)
    asking = model.returning(Verdict, attempts=5)
    found = await asyncio.gather(*[asking(f"Is {n} bad?") for n in range(4)], return_exceptions=True)
    assert any(isinstance(one, Verdict) for one in found)
    assert all(isinstance(one, Verdict | InvalidOutput) for one in found)
    with capture() as trace, pytest.raises(InvalidOutput) as caught:
        await model.with_(max_tokens=3).returning(Verdict, attempts=2)("Is it bad?")
    assert "it was cut off" in caught.value.problem
    assert len(trace.runs[0].children) == 2
    await model.aclose()


async def test_a_wrong_key_and_none_are_refused(chat: str) -> None:
    for key in ("sk-wrong-0123456789", None):
        model = Model("tiny", url=chat, key=key)
        with pytest.raises(AuthError) as caught:
            await model("hello")
        await model.aclose()
        assert caught.value.status == 401
        assert "0123456789" not in str(caught.value)


async def test_what_is_too_long_is_said_to_be(chat: str) -> None:
    model = tiny(chat)
    with pytest.raises(ContextTooLong):
        await model("word " * 3000)
    await model.aclose()


async def test_an_aborted_stream_frees_the_server(chat: str) -> None:
    model = tiny(chat, max_tokens=1500)
    for _ in range(6):  # more than it has places
        handle = model.start("hello")
        async for _text in handle.chunks():
            handle.cancel()
            break
        with pytest.raises(asyncio.CancelledError):
            await handle
    assert (await model.with_(max_tokens=3, timeout=30)("hello")).finish == "length"
    await model.aclose()


async def test_fifty_calls_at_once_all_get_their_answer(chat: str) -> None:
    model = tiny(chat, max_tokens=5).with_(retry=Retry(3, base=0.01))
    replies = await model.map(concurrency=50)([f"question {n}" for n in range(50)])
    await model.aclose()
    assert len(replies) == 50
    assert all(reply.usage.output_tokens == 5 for reply in replies)


async def test_texts_become_vectors(vectors: str) -> None:
    embedder = Embedder("tiny", url=vectors)
    found = await embedder(["one", "two", "one"])
    await embedder.aclose()
    assert [len(vector) for vector in found.vectors] == [64] * 3
    assert found.vectors[0] == pytest.approx(found.vectors[2])
    assert found.vectors[0] != pytest.approx(found.vectors[1])
    assert found.usage.input_tokens > 0


async def test_a_recorded_conversation_needs_no_server(chat: str, tmp_path: Path) -> None:
    model, path = tiny(chat), tmp_path / "talk.jsonl"
    said = [Message.system("Be brief."), Message.user("hello")]
    recorded = await ReplayModel(path, record=model)(said)
    await model.aclose()
    with no_requests():
        replayed = await ReplayModel(path).with_(max_tokens=20, temperature=0)(said)
    assert replayed.text == recorded.text


async def test_a_server_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    gone = server(tmp_path / "tiny.gguf", "chat", KEY)
    url = next(gone)
    model = tiny(url)
    await model("hello")
    gone.close()  # type: ignore[attr-defined]
    with pytest.raises(Unreachable):
        await model("hello")
    await model.aclose()
