"""A Tool: what a model is told of it, how its arguments are checked, who approves, and what becomes of errors."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode
from pydantic import BaseModel

from mai import AskError, CastError, ConfigError, DeadlineExceeded, Module, WiringError, answers, capture, module
from mai.middleware import Redactor
from mai.tools import (
    AccessRefused,
    ApprovalRefused,
    ArgumentsRefused,
    ServerGone,
    Tool,
    ToolChanged,
    ToolError,
    as_tools,
)
from mai.types import Asked
from tests.support import recorded_spans, refused, simulate, simulated


class Place(BaseModel):
    town: str
    when: date


class Weather(Module):
    """Tell the weather."""

    async def forward(self, place: Place, days: int = 1) -> dict[str, Any]:
        """Tell the weather at a place.

        Args:
            place: Where and when.
            days: For how many days.
        """
        return {"town": place.town, "when": place.when, "days": days}


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first one.
    """
    return a + b


@module
async def fail(text: str) -> str:
    """Fail."""
    raise LookupError(text)


weather, adding = Tool(Weather()), Tool(add)


def test_name_description_and_schema_come_from_the_module() -> None:
    assert (weather.name, weather.description) == ("Weather", "Tell the weather at a place.")
    schema = weather.schema()
    assert schema["properties"]["days"] == {"description": "For how many days.", "default": 1, "type": "integer"}
    assert schema["properties"]["place"] == {"description": "Where and when.", "$ref": "#/$defs/Place"}
    assert schema["required"] == ["place"]
    assert schema["additionalProperties"] is False
    assert "title" not in schema


def test_they_can_be_given_and_changed_in_a_copy() -> None:
    tool = Tool(add, name="plus", description="Sums.")
    other = tool.with_(name="sum", description="Adds.", max_chars=10)
    assert (tool.name, tool.description, other.name, other.description) == ("plus", "Sums.", "sum", "Adds.")
    with pytest.raises(ConfigError, match="no name for a tool"):
        _ = tool.with_(name="to sum").name


@simulated
async def test_it_is_called_like_its_module() -> None:
    assert await adding(1) == 2
    assert await adding(1, b=5) == 6
    assert await weather(Place(town="Ulm", when=date(2026, 1, 2))) == await Weather()(
        Place(town="Ulm", when=date(2026, 1, 2))
    )


@given(a=st.integers(), b=st.integers())
def test_what_a_model_writes_gives_what_the_call_gives(a: int, b: int) -> None:
    async def main() -> None:
        for arguments in ({"a": a, "b": b}, json.dumps({"a": a, "b": b})):
            result = await adding.use(arguments)
            assert (result.ok, result.value, result.text) == (True, a + b, str(a + b))

    simulate(main)


