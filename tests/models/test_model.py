import asyncio
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from pydantic import SecretStr

from mai import CastError, ConfigError, DeadlineExceeded, Payload, WorkflowPlan, capture, module
from mai.models import AuthError, Message, Model, Overloaded, Prices, Reply, Request, ScriptedModel, ToolDefinition
from mai.types import Chunk
from tests.support import recorded_spans, refused, simulated


def test_settings_of_a_model_are_set_when_it_is_made_or_by_a_copy() -> None:
    model = Model("openai:gpt-5", temperature=0, stop=["END"], key="sk-0123456789")
    copy = model.with_(temperature=0.5, model="anthropic:claude", max_tokens=5, name="judge", timeout=3)
    assert (model.temperature, model.stop, model.key) == (0, ("END",), SecretStr("sk-0123456789"))
    assert (copy.temperature, copy.model, copy.max_tokens, copy.settings.name) == (0.5, "anthropic:claude", 5, "judge")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_p", 1.5), ("max_tokens", 0),
        ("thinking", "a lot"), ("seed", "x"), ("prices", 3), ("stream", "maybe"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_at_once(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        Model("openai:gpt-5", **{setting: value})
    with pytest.raises(ConfigError, match=setting):
        Model("openai:gpt-5").with_(**{setting: value})


def test_a_model_without_a_vendor_and_a_key_that_is_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="names no vendor"):
        Model("gpt-5")
    with refused(ConfigError, "Model: key is a int, not a text"):
        Model("openai:gpt-5", key=12345678)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Model has no setting 'max_token'; did you mean 'max_tokens'"):
        Model("openai:gpt-5").with_(max_token=1)


@pytest.mark.parametrize(
    "prompt",
    ["hi", Message.user("hi"), [Message.user("hi")], (Message.user("hi"),), Request(messages=(Message.user("hi"),))],
)
def test_a_prompt_is_a_text_a_message_several_or_a_request(prompt: Any) -> None:
    model = Model("openai:gpt-5", temperature=0, stop=("END",))
    made = model.request(prompt)
    assert (made.messages, made.temperature, made.stop, made.max_tokens) == ((Message.user("hi"),), 0, ("END",), None)


def test_what_a_request_sets_itself_is_kept() -> None:
    request = Request(messages=(), temperature=1.0, tools=(ToolDefinition(name="add"),))
    made = Model("openai:gpt-5", temperature=0, max_tokens=7).request(request)
    assert (made.temperature, made.max_tokens, made.tools) == (1.0, 7, request.tools)


async def test_something_else_than_a_prompt_is_refused_before_anything_is_sent() -> None:
    model = ScriptedModel("x")
    with pytest.raises(CastError, match="prompt"):
        await model(3)  # type: ignore[arg-type]
    assert model.requests == []


async def test_a_model_is_a_step_like_any_other() -> None:
    model = ScriptedModel("Four.", repeat=True)
    pipeline = module(lambda n: f"What is {n}?") >> model >> module(lambda reply: reply.text)
    assert await pipeline(4) == "Four."
    assert [reply.text for reply in await model.map(concurrency=3)(["a", "b", "c"])] == ["Four."] * 3
    assert (await ScriptedModel(Overloaded("busy")).with_(fallback=model)("x")).text == "Four."
    assert (await ScriptedModel(Overloaded("busy"), "again").with_(retry=2)("x")).text == "again"


async def test_what_will_not_succeed_is_not_asked_again() -> None:
    model = ScriptedModel(AuthError("wrong key"), repeat=True)
    with refused(AuthError, "wrong key"):
        await model.with_(retry=3)("x")
    assert len(model.requests) == 1


async def test_a_double_stands_in_for_a_model() -> None:
    model = Model("openai:gpt-5")
    with model.override(lambda prompt: Reply(message=Message.assistant(f"you said {prompt}"))):
        assert (await model.with_(temperature=0)("hi")).text == "you said hi"


@simulated
async def test_a_model_has_a_timeout_like_any_other_step() -> None:
    class Slow(ScriptedModel):
        async def answer(self, request: Request, say: Any) -> Reply:
            await asyncio.sleep(10)
            return await super().answer(request, say)

    with pytest.raises(DeadlineExceeded):
        await Slow("x").with_(timeout=1)("hi")


async def test_chunks_of_a_model_stream_through_a_pipeline() -> None:
    pipeline = ScriptedModel("one two three") >> module(lambda reply: reply.text)
    handle = pipeline.start("hi")
    chunks = [event async for event in handle if isinstance(event, Chunk)]
    assert [(chunk.value, chunk.index) for chunk in chunks] == [("one", 0), (" two", 1), (" three", 2)]
    assert await handle == "one two three"


async def test_a_request_and_a_reply_cross_as_json_for_a_journal() -> None:
    model = ScriptedModel("x")
    payload = model.payload(prompt=[Message.user("hi")])
    assert Payload.load(model.In, payload.json()).value == payload.value
    assert model.Out is Reply


def test_the_plan_of_a_model_has_its_settings_and_no_key() -> None:
    model = Model("openai:gpt-5", temperature=0, key="sk-canary-4711")
    text = model.plan().model_dump_json()
    assert "gen_ai.request.temperature" in text
    assert "canary" not in text
    assert WorkflowPlan.model_validate_json(text) == model.plan()


async def test_a_model_tells_its_span_what_it_is_and_what_it_used() -> None:
    model = ScriptedModel("x", repeat=True).with_(prices=Prices(input_usd=1, output_usd=1), temperature=0.5)
    assert (model._mai_span, model._mai_span_kind) == ("chat model", SpanKind.CLIENT)
    with recorded_spans() as spans:
        await model("hi there")
    (span,) = spans.get_finished_spans()
    facts = dict(span.attributes or {})
    assert facts["openinference.span.kind"] == "LLM"
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.request.temperature"] == 0.5
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (2, 1)
    assert facts["mai.cost.usd"] == pytest.approx(3e-6)


async def test_the_facts_of_a_copy_are_its_own() -> None:
    model = ScriptedModel("x", repeat=True)
    with capture() as trace:
        await model("hi")
        await model.with_(max_tokens=3)("hi")
    assert [run.attributes.get("gen_ai.request.max_tokens") for run in trace.runs] == [None, 3]


def test_closing_what_was_never_opened_does_nothing() -> None:
    @module
    async def close(model: str) -> str:
        await Model(model).aclose()
        return "closed"

    assert close.run("openai:gpt-5") == "closed"
