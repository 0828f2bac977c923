"""The table of what a durable run survives: it has every number, and each test that it names exists."""

import pytest

from tests.docs.tables import ROOT, problems

PAGE = ROOT / "docs" / "explanation" / "crashes.rst"
NUMBERS = [*map(str, range(1, 49))]


def test_every_number_is_there_and_each_of_its_tests_exists() -> None:
    assert problems(PAGE.read_text(encoding="utf-8"), NUMBERS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("   * - 7\n", "   * - 99\n", "number 7 is missing"),
        ("test_a_reader_that_holds", "test_a_reader_that_takes", "number 26: there is no tests/durable/storage/"),
        ("``tests/durable/storage/test_damage.py::test_the_wal_of", "``test_the_wal_of", "number 19 has no test"),
    ],
)
def test_what_is_planted_in_the_table_is_seen(right: str, wrong: str, message: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert right in text
    assert any(message in problem for problem in problems(text.replace(right, wrong), NUMBERS))
