"""Worker threads: the only file that starts threads.

Plain ``forward`` functions run in daemon threads that an engine owns. Hand-overs between threads are what costs, so
there are as few as the promises allow. Towards the workers: one is woken, and it wakes the next one before it begins a
job while others wait, but never while one is on its way already; so quick jobs are all done by one or two threads, and
blocking ones get a thread each. Towards the loop: one wake-up for all results that are ready. A worker counts as free
before it delivers, so that after the wake-up it has nothing more to do.

A worker that blocks in ``run`` serves the nested jobs of that call itself, so a full pool cannot deadlock on nested
work. A job whose caller was cancelled is abandoned: if it has not begun it never runs, else its result is dropped and
its thread counts no longer against the limit.
"""

import asyncio
import os
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from ..errors import TooManyAbandoned
from ..values.names import THREAD_ABANDONED
from .clock import clock
from .frame import current
from .points import points

_here = threading.local()  # .job: what this worker thread does now
thread_owners: WeakSet[Any] = WeakSet()  # which must `forget` their threads in a forked child


def worker_loop(door: "Door | None" = None) -> asyncio.AbstractEventLoop | None:
    """Return the loop that waits for the job of this thread, or None outside worker threads.

    Args:
        door: Behind which this thread is about to block; if the job is given up, so is the call that it waits for.

    Raises:
        asyncio.CancelledError: If the caller of the job was cancelled, so that the job must start nothing more.
    """
    job: Job | None = getattr(_here, "job", None)
    if job is not None and job.state == "abandoned":
        raise asyncio.CancelledError
    if job is not None:
        job.door = door
    return None if job is None else job.loop


def start_thread(target: Callable[[], None], name: str) -> None:
    """Start a daemon thread, which never keeps the interpreter from ending."""
    points.reach("thread.start")
    threading.Thread(target=target, name=name, daemon=True).start()


class Scheduling:
    """How worker threads start and block; a simulation puts its own in the place of these, and one runs at a time."""

    def start(self, target: Callable[[], None], name: str) -> None:
        """Start a worker thread."""
        start_thread(target, name)

    def gate(self, lock: Any) -> Callable[[], object]:
        """Return what blocks until *lock* is free, and takes it."""
        return lock.acquire  # type: ignore[no-any-return]

    def until(self, ready: Callable[[], bool], timeout: float | None) -> float | None:
        """Block until *ready*, if this can; return how long the thread has yet to block by itself."""
        return timeout


scheduling: Scheduling = Scheduling()


# Runs in forked children only, of which the measurement of coverage hears nothing.
def _forget() -> None:  # pragma: no cover
    """Begin anew in a forked child, which has none of its parent's threads."""
    _here.job = None
    for owner in thread_owners:
        owner.forget()


with suppress(AttributeError):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_forget)


class Job:
    """One function call in a worker thread, and the future for which its caller waits (see `asyncio.isfuture`).

    An ``asyncio.Future`` would let the caller go on one turn of the loop later.
    """

    _asyncio_future_blocking = True  # for the task that waits, which sets it to False
    state: str = "queued"  # then "running", then "done"; or "abandoned" from either of the first two
    door: "Door | None" = None  # the last one behind which it blocked
    value: Any = None
    error: BaseException | None = None
    wake: Any = None  # what lets the caller go on, and the context for that

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.context: Context = copy_context()
        self.call: Callable[[], Any] | None = call

    def run(self) -> None:
        """Do the work, in this thread."""
        before, _here.job = getattr(_here, "job", None), self
        try:
            points.reach("thread.job")
            if self.state != "abandoned":  # while its thread came to it
                self.value = self.context.run(self.call)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        except BaseException as error:  # noqa: BLE001 (whatever it is, the caller gets it)
            self.error = error
        self.call, _here.job = None, before

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the caller."""
        return self.loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context) -> None:
        """Keep what lets the caller's task go on."""
        self.wake = wake, context
        if self.state == "done":
            self.loop.call_soon(self.settle)

    def settle(self) -> None:
        """Let the caller go on, at once; in the loop's thread."""
        if self.wake is not None:
            (wake, context), self.wake = self.wake, None
            context.run(wake, self)

    def result(self) -> None:
        """Do nothing: the task asks before it goes on."""

    def cancel(self, msg: object = None) -> bool:
        """Let the caller go on in the next turn of the loop; False: its task raises the cancel there by itself."""
        self.loop.call_soon(self.settle)
        return False


