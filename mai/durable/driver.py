"""A driver carries one run on in this process.

It claims the run, lets its code go on, gives it back while it only waits, and claims it anew when there is something to
do.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mai.core.call import begin
from mai.core.clock import clock
from mai.core.control import Control
from mai.core.drive import outcome
from mai.core.events import Bell
from mai.core.frame import Scope, scoped
from mai.core.recorded import Suspended
from mai.core.trace import TraceHandle
from mai.durable.code import Code
from mai.durable.ending import status_of, take_back, uncancel
from mai.durable.places import Place
from mai.durable.records import ENDED, Journal, Lease, Record, RunInfo, Status, What
from mai.durable.run import DurableRun, Unloaded
from mai.durable.segments import JournalSegment, begun_anew
from mai.errors import Fenced, NeedsAttention, PayloadError, ReplayMismatch
from mai.values.casts import written

if TYPE_CHECKING:
    from mai.durable.engine import DurableEngine

__all__ = ["Driver"]

MAX_CLAIMS = 10  # without a new record, after which a run needs attention
LOOK = 1.0  # seconds between two looks at a run that another process carries on
_LOST: Any = object()  # the run has not ended, and is not held here any more


class Driver:
    """What this process knows of one run.

    Attributes:
        control: Of the handle that events and questions go to.
        run: The run while it is held here and goes on.
        controls: Of all handles of the run.
        place: Among the runs that are carried on at once.
        waits: Whether there is nothing to do but to wait.
        made: Whether the journal knows of the run.
        is_made: Rings when it does.
    """

    def __init__(
        self, engine: "DurableEngine", run_id: str, code: Code, data: bytes, due: float | None, *, adopted: bool = False
    ) -> None:
        self.engine = engine
        self.run_id = run_id
        self.code = code
        self.data = data
        self.control: Control | None = None
        self.controls: list[Control] = []
        self.place: Place = Place(engine.places, taken=adopted)
        self.run: DurableRun | None = None
        self.waits: bool = False
        self.made: bool = False
        self.is_made: Bell = Bell()
        self._due, self._told = due, -1
        self._changed, self._news, self._seen, self._woken = Bell(), 0, 0, adopted

    def inform(self, what: What | None = None) -> None:
        """Take note of something that happened to the run, in its own loop."""
        self._news += 1
        self._changed.ring()
        if self.run is not None and what == "cancel":
            self.run.past.cancel()
        elif self.run is not None:
            self.run.rests.nudge()

    def see(self) -> None:
        """Note that all that happened so far has been looked at."""
        self._seen = self._news

    # ---------------------------------------------------------------- from claim to claim

    async def begin(self, scope: Scope, h: TraceHandle[Any]) -> Any:
        """Make the run, or find it, and drive it."""
        try:
            owner = self.engine.owner if self._due is None else None
            found: tuple[RunInfo, bool] | None = await through(self.engine, self.run_id, self.make(scope, owner=owner))
        finally:
            self._note_made()
        if found is None:
            return await self.drive(scope, h)
        info, made = found
        held = (Lease(self.run_id, self.engine.owner, info.epoch), info, list[Record](), None)
        return await self.drive(scope, h, held if made and self._due is None else None)

    def _note_made(self) -> None:
        self.made = True
        self.is_made.ring()

    async def make(self, scope: Scope, *, owner: str | None = None) -> tuple[RunInfo, bool]:
        """Make the run in the journal, or find it there."""
        facts: dict[str, Any] = {"metadata": kept(scope.env.metadata)}
        if scope.deadline is not None:
            facts["deadline"] = clock.wall() + scope.deadline - clock.now()
        return await self.engine.journal.create(
            self.run_id, target=self.code.target, plan=self.code.plan, fingerprint=self.code.fingerprint,
            input=self.data, metadata=written(facts).encode(), due=self._due, owner=owner, ttl=self.engine.ttl,
        )  # fmt: skip

    async def drive(self, scope: Scope, h: TraceHandle[Any], held: Any = None) -> Any:
        """Carry the run on until it has ended, and give or raise what came of it."""
        self._note_made()
        try:
            while True:
                await self.place.take()
                while held is None:
                    asked: tuple[RunInfo, Any] | None = await through(self.engine, self.run_id, self._claimed())
                    info, held = asked or (None, None)
                    if info is not None and info.status in ENDED:
                        return self.engine.outcome(info, self.code)
                    if info is not None and held is None:
                        await self._wait(info)
                found = await self._carried(scope, h, *held)
                if found is not _LOST:
                    return found
                held, scope.env = None, scope.env._replace(sink=None)
        finally:
            self.place.give()

    async def _claimed(self) -> tuple[RunInfo, Any]:
        """Return what is known of the run, and what claiming it gave, if it looks as if it could be carried on."""
        info = await self.engine.info(self.run_id)
        woken, self._woken = self._woken, False
        due = info.due is not None and info.due <= clock.wall()
        if info.status == "pending" and info.due is not None:
            may = info.cancelled or due
        else:
            may = woken or info.cancelled or due or info.status != "waiting"
        if info.status in ENDED or info.status == "needs_attention" or not may:
            return info, None
        held = await self.engine.journal.claim(self.run_id, self.engine.owner, self.engine.ttl)
        return info, None if held is None else (*held, info)

    async def _wait(self, info: RunInfo) -> None:
        """Wait until something has happened to a run that is not held here, or its time has come."""
        if info.status == "needs_attention":
            raise attention(self.run_id)
        if self.engine.closing:
            raise asyncio.CancelledError
        self.place.give()
        limit = None if info.due is None else max(0.0, info.due - clock.wall())
        if info.owner is not None or limit == 0.0:  # somebody else has it, or is about to
            limit = LOOK
            if self._told != info.epoch:  # once for each lease
                self._told = info.epoch
                _tell(info)
        timer = None if limit is None else asyncio.get_running_loop().call_later(limit, self.inform)
        self.waits = True
        try:
            await self._changed.heard(lambda: self._news != self._seen)
        except asyncio.CancelledError:
            if self.engine.closing:
                raise
            uncancel()
            await through(self.engine, self.run_id, self.engine.journal.cancel(self.run_id))
        finally:
            self.waits, self._woken = False, True
            self.see()
            if timer is not None:
                timer.cancel()
        await self.place.take()

    async def _carried(
        self, scope: Scope, h: TraceHandle[Any], lease: Lease, info: RunInfo, records: list[Record],
        before: RunInfo | None,
    ) -> Any:  # fmt: skip
        """Let the run go on until it ends."""
        if info.claims > MAX_CLAIMS:
            await self.engine.journal.release(lease, status="needs_attention")
            raise attention(self.run_id, f"it was taken up {MAX_CLAIMS} times without getting a step further")
        segment = JournalSegment(info, records, before, h)
        run = self.run = DurableRun(self.engine, lease, info, self.code.past(records), segment, self.see)
        try:
            if info.cancelled and not records:
                return await self._ended(run, scope, None, asyncio.CancelledError())
            return await self._ended(run, scope, *await self._attempted(run, scope, h, info))
        finally:
            run.rests.close()
            self.run = None

    async def _attempted(
        self, run: DurableRun, scope: Scope, h: TraceHandle[Any], info: RunInfo
    ) -> tuple[Any, BaseException | None]:
        """Run the code from its beginning; what is on record is not done again."""
        facts, module = json.loads(info.metadata), self.code.module
        deadline = facts.get("deadline")
        until = None if deadline is None else clock.now() + max(0.0, deadline - clock.wall())
        metadata = MappingProxyType({**facts.get("metadata", {}), **scope.env.metadata})
        p = scoped(scope, deadline=until, armed=None, metadata=metadata)
        p.run = run
        begun_anew(h, {**module._mai_spec.facts, **run.segment.attributes})
        try:
            args, kwargs = module._mai_spec.signature.load(info.input)
            call = args, kwargs, run.segment.attributes, h
            return await outcome(begin(module, p, f"/{self.code.target}", 0, *call)), None
        except BaseException as error:  # noqa: BLE001 (becomes the outcome of the run)
            return None, error

    # ---------------------------------------------------------------- the end

    async def _ended(self, run: DurableRun, scope: Scope, value: Any, error: BaseException | None) -> Any:
        """Write down how the run came out of its code, and give or raise that."""
        cancel, past = isinstance(error, asyncio.CancelledError), run.past
        past.conclude()
        if cancel and run.stopped is None and not (self.engine.closing or past.cancelled):  # by its handle
            past.cancelled = True
            uncancel()
            await through(self.engine, self.run_id, self.engine.journal.cancel(self.run_id))
        final = error is None or isinstance(error, Exception) or (cancel and past.cancelled)
        if final and run.stopped is None and past.left and not past.cancelled:
            run.stop(past.leftover())
        if final and run.stopped is None and error is not None:
            uncancel()
            with suppress(Suspended):  # and `stopped` says why
                await take_back(run, scope, error, partial(self._cut, run))
        if run.stopped is not None or not final:
            return await self._left(run, error)
        status, output, facts, error = self._result(value, error)
        try:
            await through(
                self.engine, self.run_id, self.engine.journal.finish(run.lease, status, output=output, error=facts)
            )
        except Fenced:
            return _LOST
        if error is not None:
            raise error
        return self.code.load(output)

    def _result(
        self, value: Any, error: BaseException | None
    ) -> tuple[Status, bytes | None, bytes | None, BaseException | None]:
        if error is None:
            try:
                return "ok", self.code.dump(value), None, None
            except PayloadError as failure:
                error = failure
        facts, raised = self.engine.failures.crossed(error, self.code.modules)
        return status_of(raised), None, facts, raised

    def _cut(self, run: DurableRun) -> None:
        if self.engine.closing:
            raise run.stop(Unloaded("the engine is left"))

    async def _left(self, run: DurableRun, error: BaseException | None) -> Any:
        """Give back a run that has not ended."""
        why, journal = run.stopped, self.engine.journal
        if isinstance(why, Fenced):
            return _LOST
        if why is None and error is not None and not isinstance(error, asyncio.CancelledError):
            raise error  # the process ends: the lease runs out, and that the run was taken up counts
        if isinstance(why, ReplayMismatch):
            info = await self.engine.info(self.run_id)
            plan = await journal.blob(info.plan) if info.plan else None
            await journal.release(run.lease, status="needs_attention")
            raise self.code.explained(why, info, plan)
        if why is not None and not isinstance(why, Unloaded):  # the journal fails: others may have more luck
            with suppress(Exception):
                await journal.release(run.lease, due=clock.wall())
            raise why
        dues = [rest.due for rest in run.waits if rest.due is not None]
        waits = {rest.path: rest.signal for rest in run.waits if rest.signal is not None}
        due = min(dues, default=None) if run.waits else clock.wall()
        await through(self.engine, self.run_id, _released(journal, run, due, waits))
        if why is None and error is not None:
            raise error
        return _LOST


def _tell(info: RunInfo) -> None:
    """Say who else has the run, so that whoever waits for it can know why."""
    if info.owner is not None and info.lease_until is not None:
        left = max(0.0, info.lease_until - clock.wall())
        text = "run %r: %s carries it on; if that process was killed, its lease is over in %.0f s at most"
        logging.getLogger("mai").info(text, info.run_id, info.owner, left)


async def _released(journal: Journal, run: DurableRun, due: float | None, waits: Mapping[str, str]) -> None:
    """Give the lease back, after the segment has left its mark."""
    if (mark := run.segment.mark(leaving=True)) is not None:
        await journal.append(run.lease, mark)
    await journal.release(run.lease, due=due, waits=waits)


async def through(engine: "DurableEngine", run_id: str, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what *work* gives, through any cancel; None if one came: the journal then knows that the run was."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    found = task.result()
    if not cancelled:
        return found
    if engine.closing:
        raise asyncio.CancelledError
    uncancel()
    await through(engine, run_id, engine.journal.cancel(run_id))
    return None


def attention(run_id: str, why: str = "it cannot go on by itself") -> NeedsAttention:
    """Return the error of a run that somebody has to look at."""
    return NeedsAttention(f"Run {run_id!r} needs attention: {why}; look at it, then resume it", run_id=run_id)


def kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON can hold of *metadata*."""
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        with suppress(TypeError, ValueError):
            found[key] = json.loads(written(value))
    return found
