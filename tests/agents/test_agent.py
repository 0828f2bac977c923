import asyncio
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from mai import (
    AskError,
    CastError,
    ConfigError,
    Context,
    DeadlineExceeded,
    Module,
    Payload,
    Retry,
    WiringError,
    answers,
    capture,
    module,
)
from mai.agents import Agent, Talk, ToolAnswered, ToolCalled, TurnsExhausted
from mai.models import (
    Budget,
    BudgetExhausted,
    ContentFiltered,
    InvalidOutput,
    Message,
    Overloaded,
    Prices,
    Refused,
    Reply,
    ScriptedModel,
    ToolCall,
    ToolReturn,
    Usage,
    spent,
)
from mai.tools import Tool
from mai.types import Chunk, Emitted
from tests.support import recorded_spans, refused, simulate, simulated


class City(BaseModel):
    name: str
    people: int


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@module
async def double(n: int) -> int:
    """Double a number."""
    return 2 * n


BERN = '{"name": "Bern", "people": 134000}'
ADD = ToolCall.of("add", id="c1", a=2, b=3)
DOUBLE = ToolCall.of("double", id="c2", n=4)


# ---------------------------------------------------------------- turns and tools


def turns(script: list[list[ToolCall]]) -> ScriptedModel:
    return ScriptedModel(*script, "done")


calls = st.sampled_from([ADD, DOUBLE, ToolCall.of("nope"), ToolCall(id="c", name="add", arguments="{")])


@given(st.lists(st.lists(calls, min_size=1, max_size=4), max_size=4), st.integers(1, 4))
def test_each_call_of_a_tool_has_one_answer_in_its_place(script: list[list[ToolCall]], parallel: int) -> None:
    agent = Agent(turns(script), [add, double], parallel=parallel)
    talk = simulate(lambda: agent.talk("go"))
    assert (talk.value, talk.turns) == ("done", len(script) + 1)
    assert [message.role for message in talk.messages] == ["user", *["assistant", "tool"] * len(script), "assistant"]
    for wanted, answered in zip(talk.messages[1::2], talk.messages[2::2], strict=False):
        returns = [part for part in answered.parts if isinstance(part, ToolReturn)]
        assert [(part.id, part.name) for part in returns] == [(call.id, call.name) for call in wanted.tool_calls]
        assert {part.content for part in returns if not part.is_error} <= {"5", "8"}


async def test_the_model_is_told_of_its_tools_and_of_what_they_gave() -> None:
    model = ScriptedModel([ADD, DOUBLE], "13 in all")
    assert await Agent(model, [add, double], instructions="Use tools.")("What is 2 + 3 + 2 * 4?") == "13 in all"
    first, second = model.requests
    assert [tool.name for tool in first.tools] == ["add", "double"]
    assert first.tools[0].description == "Add two numbers."
    assert first.tools[0].parameters["required"] == ["a"]
    assert first.messages == (Message.system("Use tools."), Message.user("What is 2 + 3 + 2 * 4?"))
    assert second.messages[2:] == (
        Message.assistant(ADD, DOUBLE),
        Message.tool(
            ToolReturn(id="c1", name="add", content="5"), ToolReturn(id="c2", name="double", content="8")
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall.of("nope"), "error: no such tool; there are: add"),
        (ToolCall(id="x", name="add", arguments='{"a": '), "error: ArgumentsRefused: the arguments of add are no JSON"),
        (ToolCall.of("add", c=1), "error: ConfigError: add has no parameter 'c'"),
        (ToolCall.of("add", a="x"), "error: CastError: "),
    ],
)
async def test_what_is_wrong_with_a_call_is_told_to_the_model(call: ToolCall, told: str) -> None:
    model = ScriptedModel(call, "I see")
    assert await Agent(model, [add])("go") == "I see"
    (part,) = model.requests[1].messages[-1].parts
    assert isinstance(part, ToolReturn)
    assert part.is_error
    assert part.content.startswith(told)


async def test_an_agent_without_tools_that_wants_one_is_told_so() -> None:
    model = ScriptedModel(ADD, "I see")
    assert await Agent(model)("go") == "I see"
    assert "there are: none" in str(model.requests[1].messages[-1])


