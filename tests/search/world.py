"""What the steps of one simulated run write down, and what has to hold when it is over."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mai import Context, DeadlineExceeded, LoopExhausted, Module, PartialFailure, TraceHandle
from mai.core.clock import clock
from mai.testing import Crash, SimulatedFault, SimulationLoop, Trial
from mai.testing.loop import START

if TYPE_CHECKING:
    from .shapes import Shape

MARK: ContextVar[str] = ContextVar("search.mark", default="caller's")
CALLER: ContextVar[str] = ContextVar("search.caller", default="")  # set where a run begins: all of its steps see it
OWN = (SimulatedFault, DeadlineExceeded, LoopExhausted, PartialFailure)  # errors that no step of ours has raised
SLACK = 0.02  # seconds that threads may need to come round


class World:
    """What happened in one run."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new run, with the modules that were built in this world."""
        self.caller = ""
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.made: Counter[str] = Counter()  # chunks of generators
        self.last_begin = 0.0
        self.cleanup = 0.0  # all clean-ups that began, one after the other
        self.raised: set[int] = set()
        self.kept: list[BaseException] = []  # so that no address comes again
        self.active: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.after: dict[str, Any] = {}
        self.handles: list[TraceHandle[Any]] = []

    def failure(self, name: str) -> ValueError:
        """Return the error of the step *name*."""
        error = ValueError(name)
        self.raised.add(id(error))
        self.kept.append(error)
        return error

    @contextmanager
    def inside(self, name: str, group: str = "") -> Generator[None]:
        """Write down that a step runs; see that what it sees is its own."""
        self.begun[name] += 1
        self.last_begin = clock.now()
        self.active[group] += 1
        self.most[group] = max(self.most[group], self.active[group])
        if MARK.get() == name:
            self.wrong.append(f"{name} sees what an earlier call of it left")
        if CALLER.get() != self.caller:
            self.wrong.append(f"{name} does not see what its caller has set")
        MARK.set(name)
        path = Context.get().step_id
        try:
            yield
        finally:
            if MARK.get() != name or Context.get().step_id != path:
                self.wrong.append(f"{name} sees {MARK.get()!r} at {Context.get().step_id!r}, not its own")
            self.active[group] -= 1
            self.ended[name] += 1

    def step(self, name: str, *seconds: float, **how: Any) -> Module[Any, Any]:
        """Return a step that waits for each of *seconds* and adds 1."""
        return Work(self, name, seconds, **how).with_(name=name)


class Work(Module[Any, Any]):
    """A step of the search: it waits, fails in its first calls, cleans up, and may be stubborn when it is cancelled."""

    def __init__(
        self, world: World, name: str, seconds: tuple[float, ...], *, fails: int = 0, cleanup: float = -1.0,
        group: str = "", stubborn: str = "", gives: Callable[[Any], Any] = lambda x: x + 1,
    ) -> None:  # fmt: skip
        self.world, self.name, self.seconds, self.fails = world, name, seconds, fails
        self.cleanup, self.group, self.stubborn, self.gives = cleanup, group, stubborn, gives

    async def forward(self, x: Any) -> Any:
        """Work."""
        with self.world.inside(self.name, self.group):
            try:
                for pause in self.seconds:
                    await asyncio.sleep(pause)
                if self.world.begun[self.name] <= self.fails:
                    raise self.world.failure(self.name)
                return self.gives(x)
            except asyncio.CancelledError:
                if self.stubborn == "swallow":
                    return -1
                if self.stubborn == "fail":
                    raise self.world.failure(self.name) from None
                raise
            finally:
                if self.cleanup >= 0:
                    self.world.cleanup += self.cleanup
                    await asyncio.sleep(self.cleanup)


class Threaded(Work):
    """The same in a worker thread; it calls what it is given there."""

    inner: Module[Any, Any] | None = None

    def forward(self, x: Any) -> Any:
        """Work, in a thread."""
        with self.world.inside(self.name, self.group):
            out = x if self.inner is None else self.inner.run(x)
            if self.world.begun[self.name] <= self.fails:
                raise self.world.failure(self.name)
            return self.gives(out)


class Streaming(Work):
    """The same as a stream of *count* chunks."""

    count = 3

    async def forward(self, x: Any) -> AsyncIterator[Any]:
        """Work, chunk by chunk."""
        with self.world.inside(self.name, self.group):
            for i in range(self.count):
                for pause in self.seconds:
                    await asyncio.sleep(pause)
                if self.world.begun[self.name] <= self.fails:
                    raise self.world.failure(self.name)
                self.world.made[self.name] += 1
                yield x + i


class Chunks(Work):
    """The same as a plain generator, in a thread; it may call something there before its first chunk."""

    count = 3
    inner: Module[Any, Any] | None = None

    def forward(self, x: Any) -> Iterator[Any]:
        """Work in a thread, chunk by chunk."""
        with self.world.inside(self.name, self.group):
            if self.inner is not None:
                self.inner.run(x)
            for i in range(self.count):
                self.world.made[self.name] += 1
                yield x + i


