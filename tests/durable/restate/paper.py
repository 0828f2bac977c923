"""A journal on paper that is read by position, as a Restate server has one, in simulated time and without a server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mai import LocalEngine
from mai.core.clock import clock
from mai.durable.code import Codes
from mai.durable.failures import Failures
from mai.durable.restate.body import Busy
from mai.durable.restate.carry import Carried, Ended
from mai.durable.restate.mail import Asked
from mai.durable.restate.turns import Cancelled, Commands, Mismatch

__all__ = ["Crash", "Paper", "PaperEngine", "attempted", "carried"]

CANCEL = -1  # in the place of a command, in the order of completions


class Crash(Exception):
    """The process is gone."""


class Paper:
    """What is kept of one run.

    Attributes:
        commands: What was asked for, in order: kind and name.
        done: What was completed, in order: the place of the command, and what came of it.
        sent: Promises that somebody kept.
        facts: The state that others see.
        attempts: How often it was carried on.
    """

    def __init__(self) -> None:
        self.commands: list[tuple[str, str]] = []
        self.done: list[tuple[int, bytes]] = []
        self.dues: dict[int, float] = {}
        self.sent: dict[str, bytes] = {}
        self.facts: dict[str, bytes] = {}
        self.attempts = 0
        self.changed = asyncio.Event()

    def complete(self, place: int, data: bytes) -> None:
        """Note that a command is complete."""
        if place == CANCEL or all(place != known for known, _ in self.done):
            self.done.append((place, data))
            self.changed.set()

    def send(self, name: str, data: bytes) -> None:
        """Keep a promise."""
        self.sent[name] = data
        for place, (kind, of) in enumerate(self.commands):
            if (kind, of) == ("promise", name):
                self.complete(place, data)

    def cancel(self) -> None:
        """Let the run be cancelled."""
        self.complete(CANCEL, b"")


class PaperCommands(Commands):
    """One attempt; it breaks down when *lasts* completions more have come."""

    def __init__(self, paper: Paper, lasts: int | None) -> None:
        self.paper = paper
        self.lasts = None if lasts is None else len(paper.done) + lasts
        self.place = self.read = 0
        self.loop = asyncio.get_running_loop()
        self.ready: dict[int, bytes] = {}
        self.actions: dict[int, Callable[[], Awaitable[bytes]]] = {}
        self.tasks = set[asyncio.Task[None]]()
        paper.attempts += 1

    def _give(self, kind: str, name: str) -> int:
        known, place = self.paper.commands, self.place
        if place == len(known):
            known.append((kind, name))
        if known[place] != (kind, name):
            raise Mismatch(f"(570) at {place}\n   name: {known[place][1]} != {name}\n")
        self.place += 1
        return place

    def run(self, name: str, action: Callable[[], Awaitable[bytes]]) -> int:
        place = self._give("run", name)
        if all(place != known for known, _ in self.paper.done):
            self.actions[place] = action
        return place

    def sleep(self, name: str, seconds: float) -> int:
        place = self._give("sleep", name)
        due = self.paper.dues.setdefault(place, clock.wall() + seconds)
        self._start(self._slept(place, due))
        return place

    def promise(self, name: str) -> int:
        place = self._give("promise", name)
        if name in self.paper.sent:
            self.paper.complete(place, self.paper.sent[name])
        return place

    def set(self, key: str, data: bytes) -> None:
        self._give("set", key)
        self.paper.facts[key] = data

    def is_replaying(self) -> bool:
        return self.place < len(self.paper.commands)

    async def wait(self, durables: Sequence[int]) -> list[tuple[int, bytes]]:
        while True:
            found = [(one, self.ready.pop(one)) for one in durables if one in self.ready]
            if found:
                return found
            if self.read < len(self.paper.done):
                place, data = self.paper.done[self.read]
                self.read += 1
                if place == CANCEL:
                    raise Cancelled
                self.ready[place] = data
                continue
            if self.lasts is not None and len(self.paper.done) >= self.lasts:
                raise Crash
            for place in [one for one in durables if one in self.actions]:
                self._start(self._ran(place, self.actions.pop(place)))
            self.paper.changed.clear()
            await self.paper.changed.wait()

    def _start(self, work: Any) -> None:
        self.tasks.add(self.loop.create_task(work))  # not on the loop of the flow, in which a command is given

    async def _ran(self, place: int, action: Callable[[], Awaitable[bytes]]) -> None:
        self.paper.complete(place, await action())

    async def _slept(self, place: int, due: float) -> None:
        await asyncio.sleep(max(0.0, due - clock.wall()))
        self.paper.complete(place, b"")

    async def close(self) -> None:
        """Let the process be gone."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


class PaperEngine(LocalEngine):
    """What a run needs of its engine."""

    def __init__(self, auth: Any = None) -> None:
        super().__init__()
        self.failures, self.busy, self.asked, self.auth = Failures(), Busy(), Asked(), auth


async def attempted(
    engine: PaperEngine, m: Any, x: Any, paper: Paper, lasts: int | None = None, **headers: str
) -> Ended:
    """Carry a run on once; raise Crash where it breaks down."""
    m._mai_spec or m._mai_compile()
    signature = m._mai_spec.signature
    data = signature.dump(*signature.bind((x,), {}, {}, None))
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    commands = PaperCommands(paper, lasts)
    try:
        return await Carried(engine, Codes().add(m), "one", data, named).out(commands)  # type: ignore[arg-type]
    finally:
        await commands.close()


async def carried(
    engine: PaperEngine, m: Any, x: Any, paper: Paper, lasts: Callable[[], int | None], **headers: str
) -> Ended:
    """Carry a run on as often as it takes."""
    for _ in range(1000):
        try:
            return await attempted(engine, m, x, paper, lasts(), **headers)
        except Crash:
            pass
    raise AssertionError("the run does not get on")
