"""Real workers are killed, in a small number; tests/durable/kill.py does it in a large one."""

import pytest

from tests.durable import kill


@pytest.mark.slow
def test_runs_of_workers_that_are_killed_end_as_straight_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert kill.main(["--kills", "3", "--runs", "20"]) == 0
    assert "0 lost, 0 recorded twice" in capsys.readouterr().out
