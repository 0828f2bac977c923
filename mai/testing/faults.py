"""Faults at named places: what a test does to a program where `point` is written in it.

The kernel has such places too: ``thread.start``, before a thread is started, and ``thread.job``, in a worker thread
before a plain step begins.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Self

from ..core.events import Bell
from ..core.points import points
from ..errors import ConfigError
from .clocks import exchanged
from .errors import Crash

_Wait = tuple["float | None", Callable[[], bool], Bell]  # at most how long, until when, and what tells of it


class _Pause:
    """What `point` gives: awaited, it waits as long as the faults say."""

    def __init__(self, waits: "list[_Wait]") -> None:
        self.waits: list[_Wait] = waits

    def __await__(self) -> Generator[Any, Any, None]:
        for seconds, ready, bell in self.waits:
            yield from _heard(seconds, ready, bell).__await__()


async def _heard(seconds: float | None, ready: Callable[[], bool], bell: Bell) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
    else:
        await bell.heard(ready)


def point(name: str) -> _Pause:
    """Mark a place in a program, at which a test can put faults; without a test it does nothing.

    In a coroutine write ``await point("charged")``, in a plain function ``point("charged")``.

    Args:
        name: Of the place; several places may share one.

    Example:
        >>> from mai import module
        >>> from mai.testing import Faults, point
        >>> @module
        ... async def charge(amount: int) -> int:
        ...     await point("charged")
        ...     return amount
        >>> await charge(5)
        5
        >>> with Faults() as faults:
        ...     faults.fail("charged", ConnectionError("hung up"))
        ...     try:
        ...         await charge(5)
        ...     except ConnectionError as error:
        ...         print(error)
        hung up
    """
    waits: Any = points.reach(name)
    return _Pause(waits or [])


@dataclass(eq=False)
class Block:
    """What holds whoever reaches a place, until it is released.

    Attributes:
        waiting: How many have come there.
    """

    waiting: int = 0
    released: bool = False
    _bell: Bell = field(default_factory=Bell, repr=False)

    def release(self) -> None:
        """Let all go on; from any thread. Who comes later does not wait."""
        self.released = True
        self._bell.ring()


@dataclass(frozen=True, slots=True)
class _Fault:
    at: int
    times: int | None
    act: Callable[[], "_Wait | None"]


class Faults:
    """Puts faults at named places of the program, in this process, until the block ends.

    ``at`` says which arrival at the place is the first one to be met, from 1; ``times`` how many are, None: all from
    then on. In `explore` make it inside the program, so that each run counts anew.

    Attributes:
        reached: How often each place was reached.

    Example:
        >>> from mai import Retry, module
        >>> from mai.testing import Faults, point
        >>> @module(retry=Retry(3, base=0.001))
        ... def save(text: str) -> int:
        ...     point("save")
        ...     return len(text)
        >>> with Faults() as faults:
        ...     faults.fail("save", OSError("disk full"), times=2)
        ...     save.run("hello"), faults.reached["save"]
        (5, 3)
    """

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self._faults: dict[str, list[_Fault]] = {}
        self._blocks: list[Any] = []
        self._before: list[Callable[[str], object]] = []  # what was there, and goes on

    def fail(
        self, name: str, error: BaseException | type[BaseException], *, at: int = 1, times: int | None = 1
    ) -> None:
        """Raise *error* there."""

        def act() -> None:
            raise error

        self._put(name, at, times, act)

    def delay(self, name: str, seconds: float, *, at: int = 1, times: int | None = 1) -> None:
        """Let whoever comes there wait so many seconds."""
        never: _Wait = seconds, bool, Bell()
        self._put(name, at, times, lambda: never)

    def block(self, name: str, *, at: int = 1, times: int | None = 1) -> Block:
        """Let whoever comes there wait until the Block that this returns is released."""
        block = Block()

        def act() -> _Wait:
            block.waiting += 1
            return None, lambda: block.released, block._bell

        self._put(name, at, times, act)
        return block

    def kill(self, name: str, *, at: int = 1, process: bool = False) -> None:
        """Die there, with the BaseException `Crash`; with *process* for real, by SIGKILL."""

        def act() -> None:
            if process:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Crash(f"the process died at {name!r}")

        self._put(name, at, 1, act)

    def _put(self, name: str, at: int, times: int | None, act: "Callable[[], _Wait | None]") -> None:
        for key, value in (("at", at), ("times", 1 if times is None else times)):
            if value < 1:
                raise ConfigError(f"Faults: {key}={value!r} for {name!r} is less than 1, the first time")
        self._faults.setdefault(name, []).append(_Fault(at, times, act))

    def _reach(self, name: str) -> "list[_Wait]":
        self.reached[name] += 1
        count = self.reached[name]
        if self._before:
            self._before[-1](name)
        due = [f for f in self._faults.get(name, ()) if f.at <= count and (f.times is None or count < f.at + f.times)]
        waits = [wait for fault in due if (wait := fault.act()) is not None]
        if asyncio._get_running_loop() is not None:
            return waits  # for whoever awaits
        for seconds, ready, bell in waits:
            bell.wait(ready, seconds)
        return []

    def __enter__(self) -> Self:
        self._before.append(points.reach)
        self._blocks.append(exchanged(points, reach=self._reach))
        self._blocks[-1].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._blocks.pop().__exit__(None, None, None)
        self._before.pop()
