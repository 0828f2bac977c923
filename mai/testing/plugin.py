"""Fixtures for pytest. Name this module in a ``conftest.py``: ``pytest_plugins = ["mai.testing.plugin"]``.

It is no entry point: pytest would load it, and mai with it, in every environment that has mai, whether its tests use it
or not (``docs/adr/0035``).

- ``fake_clock``: a `FakeClock` in place.
- ``faults``: `Faults` in place.
- ``simulate`` and ``explore``: the functions of `mai.testing`. With ``pytest --mai-seed=17`` each ``explore`` tries
  only that seed, to see a failure again.
"""

from collections.abc import Callable, Iterator
from typing import Any

from . import FakeClock, Faults
from . import explore as _explore
from . import simulate as _simulate

try:
    import pytest
except ImportError as _error:
    raise ImportError("mai.testing.plugin needs pytest: pip install 'mai-kernel[testing]'") from _error


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for one seed."""
    group = parser.getgroup("mai")
    group.addoption("--mai-seed", type=int, default=None, help="the only seed that the fixture explore tries")


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """Give a clock that goes when it is told to."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Give a way to put faults at the named places of the program."""
    with Faults() as placed:
        yield placed


@pytest.fixture
def simulate() -> Callable[..., Any]:
    """Give what runs a program once in simulated time."""
    return _simulate


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Give what runs a program under many seeds."""
    seed: int | None = request.config.getoption("--mai-seed")

    def only(main: Any, *, seeds: object = None, **conditions: Any) -> Any:
        return _explore(main, seeds=[] if seed is None else [seed], **conditions)

    return _explore if seed is None else only