async def test_the_error_of_a_tool_is_told_to_the_model_or_raised() -> None:
    def fail(n: int) -> int:
        """Fail."""
        raise KeyError(n)

    model = ScriptedModel(ToolCall.of("fail", n=1), "too bad", ToolCall.of("fail", n=2))
    assert await Agent(model, [fail])("go") == "too bad"
    with pytest.raises(KeyError, match="2"):
        await Agent(model, [Tool(fail, on_error="raise")])("go")


@simulated
async def test_tools_of_one_turn_run_at_the_same_time_as_many_as_are_allowed() -> None:
    @module
    async def wait(seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return f"{seconds:g} s"

    wanted = [ToolCall.of("wait", id=f"c{n}", seconds=n) for n in (3, 1, 2)]
    loop = asyncio.get_running_loop()
    for parallel, took in ((8, 3), (2, 3), (1, 6)):
        model, begun = ScriptedModel(wanted, "done"), loop.time()
        await Agent(model, [wait], parallel=parallel)("go")
        assert loop.time() - begun == took
        contents = [part.content for part in model.requests[1].messages[-1].parts if isinstance(part, ToolReturn)]
        assert contents == ["3 s", "1 s", "2 s"]


@simulated
async def test_a_cancelled_agent_leaves_no_tool_behind() -> None:
    ended: list[str] = []

    @module
    async def wait(seconds: float) -> str:
        """Wait."""
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append("ended")
        return "waited"

    agent = Agent(ScriptedModel([ToolCall.of("wait", id=str(n), seconds=60) for n in range(3)]), [wait])
    with pytest.raises(DeadlineExceeded):
        await agent.with_(timeout=1)("go")
    assert ended == ["ended"] * 3


# ---------------------------------------------------------------- limits


async def test_an_agent_that_goes_on_and_on_is_stopped_and_nothing_is_lost() -> None:
    agent = Agent(ScriptedModel(ADD, repeat=True), [add], max_turns=3, name="adder", instructions="Add.")
    with pytest.raises(TurnsExhausted) as caught:
        await agent("go")
    assert str(caught.value) == (
        "adder: no answer after 3 turns; raise max_turns, or go on with the messages of this error as history"
    )
    assert caught.value.turns == 3
    assert [message.role for message in caught.value.messages] == ["user", *["assistant", "tool"] * 3]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.turns, again.messages) == (str(caught.value), 3, caught.value.messages)
    assert await Agent(ScriptedModel("5"), [add])("so?", history=caught.value.messages) == "5"


@pytest.mark.parametrize("limits", [{"max_usd": 120.0}, {"max_tokens": 120}])
async def test_an_agent_stops_before_the_turn_that_would_exceed_its_limit(limits: Any) -> None:
    reply = Reply(message=Message.assistant(ADD), usage=Usage(input_tokens=10, output_tokens=5), finish="tool_calls")
    model = ScriptedModel(reply, repeat=True).with_(prices=Prices(input_usd=1e6, output_usd=1e6))
    agent = Agent(model, [add], **limits)
    with capture() as trace:
        for _ in range(2):  # the limit is that of one call
            with pytest.raises(BudgetExhausted):
                await agent("go")
    assert 30 <= spent(trace.runs[0]).usd <= 135
    assert spent(trace.runs[0]) == spent(trace.runs[1])
    with Budget(tokens=80), pytest.raises(BudgetExhausted):
        await agent.with_(max_usd=None, max_tokens=None)("go")


async def test_a_model_that_is_busy_is_asked_again_by_its_own_retry() -> None:
    model = ScriptedModel(Overloaded("busy"), ADD, Overloaded("busy"), "5").with_(retry=Retry(2, base=0.001))
    assert await Agent(model, [add])("go") == "5"


# ---------------------------------------------------------------- answers


async def test_an_answer_may_be_of_a_type() -> None:
    model = ScriptedModel(ADD, '{"name": "Bern"}', BERN)
    agent = Agent(model, [add], returning=City)
    assert agent.Out is City
    talk = await agent.talk("The capital?")
    assert (talk.value, talk.turns) == (City(name="Bern", people=134000), 3)
    assert model.requests[0].output == City.model_json_schema()
    assert "people: Field required" in model.requests[2].messages[-1].text


