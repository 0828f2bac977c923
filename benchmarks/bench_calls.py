"""What does a call cost, in bare ``await coro()``?

Rows 1 to 4 time ``await m(x)`` with nothing to do in ``forward``, at the top level (each call is its own run) and
inside a running module (the usual case): unobserved, with settings and a deadline, observed by ``capture()``, and with
types, the Context asked for and ``capture()``. Row 14 asks what the types alone add: for a value that has its type
already, and for a str that must become an int, beyond what pydantic-core takes for that. Row 16 compares a wait under
20 nested calls with the same wait under 20 plain awaits.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter

from mai import Module, capture

from . import steps
from .harness import Row, Scale, Timed, main, ratio
from .promises import check_cancel, check_deadline, check_misfit, check_promises, promise

__all__ = ["rows"]

_TIMEOUT = 30.0


def _top(m: Module, value: Any, n: int) -> Timed:
    async def work() -> None:
        for _ in range(n):
            await m(value)

    return Timed(work, n)


def _inside(m: Module, value: Any, n: int) -> Timed:
    outer = steps.Inside(m, value)

    async def work() -> None:
        await outer(n)

    return Timed(work, n)


def _captured(timed: Timed) -> Timed:
    async def work() -> None:
        with capture():
            await timed.work()

    return Timed(work, timed.n)


async def _check(m: Module, forward: Any, probe: Any, value: Any, gives: Any) -> None:
    """Assert the promises of *m*, at the top level and inside another module."""
    name = m.settings.name
    await check_promises(lambda: m(value), forward, probe, [name], value=gives)
    outer = steps.Inside(m, value)
    await check_promises(lambda: outer(1), forward, probe, [f"Inside/{name}"], value=1)
    numbered = [f"Inside/{name}", f"Inside/{name}~2", f"Inside/{name}~3"]
    await check_promises(lambda: outer(3), forward, probe, numbered, value=3)


async def _untyped(scale: Scale) -> list[Row]:
    n, rounds = scale.calls, scale.rounds
    noop, limited = steps.Noop(), steps.Noop().with_(name="limited", timeout=_TIMEOUT)
    forward = steps.Noop.forward
    await _check(noop, forward, steps.probe, 1, 1)
    await check_deadline(noop, forward, steps.probe, steps.hang)
    await _check(limited, forward, steps.probe, 1, 1)
    await check_deadline(limited, forward, steps.probe, steps.hang, within=_TIMEOUT)

    def line(row: str, what: str, target: float, mai: Timed) -> Row:
        return Row(row, what, target, "A", {"mai": mai}, ratio(), rounds, n)

    return [
        line("1", "call, unobserved, top level", 9, _top(noop, 1, n)),
        line("1", "call, unobserved, inside a module", 9, _inside(noop, 1, n)),
        line("2", "call with with_(name=, timeout=), top level", 11, _top(limited, 1, n)),
        line("2", "call with with_(name=, timeout=), inside a module", 11, _inside(limited, 1, n)),
        line("3", "call under capture(), top level", 14, _captured(_top(noop, 1, n))),
        line("3", "call under capture(), inside a module", 14, _captured(_inside(noop, 1, n))),
    ]


async def _typed(scale: Scale) -> list[Row]:
    n, rounds = scale.calls, scale.rounds
    length, knows, summarise = steps.Length(), steps.Knows(), steps.Summarise()
    await _check(length, steps.Length.forward, steps.probe_length, "hello", 5)
    await _check(knows, steps.Knows.forward, steps.probe_length, "hello", 5)
    await _check(summarise, steps.Summarise.forward, steps.probe_summarise, steps.DOC, steps.SUMMARY)
    await check_misfit(length, 5)
    await check_misfit(knows, 5)
    await check_misfit(summarise, "no document")

    def line(what: str, m: Module, value: Any) -> Row:
        return Row("4", what, 16, "A", {"mai": _captured(_inside(m, value, n))}, ratio(), rounds, n)

    return [
        line("str -> int under capture(), Context.get() called", length, "hello"),
        line("str -> int under capture(), Context not asked for", knows, "hello"),
        line("model -> model under capture(), Context.get() called", summarise, steps.DOC),
    ]


async def _casts(scale: Scale) -> list[Row]:
    n, rounds = scale.calls, scale.rounds
    noop, same = steps.Noop(), steps.Same()
    await _check(same, steps.Same.forward, steps.probe, 1, 1)
    await _check(same, steps.Same.forward, steps.probe, "1", 1)
    promise(await same("1") == 1, "a str is cast to the int that it spells")
    await check_misfit(same, "one")
    validate = TypeAdapter(int).validator.validate_python

    async def core() -> None:
        for _ in range(n):
            validate("1")

    async def nothing() -> None:
        for _ in range(n):
            pass

    samples = {"untyped": _inside(noop, 1, n), "typed": _inside(same, 1, n)}
    cast = {
        "typed": _inside(same, 1, n),
        "cast": _inside(same, "1", n),
        "pydantic-core": Timed(core, n),
        "loop": Timed(nothing, n),
    }
    return [
        Row(
            "14", "value already of its type: call typed less call untyped", 0.3, "A", samples,
            lambda t: (t["typed"] - t["untyped"]) / t["A"], rounds, n,
        ),
        Row(
            "14", "str -> int: cast less no cast less pydantic-core", 1, "A", cast,
            lambda t: (t["cast"] - t["typed"] - (t["pydantic-core"] - t["loop"])) / t["A"], rounds, n,
        ),
    ]  # fmt: skip


def _plain(levels: int) -> Callable[[int], Awaitable[int]]:
    """Return *levels* coroutine functions that call each other, as `steps.depth` does with modules."""

    async def bottom(x: int) -> int:
        for _ in range(x):
            await steps.suspend()
        return x

    def over(inner: Callable[[int], Awaitable[int]]) -> Callable[[int], Awaitable[int]]:
        async def level(x: int) -> int:
            return await inner(x)

        return level

    result: Callable[[int], Awaitable[int]] = bottom
    for _ in range(levels - 1):
        result = over(result)
    return result


async def _deep(scale: Scale) -> list[Row]:
    n, levels = scale.calls, scale.depth
    m, plain = steps.depth(levels), _plain(levels)
    paths = ["/".join(["Level"] * (i + 1)) for i in range(levels)]
    await check_promises(lambda: m(2), steps.Level.forward, steps.probe_level, paths, value=2)
    await check_cancel(lambda: m(1000))

    async def ours() -> None:
        await m(n)

    async def peer() -> None:
        await plain(n)

    samples = {"mai": Timed(ours, n), "plain": Timed(peer, n)}
    what = f"one suspension {levels} calls deep"
    return [Row("16", what, 2.5, "plain awaits", samples, ratio("mai", "plain"), scale.rounds, n)]


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    return [*await _untyped(scale), *await _typed(scale), *await _casts(scale), *await _deep(scale)]


if __name__ == "__main__":
    raise SystemExit(main(["calls"]))
