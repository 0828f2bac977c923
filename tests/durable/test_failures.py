"""Failures as data: what is read of a record that was damaged, or written by others."""

import json
from asyncio import CancelledError
from typing import Any

import pytest

from mai.durable.failures import Failures
from mai.errors import PayloadError, StepFailed

FACTS: dict[str, Any] = {
    "type": "KeyError", "module": "builtins", "message": "'a'", "args": ["a"], "lossy": False, "state": {}, "notes": [],
}  # fmt: skip


def load(**changes: Any) -> BaseException:
    return Failures().load(json.dumps(FACTS | changes).encode())


def test_a_failure_comes_back_as_it_was() -> None:
    assert repr(load()) == "KeyError('a')"
    assert type(load(type="CancelledError", module="asyncio.exceptions", message="", args=[])) is CancelledError


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_no_record_ends_the_process(name: str) -> None:
    error = load(type=name, message="a")
    assert type(error) is StepFailed
    assert str(error) == f"{name}: a"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"5", b"{}", b"[" * 10_000, b"\xff", json.dumps(FACTS | {"notes": 3}).encode()]
)
def test_what_is_no_failure_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError, match="Cannot read a failure from"):
        Failures().load(data)
