"""The fixtures, in a pytest of their own."""

from pathlib import Path

import pytest

CONFTEST = 'pytest_plugins = ["mai.testing.plugin"]\n'
TESTS = """
import asyncio
from mai import Parallel, module
from mai.core.clock import clock
from mai.testing import point

seen = []

@module
async def late(x: int) -> int:
    await asyncio.sleep(x)
    return x

def test_clock(fake_clock):
    fake_clock.advance(5)
    assert clock.now() == fake_clock.now == 1005.0

def test_faults(faults):
    faults.fail("x", KeyError)
    try:
        point("x")
    except KeyError:
        seen.append("fault")
    assert seen == ["fault"]

def test_simulate(simulate):
    assert simulate(lambda: late(3600)) == 3600

def test_race(explore):
    order = []

    async def main():
        order.clear()

        async def add(x):
            await asyncio.sleep(1)
            order.append(x)

        await asyncio.gather(add(1), add(2))
        assert order == [1, 2]

    explore(main, seeds=100)
"""


def pytest_in(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]", encoding="utf-8")
    pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", *arguments, str(folder)])
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_fixtures_are_there_and_a_race_is_told_with_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pytest_in(tmp_path, capsys)
    assert "1 failed, 3 passed" in out
    assert "mai.testing: seed " in out
    seed = out.partition("mai.testing: seed ")[2].partition(";")[0]
    again = pytest_in(tmp_path, capsys, f"--mai-seed={seed}", "-k", "race")
    assert f"mai.testing: seed {seed};" in again
    assert "1 failed" in again