@simulated
async def test_nested_json_becomes_the_declared_types() -> None:
    result = await weather.use('{"place": {"town": "Ulm", "when": "2026-01-02"}}')
    assert result.value == {"town": "Ulm", "when": date(2026, 1, 2), "days": 1}
    assert result.text == '{"town":"Ulm","when":"2026-01-02","days":1}'


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ("{", ArgumentsRefused, "no JSON"),
        ("[" * 100_000, ArgumentsRefused, "no JSON"),
        ("[1]", ArgumentsRefused, "must be a JSON object"),
        ("1", ArgumentsRefused, "must be a JSON object"),
        (None, ArgumentsRefused, "must be a JSON object"),
        ({}, ConfigError, "missing its argument 'a'"),
        ("", ConfigError, "missing its argument 'a'"),
        ({"a": 1, "bb": 2}, ConfigError, "has no parameter 'bb'; did you mean 'b'?"),
        ({"a": 1, "timeout": 2}, ConfigError, "has no parameter 'timeout'"),
        ({"a": "many"}, CastError, "'a' must be int, not str 'many'"),
        ({"a": 1, "b": None}, CastError, "'b' must be int"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model_and_nothing_runs(
    arguments: Any, kind: type[Exception], words: str
) -> None:
    ran = []

    @module
    async def probe(a: int, b: int = 1) -> int:
        """Probe."""
        ran.append(a)
        return a

    result = await Tool(probe).use(arguments)
    assert isinstance(result.error, kind)
    assert words in result.text
    assert result.text.startswith("error: ")
    assert (result.ok, result.value, ran) == (False, None, [])


@simulated
async def test_an_error_is_data_or_raised_by_policy_and_the_trace_has_it_either_way() -> None:
    tool = Tool(fail)
    with capture() as trace:
        result = await tool.use({"text": "no such thing"})
    assert result.text == "error: LookupError: no such thing"
    assert isinstance(result.error, LookupError)
    assert [(h.name, h.kind, h.outcome) for h in trace.runs[0].walk()] == [
        ("fail", "tool", "error"),
        ("fail", "module", "error"),
    ]
    with pytest.raises(LookupError):
        await tool(text="x")
    with pytest.raises(LookupError):
        await Tool(fail, on_error="raise").use({"text": "x"})


@simulated
async def test_several_errors_are_all_told() -> None:
    @module
    async def both(text: str) -> str:
        """Fail twice."""
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b"), ValueError()])

    assert (await Tool(both).use({"text": "x"})).text == "error: two: ValueError: a; KeyError: 'b'; ValueError"


@simulated
async def test_settings_work_as_on_every_module() -> None:
    tries = []

    @module
    async def flaky(text: str) -> str:
        """Fail once."""
        tries.append(text)
        if len(tries) < 2:
            raise OSError("not yet")
        return text

    assert (await Tool(flaky).with_(retry=2).use({"text": "x"})).text == "x"
    assert tries == ["x", "x"]
    with adding.override(lambda a, b=1: a - b):
        assert (await adding.use({"a": 5, "b": 2})).value == 3


@simulated
async def test_a_default_that_was_set_on_the_module_stays() -> None:
    tool = Tool(module(add).with_(b=10))
    assert tool.schema()["properties"]["b"]["default"] == 10
    assert await tool(1) == 11
    assert (await tool.use({"a": 1, "b": 2})).value == 3
    assert Tool(module(add).with_(a=1)).schema().get("required") is None


@simulated
async def test_parameters_of_every_kind_can_be_given_by_name() -> None:
    def all_kinds(a: int, /, b: int, *more: int, c: int = 0, **rest: int) -> str:
        """Take all."""
        return f"{a} {b} {more} {c} {rest}"

    tool = Tool(all_kinds)
    assert (await tool.use({"a": 1, "b": 2, "more": [3, 4], "c": 5, "d": 6})).text == "1 2 (3, 4) 5 {'d': 6}"
    assert (await tool.use({"a": 1, "b": 2})).text == "1 2 () 0 {}"
    assert "must be int" in (await tool.use({"a": 1, "b": 2, "more": "x"})).text


class Dice:
    """Throw dice."""

    def __call__(self) -> int:
        return 6


def noon() -> str:
    """Return the time."""
    return "noon"


async def later() -> str:
    """Return a later time."""
    await asyncio.sleep(1)
    return "night"


async def hours() -> AsyncIterator[str]:
    """Return some times."""
    yield "noon, "
    yield "night"


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (noon, "noon", "noon"),
        (later, "later", "night"),
        (hours, "hours", "noon, night"),
        (Dice(), "Dice", 6),
        (partial(noon), "noon", "noon"),
    ],
)
@simulated
async def test_a_function_may_take_nothing(given: Any, name: str, value: Any) -> None:
    tool: Tool[..., Any] = Tool(given, approve=True)
    asked: list[str] = []
    assert (tool.name, tool.schema()) == (name, {"type": "object", "properties": {}, "additionalProperties": False})
    with answers(lambda question: asked.append(question.prompt) or True):
        assert await tool() == value
        assert (await tool.use("{}")).value == (await tool.with_(name="again").use({})).value == value
        refused = await tool.use({"zone": "x"})
    assert refused.text.startswith(f"error: CastError: {name}: 'zone' must be Nothing, not str 'x' (")
    assert asked == [f"Run {name}()?", f"Run {name}()?", "Run again()?"]
    with pytest.raises(ConfigError, match="too many positional arguments"):
        await tool("x")


@simulated
async def test_a_stream_is_joined() -> None:
    async def write(topic: str) -> AsyncIterator[str]:
        """Write."""
        yield topic
        yield "!"

    assert (await Tool(write).use({"topic": "hi"})).text == "hi!"


@dataclass
class Found:
    score: float
    raw: bytes
    more: object = None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ([1, {"a": True}], '[1,{"a":true}]'),
        (Found(float("nan"), b"\xff"), '{"score":NaN,"raw":"_w==","more":null}'),
        (Found(1.0, b"", object), '{"score":1.0,"raw":"","more":"<class \'object\'>"}'),
        ("a\ud800b", "a?b"),
        (["a\ud800b"], "['a\\ud800b']"),
    ],
)
async def test_a_value_becomes_text(value: Any, text: str) -> None:
    @module
    async def give(x: int) -> Any:
        """Give it."""
        return value

    assert (await Tool(give).use({"x": 1})).text == text


