"""The kernel stays small: lines that are not blank, comment or docstring are counted, and bounded.

``python tests/shape/test_line_budget.py`` prints the count file by file.
"""

import ast
import importlib.util
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE_BUDGET = 2_000  # docs/adr/0011 says why these two
KERNEL_BUDGET = 5_393
KERNEL_FILES = ("__init__.py", "errors.py", "types.py", "viewed.py")
KERNEL_FOLDERS = ("core", "layers", "values")
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstring_lines(source: str) -> set[int]:
    """Return the numbers of all lines that belong to a docstring."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        if is_text and isinstance(first.value.value, str):
            lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def code_lines(source: str) -> int:
    """Return how many lines of *source* are neither blank nor comment nor docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(source))


def kernel(package: Path) -> Iterator[Path]:
    """Yield the kernel's files."""
    for name in KERNEL_FILES:
        if (package / name).exists():
            yield package / name
    for folder in KERNEL_FOLDERS:
        yield from sorted((package / folder).rglob("*.py"))


def count(package: Path) -> dict[str, int]:
    """Return the lines of code of each file of the kernel."""
    return {
        path.relative_to(package).as_posix(): code_lines(path.read_text(encoding="utf-8")) for path in kernel(package)
    }


def totals(table: dict[str, int]) -> tuple[int, int]:
    """Return the lines of the core, and those of the whole kernel."""
    return sum(lines for name, lines in table.items() if name.startswith("core/")), sum(table.values())


def told(table: dict[str, int]) -> str:
    """Return both totals beside their bounds, as one line."""
    core, kernel_ = totals(table)
    return f"core: {core} of {CORE_BUDGET} lines of code; whole kernel: {kernel_} of {KERNEL_BUDGET}"


def test_the_core_and_the_kernel_stay_within_their_budgets(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = count(package)
    with capsys.disabled():
        print(f"\n{told(table)}")
    core, whole = totals(table)
    assert 0 < core <= CORE_BUDGET
    assert core < whole <= KERNEL_BUDGET


PLANTED = '''\
"""Module docstring,
two lines."""

# a comment
import os  # one


class C:
    """Docstring."""

    text = """not a docstring:

    four lines
    """

    def f(self):
        "also a docstring"
        return (
            os,  # a comment inside
            # a line of comment
            "x",
        )
'''


def test_blank_lines_comments_and_docstrings_do_not_count() -> None:
    assert code_lines(PLANTED) == 1 + 1 + 4 + 1 + 4


def test_lines_planted_in_any_part_of_the_kernel_are_seen(tmp_path: Path) -> None:
    for name in ("__init__.py", "errors.py", "types.py", "core/__init__.py", "core/deep/er.py", "layers/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n" * 1_001, encoding="utf-8")
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "tree.py").write_text("x = 1\n", encoding="utf-8")
    counted = count(tmp_path)
    assert len(counted) == 6
    core, whole = totals(counted)
    assert (core, whole) == (2_002, 6_006)
    assert core > CORE_BUDGET
    assert whole > KERNEL_BUDGET


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    found = importlib.util.find_spec("mai")
    if found is None or not found.submodule_search_locations:
        sys.exit("there is no package mai")
    table = count(Path(found.submodule_search_locations[0]))
    for name, lines in table.items():
        print(f"{lines:6}  mai/{name}")
    print(told(table))
