"""What is said in a conversation: messages and their parts. Frozen, and the same after a round trip through JSON."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, JsonValue, model_validator

Role = Literal["system", "user", "assistant", "tool"]


class _Said(BaseModel, frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"):
    """A frozen value; its bytes are base64 in JSON."""


class Text(_Said, frozen=True):
    """A piece of text.

    Attributes:
        text: The text.
        details: What the vendor wants back with it.
    """

    type: Literal["text"] = "text"
    text: str
    details: dict[str, JsonValue] | None = Field(default=None, repr=False)


class Image(_Said, frozen=True):
    """An image, by its address or by its bytes.

    Attributes:
        url: Where the vendor finds it; ``""`` where there are bytes.
        data: The bytes.
        media_type: What they are, such as ``"image/png"``.

    Raises:
        ValueError: Unless exactly one of *url* and *data* is given.

    Example:
        >>> from mai.models import Image, Message
        >>> Message.user("What is this?", Image(url="https://example.com/cat.png")).parts[1].url
        'https://example.com/cat.png'
    """

    type: Literal["image"] = "image"
    url: str = ""
    data: bytes = Field(default=b"", repr=False)
    media_type: str = "image/png"

    @model_validator(mode="after")
    def _one_of_both(self) -> "Image":
        if bool(self.url) == bool(self.data):
            raise ValueError("give an image either its url or its data (bytes that are not empty)")
        return self


class Thinking(_Said, frozen=True):
    """What a model thought before it answered; sent back to the same vendor, which may need it.

    Attributes:
        text: The thoughts, as far as they are shown.
        details: What the vendor wants back with them, such as its seal.
    """

    type: Literal["thinking"] = "thinking"
    text: str = ""
    details: dict[str, JsonValue] | None = Field(default=None, repr=False)


class ToolCall(_Said, frozen=True):
    """A model wants a tool to be called.

    Attributes:
        id: By which the answer names this call.
        name: The tool.
        arguments: Its arguments, as the JSON text that the model wrote; it need not be valid.
        details: What the vendor wants back with it.
    """

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str = "{}"
    details: dict[str, JsonValue] | None = Field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, /, *, id: str = "", **arguments: JsonValue) -> "ToolCall":  # noqa: A002 (as the field)
        """Return a call of the tool *name* with its arguments written as JSON; its id is the name unless given."""
        return cls(id=id or name, name=name, arguments=json.dumps(arguments))


class ToolReturn(_Said, frozen=True):
    """What came of a tool call, for the model to read.

    Attributes:
        id: The id of the call.
        name: The tool.
        content: The text.
        is_error: Whether it says what went wrong.
    """

    type: Literal["tool_return"] = "tool_return"
    id: str
    name: str
    content: str
    is_error: bool = False


Part: TypeAlias = Annotated[Text | Image | Thinking | ToolCall | ToolReturn, Field(discriminator="type")]


class Message(_Said, frozen=True):
    """One message of a conversation.

    Attributes:
        role: Who speaks: ``"system"``, ``"user"``, ``"assistant"`` (the model) or ``"tool"``.
        parts: What is said, in order.

    Example:
        >>> from mai.models import Message
        >>> message = Message.user("hello")
        >>> message.role, message.text
        ('user', 'hello')
        >>> Message.model_validate_json(message.model_dump_json()) == message
        True
    """

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @classmethod
    def system(cls, text: str) -> "Message":
        """Return what the model is told before the conversation."""
        return cls(role="system", parts=(Text(text=text),))

    @classmethod
    def user(cls, *parts: "str | Text | Image") -> "Message":
        """Return what a person says; a str is a text part."""
        return cls(role="user", parts=_parts(parts))

    @classmethod
    def assistant(cls, *parts: "str | Text | Thinking | ToolCall") -> "Message":
        """Return what a model said."""
        return cls(role="assistant", parts=_parts(parts))

    @classmethod
    def tool(cls, *returns: ToolReturn) -> "Message":
        """Return what tools gave."""
        return cls(role="tool", parts=returns)


def _parts(given: Iterable["str | Part"]) -> tuple[Part, ...]:
    return tuple(Text(text=part) if isinstance(part, str) else part for part in given)


class ToolDefinition(_Said, frozen=True):
    """What a model is told of a tool that it may call.

    Attributes:
        name: Its name.
        description: What it does, and when to use it.
        parameters: The JSON schema of its arguments, an object's.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
