"""The shapes of runs that `tests/durable/kill.py` disturbs; each body writes down that it begins."""

import asyncio
import json
import os
import time
from typing import Any

import mai
from mai import BlockingDelay, Context, Graph, Loop, Map, Module, NonBlockingDelay, Parallel, Retry, Sequential, module

__all__ = ["LOG", "SENT", "answer", "named", "said", "shapes", "write_down"]

LOG = "KILL_LOG"  # the environment variable that names the file in which workers say what they do
SENT = {"waits": "go", "asks": "asks/ask"}  # the signal that the runs of a shape need


def write_down(log: str, what: str, pid: int, run_id: str = "", path: str = "", detail: object = "") -> None:
    """Write a line down, whole or not at all."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (json.dumps([what, pid, run_id, path, detail]) + "\n").encode())
    os.close(file)


def said(what: str, run_id: str, path: str, detail: object = "") -> None:
    """Write down what this process does."""
    write_down(os.environ[LOG], what, os.getpid(), run_id, path, detail)


def begins() -> None:
    """Write down that the body of a step begins."""
    if LOG in os.environ:
        context = Context.get()
        said("begins", context.run_id or "", context.step_id, context.retry_count)


@module
async def split(n: int) -> list[int]:
    begins()
    return list(range(n, n + 4))


@module
async def square(n: int) -> int:
    begins()
    await asyncio.sleep(0.02)
    return n * n


@module
def slow(n: int) -> int:
    begins()
    time.sleep(0.03)
    return n + 1


@module
async def total(numbers: list[int]) -> int:
    begins()
    return sum(numbers)


@module
async def halve(n: int) -> int:
    begins()
    await asyncio.sleep(0.005)
    return n // 2


@module
async def plus(n: int) -> int:
    begins()
    await asyncio.sleep(0.01)
    return n + 1


@module
async def most(numbers: tuple[int, int]) -> int:
    begins()
    return max(numbers)


@module
async def more(left: int, right: int) -> int:
    begins()
    return left + right


@module
async def gathered(numbers: tuple[int, int, int]) -> int:
    begins()
    return sum(numbers)


@module(retry=Retry(3, base=0.001))
async def shaky(n: int) -> int:
    begins()
    await asyncio.sleep(0.01)
    if Context.get().retry_count == 0:
        raise ConnectionError("the first attempt fails")
    return n


@module
async def refuse(n: int) -> int:
    begins()
    raise LookupError(f"nothing for {n}")


@module
async def take_back(n: int) -> None:
    begins()
    await asyncio.sleep(0.01)


@module(flow=True)
async def waits(n: int) -> int:
    before = await plus(n)
    return await slow(before + await mai.wait_for("go", int))


@module(flow=True)
async def asks(n: int) -> int:
    before = await slow(n)
    return await plus(before) if await mai.ask(f"Go on with {before}?", bool) else 0


def diamonds() -> Module[Any, Any]:
    g = Graph("graph")
    n = g.input("n", int)
    left, right = g.add(plus, n), g.add(slow, n)
    return g.output((g.add(more, left, g.add(square, right)), left))


def shapes() -> list[Module[Any, Any]]:
    """Return what is run: the modules by whose names workers know them."""
    halved = Loop(halve, until=lambda n: n < 10, max_iters=30)
    both = Parallel(halved >> BlockingDelay(0.05), slow) >> most
    nested = Loop(Parallel(plus, Parallel(slow, plus >> square) >> most) >> most, max_iters=3)
    parked = Parallel(NonBlockingDelay(0.2) >> plus, slow, NonBlockingDelay(0.1) >> slow, limit=1)
    undone = plus.with_(undo=take_back) >> Parallel(slow.with_(undo=take_back), plus.with_(undo=take_back)) >> most
    return [
        Sequential(split, Map(square, concurrency=2), total, both).with_(name="row"),
        nested.with_(name="nested"),
        diamonds(),
        (parked >> gathered).with_(name="delays"),
        (undone >> shaky >> refuse).with_(name="fails"),
        (Parallel(refuse >> plus, slow) >> most).with_(name="recovers", fallback=plus >> shaky),
        waits,
        asks,
    ]


def named(m: Module[Any, Any]) -> str:
    return m.plan().name


def answer(shape: str) -> object:
    return 7 if shape == "waits" else True
