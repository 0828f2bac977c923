"""A thread with a connection of its own, to which event loops hand work and from which they get the results."""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Generic, TypeVar

from ...core.threads import start_thread
from ...errors import JournalError
from .files import explained

__all__ = ["Desk", "Job", "Work"]

S = TypeVar("S")
T = TypeVar("T")


class Job(Generic[S]):
    """Something that an event loop waits for."""

    __slots__ = ("error", "future", "loop", "value")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None

    def do(self, state: S) -> Any:
        """Do it, in the thread."""

    def settle(self) -> None:
        """Tell whoever waits, in its loop."""
        future = self.future
        if future.done():  # it was cancelled
            return
        if self.error is None:
            future.set_result(self.value)
        else:
            future.set_exception(self.error)


class Work(Job[S]):
    """A function of the state of the desk."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[S], Any]) -> None:
        super().__init__()
        self.work: Callable[[S], Any] = work

    def do(self, state: S) -> Any:
        """Call the function."""
        return self.work(state)


class Desk(ABC, Generic[S]):
    """Takes work from any event loop and does it in one thread, in its order.

    A subclass says what the work is given, and how it is done.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self._pid = os.getpid()
        self._closed = True
        self._lock = Lock()
        self._jobs: SimpleQueue[Job[S] | None] = SimpleQueue()  # None: only to wake the thread
        self._ending: Job[S] | None = None

    async def start(self) -> None:
        """Start the thread, and wait until what it needs is open."""
        self._closed = False
        opening = Job[S]()
        start_thread(lambda: self._serve(opening), self.name)
        await opening.future

    @property
    def is_open(self) -> bool:
        """Whether it takes jobs."""
        return not self._closed

    def post(self, job: Job[S]) -> "asyncio.Future[Any]":
        """Hand over a job, and return what to await.

        Raises:
            JournalError: If the desk is closed, or the process was forked since.
        """
        if os.getpid() != self._pid:
            why = f"{self.path!r} was opened in another process, from which this one was forked"
            raise JournalError(f"{why}; start workers by spawn, or fork before it is opened", path=self.path)
        with self._lock:
            if self._closed:
                raise JournalError(f"{self.path!r} is not open", path=self.path)
            self._jobs.put(job)
        return job.future

    async def ask(self, work: Callable[[S], T]) -> T:
        """Have *work* done, and return what it gives; the errors are those of `post`."""
        result: T = await self.post(Work(work))
        return result

    def wake(self) -> None:
        """Let the thread look again for how long it may pause."""
        self._jobs.put(None)

    async def stop(self) -> None:
        """Do what still waits, close the connection, and end the thread."""
        ending = Work(self._close)
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            self._ending = ending
            self._jobs.put(ending)
        await ending.future

    @abstractmethod
    def _open(self) -> S:
        """Return what the work is given; the first thing that the thread does."""

    @abstractmethod
    def _do(self, state: S, jobs: Sequence[Job[S]]) -> None:
        """Do each job, and note its value or error; an error that is raised instead is that of them all."""

    @abstractmethod
    def _close(self, state: S) -> None:
        """Close what was opened; the last thing that the thread does."""

    def _pause(self) -> float | None:
        """Return after how many seconds without a job `_do` is called with none, None for never."""
        return None

    def _watch(self, state: S) -> None:
        """Called when those who waited have been told."""

    def _serve(self, opening: Job[S]) -> None:
        """What the thread does."""
        try:
            state = self._open()
        except BaseException as error:  # noqa: BLE001 (whoever opens it gets it)
            self._closed, opening.error = True, explained(error, self.path)
            deliver([opening])
            return
        deliver([opening])
        while True:
            jobs = self._take()
            ending = jobs.pop() if jobs and jobs[-1] is self._ending else None
            self._done(state, self._do, jobs)
            self._watch(state)
            if ending is not None:
                self._done(state, lambda state, _: self._close(state), [ending])
                return

    def _take(self) -> list[Job[S]]:
        """Return all jobs that wait, or none after the pause."""
        try:
            jobs = [self._jobs.get(timeout=self._pause())]
        except Empty:
            return []
        jobs += [self._jobs.get() for _ in range(self._jobs.qsize())]
        return [job for job in jobs if job is not None]

    def _done(self, state: S, do: Callable[[S, list[Job[S]]], None], jobs: list[Job[S]]) -> None:
        """Do the jobs and tell those who wait."""
        try:
            do(state, jobs)
        except BaseException as error:  # noqa: BLE001 (the thread lives on, and each who waits gets the error)
            for job in jobs:
                job.error = explained(error, self.path)
            if not jobs:
                logging.getLogger("mai").warning("%s", explained(error, self.path))
        deliver(jobs)


def deliver(jobs: Iterable[Job[Any]]) -> None:
    """Tell all who wait for *jobs*, each loop with one wake-up."""
    loops: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in jobs:
        loops.setdefault(job.loop, []).append(job)
    for loop, ended in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(_settle, ended)


def _settle(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.settle()
