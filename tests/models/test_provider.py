import asyncio
import sys
from typing import Any

import pytest
from pydantic_ai import messages as pam

from mai import ConfigError, Retry, capture
from mai.middleware import Redactor
from mai.models import (
    AuthError,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    Image,
    InvalidReply,
    Message,
    Model,
    ModelError,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    Request,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolReturn,
    UnknownModel,
    Unreachable,
    Usage,
)
from mai.models.provider import failure_of
from mai.models.translate import incoming, outgoing
from mai.types import Retrying
from tests.examples.fake_model_server import Behaviour, drop, half
from tests.models.support import KEY, FakeModelServer, answer, chunk, error, events, send, stream
from tests.support import refused

ADD = ToolDefinition(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {}}})
WISH = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
ADD_ONE = ToolCall(id="c1", name="add", arguments='{"a":1}')


def at(server: FakeModelServer, **settings: Any) -> Model:
    return Model("tiny", url=server.url, key=KEY, **settings)


async def asked(prompt: Any, *behaviours: Behaviour, **settings: Any) -> tuple[Any, Any]:
    """Return the reply and the body that was sent."""
    with FakeModelServer(list(behaviours) or [answer()]) as server:
        model = at(server, **settings)
        reply = await model(prompt)
        await model.aclose()
        return reply, server.requests[-1].body


