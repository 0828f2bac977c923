"""The Gantt chart: what Mermaid reads, and that nothing in a trace can break it."""

import re
from typing import Any

import pytest
from hypothesis import given

from mai import TraceHandle
from tests.views.handles import call, handle, traces

TASK = re.compile(r"  \S [^:;#,%\n]+ :(crit|active|done), (\d+), (\d+)")


def test_each_call_is_a_task_with_its_times_in_a_unit_that_fits() -> None:
    failing = call("bad: step", 50, 60, outcome="error")
    root = call("rag", 0, 100, call("Search", 0, 50), failing, call("aside", 50, 55), call("last", 60, 100))
    assert handle(root).mermaid().split("\n") == [
        "gantt",
        "  title rag, 100 ms",
        "  dateFormat x",
        "  axisFormat %S.%L s",
        "  ✓ rag 100 ms :active, 0, 100",
        "  ✓ Search 50 ms :active, 0, 50",
        "  ✗ bad  step 10 ms :crit, 50, 60",
        "  ✓ aside 5 ms :done, 50, 55",
        "  ✓ last 40 ms :active, 60, 100",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "unit", "end"),
    [
        (0.05, "µs", 50_000),
        (59, "ms", 59_000),
        (61, "s", 61),
        (59_999, "s", 59_999),
        (60_000, "min", 1000),
        (3_600_000, "h", 1000),
        (7 * 86_400_000, "d", 7000),
        (400 * 86_400_000, "d", 400_000),
    ],
)
def test_the_axis_is_in_the_unit_of_which_there_are_less_than_sixty(milliseconds: float, unit: str, end: int) -> None:
    lines = handle(call("a", 0, milliseconds)).mermaid().split("\n")
    assert lines[3] == f"  axisFormat %S.%L {unit}"
    assert lines[4].endswith(f", 0, {end}")


def test_a_running_call_lasts_until_the_last_that_is_known() -> None:
    root = call("root", 0, None, call("a", 0, 40), call("b", 30, None, outcome="running"), outcome="running")
    assert handle(root).mermaid().split("\n")[4:] == [
        "  • root :active, 0, 40000",
        "  ✓ a 40 ms :done, 0, 40000",
        "  • b :active, 30000, 40000",
    ]


def test_a_trace_without_times_says_so() -> None:
    root = call("root", None, None, call("a", None, None, outcome="error"), outcome="error")
    assert handle(root).mermaid() == "gantt\n  title root (no times are known)"


def test_calls_without_times_are_left_out() -> None:
    assert len(handle(call("root", 0, 9, call("a", None, None, outcome="skipped"))).mermaid().split("\n")) == 5


def test_of_very_many_calls_the_failed_the_critical_and_the_longest_are_drawn() -> None:
    many = [call("short", 0, 1) for i in range(300)]
    many[7]["outcome"], many[250]["end_ns"], many[299] = "timeout", 1_500_000, call("last", 2, 2.5)
    lines = handle(call("root", 0, 1000, *many)).mermaid().split("\n")
    assert lines[1] == "  title root, 1 s (the 200 most important of 301 calls)"
    assert len(lines) == 4 + 200
    assert sum("crit" in line for line in lines) == 1
    assert sum(" 1.5 ms :" in line for line in lines) == 1
    assert lines[-1].startswith("  ✓ last ")


@given(traces())
def test_any_trace_is_a_chart_whose_lines_mermaid_can_tell_apart(data: Any) -> None:
    h = TraceHandle.from_dict(data)
    for line in h.mermaid().split("\n")[4:]:
        match = TASK.fullmatch(line)
        assert match, line
        assert int(match[2]) < int(match[3])
