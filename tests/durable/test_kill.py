"""Real workers are killed, in a small number; tests/durable/kill.py does it in a large one."""

import sys

import pytest

from tests.durable import kill


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, and SIGKILL")
def test_runs_of_workers_that_are_killed_end_as_undisturbed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert kill.main(["--kills", "6", "--runs", "24"]) == 0
    assert "0 lost, 0 recorded twice, all as undisturbed" in capsys.readouterr().out
