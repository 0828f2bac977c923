import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import ConfigError, capture
from mai.models import (
    Message,
    Model,
    NoRequests,
    NotScripted,
    Overloaded,
    Prices,
    ReplayModel,
    Reply,
    Request,
    ScriptedModel,
    ToolCall,
    Usage,
    no_requests,
)
from tests.support import refused

CALL = ToolCall.of("search", query="cats")


async def test_each_line_of_a_script_is_an_answer() -> None:
    model = ScriptedModel(
        "text", CALL, [CALL, ToolCall.of("other")], Reply(message=Message.assistant("whole"), finish="length"),
        lambda request: f"you said {request.messages[-1].text}", Overloaded("busy"),
    )  # fmt: skip
    replies = [await model(f"question {n}") for n in range(5)]
    assert [reply.text for reply in replies] == ["text", "", "", "whole", "you said question 4"]
    assert [len(reply.tool_calls) for reply in replies] == [0, 1, 2, 0, 0]
    assert [reply.finish for reply in replies] == ["stop", "tool_calls", "tool_calls", "length", "stop"]
    with refused(Overloaded, "busy"):
        await model("x")
    with refused(NotScripted, "scripted:model: the script has 6 answers, and none to 'y'"):
        await model("y")
    assert len(model.requests) == 7


async def test_copies_share_the_script_and_what_was_asked() -> None:
    model = ScriptedModel("one", "two")
    assert (await model.with_(name="a")("x")).text == "one"
    assert (await model.with_(temperature=0)("y")).text == "two"
    assert [request.temperature for request in model.requests] == [None, 0]


def test_a_script_has_at_least_one_answer() -> None:
    with refused(ConfigError, "ScriptedModel: give at least one answer"):
        ScriptedModel()


async def test_a_scripted_answer_is_free_unless_it_has_a_price() -> None:
    model = ScriptedModel("12345678", repeat=True)
    free = await model("1234")
    assert (free.usage, free.cost_usd) == (Usage(input_tokens=1, output_tokens=2, approximate=True), 0.0)
    paid = await model.with_(prices=Prices(input_usd=1e6, output_usd=1e6))("1234")
    assert paid.cost_usd == 3.0


@given(st.text())
def test_a_stream_of_words_is_the_whole_text(text: str) -> None:
    handle = ScriptedModel(text).start("x")
    assert "".join(handle.chunks()) == handle.result().text == text


def test_no_model_leaves_the_process_inside_no_requests() -> None:
    model = Model("openai:gpt-5")
    with no_requests():
        with pytest.raises(NoRequests, match="openai:gpt-5 would be asked inside"):
            model.run("hi")
        assert ScriptedModel("x").run("hi").text == "x"


async def test_what_was_recorded_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "talk.jsonl"
    source = ScriptedModel("first", "second", "third").with_(prices=Prices(input_usd=1e6, output_usd=0))
    recording = ReplayModel(path, record=source)
    said = [(await recording(prompt)).text for prompt in ("a", "a", "b")]
    assert said == ["first", "second", "third"]
    again = ReplayModel(path)
    with no_requests(), capture() as trace:
        assert [(await again(prompt)).text for prompt in ("b", "a", "a", "a")] == ["third", "first", "second", "second"]
    assert trace.runs[0].attributes["mai.cost.usd"] == 1.0
    assert len(path.read_text().splitlines()) == 3
    extended = ReplayModel(path, record=ScriptedModel("fourth"))
    assert [(await extended(prompt)).text for prompt in ("b", "c")] == ["third", "fourth"]
    assert len(path.read_text().splitlines()) == 4


async def test_another_request_has_no_recorded_answer(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    await ReplayModel(path, record=ScriptedModel("x"))("hello")
    with refused(NotScripted, f"{str(path)!r} has no answer to this request, which ends with 'goodbye'"):
        await ReplayModel(path)("goodbye")
    with pytest.raises(NotScripted):
        await ReplayModel(path).with_(temperature=1)("hello")
    with pytest.raises(NotScripted, match="ends with ''"):
        await ReplayModel(path)(Request(messages=()))


async def test_a_recording_is_of_what_the_recorded_model_is_sent(tmp_path: Path) -> None:
    path, source = tmp_path / "talk.jsonl", ScriptedModel("x").with_(temperature=0)
    await ReplayModel(path, record=source)("hello")
    assert source.requests[0].temperature == 0
    assert (await ReplayModel(path).with_(temperature=0)("hello")).text == "x"


async def test_a_recorded_answer_streams(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    await ReplayModel(path, record=ScriptedModel("one two"))("hello")
    handle = ReplayModel(path).start("hello")
    assert [text async for text in handle.chunks()] == ["one two"]


@pytest.mark.parametrize("line", ["{", "[]", '{"request": "x"}', '{"request": "x", "reply": {}}'])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(line)
    with refused(ConfigError, f"ReplayModel: line 1 of {str(path)!r} is no recorded answer"):
        ReplayModel(path)


async def test_a_recording_can_be_read_by_people(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    await ReplayModel(path, record=ScriptedModel("grüezi"))("hello")
    entry = json.loads(path.read_text(encoding="utf-8"))
    assert entry["reply"]["message"]["parts"][0]["text"] == "grüezi"
    assert "grüezi" in path.read_text(encoding="utf-8")
