"""The benchmarks work at a tiny N, and refuse to time what does not keep the promises of a call."""

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_import, harness, promises, steps
from benchmarks.harness import QUICK, Peak, Result, Row, Timed
from benchmarks.promises import BrokenPromise
from mai import Context, Module, Sequential

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("journal", "latency")]


@pytest.mark.parametrize("name", ["agents", "calls", "deadlines", "composites", "graph", "threads", *SLOW])
def test_a_benchmark_asserts_its_promises_and_gives_a_figure_for_each_of_its_rows(name: str) -> None:
    results, broken = harness.run([name], QUICK)
    assert results
    assert not broken
    for result in results:
        assert result.q1 <= result.figure <= result.q3
        assert all(value > 0 for value in result.medians.values()), result


@pytest.mark.slow
def test_the_import_benchmark_gives_its_figures() -> None:
    results, _ = harness.run(["import"], QUICK)
    assert [result.row for result in results] == ["17"] * 4


def test_every_benchmark_states_its_question_and_is_run_by_default() -> None:
    files = sorted(path.stem.removeprefix("bench_") for path in harness.HERE.glob("bench_*.py"))
    assert files == sorted(harness.ALL)
    for name in files:
        first = (importlib.import_module(f"benchmarks.bench_{name}").__doc__ or "").splitlines()[0]
        assert first.endswith("?"), name


def test_the_peer_of_the_import_benchmark_imports_what_mai_imports() -> None:
    code = bench_import._statements(["mai.values.checked", "mai.core.spans"])
    assert "from pydantic import" in code
    assert "from opentelemetry import" in code
    assert "from ." not in code


# ---------------------------------------------------------------- the promises bite


class Broken(Module):
    """Calls a step as `steps.Inside` does, but not as a module is called."""

    def __init__(self, way: Callable[[Module, Any], Awaitable[Any]]) -> None:
        self.way = way

    async def forward(self, n):  # type: ignore[no-untyped-def]
        for _ in range(n):
            await self.way(step, 1)
        return n


step = steps.Noop()


async def bare(m: Module, x: Any) -> Any:
    return await m.forward(x)


async def without_note(m: Module, x: Any) -> Any:
    try:
        return await m(x)
    except Exception as error:
        error.__notes__.clear()
        raise


async def without_trace(m: Module, x: Any) -> Any:
    try:
        return await m(x)
    except Exception as error:
        del error.__mai_trace__  # type: ignore[attr-defined]
        raise


async def swallowed(m: Module, x: Any) -> Any:
    try:
        return await m(x)
    except promises.Boom:
        return x


async def wrapped(m: Module, x: Any) -> Any:
    try:
        return await m(x)
    except Exception as error:
        raise RuntimeError("another") from error


async def twice(m: Module, x: Any) -> Any:
    await m(x)
    return await m(x)


async def leaking(m: Module, x: Any) -> Any:
    promises._var.set("a sibling's")
    return await m(x)


CHECKS = {
    bare: "step_id",
    without_note: "note",
    swallowed: "reaches the caller",
    twice: "step_id",
    leaking: "caller's contextvars",
}


@pytest.mark.parametrize("way", CHECKS)
def test_a_call_that_breaks_a_promise_is_not_timed(way: Any) -> None:
    m = Broken(way)

    async def check() -> None:
        await promises.check_promises(lambda: m(1), steps.Noop.forward, steps.probe, ["Broken/Noop"], value=1)

    with pytest.raises(BrokenPromise, match=CHECKS[way]):
        asyncio.run(check())


