"""Simulated runs: one seed is one interleaving of a program, and the same one each time.

`simulate` runs a program once, like ``asyncio.run``; `explore` runs it under many seeds and raises the first failure
with a note that says how to see it again; `Simulation` is one run as a value.
"""

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from ..core.clock import clock
from ..core.engine import LocalEngine
from ..core.ids import chance
from ..core.threads import start_thread
from .clocks import exchanged
from .errors import Crash, Leak, SimulationError
from .loop import START, LoopStep, SimulationLoop, shown
from .orders import Order
from .seeds import generator, seeded

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Main = Callable[[], Coroutine[Any, Any, T]]
LINGER = 60.0  # simulated seconds after the end, in which what was left behind shows itself
_one_at_a_time = threading.Lock()  # the seams of the kernel are exchanged for the whole process


@dataclass(frozen=True, slots=True)
class Trial(Generic[T_co]):
    """How a simulated run ended, and how it got there.

    Attributes:
        value: What it gave; None if it failed.
        error: What it failed with; None if it gave a value.
        steps: How many steps the loop took.
        elapsed: Simulated seconds from its beginning to its end.
        at: When its cancel, fault or crash met it [simulated s since the beginning]; None if there was none, or it
            came after the end.
        at_step: The number of the step at which that was; 0 if it was not.
        digest: One number for the whole interleaving: equal for two runs whose tasks went on in the same order.
        steps_taken: The schedule, step by step; empty unless it was to be recorded.

    Example:
        >>> import asyncio
        >>> from mai.testing import Simulation
        >>> outcome = Simulation(seed=3).run(lambda: asyncio.sleep(1.5, "done"))
        >>> outcome.value, outcome.elapsed, outcome.error
        ('done', 1.5, None)
    """

    value: T_co | None
    error: BaseException | None
    steps: int
    elapsed: float
    at: float | None
    at_step: int
    digest: int
    steps_taken: tuple[LoopStep, ...] = ()

    def result(self) -> T_co:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    @property
    def schedule(self) -> str:
        """The last steps as text: number, time, task, and the mai step that went on."""
        return shown(self.steps_taken)


