"""The research agent in real processes that are killed with SIGKILL, against a server that counts what it is asked."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES
from tests.examples.fake_model_server import Behaviour, Connection, FakeModelServer, Request, send

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes, and SIGKILL"),
]
KEY = "sk-canary-31415926535897"
PROCESS = Path(__file__).with_name("agent_process.py")
ANSWER = {"answer": "A deadline is inherited by all calls inside.", "pages": ["deadlines.md"]}


class Segment:
    """One process of the run."""

    def __init__(self, work: Path, url: str, *answer: str) -> None:
        path = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parents[1])])
        self.work = work
        self.process = subprocess.Popen(
            [sys.executable, str(PROCESS), str(work), url, *answer],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "OPENAI_API_KEY": KEY},
        )  # fmt: skip

    def line(self) -> str:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return line
        raise AssertionError(self.process.communicate()[1])

    def kill(self) -> str:
        """Kill it with SIGKILL if it lives; return what it said besides."""
        self.process.kill()
        return "".join(self.process.communicate())

    def spans(self) -> list[Any]:
        """Return its spans that have ended."""
        lines = (self.work / f"spans.{self.process.pid}").read_text().splitlines()
        return [json.loads(line) for line in lines]


def reads(pipe: Path, process: subprocess.Popen[str]) -> int:
    """Wait until somebody reads *pipe*, and return its other end."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # there is no pipe yet, or nobody at its other end
            time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def streamed(finish: str, **delta: Any) -> Behaviour:
    """Answer as a stream, as it is asked for in started runs."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "local"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None}, {"index": 0, "delta": {}, "finish_reason": finish}]
    lines = [json.dumps({**head, "choices": [choice]}) for choice in choices]
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    return send(body.encode(), Content_Type="text/event-stream")


def say(text: str) -> Behaviour:
    return streamed("stop", role="assistant", content=text)


def call(tool: str, arguments: object, number: str) -> Behaviour:
    wish = {"name": tool, "arguments": json.dumps(arguments)}
    calls = [{"index": 0, "id": number, "type": "function", "function": wish}]
    return streamed("tool_calls", role="assistant", tool_calls=calls)


def ran(segment: Segment) -> list[str]:
    """Return which models and tools really ran in *segment*, and came to an end."""
    names = [span["name"] for span in segment.spans()]
    return [name for name in names if name in ("chat local", "Search", "ReadPage", "WriteReport")]


def opened(work: Path, name: str) -> int:
    return (work / "opened").read_text().splitlines().count(name)


def test_an_agent_killed_in_a_tool_and_while_it_waits_for_a_person_does_nothing_twice(tmp_path: Path) -> None:
    notes, pipe = tmp_path / "notes", tmp_path / "notes" / "a.md"
    notes.mkdir()
    (notes / "deadlines.md").write_text("A deadline is inherited by all calls inside.\n")

    def blocks_then(behaviour: Behaviour) -> Behaviour:
        def answer(connection: Connection, request: Request) -> None:
            os.mkfifo(pipe)  # the next search stops here
            behaviour(connection, request)

        return answer

    script = [
        call("Search", {"query": "deadlines"}, "1"),
        call("ReadPage", {"page": "deadlines.md"}, "2"),
        blocks_then(call("Search", {"query": "inherited"}, "3")),
        say(json.dumps(ANSWER)),
        say("this is one call too many"),
    ]
    with FakeModelServer(script) as server:
        first = Segment(tmp_path, server.url)
        end = reads(pipe, first.process)
        said = first.kill()
        os.close(end)
        assert (len(server.requests), opened(tmp_path, "deadlines.md")) == (3, 2)

        pipe.unlink()
        second = Segment(tmp_path, server.url)
        assert second.line() == "asked\n"
        said += second.kill()
        assert (len(server.requests), opened(tmp_path, "deadlines.md")) == (4, 3)
        assert not (tmp_path / "report.md").exists()

        third = Segment(tmp_path, server.url, "yes")
        assert third.line() == "asked\n"
        assert third.line() == f"done {json.dumps(ANSWER, separators=(',', ':'))}\n"
        said += "".join(third.process.communicate())

    assert third.process.returncode == 0
    assert (len(server.requests), opened(tmp_path, "deadlines.md"), opened(tmp_path, "a.md")) == (4, 3, 1)
    assert [len(request.body["messages"]) for request in server.requests] == [2, 4, 6, 8]
    assert (tmp_path / "report.md").read_text().startswith(ANSWER["answer"])

    segments = [first, second, third]
    traces = [{span["context"]["trace_id"] for span in segment.spans()} for segment in segments]
    assert [len(found) for found in traces] == [1, 1, 1]  # one tree each
    assert len(set.union(*traces)) == 3
    assert ran(first) == ["chat local", "Search", "chat local", "ReadPage", "chat local"]
    assert ran(second) == ["Search", "chat local"]
    assert ran(third) == ["WriteReport"]

    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in said
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file.name
