"""What do chains, branches and fan-outs cost, in bare awaits and against ``asyncio.TaskGroup`` doing the same work?

Row 6: a Sequential of 100 steps, for each step. Row 7: a Conditional with a plain test. Row 8: a Parallel of 10,000
branches with nothing to do; row 9: the same where every branch waits, once for the next turn of the loop and once for
all others, so that 10,000 wait at the same time (that is where the memory is measured). The peer makes a task for each
branch and collects the results. Ours gives each branch a context, a step id and, under ``capture()``, a handle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from mai import Conditional, Module, Parallel, Sequential, capture

from . import steps
from .harness import Peak, Row, Scale, Timed, main, ratio
from .promises import check_cancel, check_deadline, check_promises, promise

__all__ = ["rows"]

_tested: ContextVar[bool] = ContextVar("benchmarks.tested", default=False)


def _work(m: Module, value: Any, n: int, *, traced: bool = False) -> Timed:
    async def quiet() -> None:
        await m(value)

    async def watched() -> None:
        with capture():
            await m(value)

    return Timed(watched if traced else quiet, n)


async def _sequential(scale: Scale) -> list[Row]:
    n = scale.chain
    chain = Sequential(*[steps.Noop()] * n)
    paths = ["Sequential/Noop", *(f"Sequential/Noop~{i}" for i in range(2, n + 1))]
    await check_promises(lambda: chain(1), steps.Noop.forward, steps.probe, paths, value=1)
    await check_deadline(chain, steps.Noop.forward, steps.probe, steps.hang)

    def line(what: str, target: float, *, traced: bool) -> Row:
        return Row("6", what, target, "A", {"mai": _work(chain, 1, n, traced=traced)}, ratio(), scale.rounds, n)

    return [
        line(f"chain of {n}, each step, unobserved", 8, traced=False),
        line(f"chain of {n}, each step, under capture()", 13, traced=True),
    ]


def _positive(x: int) -> bool:
    return x > 0


async def _conditional(scale: Scale) -> list[Row]:
    n = scale.calls
    both = Conditional(_positive, then=steps.Noop(), otherwise=steps.Noop().with_(name="Other"))
    for value, name in ((1, "Noop"), (-1, "Other")):
        path = f"Conditional/{name}"
        await check_promises(lambda v=value: both(v), steps.Noop.forward, steps.probe, [path], value=value)
    with capture() as trace:
        await both(1)
    promise(trace.runs[0].attributes.get("mai.decision") == "then", "the decision is in the trace")
    await _check_test_is_isolated()
    outer = steps.Inside(both)

    async def quiet() -> None:
        await outer(n)

    async def watched() -> None:
        with capture():
            await outer(n)

    def line(what: str, target: float, work: Callable[[], Awaitable[None]]) -> Row:
        return Row("7", what, target, "A", {"mai": Timed(work, n)}, ratio(), scale.rounds, n)

    return [
        line("Conditional with one step, unobserved", 16, quiet),
        line("Conditional with one step, under capture()", 26, watched),
    ]


async def _check_test_is_isolated() -> None:
    def test(x: int) -> bool:
        _tested.set(True)
        return True

    await Conditional(test, then=steps.Noop())(1)
    promise(not _tested.get(), "a contextvar that a test sets does not reach the caller")


async def _nop(x: int) -> int:
    return x


async def _wait(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def _meet(meeting: steps.Meeting) -> int:
    await meeting.arrive()
    return 1


def _task_group(branch: Callable[[Any], Any], n: int, value: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    """Return the same fan-out on asyncio alone."""

    async def work() -> list[int]:
        x = value()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(x)) for _ in range(n)]
        return [task.result() for task in tasks]

    return work


def _fan_outs(n: int) -> dict[str, tuple[Any, Any, Any, Callable[[], Any], Callable[[Any], Any]]]:
    """Return what is compared: the step, its function, its probe, the input of one run, and the peer's branch."""
    return {
        "no-op branches": (steps.Noop(), steps.Noop.forward, steps.probe, lambda: 1, _nop),
        "branches that wait a turn": (steps.Wait(), steps.Wait.forward, steps.probe_wait, lambda: 1, _wait),
        "branches that wait together": (
            steps.Meet(), steps.Meet.forward, steps.probe_meet, lambda: steps.Meeting(n), _meet
        ),
    }  # fmt: skip


async def _parallel(scale: Scale) -> list[Row]:
    n, rounds = scale.branches, scale.heavy_rounds
    ones, lines = (1,) * n, list[Row]()
    for what, (step, forward, probe, value, branch) in _fan_outs(n).items():
        wide = Parallel(*[step] * n)

        async def ours(wide: Any = wide, value: Callable[[], Any] = value) -> Any:
            return await wide(value())

        async def watched(ours: Callable[[], Awaitable[Any]] = ours) -> None:
            with capture():
                await ours()

        peer = _task_group(branch, n, value)
        name = step.settings.name
        await check_promises(ours, forward, probe, [f"Parallel[{i}]/{name}" for i in range(n)], value=ones)
        promise(await peer() == list(ones), "the peer does the same work")
        waits = branch is not _nop
        if waits:
            await check_cancel(ours)
        row, quiet, observed = ("9", 1.10, None) if waits else ("8", 0.20, 0.40)
        for how, target, work in (("unobserved", quiet, ours), ("under capture()", observed, watched)):
            samples = {"mai": Timed(work, n), "TaskGroup": Timed(peer, n)}
            figure, text = ratio("mai", "TaskGroup"), f"Parallel of {n:,} {what}, {how}"
            lines.append(Row(row, text, target, "TaskGroup", samples, figure, rounds, n))
        if branch is _meet:
            memory = {"mai": Peak(ours, n), "TaskGroup": Peak(peer, n)}
            text = f"Parallel of {n:,} {what}, bytes at the peak"
            lines.append(Row(row, text, 1.6, "TaskGroup", memory, ratio("mai", "TaskGroup"), min(rounds, 3), n))
    await check_deadline(Parallel(*[steps.Wait()] * n), steps.Wait.forward, steps.probe_wait, steps.hang)
    return lines


async def rows(scale: Scale) -> list[Row]:
    """Assert the promises, and return what is to be measured."""
    return [*await _sequential(scale), *await _conditional(scale), *await _parallel(scale)]


if __name__ == "__main__":
    raise SystemExit(main(["composites"]))
