"""The table of what must not happen: it has every number, and each test that it names exists."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "hazards.rst"
NUMBERS = [*map(str, range(1, 38)), *"ABCDEFGH"]


def rows(text: str) -> dict[str, list[str]]:
    """Return the tests that stand beside each number of the table."""
    parts = re.split(r"^   \* - (\w+)$", text, flags=re.MULTILINE)[1:]
    cells = dict(zip(parts[::2], parts[1::2], strict=True))
    assert len(cells) * 2 == len(parts), "a number stands there twice"
    return {number: re.findall(r"``(tests/\S+)``", cell) for number, cell in cells.items() if number != "Number"}


@functools.cache
def defined(file: Path) -> frozenset[str]:
    """Return the names of the tests in *file*."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))


def problems(text: str) -> list[str]:
    """Say what is wrong with the table."""
    table = rows(text)
    wrong = [f"number {number} is missing" for number in NUMBERS if number not in table]
    wrong += [f"number {number} is not known" for number in table if number not in NUMBERS]
    for number, tests in table.items():
        wrong += [] if tests else [f"number {number} has no test"]
        for test in tests:
            file, _, name = test.partition("::")
            if not (ROOT / file).is_file() or name not in defined(ROOT / file):
                wrong.append(f"number {number}: there is no {test}")
    return wrong


def test_every_number_is_there_and_each_of_its_tests_exists() -> None:
    assert problems(PAGE.read_text(encoding="utf-8")) == []


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
    assert any(message in problem for problem in problems(text.replace(right, wrong)))
