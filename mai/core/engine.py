"""The local engine: answers the verbs of a run in memory, and owns worker threads and the door for sync code.

What the layers may ask of a run is `Run` and nothing else.
"""

import asyncio
import atexit
import copy
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, Token, copy_context
from functools import partial
from queue import Empty
from typing import Any

from ..errors import ConfigError, DeadlineExceeded, WouldDeadlock
from ..values.checked import COUNT, checked
from ..values.events import Asked, Question, Started
from .control import Control, join
from .drive import apart, closed, outcome
from .events import Bell, post
from .frame import Env, Frame, Scope, current, restore, scoped, set_current
from .gather import Group, Work
from .ids import new_id
from .spans import Watchers, telemetry, watched
from .threads import Door, Threads, start_thread, thread_owners, worker_loop
from .trace import TraceHandle, collect, ended, open_handle
from .watch import watchdog

FLUSH = 5.0  # seconds that detached work has when the interpreter ends; after a Ctrl-C less


class Run:
    """One run: the verbs, which are all that the layers ever ask for, answered in memory.

    Another engine answers the same verbs with a journal: `mai.durable.verbs` says what they promise then. ``records``
    False says that nothing is recorded, so the kernel never asks for ``step``, ``flow`` and ``value``; ``replaying`` is
    true while a recorded past is repeated; ``durable`` says that somebody can always answer a ``wait``.
    """

    engine: "LocalEngine"
    records: bool = False
    replaying: bool = False
    durable: bool = False
    run_id: str = ""  # the top-level calls of an engine share one Run, and get one of their own to have an identity

    def id_of(self, frame: Frame) -> str:
        """Return the identity of the top-level call that *frame* is in; made when first asked for."""
        while frame.parent.mod is not None:
            frame = frame.parent
        top: Any = frame.owner if isinstance(frame, Scope) else frame
        with _process.lock:  # several threads may ask
            if not top.run.run_id:
                top.run = copy.copy(self)
                top.run.run_id = new_id()
        return top.run.run_id  # type: ignore[no-any-return]

    async def sleep(self, path: str, seconds: float) -> None:
        """Wait on the loop's timer."""
        await asyncio.sleep(seconds)

    async def value(self, path: str, make: Callable[[], Any]) -> Any:
        """Make the value."""
        return make()

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Wait for the answer to *signal*, as JSON.

        Raises:
            DeadlineExceeded: If there is none after *timeout* seconds.
        """
        env, limit, turn = current().env, asyncio.timeout(timeout), asyncio.get_running_loop().create_future()
        if env.answers is None:
            env.bus.questions[signal.id] = signal, turn
        post(Asked, signal)
        try:
            async with limit:
                return await turn if env.answers is None else signal.data(await outcome(apart(env.answers, signal)))
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = f"Nobody answered {signal.prompt!r} within {timeout:g} s"
            raise DeadlineExceeded(late, step_id=signal.step_id, timeout=timeout) from error
        finally:
            if env.bus is not None:
                env.bus.questions.pop(signal.id, None)

    async def gather(self, path: str, work: Work, *, limit: int | None = None) -> None:
        """Drive the branches in this loop."""
        await Group(work, limit).run()


class LocalEngine:
    """Runs calls in memory, on asyncio, with worker threads of its own.

    ``async with LocalEngine(...)`` chooses it for the calls inside; without one a default
    engine serves. Leaving the block waits for what was started and for detached work (an exception cancels what was
    started; a cancel both), and lets the idle threads end.

    Args:
        max_threads: Most worker threads at once for plain ``forward`` functions, at least 1.
        max_abandoned: Most threads that hang after a timeout or a cancel freed their callers, at least 1; with so many
            a plain step is refused with TooManyAbandoned.

    Raises:
        ConfigError: If an argument is not a positive int, or the block is entered inside a run.

    Example:
        >>> import asyncio
        >>> from mai import LocalEngine, module
        >>> @module
        ... def measure(text: str) -> int:
        ...     return len(text)
        >>> async def main() -> int:
        ...     async with LocalEngine(max_threads=2):
        ...         return await measure("hello")
        >>> asyncio.run(main())
        5
    """

    durable: bool = False  # a call outside of a run is handed to its ``submit``

    def __init__(self, *, max_threads: int = 64, max_abandoned: int = 64) -> None:
        limit = checked("LocalEngine", "max_threads", max_threads, COUNT)
        self.threads: Threads = Threads(limit, checked("LocalEngine", "max_abandoned", max_abandoned, COUNT))
        self.ongoing: set[Control] = set()  # all that were started and have not ended
        self.idle: Bell = Bell()
        self.watchers: Watchers = {}
        self._run: Run = Run()
        self._run.engine = self
        self._entered: list[tuple[Token[Frame], asyncio.Task[Any] | None]] = []

    @staticmethod
    def default() -> "LocalEngine":
        """Return the engine that serves the calls of this process for which none was chosen."""
        with _process.lock:
            engine = _process.engine = _process.engine or LocalEngine()
        return engine

    def subscribe(self, fn: Callable[[TraceHandle[Any]], object]) -> Callable[[], None]:
        """Call *fn* with the handle of each top-level call of this engine that ends, in whatever way.

        It is called in the thread of the call, in an empty context, before the call returns, so it should be quick.
        If it fails, the logger ``mai`` tells so, and nobody else.

        Args:
            fn: A plain function of a TraceHandle.

        Returns:
            A function that ends the subscription.

        Raises:
            ConfigError: If *fn* is not a plain function.

        Example:
            >>> from mai import LocalEngine, module
            >>> @module
            ... async def shout(text: str) -> str:
            ...     return text.upper()
            >>> unsubscribe = LocalEngine.default().subscribe(lambda handle: print(handle.name, handle.outcome))
            >>> shout.run("hello")
            shout ok
            'HELLO'
            >>> unsubscribe()
        """
        return watched(self.watchers, fn, "LocalEngine: subscribe")

    def tell(self, handle: TraceHandle[Any]) -> None:
        """Call the subscribers."""
        for fn in [*self.watchers.values(), *telemetry.watchers.values()]:
            try:
                Context().run(fn, handle)
            except Exception:  # a subscriber's failure is told, and is nobody else's
                logging.getLogger("mai").exception("subscriber %r failed on %s", fn, handle.step_id)

    async def __aenter__(self) -> "LocalEngine":
        if current().run is not None:
            raise ConfigError("LocalEngine: a run goes on here already, and keeps its engine; choose one outside of it")
        self._entered.append((set_current(scoped(current(), engine=self)), asyncio.current_task()))
        self.threads.closed = False
        return self

    def _leaves_last(self) -> bool:
        """Say whether nobody else is inside the block of this engine, which is about to be left.

        Raises:
            ConfigError: If another engine was entered inside of it, and has not been left.
        """
        if current().env.engine is not self and any(task is asyncio.current_task() for _, task in self._entered):
            raise ConfigError(f"{type(self).__name__}: another engine was entered inside this block; leave that first")
        return len(self._entered) == 1

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        last = self._leaves_last()
        own = next((one for one in reversed(self._entered) if restore(one[0])), self._entered[0])
        self._entered.remove(own)  # several tasks may be inside at once
        if not last:
            return
        try:
            await join([run for run in list(self.ongoing) if not run.apart], error)  # threads may start some
            while self.ongoing:
                await join(list(self.ongoing))
        except BaseException as end:  # a cancel, or a run that is to end the program
            await join(list(self.ongoing), end)
            raise
        finally:
            self.threads.close()


class _Process:
    """What the calls of a process share; a forked child, which has none of its parent's threads, begins anew."""

    def __init__(self) -> None:
        self.forget()
        thread_owners.add(self)

    def forget(self) -> None:
        """Begin without an engine and a loop."""
        self.engine: LocalEngine | None = None
        self.portal: asyncio.AbstractEventLoop | None = None
        self.lock: threading.Lock = threading.Lock()


