"""An agent with a limit in real processes, killed with SIGKILL while a real server is to answer."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.examples.fake_model_server import FakeModelServer, call, stall

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")]
pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
PROCESS = Path(__file__).with_name("limited_process.py")
ADD = call("add", {"a": 1, "b": 2})  # each answer uses 10 tokens


def started(journal: Path, url: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(PROCESS), str(journal), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_was_spent_before_a_kill_counts_after_it(tmp_path: Path) -> None:
    with FakeModelServer([ADD]) as server:
        straight, complaints = started(tmp_path / "straight.db", server.url).communicate(timeout=60)
        assert straight, complaints
        calls = len(server.requests)
    assert calls > 3

    with FakeModelServer([ADD, ADD, stall, ADD]) as server:
        first, until = started(tmp_path / "runs.db", server.url), time.monotonic() + 60
        while len(server.requests) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        first.kill()
        first.communicate()
        assert len(server.requests) == 3
        found, complaints = started(tmp_path / "runs.db", server.url).communicate(timeout=60)
    assert (found, len(server.requests)) == (straight, calls + 1), complaints  # the call under way was made again
