"""What does a node of a graph cost, against one asyncio task a node, and how much memory does a graph need?

Row 10: a graph of 10,000 nodes with two inputs each, wired and run through the public API; every node is a call that
keeps all its promises. The same with a cast on each edge, with a retry policy on each node, and where every node waits
once. Row 11: the same graph with a million nodes, wired, run, and its bytes (in full measurements only). Row 12: the
same run under ``capture()`` and its plan written out as JSON, and what is held meanwhile. Row 6: a chain
of 100 nodes, which runs as one, against the Sequential of the same steps. The runner looks at the clock, and lets the
loop run about every millisecond, in all of them. The peer makes an `asyncio.Task` for each node, which awaits the tasks
of its inputs.
"""

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from mai import Graph, Module, Ref, Sequential, capture

from . import steps
from .harness import Row, Scale, Timed, main, ratio
from .promises import check_cancel, check_deadline, check_promises, look, look_again, promise

__all__ = ["rows"]

_MILLION = 1000, 1000


class Add(Module):
    """A node."""

    async def forward(self, a: int, b: int) -> int:
        return (a + b) % 1000003


class AddText(Module):
    """A node whose inputs are cast."""

    async def forward(self, a: int, b: int) -> str:
        return str((a + b) % 1000003)


class AddLater(Module):
    """A node that waits."""

    async def forward(self, a: int, b: int) -> int:
        await asyncio.sleep(0)
        return (a + b) % 1000003


async def probe(self: Any, a: int, b: int) -> int:
    """Stand in for a node."""
    look()
    return (a + b) % 1000003


async def probe_later(self: Any, a: int, b: int) -> int:
    """Stand in for a node that waits."""
    mine = look()
    await asyncio.sleep(0)
    look_again(mine)
    return (a + b) % 1000003


async def hang(self: Any, a: int, b: int) -> int:
    """Stand in for a node that does not end in time."""
    await asyncio.sleep(3600)
    return 0


def layered(step: Module, levels: int, width: int) -> Graph[..., Any]:
    """Return a graph of levels * width nodes, each of which takes the values of two of the level before."""
    g = Graph("dag")
    x = g.input("x", int)
    row: list[Ref[Any]] = [g.add(step, x, x) for _ in range(width)]
    for _ in range(levels - 1):
        row = [g.add(step, row[i], row[(i + 1) % width]) for i in range(width)]
    return g.output(row)


def tasks(levels: int, width: int, *, waits: bool = False) -> Callable[[], Awaitable[list[int]]]:
    """Return the same with a task for each node."""

    async def node(a: "asyncio.Task[int] | int", b: "asyncio.Task[int] | int") -> int:
        x, y = a if isinstance(a, int) else await a, b if isinstance(b, int) else await b
        if waits:
            await asyncio.sleep(0)
        return (x + y) % 1000003

    async def run() -> list[int]:
        async with asyncio.TaskGroup() as group:
            row = [group.create_task(node(1, 1)) for _ in range(width)]
            for _ in range(levels - 1):
                row = [group.create_task(node(row[i], row[(i + 1) % width])) for i in range(width)]
        return [task.result() for task in row]

    return run


def paths(name: str, n: int) -> list[str]:
    """Return the step ids of the nodes."""
    return [f"dag/{name}", *(f"dag/{name}~{i}" for i in range(2, n + 1))]


async def _small(scale: Scale) -> list[Row]:
    width = max(2, round(scale.branches**0.5))
    levels, lines = width, list[Row]()
    n = levels * width
    plain, peer = layered(Add(), levels, width), tasks(levels, width)
    value = await peer()
    await check_promises(lambda: plain(1), Add.forward, probe, paths("Add", n), value=value)
    later = layered(AddLater(), levels, width)
    await check_promises(lambda: later(1), AddLater.forward, probe_later, paths("AddLater", n), value=value)
    await check_cancel(lambda: later(1))
    await check_deadline(later, AddLater.forward, probe_later, hang)
    text = layered(AddText(), levels, width)
    promise([int(one) for one in await text(1)] == value, "casts change no value")

    def line(what: str, target: float | None, work: Any, other: Any = peer, *, seen: bool = False) -> None:
        async def quiet() -> None:
            await work(1)

        async def watched() -> None:
            with capture():
                await work(1)

        ours = Timed(watched if seen else quiet, n)
        what = f"graph of {n:,} nodes, {what}{', under capture()' if seen else ''}"
        lines.append(Row("10", f"{what}, each", target, "A", {"mai": ours}, ratio(), scale.heavy_rounds, n))
        samples = {"mai": ours, "task a node": Timed(other, n)}
        peers, share = ratio("mai", "task a node"), 0.35 if target == 18 else None
        lines.append(Row("10", f"{what}, to a task a node", share, "task", samples, peers, scale.heavy_rounds, n))

    line("two inputs", 18, plain)
    line("two inputs", 21, plain, seen=True)
    line("a cast on each edge", None, text)
    line("a retry policy on each node", None, layered(Add().with_(retry=2), levels, width))
    line("each waits a turn", None, later, tasks(levels, width, waits=True))
    lines.append(
        Row("10", f"graph of {n:,} nodes, wiring, each", 30, "A", {"mai": Timed(_wired(levels, width), n)}, ratio(),
            scale.heavy_rounds, n)
    )  # fmt: skip
    return lines


