"""Many calls for a long time: ``python -m tests.soak [--minutes N] [--hours N] [--seed N]``.

Calls of many shapes go on at once, of which 1 % fail, 1 % run into a timeout and 0.1 % are cancelled. Once a second it
looks at the memory, the tasks, the threads and the open files of the process. At the end it prints the calls, what came
of them, and the slope of the memory by least squares over the second half of the time. The
exit code is 1 if memory grows by 1 MB an hour or more beyond what the regression cannot tell (two standard errors), if
more tasks, threads or files are open at the end than after the first minute, or if a call gave another value than the
plain functions do.
"""

import argparse
import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mai import (
    BlockingDelay,
    Conditional,
    Context,
    Graph,
    LocalEngine,
    Loop,
    NonBlockingDelay,
    Parallel,
    Race,
    Switch,
    capture,
    module,
)

ERRORS, TIMEOUTS, CANCELS = 0.01, 0.01, 0.001  # of the calls
AT_ONCE = 64
TARGET = 1.0  # MB an hour
luck = random.Random(0)


class Planned(Exception):
    """A failure that the driver plans."""


@module
async def add(x: int) -> int:
    """Add one, now and then after a suspension."""
    if luck.random() < 0.5:
        await asyncio.sleep(0)
    return x + 1


@module
async def broken(x: int) -> int:
    """Fail, now and then after a suspension."""
    if luck.random() < 0.5:
        await asyncio.sleep(0)
    raise Planned(x)


@module(timeout=0.02)
async def stuck(x: int) -> int:
    """Wait for longer than it may."""
    await asyncio.sleep(30)
    return x


@module
def add_in_thread(x: int) -> int:
    """Add one in a worker thread."""
    return x + 1


@module(inline=True)
def double(x: int) -> int:
    """Double it."""
    return 2 * x


@module
async def count(x: int) -> AsyncIterator[int]:
    """Stream the numbers below."""
    for i in range(x % 7):
        yield i


@module
def spell(x: int) -> Iterator[str]:
    """Stream the digits from a worker thread."""
    yield from str(x)


def diamond() -> Graph[Any, Any]:
    """Return a graph of four nodes."""
    graph = Graph("diamond")
    x = graph.input("x", int)
    left, right = graph.add(double, x), graph.add(safe, x)

    @module
    async def both(a: int, b: int) -> int:
        return a + b

    graph.output(graph.add(both, left, right))
    return graph


safe = add.with_(timeout=5, retry=2, fallback=double.with_(name="instead"))
SHAPES: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "chain": (double >> double >> double, lambda x: 8 * x),
    "parallel": (double & double & add_in_thread, lambda x: (2 * x, 2 * x, x + 1)),
    "limited": (Parallel(double, double >> NonBlockingDelay(0.001), limit=1), lambda x: (2 * x, 2 * x)),
    "delayed": (double >> BlockingDelay(0.001), lambda x: 2 * x),
    "conditional": (Conditional(lambda x: x % 2 == 0, then=double, otherwise=add_in_thread), None),
    "switch": (Switch(lambda x: x % 3, cases={0: double, 1: double}, otherwise=add_in_thread), None),
    "loop": (Loop(double, until=lambda x: x > 100, max_iters=9), None),
    "map": ((double >> double).map(concurrency=3), None),
    "race": (Race(double, double >> BlockingDelay(5)), lambda x: 2 * x),
    "retried": (safe >> safe, None),
    "stream": (count, lambda x: list(range(x % 7))),
    "thread stream": (spell, str),
    "graph": (diamond(), None),
    "detached": (double.with_(detached=True), None),
    "rescued": (broken.with_(retry=2, fallback=double), lambda x: 2 * x),
}
TROUBLE = {
    what: (
        double >> step >> double,
        step & double & add_in_thread,
        Parallel(double, step, limit=1),
        Loop(step, max_iters=3),
        Race(step, step.with_(name="again")),
        Conditional(lambda x: x > 0, then=step),
        step.with_(retry=2),
        (double >> double >> step).with_(total_timeout=5),
    )
    for what, step in (("error", broken), ("timeout", stuck))
}


@dataclass
class Look:
    """What the process had at one moment."""

    at: float
    memory: int
    tasks: int
    threads: int
    files: int


