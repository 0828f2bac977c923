"""One run, carried on from its records: the verbs, answered with a journal.

What is on record is given back at once, wherever and whenever it is asked for. What is not has to wait until all that
is on record has been repeated: only then is known whether it may begin, or whether the branch, flow or run that it
belongs to was ended at that point. A run that does nothing but wait is unloaded.

Size: the verbs and what they have in common, the state of one run, is one thing.
"""

import asyncio
import json
import math
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NoReturn

from mai.core.clock import clock
from mai.core.drive import Worker, apart, late
from mai.core.engine import Run
from mai.core.events import Asked, post, settle
from mai.core.frame import PENDING, Frame, Timer, current
from mai.core.gather import Group, Work
from mai.core.recorded import Recorded, StepCall, Suspended
from mai.durable.choices import Choice
from mai.durable.records import Journal, Kind, Lease, Record, RunInfo
from mai.errors import AlreadyRecorded, ConfigError, DeadlineExceeded, MaiError, PayloadError, ReplayMismatch
from mai.types import Question
from mai.values.casts import caster, written

if TYPE_CHECKING:
    from mai.durable.driver import Driver
    from mai.durable.engine import DurableEngine

__all__ = ["DurableRun", "Unloaded"]

TURNS = 64  # of the event loop without any move, after which nothing of the past is still on its way
PATIENCE = 5.0  # seconds without any move, after which what is on record is not asked for any more
_SHOWN = 4096  # bytes of an input that are kept to be shown

_Future = asyncio.Future[Any]
_LATE: Any = object()


class Unloaded(MaiError):
    """Why a run stops that goes on some other time; nobody gets to see it."""


