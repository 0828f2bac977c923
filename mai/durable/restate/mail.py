"""Signals on their way into a run: for each name a row of promises, of which each signal keeps the first one open."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from mai.durable.restate.turns import Turns
from mai.values.casts import written

__all__ = ["Mail", "letter", "opened", "promise_of"]


def promise_of(name: str, number: int) -> str:
    """Return the name of the promise for the signal *name* that comes as the *number*-th one, from 0."""
    return f"signal/{name}/{number}"


def letter(value: Any, key: str | None) -> bytes:
    """Return a signal as it is kept."""
    return written({"id": key, "value": value}).encode()


def opened(data: bytes) -> tuple[bytes, str | None]:
    """Return the JSON of what a signal carries, and the id that it came with."""
    facts = json.loads(data)
    return written(facts["value"]).encode(), facts["id"]


class _Asked(NamedTuple):
    """Somebody who waits for a signal; *fits*, if there is one, says whether it will do."""

    future: "asyncio.Future[bytes]"
    fits: Callable[[bytes], bool] | None


class Mail:
    """The signals of one run: each goes to the first one that waits for its name, in the order of the journal."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._asked: dict[str, deque[_Asked]] = {}
        self._kept: dict[str, deque[bytes]] = {}  # those that came when nobody waited any more
        self._counts: dict[str, int] = {}
        self._open: set[str] = set()  # names whose next promise is waited for

    def ask(self, name: str, fits: Callable[[bytes], bool] | None) -> "asyncio.Future[bytes]":
        """Return what will have the next signal *name*; one that does not fit is passed over."""
        future: asyncio.Future[bytes] = self._turns.loop.create_future()
        self._asked.setdefault(name, deque()).append(_Asked(future, fits))
        kept = self._kept.get(name, deque())
        while kept and not future.done():
            self._give(name, kept.popleft())
        self._look(name)
        return future

    def _look(self, name: str) -> None:
        """Wait for the next promise if somebody wants it."""
        if name in self._open or all(one.future.done() for one in self._asked[name]):
            return
        number = self._counts.get(name, 0)
        promise = self._turns.expect(lambda: self._turns.commands.promise(promise_of(name, number)))
        self._open.add(name)
        promise.add_done_callback(lambda done: self._came(name, done))

    def _came(self, name: str, done: "asyncio.Future[bytes]") -> None:
        if (error := done.exception()) is not None:  # the run does not go on
            for one in self._asked[name]:
                if not one.future.done():
                    one.future.set_exception(error)
                    one.future.exception()
            return
        self._open.discard(name)
        self._counts[name] = self._counts.get(name, 0) + 1
        self._give(name, opened(done.result())[0])
        self._look(name)

    def _give(self, name: str, data: bytes) -> None:
        asked = self._asked[name]
        while asked and asked[0].future.done():  # who waited no longer
            asked.popleft()
        if not asked:
            self._kept.setdefault(name, deque()).append(data)
        elif asked[0].fits is None or asked[0].fits(data):
            asked.popleft().future.set_result(data)