class Conditions(TypedDict, total=False):
    """Under which conditions a run is simulated; see `Simulation`."""

    cancel_at: int | None
    fail_at: int | None
    crash_at: int | None
    max_steps: int
    horizon: int
    max_threads: int
    allow_leaks: bool
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One simulated run, as a value: its seed and its conditions.

    A run sees virtual time (loop and `mai` alike), random numbers and ids drawn from the seed, and an engine of its own
    whose worker threads take turns. What it leaves behind (tasks, async generators, threads, errors that nobody saw)
    is an error. A program that draws chance from elsewhere, or depends on the order of a set, differs from run to run.

    Only one run is simulated at a time in a process. Inside a running event loop it is simulated in a thread, for
    which that loop waits.

    Args:
        seed: Which interleaving.
        order: ``"random"``, ``"pct"`` or ``"fifo"``; see `SimulationLoop`.
        cancel_at: Cancel the program before that step of the loop.
        fail_at: At that step or the next one after it at which an awaited pause (``asyncio.sleep``, a delay, whatever
            fake waits like this for the world outside) ends, let it raise `SimulatedFault` instead.
        crash_at: Let the process die before that step: nothing of the program runs after it but what closes its
            coroutines.
        max_steps: After so many steps the run is taken for endless.
        horizon: About how many steps it will take.
        max_threads: Worker threads of the engine.
        allow_leaks: Say nothing about what is left behind.
        patience: Real seconds to wait, whenever nothing is ready, for threads that are not simulated (a journal's
            writer, say), before time jumps to the next timer; if there is none, half a minute. What depends on such
            threads is not repeatable.
        record: Take down the schedule.

    Raises:
        ConfigError: If *order* is unknown.

    Example:
        >>> import asyncio
        >>> from mai import module
        >>> from mai.testing import Simulation
        >>> @module
        ... async def late(name: str) -> str:
        ...     await asyncio.sleep(1.0)
        ...     return name
        >>> outcome = Simulation(seed=1, record=True).run(lambda: (late & late)("x"))
        >>> outcome.value, {step.where for step in outcome.steps_taken if step.time == 1.0} >= {"Parallel[0]/late"}
        (('x', 'x'), True)
    """

    seed: int = 0
    order: Order = "random"
    cancel_at: int | None = None
    fail_at: int | None = None
    crash_at: int | None = None
    max_steps: int = 100_000
    horizon: int = 200
    max_threads: int = 64
    allow_leaks: bool = False
    patience: float = 0.0
    record: bool = False

    def run(self, main: Main[T]) -> Trial[T]:
        """Run ``await main()`` and return how it ended, in whatever way.

        Args:
            main: Makes the program anew: what it works on should be made inside.

        Raises:
            Deadlock: If it could never end.
            Livelock: If it does not end.
            Leak: If it left something behind.
            SimulationError: If another run is being simulated.
        """
        if asyncio._get_running_loop() is None:
            return self._run(main)
        done, ended = list[Any](), threading.Event()
        context = copy_context()

        def apart() -> None:
            try:
                done.append((context.run(self._run, main), None))
            except BaseException as error:  # noqa: BLE001 (raised below, in the thread that asked)
                done.append((None, error))
            ended.set()

        start_thread(apart, "mai-simulation")
        ended.wait()
        outcome, error = done[0]
        if error is not None:
            raise error
        return outcome  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """Return the call of `simulate` that runs it again."""
        default = Simulation()
        names = [name for name in self.__slots__ if name not in ("seed", "order", "record", "horizon")]
        more = [f", {name}={value!r}" for name in names if (value := getattr(self, name)) != getattr(default, name)]
        if self.order == "pct":
            more.append(f", horizon={self.horizon}")
        return f"simulate(main, seed={self.seed}, order={self.order!r}{''.join(more)})"

    def _run(self, main: Main[T]) -> Trial[T]:
        if not _one_at_a_time.acquire(blocking=False):
            raise SimulationError("Another run is being simulated in this process; simulate one after the other")
        collects = gc.isenabled()
        gc.disable()  # so that nothing depends on when it comes
        # What the runs before have left, at times the old of it too: asyncio looks through all tasks that there are.
        gc.collect(2 if gc.get_count()[2] > 50 else 1)
        try:
            loop = SimulationLoop(self.seed, order=self.order, max_steps=self.max_steps, horizon=self.horizon)
            try:
                with _in_place(loop):
                    return self._play(loop, main)
            except SimulationError as error:
                error.schedule = shown(loop.schedule or ())
                raise
            finally:
                loop.clear()
        finally:
            if collects:
                gc.enable()
            _one_at_a_time.release()

    def _play(self, loop: SimulationLoop, main: Main[T]) -> Trial[T]:
        met = list[tuple[float, int]]()
        loop.schedule = [] if self.record else None
        loop.patience = self.patience
        root = loop.create_task(self._with_engine(main), name="main")
        self._prepare(loop, root, met)
        value, error = None, None
        try:
            value = loop.run_until_complete(root)
        except (SimulationError, KeyboardInterrupt):
            raise
        except BaseException as raised:  # noqa: BLE001 (the outcome of the run)
            error = raised
        loop.hooks.clear()
        loop.fail_from = float("inf")
        at, step = (met[0] if met else loop.failed) or (START, 0)
        outcome = Trial(
            value=value,
            error=error,
            steps=loop.steps,
            elapsed=loop.now - START,
            at=at - START if step else None,
            at_step=step,
            digest=loop.digest,
            steps_taken=tuple(loop.schedule or ()),
        )
        if not (self.allow_leaks or isinstance(error, Crash)):
            self._look_for_leaks(loop, error)
        return outcome

    async def _with_engine(self, main: Main[T]) -> T:
        async with LocalEngine(max_threads=self.max_threads):
            return await main()

    def _prepare(self, loop: SimulationLoop, root: "asyncio.Task[Any]", met: list[tuple[float, int]]) -> None:
        def cancel() -> None:
            if root.cancel():
                met.append((loop.now, loop.steps))

        def crash() -> None:
            met.append((loop.now, loop.steps))
            loop.crash()

        for at, hook in ((self.cancel_at, cancel), (self.crash_at, crash)):
            if at is not None:
                loop.hooks[at] = hook
        loop.fail_from = float("inf") if self.fail_at is None else self.fail_at

    @staticmethod
    def _look_for_leaks(loop: SimulationLoop, error: BaseException | None) -> None:
        """Look at once, and again when what was left behind has had its chance to do something.

        A thread that was abandoned in its job has that long to come back, and so have the calls that it waits for.
        """
        step, now = loop.steps, loop.now
        left = [] if loop.crew.busy() else loop.leaks()
        loop.run_until_complete(asyncio.sleep(LINGER))
        if left := left or loop.leaks() + [f"thread {name} is still in a job" for name in loop.crew.busy()]:
            raise Leak(
                f"Left behind after {step} steps, at {now - START:.3f} s: {'; '.join(left)}",
                step=step,
                time=now - START,
            ) from error


@contextmanager
def _in_place(loop: SimulationLoop) -> Generator[None]:
    """Put the simulation in the place of clock, chance and threads."""
    own, time = generator("mai", loop.rng.random()), loop.time
    with (
        exchanged(clock, now=time, wall=loop.wall_time, ticks=lambda: int(loop.now * 1e9)),
        exchanged(chance, draw=own.random, take=own.randbytes),
        seeded(loop.rng.random()),
        loop.crew.at_work(),
    ):
        yield


def simulate(main: Main[T], *, seed: int = 0, order: Order = "random", **conditions: Unpack[Conditions]) -> T:
    """Run ``await main()`` once in simulated time and return its value, as ``asyncio.run`` would.

    Args:
        main: Makes the program.
        seed: Which interleaving.
        order: ``"random"``, ``"pct"`` or ``"fifo"``; see `SimulationLoop`.
        conditions: The others of `Simulation`.

    Raises:
        Deadlock: If it could never end.
        Livelock: If it does not end.
        Leak: If it left something behind.

    Example:
        >>> import asyncio
        >>> from mai import module
        >>> from mai.testing import simulate
        >>> @module(timeout=3600)
        ... async def wait_for_ever(x: int) -> None:
        ...     await asyncio.sleep(1e9)
        >>> simulate(lambda: wait_for_ever(1))
        Traceback (most recent call last):
        mai.errors.DeadlineExceeded: Step 'wait_for_ever' ran past its deadline (timeout=3600 s, or one inherited)
    """
    return Simulation(seed=seed, order=order, **conditions).run(main).result()
