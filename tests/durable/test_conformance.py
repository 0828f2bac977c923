"""The conformance suite, on every engine that keeps a journal."""

import pytest

from tests.durable.benches import MemoryBench
from tests.durable.conformance import Bench, Conformance


@pytest.fixture
def bench() -> Bench:
    """Return a bench of its own for each test."""
    return MemoryBench()


class TestMemory(Conformance):
    """A journal in memory."""
