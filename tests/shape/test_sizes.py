"""One file, one noun: what grows beyond the bounds is split, or says at its top why not, in a line ``Size: <why>``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = 400
CLASS_LINES = 300
CLASS_METHODS = 15
REASON = re.compile(r"^\s*Size: \S.{20,}", re.MULTILINE)


def has_reason(node: ast.Module | ast.ClassDef) -> bool:
    """Whether the docstring of *node* has a line ``Size:`` with a reason of more than a word or two."""
    return REASON.search(ast.get_docstring(node) or "") is not None


def methods(node: ast.ClassDef) -> set[str]:
    """Return the names of a class's methods; overloads and the parts of a property count once."""
    return {child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)}


def too_large(package: Path) -> Iterator[str]:
    """Yield each file and class that is larger than the bounds and does not say why."""
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        lines = len(source.splitlines())
        if lines > FILE_LINES and not has_reason(tree):
            yield f"{file} has {lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not has_reason(node):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > CLASS_LINES:
                    yield f"{file}: class {node.name} has {lines} lines"
                if len(methods(node)) > CLASS_METHODS:
                    yield f"{file}: class {node.name} has {len(methods(node))} methods"


def test_files_and_classes_are_small_or_say_why_not(package: Path) -> None:
    assert list(too_large(package)) == []


WHY = '"""A noun.\n\nSize: the overloads of one operator belong together, and are half of it.\n"""\n'


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\n" * 400, []),
        ("x = 1\n" * 401, ["a.py has 401 lines"]),
        ("class C:\n" + "    x = 1\n" * 300, ["a.py: class C has 301 lines"]),
        ("class C:\n" + "".join(f"    def f{n}(self): ...\n" for n in range(16)), ["a.py: class C has 16 methods"]),
        ("class C:\n" + "    def f(self): ...\n" * 16, []),
        (WHY + "x = 1\n" * 401, []),
        ('"""A noun.\n\nSize: large.\n"""\n' + "x = 1\n" * 401, ["a.py has 405 lines"]),
    ],
)
def test_planted_sizes_are_seen(tmp_path: Path, source: str, found: list[str]) -> None:
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    assert list(too_large(tmp_path)) == found


def test_a_class_that_says_why_may_be_large(tmp_path: Path) -> None:
    reason = WHY.replace("\n", "\n    ")
    (tmp_path / "a.py").write_text(f"class C:\n    {reason}\n" + "    x = 1\n" * 301, encoding="utf-8")
    assert list(too_large(tmp_path)) == []
