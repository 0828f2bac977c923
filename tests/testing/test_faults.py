"""Faults at named places: they fail, wait and die there, as often as they are told to, in coroutines and in threads."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from mai import Parallel, module
from mai.core.clock import clock
from mai.core.points import points
from mai.errors import ConfigError
from mai.testing import Crash, Faults, Simulation, explore, point, simulate


@module
async def walk(x: int) -> int:
    await point("walked")
    return x


@module
def run(x: int) -> int:
    point("ran")
    return x


def test_without_faults_a_point_does_nothing() -> None:
    assert simulate(lambda: (walk & run)(1)) == (1, 1)
    assert points.reach("walked") is None


@pytest.mark.parametrize(("at", "times", "failed"), [(1, 1, "1"), (2, 1, "2"), (2, 2, "23"), (3, None, "345")])
@pytest.mark.parametrize("step", [walk, run])
def test_a_fault_meets_the_arrivals_that_it_is_for(step: Any, at: int, times: int | None, failed: str) -> None:
    async def main() -> str:
        met = ""
        with Faults() as faults:
            for name in ("walked", "ran"):
                faults.fail(name, KeyError(name), at=at, times=times)
            for i in range(1, 6):
                try:
                    await step(i)
                except KeyError:
                    met += str(i)
            assert faults.reached[{walk: "walked", run: "ran"}[step]] == 5
        await step(1)
        return met

    assert simulate(main) == failed


@pytest.mark.parametrize("step", [walk, run])
def test_a_delay_takes_simulated_time(step: Any) -> None:
    async def main() -> float:
        begun = clock.now()
        with Faults() as faults:
            faults.delay("walked", 3600)
            faults.delay("ran", 3600)
            await step(1)
        return clock.now() - begun

    assert simulate(main) == pytest.approx(3600, abs=0.1)


@pytest.mark.parametrize("step", [walk, run])
def test_a_block_holds_until_it_is_released_and_nobody_afterwards(step: Any) -> None:
    async def main() -> None:
        with Faults() as faults:
            blocks = [faults.block(name, times=None) for name in ("walked", "ran")]
            task = asyncio.ensure_future(Parallel(step, step)(1))
            await asyncio.sleep(60)
            assert not task.done()
            assert sum(block.waiting for block in blocks) == 2
            for block in blocks:
                block.release()
            assert await task == (1, 1)
            assert await step(2) == 2

    explore(main, seeds=20)


def test_a_kill_is_no_failure_of_a_step() -> None:
    @module(retry=5, fallback=lambda x: x)
    async def saves(x: int) -> int:
        point("save")
        return x

    async def main() -> int:
        with Faults() as faults:
            faults.kill("save")
            return await saves(1)

    assert isinstance(Simulation().run(main).error, Crash)


def test_a_real_kill_ends_the_process() -> None:
    code = "from mai.testing import Faults, point\nwith Faults() as f:\n    f.kill('x', process=True)\n    point('x')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


def test_blocks_may_be_nested_and_both_count() -> None:
    with Faults() as outer:
        outer.fail("x", KeyError, at=2)
        with Faults() as inner:
            inner.fail("x", IndexError)
            with pytest.raises(IndexError):
                point("x")
            with pytest.raises(KeyError):
                point("x")
        point("x")
        assert (outer.reached["x"], inner.reached["x"]) == (3, 2)
    point("x")
    assert outer.reached["x"] == 3


def test_a_thread_that_cannot_start_is_an_error_of_the_step_and_the_next_one_tries_again() -> None:
    from mai import LocalEngine

    async def main() -> int:
        async with LocalEngine():
            with Faults() as faults:
                faults.fail("thread.start", RuntimeError("can't start new thread"))
                with pytest.raises(RuntimeError, match="can't start"):
                    await run(1)
                return await run(2)

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize("given", [{"at": 0}, {"times": 0}])
def test_a_fault_that_never_comes_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="is less than 1"):
        Faults().fail("x", KeyError, **given)
