"""The examples import each other by name from their directory, as `mai run` has it."""

import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the small tree with known answers, to be spoilt at will."""
    copy = tmp_path / "tree"
    shutil.copytree(Path(__file__).parent / "tree", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy
