"""What an agent tells while it works, as the values of `mai.types.Emitted` events."""

from dataclasses import dataclass

from mai.models import ToolCall, ToolReturn


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model wants a tool, which is called next.

    Attributes:
        turn: The turn of the agent, from 1.
        call: What the model wrote.
    """

    turn: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """A tool has answered, or failed.

    Attributes:
        turn: The turn of the agent, from 1.
        answer: What the model is told.
    """

    turn: int
    answer: ToolReturn
