"""Signals on their way into a run: for each name a row of promises, of which each signal keeps the first one open.

The server has each of them from when it was sent, and hands one after the other to the handler ``signal`` of the run as
soon as a worker serves that.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from mai.core.recorded import Suspended
from mai.durable.questions import refused_path
from mai.durable.restate.turns import Turns
from mai.types import Question
from mai.values.casts import written

__all__ = ["Asked", "Mail", "letter", "mailbox_of", "opened", "promise_of"]

_MOST = 1000  # questions that a process remembers


def mailbox_of(service: str) -> str:
    """Return the name of the service that takes the signals for the runs of *service*."""
    return f"{service}.mail"


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


class Asked:
    """The questions that runs have asked in this process, the newest ones; a run may go on elsewhere meanwhile."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Question] = {}

    def add(self, run_id: str, question: Question) -> None:
        """Remember a question."""
        self._known[run_id, question.id] = question
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def drop(self, run_id: str, question: Question) -> None:
        """Forget a question."""
        self._known.pop((run_id, question.id), None)

    def get(self, run_id: str, name: str) -> Question | None:
        """Return a question, if it is known."""
        return self._known.get((run_id, name))


class _Asker(NamedTuple):
    """Somebody who waits for a signal; *fits*, if there is one, says whether it will do."""

    future: "asyncio.Future[bytes]"
    fits: Callable[[bytes], bool] | None


class Mail:
    """The signals of one run: each goes to the first one that waits for its name, in the order of the journal."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._asked: dict[str, deque[_Asker]] = {}
        self._kept: dict[str, deque[bytes]] = {}  # those that came when nobody waited any more
        self._counts: dict[str, int] = {}
        self._refusals = Counter[str]()
        self._open: set[str] = set()  # names whose next promise is waited for, or the record of one put aside

    def ask(self, name: str, fits: Callable[[bytes], bool] | None) -> "asyncio.Future[bytes]":
        """Return what will have the next signal *name*; one that does not fit is put aside on record."""
        future: asyncio.Future[bytes] = self._turns.loop.create_future()
        self._asked.setdefault(name, deque()).append(_Asker(future, fits))
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
        if self._goes_on(name, done):
            self._counts[name] = self._counts.get(name, 0) + 1
            self._give(name, opened(done.result())[0])
            self._look(name)

    def _goes_on(self, name: str, done: "asyncio.Future[bytes]") -> bool:
        """Say whether something has come; else tell those who wait that the run does not go on."""
        self._open.discard(name)
        if (error := done.exception()) is None:
            return True
        for one in self._asked[name]:
            if not one.future.done():
                one.future.set_exception(error)
                one.future.exception()  # nobody need hear of it
        return False

    def _give(self, name: str, data: bytes) -> None:
        asked = self._asked[name]
        while asked and asked[0].future.done():  # who waited no longer
            asked.popleft()
        if not asked:
            self._kept.setdefault(name, deque()).append(data)
        elif asked[0].fits is None or asked[0].fits(data):
            asked.popleft().future.set_result(data)
        else:
            self._refuse(name, data)

    def _refuse(self, name: str, data: bytes) -> None:
        """Put an answer aside; the next one is looked at when this is on record."""
        self._refusals[name] += 1
        path = refused_path(name, self._refusals[name])

        async def action() -> bytes:
            return b"[" + data + b"]"

        with suppress(Suspended):  # and those who wait hear it from there
            record = self._turns.expect(lambda: self._turns.commands.run(path, action))
            self._open.add(name)
            record.add_done_callback(lambda done: self._refused(name, done))

    def _refused(self, name: str, done: "asyncio.Future[bytes]") -> None:
        if self._goes_on(name, done):
            self._look(name)
