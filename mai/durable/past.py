"""The recorded past of a run, while it is repeated.

What is on record is given back at once, wherever and whenever it is asked for. What is not has to wait until all that
is on record has been repeated: only then is known whether it may begin, or whether the branch, flow or run that it
belongs to was ended at that point. That it is repeated shows when all of it was asked for, or else when nothing has
moved for so many turns of the event loop that nothing can still be on its way.
"""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from mai.core.events import settle
from mai.core.frame import Frame, Timer
from mai.core.gather import Slot, held_slot
from mai.core.recorded import Suspended
from mai.durable.choices import Choice
from mai.durable.records import Kind, Record
from mai.durable.rules import INSIDE
from mai.errors import ReplayMismatch

__all__ = ["Past"]

TURNS = 64  # of the event loop without any move, after which nothing is still on its way
CLEANING = 0.01  # seconds until a past is looked at again in which branches that were cut off clean up
PATIENCE = 5.0  # seconds without any move, after which what is on record is not asked for any more
PAUSE = 0.01  # the same where no code has tasks of its own: until all that is ready has run, in whatever order
AGAIN = 0.1, 1.0  # seconds until a past is looked at again in which a branch does something of its own: first, longest

_Future = asyncio.Future[Any]


class Past:
    """The records of one run, and who waits for their end.

    Size: what ends a past is decided in one place, over all that may end it.

    Attributes:
        left: Paths of those that have not been asked for.
        live: Whether what is not on record may begin at once.
        stopped: Why nothing may go on any more.
        cancelled: Whether the run is to be cancelled.
        delivered: Whether it was.

    Args:
        run_id: The run.
        records: Its records.
        cancelled: Whether the run is to be cancelled.
        at_work: Says whether, with so many that wait here, a branch does something of its own, which may take long.
        patience: Says how long it may take that something moves which is in no branch [s].
    """

    def __init__(
        self, run_id: str, records: list[Record], *, cancelled: bool, at_work: Callable[[int], bool],
        patience: Callable[[], float],
    ) -> None:  # fmt: skip
        self.run_id = run_id
        self.records: dict[str, Record] = {record.path: record for record in records}
        self.left: set[str] = {path for path in self.records if not _is_own(path)}
        self.live: bool = False
        self.stopped: BaseException | None = None
        self.cancelled: bool = cancelled
        self.delivered: bool = False
        self._held: dict[_Future, str] = {}
        self._expiring: dict[str, tuple[float, Frame]] = {}
        self._choices: dict[str, tuple[float, Choice]] = {}
        self._moves, self._ticking, self._at_work, self._patience = 0, False, at_work, patience
        self._pause = AGAIN[0]
        self._task: Any = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if cancelled:
            self._watch()

    # ---------------------------------------------------------------- asking

    def enter(self) -> None:
        """Note that something goes on.

        Raises:
            Suspended: If nothing may any more.
        """
        self._moves += 1
        if self.stopped is not None:
            raise Suspended

    def get(self, path: str, *kinds: Kind) -> Record | None:
        """Return the record at *path*, which must be of one of *kinds*; it has been asked for."""
        record = self.records.get(path)
        if record is None:
            return None
        if record.kind not in kinds:
            raise self.mismatch(path, f"a {record.kind}", f"a {kinds[0]}")
        self.visit(path)
        return record

    def visit(self, path: str) -> None:
        """Note that the record at *path* was asked for."""
        self._moves += 1
        self.left.discard(path)
        if not self.left and self._held:
            self._watch()

    async def turn(self, path: str) -> None:
        """Wait until what is not on record may begin.

        The places under a ``limit`` are given back meanwhile, those further out, too: what is on record may need them
        to be repeated.
        """
        self.enter()
        if self.live or not (self.left or self._awaits_end()):
            self.live = True
            return
        future: _Future = self._loop.create_future()
        self._held[future] = path
        self._watch()
        places = _places()
        for place in places:
            place.leave()
        try:
            try:
                await future
            finally:
                del self._held[future]
                self._moves += 1
            while places:  # the outermost first; who enters has it again, whatever happens
                await places.pop().enter()
        except BaseException:
            for place in places:
                place.join()
            raise

    def is_held(self) -> bool:
        """Say whether something waits for the end of the past."""
        return bool(self._held)

    # ---------------------------------------------------------------- ends that belong to the past

    def expire(self, mark: str, seq: float, f: Frame) -> None:
        """Let the deadline of the flow *f* pass when its past has been repeated."""
        self._expiring[mark] = seq, f
        self._watch()

    def forget(self, mark: str) -> None:
        """Take back `expire` or `choose`."""
        self._expiring.pop(mark, None)
        self._choices.pop(mark, None)

    def defers(self, mark: str, choice: Choice) -> bool:
        """Let a branch end the others, where there is a past, only when it has been repeated; say whether there is."""
        if self.left:
            self.choose(mark, math.inf, choice)
        return bool(self.left)

    def choose(self, mark: str, seq: float, choice: Choice) -> None:
        """Let the branches that were cut off be so when their past has been repeated."""
        self._choices[mark] = seq, choice
        self._watch()

    def cancel(self) -> None:
        """Cancel the run: now, or when its past has been repeated."""
        self.cancelled = True
        if self.live and not self.delivered:
            self._deliver()
        elif not self.delivered:
            self._watch()

    def conclude(self) -> None:
        """The code of the run has ended: let what takes back its steps begin."""
        self.live = self.delivered = True

    def stop(self, why: BaseException, rests: Any = ()) -> Suspended:
        """Let everything that goes on, or waits (*rests*), end with Suspended, which is returned."""
        if self.stopped is None:
            self.stopped = why
            for future in [*self._held, *rests]:
                if not future.done():
                    future.set_exception(Suspended())
        return Suspended()

    def _awaits_end(self) -> bool:
        return bool(self._expiring or self._choices or (self.cancelled and not self.delivered))

    def _deliver(self) -> None:
        self.delivered = True
        self._task.cancel()

    # ---------------------------------------------------------------- when nothing moves

    def _watch(self) -> None:
        """See to it that somebody looks when nothing moves any more."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick, self._moves, 0)

    def _tick(self, mark: int, turns: int) -> None:
        moved = self._moves != mark
        if self.stopped is not None or self._task.done() or not (self._held or self._awaits_end()):
            self._ticking = False
        elif moved or turns < TURNS:
            self._loop.call_soon(self._tick, self._moves, 0 if moved else turns + 1)
        else:
            self._ticking = False
            self._settle()

    def _settle(self) -> None:
        """Do what comes next in a past in which nothing moves."""
        ends: list[tuple[float, Callable[[], object]]] = []
        ends += [(seq, partial(self._expire, mark)) for mark, (seq, _) in self._expiring.items()]
        ends += [(seq, choice.stop) for seq, choice in self._choices.values() if choice.is_ready()]
        if self.cancelled and not self.delivered:
            ends.append((math.inf, self._deliver))
        if ends:
            if min(ends, key=lambda end: end[0])[1]() is not False:
                self._moves += 1
                self._watch()
                return
            self._loop.call_later(CLEANING, self._watch)
            if self.left or not self._held:  # else what was cut off has something new to do
                return
        if not self.left:
            self.live = True
            for future in list(self._held):
                settle(future)
        elif self._held:
            at_work = self._at_work(len(self._held))
            self._pause = min(2 * self._pause, AGAIN[1]) if at_work else AGAIN[0]
            self._loop.call_later(self._pause if at_work else self._patience(), self._give_up, self._moves, at_work)

    def _expire(self, mark: str) -> None:
        _, f = self._expiring.pop(mark)
        if isinstance(f.timer, Timer):
            f.timer.fire()

    def _give_up(self, mark: int, at_work: bool) -> None:  # noqa: FBT001 (handed over by the loop)
        if self._moves != mark or at_work or self._at_work(len(self._held)):
            self._watch()
        elif self._held:
            self.stop(self.leftover())

    # ---------------------------------------------------------------- where code and records part

    def leftover(self) -> ReplayMismatch:
        """Return the error of records that nothing asks for any more."""
        first = min(self.left, key=lambda path: self.records[path].seq)
        wants = ", ".join(map(repr, self._held.values()))
        lost = f"{first!r} is on record, and nothing asks for it" + (f"; asked for is {wants}" if wants else "")
        message = f"Run {self.run_id!r} no longer does what it did: {lost}"
        return ReplayMismatch(message, run_id=self.run_id, step_id=first, recorded=first, found=wants)

    def mismatch(self, path: str, recorded: str, found: str) -> Suspended:
        """Stop the run where a record says one thing and the code another."""
        message = (
            f"Run {self.run_id!r} no longer does what it did at {path!r}\n  recorded: {recorded}\n  now:      {found}"
        )
        return self.stop(ReplayMismatch(message, run_id=self.run_id, step_id=path, recorded=recorded, found=found))


def _places() -> list[Slot]:
    """Return the places under a limit that the current call holds, the innermost first."""
    found, place = list[Slot](), held_slot()
    while place is not None:
        found.append(place)
        place = place.group.outer
    return found


def _is_own(path: str) -> bool:
    """Say whether a record is of the engine's own doing, and not asked for by the code of a flow."""
    return path.startswith("!") or "!undo" in path or INSIDE in path
