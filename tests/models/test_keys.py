"""A key is where it is sent, and nowhere else."""

import asyncio
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai import Payload, capture
from mai.models import AuthError, Embedder, Model, ModelError, ReplayModel, Reply, Unreachable
from tests.examples.fake_model_server import Behaviour, Connection, Request, echo_key
from tests.models.support import KEY, FakeModelServer, answer, error, events, send, stream
from tests.support import recorded_spans

HEX = KEY.encode().hex()


def told(error: BaseException | None) -> str:
    """Return all that can be learned of an exception: message, notes, attributes, chain, traceback."""
    if error is None:
        return ""
    parts = [repr(error), str(error), repr(vars(error)), repr(error.args), *traceback.format_exception(error)]
    return "\n".join([*parts, told(error.__cause__), told(error.__context__)])


@contextmanager
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect what spans, handles and logs tell, into a list that is filled when the block ends."""
    seen: list[str] = []
    caplog.set_level(logging.DEBUG)
    with recorded_spans() as spans, capture() as trace:
        yield seen
    seen += [span.to_json() for span in spans.get_finished_spans()]
    seen += [f"{handle} {handle.attributes} {handle.error}" for run in trace.runs for handle in run.walk()]
    seen += [str(trace), repr(trace.runs), caplog.text]


def quote_headers(connection: Connection, request: Request) -> None:
    """Fail, and repeat all that was sent, headers too."""
    body = {"error": {"message": f"bad request: {dict(request.headers)}", "code": request.headers["authorization"]}}
    connection.send(400, json.dumps(body).encode())


BAD: list[Behaviour] = [
    echo_key, quote_headers, error(401, f"Incorrect API key provided: {KEY}", code=KEY), error(500, HEX),
    send(KEY.encode()), send(json.dumps({"choices": KEY}).encode()), error(429, f"key={KEY}"),
    events(b'data: {"error": {"message": "' + KEY.encode() + b'"}}\n\n', done=False),
]  # fmt: skip


@pytest.mark.parametrize("behaviour", BAD)
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_vendor_that_quotes_the_key_in_an_error_does_not_get_it_told(
    behaviour: Behaviour, streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeModelServer([behaviour]) as server, watched(caplog) as seen:
        model = Model("tiny", url=server.url, key=KEY, stream=streaming)
        handle = model.start("hi")
        events_seen = [repr(event) async for event in handle]
        with pytest.raises(ModelError) as caught:
            await handle
        await model.aclose()
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    seen += [told(caught.value), *events_seen]
    for text in seen:
        assert KEY not in text
        assert HEX not in text


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.integers(1, len(KEY) - 1), max_size=4, unique=True).map(sorted), st.text("sk-canry", max_size=6))
def test_a_key_that_is_split_over_the_chunks_of_a_stream_is_not_told(cuts: list[int], around: str) -> None:
    pieces = [KEY[start:end] for start, end in zip([0, *cuts], [*cuts, len(KEY)], strict=True)]
    with FakeModelServer([stream(around, *pieces, around)]) as server:
        model = Model("tiny", url=server.url, key=KEY)

        async def ask() -> tuple[list[Any], Reply]:
            handle = model.start("hi")
            chunks = [text async for text in handle.chunks()]
            reply = await handle
            await model.aclose()
            return chunks, reply

        chunks, reply = asyncio.run(ask())
    assert "".join(chunks) == reply.text == f"{around}[redacted]{around}"


async def test_a_key_in_an_answer_is_told_neither_to_journals_nor_to_recordings(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "send", "arguments": json.dumps({"key": KEY})}}
    with FakeModelServer([answer(f"the key is {KEY}", tool_calls=[call])]) as server:
        model = Model("tiny", url=server.url, key=KEY)
        reply = await ReplayModel(tmp_path / "talk.jsonl", record=model)("hi")
        await model.aclose()
    assert reply.text == "the key is [redacted]"
    assert KEY not in (tmp_path / "talk.jsonl").read_text()
    assert KEY not in Payload.of(reply, Reply).json().decode()


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_key_that_a_vendor_gives_as_a_name_or_an_id_is_not_told(
    streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As proxies do that call a model after the request."""
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "finish_reason": "stop", "delta" if streaming else "message": message}
    body = {"id": f"id-{KEY}", "object": "chat.completion", "created": 1, "model": f"tiny-{KEY}", "choices": [choice]}
    text = json.dumps(body | ({"object": "chat.completion.chunk"} if streaming else {})).encode()
    vectors = {"object": "list", "model": f"tiny-{KEY}", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    vectors["data"] = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
    behaviours = [events(b"data: " + text + b"\n\n") if streaming else send(text), send(json.dumps(vectors).encode())]
    with FakeModelServer(behaviours) as server, watched(caplog) as seen:
        model, embedder = (
            Model("tiny", url=server.url, key=KEY, stream=streaming),
            Embedder("t", url=server.url, key=KEY),
        )
        reply, found = await model("hi"), await embedder(["hi"])
        await model.aclose()
        await embedder.aclose()
    assert (reply.text, reply.model, reply.id, found.model) == (
        "hello", "tiny-[redacted]", "id-[redacted]", "tiny-[redacted]",
    )  # fmt: skip
    assert not [text for text in [*seen, repr(reply), repr(found)] if KEY in text]


def test_a_key_is_in_no_repr_plan_or_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for model in (Model("openai:gpt-5", key=KEY), Model("openai:gpt-5"), Model("openai:gpt-5").with_(key=KEY)):
        asking = model.returning(int)
        shown = [model, vars(model), model.settings, model.request("hi"), asking, vars(asking), model._mai_facts]
        texts = [*map(repr, shown), model.plan().model_dump_json(), asking.plan().model_dump_json(), model.draw()]
        assert not [text for text in texts if KEY in text]


async def test_a_key_that_comes_from_the_environment_is_kept_as_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeModelServer([quote_headers]) as server, watched(caplog) as seen:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        model = Model("tiny", url=server.url)
        with pytest.raises(ModelError) as caught:
            await model("hi")
        await model.aclose()
    assert not [text for text in [*seen, told(caught.value)] if KEY in text]


VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "HF_TOKEN", "OLLAMA_API_KEY")


