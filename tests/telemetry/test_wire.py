"""What a backend gets: a program of its own sends over OTLP/HTTP to a sink on loopback, and the bytes are read."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mai
from tests.support import python
from tests.telemetry.sink import Sink, sink

HERE = Path(mai.__file__).resolve().parents[1]
PROGRAM = """
from mai import BlockingDelay, Conditional, Context, Map, Parallel, graph, module

@module
async def shout(text: str) -> str:
    return text.upper()

@module
def measure(text: str) -> int:
    return len(text)

@module(retry=2)
async def flaky(text: str) -> str:
    if Context.get().retry_count == 0:
        raise ConnectionError("once")
    return text

@module
async def broken(text: str) -> str:
    raise KeyError(text)

@module(detached="link")
async def later(text: str) -> str:
    return text

@module(detached=True)
async def behind(text: str) -> str:
    return text

@graph
async def rag(text: str) -> int:
    return await measure(await shout(text))

@module
async def job(text: str) -> str:
    await (rag & Conditional(lambda t: len(t) > 1, then=flaky))(text)
    for work in (later, behind):
        await (await work(text))
    try:
        await Parallel(right=BlockingDelay(5), left=broken)(text)
    except KeyError:
        return "ok"
"""
CONFIGURED = "from mai.telemetry import configure\nconfigure()\n"


@pytest.fixture
def backend() -> Iterator[Sink]:
    with sink() as found:
        yield found


def run(backend: Sink, program: str, **env: str) -> None:
    done = python(program, env={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, **env})
    told = [line for line in done.stderr.splitlines() if "blocked the event loop" not in line]  # a busy machine
    assert (done.returncode, done.stdout, told) == (0, "", [])


@pytest.mark.slow
def test_a_program_sends_names_parents_kinds_attributes_errors_links_and_resource(backend: Sink) -> None:
    env = {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    run(
        backend, PROGRAM + CONFIGURED + "with Context.scope(session_id='s1'):\n    assert job.run('abc') == 'ok'", **env
    )
    later = backend.named("later")
    backend.spans.remove(later)
    attempts = [span for span in backend.spans if span.name == "attempt"]
    backend.spans = [span for span in backend.spans if span.name != "attempt"]
    outer, inner = sorted((span for span in backend.spans if span.name == "Parallel"), key=lambda span: span.start)
    backend.spans = [span for span in backend.spans if span.name != "Parallel"]
    ids = {span.span_id: span.name for span in backend.spans} | {outer.span_id: "outer", inner.span_id: "inner"}
    assert {span.name: ids.get(span.parent_id or "") for span in backend.spans} == {
        "job": None, "invoke_workflow rag": "outer", "shout": "invoke_workflow rag", "measure": "invoke_workflow rag",
        "Conditional": "outer", "flaky": "Conditional", "behind": "job", "broken": "inner", "BlockingDelay": "inner",
    }  # fmt: skip
    assert {ids[span.parent_id or ""] for span in (outer, inner)} == {"job"}
    assert {span.kind for span in backend.spans} == {1}  # INTERNAL
    assert {span.trace_id for span in backend.spans} == {outer.trace_id}
    assert all(span.start <= span.end for span in backend.spans)
    assert backend.named("job").start <= min(span.start for span in backend.spans)
    assert {(span.scope, span.resource["service.name"]) for span in backend.spans} == {
        (("mai", mai.__version__), "shop")
    }
    assert outer.resource["deployment.environment.name"] == "test"

    root = backend.named("job").attributes
    assert (root["mai.kind"], root["mai.step.id"], root["session.id"]) == ("module", "job", "s1")
    assert len(root["mai.run.id"]) == 32
    facts = backend.named("invoke_workflow rag").attributes
    assert facts["gen_ai.operation.name"] == "invoke_workflow"
    assert (facts["gen_ai.workflow.name"], len(facts["mai.plan.hash"])) == ("rag", 32)
    assert (facts["mai.branch.index"], facts["openinference.span.kind"]) == (0, "CHAIN")
    assert backend.named("Conditional").attributes["mai.decision"] == "then"
    assert backend.named("BlockingDelay").attributes["mai.delay.seconds"] == 5.0
    assert backend.named("broken").attributes["mai.branch.key"] == "left"
    assert (backend.named("shout").attributes["mai.input.size"], backend.named("shout").attributes["mai.step.id"]) == (
        3, "job/Parallel[0]/rag/shout",
    )  # fmt: skip

    assert [span.attributes["mai.retry.attempt"] for span in attempts] == [1, 2]
    assert [(span.status, span.message) for span in attempts] == [(2, "ConnectionError: once"), (0, "")]
    assert (backend.named("flaky").status, backend.named("flaky").attributes["mai.retry.count"]) == (0, 1)
    broken = backend.named("broken")
    ((event, told),) = broken.events
    assert (broken.status, broken.message, broken.attributes["error.type"]) == (2, "KeyError: 'abc'", "KeyError")
    assert (event, told["exception.type"], told["exception.message"]) == ("exception", "KeyError", "'abc'")
    assert "raise KeyError(text)" in told["exception.stacktrace"] or "KeyError" in told["exception.stacktrace"]
    assert (inner.status, inner.events, backend.named("job").status) == (2, [], 0)
    delay = backend.named("BlockingDelay")
    assert (delay.status, delay.attributes["mai.outcome"]) == (0, "cancelled")

    assert backend.named("behind").attributes["mai.detached"] is True
    ((trace_id, span_id, why),) = later.links
    job = backend.named("job")
    assert (trace_id, span_id, why) == (job.trace_id, job.span_id, {"mai.link": "spawned_by"})
    assert (later.parent_id, later.trace_id == job.trace_id, later.attributes["mai.detached"]) == (None, False, True)
    assert later.attributes["mai.run.id"] == root["mai.run.id"]
    assert "mai.link" not in later.attributes


@pytest.mark.slow
def test_opentelemetry_instrument_needs_no_code(backend: Sink) -> None:
    tool = Path(sys.executable).with_name("opentelemetry-instrument")
    program = PROGRAM + "assert shout.run('a') == 'A' and rag.run('b') == 1"
    done = subprocess.run(
        [tool, "--traces_exporter", "otlp", "--metrics_exporter", "none", "--logs_exporter", "none",
         "--exporter_otlp_endpoint", backend.url, "--exporter_otlp_protocol", "http/protobuf",
         sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=False, cwd=HERE, env={"PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [span.name for span in backend.spans] == ["shout", "shout", "measure", "invoke_workflow rag"]
    assert len(backend.named("invoke_workflow rag").attributes["mai.plan.hash"]) == 32


@pytest.mark.slow
def test_mai_run_sends_to_the_backend_of_otlp(backend: Sink, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "error", "-m", "mai.cli", "run", str(tmp_path / "flow.py:rag"), "abc"]
    done = subprocess.run(
        [*command, "--otlp", backend.url], capture_output=True, text=True, timeout=60, check=False, cwd=HERE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert backend.parents() == {
        "invoke_workflow rag": None, "shout": "invoke_workflow rag", "measure": "invoke_workflow rag"
    }  # fmt: skip
    assert backend.spans[0].resource["service.name"] == "mai"


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_mai_run_sends_to_the_backend_of_the_environment(backend: Sink, tmp_path: Path, variable: str) -> None:
    (tmp_path / "flow.py").write_text(PROGRAM)
    url = backend.url + ("/v1/traces" if "TRACES" in variable else "")
    done = subprocess.run(
        [sys.executable, "-m", "mai.cli", "run", str(tmp_path / "flow.py:measure"), "abc"],
        capture_output=True, text=True, timeout=60, check=False, cwd=HERE, env={variable: url, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert [span.name for span in backend.spans] == ["measure"]


def test_mai_run_refuses_what_is_no_url(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(PROGRAM)
    done = python(f"""
