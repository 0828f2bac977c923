"""The planted bugs of tests/mutants still fit the code."""

from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise)
def test_a_planted_bug_changes_one_place_into_code_that_compiles(package: Path, mutant: Mutant) -> None:
    source = (package.parent / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