_process = _Process()


def portal() -> asyncio.AbstractEventLoop:
    """Return the loop that serves sync code: one for the life of the process."""
    with _process.lock:
        if _process.portal is None:
            _process.portal = asyncio.new_event_loop()
            start_thread(_process.portal.run_forever, "mai-portal")
            atexit.register(_flush, _process.portal)
        return _process.portal


# No coverage: it runs when an interpreter ends, and is tested in one of its own.
def _flush(loop: asyncio.AbstractEventLoop) -> None:  # pragma: no cover
    """Give the detached work in the portal loop a little time when the interpreter ends."""
    if _process.portal is loop:
        engine = LocalEngine.default()
        limit = 0.5 if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) else FLUSH  # nobody caught it
        engine.idle.wait(lambda: not any(run.apart and run.loop is loop for run in list(engine.ongoing)), limit)


def new_run(env: Env) -> Run:
    """Return what serves as the run of a top-level call: on the engine chosen around, or on the default one."""
    if watchdog.resting:
        watchdog.wake()
    return (env.engine or _process.engine or LocalEngine.default())._run


def current_run() -> Any:
    """Return the run of the current call, or outside a call that of the next one."""
    return current().run or new_run(current().env)


def run_sync(call: Callable[[], Awaitable[Any]]) -> Any:
    """Run ``await call()`` from sync code and return its value: the door behind ``module.run``.

    In a worker thread the loop that waits for that thread runs it, elsewhere the process's portal loop. A Ctrl-C
    cancels the call, gives its clean-up half a second, and is raised.

    Raises:
        WouldDeadlock: If an event loop runs in this very thread.
    """
    if asyncio._get_running_loop() is not None:
        raise WouldDeadlock("run() was called in the thread of a running event loop: write 'await module(x)' instead")
    door = Door()
    waiting = worker_loop(door)
    door.loop = waiting or portal()
    try:  # the door takes jobs in a worker thread only: any other must be free for a Ctrl-C
        _spawn(door, scoped(current(), armed=None, door=waiting and door), call, partial(door.put, None))
        door.serve()
    except BaseException:
        door.cancel()
        with suppress(Empty):
            door.serve(timeout=0.5)  # what clean-up has after a Ctrl-C
        raise
    door.task.result()  # raises if it was cancelled from outside before its first step
    if door.error is not None:
        raise door.error
    return door.value


