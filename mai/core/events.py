"""What a started run tells while it goes on: one frozen event for each thing that happens, in order.

Calls under a started run find its `Bus` in their frame's environment and post to it; where there is none, nothing is
made. Posting never waits, and never fails a step.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from .frame import Frame, current

MAX_EVENTS = 1024  # the newest ones are kept, the rest is counted


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a started run.

    Attributes:
        step_id: The path of the step that it happened in.
        attempt: The number of the attempt, from 1.
    """

    step_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt failed and another will follow: drop the chunks of this one.

    Attributes:
        error: The text of the error that ended the attempt.
        delay: The pause before the next attempt [s].
    """

    error: str
    delay: float


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """So much of a `Map` is done.

    Attributes:
        done: How many items have ended.
        total: How many there are, None if the source does not tell.
    """

    done: int
    total: int | None


class Bus:
    """The events of one started run."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.dropped: int = 0

    def post(self, event: Event) -> None:
        """Add *event*; the oldest one makes room."""
        self.dropped += len(self.events) == MAX_EVENTS
        self.events.append(event)


def post(kind: type[Event], *facts: Any, frame: Frame | None = None) -> None:
    """Tell the started run around, if there is one, of an event of the step that runs now (or of *frame*)."""
    f = frame or current()
    if f.env.bus is not None:
        f.env.bus.post(kind(f.path, max(1, -f.n), *facts))
