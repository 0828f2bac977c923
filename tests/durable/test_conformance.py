"""The conformance suite, on every engine that keeps a journal."""

from pathlib import Path

import pytest

from tests.durable.benches import FileBench, MemoryBench
from tests.durable.conformance import Bench, Conformance


class TestMemory(Conformance):
    """A journal in memory, in simulated time."""

    @pytest.fixture
    def bench(self) -> Bench:
        return MemoryBench()


@pytest.mark.slow
class TestFile(Conformance):
    """A journal in a file, in real time."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return FileBench(tmp_path / "runs.db")
