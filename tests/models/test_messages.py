from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mai import Payload
from mai.models import Image, Message, Text, Thinking, ToolCall, ToolDefinition, ToolReturn

texts = st.text(max_size=20).filter(lambda text: text.isprintable())
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
details = st.none() | st.dictionaries(names, texts | st.integers() | st.none(), max_size=2)
parts = st.one_of(
    st.builds(Text, text=texts, details=details),
    st.builds(Image, data=st.binary(min_size=1, max_size=20)),
    st.builds(Image, url=names.map("https://example.com/{}".format)),
    st.builds(Thinking, text=texts, details=details),
    st.builds(ToolCall, id=names, name=names, arguments=texts, details=details),
    st.builds(ToolReturn, id=names, name=names, content=texts, is_error=st.booleans()),
)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    parts=st.lists(parts, max_size=4).map(tuple),
)


@given(st.lists(messages, max_size=3))
def test_a_conversation_comes_back_from_json_as_it_was(said: list[Message]) -> None:
    assert Payload.load(list[Message], Payload.of(said, list[Message]).json()).value == said
    assert [Message.model_validate_json(message.model_dump_json()) for message in said] == said


def test_a_message_has_the_text_and_the_tool_calls_of_its_parts() -> None:
    call = ToolCall.of("search", query="cats")
    message = Message.assistant(Thinking(text="hm"), "one ", call, "two")
    assert (message.role, message.text, message.tool_calls) == ("assistant", "one two", (call,))
    assert (call.id, call.name, call.arguments) == ("search", "search", '{"query": "cats"}')
    assert ToolCall.of("search", id="c1").id == "c1"


def test_each_role_has_its_own_way_to_be_made() -> None:
    returned = ToolReturn(id="c1", name="search", content="none", is_error=True)
    made = Message.system("be brief"), Message.user("hi", Image(data=b"\xff")), Message.tool(returned)
    assert [message.role for message in made] == ["system", "user", "tool"]
    assert made[2].parts == (returned,)


@pytest.mark.parametrize("given", [{}, {"url": "https://example.com/a.png", "data": b"x"}])
def test_an_image_is_given_by_its_address_or_its_bytes(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either its url or its data"):
        Image(**given)


def test_what_is_said_cannot_be_changed_or_misspelt() -> None:
    message = Message.user("hi")
    with pytest.raises(ValidationError, match="frozen"):
        message.role = "tool"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="rolle"):
        Message(role="user", parts=(), rolle="user")  # type: ignore[call-arg]


def test_bytes_and_what_vendors_want_back_stay_out_of_reprs() -> None:
    assert "b'" not in repr(Image(data=b"secret"))
    assert "seal" not in repr(Thinking(text="hm", details={"signature": "seal"}))


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    assert ToolDefinition(name="now").parameters == {"type": "object", "properties": {}}
