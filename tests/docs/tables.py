"""Tables on pages whose rows have a number and the tests that stand behind what the row says."""

import ast
import functools
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ROOT", "problems"]

ROOT = Path(__file__).resolve().parents[2]


def rows(text: str) -> dict[str, list[str]]:
    """Return the tests that stand beside each number of the table."""
    parts = re.split(r"^   \* - (\w+)$", text, flags=re.MULTILINE)[1:]
    numbered = [(number, cell) for number, cell in zip(parts[::2], parts[1::2], strict=True) if number != "Number"]
    cells = dict(numbered)
    assert len(cells) == len(numbered), "a number stands there twice"
    return {number: re.findall(r"``(tests/\S+)``", cell) for number, cell in cells.items()}


@functools.cache
def defined(file: Path) -> frozenset[str]:
    """Return the names of the tests in *file*."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))


def problems(text: str, numbers: Sequence[str]) -> list[str]:
    """Say what is wrong with the table, which is to have these *numbers*."""
    table = rows(text)
    wrong = [f"number {number} is missing" for number in numbers if number not in table]
    wrong += [f"number {number} is not known" for number in table if number not in numbers]
    for number, tests in table.items():
        wrong += [] if tests else [f"number {number} has no test"]
        for test in tests:
            file, _, name = test.partition("::")
            if not (ROOT / file).is_file() or name not in defined(ROOT / file):
                wrong.append(f"number {number}: there is no {test}")
    return wrong
