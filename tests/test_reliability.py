"""The table of reliability: each producer works at a tiny scale, and nothing that was not measured counts as met."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests import reliability
from tests.reliability import AND, PRODUCERS, measured, newest, parts, table

MISSING = pytest.mark.skipif(importlib.util.find_spec("cosmic_ray") is None, reason="cosmic-ray is not installed")
NAMES = [pytest.param(name, marks=MISSING) if name == "sample" else name for name in PRODUCERS]


def entry(name: str, figures: "dict[str, float] | None", when: str = "2026-01-01T00:00:00+00:00") -> dict[str, Any]:
    return {
        "when": when, "commit": "abc", "producer": name, "scale": "short", "seconds": 1, "figures": figures,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_producer_gives_its_figures_at_a_tiny_scale(name: str) -> None:
    facts = measured(name, "tiny")
    assert facts["figures"] is not None, facts["said"]
    lines = table({name: entry(name, facts["figures"])}).splitlines()
    assert sum("not measured" in line for line in lines[:-1]) == len(lines) - 3 - len(PRODUCERS[name].rows)


def test_a_row_that_was_not_measured_says_so() -> None:
    text = table({"kills": entry("kills", {"kills": 500, "busy": 3, "lost": 0, "twice": 0})})
    assert text.count("not measured") == sum(len(one.rows) for one in PRODUCERS.values())  # all but one, and the count
    assert "500, 0 lost, 0 twice  met" in text
    assert text.endswith(" not measured")


def test_what_is_worse_than_its_target_and_what_failed_is_not_met() -> None:
    assert "1 lost, 0 twice" in (text := table({"kills": entry("kills", {"kills": 500, "lost": 1, "twice": 0})}))
    assert "NOT met" in text
    assert "the measurement failed  NOT met" in table({"kills": entry("kills", None)})
    assert "not measured" in table({"kills": entry("kills", {"kills": 500})}).splitlines()[7]


def test_the_newest_record_counts(tmp_path: Path) -> None:
    lines = [entry("kills", None, "2026-01-02"), entry("kills", {"kills": 1}, "2026-01-03"), entry("soak", None)]
    (tmp_path / "2026-01-03-reliability.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "2026-01-04-latency.jsonl").write_text("{}", encoding="utf-8")
    found = newest(tmp_path)
    assert found["kills"]["figures"] == {"kills": 1}
    assert set(found) == {"kills", "soak"}


def test_a_command_may_have_several_parts() -> None:
    assert parts(("a", "b c", AND, "d")) == [("a", "b c"), ("d",)]


def test_what_is_measured_is_recorded_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "print('3 kills (1 while runs went on), 2 runs; 0 lost, 0 recorded twice')"
    producer = reliability.Producer((("-c", said),) * 3, PRODUCERS["kills"].read, PRODUCERS["kills"].rows)
    monkeypatch.setitem(PRODUCERS, "kills", producer)
    assert reliability.main(["--measure", "kills"], tmp_path) == 1
    assert "3, 0 lost, 0 twice" in capsys.readouterr().out
