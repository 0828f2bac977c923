"""What the reviewer, its model and its tools say to each other, and how a model says that it cannot go on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class ToolCall(_Value):
    """A model's wish to use a tool.

    Attributes:
        id: What the answer is known by.
        name: The tool.
        arguments: Its arguments as JSON, as the model wrote it: it may be wrong.
    """

    id: str
    name: str
    arguments: str


class Message(_Value):
    """One message of the conversation.

    Attributes:
        role: Who speaks.
        content: What is said.
        tool_calls: The tools that the assistant wants to use.
        tool_call_id: In a tool's message, the call that it answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class Reply(_Value):
    """What a model answers: tools to use, or else its last word."""

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolSpec(_Value):
    """What a model is told of a tool: its name, what it is for, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, JsonValue]


class Verdict(_Value):
    """What the reviewer thinks of a function.

    Attributes:
        severity: How soon something should be done about it.
        reason: What makes it risky.
        advice: What to do.
    """

    severity: Literal["low", "medium", "high"]
    reason: str = Field(max_length=2_000)
    advice: str = Field(max_length=2_000)


class Source(_Value):
    """The text of a function, as `read_source` gives it.

    Attributes:
        path: Its file.
        first: The line that *text* starts with.
        text: The lines; not all of them if *complete* is false.
        complete: Whether it is the whole function.
    """

    path: str
    first: int
    text: str
    complete: bool = True


class Caller(_Value):
    """A call: on *line* of *path*, in *function* (empty at the top of a module)."""

    path: str
    line: int
    function: str


class Callers(_Value):
    """Where a name is called, as `find_callers` gives it.

    Attributes:
        name: The name that was looked for. Calls are found by name alone: another function of that name has the same
            callers.
        total: How many calls there are.
        files: In how many files.
        places: The first of them.
    """

    name: str
    total: int
    files: int
    places: tuple[Caller, ...]


class ModelError(Exception):
    """A model gave no answer that can be used; the message says why."""


class Unusable(ModelError):
    """The model answered, but not what it was asked for; another question may go better."""


class Unavailable(ModelError):
    """The model cannot be asked at all: more questions would go the same way."""


class Throttled(Unavailable):
    """The model wants to be asked later.

    Args:
        message: What it said.
        retry_after: The time that it wants to be left alone [s].
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])