def check_top(call: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(promises.check_promises(call, steps.Noop.forward, steps.probe, ["Noop"], value=1))


def test_a_step_that_is_called_as_a_module_keeps_its_promises() -> None:
    check_top(lambda: step(1))


def test_a_contextvar_that_reaches_the_caller_is_noticed() -> None:
    async def leak() -> Any:
        value = await step(1)
        promises._var.set("Noop")
        return value

    with pytest.raises(BrokenPromise, match="does not reach its caller"):
        check_top(leak)


def test_a_failure_without_its_handle_is_noticed() -> None:
    with pytest.raises(BrokenPromise, match="__mai_trace__"):
        check_top(lambda: without_trace(step, 1))


def test_a_failure_that_is_replaced_is_noticed() -> None:
    with pytest.raises(BrokenPromise, match="unchanged, not as RuntimeError"):
        check_top(lambda: wrapped(step, 1))


def test_a_wrong_value_is_noticed() -> None:
    async def wrong() -> Any:
        return await step(1) + 1

    with pytest.raises(BrokenPromise, match="gives 1, not 2"):
        check_top(wrong)


def test_a_call_without_a_handle_is_noticed() -> None:
    calls, copied = 0, copy_context()

    async def sometimes() -> Any:
        nonlocal calls
        calls += 1
        if calls < 5:  # the handles are looked at after four calls for isolation and failure
            return await step(1)
        return await asyncio.get_running_loop().create_task(step(1), context=copied)

    with pytest.raises(BrokenPromise, match="handle can be had"):
        check_top(sometimes)


def test_a_missed_deadline_is_noticed() -> None:
    class Deaf(steps.Noop):
        def with_(self, **settings: Any) -> Any:
            return steps.Noop()

    async def late(self: Any, x: Any) -> Any:
        return x

    async def check() -> None:
        await promises.check_deadline(Deaf(), steps.Noop.forward, steps.probe, late)

    with pytest.raises(BrokenPromise, match="ended at its deadline"):
        asyncio.run(check())


def test_a_step_that_does_not_know_its_deadline_is_noticed() -> None:
    async def check() -> None:
        await promises.check_deadline(steps.Noop(), steps.Noop.forward, steps.probe, steps.hang, within=5.0)

    with pytest.raises(BrokenPromise, match="knows its deadline"):
        asyncio.run(check())


def test_a_task_that_outlives_a_cancelled_call_is_noticed() -> None:
    kept = []

    async def spawning() -> None:
        kept.append(asyncio.ensure_future(asyncio.Event().wait()))
        await asyncio.Event().wait()

    async def check() -> None:
        try:
            await promises.check_cancel(spawning)
        finally:
            kept[0].cancel()

    with pytest.raises(BrokenPromise, match="leaves no task"):
        asyncio.run(check())


def test_a_misfit_that_is_let_through_is_noticed() -> None:
    with pytest.raises(BrokenPromise, match="does not fit"):
        asyncio.run(promises.check_misfit(step, "anything"))


def test_the_timed_code_is_put_back_after_a_check() -> None:
    code = steps.Noop.forward.__code__
    with pytest.raises(BrokenPromise):
        check_top(lambda: bare(step, 1))
    assert steps.Noop.forward.__code__ is code


# ---------------------------------------------------------------- the harness


def test_a_figure_is_the_median_of_the_ratios_within_each_round() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    one = Row(
        "1", "the same twice", None, "times", {"mai": Timed(work, 1), "peer": Timed(work, 1)}, lambda t: 2.0, 5, 1
    )
    (result,) = asyncio.run(harness.measure([one], QUICK))
    assert (result.figure, result.q1, result.q3, result.rounds, result.met) == (2.0, 2.0, 2.0, 5, None)
    assert set(result.medians) == {"A", "mai", "peer"}


def test_memory_is_measured_at_its_peak() -> None:
    async def work() -> None:
        held = bytearray(1_000_000)
        del held

    assert 1_000_000 <= asyncio.run(Peak(work).take()) < 1_100_000


def test_the_table_puts_target_and_figure_side_by_side() -> None:
    results = [
        Result("1", "a call", 9.0, "A", 8.0, 7.5, 8.5, 10, 5),
        Result("2", "another", 9.0, "A", 10.0, 9.5, 11.0, 10, 5),
    ]
    head, met, missed, _, last = harness.table(results).splitlines()
    assert head.split()[:4] == ["row", "what", "target", "figure"]
    assert met.split() == ["1", "a", "call", "9", "8", "7.5", "to", "8.5", "A", "met"]
    assert missed.endswith("NOT met")
    assert last == "1 of 2 targets met"


def test_a_record_says_what_was_measured_where_and_with_what(tmp_path: Path) -> None:
    result = Result("1", "a call", 9.0, "A", 8.0, 7.5, 8.5, 10, 5)
    for _ in range(2):
        file = harness.record("calls", [result], QUICK, tmp_path, {"threads": BrokenPromise("nothing leaks")})
    assert file.name.endswith("-calls.jsonl")
    first, second = map(json.loads, file.read_text().splitlines())
    assert first["rows"] == second["rows"]
    assert first["rows"][0] | {"figure": 8.0, "met": True} == first["rows"][0]
    assert set(first["versions"]) == {"mai", "anyio", "pydantic", "opentelemetry"}
    assert set(first["machine"]) == {"platform", "cpus"}
    assert first["not timed"] == {"threads": "nothing leaks"}
    assert first["commit"]
    assert first["scale"]["calls"] == QUICK.calls


def test_the_command_line_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        harness.main(argv=["spead"])
    assert "no benchmark 'spead'" in capsys.readouterr().err


def test_a_quick_run_prints_the_table_and_records_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((harness.HERE / "records").glob("*"))
    assert harness.main(argv=["threads", "--quick"]) == 0
    assert "run_in_executor" in capsys.readouterr().out
    assert sorted((harness.HERE / "records").glob("*")) == before


def test_a_benchmark_whose_promises_are_broken_is_left_out_and_said_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows(scale: harness.Scale) -> list[Row]:
        promises.promise(None, "nothing leaks")
        return []

    monkeypatch.setattr(bench_import, "rows", rows)  # a benchmark whose object does not keep its promises
    assert harness.main(argv=["import", "threads", "--quick"]) == 1
    out, err = capsys.readouterr()
    assert "run_in_executor" in out
    assert "import: not timed, a promise is broken: nothing leaks" in err


def test_a_composite_is_checked_step_by_step() -> None:
    chain = Sequential(*[step] * 3)
    paths = ["Sequential/Noop", "Sequential/Noop~2", "Sequential/Noop~4"]

    async def check() -> None:
        await promises.check_promises(lambda: chain(1), steps.Noop.forward, steps.probe, paths, value=1)

    with pytest.raises(BrokenPromise, match="step_id"):
        asyncio.run(check())


def test_a_probe_sees_the_context_of_the_step_that_it_stands_in_for() -> None:
    async def inside() -> str:
        with promises.probing(steps.Noop.forward, steps.probe), Context.scope(user="ann"):
            await step(1)
        return next(iter(promises._ledger.seen))

    promises._ledger.clear()
    assert asyncio.run(inside()) == "Noop"
    promises._ledger.clear()