async def test_an_answer_that_never_fits_is_an_error_with_the_last_one() -> None:
    with pytest.raises(InvalidOutput, match="scripted:model: no answer in 2 fits City") as caught:
        await Agent(ScriptedModel("no", repeat=True), returning=City, attempts=2)("The capital?")
    assert caught.value.text == "no"


@pytest.mark.parametrize(
    ("finish", "kind"), [("refused", Refused), ("filtered", ContentFiltered), ("length", InvalidOutput)]
)
async def test_half_an_answer_and_none_are_errors(finish: Any, kind: type[Exception]) -> None:
    reply = Reply(message=Message.assistant("half of"), finish=finish)
    with pytest.raises(kind):
        await Agent(ScriptedModel(reply))("go")


async def test_a_conversation_goes_on_with_the_messages_of_its_answer() -> None:
    model = ScriptedModel("Hello, Ann.", "You are Ann.")
    agent = Agent(model, instructions="Be kind.")
    first = await agent.talk("I am Ann.")
    assert first.messages == (Message.user("I am Ann."), Message.assistant("Hello, Ann."))
    second = await agent.talk("Who am I?", history=first.messages)
    assert model.requests[1].messages == (Message.system("Be kind."), *first.messages, Message.user("Who am I?"))
    assert len(second.messages) == 4
    assert second.usage.total_tokens > 0
    assert (second.cost_usd, second.turns) == (0.0, 1)
    crossed = Payload.load(Talk[str], Payload.of(second, Talk[str]).json()).value
    assert crossed == second


@pytest.mark.parametrize("instructions", ["", "Be kind.", lambda: ""])
async def test_a_system_message_of_the_history_stays_in_the_conversation(instructions: Any) -> None:
    history = (Message.system("Ann is a vet."), Message.user("Hello."), Message.assistant("Hello!"))
    model = ScriptedModel("one", ToolCall.of("add", a=1, b=2))
    agent = Agent(model, [add], instructions=instructions, max_turns=1)
    talk = await agent.talk("Who is Ann?", history=history)
    assert talk.messages == (*history, Message.user("Who is Ann?"), Message.assistant("one"))
    with pytest.raises(TurnsExhausted) as caught:
        await agent("And?", history=talk.messages)
    assert caught.value.messages[: len(talk.messages)] == talk.messages
    assert [message.text for message in model.requests[1].messages].count("Ann is a vet.") == 1


async def test_what_a_talk_cost_is_not_known_where_one_turn_has_no_price() -> None:
    class Unpriced(ScriptedModel):
        def cost(self, usage: Usage) -> float | None:
            return None

    assert (await Agent(Unpriced("x")).talk("go")).cost_usd is None


# ---------------------------------------------------------------- what is sent


def test_the_messages_can_be_seen_before_they_are_sent() -> None:
    model = ScriptedModel("x").with_(temperature=0)
    agent = Agent(model, [add], instructions=lambda: f"For {Context.get().metadata.get('user', 'nobody')}.")
    with Context.scope(user="ann"):
        assert agent.messages("go") == (Message.system("For ann."), Message.user("go"))
        request = agent.request([Message.user("a"), Message.user("b")], history=[Message.assistant("c")])
    assert [message.text for message in request.messages] == ["For ann.", "c", "a", "b"]
    assert (request.temperature, [tool.name for tool in request.tools]) == (0, ["add"])
    assert model.requests == []
    assert Agent(model).messages(Message.user("x")) == (Message.user("x"),)


async def test_a_task_that_is_none_is_refused() -> None:
    with pytest.raises(CastError, match="task"):
        await Agent(ScriptedModel("x"))(3)  # type: ignore[arg-type]


async def test_instructions_that_are_no_text_are_refused() -> None:
    async def fetched() -> str:
        return "Be kind."

    wrong: Any
    for wrong, kind in ((fetched, "coroutine"), (lambda: None, "NoneType")):
        agent = Agent(ScriptedModel("never"), instructions=wrong)
        with pytest.raises(ConfigError, match=f"Agent: instructions gave a {kind}; give a text"):
            await agent("Hello.")
        with pytest.raises(ConfigError, match="instructions gave"):
            agent.messages("Hello.")


