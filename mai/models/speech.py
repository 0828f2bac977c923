"""What a model says while it says it: its text as chunks of the started run around."""

from functools import partial

from mai.core.events import _is_nested, post
from mai.core.frame import Frame
from mai.values.events import Chunk


def is_heard(frame: Frame) -> bool:
    """Say whether there is a started run around, whose readers can get chunks."""
    return frame.env.bus is not None


class Speech:
    """The text of one answer, piece by piece; like a generator's, its pieces wait for the readers that are there."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._count = 0
        self._nested = _is_nested(frame)

    async def say(self, text: str) -> None:
        """Tell the readers *text*."""
        bus = self._frame.env.bus
        if bus is not None:
            number = post(Chunk, text, self._count, self._nested, frame=self._frame)
            self._count += 1
            await bus.read.heard(partial(bus.has_room, number))
