"""Real workers and servers are killed, a few times; tests/durable/restate_kill.py does it often."""

import pytest

from tests.durable.restate_servers import find_server

pytest.importorskip("restate")
pytest.importorskip("granian")
if find_server() is None:
    pytest.skip("no restate-server: npm install @restatedev/restate-server", allow_module_level=True)

from tests.durable import restate_kill  # (needs the extra)


@pytest.mark.slow
@pytest.mark.parametrize("kind", restate_kill.KINDS)
def test_runs_on_a_cluster_of_which_a_part_is_killed_end_as_straight_ones(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restate_kill.main(["--rounds", "1", "--runs", "1", "--kind", kind]) == 0
    assert "4 ended right, 0 did not" in capsys.readouterr().out
