"""Where the package is that these tests look at: the checkout's, or the installed one when they run against a wheel."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of the package that `import mai` gives."""
    spec = importlib.util.find_spec("mai")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that has tests/, docs/ and pyproject.toml."""
    return ROOT
