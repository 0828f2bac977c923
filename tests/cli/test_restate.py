"""`mai run --restate`, against a server that does what a real one was seen to do."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mai.durable.failures import Failures
from tests.cli.support import Done, command, environment
from tests.durable.restate.fake import FakeRestate, FakeRun, serving_apart

Mai = Callable[..., Done]


@pytest.fixture
def fake() -> FakeRestate:
    return FakeRestate("shout", "curious")


@pytest.fixture
def url(fake: FakeRestate) -> Iterator[str]:
    with serving_apart(fake) as found:
        yield found


def asking(run: FakeRun) -> None:
    """Let the run wait for an answer."""
    run.about = {"questions": {"shout/ask": {"prompt": "go on?", "expected": "bool"}}}


def test_the_value_is_printed_as_that_of_a_run_that_is_here(mai: Mai, fake: FakeRestate, url: str) -> None:
    fake.begun = lambda run: run.finish(200, "HELLO!")
    assert [*mai("run", "flow.py:shout", "hello", "--restate", url, "--run-id", "a")] == [0, "HELLO!\n", ""]
    assert json.loads(fake.runs["shout", "a"].input) == {"text": "hello", "mark": "!"}


def test_the_deadline_goes_along(mai: Mai, fake: FakeRestate, url: str) -> None:
    fake.begun = lambda run: run.finish(200, "HELLO!")
    mai("run", "flow.py:shout", "hello", "--restate", url, "--timeout", "60")
    (run,) = fake.runs.values()
    assert 50.0 < float(run.headers["x-mai-timeout"]) <= 60.0


def test_a_failure_is_shown_as_that_of_a_run_that_is_here(mai: Mai, fake: FakeRestate, url: str) -> None:
    facts = Failures().crossed(ValueError("no"), ())[0].decode()
    fake.begun = lambda run: run.finish(500, {"code": 500, "message": "ValueError: no", "metadata": {"mai": facts}})
    done = mai("run", "flow.py:shout", "hello", "--restate", url)
    assert (done.code, done.out) == (1, "")
    assert "ValueError: no" in done.err


@pytest.mark.slow
def test_a_question_is_answered_by_an_option(mai: Mai, fake: FakeRestate, url: str) -> None:
    fake.begun, fake.told = asking, lambda run: run.finish(200, f"got {run.signals[-1]['value']}")
    done = mai("run", "flow.py:shout", "hello", "--restate", url, "--answer", "true")
    assert [*done] == [0, "got True\n", ""]


@pytest.mark.slow
def test_an_answer_that_does_not_fit_is_told_and_the_next_one_is_given(mai: Mai, fake: FakeRestate, url: str) -> None:
    def told(run: FakeRun) -> None:
        fake.refuses = {"refused": "no bool", "expected": "bool"} if len(run.signals) == 1 else None
        if len(run.signals) == 2:
            run.finish(200, f"got {run.signals[-1]['value']}")

    fake.begun, fake.told = asking, told
    done = mai("run", "flow.py:shout", "hello", "--restate", url, "--answer", "perhaps", "--answer", "true")
    assert [*done] == [0, "got True\n", "mai run: no bool\n"]


@pytest.mark.slow
def test_a_question_that_nobody_here_can_answer_is_told_once(fake: FakeRestate, url: str, here: Path) -> None:
    fake.begun = asking
    process = subprocess.Popen(
        command("run", "flow.py:shout", "hello", "--restate", url, "--run-id", "a"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == (
        "mai run: go on? (nobody is here to answer: the same command with --run-id a --answer VALUE does)\n"
    )
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "the run is kept; the same command with --run-id a goes on with it" in err
    assert fake.runs["shout", "a"].end is None


@pytest.mark.slow
def test_a_question_may_be_answered_elsewhere(mai: Mai, fake: FakeRestate, url: str) -> None:
    def begun(run: FakeRun) -> None:
        asking(run)
        asyncio.get_running_loop().call_later(1.0, run.finish, 200, "HELLO!")

    fake.begun = begun
    done = mai("run", "flow.py:shout", "hello", "--restate", url)
    assert (done.code, done.out) == (0, "HELLO!\n")
    assert done.err.count("go on?") == 1


def test_too_few_answers_end_the_command_and_not_the_run(mai: Mai, fake: FakeRestate, url: str) -> None:
    def next_question(run: FakeRun) -> None:
        run.about = {"questions": {"shout/ask~2": {"prompt": "sure?", "expected": "bool"}}}

    fake.begun, fake.told = asking, next_question
    done = mai("run", "flow.py:shout", "hello", "--restate", url, "--answer", "true")
    assert done.code == 1
    assert "each --answer is used already (1 given)" in done.err
    (run,) = fake.runs.values()
    assert run.end is None


def test_a_module_that_no_worker_serves_is_told_as_such(mai: Mai, url: str) -> None:
    done = mai("run", "flow.py:triple", "3", "--restate", url)
    assert done.code == 1
    assert "ConfigError: service 'Scale' not found" in done.err  # the admin API is elsewhere, and is not waited for


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--restate", "http://127.0.0.1:1", "--durable", "runs.db"), "--durable and --restate: a run has one journal"),
        (("--restate", "localhost"), "--restate localhost: give the address of an ingress"),
        (("--run-id", ""), "--run-id: it is empty"),
        (("--run-id", "a"), "--run-id: only a durable run has one; give --durable FILE or --restate URL"),
    ],
)
def test_what_cannot_be_meant_is_bad_usage(mai: Mai, words: tuple[str, ...], message: str) -> None:
    done = mai("run", "flow.py:shout", "hello", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
