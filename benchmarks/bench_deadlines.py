"""What does a deadline cost, against ``asyncio.timeout`` and ``anyio.fail_after``?

Row 15: a call of a module with ``timeout=`` less the same call without it, where the step never suspends and where it
suspends once; for the peers a block with a timeout around a bare await less that await. None of these deadlines passes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from mai import Module

from . import steps
from .harness import Row, Scale, Timed, main
from .promises import check_cancel, check_deadline, check_promises

__all__ = ["rows"]

_TIMEOUT = 30.0


async def _bare(x: int) -> int:
    return x


async def _suspends(x: int) -> int:
    await steps.suspend()
    return x


async def _asyncio(work: Callable[[int], Awaitable[int]], x: int) -> int:
    async with asyncio.timeout(_TIMEOUT):
        return await work(x)


async def _anyio(work: Callable[[int], Awaitable[int]], x: int) -> int:
    with anyio.fail_after(_TIMEOUT):
        return await work(x)


def _inside(m: Module, n: int) -> Timed:
    outer = steps.Inside(m)
    return Timed(lambda: outer(n), n)


def _plain(work: Callable[[int], Awaitable[Any]], n: int) -> Timed:
    async def run() -> None:
        for _ in range(n):
            await work(1)

    return Timed(run, n)


def _around(block: Any, work: Callable[[int], Awaitable[int]], n: int) -> Timed:
    async def run() -> None:
        for _ in range(n):
            await block(work, 1)

    return Timed(run, n)


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    n, rounds, lines = scale.calls, scale.rounds, list[Row]()
    cases = (
        ("never suspends", 5.0, steps.Noop(), steps.Noop.forward, steps.probe, _bare),
        ("suspends once", 35.0, steps.Level(None), steps.Level.forward, steps.probe_level, _suspends),
    )
    for how, target, m, forward, probe, peer in cases:
        limited = m.with_(timeout=_TIMEOUT)
        outer, name = steps.Inside(limited), limited.settings.name
        await check_promises(lambda outer=outer: outer(1), forward, probe, [f"Inside/{name}"], value=1)
        await check_deadline(limited, forward, probe, steps.hang, within=_TIMEOUT)
        samples = {"mai": _inside(limited, n), "without": _inside(m, n)}
        lines.append(_line(f"deadline of a call that {how}", target, samples, rounds, n))
        for label, block in (("asyncio.timeout", _asyncio), ("anyio.fail_after", _anyio)):
            samples = {"mai": _around(block, peer, n), "without": _plain(peer, n)}
            lines.append(_line(f"{label} around an await that {how}", None, samples, rounds, n))
    await check_cancel(lambda: steps.Wait().with_(timeout=_TIMEOUT)(1))
    return lines


def _line(what: str, target: float | None, samples: dict[str, Timed], rounds: int, n: int) -> Row:
    return Row("15", what, target, "A", samples, lambda t: (t["mai"] - t["without"]) / t["A"], rounds, n)


if __name__ == "__main__":
    raise SystemExit(main(["deadlines"]))
