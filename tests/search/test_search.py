"""A short search with every run of the tests; ``python -m tests.search`` is the long one."""

from typing import Any

import pytest

from .__main__ import main
from .parts import NAMED, parts_of, search


@pytest.mark.parametrize("name", NAMED)
def test_a_shape_holds_whatever_comes_first(name: str) -> None:
    found = search(name, "order", range(6))
    assert found.failure == ""
    assert found.interleavings > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_shape_holds_under_many_seeds(name: str) -> None:
    for part in parts_of(name):
        assert search(name, part, range(30 if part == "order" else 1)).failure == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "seed"),
    [
        ("durable", "write", 1),  # a timer that looked at who waits circled until he went on, and came before him
        ("booked", "cancel", 0),  # a cancel was lost where the work of a transaction failed
        ("booked", "write", 0),  # a check took what was committed for a new record, each time that it came again
    ],
)
def test_what_the_search_has_found_stays_mended(name: str, part: str, seed: int) -> None:
    assert search(name, part, range(seed, seed + 1)).failure == ""


@pytest.mark.slow
def test_the_command_prints_a_table_and_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "10", "--shape", "nested"]) == 0
    out = capsys.readouterr().out
    assert "nested" in out
    assert "10 seeds, " in out
    assert " 0 failures " in out


def test_a_failure_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from . import parts

    def worse(*_: Any, **__: Any) -> None:
        raise AssertionError("it does not hold")

    monkeypatch.setattr(parts, "check", worse)
    found = search("nested", "order", range(3))
    assert "it does not hold" in found.failure
    assert "simulate(main, seed=0, order='fifo')" in found.failure
