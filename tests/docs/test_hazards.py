"""The table of what must not happen: it has every number, and each test that it names exists."""

import pytest

from tests.docs.tables import ROOT, problems
from tests.mutants.mutants import MUTANTS

PAGE = ROOT / "docs" / "explanation" / "hazards.rst"
NUMBERS = [*map(str, range(1, 38)), *"ABCDEFGH"]


def test_every_number_is_there_and_each_of_its_tests_exists() -> None:
    assert problems(PAGE.read_text(encoding="utf-8"), NUMBERS) == []


def test_every_number_has_a_mutant_and_no_mutant_has_another() -> None:
    known = {str(number) for mutant in MUTANTS for number in mutant.hazards}
    assert known == set(NUMBERS)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("   * - 7\n", "   * - 99\n", "number 7 is missing"),
        ("   * - 7\n", "   * - 99\n", "number 99 is not known"),
        ("test_a_cancel_is_never_tried_again", "test_a_cancel_is_tried_again", "number 9: there is no tests/core/"),
        (
            "``tests/core/test_retry.py::test_isolated_attempts_do",
            "``test_isolated_attempts_do",
            "number 8 has no test",
        ),
        ("``tests/core/test_frame.py::test_a_token", "``tests/core/test_gone.py::test_a_token", "test_gone.py"),
    ],
)
def test_what_is_planted_in_the_table_is_seen(right: str, wrong: str, message: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert right in text
    assert any(message in problem for problem in problems(text.replace(right, wrong), NUMBERS))
