"""The body of one step: it runs on the loop of the process, and what comes of it is one entry of the journal.

An entry has a line about the step (JSON: its input, its version, its failure) and, if it gave a value, a second line
with the JSON of that.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple

from mai.core.clock import clock
from mai.core.control import join
from mai.core.drive import late
from mai.core.events import Bell
from mai.core.frame import Timer
from mai.core.recorded import StepCall
from mai.durable.calls import around, expired, has_deadline, shown
from mai.durable.failures import Failures
from mai.durable.restate.segment import RestateSegment
from mai.values.casts import caster, written

__all__ = ["Body", "Busy", "Entry"]


class Entry(NamedTuple):
    """What the journal has of a step.

    Attributes:
        input: The input as it is shown; None if it has none.
        version: The version of the module.
        output: The value, as JSON.
        error: The failure as data.
        cancelled: Whether the step was cut off.
        segment: Of the first entry of a segment, which one that is.
    """

    input: str | None = None
    version: str | None = None
    output: bytes | None = None
    error: str | None = None
    cancelled: bool = False
    segment: str | None = None

    def dump(self) -> bytes:
        """Return the entry as it is kept."""
        facts = {key: fact for key, fact in self._asdict().items() if fact and key != "output"}
        about = written(facts).encode("utf-8", "backslashreplace")
        return about if self.output is None else about + b"\n" + self.output

    @classmethod
    def load(cls, data: bytes) -> "Entry":
        """Return the entry that `dump` wrote."""
        about, parted, output = data.partition(b"\n")
        return cls(**json.loads(about), output=output if parted else None)


class Busy:
    """How many steps of each run go on here; *bell* rings when one has ended.

    Attributes:
        is_closed: Whether no other step is to begin here.
    """

    def __init__(self) -> None:
        self.is_closed: bool = False
        self.counts: Counter[str] = Counter()
        self.bell: Bell = Bell()

    @contextmanager
    def one(self, run_id: str) -> Generator[None]:
        """Count one more inside the block."""
        self.counts[run_id] += 1
        try:
            yield
        finally:
            self.counts[run_id] -= 1
            self.bell.ring()

    def is_over(self) -> bool:
        """Say whether there are none."""
        return not +self.counts


class Body:
    """One call of a step in this process.

    Args:
        failures: How failures become data.
        call: The step.
        busy: Where it is counted while it runs.
        run_id: The run.
        segment: What is told of the run.

    Attributes:
        ran: Whether it ran here, so that *value* or *raised* is what came of it.
        began: Whether it was to run here, and was not cut off before.
    """

    def __init__(self, failures: Failures, call: StepCall, busy: Busy, run_id: str, segment: RestateSegment) -> None:
        self.ran: bool = False
        self.began: bool = False
        self._cancelled = False
        self.value: Any = None
        self.raised: BaseException | None = None
        self._failures, self._call, self._context = failures, call, copy_context()
        self._busy, self._run_id, self._segment = busy, run_id, segment
        self._task: asyncio.Task[bytes] | None = None
        data = shown(call)
        self._entry = Entry(None if data is None else data.decode(errors="replace"), call.spec.version)

    def differs(self, entry: Entry) -> tuple[str, str] | None:
        """Return what the journal says of the call and what is so now, where these are not the same."""
        now = self._entry
        if entry.input is not None and now.input is not None and entry.input != now.input:
            return entry.input, now.input
        if entry.version != now.version:
            return f"version {entry.version!r}", f"version {now.version!r}"
        return None

    def cancel(self) -> None:
        """Cut it off; there will be an entry that says so, unless it ends in another way."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def action(self) -> bytes:
        """Run it, unless it is cut off already; a cancel of this call itself leaves no entry."""
        if self._cancelled:
            return self._entry._replace(cancelled=True).dump()
        if self._busy.is_closed:  # the run goes on elsewhere, once this attempt is broken off
            await asyncio.get_running_loop().create_future()
        self.began = True
        self._segment.live(self._call.frame.parent)
        self._task = asyncio.get_running_loop().create_task(self._performed(), context=self._context)
        with self._busy.one(self._run_id):
            return await self._task

    async def _performed(self) -> bytes:
        """Run the body as a call of its own task, with a timer for a deadline that no flow around keeps."""
        f, task = self._call.frame, asyncio.current_task()
        assert task is not None
        outer = f.y, f.timer
        f.y = task, task.cancelling(), ()
        if has_deadline(f) and f.deadline is not None:
            f.timer = Timer(task, task.cancelling(), f.deadline - clock.now())
        try:
            return (await self._outcome(task))._replace(segment=self._segment.mark()).dump()
        finally:
            if f.timer is not outer[1] and isinstance(f.timer, Timer):
                f.timer.handle.cancel()
            f.y, f.timer = outer

    async def _outcome(self, task: "asyncio.Task[Any]") -> Entry:
        """Return the entry of what came of the body."""
        f, before, failures = self._call.frame, task.cancelling(), self._failures
        tp = caster(self._call.spec.signature.returns)
        raised: BaseException
        try:
            output = tp.dump(await self._call.run())
            self.value, self.ran = tp.load(output), True  # the first run gives what a replay gives
            return self._entry._replace(output=output)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (becomes the entry of the step)
            raised = error
        if f.started is not None:
            await join(f.started, raised)
        if expired(f):
            raised = late(f)
        elif isinstance(raised, asyncio.CancelledError) and self._cancelled:
            return self._entry._replace(cancelled=True)
        elif isinstance(raised, asyncio.CancelledError) and task.cancelling() > before:
            raise raised  # the attempt to carry the run on is over
        facts, self.raised = failures.crossed(raised, around(f))
        self.ran = True
        return self._entry._replace(error=facts.decode())