def test_a_copy_may_have_other_settings() -> None:
    agent = Agent(ScriptedModel("one"), [add], name="first")
    other = agent.with_(model=ScriptedModel("two"), instructions="Else.", max_turns=1, tools=(), name="second")
    assert (agent.run("go"), other.run("go")) == ("one", "two")
    assert (agent.settings.name, other.settings.name) == ("first", "second")
    assert (len(agent.tools), len(other.tools)) == (1, 0)
    assert other.messages("x")[0] == Message.system("Else.")


def test_a_copy_may_have_other_tools_of_any_kind() -> None:
    async def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    sub = Agent(ScriptedModel("x"), name="expert", description="Knows it.")
    agent = Agent(ScriptedModel(ToolCall.of("double", n=2), "4")).with_(tools=[double, sub, Tool(add, name="plus")])
    assert [tool.name for tool in agent.tools] == ["double", "expert", "plus"]
    assert [tool.name for tool in agent.with_(tools=(double,)).request("go").tools] == ["double"]
    assert [tool.name for tool in agent.with_(tools=double).tools] == ["double"]
    assert agent.run("go") == "4"
    with pytest.raises(ConfigError, match="two tools are called 'double'"):
        agent.with_(tools=[double, double])
    with pytest.raises(WiringError):
        agent.with_(tools=[3])


def test_what_cannot_be_used_is_refused_when_it_is_made() -> None:
    model = ScriptedModel("x")
    with refused(ConfigError, "Agent: model='openai:gpt-5' is no mai.models.Model"):
        Agent("openai:gpt-5")  # type: ignore[arg-type, call-overload]
    with pytest.raises(ConfigError, match="two tools are called 'add'"):
        Agent(model, [add, add])
    for name, value in (("max_turns", 0), ("parallel", 0), ("attempts", 0), ("max_usd", 0), ("max_tokens", 1.5)):
        with pytest.raises(ConfigError, match=name):
            Agent(model, **{name: value})  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="JSON schema"):
        Agent(model, returning=type("Odd", (), {}))
    with pytest.raises(ConfigError, match="name"):
        Agent(model, name="a/b")


# ---------------------------------------------------------------- as a module


async def test_an_agent_is_a_step_like_any_other() -> None:
    agent = Agent(ScriptedModel("x", repeat=True))
    assert await (agent >> module(lambda text: text * 2))("go") == "xx"
    assert await agent.map(concurrency=2)(["a", "b"]) == ["x", "x"]
    failing = Agent(ScriptedModel(Overloaded("busy"), repeat=True))
    assert await failing.with_(fallback=agent)("go") == "x"
    with agent.override(lambda task, *, history=(): f"double of {task}"):
        assert await agent("go") == "double of go"


async def test_hooks_around_models_tools_and_agents_are_middleware() -> None:
    seen: list[str] = []

    async def hook(call: Any, next: Any) -> Any:  # noqa: A002 (its name)
        seen.append(f"before {call.name}")
        value = await next(call)
        seen.append(f"after {call.name}")
        return value

    model = ScriptedModel(ADD, "5").with_(middleware=hook, name="model")
    await Agent(model, [Tool(add).with_(middleware=hook)]).with_(middleware=hook)("go")
    around = ["before model", "after model", "before add", "after add", "before model", "after model"]
    assert seen == ["before Agent", *around, "after Agent"]


async def test_an_agent_may_be_the_tool_of_another() -> None:
    inner = Agent(
        ScriptedModel(ToolCall.of("double", n=4), "8"), [double], name="doubler", description="Doubles numbers."
    )
    model = ScriptedModel(ToolCall.of("doubler", task="Double 4."), "It is 8.")
    outer = Agent(model, [inner], name="boss")
    with capture() as trace:
        assert await outer("What is twice 4?") == "It is 8."
    (tool,) = model.requests[0].tools
    assert (tool.name, tool.description) == ("doubler", "Doubles numbers.")
    assert tool.parameters["properties"] == {"task": {"type": "string"}}
    assert "8" in str(model.requests[1].messages[-1])
    assert [handle.name for handle in trace.runs[0].find(kind="agent")] == ["boss", "doubler"]
    assert spent(trace).calls == 4
    with pytest.raises(ConfigError, match="no description"):
        Agent(model, [Agent(model, name="mute")])
    assert inner.as_tool(name="other", description="Else.", approve=True).description == "Else."


