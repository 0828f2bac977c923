"""A fresh stack for deep nests: every 64 calls, the body of a call goes on in a task of its own, which is joined.

A call costs some Python frames and some of the C stack, so that a nest of a few hundred would overflow both.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from .drive import Body, start
from .frame import Frame
from .gather import Slot, gather


class _Lone:
    """A work source of one branch: the body of a call."""

    feed = None

    def __init__(self, body: Body) -> None:
        self.body: Body | None = body
        self.error: BaseException | None = None
        self.cancels: Callable[[], int] = int  # how many have come for the task that waits
        self.late: bool = False  # it failed after one had come, and had reached it

    def more(self) -> bool:
        return self.body is not None

    def take(self, slot: Slot | None) -> tuple[int, Frame | None, BaseException | None]:
        body, self.body = self.body, None
        driver = Frame()  # the call's own frame is what the task outside drives
        driver.deadline = driver.timer = driver.handle = driver.out = None
        try:
            return 0, start(driver, body), None  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        except BaseException as error:  # noqa: BLE001 (becomes the outcome of the call)
            return 0, None, error

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        own: Any = asyncio.current_task()
        self.error, self.late = error, self.cancels() > 0 < own.cancelling()
        return error is None


def hopped(body: Body) -> Any:
    """Return a body that runs *body* in a task of its own."""
    return _hop(_Lone(body)).__await__()


async def _hop(work: _Lone) -> None:
    task: Any = asyncio.current_task()
    before = task.cancelling()
    work.cancels = lambda: task.cancelling() - before
    try:
        await gather(work)
    finally:  # a failure wins over a cancel where the body made it of one: a deadline that passed, clean-up
        if work.error is not None and (work.late or not work.cancels()):
            raise work.error