def start_run(begin: Any, m: Any, p: Frame, key: str, n: int, *call: Any, apart: bool = False) -> TraceHandle[Any]:
    """Start ``begin(m, p, key, n, *call, handle)`` in a task, and return its handle at once.

    It runs in the loop that runs in this thread, else in the one that waits for this worker thread, else in the
    process's portal loop. A run *apart* is detached.
    """
    waiting, run = worker_loop(), p.run or new_run(p.env)
    loop = asyncio._get_running_loop() or (portal() if waiting is None or waiting.is_closed() else waiting)
    control, shell = Control(loop, p.env.bus, apart=apart), Frame()
    shell.key, shell.n, shell.parent, shell.span = key, n, p.owner if isinstance(p, Scope) else p, None
    h = open_handle(shell, p.handle, m._mai_spec, call[-1])
    h._control = control
    own: dict[str, Any] = {"deadline": None, "door": None} if apart else {}
    scope = scoped(p, armed=None, slot=None, bus=control, **own)
    shell.mod, shell.run, shell.env = m, run, scope.env

    def over() -> None:
        if control.error is None and h.outcome == "running":  # cancelled before it began, or its loop was closed
            control.error = asyncio.CancelledError()
            ended(h, "cancelled")
            if h.start_ns is None:
                collect(h, scope, shell.parent)
                post(Started, h.name, h.kind, frame=shell)  # each call begins and ends once
            closed(shell, h)
        control.step_id = h.step_id if control.error is not None else ""
        control.task, control.finish = None, int
        control.end()
        run.engine.ongoing.discard(control)
        run.engine.idle.ring()
        for around in control.around:
            around.detached.discard(control)
            around.over.ring()

    control.finish = over
    _enlist(control, shell.parent)
    run.engine.ongoing.add(control)
    _spawn(control, scope, lambda: outcome(begin(m, scope, key, n, *call, h)), over)
    return h


def _enlist(control: Control, owner: Frame) -> None:
    """Let those know of a run that will wait for it: the call that started it, or whoever waits for detached work."""
    if control.apart:
        for around in control.around:
            around.detached.add(control)
    elif owner.mod is not None:
        owner.started = [*(owner.started or ()), control]


def _spawn(home: Control | Door, scope: Scope, call: Callable[[], Awaitable[Any]], over: Callable[[], object]) -> None:
    """Run ``await call()`` in a task of *home*, in a copy of this context; there is what comes of it, too."""
    context = copy_context()

    async def main() -> None:
        set_current(scope)
        try:
            home.value = await call()
        except BaseException as error:  # noqa: BLE001 (whoever asks *home* gets it; a SystemExit would end the loop)
            home.error = error

    def spawn() -> None:
        home.task = home.loop.create_task(main(), context=context)
        home.task.add_done_callback(lambda _: over())

    if asyncio._get_running_loop() is home.loop:
        spawn()
    else:
        home.loop.call_soon_threadsafe(spawn)