class Door(SimpleQueue[Any]):
    """A thread blocked in ``run``: it takes nested jobs (``put``) until None says that the call has ended, and how."""

    loop: asyncio.AbstractEventLoop  # that the call runs in
    open: bool = True
    task: Any = None
    value: Any = None
    error: BaseException | None = None

    def cancel(self) -> None:
        """Cancel the call; from any thread."""
        self.loop.call_soon_threadsafe(lambda: self.task and self.task.cancel())

    def serve(self, timeout: float | None = None) -> None:
        """Run jobs until None comes (raises queue.Empty after *timeout* seconds without any)."""
        while (work := self.get(timeout=scheduling.until(lambda: not self.empty(), timeout))) is not None:
            work()
        self.open = False
        while not self.empty():
            if (late := self.get()) is not None:
                late()


class Threads:
    """A pool of at most *limit* daemon threads that are not abandoned; started when needed, kept until it is closed.

    With *most* abandoned ones it takes no more jobs. Whenever the lock is free: if jobs wait and a thread is idle or
    may be started, one is on its way (``_coming``).
    """

    def __init__(self, limit: int, most: int = 64) -> None:
        self.limit: int = limit
        self.most: int = most
        self.closed: bool = False  # then an idle thread ends
        self.forget()
        thread_owners.add(self)

    def forget(self) -> None:
        """Begin without threads and jobs."""
        self.started: int = 0
        self.abandoned: int = 0
        self.waiting: int = 0  # threads that block until a run has ended or tells something
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[Any] = []  # one lock for each idle thread, the last one to become idle at the end
        self._coming = False  # a thread was woken or started, and has not looked for a job yet
        self._ready: dict[asyncio.AbstractEventLoop, list[Job]] = {}  # what has ended, for each loop that was woken

    def submit(self, job: Job, door: Door | None) -> None:
        """Queue *job*; where every thread is busy, the blocked thread behind *door* runs it.

        Raises:
            TooManyAbandoned: If so many threads are that it must not become one as well.
        """
        with self._lock:
            if self.abandoned >= self.most:
                facts = f"{self.abandoned} threads still hang after a timeout or a cancel (max_abandoned={self.most})"
                hint = "give what blocks there a timeout of its own"
                raise TooManyAbandoned(f"No thread for a step: {facts}; {hint}", count=self.abandoned, limit=self.most)
            free = 0 if door is None else len(self._idle) + self._coming + max(0, self.limit - self._busy())
            if door is not None and door.open and len(self._jobs) >= free:
                door.put(lambda: self._nested(job))
                return
            self._jobs.append(job)
            self._next()

    def abandon(self, job: Job) -> bool:
        """Give up *job*; say whether its thread is left behind."""
        with self._lock:
            running = job.state == "running"
            if job.state != "done":
                job.state = "abandoned"
            self.abandoned += running
            self._next()  # there may be room for one thread more
        return running

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let another thread run in the place of this one, which blocks inside the block."""
        with self._lock:
            self.waiting += 1
            self._next()
        try:
            yield
        finally:
            with self._lock:
                self.waiting -= 1

    def close(self) -> None:
        """Let the idle threads end; a busy one ends when there are no more jobs."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        for gate in idle:
            gate.release()

    def _busy(self) -> int:
        """Return how many threads count against the limit."""
        return self.started - self.abandoned - self.waiting

    def _next(self) -> None:
        """Call one more thread if jobs wait and none is coming; with the lock held."""
        if self._coming or not self._jobs:
            return
        if self._idle:
            self._coming = True
            self._idle.pop().release()
        elif self._busy() < self.limit:
            scheduling.start(self._work, f"mai-worker-{self.started + 1}")  # may fail: then the next call tries again
            self._coming = True
            self.started += 1

    def _nested(self, job: Job) -> None:
        """Run *job* in the thread behind a door, which is blocked in a job of its own."""
        with self._lock:
            if job.state == "abandoned":
                return
            job.state = "running"
        job.run()
        with self._lock:
            first = self._end(job)
        if first:
            self._tell(job.loop)

    def _end(self, job: Job) -> bool:
        """Note that *job* has ended; say whether its loop has to be told, as of the first that is; with the lock held.

        One wake-up serves all that have ended when the loop comes to it.
        """
        self.abandoned -= job.state == "abandoned"
        job.state = "done"
        ready = self._ready.setdefault(job.loop, [])
        ready.append(job)
        return len(ready) == 1

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop* take the results that are ready."""
        try:
            loop.call_soon_threadsafe(self._settle, loop)
        except RuntimeError:  # it was closed while an abandoned job ran on: nobody waits for that
            self._ready.pop(loop, None)

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            ready = self._ready.pop(loop)
        jobs = iter(ready)
        if len(ready) > 1:  # where the caller of one ends the loop, or runs it anew inside, this lets the others go on
            loop.call_soon(_settle_all, jobs)
        _settle_all(jobs)

    def _work(self) -> None:
        """What a thread does: take jobs while there are any, else wait at its gate."""
        gate = threading.Lock()
        gate.acquire()
        rest = scheduling.gate(gate)
        job: Job | None = None
        arrives = True
        while True:
            told = None
            with self._lock:
                if arrives:
                    self._coming = arrives = False
                if job is not None and self._end(job):
                    told = job.loop
                stays = job is None or self._busy() <= self.limit  # else another has our place
                job = self._take() if stays else None
                ends = job is None and (self.closed or not stays)
                self.started -= ends
                if job is None and not ends:
                    self._idle.append(gate)
            if told is not None:
                self._tell(told)  # with this it wakes: what comes after it is kept short
            if job is not None:
                job.run()
            elif ends:
                return
            else:
                told = None  # an idle thread holds nothing
                rest()
                arrives = True

    def _take(self) -> Job | None:
        """Take the next job that is still wanted, and call another thread if more wait; with the lock held."""
        while self._jobs:
            job = self._jobs.popleft()
            if job.state == "queued":
                job.state = "running"
                self._next()
                return job
        return None


def _settle_all(jobs: Iterator[Job]) -> None:
    for job in jobs:
        job.settle()


def _timed(handle: Any, since: int, call: Callable[[], Any]) -> Any:
    """Return ``call()``, and note how long it waited for a thread."""
    handle._queued += clock.ticks() - since
    return call()


@types.coroutine
def offload(call: Callable[[], Any]) -> Generator[Any, Any, Any]:
    """Run ``call()`` in a worker thread of the current run's engine, in a copy of this context.

    A cancelled caller is free at once. What the call gives is awaited if it can be: a partial or a cached function may
    hide a coroutine.
    """
    frame = current()
    assert frame.run is not None
    threads: Threads = frame.run.engine.threads
    if frame.handle is not None:
        call = partial(_timed, frame.handle, clock.ticks(), call)
    job = Job(asyncio.get_running_loop(), call)
    threads.submit(job, frame.env.door)
    try:
        yield job
        if frame.deadline is not None and clock.now() >= frame.deadline:
            yield  # its timer, which is due in this turn of the loop, comes first
    except asyncio.CancelledError:
        abandoned, due = threads.abandon(job), frame.deadline
        if abandoned and job.door is not None and (due is None or clock.now() < due):  # else a timer of its own does
            job.door.cancel()
        if abandoned and frame.handle is not None:
            frame.handle.attributes = {**frame.handle.attributes, THREAD_ABANDONED: True}
        raise
    if job.error is not None:
        raise job.error  # as in any generator, a StopIteration becomes a RuntimeError
    out: Any = job.value
    return (yield from out.__await__()) if hasattr(type(out), "__await__") else out  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
