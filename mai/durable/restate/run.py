"""One attempt to carry a run on: the verbs, answered with a journal that is read by position."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel

from mai.core.clock import clock
from mai.core.drive import apart, outcome
from mai.core.engine import LocalEngine, Run
from mai.core.events import post
from mai.core.frame import PENDING, Frame, Timer, current
from mai.core.recorded import Recorded, StepCall, Suspended
from mai.core.trace import noted
from mai.durable.calls import arm, around, check_middleware, recalled
from mai.durable.inside import Inside, Turn
from mai.durable.questions import about, is_asked
from mai.durable.restate.body import Body, Entry
from mai.durable.restate.mail import Mail
from mai.durable.restate.segment import RestateSegment
from mai.durable.restate.turns import Turns
from mai.durable.segments import Opening
from mai.errors import DeadlineExceeded, PayloadError, ReplayMismatch
from mai.types import Question
from mai.values import names
from mai.values.casts import caster, written
from mai.values.events import Asked

if TYPE_CHECKING:
    from mai.durable.restate.engine import RestateEngine

__all__ = ["RestateRun"]


class RestateRun(Run):
    """The verbs of a run; branches need none of their own, since the loop that they run on has one order.

    Size: the verbs are one list, and what they share is with them.

    Attributes:
        undos: What takes back the steps that were done: seq, path, module, value.
        questions: What is asked, by the name of the answer.
        segment: What is told of it in this attempt.
    """

    records = durable = True

    def __init__(
        self, engine: "RestateEngine", run_id: str, turns: Turns, tell: Callable[[], object], segment: RestateSegment
    ) -> None:
        self.engine: LocalEngine = engine
        self.run_id: str = run_id
        self.turns = turns
        self.inside: Inside = Inside(engine, run_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.segment: RestateSegment = segment
        self.undos: list[tuple[int, str, Any, Any]] = []
        self.questions: dict[str, Any] = {}
        self._tell = tell  # what is asked has changed
        self._failures = engine.failures
        self._asked = engine.asked
        self._mail = Mail(turns)
        self._busy = engine.busy
        self._count = 0

    @property
    def replaying(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the next command is on record."""
        return self.turns.commands.is_replaying()

    # ---------------------------------------------------------------- steps and flows

    def spanned(self, f: Frame, opening: Opening) -> otel.Context | None:
        """Open the span of a flow; while it is only repeated, when something new begins in it."""
        return self.segment.spanned(f, opening, replaying=self.replaying)

    async def step(self, path: str, call: StepCall) -> Recorded:
        """Return what the journal has, or run the step and return what it gave; a flow runs each time."""
        if call.spec.flow:
            return await self._flow(path, call)
        body = Body(self._failures, call, self._busy, self.run_id, self.segment)
        try:
            return await self._performed(path, call, body)
        except BaseException:
            if not body.began:
                noted(call.frame, {names.REPLAYED: True})
            raise

    async def _performed(self, path: str, call: StepCall, body: Body) -> Recorded:
        entry, cancel = await self._entry(path, body)
        self._count += 1
        if (parts := body.differs(entry)) is not None:
            raise self._mismatch(path, *parts)
        if not body.began:
            self.segment.repeated(entry.segment)
        if entry.error is not None:
            raise body.raised or self._failures.load(entry.error.encode(), around(call.frame))
        value = None if entry.cancelled else self._value(path, call, body, entry)
        if call.spec.undo is not None and not entry.cancelled:
            self.undos.append((self._count, path, call.spec.undo, value))
        if entry.cancelled or cancel is not None:
            raise cancel or asyncio.CancelledError
        return Recorded(value, self._count, replayed=not body.ran)

    async def _entry(self, path: str, body: Body) -> tuple[Entry, BaseException | None]:
        """Return the entry of a step, once it is there, and the cancel that came meanwhile: that cuts the body off."""
        future = self.turns.expect(lambda: self.turns.commands.run(path, body.action))
        cancel: BaseException | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancel = error
                body.cancel()
        return Entry.load(future.result()), cancel

    def _value(self, path: str, call: StepCall, body: Body, entry: Entry) -> Any:
        if body.ran:
            return body.value
        try:
            value = caster(call.spec.signature.returns).load(entry.output or b"null")
        except PayloadError as error:
            raise self._mismatch(path, (entry.output or b"").decode(errors="replace"), str(error)) from error
        return recalled(call, value)

    def _mismatch(self, path: str, recorded: str, found: str) -> Suspended:
        lines = f"\n  recorded: {recorded}\n  now:      {found}"
        message = f"Run {self.run_id!r} no longer does what it did at {path!r}{lines}"
        return self.turns.stop(
            ReplayMismatch(message, run_id=self.run_id, step_id=path, recorded=recorded, found=found)
        )

    async def _flow(self, path: str, call: StepCall) -> Recorded:
        """Run the body of a flow; its deadline is a timer of the journal."""
        f = call.frame
        with self.segment.flow(f, replaying=self.replaying) as is_still:
            check_middleware(path, call)
            timer = await self._begin_deadline(path, f) if call.spec.limit is not None or f.timer is PENDING else None
            try:
                value = await call.run()
            finally:
                if timer is not None:
                    timer.cancel()
                if f.handle is self.segment.handle and self.turns.stopped is None:
                    self.segment.live(f)  # the end of the run
            return Recorded(value, 0, replayed=is_still())

    async def _begin_deadline(self, path: str, f: Frame) -> "asyncio.Future[Any]":
        """Give a flow what is left of its time."""
        mark = path + ("#1" if f.n == -1 else "")
        limit = math.inf if f.deadline is None else max(0.0, f.deadline - clock.now())
        timer = self.turns.expect(lambda: self.turns.commands.sleep(f"{mark}!due", limit))
        timer.add_done_callback(partial(_expire, f))
        try:
            due = await self.value(f"{mark}!due", lambda: clock.wall() + limit)
        except BaseException:
            timer.cancel()
            raise
        if isinstance(f.timer, Timer):
            arm(f, max(0.0, min(limit, due - clock.wall())))
        return timer

    # ---------------------------------------------------------------- the other verbs

    async def sleep(self, path: str, seconds: float) -> None:
        """Wait for a timer of the journal."""
        if seconds > 0:
            self._advance()
            await self.turns.expect(lambda: self.turns.commands.sleep(path, seconds))
            self._advance()

    def _advance(self) -> None:
        """Note that something new happens, unless it is on record."""
        if not self.replaying:
            self.segment.live(current())

    async def value(self, path: str, make: Callable[[], Any]) -> Any:
        """Return what the journal has, or let *make* give it.

        Whether code is patched is not asked: a run keeps to the deployment that it began with.
        """
        if path.startswith("!patched/"):
            return make()

        async def made() -> bytes:
            return written([make()]).encode()  # a list, by which it is told from a step

        return json.loads(await self._made(path, made))[0]

    async def _made(self, path: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what the journal has, or let *make* give it, in the context of this call."""
        context, f = copy_context(), current()

        async def action() -> bytes:
            self.segment.live(f)
            return await asyncio.get_running_loop().create_task(make(), context=context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownVariableType]

        data: bytes = await self.turns.expect(lambda: self.turns.commands.run(path, action))
        return data

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Take a signal, as soon as it is there; of answers to a question one that fits."""
        env, asked = current().env, is_asked(path, signal)
        self._advance()
        if (answers := env.answers) is not None:

            async def answered() -> bytes:
                return b"[" + signal.data(await outcome(apart(answers, signal))) + b"]"

            return (await self._made(path, answered))[1:-1]
        data = self._mail.ask(signal.id, partial(_fits, signal) if asked else None)
        timer = None
        if timeout is not None:
            timer = self.turns.expect(lambda: self.turns.commands.sleep(f"{path}!due", timeout))
            timer.add_done_callback(partial(_give_up, data, signal, timeout))
        open_questions: Any = {} if env.bus is None else env.bus.questions
        open_questions[signal.id] = signal, Turn(self.engine, self.run_id, signal.id)
        post(Asked, signal)
        if asked:
            self._asked.add(self.run_id, signal)
            self._ask(signal.id, about(signal))
        try:
            found = await data
            self._advance()
            return found
        finally:
            if self.turns.stopped is None:  # else the question stays open
                open_questions.pop(signal.id, None)
                self._asked.drop(self.run_id, signal)
                self._ask(signal.id, None)
            if timer is not None:
                timer.cancel()

    def _ask(self, name: str, facts: Any) -> None:
        """Let others see what is asked, or that it is not any more."""
        if facts is not None:
            self.questions[name] = facts
            self._tell()
        elif self.questions.pop(name, None) is not None:
            self._tell()


def _expire(f: Frame, done: "asyncio.Future[Any]") -> None:
    """Let the deadline of a flow pass."""
    if not done.cancelled() and done.exception() is None and isinstance(f.timer, Timer):
        f.timer.fire()


def _fits(question: Question, data: bytes) -> bool:
    try:
        caster(question.type).load(data)
    except PayloadError:
        return False
    return True


def _give_up(data: "asyncio.Future[bytes]", signal: Question, timeout: float, done: "asyncio.Future[Any]") -> None:
    """Let nobody have answered in time."""
    if not data.done() and not done.cancelled() and done.exception() is None:
        message = f"Nobody answered {signal.prompt!r} within {timeout:g} s"
        data.set_exception(DeadlineExceeded(message, step_id=signal.step_id, timeout=timeout))
