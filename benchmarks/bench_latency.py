"""How soon is a caller free: after a cancel, after the deadline of a blocked thread, after a Ctrl-C?

The rows R8 are of the table of reliability, so their figures are times and no ratios, and on a loaded machine they say
little. Cancel: one of 1,000 calls that run, each waking up every 50 ms, is cancelled; from ``task.cancel()`` until the
task has ended, the 99th of 100 in order of length. The same of 1,000 bare tasks, and from the cancel of one Parallel of
1,000 branches until all of them have been joined. Deadline: a plain step blocks its thread past its timeout; how long
after the deadline the caller goes on. Ctrl-C: a program with 32 blocked threads, from the signal until it has ended.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from mai import DeadlineExceeded, Module, Parallel

from .harness import Row, Scale, main
from .promises import promise

__all__ = ["rows"]

_ROOT = Path(__file__).resolve().parents[1]
_CANCELS = 100  # of which the 99th is taken
_PERIOD = 0.05  # seconds between two turns of a running step
_TIMEOUT = 0.02  # seconds that a blocked step may take
_PROGRAM = """
import asyncio, signal, sys, threading
from mai import LocalEngine, Parallel, module
signal.signal(signal.SIGINT, signal.default_int_handler)
standing, never = threading.Semaphore(0), threading.Event()
@module
def blocked(x: int) -> int:
    standing.release()
    never.wait()
    return x
def tell():
    for _ in range(32):
        standing.acquire()
    print("all stand", flush=True)
threading.Thread(target=tell, daemon=True).start()
Parallel(*[blocked] * 32).run(1)
"""


class Runs(Module):
    """A step that wakes up now and then until it is cancelled."""

    async def forward(self, x):
        while True:
            await asyncio.sleep(_PERIOD)


async def _bare(x: int) -> None:
    while True:
        await asyncio.sleep(_PERIOD)


class Blocks(Module):
    """A plain step that blocks its thread."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def forward(self, x):
        self.free.wait(10)


@dataclass(frozen=True)
class CancelOne:
    """The 99th percentile of the times from a cancel to the end of one task among *n* [ns]."""

    work: Callable[[int], Awaitable[Any]]
    n: int

    async def take(self) -> float:
        """Start all, cancel some one by one, and then the rest."""
        tasks = [asyncio.ensure_future(self.work(1)) for _ in range(self.n)]
        await asyncio.sleep(2 * _PERIOD)
        times = list[int]()
        for task in tasks[:: max(1, self.n // _CANCELS)]:
            start = perf_counter_ns()
            task.cancel()
            await asyncio.wait([task])
            times.append(perf_counter_ns() - start)
            promise(task.cancelled(), "a cancelled call ends as cancelled")
            await asyncio.sleep(_PERIOD / 10)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return sorted(times)[int(len(times) * 0.99) - 1]


@dataclass(frozen=True)
class CancelAll:
    """The time from a cancel of a Parallel to its end [ns]."""

    n: int

    async def take(self) -> float:
        """Start, wait until all run, cancel, join."""
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(Parallel(*[Runs()] * self.n)(1))
        await asyncio.sleep(2 * _PERIOD)
        start = perf_counter_ns()
        task.cancel()
        await asyncio.wait([task])
        end = perf_counter_ns()
        promise(task.cancelled() and asyncio.all_tasks() == before, "a cancelled Parallel has joined its branches")
        return end - start


class Freed:
    """How long after its deadline the caller of a blocked step goes on [ns]; in the loop, or in sync code."""

    def __init__(self, *, sync: bool) -> None:
        self.sync = sync

    async def take(self) -> float:
        """Block a thread, and let it go afterwards."""
        step = Blocks()
        limited = step.with_(timeout=_TIMEOUT)
        try:
            return await (asyncio.to_thread(self._run, limited) if self.sync else self._late(limited(1)))
        finally:
            step.free.set()

    async def _late(self, call: Awaitable[Any]) -> float:
        start = perf_counter_ns()
        with contextlib.suppress(DeadlineExceeded):
            promise(await call, "a blocked step is left at its deadline")
        return perf_counter_ns() - start - _TIMEOUT * 1e9

    def _run(self, m: Module) -> float:
        start = perf_counter_ns()
        with contextlib.suppress(DeadlineExceeded):
            promise(m.run(1), "a blocked step is left at its deadline")
        return perf_counter_ns() - start - _TIMEOUT * 1e9


class CtrlC:
    """The time from SIGINT to the end of a program with 32 blocked threads [ns]."""

    async def take(self) -> float:
        """Start the program, wait until its threads block, and interrupt it."""
        return await asyncio.to_thread(self._interrupt)

    def _interrupt(self) -> float:
        program = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with program, contextlib.ExitStack() as stack:
            stack.callback(program.kill)
            assert program.stdout is not None
            program.stdout.readline()
            start = perf_counter_ns()
            program.send_signal(signal.SIGINT)
            _, error = program.communicate(timeout=30)
            promise("KeyboardInterrupt" in error, f"a Ctrl-C is raised: {error[-200:]}")
            return perf_counter_ns() - start


async def rows(scale: Scale) -> list[Row]:
    """Return what is to be measured; each sample asserts what it waits for."""
    n, rounds = scale.calls * 10 // 3, scale.heavy_rounds

    def line(what: str, target: float | None, sample: Any, n: int, rounds: int = rounds) -> Row:
        return Row("R8", what, target, "ms", {"mai": sample}, lambda t: t["mai"] / 1e6, rounds, n)

    return [
        line(f"cancel of one of {n} calls that run, 99th percentile", 5, CancelOne(Runs(), n), n),
        line(f"cancel of one of {n} bare tasks, 99th percentile", None, CancelOne(_bare, n), n),
        line(f"cancel of a Parallel of {n}, all joined", None, CancelAll(n), n),
        line("caller in the loop free after the deadline of a blocked thread", 50, Freed(sync=False), 1),
        line("caller in sync code free after the deadline of a blocked thread", 50, Freed(sync=True), 1),
        line("Ctrl-C with 32 blocked threads", 1000, CtrlC(), 1, max(1, rounds // 3)),
    ]


if __name__ == "__main__":
    raise SystemExit(main(["latency"]))
