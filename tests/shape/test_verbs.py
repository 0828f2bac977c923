"""A run answers five verbs, and nothing else is asked of it; what stores its records is no business of the kernel."""

import inspect
from pathlib import Path

import pytest

from mai.core.engine import Run
from mai.durable import verbs
from mai.durable.inside import Inside
from mai.durable.run import DurableRun

VERBS = {"step", "sleep", "value", "wait", "gather"}


def asked(cls: type) -> set[str]:
    """Return the public coroutine functions that *cls* itself has."""
    return {name for name, value in vars(cls).items() if inspect.iscoroutinefunction(value) and name[0] != "_"}


def test_the_protocol_of_a_run_is_the_five_verbs() -> None:
    assert asked(verbs.Run) == VERBS


@pytest.mark.parametrize("cls", [Run, Inside, DurableRun])
def test_no_run_has_another_one(cls: type) -> None:
    assert asked(cls) <= VERBS


def test_a_run_that_records_answers_all_of_them() -> None:
    assert {name for base in DurableRun.__mro__ for name in asked(base)} == VERBS


def test_the_kernel_does_not_know_where_records_are_kept(package: Path) -> None:
    rooms = [path for room in ("core", "layers", "values") for path in sorted((package / room).rglob("*.py"))]
    assert len(rooms) > 40
    assert [path.name for path in rooms if "sqlite" in path.read_text(encoding="utf-8").lower()] == []