@dataclass
class Soak:
    """One run of the driver."""

    until: float
    calls: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    looks: list[Look] = field(default_factory=list[Look])

    async def work(self) -> None:
        """Make calls, one after the other."""
        while time.monotonic() < self.until:
            shape, draw = luck.choice(list(SHAPES)), luck.random()
            step, expected = SHAPES[shape]
            if draw < ERRORS + TIMEOUTS:
                shape = "error" if draw < ERRORS else "timeout"
                step, expected = luck.choice(TROUBLE[shape]), None
            x = luck.randrange(1, 100)
            try:
                value = await self.call(shape, step, [x, x + 1] if shape == "map" else x)
            except (Planned, TimeoutError, ExceptionGroup) as error:
                self.calls[type(error).__name__] += 1
            except asyncio.CancelledError:
                self.calls["cancelled"] += 1
            else:
                self.calls["ok"] += 1
                if expected is not None and value != expected(x):
                    self.wrong.append(f"{shape}({x}) gave {value!r}, not {expected(x)!r}")

    async def call(self, shape: str, step: Any, x: Any) -> Any:
        """Make one call in one of the ways that there are."""
        draw = luck.random()
        if draw < CANCELS:
            task = asyncio.ensure_future(step(x))
            await asyncio.sleep(0)
            task.cancel()
            return await task
        if draw < 0.05:
            with capture():
                return await step(x)
        if draw < 0.10:
            handle = step.start(x)
            if draw < 0.07:
                async for _ in handle:
                    pass
            return await handle
        if draw < 0.15:
            with Context.scope(timeout=20, user="soak"):
                return await step(x)
        return await step(x)

    def look(self) -> None:
        """Note what the process has now."""
        with open("/proc/self/statm", encoding="ascii") as statm:
            pages = int(statm.read().split()[1])
        files = len(os.listdir("/proc/self/fd"))
        tasks = len(asyncio.all_tasks())
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        self.looks.append(Look(time.monotonic(), memory, tasks, threading.active_count(), files))

    async def main(self, *, quiet: bool) -> None:
        """Work until the time is over."""
        async with LocalEngine(max_threads=16):
            started = time.monotonic()
            workers = [asyncio.ensure_future(self.work()) for _ in range(AT_ONCE)]
            while not all(worker.done() for worker in workers):
                await asyncio.sleep(1.0)
                if len(self.looks) % 10 == 0:
                    gc.collect()
                self.look()
                if not quiet and len(self.looks) % 30 == 0:
                    last, passed = self.looks[-1], time.monotonic() - started
                    made = sum(self.calls.values())
                    print(f"{passed:6.0f} s {made:10} calls {last.memory / 2**20:8.2f} MiB", flush=True)
            await asyncio.gather(*workers)
        gc.collect()
        self.look()


def slope(looks: list[Look]) -> tuple[float, float]:
    """Return the slope of the memory [MB an hour] and its standard error, by least squares."""
    xs, ys = [look.at for look in looks], [look.memory / 1e6 for look in looks]
    n, x0, y0 = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x0) ** 2 for x in xs)
    b = sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - y0 - b * (x - x0)) ** 2 for x, y in zip(xs, ys, strict=True))
    return 3600 * b, 3600 * (rest / max(1, n - 2) / spread) ** 0.5


def report(soak: Soak) -> bool:
    """Print what was seen; say whether it is as it should be."""
    late = soak.looks[len(soak.looks) // 2 : -1]
    early, end = soak.looks[min(60, len(soak.looks) // 2)], soak.looks[-1]
    growth, error = slope(late) if len(late) > 2 else (0.0, 0.0)
    print(f"calls    {sum(soak.calls.values())}: " + ", ".join(f"{n} {what}" for what, n in soak.calls.most_common()))
    print(f"memory   {growth:+.2f} MB an hour, standard error {error:.2f} (target below {TARGET:g})")
    for what in ("tasks", "threads", "files"):
        print(f"{what:8} {getattr(early, what)} after a minute, {getattr(end, what)} at the end")
    for line in soak.wrong[:20]:
        print(f"WRONG    {line}")
    grown = [what for what in ("threads", "files") if getattr(end, what) > getattr(early, what)]
    return not soak.wrong and not grown and end.tasks <= 1 and growth - 2 * error < TARGET


def main() -> int:
    """Soak; return the exit code."""
    parser = argparse.ArgumentParser(description="Many calls for a long time")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--hours", type=float, default=0.0, help="how long, instead")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    given = parser.parse_args()
    luck.seed(given.seed)
    soak = Soak(time.monotonic() + (3600 * given.hours or 60 * given.minutes))
    asyncio.run(soak.main(quiet=given.quiet))
    return 0 if report(soak) else 1


if __name__ == "__main__":
    sys.exit(main())
