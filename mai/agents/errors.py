"""What goes wrong with an agent beside its model and its tools."""

from collections.abc import Sequence

from mai.errors import MaiError
from mai.models import Message


class TurnsExhausted(MaiError, RuntimeError):
    """An agent made all its turns and has no answer.

    Attributes:
        turns: How many it made.
        messages: What was said, so that nothing is lost: they can be the history of another call. Empty where the error
            comes out of a durable run, whose journal has it all.
    """

    messages: tuple[Message, ...] = ()

    def __init__(self, message: str, *, turns: int = 0, messages: Sequence[Message] = ()) -> None:
        super().__init__(message)
        self.turns: int = turns
        self.messages = tuple(messages)