class Inside(Run):
    """What the body of a step has for a run: it records nothing, and cannot wait."""

    durable = True

    def __init__(self, engine: "DurableEngine", run_id: str) -> None:
        self.engine = engine
        self.run_id = run_id

    async def sleep(self, path: str, seconds: float) -> None:
        """Refuse."""
        _refuse(path, "a delay")

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Refuse."""
        _refuse(path, "a question or signal")


def _refuse(path: str, what: str) -> NoReturn:
    hint = "the module that calls it must be a flow: a composite, a graph, or one with flow=True"
    raise ConfigError(f"{path}: {what} inside of a step is not durable; {hint}")


@dataclass(eq=False, slots=True)
class Rest:
    """A verb that waits."""

    path: str
    due: float | None
    signal: str | None


class DurableRun(Run):
    """The verbs of a run whose lease is held here.

    Attributes:
        stopped: Why every verb now ends with Suspended; None while the run goes on.
        undos: What takes back the steps that are on record: seq, path, module, value.
        rests: What the run waited for when it was unloaded.
    """

    records = durable = True

    def __init__(self, driver: "Driver", lease: Lease, info: RunInfo, records: list[Record]) -> None:
        engine: Any = driver.engine
        self.engine = engine
        self.journal: Journal = engine.journal
        self.driver = driver
        self.lease = lease
        self.run_id = lease.run_id
        self.inside = Inside(engine, lease.run_id)
        self.past: dict[str, Record] = {record.path: record for record in records}
        self.left: set[str] = {path for path in self.past if not _is_own(path)}
        self.cancelled: bool = info.cancelled  # and whether that has been delivered:
        self.delivered: bool = False
        self.live: bool = False
        self.stopped: BaseException | None = None
        self.undos: list[tuple[int, str, Any, Any]] = []
        self.rests: list[Rest] = []
        self.resting: dict[_Future, Rest] = {}
        self.replayed: int = 0
        self._held: dict[_Future, str] = {}
        self._expiring: dict[str, tuple[float, Timer | None, Frame]] = {}
        self._choices: dict[str, tuple[int, Choice]] = {}
        self._active, self._moves, self._ticking = 0, 0, False
        self._idler: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task: Any = asyncio.current_task()

    @property
    def replaying(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the recorded past is still being repeated."""
        return bool(self.left)

    # ---------------------------------------------------------------- the verbs

    async def step(self, path: str, call: StepCall) -> Recorded:
        """Return what the record says, or run the step and record what it gave."""
        self._enter()
        _check_named(path, call)
        if (record := self.past.get(path)) is not None:
            return self._repeated(path, call, record)
        await self._turn(path)
        self._active += 1
        try:
            return await self._performed(path, call)
        except AlreadyRecorded as error:  # by two calls of one name at once: the first write wins
            return self._repeated(path, call, error.record)
        finally:
            self._active -= 1
            self._linger()

    async def flow(self, path: str, call: StepCall) -> Recorded:
        """Run the body of a flow, with what is left of its time."""
        self._enter()
        for layer in call.spec.middleware:
            if not getattr(layer, "replay_safe", False):
                name = getattr(layer, "__qualname__", type(layer).__qualname__)
                hint = "it runs again in each replay; mark it @replay_safe if that does no harm, or put it on a step"
                raise ConfigError(f"{path}: middleware {name} is around a flow; {hint}")
        f, mark = call.frame, path + ("#1" if call.frame.n == -1 else "")
        if f.timer is PENDING or isinstance(f.timer, Timer):
            await self._begin_deadline(mark, f)
        try:
            value = await call.run()
        finally:
            self._expiring.pop(mark, None)
            await self._end_deadline(mark, f)
        if f"{mark}!late" in self.past:
            raise late(f)
        return Recorded(value, 0, replayed=False)

    async def sleep(self, path: str, seconds: float) -> None:
        """Wait for a time that is recorded once."""
        if seconds > 0:
            due = await self._due(path, seconds)
            await self._rest(path, min(seconds, due - clock.wall()), due)

    async def rest(self, path: str, seconds: float) -> None:
        """Wait between two attempts of a flow."""
        await self.sleep(path, seconds)

    async def value(self, path: str, make: Callable[[], Any]) -> Any:
        """Return what was recorded, or record what *make* gives."""
        self._enter()
        record = self._on_record(path, "value")
        if record is not None:
            return json.loads(record.output or b"null")
        started, made = clock.wall(), make()
        data = written(made).encode()
        await self._write(Record(path, "value", output=data, started=started, ended=clock.wall()))
        return made

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Take a signal, as soon as it is there."""
        self._enter()
        record = self._on_record(path, "wait")
        if record is not None:
            if record.error is not None:
                raise self.engine.failures.load(record.error)
            return record.output or b"null"
        env, due = current().env, None
        if timeout is not None:
            due = await self._due(f"{path}!due", timeout)
        await self._turn(path)
        if env.answers is not None:
            data = signal.data(await apart(env.answers, signal))
            await self._write(Record(path, "wait", output=data, started=clock.wall(), ended=clock.wall()))
            return data
        if env.bus is not None:
            env.bus.questions[signal.id] = signal, Turn(self.engine, self.run_id, signal.id)
        post(Asked, signal)
        try:
            data = await self._taken(path, signal, timeout, due)
        except Suspended:
            raise  # the question stays open
        except BaseException:
            _forget(env.bus, signal.id)
            raise
        _forget(env.bus, signal.id)
        return data

    async def gather(self, path: str, work: Work, *, limit: int | None = None) -> None:
        """Run the branches, and record how they ended where one of them ended the others."""
        self._enter()
        mark = f"{path}!stop"
        record = self.past.get(mark)
        choice = Choice(work, None if record is None else record.output, self._enter)
        choice.group = Group(choice, limit)
        if record is not None:
            self._choices[mark] = record.seq, choice
            self._watch()
        try:
            await choice.group.run()
        finally:
            self._choices.pop(mark, None)
        self._enter()
        if record is not None:
            self._visit(mark)
            choice.repeat()
        elif (data := choice.data()) is not None:
            await self._write(Record(mark, "flow", output=data, started=clock.wall(), ended=clock.wall()))

    # ---------------------------------------------------------------- steps

    async def _performed(self, path: str, call: StepCall) -> Recorded:
        """Run a step, record what came of it, and give or raise that."""
        task, started, shown = asyncio.current_task(), clock.wall(), _shown(call)
        assert task is not None
        before, kind = task.cancelling(), "undo" if path.endswith("!undo") else "step"
        tp, error, output, value = caster(call.spec.signature.returns), None, None, None
        raised: BaseException | None = None
        try:
            output = tp.dump(await call.run())
            value = tp.load(output)  # what a replay gives is what the first run gives
        except Exception as failure:  # noqa: BLE001 (becomes the record of the step)
            error, raised = self.engine.failures.crossed(failure, _around(call.frame))
        except asyncio.CancelledError as cancel:
            if _expired(call.frame):
                error, raised = self.engine.failures.crossed(late(call.frame), ())[0], cancel
            elif task.cancelling() > before or self.stopped is not None:
                raise
            else:  # the step's own doing
                error, raised = self.engine.failures.crossed(cancel, ())
        ended, version = clock.wall(), call.spec.version
        record = Record(path, kind, 0, shown, output, error, started=started, ended=ended, version=version)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        seq = await self._write(record)
        if raised is not None:
            raise raised
        self._remember(seq, path, call, value)
        return Recorded(value, seq, replayed=False)

    def _repeated(self, path: str, call: StepCall, record: Record) -> Recorded:
        """Give or raise what is on record."""
        if record.kind not in ("step", "undo"):
            raise self._mismatch(path, f"a {record.kind}", "a step")
        now = _shown(call)
        if record.input is not None and now is not None and record.input != now:
            raise self._mismatch(path, _text(record.input), _text(now))
        if record.version != call.spec.version:
            raise self._mismatch(path, f"version {record.version!r}", f"version {call.spec.version!r}")
        self._visit(path)
        self.replayed += 1
        if record.error is not None:
            raise self.engine.failures.load(record.error, _around(call.frame))
        try:
            value = caster(call.spec.signature.returns).load(record.output or b"null")
        except PayloadError as error:
            raise self._mismatch(path, _text(record.output or b""), str(error)) from error
        self._remember(record.seq, path, call, value)
        return Recorded(value, record.seq, replayed=True)

    def _remember(self, seq: int, path: str, call: StepCall, value: Any) -> None:
        if call.spec.undo is not None:
            self.undos.append((seq, path, call.spec.undo, value))

    # ---------------------------------------------------------------- time

    async def _due(self, path: str, seconds: float) -> float:
        """Return when something is due that takes *seconds* from when it was first asked for."""
        self._enter()
        record = self._on_record(path, "timer")
        if record is not None:
            return record.due if record.due is not None else clock.wall()
        await self._turn(path)
        now = clock.wall()
        await self._write(Record(path, "timer", due=now + seconds, started=now, ended=now))
        return now + seconds

    async def _rest(self, path: str, seconds: float | None, due: float | None, signal: str | None = None) -> Any:
        """Wait for *seconds*, or for the signal; the run may be unloaded meanwhile."""
        if seconds is not None and seconds <= 0:
            return _LATE
        future: _Future = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, partial(settle, future, _LATE))
        self.resting[future] = Rest(path, due, signal)
        self._linger()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            del self.resting[future]
            self._moves += 1

    async def _taken(self, path: str, signal: Question, timeout: float | None, due: float | None) -> bytes:
        started = clock.wall()
        while True:
            data: bytes | None = await self._finished(self.journal.take(self.lease, path, signal.id, started))
            if data is not None:
                return data
            left = None if due is None or timeout is None else min(timeout, due - clock.wall())
            if await self._rest(path, left, due, signal.id) is _LATE:
                break
        error = DeadlineExceeded(
            f"Nobody answered {signal.prompt!r} within {timeout:g} s", step_id=signal.step_id, timeout=timeout
        )
        facts, _ = self.engine.failures.crossed(error, ())
        await self._write(Record(path, "wait", error=facts, started=started, ended=clock.wall()))
        raise error

    async def _begin_deadline(self, mark: str, f: Frame) -> None:
        """Give a flow what is left of its time; where that is over, its end comes when its past has been repeated."""
        assert f.deadline is not None
        limit = f.deadline - clock.now()
        left = min(limit, await self._due(f"{mark}!due", limit) - clock.wall())
        ended = self.past.get(f"{mark}!late")
        if ended is not None or left <= 0:
            _arm(f, math.inf)
            self._expiring[mark] = math.inf if ended is None else ended.seq, None, f
            self._watch()
        elif left < limit:
            _arm(f, left)

    async def _end_deadline(self, mark: str, f: Frame) -> None:
        """Record that a flow ran past its deadline, if it did."""
        if self.stopped is not None or not _expired(f):
            return
        if f"{mark}!late" in self.past:
            self._visit(f"{mark}!late")
        else:
            await self._write(Record(f"{mark}!late", "flow", started=clock.wall(), ended=clock.wall()))

    # ---------------------------------------------------------------- the past, and the way out of it

    def _enter(self) -> None:
        """Note that something goes on; where nothing may any more, say so."""
        self._moves += 1
        if self.stopped is not None:
            raise Suspended

    def _on_record(self, path: str, kind: Kind) -> Record | None:
        record = self.past.get(path)
        if record is None:
            return None
        if record.kind != kind:
            raise self._mismatch(path, f"a {record.kind}", f"a {kind}")
        self._visit(path)
        return record

    def _visit(self, path: str) -> None:
        self._moves += 1
        self.left.discard(path)
        if not self.left and self._held:
            self._watch()

    def _is_over(self) -> bool:
        """Say whether the past has been repeated."""
        return not (self.left or self._expiring or self._choices or (self.cancelled and not self.delivered))

    async def _turn(self, path: str) -> None:
        """Wait until what is not on record may begin."""
        self._enter()
        if self.live or self._is_over():
            self.live = True
            return
        future: _Future = self._loop.create_future()
        self._held[future] = path
        self._watch()
        try:
            await future
        finally:
            del self._held[future]
            self._moves += 1

    def _watch(self) -> None:
        """See to it that somebody looks when nothing moves any more."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick, self._moves, 0)

    def _tick(self, mark: int, turns: int) -> None:
        waits = self._held or self._expiring or self._choices or (self.cancelled and not self.delivered)
        if self.stopped is not None or not waits or self._task.done():
            self._ticking = False
        elif self._moves != mark or turns < TURNS:
            self._loop.call_soon(self._tick, self._moves, 0 if self._moves != mark else turns + 1)
        else:
            self._ticking = False
            self._settle()

    def _settle(self) -> None:
        """Do what comes next in a past in which nothing moves."""
        ends = [(seq, partial(self._expire, mark)) for mark, (seq, _, _) in self._expiring.items()]
        ends += [(seq, choice.stop) for seq, choice in self._choices.values() if choice.is_ready()]
        if self.cancelled and not self.delivered:
            ends.append((math.inf, self._deliver))
        if ends:
            min(ends, key=lambda end: end[0])[1]()
            self._moves += 1
            self._watch()
        elif not self.left:
            self._go_live()
        elif self._held:
            self._loop.call_later(PATIENCE, self._give_up, self._moves)

    def _expire(self, mark: str) -> None:
        _, _, f = self._expiring.pop(mark)
        if isinstance(f.timer, Timer):
            f.timer.fire()

    def _deliver(self) -> None:
        self.delivered = True
        self._task.cancel()

    def _go_live(self) -> None:
        self.live = True
        for future in list(self._held):
            settle(future)

    def _give_up(self, mark: int) -> None:
        if self._moves != mark:
            self._watch()
        elif self._held and self.stopped is None:
            self.stop(self.leftover())

    def leftover(self) -> ReplayMismatch:
        """Return the error of records that nothing asks for any more."""
        first = min(self.left, key=lambda path: self.past[path].seq)
        wants = ", ".join(map(repr, self._held.values()))
        lost = f"{first!r} is on record, and nothing asks for it" + (f"; asked for is {wants}" if wants else "")
        return ReplayMismatch(
            f"Run {self.run_id!r} no longer does what it did: {lost}",
            run_id=self.run_id, step_id=first, recorded=first, found=wants,
        )  # fmt: skip

    def _mismatch(self, path: str, recorded: str, found: str) -> BaseException:
        message = (
            f"Run {self.run_id!r} no longer does what it did at {path!r}:\n  recorded {recorded}\n  now      {found}"
        )
        return self.stop(ReplayMismatch(message, run_id=self.run_id, step_id=path, recorded=recorded, found=found))

    # ---------------------------------------------------------------- ending, and what may come from outside

    def stop(self, why: BaseException) -> Suspended:
        """Let every verb end with Suspended, which is returned."""
        if self.stopped is None:
            self.stopped = why
            for future in [*self._held, *self.resting]:
                if not future.done():
                    future.set_exception(Suspended())
        return Suspended()

    def cancel(self) -> None:
        """Cancel the run: at once, or when its past has been repeated."""
        self.cancelled = True
        if self.live and not self.delivered:
            self._deliver()
        elif not self.delivered:
            self._watch()

    def nudge(self) -> None:
        """Let the verbs that wait for signals look."""
        for future, rest in list(self.resting.items()):
            if rest.signal is not None:
                settle(future)

    def _linger(self) -> None:
        """Unload the run after a while if it does nothing but wait."""
        self._moves += 1
        if self._idler is not None:
            self._idler.cancel()
            self._idler = None
        if self.resting and not (self._active or self._held):
            self._idler = self._loop.call_later(self.engine.linger, self._unload, self._moves)

    def _unload(self, mark: int) -> None:
        self._idler = None
        if self._moves != mark or any(future.done() for future in self.resting):
            self._linger()
        elif self.resting and not (self._active or self._held) and self.stopped is None:
            self.rests = [*self.resting.values()]
            self.driver.see()
            self.stop(Unloaded("it waits"))

    def hurry(self) -> None:
        """Unload the run as soon as it does nothing but wait."""
        if self.resting:
            self._linger()

    def conclude(self) -> None:
        """Let what takes back the steps begin: the code of the run has ended."""
        self.live = self.delivered = True

    def close(self) -> None:
        """Forget the timers."""
        if self._idler is not None:
            self._idler.cancel()

    async def _write(self, record: Record) -> int:
        self._enter()
        seq: int = await self._finished(self.journal.append(self.lease, record))
        return seq

    async def _finished(self, write: Awaitable[Any]) -> Any:
        """Return what a write gives, once it is made: a cancel that comes meanwhile waits for it."""
        task, cancel = asyncio.ensure_future(write), None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancel = error
        if (failure := task.exception()) is not None:
            if isinstance(failure, AlreadyRecorded):
                raise failure
            raise self.stop(failure) from failure
        self._moves += 1
        if cancel is not None:
            raise cancel
        return task.result()


