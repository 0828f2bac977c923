"""A request to a model, and its reply with what it used and cost."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, JsonValue

from .messages import Image, Message, Text, Thinking, ToolCall, ToolDefinition, _Said

Finish = Literal["stop", "tool_calls", "length", "filtered", "refused", "error"]
Effort = Literal["minimal", "low", "medium", "high"]
_IMAGE_TOKENS = 1000
_CHARACTERS = 4  # of English text in one token, as vendors say


class Request(_Said, frozen=True):
    """All that a model is asked at once. `Model.request` makes one of a prompt and the model's settings.

    Attributes:
        messages: The conversation so far.
        tools: What the model may call.
        tool_choice: ``"auto"``: as it likes; ``"none"``: no tool; ``"required"``: some tool; else the name of one.
        parallel_tool_calls: Whether it may call several tools at once; None: as the vendor does.
        output: The JSON schema that the text of the reply is to fit, None for free text.
        output_name: What that schema is called.
        temperature: How much chance there is in the answer, from 0; None: as the vendor does.
        top_p: The share of likely words to choose from, above 0, at most 1; None: as the vendor does.
        max_tokens: Longest answer [tokens]; None: as the vendor does.
        stop: Texts that end the answer.
        seed: For vendors that can repeat an answer.
        thinking: How much the model is to think first; None: as the vendor does.
        extra: Further fields of the request's body, as the vendor names them.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool | None = None
    output: Mapping[str, Any] | None = None
    output_name: str = "answer"
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: Effort | None = None
    extra: Mapping[str, JsonValue] = {}

    def followed(self, *messages: Message) -> "Request":
        """Return the request with further messages at its end."""
        return self.model_copy(update={"messages": (*self.messages, *messages)})

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens the request has: a quarter of its characters, and 1,000 for each image.

        No vendor's tables are needed for it; what a call really used is in `Reply.usage`.
        """
        tools = [json.dumps([tool.name, tool.description, tool.parameters]) for tool in self.tools]
        schema = "" if self.output is None else json.dumps(self.output)
        return estimated([part for message in self.messages for part in message.parts], [*tools, schema])


def estimated(parts: Iterable[Any], texts: Iterable[str] = ()) -> int:
    """Return about how many tokens *parts* of messages and further *texts* have."""
    characters, images = sum(map(len, texts)), 0
    for part in parts:
        if isinstance(part, Image):
            images += 1
        elif isinstance(part, Text | Thinking):
            characters += len(part.text)
        else:
            characters += len(part.name) + len(part.arguments if isinstance(part, ToolCall) else part.content)
    return -(-characters // _CHARACTERS) + images * _IMAGE_TOKENS


Prompt: TypeAlias = str | Message | list[Message] | tuple[Message, ...] | Request


class Usage(_Said, frozen=True):
    """The tokens that a call used, as the vendor counts them.

    Attributes:
        input_tokens: What the model read, all in all.
        output_tokens: What it wrote, thoughts included.
        cache_read_tokens: Those of the input that came from the vendor's cache.
        cache_write_tokens: Those of the input that went into it.
        approximate: Whether mai had to estimate them.

    Example:
        >>> from mai.models import Usage
        >>> (Usage(input_tokens=10, output_tokens=5) + Usage(input_tokens=1)).total_tokens
        16
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    approximate: bool = False

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            approximate=self.approximate or other.approximate,
        )


class Reply(_Said, frozen=True):
    """What a model answered.

    Attributes:
        message: The answer, as the next message of the conversation.
        finish: How it ended: ``"stop"`` (the model was done), ``"tool_calls"`` (it wants tools), ``"length"`` (cut off
            by ``max_tokens`` or the context), ``"filtered"`` (withheld by the vendor), ``"refused"`` (the model
            declined), ``"error"``.
        usage: The tokens.
        cost_usd: What the call cost; None where the price is not known.
        model: What the vendor calls the model that answered.
        provider: The vendor.
        id: What the vendor calls the answer.
        data: The JSON value of the text, where the request had a schema and the text is JSON.

    Example:
        >>> from mai.models import Message, Reply
        >>> Reply(message=Message.assistant("four")).text
        'four'
    """

    message: Message
    finish: Finish = "stop"
    usage: Usage = Usage()
    cost_usd: float | None = None
    model: str = ""
    provider: str = ""
    id: str | None = None
    data: JsonValue = None

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.message.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model wants to be called, in order."""
        return self.message.tool_calls
