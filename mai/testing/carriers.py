"""Simulated threads: real ones, of which only one runs at a time, and only while the loop stands still for it.

A worker thread of an engine is carried by a `Carrier`. It gives the turn back to the loop where it blocks: at the gate
at which an idle worker waits for a job, before it begins one, in ``module.run`` and in ``handle.result``. When it may
go on, that is one more callback of the loop, whose place in the order the seed decides. So plain steps run whole but
for the calls that they wait for, in any order, and the pool's own code is what runs them.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..core.points import points
from ..core.threads import scheduling, start_thread
from .clocks import exchanged
from .errors import Crash

if TYPE_CHECKING:
    from .loop import SimulationLoop

_LATENCIES = (0.0, 0.0, 0.004)  # seconds that a thread may need before it goes on


class Carrier:
    """One thread, and what it waits for."""

    def __init__(self, crew: "Crew", target: Callable[[], None], name: str) -> None:
        self.crew: Crew = crew
        self.name: str = name
        self.target: Callable[[], None] = target
        self.idle: bool = False  # it waits for a job
        self.ended: bool = False
        self.killed: bool = False
        self.ready: Callable[[], bool] = bool  # whether it may go on; bool: never
        self.go: threading.Lock = threading.Lock()
        self.back: threading.Lock = threading.Lock()
        self.go.acquire()
        self.back.acquire()
        start_thread(self._main, name)

    def _main(self) -> None:
        self.go.acquire()
        self.crew.by_thread[threading.get_ident()] = self
        with suppress(Crash):
            if not self.killed:
                self.target()
        del self.crew.by_thread[threading.get_ident()]
        self.ended = True
        self.back.release()

    def resume(self) -> None:
        """Let the thread run until it blocks or ends; called by the loop."""
        self.go.release()
        self.back.acquire()

    def wait(self, ready: Callable[[], bool], *, idle: bool = False) -> None:
        """Give the turn back until *ready*; called by the thread itself."""
        self.ready, self.idle = ready, idle
        self.crew.blocked.append(self)
        self.back.release()
        self.go.acquire()
        self.ready, self.idle = bool, False
        if self.killed:
            raise Crash


class Crew:
    """The threads of one simulation."""

    def __init__(self, loop: "SimulationLoop", *, latencies: bool) -> None:
        self.loop: SimulationLoop = loop
        self.latencies: tuple[float, ...] = _LATENCIES if latencies else (0.0,)
        self.by_thread: dict[int, Carrier] = {}
        self.carriers: list[Carrier] = []
        self.blocked: list[Carrier] = []

    def start(self, target: Callable[[], None], name: str) -> None:
        """Start a worker thread of an engine."""
        carrier = Carrier(self, target, name)
        self.carriers.append(carrier)
        self._soon(carrier)

    def gate(self, lock: Any) -> Callable[[], object]:
        """Return what an idle worker calls to wait for a job."""
        carrier = self.by_thread.get(threading.get_ident())
        if carrier is None:  # a real thread, of an engine that was there before
            return lock.acquire  # type: ignore[no-any-return]

        def rest() -> None:
            if lock.locked():
                carrier.wait(lambda: not lock.locked(), idle=True)
            lock.acquire()

        return rest

    def until(self, ready: Callable[[], bool], timeout: float | None) -> float | None:
        """Let the loop go on until *ready*, for at most *timeout* simulated seconds; return how long is left."""
        carrier = self.by_thread.get(threading.get_ident())
        if carrier is None or ready():
            return timeout
        if timeout is None:
            carrier.wait(ready)
            return None
        due = self.loop.now + timeout
        timer = self.loop.call_at(due, int)  # so that time gets there
        carrier.wait(lambda: ready() or self.loop.now >= due)
        timer.cancel()
        return 0.0

    def reach(self, name: str) -> None:
        """Let others come first where a worker is about to begin a job."""
        carrier = self.by_thread.get(threading.get_ident())
        if carrier is not None and name == "thread.job":
            carrier.wait(lambda: True)

    def wake(self) -> None:
        """Let those go on that may; called by the loop before each of its steps."""
        for carrier in [one for one in self.blocked if one.ready()]:
            self.blocked.remove(carrier)
            self._soon(carrier)

    def _soon(self, carrier: Carrier) -> None:
        latency = self.latencies[int(self.loop.rng.random() * len(self.latencies))]
        if latency:
            self.loop.call_later(latency, carrier.resume)
        else:
            self.loop.call_soon(carrier.resume)

    def busy(self) -> list[str]:
        """Return the names of the threads that are in the middle of a job."""
        return [one.name for one in self.carriers if not (one.ended or one.idle)]

    def dismiss(self) -> None:
        """End all threads; those that will not go are left to themselves."""
        for carrier in self.carriers:
            carrier.killed = True
            for _ in range(20):  # a job may take the first one for a failure
                if not carrier.ended:
                    carrier.resume()

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Have the engines' worker threads carried until the block ends."""
        own = exchanged(scheduling, start=self.start, gate=self.gate, until=self.until)
        with own, exchanged(points, reach=self.reach):
            try:
                yield
            finally:
                self.dismiss()
