"""A real worker and a node of a real cluster are killed once; tests/durable/restate_kill.py does it often."""

import pytest

from tests.durable import restate_kill


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_runs_on_a_cluster_of_which_a_part_is_killed_end_as_straight_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert restate_kill.main(["--rounds", "1", "--runs", "1", "--kind", "both"]) == 0
    assert "4 ended right, 0 did not" in capsys.readouterr().out