def _wired(levels: int, width: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        layered(Add(), levels, width)

    return work


async def _chain(scale: Scale) -> list[Row]:
    n, step = scale.chain, steps.Noop()
    g = Graph("dag")
    ref: Ref[Any] = g.input("x", int)
    for _ in range(n):
        ref = g.add(step, ref)
    chain, sequence = g.output(ref), Sequential(*[step] * n)
    await check_promises(lambda: chain(1), steps.Noop.forward, steps.probe, paths("Noop", n), value=1)

    async def ours() -> None:
        await chain(1)

    async def theirs() -> None:
        await sequence(1)

    def traced(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def watched() -> None:
            with capture():
                await work()

        return watched

    figure, what, lines = ratio("mai", "Sequential"), f"chain of {n} nodes in a graph, to a Sequential", list[Row]()
    for how, mine, other in (("", ours, theirs), (", under capture()", traced(ours), traced(theirs))):
        samples = {"mai": Timed(mine, n), "Sequential": Timed(other, n)}
        lines.append(Row("6", what + how, None, "Sequential", samples, figure, scale.rounds, n))
    return lines


@dataclass(frozen=True)
class Once:
    """A figure that was taken once, before the rounds: a million nodes take too long for each of them."""

    value: float

    async def take(self) -> float:
        """Return it."""
        return self.value


async def _nothing(x: int) -> int:
    return x


async def _large(scale: Scale) -> list[Row]:
    levels, width = _MILLION if scale.branches >= 10_000 else (10, 10)
    n, awaits = levels * width, 20_000
    gc.collect()
    gc.disable()
    try:
        marks = [perf_counter_ns()]
        made = layered(Add(), levels, width)
        marks.append(perf_counter_ns())
        await made(1)
        marks.append(perf_counter_ns())
        for _ in range(awaits):
            await _nothing(1)
        marks.append(perf_counter_ns())
        with capture():
            await made(1)
        marks.append(perf_counter_ns())
        with Path(os.devnull).open("w", encoding="utf-8") as file:
            file.writelines(made.plan_json())
        marks.append(perf_counter_ns())
    finally:
        gc.enable()
    a = (marks[3] - marks[2]) / awaits
    tracemalloc.start()
    try:
        made = layered(Add(), levels, width)
        await made(1)
        memory = tracemalloc.get_traced_memory()[1] / n
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        size = sum(map(len, made.plan_json()))
        held = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    promise(size > 100 * n, f"the whole plan is written: {size} characters")
    facts = (
        ("11", "wiring, each", 30.0, "A", (marks[1] - marks[0]) / n / a),
        ("11", "run, each", 21.0, "A", (marks[2] - marks[1]) / n / a),
        ("11", "bytes at the peak of wiring and run, each", 150.0, "B", memory),
        ("12", "run under capture(), each", None, "A", (marks[4] - marks[3]) / n / a),
        ("12", "plan written out, each", None, "A", (marks[5] - marks[4]) / n / a),
        ("12", "run under capture() and plan written out, each", 35.0, "A", (marks[5] - marks[3]) / n / a),
        ("12", "held while the plan is written out, in all", 1e6, "B", held),
    )
    return [
        Row(row, f"graph of {n:,} nodes, {what}", target, unit, {"mai": Once(value)}, lambda t: t["mai"], 1, n)
        for row, what, target, unit, value in facts
    ]


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    return [*await _small(scale), *await _chain(scale), *await _large(scale)]


if __name__ == "__main__":
    raise SystemExit(main(["graph"]))
