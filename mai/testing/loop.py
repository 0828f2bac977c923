"""The simulation loop: a real asyncio event loop whose time is virtual and whose order is a function of a seed."""

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple, TypeVarTuple

from ..core.frame import current
from ..errors import ConfigError
from .carriers import Crew
from .errors import Crash, Deadlock, Livelock, SimulatedFault
from .orders import Chooser, chooser, owner_of
from .seeds import Rng, generator

Ts = TypeVarTuple("Ts")
START = 1000.0  # where virtual time begins [s]
TAIL = 40  # steps of a schedule that are shown
LAST_PATIENCE = 30.0  # real seconds until what threads were waited for with patience is taken for a deadlock
WIDE = 60  # characters of a path that are shown
_futures: Any = asyncio.futures
_arrives: Any = _futures._set_result_unless_cancelled  # what ends a sleep


class LoopStep(NamedTuple):
    """One step of the loop.

    Attributes:
        number: Its number, from 1.
        time: Simulated seconds since the run began.
        task: Name of the task that went on, or of the callback.
        where: Path of the mai step that it went on in; empty outside of any.
    """

    number: int
    time: float
    task: str
    where: str


class SimulationLoop(asyncio.BaseEventLoop):
    """An event loop in which one seed is one interleaving.

    Time is virtual: it jumps to the next timer when nothing is ready, so an hour takes no time, and a run is over as
    soon as nothing more can happen. Which of the callbacks that are ready runs next is drawn with *seed*, in the given
    *order*; only the callbacks of one task keep theirs. Networks and subprocesses do not exist here.

    `simulate` and `explore` are the easy way to use it; by itself it is used as any event loop, with
    ``asyncio.Runner(loop_factory=...)``. It is not for several threads; `Simulation` makes worker threads of engines a
    part of it.

    Args:
        seed: Which interleaving.
        order: ``"random"``: any callback that is ready; ``"pct"``: by random priorities of tasks, which change at a
            few random steps; ``"fifo"``: as an ordinary loop.
        max_steps: After so many steps the run is taken for endless.
        horizon: About how many steps the run will take; ``"pct"`` spreads its changes over them.

    Raises:
        ConfigError: If *order* is unknown.
        Deadlock: By the run, when nothing is ready and no timer is set.
        Livelock: By the run, after *max_steps*.

    Example:
        >>> import asyncio
        >>> from mai.testing import SimulationLoop
        >>> async def main() -> float:
        ...     before = asyncio.get_running_loop().time()
        ...     await asyncio.sleep(3600)
        ...     return asyncio.get_running_loop().time() - before
        >>> with asyncio.Runner(loop_factory=lambda: SimulationLoop(seed=1)) as runner:
        ...     runner.run(main())
        3600.0

    Size: how a step is chosen, what may meet it and what is left are one noun.
    """

    # What asyncio's own base class keeps: callbacks that are ready, and timers as a heap.
    _ready: deque[asyncio.Handle]
    _scheduled: list[Any]
    _asyncgens: Any
    _timer_cancelled_count: int

    def __init__(self, seed: int = 0, *, order: str = "random", max_steps: int = 100_000, horizon: int = 200) -> None:
        super().__init__()
        self.rng: Rng = generator(order, seed)
        try:
            self.chooser: Chooser | None = None if order == "fifo" else chooser(order, self.rng, horizon)
        except ConfigError:
            self.close()
            raise
        self.max_steps: int = max_steps
        self.now: float = START
        self.steps: int = 0
        self.crew: Crew = Crew(self, latencies=order != "fifo")
        self.hooks: dict[int, Callable[[], object]] = {}  # called before that step
        self.fail_from: float = float("inf")  # from that step on the first pause that ends does so with a fault
        self.failed: tuple[float, int] | None = None  # when, and at which step
        self.digest: int = 0  # of all choices
        self.wall: float = 946_684_800.0  # what the beginning is taken for: 2000-01-01 [s since the epoch]
        self.errors: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.schedule: list[LoopStep] | None = None  # a list: take down each step
        self._places: dict[object, str] = {}  # where a future was made or a task was last seen, while that is done
        self._numbers: dict[object, str] = {}
        self.patience: float = 0.0  # real seconds to wait for threads that are not simulated
        self._called = threading.Event()
        self._handed: deque[asyncio.Handle] = deque()  # by threads, and not run yet
        self.set_exception_handler(lambda _, context: self.errors.append(_told(context)))
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """Return the virtual time [s]."""
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future; while steps are taken down, note who waits for it."""
        future = super().create_future()
        if self.schedule is not None:
            self._places[future] = current().path
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Do `call_soon`, where these callbacks keep their order: threads hand them in through one queue."""
        handle = self.call_soon(callback, *args, context=context)
        self._handed.append(handle)
        self._called.set()
        return handle

    def _write_to_self(self) -> None: ...

    def _process_events(self, event_list: Any) -> None: ...

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none: `mai` has threads of its own."""

    # ---------------------------------------------------------------- one step

    def _run_once(self) -> None:
        """Run one callback; called by ``run_forever`` again and again."""
        if self.crew.blocked:
            self.crew.wake()
        if self.patience and not self._ready:
            self._listen()
        self._move_timers()
        if not self._ready:
            raise Deadlock(self._told("nothing is ready and no timer is set"), **self._facts())
        handle: Any = self._pick()
        if handle._cancelled:
            return
        self.steps += 1
        if self.steps > self.max_steps:
            raise Livelock(self._told("it goes round in circles"), **self._facts())
        if self.hooks and (hook := self.hooks.pop(self.steps, None)) is not None:
            hook()
        if self.schedule is not None:
            self._take_down(handle, self.schedule)
        if self.steps < self.fail_from or not self._fails(handle):
            handle._run()

    def _move_timers(self) -> None:
        """Make those timers ready that are due, and where nothing else is ready let time jump to the next one."""
        timers, ready = self._scheduled, self._ready
        while timers and (timers[0]._cancelled or timers[0]._when <= self.now or not ready):
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
                continue
            self.now = max(self.now, timer._when)
            ready.append(timer)
            if self.crew.blocked:
                self.crew.wake()

    def _listen(self) -> None:
        """Wait for threads that are not simulated, which may make something ready: long if nothing else can."""
        self._called.clear()
        if not self._ready:
            timed = any(not timer._cancelled for timer in self._scheduled)
            self._called.wait(self.patience if timed else max(self.patience, LAST_PATIENCE))

    def _pick(self) -> asyncio.Handle:
        """Take the next callback out of those that are ready."""
        ready, handed, at = self._ready, self._handed, 0
        if self.chooser is not None and len(ready) > 1:
            at = self.chooser.choose(ready, self.steps)
            owner = owner_of(ready[at])
            if owner is not None:  # the callbacks of one task or future keep their order
                at = next(i for i in range(at + 1) if owner_of(ready[i]) is owner)
            elif handed and ready[at] in handed:
                at = ready.index(handed[0])
            self.digest = hash((self.digest, at, len(ready)))
        handle = ready[at]
        del ready[at]
        if handed and handed[0] is handle:
            handed.popleft()
        return handle

    def _fails(self, handle: Any) -> bool:
        """Let the pause that would end with *handle* fail, if it is one; say whether it was."""
        if handle._callback is not _arrives or handle._args[0].done():
            return False
        self.fail_from, self.failed = float("inf"), (self.now, self.steps)
        handle._args[0].set_exception(SimulatedFault(f"fault put in by the simulation at step {self.steps}"))
        return True

    def wall_time(self) -> float:
        """Return the simulated time of day [s since the epoch]."""
        return self.wall + self.now - START

    def crash(self) -> None:
        """Die here.

        Raises:
            Crash: Always.
        """
        raise Crash(f"the simulated process died at step {self.steps}")

    # ---------------------------------------------------------------- what is told

    def _facts(self) -> dict[str, Any]:
        return {"step": self.steps, "time": self.now - START}

    def _told(self, what: str) -> str:
        parts = {
            "tasks that have not ended": [self._name(task) for task in self.unfinished()],
            "threads that block": self.crew.busy(),
            "errors": self.errors,
        }
        more = "".join(f"; {title}: {', '.join(names)}" for title, names in parts.items() if names)
        return f"After {self.steps} steps, at {self.now - START:.3f} s, {what}{more}"

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, those first that the loop itself made."""
        made = [task for task in self.tasks if not task.done()]
        return made + sorted(
            (task for task in asyncio.all_tasks(self) if task not in made), key=lambda task: task.get_name()
        )

    def _name(self, task: asyncio.Task[Any]) -> str:
        some: Any = task
        where = self._places.get(some._fut_waiter) or self._places.get(task)
        name = some.get_coro().__qualname__ if task.get_name().startswith("Task-") else task.get_name()
        return f"{name} in {where}" if where else name

    def _take_down(self, handle: Any, schedule: list[LoopStep]) -> None:
        owner, args = owner_of(handle), handle._args or ()
        place = self._places.get(args[0]) if args and isinstance(args[0], asyncio.Future) else None
        if place is None:
            place = self._places.get(owner) if owner is not None else None
        if place is None:
            place = handle._context.run(lambda: current().path)
        name = getattr(handle._callback, "__qualname__", type(handle._callback).__name__)
        if isinstance(owner, asyncio.Task):
            self._places[owner], name = place, self._numbers.setdefault(owner, owner.get_name())
            if name.startswith("Task-"):  # a number that counts on from run to run
                name = self._numbers[owner] = f"task {len(self._numbers)}"
        schedule.append(LoopStep(self.steps, self.now - START, name, place))

    def leaks(self) -> list[str]:
        """Tell what is left behind: tasks, async generators, errors that nobody saw."""
        made: list[Any] = self.tasks
        running = [f"task {self._name(task)} is still running" for task in self.unfinished()]
        unseen = [f"nobody saw {task._exception!r}" for task in made if task._log_traceback]
        generators = [
            f"async generator {generator.__qualname__} is still open"
            for generator in list(self._asyncgens)
            if generator.ag_frame is not None
        ]
        return running + unseen + generators + self.errors

    def clear(self) -> None:
        """Close what a run has left, silently, and then the loop itself."""
        left: set[Any] = {*self.tasks, *self.unfinished()}
        for task in left:
            task._log_destroy_pending = task._log_traceback = False
            if not task.done():
                try:
                    task.get_coro().close()
                except BaseException:  # noqa: BLE001 (the run is over; this is for quiet)
                    self.errors.append("a task did not close")
        # Nothing is kept: asyncio looks through all tasks that there are, and an error may hold this loop for long.
        for kept in (self._ready, self._scheduled, self._handed, self._asyncgens, self._places, self._numbers):
            kept.clear()
        for kept in (self.tasks, self.hooks, self.crew.carriers, self.crew.blocked):
            kept.clear()
        self.chooser = None
        self.close()


def shown(schedule: Sequence[LoopStep]) -> str:
    """Return the end of a schedule as text: number, time, task, and the mai step that went on."""
    tail = schedule[-TAIL:]
    wide = max((len(step.task) for step in tail), default=0)
    lines = list[str]()
    for step in tail:
        where = step.where if len(step.where) <= WIDE else f"...{step.where[-WIDE:]}"
        lines.append(f"{step.number:>6}  {step.time:>9.3f} s  {step.task:<{wide}}  {where}".rstrip())
    return "\n".join(lines)


def _told(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return str(context.get("message", "")) + (f": {error!r}" if error is not None else "")
