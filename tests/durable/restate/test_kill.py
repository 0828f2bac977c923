"""A real worker and a node of a real cluster are killed once; tests/durable/restate_kill.py does it often."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.durable import restate_kill


class Journals:
    """What a server says of one step: that it was recorded at a time."""

    def __init__(self, recorded: str | None) -> None:
        command = {"entry_type": "Command: Run", "name": "a/b", "appended_at": "1970-01-01T00:00:01.000Z"}
        done = {"entry_type": "Notification: Run", "appended_at": recorded}
        self.rows = [
            {"run_id": "r", **command, "entry": json.dumps({"Command": {"Run": {"completion_id": 1}}})},
            {"run_id": "r", **done, "entry": json.dumps({"Notification": {"id": {"CompletionId": 1}}})},
        ][: 1 if recorded is None else 2]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return what is wanted of the journal."""
        assert "'r'" in sql
        return self.rows


def counted(folder: Path, recorded: str | None, *began: float) -> restate_kill.Figures:
    """Return the figures of one step, whose worker was killed after 10 s."""
    driver = restate_kill.Driver(folder, Journals(recorded), runs=1, workers=1, seed=1)  # type: ignore[arg-type]
    driver.log.write_text("".join(f"{json.dumps([at, 'r', '/a/b', 1])}\n" for at in began), encoding="utf-8")
    figures = restate_kill.Figures()
    driver._count(figures, {"r"}, 10.0)
    return figures


def test_a_body_that_begins_again_though_it_was_recorded_is_told(tmp_path: Path) -> None:
    figures = counted(tmp_path, "1970-01-01T00:00:09.000Z", 8.0, 11.0)
    assert (figures.bodies, figures.again, figures.repeated) == (2, 1, ["r /a/b began 1.000 s after the kill"])


@pytest.mark.parametrize("began", [(8.0, 11.0), (8.0,)])
def test_a_body_that_was_under_way_or_ran_once_is_not_told(tmp_path: Path, began: tuple[float, ...]) -> None:
    figures = counted(tmp_path, "1970-01-01T00:00:12.000Z", *began)
    assert (figures.again, figures.repeated) == (len(began) - 1, [])


def test_a_body_that_no_journal_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="bodies that no journal knows"):
        counted(tmp_path, None, 8.0)


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_runs_on_a_cluster_of_which_a_part_is_killed_end_as_straight_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert restate_kill.main(["--rounds", "1", "--runs", "1", "--kind", "both"]) == 0
    assert "4 ended right, 0 did not" in capsys.readouterr().out