async def test_a_value_that_contains_itself_becomes_text_too() -> None:
    loop: list[Any] = []
    loop.append(loop)

    @module
    async def give(x: int) -> Any:
        """Give it."""
        return loop

    assert (await Tool(give).use({"x": 1})).text == "[[...]]"


@given(length=st.integers(0, 300), most=st.integers(1, 200))
def test_a_text_is_never_longer_than_it_may_be_and_says_what_is_missing(length: int, most: int) -> None:
    tool = adding.with_(max_chars=most)
    text = tool._cut("x" * length)
    assert len(text) <= most
    assert text == "x" * length if length <= most else most < 40 or text.endswith(f"[cut off: {length} characters]")


# ---------------------------------------------------------------- approval


@simulated
async def test_a_person_is_asked_and_sees_the_arguments() -> None:
    tool = Tool(add, approve=True)
    handle = tool.start(1, b=2)
    async for event in handle:
        if isinstance(event, Asked):
            assert event.question.prompt == "Run add(a=1, b=2)?"
            handle.answer("yes")
    assert await handle == 3


@simulated
async def test_what_a_person_refuses_does_not_run() -> None:
    ran = []

    @module
    async def wipe(path: str) -> str:
        """Wipe."""
        ran.append(path)
        return path

    tool = Tool(wipe, approve=True)
    with answers(lambda question: False), capture() as trace:
        result = await tool.use({"path": "/"})
        with refused(ApprovalRefused, "wipe was not run: a person refused it") as caught:
            await tool(path="/")
    assert result.text == "error: ApprovalRefused: wipe was not run: a person refused it"
    assert caught.value.tool == "wipe"
    assert isinstance(caught.value, PermissionError)
    assert [run.attributes["mai.tool.approval"] for run in trace.runs] == ["refused", "refused"]
    assert ran == []


@simulated
async def test_whether_a_person_is_asked_may_depend_on_the_arguments() -> None:
    asked = []

    def is_large(arguments: Mapping[str, Any]) -> bool:
        return bool(arguments["a"] > 10)

    async def is_large_too(arguments: Mapping[str, Any]) -> bool:
        return is_large(arguments)

    for approve in (is_large, is_large_too):
        tool = Tool(add, approve=approve)
        with answers(lambda question: asked.append(question.prompt) or True), capture() as trace:
            assert [await tool(1), await tool(a=11)] == [2, 12]
        assert [run.attributes["mai.tool.approval"] for run in trace.runs] == ["not needed", "given"]
    assert asked == ["Run add(a=11, b=1)?"] * 2


@simulated
async def test_a_predicate_that_fails_lets_nothing_run() -> None:
    with answers(lambda question: True):
        result = await Tool(add, approve=lambda arguments: arguments["gone"]).use({"a": 1})
    assert isinstance(result.error, KeyError)


@simulated
async def test_with_nobody_to_ask_the_error_is_never_data() -> None:
    with pytest.raises(AskError, match="nobody can answer"):
        await Tool(add, approve=True).use({"a": 1})


@simulated
async def test_a_person_is_shown_what_a_terminal_would_act_upon_escaped_and_how_much_there_is() -> None:
    shown = []

    @module
    async def write(text: str) -> str:
        """Write."""
        return text

    def agree(question: Any) -> bool:
        shown.append(question.prompt)
        return True

    tool = Tool(write, approve=True, redact=Redactor("sk-1234"))
    with answers(agree):
        await tool(text="\x1b[2J\u202e" + "x" * 3000 + "sk-1234")
        await tool(text="with sk-1234")
    assert shown[0].startswith("Run write(text='\\x1b[2J\\u202exxx")
    assert "… (30" in shown[0]
    assert shown[1] == "Run write(text='with [redacted]')?"


@simulated
async def test_a_secret_reaches_the_model_neither_in_values_nor_in_errors() -> None:
    @module
    async def leak(text: str) -> list[str]:
        """Leak."""
        if text:
            raise ValueError(f"bad key sk-1234 for {text}")
        return ["sk-1234"]

    tool = Tool(leak, redact=Redactor("sk-1234"))
    assert (await tool.use({"text": "x"})).text == "error: ValueError: bad key [redacted] for x"
    assert (await tool.use({"text": ""})).text == '["[redacted]"]'


# ---------------------------------------------------------------- traces


@simulated
async def test_its_span_says_which_tool_and_which_call() -> None:
    with recorded_spans() as spans:
        await adding.use({"a": 1}, call_id="call_7")
        await adding(1)
    tools = [span for span in spans.get_finished_spans() if (span.attributes or {}).get("mai.kind") == "tool"]
    assert [span.name for span in tools] == ["execute_tool add", "execute_tool add"]
    facts = dict(tools[0].attributes or {})
    assert facts["gen_ai.operation.name"] == "execute_tool"
    assert facts["gen_ai.tool.name"] == "add"
    assert facts["gen_ai.tool.type"] == "function"
    assert facts["openinference.span.kind"] == "TOOL"
    assert facts["gen_ai.tool.call.id"] == "call_7"
    assert "gen_ai.tool.call.id" not in dict(tools[1].attributes or {})