async def joined(*tasks: "asyncio.Task[Any]", run: "TraceHandle[Any] | None" = None) -> None:
    """Wait for tasks, and for a run, through any cancel."""
    cut = None
    while (left := [task for task in tasks if not task.done()]) or (run is not None and run.outcome == "running"):
        try:
            await (asyncio.wait(left) if left else run.settled())  # type: ignore[union-attr]
        except asyncio.CancelledError as error:
            cut = error
    if cut is not None:
        raise cut


def check(world: World, trial: Trial[Any], shape: "Shape") -> None:
    """Raise AssertionError if something does not hold that has to.

    Args:
        world: What was written down.
        trial: How the run ended.
        shape: What was run, and what has to hold of it.
    """
    if isinstance(trial.error, Crash):
        return
    assert world.wrong == [], world.wrong
    assert world.begun == world.ended, f"clean-up was lost: {world.begun - world.ended}"
    assert not world.begun["never"], "a step began after the deadline"
    check_end(world, trial)
    for group, limit in shape.limits.items():
        assert world.most[group] <= limit, f"{world.most[group]} steps of {group} at once, not {limit}"
    if not (shape.unloads and trial.at is not None):
        for handle in world.handles:
            check_handles(handle, within=not shape.abandons)
    error = trial.value if isinstance(trial.value, BaseException) else trial.error
    if error is not None and not isinstance(error, asyncio.CancelledError):
        check_error(world, error)
    if isinstance(trial.value, BaseException) or trial.error is None:
        met = trial.at is not None and shape.guards
        right = isinstance(error, shape.errors) if error is not None else trial.value == shape.expected
        assert right or met, f"it gave {trial.value!r}, not {shape.errors or shape.expected!r}"
    if trial.at is None:
        assert world.made["plain"] <= 100, "a generator went on after its end"
        assert trial.elapsed <= shape.within + 1e-6, f"it took {trial.elapsed} s, not {shape.within}"
        told = {id(one) for one in leaves(error)}
        lost = [one for one in world.kept if one.args[0] in shape.uncaught and id(one) not in told]
        assert not lost, f"{error!r} hides {lost}"


def check_end(world: World, trial: Trial[Any]) -> None:
    """Raise AssertionError unless all was over when the caller had its turn again (it does not wait for threads)."""
    after = world.after
    if not after:
        return
    assert after["mark"] == "caller's", "a contextvar has leaked to the caller"
    cancelled = trial.at is not None and isinstance(trial.error, asyncio.CancelledError)
    assert after["cancelled"] == cancelled or trial.at is not None, "task.cancelling() says that a cancel came"
    if not after["busy"]:
        assert after["tasks"] == 1, "a task went on beside the caller"
        assert after["lost"] == {}, f"clean-up was not through: {after['lost']}"
        assert after["begun"] == sum(world.begun.values()), "a step began after the end"


def check_cancel(world: World, trial: Trial[Any]) -> None:
    """Raise AssertionError if a run that was cancelled went on."""
    if trial.at is None or isinstance(trial.error, Crash):
        return
    error = trial.value if isinstance(trial.value, BaseException) else trial.error
    assert error is not None, "the cancel was lost"
    assert isinstance(error, asyncio.CancelledError) or world.raised, f"{error!r} of a cancel"
    assert world.after.get("cancelled", True), "task.cancelling() does not say that a cancel came"
    assert world.made["plain"] <= 100, "a generator went on after the cancel"
    slack = SLACK if world.after.get("threads", True) else 1e-6
    assert world.last_begin <= START + trial.at + slack, "a step began after the cancel"
    assert trial.elapsed - trial.at <= world.cleanup + slack, "more than clean-up went on"


def check_handles(root: TraceHandle[Any], *, within: bool) -> None:
    """Raise AssertionError unless all calls of a trace have ended, each *within* the one around it."""
    for handle in root.walk():
        assert handle.outcome != "running", f"{handle.step_id} is said to run"
        assert (handle.error is None) == (handle.outcome in ("ok", "cancelled", "replayed", "skipped")), handle.step_id
        if handle.start_ns is not None:
            assert handle.end_ns is not None, f"{handle.step_id} has no end"
            assert handle.start_ns <= handle.end_ns, handle
        if handle.parent is not None and handle.parent.start_ns is not None and handle.start_ns is not None:
            assert handle.parent.start_ns <= handle.start_ns, handle
            inside = not handle.end_ns or handle.end_ns <= (handle.parent.end_ns or 0)
            assert inside or not within, f"{handle} outlives its caller"


def check_error(world: World, error: BaseException) -> None:
    """Raise AssertionError unless *error* is one that belongs to the run, and says where it was."""
    if isinstance(error, BaseExceptionGroup) and not isinstance(error, PartialFailure):
        for inner in error.exceptions:
            check_error(world, inner)
        return
    assert isinstance(error, OWN) or id(error) in world.raised, f"{error!r} is nobody's"
    notes = getattr(error, "__notes__", [])
    assert sum(note.startswith("mai: in ") for note in notes) == 1, f"{error!r} does not say where: {notes}"
    assert isinstance(getattr(error, "__mai_trace__", None), TraceHandle), f"{error!r} has no trace"


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the errors in a group, or the only one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    elif error is not None:
        yield error


def loop_of() -> SimulationLoop:
    """Return the loop of the run."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    return loop
