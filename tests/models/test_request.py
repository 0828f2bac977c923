from hypothesis import given
from hypothesis import strategies as st

from mai import Payload
from mai.models import Image, Message, Reply, Request, Thinking, ToolCall, ToolDefinition, ToolReturn, Usage
from tests.models.test_messages import messages

counts = st.integers(0, 10**9)
usages = st.builds(
    Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, cache_write_tokens=counts,
    approximate=st.booleans(),
)  # fmt: skip


@given(messages, usages, st.sampled_from(["stop", "length", "refused"]), st.none() | st.floats(0, 10))
def test_a_reply_comes_back_from_json_as_it_was(message: Message, usage: Usage, finish: str, usd: float | None) -> None:
    reply = Reply(message=message, usage=usage, finish=finish, cost_usd=usd, data={"a": [1]})  # type: ignore[arg-type]
    assert Payload.load(Reply, Payload.of(reply, Reply).json()).value == reply


@given(st.lists(messages, max_size=3), st.floats(0, 2) | st.none())
def test_a_request_comes_back_from_json_as_it_was(said: list[Message], temperature: float | None) -> None:
    tool = ToolDefinition(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
    request = Request(messages=tuple(said), tools=(tool,), temperature=temperature, output={"type": "object"})
    assert Payload.load(Request, Payload.of(request, Request).json()).value == request


@given(usages, usages, usages)
def test_the_sum_of_usages_does_not_depend_on_the_order(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c) == c + b + a
    assert (a + b).total_tokens == a.total_tokens + b.total_tokens
    assert a + Usage() == a


@given(messages, messages)
def test_the_estimate_grows_with_what_is_said(one: Message, other: Message) -> None:
    alone = Request(messages=(one,))
    both = alone.followed(other)
    assert both.messages == (one, other)
    assert alone.messages == (one,)
    assert both.estimated_tokens >= alone.estimated_tokens >= 0


def test_the_estimate_counts_all_that_the_model_reads() -> None:
    plain = Request(messages=(Message.user("four" * 10),))
    assert plain.estimated_tokens == 10
    more = plain.followed(
        Message.assistant(Thinking(text="x" * 40), ToolCall(id="1", name="ab", arguments="x" * 38)),
        Message.tool(ToolReturn(id="1", name="ab", content="x" * 38)),
        Message.user(Image(data=b"x")),
    )
    assert more.estimated_tokens == 10 + 10 + 10 + 10 + 1000
    tools = plain.model_copy(update={"tools": (ToolDefinition(name="add", description="x" * 400),)})
    assert tools.estimated_tokens > 110
    assert plain.model_copy(update={"output": {"x": "y" * 400}}).estimated_tokens > 110
