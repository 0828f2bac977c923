"""Changelog fragments have names that towncrier understands, and say something."""

import re
from pathlib import Path

FRAGMENT = re.compile(r"\+[a-z0-9]+(-[a-z0-9]+)*\.(breaking|added|changed|fixed|docs)\.rst")


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the fragments in *folder*, which a release leaves empty, or gone."""
    found = []
    for path in sorted(folder.glob("*")):
        if not FRAGMENT.fullmatch(path.name):
            found.append(f"{path.name}: the name is not +slug.(breaking|added|changed|fixed|docs).rst")
        elif not path.read_text(encoding="utf-8").strip():
            found.append(f"{path.name}: is empty")
    return found


def test_fragments_have_valid_names_and_a_text(root: Path) -> None:
    assert problems(root / "docs" / "changes") == []


def test_planted_fragments_are_seen(tmp_path: Path) -> None:
    (tmp_path / "+good-one.added.rst").write_text("It can.", encoding="utf-8")
    (tmp_path / "+empty.fixed.rst").write_text("\n", encoding="utf-8")
    for name in ("12.added.rst", "+Upper.added.rst", "+x.feature.rst", "+x.added.md", "+.added.rst"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert {problem.partition(":")[0] for problem in problems(tmp_path)} == {
        "+empty.fixed.rst",
        "12.added.rst",
        "+Upper.added.rst",
        "+x.feature.rst",
        "+x.added.md",
        "+.added.rst",
    }