import sys
sys.argv = ["mai", "run", {str(tmp_path / "flow.py:measure")!r}, "abc", "--otlp", "localhost:4318"]
from mai.cli import main
sys.exit(main())
""")
    assert done.returncode == 2
    assert "endpoint='localhost:4318' is no URL of an OTLP/HTTP backend" in done.stderr


@pytest.mark.slow
def test_a_run_whose_spans_nobody_takes_ends_as_ever_with_one_warning() -> None:
    done = python(
        PROGRAM
        + """
from mai.telemetry import configure, flush
configure("http://127.0.0.1:9")
for _ in range(3):
    assert shout.run("a") == "A"
    assert flush() in (True, False)
""",
        env={"OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
    )
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("spans do not reach http://127.0.0.1:9/v1/traces and are dropped until they do: ")


@pytest.mark.slow
def test_spans_of_detached_work_that_ends_with_the_interpreter_are_sent(backend: Sink) -> None:
    late = """
import asyncio
@module(detached=True)
async def slow(x: int) -> int:
    await asyncio.sleep(0.3)
    return x
shout.run("a")  # the loop of sync code is there before the exporters
"""
    run(backend, PROGRAM + late + CONFIGURED + "slow.run(1)")
    assert [span.name for span in backend.spans] == ["slow"]
    assert "mai.outcome" not in backend.spans[0].attributes


@pytest.mark.slow
def test_a_forked_child_sends_its_own_spans(backend: Sink) -> None:
    fork = """
import os
from mai.telemetry import flush
shout.with_(name="parent").run("a")
pid = os.fork()
if pid == 0:
    shout.with_(name="child").run("b")
    flush()
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = python(PROGRAM + CONFIGURED + fork, env={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})
    assert done.returncode == 0, done.stderr
    assert sorted(span.name for span in backend.spans) == ["child", "parent"]
    assert len({span.trace_id for span in backend.spans}) == 2


@pytest.mark.slow
def test_metrics_are_sent_where_the_environment_names_an_exporter(backend: Sink) -> None:
    run(backend, PROGRAM + CONFIGURED + "assert rag.run('abc') == 3", OTEL_METRICS_EXPORTER="otlp")
    assert "gen_ai.workflow.duration" in backend.metrics
    assert set(backend.paths) == {"/v1/traces", "/v1/metrics"}


@pytest.mark.slow
def test_the_headers_of_the_environment_are_sent(backend: Sink) -> None:
    run(backend, PROGRAM + CONFIGURED + "shout.run('a')", OTEL_EXPORTER_OTLP_HEADERS="x-key=abc")
    assert backend.headers[0]["x-key"] == "abc"
