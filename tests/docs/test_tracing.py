"""The table of what traces promise: it has every number, and each test that it names exists."""

import pytest

from tests.docs.test_hazards import ROOT, defined, rows

PAGE = ROOT / "docs" / "explanation" / "tracing.rst"
NUMBERS = [*map(str, range(1, 16))]


def problems(text: str) -> list[str]:
    """Say what is wrong with the table."""
    table = rows(text)
    wrong = [] if list(table) == NUMBERS else [f"the numbers are {list(table)}"]
    for number, tests in table.items():
        wrong += [] if tests else [f"number {number} has no test"]
        for test in tests:
            file, _, name = test.partition("::")
            if not (ROOT / file).is_file() or name not in defined(ROOT / file):
                wrong.append(f"number {number}: there is no {test}")
    return wrong


def test_every_promise_of_traces_has_tests_that_exist() -> None:
    assert problems(PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("   * - 7\n", "   * - 99\n", "the numbers are"),
        ("test_a_hand_off_is_one_trace", "test_a_hand_off_is_two", "number 8: there is no tests/telemetry/"),
        ("tests/core/test_spans.py", "tests/core/test_gone.py", "test_gone.py"),
    ],
)
def test_what_is_planted_in_the_table_is_seen(right: str, wrong: str, message: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert right in text
    assert any(message in problem for problem in problems(text.replace(right, wrong)))
