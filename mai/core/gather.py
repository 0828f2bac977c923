"""The branch runner: drives the branches that a `Work` hands out, and joins them whatever happens.

Spawn on suspend: branches run one after the other in one task until one really waits; only then does a new task take
over the rest, while the waiting branch stays in the task in which it began. So branches that never wait cost no task of
their own, and ``asyncio.current_task()`` inside a branch is a task that runs nothing else while the branch lives. The
caller's own task runs none of them: it only waits, so a cancel from outside reaches every branch at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

import anyio

from .clock import clock
from .drive import DONE, Body, Worker, breathe, finish, start
from .events import Bell
from .frame import Frame, current


class Work(Protocol):
    """A source of branches: what Parallel, Map, Race, and later Graph, are to the runner.

    ``feed``, where there is one, makes branches ready that ``more`` does not know yet: a coroutine function that has a
    task of its own. It is given a function that waits until there is a place for one branch more (False: stop), and
    says whether all went well. It needs a limit.
    """

    @property
    def feed(self) -> "Callable[[Callable[[], Awaitable[bool]]], Awaitable[bool]] | None":
        """What makes branches ready, if anything has to."""

    def more(self) -> int:  # pyright: ignore[reportReturnType]
        """Return how many branches are ready to be taken, as far as is known; 0: none is."""

    def take(self, slot: "Slot | None") -> tuple[Any, Frame | None, BaseException | None]:  # pyright: ignore[reportReturnType]
        """Start the next ready branch: its key, its frame, or the error that it ended with at once."""

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:  # pyright: ignore[reportReturnType]
        """Take the outcome of a branch, which may make others ready; False cancels and joins the rest."""


class Slot:
    """One place under a `limit`, held by a branch until it ends.

    A branch may run several strands at once (an inner Parallel without a limit); the place is given back while all of
    them are parked, and is taken again, in arrival order, before they go on. Tasks that user code made are strands
    that were not counted: of them, too, as many come back as were parked.
    """

    def __init__(self, group: "Group") -> None:
        self.group: Group = group
        self.strands: int = 0
        self.held: bool = False
        self.ended: bool = False
        self.turn: asyncio.Event | None = None  # while it waits for the place: set when it may look
        self.join()

    def join(self) -> None:
        """Count one strand more, at once, even beyond the limit: clean-up does not wait for a place."""
        self.strands += 1
        if not (self.held or self.ended):
            self.held = True
            self.group.live += 1
        if self.turn is not None:  # the first strand to go on takes the others of this place along
            self.turn.set()

    def leave(self) -> None:
        """Park one strand, or end it."""
        self.strands -= 1
        if self.held and self.strands <= 0:
            self.held = False
            self.group.live -= 1
            self.group.wake()

    def end(self) -> None:
        """Give the place up for good: what user code left behind goes on without one."""
        self.ended = True
        self.group.live -= self.held  # the next turn of this loop takes the place, unless somebody waits for it
        self.held = False
        if self.turn is not None:
            self.turn.set()
        if self.group.waiting:
            self.group.wake()

    async def enter(self) -> None:
        """Go on with a strand that was parked, as soon as there is a place."""
        waiting = self.group.waiting
        try:
            while not (self.held or self.ended) and (self.group.full() or (waiting and waiting[0] is not self)):
                if self.turn is None:
                    self.turn = asyncio.Event()
                    waiting.append(self)
                self.turn.clear()
                await self.turn.wait()
        finally:
            self.join()
            if self.turn is not None:
                waiting.remove(self)
                self.turn = None
            self.group.wake()


def held_slot() -> Slot | None:
    """Return the place that the current call holds, if any: of this very loop, and of a branch that has not ended."""
    slot = current().env.slot
    here = slot is not None and not slot.ended and slot.group.loop is asyncio.get_running_loop()
    return slot if here else None


class Group:
    """One gather: its tasks, its places, and how it ends."""

    def __init__(self, work: Work, limit: int | None = None) -> None:
        self.work: Work = work
        self.limit: int | None = limit
        self.live: int = 0  # places taken
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.waiting: deque[Slot] = deque()  # parked branches that want to go on
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self.coming: int = 0  # so many of them have not begun
        self.idle: asyncio.Future[None] = self.loop.create_future()
        self.crash: BaseException | None = None
        self.outside: tuple[Any, ...] | None = None  # what a cancel from outside said
        self.stopped: bool = False  # nothing new begins
        self.outer: Slot | None = held_slot()
        self.place: Bell = Bell()  # for which the feed waits
        self.context: Context = copy_context()  # of the caller: a branch may be the one that makes room for another
        self.burst: int = 1  # so many begin at once, more and more while no branch ends after a wait
        self.since: int = 0  # when the last one of the workers began, or went on after a pause [ns]
        # Let the loop run about every millisecond; in a run that records, at the same places in each replay.
        self.stint: int = -1 if getattr(current().run, "records", False) else 1_000_000

    def full(self) -> bool:
        """Say whether every place is taken."""
        return self.limit is not None and self.live >= self.limit

    def wake(self) -> None:
        """Give a free place to the first strand that waits to go on, else to a branch that has not begun."""
        if self.waiting:
            if not self.full() and (turn := self.waiting[0].turn) is not None:
                turn.set()
        elif self.limit is not None and not self.stopped:
            self.spread()

    def spread(self) -> None:
        """Let new tasks take over what has not begun: several at once, as a turn of the loop for each costs as much."""
        if not self.coming and (ready := self.work.more()):
            most = min(ready, self.burst, 64)
            self.burst += most
            for _ in range(most if self.limit is None else min(most, self.limit - self.live)):
                self.spawn()
        if self.limit is not None:
            self.place.ring()

    async def room(self) -> bool:
        """Wait until all that is ready has begun and there is a place for more; False where nothing new may begin."""
        self.wake()
        await self.place.heard(lambda: self.stopped or not (self.full() or self.waiting or self.work.more()))
        return not self.stopped

    def spawn(self, feed: Any = None) -> None:
        """Let a new task take over what has not begun, or let it feed the others."""
        self.coming += feed is None
        worker = self.worker(feed)
        worker.send(None)  # up to its first pause: a cancel before the task's first step must not pass our code by
        self.tasks[Worker(worker, loop=self.loop, context=self.context.copy())] = None
        if self.outer is not None:
            self.outer.join()

    async def worker(self, feed: Any) -> None:
        """Feed the others, if it is to; then wait for one branch after the other that suspends."""
        key = slot = frame = error = None
        try:
            await breathe()
            self.coming -= feed is None
            if feed is not None and not await feed(self.room):
                self.stop()
            while (drained := self.drain(key, slot, frame, error)) is not None:
                key, slot, frame, rest = drained
                error = None
                try:
                    await rest
                except BaseException as raised:
                    if frame is None or isinstance(raised, GeneratorExit):
                        raise
                    error = raised
        except GeneratorExit:  # dropped with its loop, in which nothing can go on
            raise
        except BaseException as failure:  # noqa: BLE001 (a cancel in a pause, or raised by `run` once all has ended)
            self.stop(failure)
        self.tasks.pop(asyncio.current_task())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if self.tasks and self.outer is not None:
            self.outer.leave()  # the last one hands its strand to the caller that waits for it
        if not (self.tasks or self.idle.done()):
            self.idle.set_result(None)

    def drain(self, key: Any, slot: Slot | None, frame: Frame | None, error: Any) -> tuple[Any, ...] | None:
        """Take the outcome of the branch that a worker has waited for, and run others, as far as they do not wait.

        Returns:
            What the worker has to wait for now: a branch with its place and its frame, or a pause of its own; None: for
            nothing.
        """
        if frame is not None:
            self.ended(key, slot, frame, error)
            self.burst = 1
        else:
            self.since = clock.ticks()
        work, limited, count = self.work, self.limit is not None, 0
        while not self.stopped and work.more() and not (limited and (self.full() or self.waiting)):
            slot = Slot(self) if limited else None
            key, frame, error = work.take(slot)
            if frame is not None and frame.y is not DONE:
                self.spread()
                return key, slot, frame, finish(frame)
            self.ended(key, slot, frame, error)
            count += 1
            if not count & 3 and clock.ticks() - self.since > self.stint:
                return None, None, None, breathe()
        return None

    def ended(self, key: Any, slot: Slot | None, frame: Any, error: BaseException | None) -> None:
        """Hand on the outcome of a branch, and give its place back."""
        if isinstance(error, asyncio.CancelledError) and (self.stopped or asyncio.current_task().cancelling()):  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
            self.stop(error)  # not the branch's own
        elif not self.work.done(key, None if error is not None or frame is None else frame.out, error):
            self.stop()
        if slot is not None:
            slot.end()
            self.place.ring()

    def stop(self, error: BaseException | None = None) -> None:
        """Let nothing new begin and cancel the rest, once, after what fails in this very turn of the loop too.

        *error* is a cancel, by `stop` or from outside, or a failure that is not of a branch.
        """
        if not isinstance(error, asyncio.CancelledError):
            self.crash, error = self.crash or error, None
        if not self.stopped:
            self.stopped, self.outside = True, None if error is None else error.args
            self.loop.call_soon(lambda: [task.cancel() for task in self.tasks])

    async def run(self) -> None:
        """Run all branches, and return when every one has ended.

        Raises:
            asyncio.CancelledError: If the caller was cancelled; all branches have ended by then.
        """
        self.spawn(self.work.feed)
        if self.outer is not None:
            self.outer.leave()
        waits: Any = self.idle
        while left := [task for task in self.tasks if not task.done()]:  # through any further cancel
            try:
                with anyio.CancelScope(shield=self.outside is not None):  # anyio repeats its cancels
                    await (waits or asyncio.wait(left))
            except asyncio.CancelledError as error:
                self.stop()
                self.outside = error.args
            waits = None
        if self.outside is not None:
            raise asyncio.CancelledError(*self.outside)
        if self.crash is not None:
            raise self.crash


class _Lone:
    """A work source of one branch: the body of a call."""

    feed = None

    def __init__(self, body: Body, cancels: Callable[[], int]) -> None:
        self.body: Body | None = body
        self.cancels: Callable[[], int] = cancels  # how many have come for the task that waits
        self.error: BaseException | None = None
        self.gave: bool = False  # the body has ended without an error
        self.late: bool = False  # it failed after a cancel had come, and had reached it

    def more(self) -> bool:
        return self.body is not None

    def take(self, slot: Slot | None) -> tuple[int, Frame | None, BaseException | None]:
        body, self.body = self.body, None
        driver = Frame()  # the call's own frame is what the task outside drives
        driver.deadline = driver.timer = driver.handle = driver.out = None
        try:
            return 0, start(driver, body), None  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        except BaseException as error:  # noqa: BLE001 (becomes the outcome of the call)
            return 0, None, error

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        own: Any = asyncio.current_task()
        self.error, self.gave, self.late = error, error is None, self.cancels() > 0 < own.cancelling()
        return error is None


def hopped(body: Body, dropped: Callable[[BaseException], None]) -> Body:
    """Return a body that runs *body* on a fresh stack: in a task of its own, which is joined.

    *dropped* is told of a cancel that comes before that has begun.

    A call costs some Python frames and some of the C stack, so that a nest of a few hundred would overflow both.
    """
    task: Any = asyncio.current_task()
    before = task.cancelling()
    work = _Lone(body, lambda: task.cancelling() - before)
    try:
        yield from Group(work).run().__await__()
    except asyncio.CancelledError as error:
        if work.body is not None:
            dropped(error)
        if not work.gave:  # else whoever drives the call finds the cancel, and tells it from a deadline
            raise
    finally:  # a failure wins over a cancel where the body made it of one: a deadline that passed, clean-up
        if work.error is not None and (work.late or not work.cancels()):
            raise work.error
