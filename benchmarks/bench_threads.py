"""What does a sync step in a worker thread cost, against ``loop.run_in_executor`` and ``anyio.to_thread``?

Row 13: one call at a time (a hand-over to a thread and back), and 100 at once: a Parallel of 100 sync steps against
``asyncio.gather`` of 100 executor futures and a task group of 100 ``to_thread.run_sync``. The executor is the loop's
own default one, which has fewer threads than our engine; for steps with nothing to do, that is to its advantage.
Neither peer isolates, names or traces what it runs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread

from mai import Module, Parallel

from . import steps
from .harness import Row, Scale, Timed, main, ratio
from .promises import check_deadline, check_promises, promise

__all__ = ["rows"]


def _same(x: int) -> int:
    return x


async def _executor_one(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.run_in_executor(None, _same, 1)


async def _executor_many(n: int) -> list[int]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*[loop.run_in_executor(None, _same, 1) for _ in range(n)])


async def _anyio_one(n: int) -> None:
    for _ in range(n):
        await anyio.to_thread.run_sync(_same, 1)


async def _anyio_many(n: int) -> list[int]:
    results = [0] * n

    async def one(i: int) -> None:
        results[i] = await anyio.to_thread.run_sync(_same, 1)

    async with anyio.create_task_group() as group:
        for i in range(n):
            group.start_soon(one, i)
    return results


def _timed(work: Callable[[int], Awaitable[Any]], n: int) -> Timed:
    return Timed(lambda: work(n), n)


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    n, rounds = scale.jobs, scale.rounds
    step = steps.Plain()
    outer, many = steps.Inside(step), Parallel(*[step] * n)
    await _check(step, outer, many, n)
    promise(await _executor_many(n) == [1] * n == await _anyio_many(n), "the peers do the same work")

    def lines(how: str, ours: Timed, executor: Timed, to_thread: Timed, targets: tuple[float, float]) -> list[Row]:
        peers = {"run_in_executor": executor, "anyio.to_thread": to_thread}
        return [
            Row("13", f"sync step, {how}", target, name, {"mai": ours, name: peer}, ratio("mai", name), rounds, n)
            for (name, peer), target in zip(peers.items(), targets, strict=True)
        ]

    async def batch() -> None:
        await many(1)

    one = lines("one at a time", _timed(outer, n), _timed(_executor_one, n), _timed(_anyio_one, n), (0.70, 0.60))
    at_once = lines(f"{n} at once", Timed(batch, n), _timed(_executor_many, n), _timed(_anyio_many, n), (0.15, 0.60))
    return [*one, *at_once]


async def _check(step: Module, outer: Module, many: Module, n: int) -> None:
    forward = steps.Plain.forward
    await check_promises(lambda: outer(1), forward, steps.probe_plain, ["Inside/Plain"], value=1)
    paths = [f"Parallel[{i}]/Plain" for i in range(n)]
    await check_promises(lambda: many(1), forward, steps.probe_plain, paths, value=(1,) * n)
    await check_deadline(step, forward, steps.probe_plain, steps.stuck)


if __name__ == "__main__":
    raise SystemExit(main(["threads"]))