@simulated
@pytest.mark.parametrize("wrong", ["{", "[1]", '"a"', "{'a': 1}"])
async def test_a_call_with_arguments_that_are_none_is_a_failed_span_of_the_tool(wrong: str) -> None:
    with recorded_spans() as spans, capture() as trace:
        assert isinstance((await adding.use(wrong, call_id="call_7")).error, ArgumentsRefused)
        assert (await adding.use('{"a": 1}')).ok
    failed = trace.runs[0]
    assert (failed.name, failed.kind, failed.outcome, failed.children) == ("add", "tool", "error", ())
    span = next(span for span in spans.get_finished_spans() if span.name == "execute_tool add")
    facts = dict(span.attributes or {})
    assert (span.status.status_code, facts["error.type"]) == (StatusCode.ERROR, "ArgumentsRefused")
    assert (facts["gen_ai.tool.name"], facts["gen_ai.tool.call.id"]) == ("add", "call_7")
    assert facts["openinference.span.kind"] == "TOOL"


@simulated
async def test_the_id_of_a_call_is_not_that_of_a_tool_inside() -> None:
    inner = Tool(add)

    @module
    async def outer(a: int) -> int:
        """Call another."""
        return int((await inner.use({"a": a})).value)

    with capture() as trace:
        await Tool(outer).use({"a": 1}, call_id="call_1")
    assert [h.attributes.get("gen_ai.tool.call.id") for h in trace.runs[0].find(kind="tool")] == ["call_1", None]


def test_its_plan_shows_the_module_inside() -> None:
    assert [(node.id, node.kind) for node in adding.plan().nodes] == [("add", "tool"), ("add/add", "module")]


@simulated
async def test_a_timeout_of_its_own_is_told_to_the_model() -> None:
    @module(timeout=1.0)
    async def slow(x: int) -> int:
        """Be slow."""
        await asyncio.sleep(60)
        return x

    assert isinstance((await Tool(slow).use({"x": 1})).error, DeadlineExceeded)

    @module(timeout=1.0)
    async def around(x: int) -> int:
        await Tool(slow.with_(timeout=None)).use({"x": x})
        raise AssertionError("the deadline of the call around is nothing that a model is told")

    with pytest.raises(DeadlineExceeded):
        await around(1)


# ---------------------------------------------------------------- making one


def test_what_cannot_be_a_tool_is_refused() -> None:
    with refused(ConfigError, "Tool 'upper' has no description; write a docstring, or give description="):
        Tool(module(lambda text: text), name="upper")
    with pytest.raises(ConfigError, match="'<lambda>' is no name for a tool"):
        Tool(lambda text: text)
    with pytest.raises(ConfigError, match="'a b' is no name"):
        Tool(add, name="a b")
    with pytest.raises(WiringError):
        Tool(3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="neither a bool nor a function"):
        Tool(add, approve="yes")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="'return' or 'raise'"):
        Tool(add, on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="max_chars=0"):
        Tool(add, max_chars=0)


def test_a_type_that_no_model_can_write_is_refused() -> None:
    def open_(path: object, stream: memoryview) -> str:
        """Open it."""
        return ""

    with pytest.raises(ConfigError, match="Tool 'open_': a model can write no argument"):
        Tool(open_)


def test_an_unknown_type_is_refused() -> None:
    def odd(x: "Gone") -> str:  # type: ignore[name-defined]  # noqa: F821
        """Be odd."""
        return ""

    with pytest.raises(ConfigError, match="names an unknown type"):
        Tool(odd)


def test_as_tools_takes_all_that_can_be_one() -> None:
    assert [tool.name for tool in as_tools(adding, [Weather(), (fail,)])] == ["add", "Weather", "fail"]
    with refused(ConfigError, "two tools are called 'add'; give one of them another name with name="):
        as_tools(adding, add)


@pytest.mark.parametrize("kind", [ToolError, ArgumentsRefused, ApprovalRefused, AccessRefused, ServerGone, ToolChanged])
def test_errors_can_be_pickled(kind: type[ToolError]) -> None:
    error = pickle.loads(pickle.dumps(kind("no", tool="x")))
    assert (type(error), str(error), error.tool) == (kind, "no", "x")
    assert error.retryable is (kind in (ToolError, ServerGone))