async def test_an_answer_has_its_text_its_tokens_and_its_names() -> None:
    reply, body = await asked("hi")
    assert (reply.text, reply.finish, reply.model, reply.provider, reply.id) == (
        "hello", "stop", "tiny-1", "openai", "chat-1",
    )  # fmt: skip
    assert reply.usage == Usage(input_tokens=7, output_tokens=3)
    assert reply.cost_usd is None
    assert body == {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": False}


async def test_a_zero_is_sent_and_what_is_not_set_is_not() -> None:
    _, body = await asked("hi", temperature=0)
    assert body["temperature"] == 0
    assert set(body) == {"model", "messages", "stream", "temperature"}


async def test_every_setting_reaches_the_vendor() -> None:
    settings: dict[str, Any] = {"top_p": 0.5, "max_tokens": 9, "stop": ["END"], "seed": 4, "extra": {"min_p": 0.1}}
    request = Request(
        messages=(Message.user("hi"),), tools=(ADD,), tool_choice="required", parallel_tool_calls=False, temperature=1
    )
    _, body = await asked(request, **settings)
    assert (body["top_p"], body["max_completion_tokens"], body["stop"], body["seed"]) == (0.5, 9, ["END"], 4)
    assert (body["min_p"], body["tool_choice"], body["parallel_tool_calls"]) == (0.1, "required", False)
    function = body["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("add", "Adds.")
    two = (ADD, ADD.model_copy(update={"name": "subtract"}))
    _, body = await asked(request.model_copy(update={"tool_choice": "add", "tools": two}))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}


async def test_a_whole_conversation_reaches_the_vendor_in_order() -> None:
    said = [
        Message.system("be brief"),
        Message.user("what is this?", Image(url="https://example.com/a.png"), Image(data=b"\x89PNG")),
        Message.assistant("wait", ADD_ONE),
        Message.tool(ToolReturn(id="c1", name="add", content="2")),
        Message.user("so?"),
    ]
    _, body = await asked(said)
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    seen = body["messages"][1]["content"]
    assert [part["type"] for part in seen] == ["text", "image_url", "image_url"]
    assert seen[2]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert body["messages"][2]["tool_calls"] == [WISH]
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": "2"}


async def test_a_wish_for_a_tool_comes_back_and_can_be_sent_again() -> None:
    reply, _ = await asked("hi", answer(None, finish="tool_calls", tool_calls=[WISH]))
    assert (reply.finish, reply.tool_calls) == ("tool_calls", (ADD_ONE,))
    failed = Message.tool(ToolReturn(id="c1", name="add", content="error: no", is_error=True))
    _, body = await asked([Message.user("hi"), reply.message, failed])
    assert body["messages"][1]["tool_calls"] == [WISH]
    assert "error: no" in body["messages"][2]["content"]


@pytest.mark.parametrize(
    ("finish", "message", "expected"),
    [
        ("stop", {}, "stop"),
        ("length", {}, "length"),
        ("content_filter", {}, "filtered"),
        ("stop", {"refusal": "I will not"}, "refused"),
        ("stop", {"tool_calls": [WISH]}, "tool_calls"),
    ],
)
async def test_how_an_answer_ended_has_a_name(finish: str, message: Any, expected: str) -> None:
    reply, _ = await asked("hi", answer("x", finish=finish, **message))
    assert reply.finish == expected


async def test_a_schema_is_sent_as_one_and_its_answer_is_data() -> None:
    request = Request(
        messages=(Message.user("hi"),), output={"type": "object", "properties": {"a": {}}}, output_name="A"
    )
    reply, body = await asked(request, answer('{"a": 1}'))
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["name"] == "A"
    assert reply.data == {"a": 1}
    reply, _ = await asked(request, answer("no JSON"))
    assert reply.data is None


FAILURES: list[tuple[Behaviour, type[ModelError], dict[str, Any]]] = [
    (error(401, "wrong key"), AuthError, {"status": 401}),
    (error(403, "not yours"), AuthError, {"status": 403}),
    (error(404, "no such model"), UnknownModel, {"status": 404}),
    (error(400, "bad field"), BadRequest, {"status": 400}),
    (error(422, "bad field"), BadRequest, {"status": 422}),
    (error(400, "x", code="context_length_exceeded"), ContextTooLong, {"status": 400}),
    (error(400, "the request exceeds the available context size"), ContextTooLong, {"status": 400}),
    (error(402, "pay"), QuotaExceeded, {"status": 402}),
    (error(429, "pay", code="insufficient_quota"), QuotaExceeded, {"code": "insufficient_quota"}),
    (error(429, "slow", Retry_After="3"), RateLimited, {"retry_after": 3.0}),
    (error(429, "slow"), RateLimited, {"retry_after": None}),
    (error(408, "late"), Overloaded, {"status": 408}),
    (error(409, "conflict"), Overloaded, {"status": 409}),
    (error(500, "oops"), Overloaded, {"status": 500}),
    (error(501, "not built"), BadRequest, {"status": 501}),
    (error(503, "busy", Retry_After="1"), Overloaded, {"retry_after": 1.0}),
    (error(529, "overloaded"), Overloaded, {"status": 529}),
    (drop, Unreachable, {"status": None}),
    (half, Unreachable, {"status": None}),
    (send(b"{}"), InvalidReply, {}),
    (send(b"no JSON"), InvalidReply, {}),
]


@pytest.mark.parametrize(("behaviour", "kind", "facts"), FAILURES)
@pytest.mark.parametrize("streaming", [False, True])
async def test_what_a_failure_means_has_a_name(
    behaviour: Behaviour, kind: type[ModelError], facts: dict[str, Any], streaming: bool
) -> None:
    with FakeModelServer([behaviour]) as server:
        model = at(server, stream=streaming)
        with pytest.raises(ModelError) as caught:
            await model("hi")
        await model.aclose()
        assert len(server.requests) == 1  # the SDK does not try again by itself
    assert type(caught.value) is kind
    assert {name: getattr(caught.value, name) for name in facts} == facts
    assert str(caught.value).startswith("tiny: ")
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_the_vendors_words_are_in_the_message() -> None:
    server = FakeModelServer([error(400, "temperature is too high")])
    with server, refused(BadRequest, "tiny: temperature is too high (HTTP 400)"):
        await at(server)("hi")


async def test_a_throttled_call_is_tried_again_when_the_vendor_wants_it() -> None:
    with FakeModelServer(
        [error(429, "slow", Retry_After="0"), error(503, "busy", Retry_After="0"), answer()]
    ) as server:
        model = at(server).with_(retry=3)
        assert (await model("hi")).text == "hello"
        await model.aclose()
        assert len(server.requests) == 3


async def test_a_stream_tells_its_text_as_it_comes() -> None:
    with FakeModelServer([stream("one ", "two", finish="length")]) as server:
        model = at(server)
        handle = model.start("hi")
        assert [text async for text in handle.chunks()] == ["one ", "two"]
        reply = await handle
        await model.aclose()
        assert server.requests[0].body["stream"] is True
    assert (reply.text, reply.finish, reply.usage) == ("one two", "length", Usage(input_tokens=7, output_tokens=2))


async def test_outside_of_a_started_run_an_answer_comes_whole_unless_a_stream_is_wanted() -> None:
    _, body = await asked("hi", answer())
    assert body["stream"] is False
    reply, body = await asked("hi", stream("one"), stream=True)
    assert (reply.text, body["stream"]) == ("one", True)
    with FakeModelServer([answer()]) as server:
        model = at(server, stream=False)
        assert (await model.start("hi")).text == "hello"
        await model.aclose()


async def test_a_streamed_wish_for_a_tool_is_whole_in_the_reply() -> None:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    parts = [chunk(tool_calls=[first]), chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}])]
    reply, _ = await asked("hi", events(*parts, chunk("tool_calls")), stream=True)
    assert reply.tool_calls == (ADD_ONE,)


async def test_a_stream_that_breaks_off_is_tried_again_and_its_readers_are_told() -> None:
    broken = events(chunk(content="one "), done=False)
    with FakeModelServer([broken, stream("whole")]) as server:
        model = at(server).with_(retry=Retry(2, base=0.001))
        handle = model.start("hi")
        seen = [event async for event in handle]
        assert (await handle).text == "whole"
        await model.aclose()
    assert sum(isinstance(event, Retrying) for event in seen) == 1