class Turn:
    """In the place of the future of a question: the answer goes through the journal, as every signal does."""

    def __init__(self, engine: "DurableEngine", run_id: str, name: str) -> None:
        self.engine, self.run_id, self.name = engine, run_id, name

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the engine."""
        return self.engine.loop

    def done(self) -> bool:
        """Say that an answer is welcome."""
        return False

    def set_result(self, data: bytes) -> None:
        """Send the answer."""
        self.engine.soon(self.engine.send(self.run_id, self.name, data))


def _is_own(path: str) -> bool:
    """Say whether a record is of the engine's own doing, and not asked for by the code."""
    return path.startswith("!") or "!undo" in path


def _check_named(path: str, call: StepCall) -> None:
    """Warn of a call that user code makes a second time, in a task of its own: which one is the second may vary."""
    f, task = call.frame, asyncio.current_task()
    around = getattr(f.parent, "y", None)
    if f.n > 1 and isinstance(around, tuple) and around[0] is not task and not isinstance(task, Worker):
        what = "is made in a task of its own, and its number depends on which task comes first"
        text = f"{path}: this call {what}; give each its own name: .with_(name=...)"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _expired(f: Frame) -> bool:
    """Say whether a deadline of its own, and no cancel from outside, ends the call *f*."""
    timer = f.timer
    return isinstance(timer, Timer) and timer.fired and timer.task.cancelling() - 1 <= timer.before


def _arm(f: Frame, left: float) -> None:
    """Let the deadline of the call *f* be in *left* seconds; infinite: only when it is told so."""
    later = 10.0**8 if left == math.inf else left
    f.deadline = clock.now() + later
    if isinstance(f.timer, Timer):
        f.timer.handle.cancel()
        f.timer.handle = f.timer.task.get_loop().call_later(later, f.timer.fire)


def _shown(call: StepCall) -> bytes | None:
    """Return the input as it is kept: canonical JSON, of a long one its beginning and a digest."""
    data = call.spec.signature.shown(*call.bound)
    if data is None or len(data) <= _SHOWN:
        return data
    return data[:_SHOWN] + b"... blake2b:" + blake2b(data, digest_size=16).hexdigest().encode()


def _around(f: Frame) -> Iterator[Any]:
    """Yield the modules of the call *f* and of those around it."""
    while f.mod is not None:
        yield f.mod
        f = f.parent


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _forget(bus: Any, ident: str) -> None:
    with suppress(AttributeError, KeyError):
        del bus.questions[ident]