@pytest.mark.parametrize("model", ["tiny", "openai:tiny", "ollama:tiny"])
async def test_the_key_of_a_vendor_is_sent_to_no_other_address(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.com/v1")
    with FakeModelServer([answer(), error(401, "who are you?")]) as server:
        asked, embedder = Model(model, url=server.url), Embedder(model, url=server.url)
        assert (await asked("hi")).text == "hello"
        for failing in (asked("hi"), embedder(["hi"])):
            with pytest.raises(AuthError, match="API_KEY is not sent to this url, so give key=") as caught:
                await failing
            assert KEY not in told(caught.value)
        await asked.aclose()
        await embedder.aclose()
        assert len(server.requests) == 3
        for request in server.requests:
            assert KEY not in json.dumps([dict(request.headers), request.body])


@pytest.mark.parametrize("model", ["anthropic:tiny", "google:tiny", "huggingface:tiny"])
async def test_a_vendor_that_wants_a_key_is_not_asked_elsewhere_without_one(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    with FakeModelServer([answer()]) as server:
        with pytest.raises(AuthError, match=r"there is no key; [A-Z_ or]+ is not sent to this url; give key="):
            await Model(model, url=server.url)("hi")
        assert server.requests == []


@pytest.mark.parametrize("given", ["", "another-key-0815"])
async def test_a_key_that_is_given_or_is_of_the_vendors_own_address_is_sent(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeModelServer([answer()]) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url if not given else "https://example.com/v1")
        model = Model("tiny", url=f"{server.url}/", key=given or None)
        await model("hi")
        await model.aclose()
    assert server.requests[0].headers["authorization"] == f"Bearer {given or KEY}"


@pytest.mark.parametrize("bad", ["sk-1\r\nX-Other: 1", "sk-ключ-0123456789", "sk-\x7f-0123456789"])
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with FakeModelServer([answer()]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for model in (Model("tiny", url=server.url, key=bad), Model("openai:tiny")):
            with pytest.raises(AuthError, match="the key holds characters that no HTTP header can carry") as caught:
                await model("hi")
            assert "sk-" not in told(caught.value)
        assert server.requests == []


async def test_white_space_around_a_key_is_not_sent() -> None:
    with FakeModelServer([answer()]) as server:
        model = Model("tiny", url=server.url, key=f" {KEY}\n")
        await model("hi")
        await model.aclose()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_what_went_wrong_with_a_connection_is_said() -> None:
    model = Model("tiny", url="http://127.0.0.1:9/v1")
    with pytest.raises(Unreachable, match="tiny: Connection error: ConnectionRefusedError: "):
        await model("hi")
    await model.aclose()
