"""Deterministic asyncio for the laws: virtual time, a seeded choice among ready callbacks, simulated worker threads.

One seed is one interleaving. Time jumps only when nothing is ready, so a law may wait for hours. What is left behind
(tasks, unretrieved exceptions, errors of callbacks) is an error of the run.
"""

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from mai import LocalEngine
from mai.core.threads import Threads
from tests.clocks import replaced

MOST_STEPS = 50_000
LINGER = 60.0


class Deadlock(AssertionError):
    """Nothing is ready and no timer runs: the run could never end."""


class Livelock(AssertionError):
    """The run does not come to an end."""


class Leak(AssertionError):
    """Tasks or errors were left behind."""


class SimulationLoop(asyncio.BaseEventLoop):
    """An event loop whose time is virtual and whose order is a function of the seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.now, self.steps = 1000.0, 0
        self.hooks: dict[int, Callable[[], object]] = {}  # called before that step of the loop
        self.errors: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """Virtual time [s]."""
        return self.now

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """There is but one thread."""
        return self.call_soon(callback, *args, context=context)

    def _write_to_self(self) -> None: ...

    def _process_events(self, event_list: Any) -> None: ...

    def _pick(self) -> Any:
        ready: Any = self._ready  # type: ignore[attr-defined]
        at = self.rng.randrange(len(ready))
        owner = _owner(ready[at])
        if owner is not None:  # the callbacks of one task or future keep their order
            at = next(i for i in range(at + 1) if _owner(ready[i]) is owner)
        handle = ready[at]
        del ready[at]
        return handle

    def _run_once(self) -> None:
        timers, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        while timers and (timers[0]._cancelled or timers[0]._when <= self.now or not ready):
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                self.now = max(self.now, timer._when)
                ready.append(timer)
        if not ready:
            left = [task.get_coro().__qualname__ for task in self.tasks if not task.done()]
            raise Deadlock(f"after {self.steps} steps, at {self.now - 1000:.3f} s: {left} {self.errors}")
        handle = self._pick()
        if handle._cancelled:
            return
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Livelock(f"{self.steps} steps, at {self.now - 1000:.3f} s")
        if hook := self.hooks.pop(self.steps, None):
            hook()
        handle._run()

    def leaks(self) -> list[str]:
        """Tell what the run has left behind."""
        running = [f"task {task.get_coro().__qualname__} runs" for task in self.tasks if not task.done()]
        unseen = [f"nobody saw {task._exception!r}" for task in self.tasks[1:] if task._log_traceback]  # type: ignore[attr-defined]
        return running + unseen + self.errors

    def clear(self) -> None:
        """Close what a failed run left, silently."""
        for task in self.tasks:
            task._log_destroy_pending = task._log_traceback = False  # type: ignore[attr-defined]
            if not task.done():
                try:
                    task.get_coro().close()  # type: ignore[union-attr]
                except BaseException:  # noqa: BLE001 (the run has failed already; this is for quiet)
                    self.errors.append("a task did not close")
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()


def _owner(handle: Any) -> Any:
    owner = getattr(handle._callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Future) else None


class SimulatedThreads(Threads):
    """Worker threads as callbacks: a job runs whole, at a seeded later moment, with no running loop in sight."""

    def __init__(self, loop: SimulationLoop) -> None:
        super().__init__(limit=64)
        self._loop = loop

    def submit(self, job: Any, door: Any) -> None:
        """Run *job* later."""
        delay = self._loop.rng.choice((0.0, 0.0, 0.004))
        self._loop.call_later(delay, self._in_thread, job, context=Context())  # a thread begins with an empty one

    def _in_thread(self, job: Any) -> None:
        events._set_running_loop(None)
        try:
            self._nested(job)
        finally:
            events._set_running_loop(self._loop)


def unfinished() -> int:
    """Return how many tasks of the running simulation have not ended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    return sum(not task.done() for task in loop.tasks)


@dataclass(frozen=True)
class Outcome:
    """How a simulated run ended."""

    value: Any
    error: BaseException | None
    steps: int
    elapsed: float
    hit: bool  # the cancel met a run that had not ended


def simulate(
    main: Callable[[], Coroutine[Any, Any, Any]],
    seed: int = 0,
    cancel_at: int | None = None,
    on_cancel: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run ``main()`` as the root task, cancelling it before step *cancel_at* of the loop.

    Raises:
        Deadlock: If it could never end.
        Livelock: If it does not end.
        Leak: If it left a task or an error behind.
    """
    loop = SimulationLoop(seed)
    value, error, hit = None, None, [False]

    async def with_engine() -> Any:
        async with LocalEngine() as engine:
            engine.threads = SimulatedThreads(loop)
            return await main()

    try:
        with replaced(loop.time):
            root = loop.create_task(with_engine())
            if cancel_at is not None:
                loop.hooks[cancel_at] = lambda: (on_cancel(), hit.append(root.cancel()))
            try:
                value = loop.run_until_complete(root)
            except (Deadlock, Livelock):
                raise
            except BaseException as raised:  # noqa: BLE001 (the outcome of the run)
                error = raised
            leaks, steps, elapsed = loop.leaks(), loop.steps, loop.now - 1000.0
            loop.hooks.clear()
            loop.run_until_complete(asyncio.sleep(LINGER))  # whatever was left behind has its chance now
        if leaks := leaks or loop.leaks():
            raise Leak("; ".join(leaks))
        return Outcome(value, error, steps, elapsed, hit[-1])
    finally:
        loop.clear()
