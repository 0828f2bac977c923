"""The table of what traces promise: it has every number, and each test that it names exists."""

import pytest

from tests.docs.tables import ROOT, problems

PAGE = ROOT / "docs" / "explanation" / "tracing.rst"
NUMBERS = [*map(str, range(1, 16))]


def test_every_promise_of_traces_has_tests_that_exist() -> None:
    assert problems(PAGE.read_text(encoding="utf-8"), NUMBERS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("   * - 7\n", "   * - 99\n", "number 7 is missing"),
        ("test_a_hand_off_is_one_trace", "test_a_hand_off_is_two", "number 8: there is no tests/telemetry/"),
        ("tests/core/test_spans.py", "tests/core/test_gone.py", "test_gone.py"),
    ],
)
def test_what_is_planted_in_the_table_is_seen(right: str, wrong: str, message: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert right in text
    assert any(message in problem for problem in problems(text.replace(right, wrong), NUMBERS))