async def test_a_cancelled_stream_is_closed_and_the_model_goes_on() -> None:
    with FakeModelServer([stream(*["word "] * 200), answer("again")]) as server:
        model = at(server)
        handle = model.start("hi")
        async for _ in handle.chunks():
            handle.cancel()
            break
        with pytest.raises(asyncio.CancelledError):
            await handle
        assert (await model("hi")).text == "again"
        await model.aclose()


async def test_a_missing_key_is_said_before_anything_is_sent() -> None:
    with refused(AuthError, "openai:gpt-5: there is no key; set OPENAI_API_KEY, or give key="):
        await Model("openai:gpt-5")("hi")


async def test_an_unknown_vendor_is_said_when_it_is_asked() -> None:
    with pytest.raises(ConfigError, match="Model: model='nobody:x' cannot be used"):
        await Model("nobody:x")("hi")


async def test_each_event_loop_has_connections_of_its_own_and_a_new_key_opens_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeModelServer([answer()]) as server:
        model = Model("tiny", url=server.url)

        async def ask() -> str:
            text = (await model("hi")).text
            await model.aclose()
            return text

        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "first-key-0123")
        await ask()
        monkeypatch.setenv("OPENAI_API_KEY", "second-key-0123")
        await ask()
        await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(ask()))
        used = [request.headers["authorization"] for request in server.requests]
    assert used == ["Bearer first-key-0123", "Bearer second-key-0123", "Bearer second-key-0123"]


async def test_thoughts_go_back_to_the_vendor_that_had_them() -> None:
    thought = Thinking(text="hm", details={"id": "reasoning_content", "provider_name": "openai"})
    _, body = await asked([Message.user("hi"), Message.assistant(thought, "so"), Message.user("and?")])
    assert body["messages"][1] == {"role": "assistant", "reasoning_content": "hm", "content": "so"}


async def test_what_a_call_used_stands_in_its_handle() -> None:
    with FakeModelServer([answer(usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10,
                                        "prompt_tokens_details": {"cached_tokens": 4}})]) as server:  # fmt: skip
        model = at(server, temperature=0)
        with capture() as trace:
            await model("hi")
        await model.aclose()
    facts = dict(trace.runs[0].attributes)
    assert facts.pop("server.port") == int(server.url.rpartition(":")[2].partition("/")[0])
    assert facts == {
        "openinference.span.kind": "LLM", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny", "gen_ai.request.temperature": 0.0, "server.address": "127.0.0.1",
        "gen_ai.response.model": "tiny-1", "gen_ai.response.id": "chat-1",
        "gen_ai.response.finish_reasons": ("stop",), "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 1, "gen_ai.usage.cache_read.input_tokens": 4,
    }  # fmt: skip


async def test_a_withheld_answer_is_an_error_where_the_vendor_says_so() -> None:
    with FakeModelServer([error(400, "filtered", code="content_filter")]) as server:
        model = at(server)
        with pytest.raises((ContentFiltered, BadRequest)):
            await model("hi")
        await model.aclose()


async def test_a_model_can_be_asked_without_a_call() -> None:
    with FakeModelServer([answer()]) as server:
        model = at(server)
        assert (await model.answer(model.request("hi"), None)).text == "hello"
        await model.aclose()


@pytest.mark.parametrize("missing", ["pydantic_ai.providers", "pydantic_ai.direct"])
async def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"mai.models needs the extra 'llm': pip install 'mai-kernel\[llm\]'"):
        await Model("tiny", url="http://127.0.0.1:9/v1")("hi")


async def test_thoughts_images_and_other_parts_of_an_answer_are_heard() -> None:
    thinking = {"reasoning_content": "hm"}
    reply, _ = await asked("hi", answer("so", **thinking))
    assert [part.type for part in reply.message.parts] == ["thinking", "text"]
    picture = pam.FilePart(pam.BinaryContent(b"x", media_type="image/png"))
    sound = pam.FilePart(pam.BinaryContent(b"x", media_type="audio/wav"))
    call = pam.ToolCallPart("add", {"a": 1}, "c1")
    heard = incoming(pam.ModelResponse([picture, sound, call]), Redactor())
    assert heard.message.parts == (Image(data=b"x"), ADD_ONE)
    (said,) = outgoing([Message(role="assistant", parts=(Image(data=b"x"),))])
    assert isinstance(said.parts[0], pam.FilePart)
    assert isinstance(failure_of(ValueError(KEY), "m", Redactor(KEY)), InvalidReply)
    own = ConfigError("mine")
    assert failure_of(own, "m", Redactor()) is own
