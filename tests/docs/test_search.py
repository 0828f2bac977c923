"""The page on the search: what it does not see are mutants that there are, and it has all shapes."""

import pytest

from tests.mutants.mutants import MUTANTS
from tests.search.mutants import PAGE, main, unseen
from tests.search.parts import JOURNALS, NAMED


def test_each_bug_that_is_left_to_other_tests_is_planted_and_has_a_reason() -> None:
    known = unseen(PAGE.read_text(encoding="utf-8"))
    assert set(known) <= {mutant.promise for mutant in MUTANTS}
    assert all(reason.endswith(".") for reason in known.values())
    assert len(known) < len(MUTANTS) / 2


def test_the_page_counts_the_shapes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"It runs {len(NAMED)} shapes" in text
    assert len({name for names in JOURNALS.values() for name in names}) == 3
    assert "Three of them are durable" in text


def test_a_word_that_no_mutant_has_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("no such promise") == 2
    assert "no mutant has 'no such promise'" in capsys.readouterr().out
