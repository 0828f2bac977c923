"""The durable engine: starts runs, tells them what comes from outside, and takes over those whose process is gone.

Size: what a run can be asked from outside is one list.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from mai.core.clock import clock
from mai.core.drive import framed
from mai.core.engine import start_run
from mai.core.events import Bell
from mai.core.frame import ROOT, Frame, Scope, current, scoped
from mai.core.ids import new_id as fresh_id
from mai.core.trace import TraceHandle, ended
from mai.durable.code import Code, Codes
from mai.durable.driver import LOOK, Driver, attention, through
from mai.durable.ending import uncancel
from mai.durable.failures import Failures
from mai.durable.places import Places
from mai.durable.questions import chosen, over
from mai.durable.records import ENDED, Journal, Record, RunInfo, Status, What
from mai.durable.segments import is_mark
from mai.durable.starting import RecordingEngine, chosen_id
from mai.durable.storage.tables import ERRORS
from mai.durable.uptake import Uptake
from mai.errors import ConfigError, RunExists, UnknownRun
from mai.types import Payload
from mai.values.casts import caster
from mai.values.checked import COUNT, PAUSE, SECONDS, checked
from mai.values.events import Outcome

__all__ = ["DurableEngine"]


class DurableEngine(RecordingEngine):
    """Runs calls so that they survive the process: what was done is in a journal, and is not done again.

    ``async with`` chooses it for the calls inside, as any engine. A call outside of a run (``await m(x)``,
    ``m.start(x)``) becomes a run with a fresh id; `start` takes one of yours. Leaving the block waits for runs that do
    something, and so for all their handles; those that only wait stay in the journal. An exception gives all of them
    back to the journal, to be carried on by whoever serves their code. The handles of a run that was left to the
    journal raise CancelledError; the run itself was not cancelled.

    Size: what a run can be asked from outside is one list.

    Args:
        journal: Where records are kept; the engine closes it when the block ends.
        modules: Code for runs that were begun elsewhere, as by `serve`.
        errors: Exception classes that replays may raise beside those that steps and flows themselves can name.
        auth: The ``auth`` of runs that are taken up again: it is in no journal.
        ttl: How long a lease lives that is not renewed [s]: so long a run waits whose process was killed.
        linger: How long a run does nothing but wait before it leaves memory [s].
        max_runs: How many runs are taken up from the journal at once, at least 1. The others stay there until there is
            a place, for this process or another one. A run that only waits has no place; one that is started here
            takes one, and never waits for it.
        max_threads: As of `LocalEngine`.
        max_abandoned: As of `LocalEngine`.

    Raises:
        ConfigError: If an argument cannot be used, or the block is entered inside a run.

    Example:
        >>> import asyncio
        >>> from mai import module
        >>> from mai.durable import DurableEngine, MemoryJournal
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> async def main() -> int:
        ...     async with DurableEngine(MemoryJournal()) as engine:
        ...         return await engine.start(double, 21, run_id="order-42")
        >>> asyncio.run(main())
        42
    """

    def __init__(
        self,
        journal: Journal,
        *,
        modules: Iterable[Any] = (),
        errors: Iterable[type[Exception]] = (),
        auth: Any = None,
        ttl: float = 30.0,
        linger: float = 1.0,
        max_runs: int = 1000,
        max_threads: int = 64,
        max_abandoned: int = 64,
    ) -> None:
        super().__init__(max_threads=max_threads, max_abandoned=max_abandoned)
        self.journal: Journal = journal
        self.failures: Failures = Failures([*errors, *ERRORS])
        self.owner: str = fresh_id()
        self.auth: Any = auth
        self.ttl: float = checked("DurableEngine", "ttl", ttl, SECONDS)
        self.linger: float = checked("DurableEngine", "linger", linger, PAUSE)
        self.places: Places = Places(checked("DurableEngine", "max_runs", max_runs, COUNT))
        self.closing: bool = False
        self.codes: Codes = Codes()
        self._drivers: dict[str, Driver] = {}
        self._uptake = Uptake(self)
        self._told_bell, self._told_count = Bell(), 0
        self._unwatch: Callable[[], object] | None = None
        for module in modules:
            self.serve(module)

    # ---------------------------------------------------------------- starting

    def serve(self, module: Any, /, *, moved: Mapping[str, str] | None = None) -> None:
        """Hand over the code of runs, which are found by the module's name.

        Several modules of one name may be served: a run goes on with the one whose plan it was begun with, if it is
        there, else with the one that was served last.

        Args:
            module: The module.
            moved: New paths of records, by their old ones, for runs that were begun with another plan.
        """
        self.codes.add(module, moved)
        if self._unwatch is not None:
            self.soon(self._uptake.look())

    def _start(self, module: Any, bound: Any, run_id: str | None, delay: float) -> TraceHandle[Any]:
        if self._unwatch is None or self.closing:
            raise ConfigError(f"{type(self).__name__}: runs are started inside of 'async with engine:'")
        code, due = self.codes.add(module, served=False), clock.wall() + delay if delay > 0 else None
        driver = Driver(self, chosen_id("start", "run_id", run_id), code, module._mai_spec.signature.dump(*bound), due)
        known = self._drivers.setdefault(driver.run_id, driver)
        return self._begin(driver, current(), driver.begin if known is driver else partial(self._attend, driver, known))

    def _begin(self, driver: Driver, p: Frame, drive: Any) -> TraceHandle[Any]:
        """Start a task that drives a run, or attends it."""
        scope = scoped(ROOT)
        scope.env, scope.deadline = p.env._replace(engine=self, bus=None, slot=None, door=None), p.deadline
        key, module = f"/{driver.code.target}", driver.code.module
        handle = start_run(self._framed, module, scope, key, 0, driver, drive, None)
        known, control = self._drivers[driver.run_id], handle._started()
        known.controls.append(control)
        if known is driver:
            driver.control = control
        elif known.control is not None:  # one more handle of the run: it answers the same questions
            control.questions = known.control.questions
            known.place.hurry()
        return handle

    def _framed(self, m: Any, scope: Scope, key: str, n: int, *call: Any) -> Frame:
        driver, drive, _, h = call
        return framed(self._watched(driver, drive(scope, h), h))

    async def _watched(self, driver: Driver, drive: Coroutine[Any, Any, Any], h: TraceHandle[Any]) -> Any:
        """Return what a driver gives, and forget it."""
        outcome: Outcome = "error"
        try:
            value = await drive
            outcome = "replayed"
            return value
        except asyncio.CancelledError:
            outcome = "suspended" if self.closing else "cancelled"
            raise
        finally:
            if h.outcome in ("running", "suspended") and h.outcome != outcome:  # nothing of it ran here, or not its end
                ended(h, outcome)
            if self._drivers.get(driver.run_id) is driver:
                del self._drivers[driver.run_id]
            self._hear()

    async def _attend(self, driver: Driver, known: Driver, scope: Scope, h: TraceHandle[Any]) -> Any:
        """Wait for a run that has a driver in this process already; leaving the block, as long as that one goes on."""
        await through(self, driver.run_id, driver.make(scope))
        while True:
            try:
                return await self._result(
                    driver.run_id, lambda: self.closing and self._drivers.get(driver.run_id) is not known
                )
            except asyncio.CancelledError:
                if self.closing or not uncancel():  # else by this handle
                    raise
                await through(self, driver.run_id, self.journal.cancel(driver.run_id))

    # ---------------------------------------------------------------- what happens elsewhere

    def _told(self, run_id: str, what: What) -> None:
        """Take note of something that happened to a run; from any thread."""
        driver = self._drivers.get(run_id)
        if driver is not None and driver.control is not None:
            with suppress(RuntimeError):  # its loop was closed
                driver.control.loop.call_soon_threadsafe(driver.inform, what)
        elif driver is None and what != "ended":
            self.soon(self._uptake.told(run_id))
        self._hear()

    def _has_news(self, mark: int) -> bool:
        return self._told_count != mark

    def _hear(self) -> None:
        self._told_count += 1
        self._told_bell.ring()

    def drives(self, run_id: str) -> bool:
        """Say whether this process has a run in hand, or waits with it."""
        return run_id in self._drivers

    def known(self) -> int:
        """Return how many runs this process has in hand, or waits with."""
        return len(self._drivers)

    def adopt(self, info: RunInfo, code: Code) -> None:
        """Drive a run that was found in the journal; a place was taken for it."""
        driver = self._drivers[info.run_id] = Driver(self, info.run_id, code, info.input, info.due, adopted=True)
        self._begin(driver, scoped(ROOT, auth=self.auth), driver.drive)

    def soon(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do *work* in the loop of the engine, unless its block is being left; from any thread."""
        if self.closing:
            work.close()
        elif asyncio._get_running_loop() is self.loop:
            self._do(work)
        else:
            self.loop.call_soon_threadsafe(self._do, work)

    def send(self, run_id: str, name: str, data: bytes) -> None:
        """Send what answers a question, in the loop of the engine; while its block is being left, too."""
        self._do(self.journal.signal(run_id, name, data))

    @property
    def is_open(self) -> bool:
        """Whether its journal takes anything."""
        return self._unwatch is not None

    # ---------------------------------------------------------------- controlling runs

    async def result(self, run_id: str) -> Any:
        """Wait for the end of a run and return its value, or raise its error.

        Of a module that is not served here the value is what its JSON says.

        Raises:
            UnknownRun: If there is no such run.
            NeedsAttention: If it cannot go on by itself.
        """
        return await self._result(run_id, lambda: False)

    async def _result(self, run_id: str, is_left: Callable[[], bool]) -> Any:
        while True:
            mark = self._told_count
            left = is_left()  # before it is asked how far the run is
            info = await self.info(run_id)
            if info.status in ENDED:
                return self.outcome(info, self.codes.find(info))
            if info.status == "needs_attention":
                raise attention(run_id)
            if left:
                raise asyncio.CancelledError
            timer = asyncio.get_running_loop().call_later(LOOK, self._hear)
            try:
                await self._told_bell.heard(partial(self._has_news, mark))
            finally:
                timer.cancel()

    async def signal(self, run_id: str, name: str, value: object = None, *, id: str | None = None) -> bool:  # noqa: A002
        """Send a signal, whether the run waits for it already or not; ``wait_for(name)`` takes it.

        Args:
            run_id: The run.
            name: Name of the signal.
            value: What it carries: a value that pydantic can write, or a Payload.
            id: By which a second sending of the same signal is known, and not stored again.

        Returns:
            False if the run has ended.

        Raises:
            UnknownRun: If there is no such run.
            PayloadError: If *value* cannot be written as JSON.
        """
        data = value.json() if isinstance(value, Payload) else caster(type(value)).dump(value)
        await self._made(run_id)
        return await self.journal.signal(run_id, name, data, id=id)

    async def answer(self, run_id: str, value: object, *, question: str | None = None) -> None:
        """Answer a question of a run.

        Args:
            run_id: The run.
            value: The answer. It is checked here if the run was loaded in this process, else by the step that asks.
            question: The id of the question: the path of its ``ask``. Needed where several are open.

        Raises:
            AskError: If no question is open, several are and *question* is not given, or the run has ended.
            CastError: If *value* does not fit.
            UnknownRun: If there is no such run.
        """
        info, driver = await self.info(run_id), self._drivers.get(run_id)
        known = {} if driver is None or driver.control is None else driver.control.questions
        if info.status in ENDED:
            raise over(value, run_id)
        which = chosen(value, question, [*known, *info.waits.values()], run_id)
        asked = known.get(which)
        data = asked[0].data(value) if asked is not None else caster(type(value)).dump(value)
        if not await self.journal.signal(run_id, which, data):  # it has ended since
            raise over(value, run_id)

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of a run; False: it has ended already.

        Raises:
            UnknownRun: If there is no such run.
        """
        await self._made(run_id)
        return await self.journal.cancel(run_id)

    async def resume(self, run_id: str) -> bool:
        """Let a run go on that needs attention; False: it does not.

        Raises:
            UnknownRun: If there is no such run.
        """
        return await self.journal.resume(run_id)

    async def fork(
        self, run_id: str, *, at: str | None = None, override: Mapping[str, object] | None = None,
        new_id: str | None = None,
    ) -> TraceHandle[Any]:  # fmt: skip
        """Start a new run from the records of another one, and return its handle.

        Its delays and timeouts have the time that was left at that point.

        Args:
            run_id: The run to start from, ended or not.
            at: Path of the first record that is not taken over; None: all are.
            override: Values to put in the place of recorded ones, by path.
            new_id: The id of the new run; None: a fresh one.

        Raises:
            UnknownRun: If there is no such run.
            RunExists: If there is a run *new_id*.
            ConfigError: If a path has no record, *new_id* cannot be used, or the code of the run is not served here.
        """
        info = await self.info(run_id)
        code = self.codes.find(info)
        if code is None:
            raise ConfigError(f"fork: module {info.target!r} of run {run_id!r} is not served here: engine.serve(...)")
        values = {path: caster(type(value)).dump(value) for path, value in (override or {}).items()}
        driver = Driver(self, chosen_id("fork", "new_id", new_id), code, info.input, None)
        if self._drivers.setdefault(driver.run_id, driver) is not driver:
            raise RunExists(f"there is a run {new_id!r} already; choose another run_id", run_id=driver.run_id)
        try:
            await self.journal.fork(run_id, driver.run_id, at=at, override=values)
        except BaseException:
            del self._drivers[driver.run_id]
            raise
        return self._begin(driver, current(), driver.drive)

    # ---------------------------------------------------------------- looking

    async def info(self, run_id: str) -> RunInfo:
        """Return what is known of a run.

        Raises:
            UnknownRun: If there is no such run.
        """
        await self._made(run_id)
        info = await self.journal.run(run_id)
        if info is None:
            raise UnknownRun(f"There is no run {run_id!r}", run_id=run_id)
        return info

    async def _made(self, run_id: str) -> None:
        """Wait until a run that is being started here is in the journal."""
        driver = self._drivers.get(run_id)
        if driver is not None:
            await driver.is_made.heard(lambda: driver.made)

    async def runs(
        self, status: Status | None = None, *, limit: int = 100, after: str | None = None
    ) -> Sequence[RunInfo]:
        """Return what is known of runs, newest first; *after* is the last one of the page before."""
        return await self.journal.runs(status, limit=limit, after=after)

    async def history(self, run_id: str) -> Sequence[Record]:
        """Return the records of a run in the order of completion.

        Raises:
            UnknownRun: If there is no such run.
        """
        await self._made(run_id)
        return [record for record in await self.journal.history(run_id) if not is_mark(record.path)]

    def outcome(self, info: RunInfo, code: Code | None) -> Any:
        """Return the value of a run that has ended, or raise its error."""
        if info.status == "ok":
            return json.loads(info.output or b"null") if code is None else code.load(info.output)
        if info.error is None:
            raise asyncio.CancelledError
        raise self.failures.load(info.error, () if code is None else code.modules)

    # ---------------------------------------------------------------- the block

    async def __aenter__(self) -> Self:
        if self._unwatch is None:
            await self.journal.open()
            self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
            self.closing = False
            self._unwatch = self.journal.watch(self._told, targets=self.codes.targets)
            self.soon(self._uptake.look())
        await super().__aenter__()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        last = self._leaves_last()
        if last:
            self._close(at_once=error is not None)
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            if last:
                await self._closed()

    def _close(self, *, at_once: bool) -> None:
        """Let runs that only wait end here, and, *at_once*, all others."""
        self.closing, self.linger = True, 0.0
        self.places.close()
        going = [driver for driver in self._drivers.values() if not (driver.waits or driver.place.waits)]
        busy = {control for driver in going for control in driver.controls}
        for control in list(self.ongoing):
            if at_once or control not in busy:
                control.cancel()
        for driver in list(self._drivers.values()):
            if driver.run is not None:
                driver.run.rests.look()

    async def _closed(self) -> None:
        while self._work:
            done, _ = await asyncio.wait(self._work)
            self._work -= done  # before they are called back
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        await self.journal.close()
