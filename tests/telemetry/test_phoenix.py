"""A real backend: Arize Phoenix on loopback gets the spans of the main job, and gives them back through its API.

It runs where the command ``phoenix`` is installed (the extra ``phoenix``), in a step of its own.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mai

PHOENIX = shutil.which("phoenix")  # from an environment of its own: it is a plugin of pytest, too, which warns
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PHOENIX is None, reason="Phoenix is not installed: pip install 'mai-kernel[phoenix]'"),
]
HERE = Path(mai.__file__).resolve().parents[1]
BROKEN = """
from mai import module

@module(retry=2)
async def fetch(url: str) -> str:
    raise ConnectionError(f"no answer from {url}")

@module
async def job(url: str) -> str:
    return await fetch(url)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        data = answer.read()
    return json.loads(data) if data[:1] in b"{[" and data else data


def wait_for(what: Any, seconds: float) -> Any:
    """Ask again and again; it is another program that is waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if (found := what()) is not None:
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s")


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Phoenix of our own."""
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    env = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([PHOENIX or "", "serve"], env=env, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: (server.poll() is None or None) and (ask(f"{url}/healthz") is not None or None), 120)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def run(url: str, project: str, target: str, word: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={project}"}
    command = [sys.executable, "-m", "mai.cli", "run", target, word, "--otlp", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=HERE, env=env)


def spans_in(url: str, project: str, root: str, **only: str) -> list[dict[str, Any]]:
    """Return the spans that Phoenix has, once it has the root."""

    def look() -> list[dict[str, Any]] | None:
        found, cursor = [], ""
        while cursor is not None:
            query = urllib.parse.urlencode({"limit": "1000", **only, **({"cursor": cursor} if cursor else {})})
            page = ask(f"{url}/v1/projects/{project}/spans?{query}")
            found += page["data"]
            cursor = page["next_cursor"]
        return found if any(span["name"] == root for span in found) else None

    return wait_for(look, 60)


def test_the_main_job_arrives_as_one_tree(phoenix: str) -> None:
    done = run(phoenix, "main-job", "docs/examples/review.py:review", "mai")
    assert done.returncode == 0, done.stderr
    spans = spans_in(phoenix, "main-job", "Review")
    print(json.dumps(spans[0], indent=1))
    ids = {span["context"]["span_id"]: span for span in spans}
    (root,) = [span for span in spans if span["parent_id"] is None]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert len(ids) == len(spans) > 10
    assert all(span["parent_id"] in ids for span in spans if span is not root)
    assert {span["span_kind"] for span in spans} == {"CHAIN", "AGENT", "LLM", "TOOL"}
    assert {span["status_code"] for span in spans} == {"UNSET"}
    facts = root["attributes"]
    assert (root["name"], facts["mai.kind"], facts["mai.step.id"]) == ("Review", "module", "Review")
    assert len(facts["mai.run.id"]) == 32
    for span in spans:
        path, around = span["attributes"]["mai.step.id"], ids.get(span["parent_id"])
        assert around is None or path.startswith(around["attributes"]["mai.step.id"])
        assert span["start_time"] <= span["end_time"]


def test_an_error_arrives_with_its_event_and_attempts(phoenix: str, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(BROKEN)
    done = run(phoenix, "broken-job", f"{tmp_path / 'flow.py'}:job", "http://x")
    assert done.returncode == 1
    spans = spans_in(phoenix, "broken-job", "job")
    table = {span["attributes"].get("mai.retry.attempt", span["name"]): span for span in spans}
    assert set(table) == {"job", "fetch", 1, 2}
    assert {span["status_code"] for span in spans} == {"ERROR"}
    assert {span["attributes"]["error.type"] for span in spans} == {"ConnectionError"}
    assert table["job"]["status_message"] == "ConnectionError: no answer from http://x"
    for name in (1, 2):
        (event,) = table[name]["events"]
        assert (event["name"], event["attributes"]["exception.type"]) == ("exception", "ConnectionError")
    assert (table["job"]["events"], table["fetch"]["events"]) == ([], [])
    assert table[1]["parent_id"] == table["fetch"]["context"]["span_id"]
    assert spans_in(phoenix, "broken-job", "job", status_code="ERROR")
