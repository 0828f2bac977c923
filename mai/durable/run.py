"""One run, carried on from its records: the verbs, answered with a journal.

Size: the verbs are one list, and what they share is with them.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mai.core.clock import clock
from mai.core.drive import apart, breathe, late, outcome
from mai.core.engine import LocalEngine, Run
from mai.core.events import post
from mai.core.frame import Frame, current
from mai.core.gather import Group, Work
from mai.core.recorded import Recorded, StepCall, Suspended
from mai.core.trace import noted
from mai.durable.calls import (
    Casts,
    arm,
    around,
    check_middleware,
    check_named,
    expired,
    has_deadline,
    has_own_code,
    recalled,
)
from mai.durable.choices import Choice, strands
from mai.durable.failures import Failures
from mai.durable.inside import Inside, Turn
from mai.durable.past import PATIENCE, PAUSE, Past
from mai.durable.questions import about, about_path, is_asked, refuse, refused_path
from mai.durable.records import Kind, Lease, Record, RunInfo
from mai.durable.rests import LATE, Rest, Rests
from mai.durable.segments import JournalSegment, Opening
from mai.durable.transactions import Transaction
from mai.errors import AlreadyRecorded, DeadlineExceeded, MaiError, PayloadError
from mai.types import Question
from mai.values import names
from mai.values.casts import written
from mai.values.events import Asked

if TYPE_CHECKING:
    from mai.durable.engine import DurableEngine

__all__ = ["DurableRun", "Unloaded"]


class Unloaded(MaiError):
    """Why a run stops that goes on some other time; nobody gets to see it."""


class DurableRun(Run):
    """The verbs of a run whose lease is held here.

    Size: the verbs are one list, and what they share is with them.

    Attributes:
        past: Its records.
        rests: What it waits for.
        undos: What takes back the steps that were done: seq, path, module, value.
        waits: What it waited for when it was unloaded.
        dues: When the flows that go on are out of time [s, wall-clock].
        segment: What is told of it since it was claimed.
    """

    records = durable = True

    def __init__(
        self, engine: "DurableEngine", lease: Lease, info: RunInfo, records: list[Record],
        segment: JournalSegment, unloads: Callable[[], object],
    ) -> None:  # fmt: skip
        self.engine: LocalEngine = engine
        self.lease = lease
        self.run_id: str = lease.run_id
        self.inside: Inside = Inside(engine, lease.run_id, self._transact)
        self.choices: set[Choice] = set()  # of the gathers that go on
        self.past: Past = Past(
            lease.run_id, records, cancelled=info.cancelled, at_work=self._is_at_work,
            patience=lambda: PATIENCE if self._own_flows else PAUSE,
        )  # fmt: skip
        self.rests: Rests = Rests(lambda: engine.linger, self._unload, lambda: strands(self.choices))
        self.undos: list[tuple[int, str, Any, Any]] = []
        self.waits: list[Rest] = []
        self.dues: dict[str, float] = {}
        self._unloads, self._own_flows = unloads, 0  # flows whose code may make tasks of its own
        self._repeats, self._breathed = 0, clock.ticks()
        self._casts = Casts()
        self.segment: JournalSegment = segment
        self._journal = engine.journal
        self._failures: Failures = engine.failures

    @property
    def replaying(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the recorded past is still being repeated."""
        return bool(self.past.left)

    @property
    def stopped(self) -> BaseException | None:
        """Why every verb ends with Suspended; None while the run goes on."""
        return self.past.stopped

    def spanned(self, f: Frame, opening: Opening) -> Any:
        """Open the span of the flow *f*, or put off to open it until something new begins in it."""
        return self.segment.spanned(f, opening, replaying=self.replaying)

    # ---------------------------------------------------------------- the verbs

    async def step(self, path: str, call: StepCall) -> Recorded:
        """Return what the record says, or run the step and record what it gave; a flow runs each time."""
        self.past.enter()
        if call.spec.flow:
            return await self._flow(path, call)
        check_named(path, call)
        if (record := self.past.records.get(path)) is not None:
            self._repeats += 1
            if not self._repeats & 15 and clock.ticks() - self._breathed > 1_000_000:  # others have their turn, too
                await breathe()
                self._breathed = clock.ticks()
            return self._repeated(path, call, record)
        try:
            await self.past.turn(path)
        except BaseException:
            noted(call.frame, {names.REPLAYED: True})  # it never began
            raise
        self.segment.live(call.frame.parent)
        self.rests.move(1)
        try:
            return await self._performed(path, call)
        except AlreadyRecorded as error:  # by two calls of one name at once: the first write wins
            return self._repeated(path, call, error.record)
        finally:
            self.rests.move(-1)

    async def _flow(self, path: str, call: StepCall) -> Recorded:
        """Run the body of a flow, with what is left of its time."""
        f, mark = call.frame, path + ("#1" if call.frame.n == -1 else "")
        with self.segment.flow(f, replaying=self.replaying) as is_still:
            check_middleware(path, call)
            value = await self._flowed(mark, call)
            return Recorded(value, 0, replayed=is_still())

    async def _flowed(self, mark: str, call: StepCall) -> Any:
        """Return what the body of a flow gives in its time."""
        f, own = call.frame, has_own_code(call.spec)
        in_time = await self._begin_deadline(mark, f) if has_deadline(f) else True
        self._own_flows += own
        try:
            value = await call.run()
        finally:
            self._own_flows -= own
            self.past.forget(mark)
            self.dues.pop(mark, None)
            if expired(f) and self.stopped is None:
                await self._note(f"{mark}!late")
        if not in_time:
            await self._note(f"{mark}!late")
            raise late(f)
        if has_deadline(f):
            await self._note(f"{mark}!done")
        return value

    async def sleep(self, path: str, seconds: float) -> None:
        """Wait for a time that is recorded once."""
        if seconds > 0:
            due = await self._due(path, seconds)
            if due > self.segment.left:
                self.segment.live(current())
            await self.rests.wait(min(seconds, due - clock.wall()), Rest(path, due, None))

    async def value(self, path: str, make: Callable[[], Any]) -> Any:
        """Return what was recorded, or record what *make* gives."""
        self.past.enter()
        if isinstance(make, Transaction):
            return await self._transacted(path, make)
        if (record := self.past.get(path, "value")) is not None:
            return json.loads(record.output or b"null")
        made = make()
        try:
            await self._write(path, "value", clock.wall(), output=written(made).encode())
        except AlreadyRecorded as error:  # it was asked for before, or in another branch: the first write wins
            return json.loads(error.record.output)
        return made

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Take a signal, as soon as it is there."""
        self.past.enter()
        refused, asked = 1, is_asked(path, signal)
        while self.past.get(refused_path(path, refused), "wait") is not None:
            refused += 1
        if (record := self.past.get(path, "wait")) is not None:
            self.past.visit(about_path(path))
            self.past.visit(f"{path}!due")
            self.past.visit(f"{path}!due!again")
            if record.error is not None:
                raise self._failures.load(record.error)
            return record.output or b"null"
        due = None if timeout is None else await self._due(f"{path}!due", timeout)
        env, started = current().env, clock.wall()
        if asked and (env.answers is None or about_path(path) in self.past.records):
            await self.value(about_path(path), lambda: about(signal))
        await self.past.turn(path)
        self.segment.live(current())
        if env.answers is not None:
            data = signal.data(await outcome(apart(env.answers, signal)))
            await self._write(path, "wait", started, output=data)
            return data
        open_questions: Any = {} if env.bus is None else env.bus.questions
        open_questions[signal.id] = signal, Turn(self.engine, self.run_id, signal.id)
        post(Asked, signal)
        try:
            data = await self._taken(path, signal, timeout, due, refused if asked else None)
        except Suspended:
            raise  # the question stays open
        except BaseException:
            open_questions.pop(signal.id, None)
            raise
        open_questions.pop(signal.id, None)
        return data

    async def gather(self, path: str, work: Work, *, limit: int | None = None) -> None:
        """Run the branches, and record how they ended where one of them ended the others."""
        self.past.enter()
        mark, started = f"{path}!stop", clock.wall()
        record = self.past.records.get(mark)
        choice = Choice(work, None if record is None else record.output, partial(self.past.defers, mark))
        choice.group = Group(choice, limit)
        if record is not None:
            self.past.choose(mark, record.seq, choice)
        self.choices.add(choice)
        try:
            await choice.group.run()
        finally:
            self.choices.discard(choice)
            self.past.forget(mark)
        self.past.enter()
        if record is not None:
            self.past.visit(mark)
            choice.repeat()
        elif (data := choice.data()) is not None:
            await self._write(mark, "flow", started, output=data)

    # ---------------------------------------------------------------- steps

    async def _performed(self, path: str, call: StepCall) -> Recorded:
        """Run a step, record what came of it, and give or raise that."""
        task, started, data = asyncio.current_task(), clock.wall(), self._casts.shown(call)
        assert task is not None
        before, tp = task.cancelling(), self._casts.gives(call)
        error: bytes | None = None
        output: bytes | None = None
        raised: BaseException | None = None
        value: Any = None
        try:
            output = tp.dump(await call.run())
            value = tp.load(output)  # the first run gives what a replay gives
        except Exception as failure:  # noqa: BLE001 (becomes the record of the step)
            error, raised = self._failures.crossed(failure, around(call.frame))
        except asyncio.CancelledError as cancel:
            if expired(call.frame):
                error, raised = self._failures.crossed(late(call.frame), ())[0], cancel
            elif task.cancelling() > before or self.stopped is not None:
                raise
            else:  # the step's own doing
                error, raised = self._failures.crossed(cancel, ())
        kind: Kind = "undo" if path.endswith("!undo") else "step"
        facts = {"input": data, "output": output, "error": error, "version": call.spec.version}
        seq = await self._write(path, kind, started, **facts)
        if raised is not None:
            raise raised
        self._remember(seq, path, call, value)
        return Recorded(value, seq, replayed=False)

    def _repeated(self, path: str, call: StepCall, record: Record) -> Recorded:
        """Give or raise what is on record."""
        past, now = self.past, self._casts.shown(call)
        if record.kind not in ("step", "undo"):
            raise past.mismatch(path, f"a {record.kind}", "a step")
        past.visit(path)
        if record.input is not None and now is not None and record.input != now:
            raise past.mismatch(path, _text(record.input), _text(now))
        if record.version != call.spec.version:
            raise past.mismatch(path, f"version {record.version!r}", f"version {call.spec.version!r}")
        self.segment.count()
        failed = value = None
        try:
            if record.error is not None:
                failed = self._failures.load(record.error, around(call.frame))
            else:
                value = self._casts.gives(call).load(record.output or b"null")
        except PayloadError as error:
            raise past.mismatch(path, _text(record.error or record.output or b""), str(error)) from error
        if failed is not None:
            noted(call.frame, {names.REPLAYED: True})
            raise failed
        self._remember(record.seq, path, call, value)
        return Recorded(recalled(call, value), record.seq, replayed=True)

    def _remember(self, seq: int, path: str, call: StepCall, value: Any) -> None:
        if call.spec.undo is not None:
            self.undos.append((seq, path, call.spec.undo, value))

    # ---------------------------------------------------------------- time and signals

    async def _due(self, path: str, seconds: float) -> float:
        """Return when something is due that takes *seconds* from when it was first asked for."""
        self.past.enter()
        self.past.visit(f"{path}!again")
        if (record := self.past.get(path, "timer")) is None:
            await self.past.turn(path)
        elif record.due is not None and record.due <= clock.wall() + seconds:
            return record.due
        else:  # the clock was set back: it begins anew, once
            path = f"{path}!again"
            if (record := self.past.get(path, "timer")) is not None and record.due is not None:
                return record.due
        now = clock.wall()
        await self._write(path, "timer", now, due=now + seconds)
        return now + seconds

    async def _taken(
        self, path: str, signal: Question, timeout: float | None, due: float | None, refused: int | None
    ) -> bytes:
        """Wait for a signal, and take it; of answers to a question only one that fits."""
        started = clock.wall()
        while True:
            if refused is not None:
                refused = await self._made(refuse(self._journal, self.lease, path, signal, refused, started))
            data: bytes | None = await self._made(self._journal.take(self.lease, path, signal.id, started))
            if data is not None:
                return data
            left = None if due is None or timeout is None else min(timeout, due - clock.wall())
            if await self.rests.wait(left, Rest(path, due, signal.id)) is LATE:
                break
        message = f"Nobody answered {signal.prompt!r} within {timeout:g} s"
        error = DeadlineExceeded(message, step_id=signal.step_id, timeout=timeout)
        await self._write(path, "wait", started, error=self._failures.crossed(error, ())[0])
        raise error

    async def _begin_deadline(self, mark: str, f: Frame) -> bool:
        """Give a flow what is left of its time; where that is over, its end comes when its past has been repeated."""
        assert f.deadline is not None
        limit = f.deadline - clock.now()
        due = self.dues[mark] = await self._due(f"{mark}!due", limit)
        left, ended = min(limit, due - clock.wall()), self.past.records.get(f"{mark}!late")
        if f"{mark}!done" in self.past.records:
            arm(f, math.inf)
            return True
        if ended is not None or left <= 0:
            arm(f, math.inf)
            self.past.expire(mark, math.inf if ended is None else ended.seq, f)
            return False
        if left < limit:
            arm(f, left)
        return True

    async def _note(self, mark: str) -> None:
        """Record how a flow with a deadline ended."""
        if self.past.get(mark, "flow") is None:
            await self._write(mark, "flow", clock.wall())

    # ---------------------------------------------------------------- writing, and what comes from outside

    async def _write(self, path: str, kind: Kind, started: float, **facts: Any) -> int:
        """Append a record, and return its place in the order of completion."""
        self.past.enter()
        self.segment.live(current())
        record = Record(path, kind, started=started, ended=clock.wall(), **facts)
        mark, write = self.segment.mark(), self._journal.append(self.lease, record)
        if mark is None:
            return await self._made(write)  # type: ignore[no-any-return]
        return (await self._made(asyncio.gather(write, self._journal.append(self.lease, mark))))[0]  # type: ignore[no-any-return]

    async def _transacted(self, path: str, asked: Transaction) -> Any:
        """Return what is on record of a transaction of a flow, or make it, and record a failure."""
        record, started = self.past.get(path, "step"), clock.wall()
        if record is None:
            await self.past.turn(path)
            try:
                record = await self._transact(path, asked)
            except Exception as failure:
                if failure is not asked.raised:
                    raise
                error, raised = self._failures.crossed(failure, around(current()))
                await self._write(path, "step", started, error=error)
                raise raised from None
        if record.error is not None:
            raise self._failures.load(record.error, around(current()))
        return asked.read(record.output)

    async def _transact(self, path: str, asked: Transaction) -> Record:
        """Do what is asked and record it, in one transaction, unless it is on record."""
        self.past.enter()
        self.segment.live(current())
        record = Record(path, "step", started=clock.wall())
        return await self._made(self._journal.transact(self.lease, record, asked.write), asked)  # type: ignore[no-any-return]

    async def _made(self, write: Awaitable[Any], asked: Transaction | None = None) -> Any:
        """Return what a write gives, once it is made: a cancel that comes meanwhile waits for it."""
        task, cancel = asyncio.ensure_future(write), None
        self.rests.move(1)
        try:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as error:
                    cancel = error
        finally:
            self.rests.move(-1)
        failure = task.exception()
        own = isinstance(failure, AlreadyRecorded) or (asked is not None and failure is asked.raised)
        if failure is not None and not own:
            raise self.stop(failure)
        if cancel is not None:  # also where the work of a transaction failed, which a flow might go on after
            raise cancel
        return task.result()

    def stop(self, why: BaseException) -> Suspended:
        """Let every verb end with Suspended, which is returned."""
        return self.past.stop(why, self.rests.open)

    def _is_at_work(self, held: int) -> bool:
        """Say whether a branch is in no verb, if so many wait for the end of the past: it does something of its own."""
        return held + len(self.rests.open) < strands(self.choices)

    def _unload(self) -> None:
        if not self.past.is_held() and self.stopped is None:
            deadlines = [Rest(mark, due, None) for mark, due in self.dues.items()]
            self.waits = [*self.rests.open.values(), *deadlines]
            self._unloads()
            self.stop(Unloaded("it waits"))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