async def test_a_tool_that_needs_approval_asks_a_person() -> None:
    guarded = Tool(add, approve=True)
    model = ScriptedModel(ADD, "done", repeat=False)
    handle = Agent(model, [guarded]).start("go")
    async for _ in handle:
        if handle.questions:
            assert handle.questions[0].prompt == "Run add(a=2, b=3)?"
            handle.answer(True)
    assert await handle == "done"
    refusing = ScriptedModel(ADD, "then not")
    with answers(lambda question: False):
        assert await Agent(refusing, [guarded])("go") == "then not"
    assert "a person refused it" in str(refusing.requests[1].messages[-1])
    with pytest.raises(AskError):
        await Agent(ScriptedModel(ADD), [guarded])("go")


async def test_the_text_streams_and_the_tools_are_told_of_as_they_are_used() -> None:
    handle = Agent(ScriptedModel(ADD, "five it is"), [add]).start("go")
    seen = [event async for event in handle]
    assert "".join(str(event.value) for event in seen if isinstance(event, Chunk)) == "five it is"
    told = [event.value for event in seen if isinstance(event, Emitted)]
    assert told == [ToolCalled(1, ADD), ToolAnswered(1, ToolReturn(id="c1", name="add", content="5"))]
    again = Agent(ScriptedModel(ADD, "five it is"), [add]).start("go")
    assert [text async for text in again.chunks()] == ["five", " it", " is"]


async def test_the_trace_shows_each_turn() -> None:
    agent = Agent(ScriptedModel([ADD, DOUBLE], ADD, "done"), [add, double], name="adder", description="Adds.")
    with capture() as trace:
        await agent("go")
    (run,) = trace.runs
    assert [child.name for child in run.children] == ["ScriptedModel", "tools", "ScriptedModel", "add", "ScriptedModel"]
    assert run.kind == "agent"
    assert dict(run.attributes) == {
        "openinference.span.kind": "AGENT", "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "adder",
        "gen_ai.agent.description": "Adds.", "mai.agent.max_turns": 20, "mai.agent.turns": 3,
    }  # fmt: skip
    assert (agent._mai_span, agent.talk._mai_span) == ("invoke_agent adder", "invoke_agent adder")
    tool = run.children[3]
    assert (tool.kind, tool.attributes["gen_ai.tool.call.id"]) == ("tool", "c1")


async def test_the_spans_of_an_agent_are_those_of_the_conventions() -> None:
    agent = Agent(ScriptedModel(ADD, "done"), [Tool(add)], name="adder")
    with recorded_spans() as spans:
        await agent("go")
    by_kind = [(span.attributes or {})["openinference.span.kind"] for span in spans.get_finished_spans()]
    assert sorted(map(str, by_kind)) == ["AGENT", "CHAIN", "LLM", "LLM", "TOOL"]
    assert {span.status.status_code for span in spans.get_finished_spans()} == {StatusCode.UNSET}
    named = [(span.name, span.kind) for span in spans.get_finished_spans()]
    assert named == [
        ("chat model", SpanKind.CLIENT), ("add", SpanKind.INTERNAL), ("execute_tool add", SpanKind.INTERNAL),
        ("chat model", SpanKind.CLIENT), ("invoke_agent adder", SpanKind.INTERNAL),
    ]  # fmt: skip


def test_the_plan_of_an_agent_can_be_made() -> None:
    plan = Agent(ScriptedModel("x"), [add], returning=City, name="adder").plan()
    assert (plan.name, plan.kind, plan.gives.text) == ("adder", "agent", "City")


def test_an_agent_keeps_its_type_for_type_checkers() -> None:
    text: str = Agent(ScriptedModel("x")).run("go")
    city: City = Agent(ScriptedModel(BERN), returning=City).run("go")
    talk: Talk[City] = Agent(ScriptedModel(BERN), returning=City).talk.run("go")
    assert (text, city, talk.value) == ("x", city, city)


class Echo(Module):
    """Repeats a text."""

    async def forward(self, text: str) -> str:
        return text


async def test_a_module_is_a_tool_as_it_is() -> None:
    model = ScriptedModel(ToolCall.of("Echo", text="hi"), "done")
    await Agent(model, [Echo()])("go")
    assert "hi" in str(model.requests[1].messages[-1])
