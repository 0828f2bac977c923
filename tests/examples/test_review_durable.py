"""The main job as a durable run: killed while it waits for a person, and between two answers of the model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mai.durable import SQLiteJournal
from tests.cli.support import command, environment
from tests.examples import fake_model_server as fake
from tests.examples.conftest import EXAMPLES
from tests.examples.fake_model_server import FakeModelServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]


class Job:
    """One run of the review, begun or gone on with by one process after the other."""

    def __init__(self, tree: Path, url: str, *words: str) -> None:
        self.db = tree.parent / "runs.db"
        page = f"{EXAMPLES / 'review.py'}:review"
        given = [str(tree), "--model", url, "--approve", "true", *words]
        self.command = command("run", page, *given, "--durable", str(self.db), "--run-id", "r")

    def started(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip

    def told(self, *words: str) -> str:
        """Return what a command of `mai runs` says."""
        done = subprocess.run(
            command("runs", *words, "--db", str(self.db)), capture_output=True, text=True, env=environment(), check=True
        )
        return done.stdout

    def wait_until_it_waits(self) -> None:
        """Wait until nobody carries the run on, and it waits for something."""

        async def status() -> str:
            async with SQLiteJournal(self.db) as journal:
                info = await journal.run("r")
            return "" if info is None else info.status

        until = time.monotonic() + 60
        while asyncio.run(status()) != "waiting":
            assert time.monotonic() < until, self.told("show", "r")
            time.sleep(0.05)


def killed(process: "subprocess.Popen[str]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_review_that_is_killed_while_it_waits_asks_no_model_twice(tree: Path) -> None:
    with FakeModelServer([fake.review]) as server:
        job = Job(tree, server.url, "--top", "2", "--pause", "6")
        first = job.started()
        job.wait_until_it_waits()
        killed(first)
        assert "asks 'Send the source of 2 functions" in job.told("show", "r")
        assert server.requests == []

        job.told("answer", "r", "yes")
        second = job.started()
        while not server.requests:
            assert second.poll() is None, second.communicate()
            time.sleep(0.01)
        job.wait_until_it_waits()  # for the pause after a verdict
        killed(second)
        asked = len(server.requests)

        third = job.started()
        report, said = third.communicate(timeout=120)
        assert third.returncode == 0, said
        bodies = [json.dumps(request.body, sort_keys=True) for request in server.requests]
    assert f"reviewed by the model at {server.url}" in " ".join(report.split())
    assert 1 <= asked < len(bodies) == 6
    assert len(set(bodies)) == len(bodies)
