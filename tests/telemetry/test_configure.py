"""configure: what it sets up from arguments and variables, what it leaves alone, and how it is undone."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.util._once import Once

from mai import LocalEngine, capture, graph, module
from mai.errors import ConfigError
from mai.telemetry import configure, flush, shutdown
from tests.support import python, refused, simulate


@module
async def shout(text: str) -> str:
    return text.upper()


@graph
async def loud(text: str) -> str:
    return await shout(await shout(text))


def names(found: InMemorySpanExporter) -> list[str]:
    return [span.name for span in found.get_finished_spans()]


def test_an_exporter_gets_the_spans_of_all_calls_until_the_shutdown() -> None:
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False)
    loud.run("a")
    assert names(found) == ["shout", "shout", "invoke_workflow loud"]
    shutdown()
    loud.run("a")
    assert len(names(found)) == 3


def test_twice_the_same_is_once() -> None:
    found, other = InMemorySpanExporter(), InMemorySpanExporter()
    one = configure(exporter=found, batch=False, set_global=False)
    assert configure(exporter=found, batch=False, set_global=False) is one
    assert configure(exporter=other, batch=False, set_global=False) is one
    shout.run("a")
    assert (names(found), names(other)) == (["shout"], ["shout"])
    shutdown()


def test_after_a_shutdown_it_can_be_configured_again() -> None:
    for _ in range(2):
        found = InMemorySpanExporter()
        configure(exporter=found, batch=False, set_global=False)
        shout.run("a")
        assert names(found) == ["shout"]
        shutdown()
    shutdown()  # of nothing


@pytest.mark.parametrize("url", ["localhost:4318", "", "ftp://x", "http://"])
def test_what_is_no_url_is_refused_before_anything_is_set_up(url: str) -> None:
    with refused(ConfigError, f"telemetry: endpoint={url!r} is no URL of an OTLP/HTTP backend; give http://host:port"):
        configure(url, set_global=False)
    with capture() as trace:
        shout.run("a")
    assert trace.runs[0].trace_id is None


def test_batches_are_flushed() -> None:
    found = InMemorySpanExporter()
    configure(exporter=found, set_global=False)
    shout.run("a")
    assert names(found) == []
    assert flush()
    assert names(found) == ["shout"]
    shutdown()


def test_all_spans_of_a_chain_have_the_resource_and_scope() -> None:
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False, service_name="shop")
    loud.run("a")
    assert {span.resource.attributes["service.name"] for span in found.get_finished_spans()} == {"shop"}
    assert {(s.instrumentation_scope.name, s.instrumentation_scope.version != "") for s in found.get_finished_spans()
            if s.instrumentation_scope} == {("mai", True)}  # fmt: skip
    shutdown()


def test_the_tree_of_each_run_is_printed_on_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    configure(console=True, set_global=False)

    async def on_another() -> None:
        async with LocalEngine():
            await loud("b")

    shout.run("a")
    simulate(on_another)
    printed = capsys.readouterr().err
    assert printed.count("✓ shout ") == 3
    assert printed.count("✓ loud ") == 1
    configure(console=False, set_global=False)
    shout.run("a")
    shutdown()
    assert capsys.readouterr().err == ""


def test_without_an_exporter_a_tree_alone_makes_no_spans() -> None:
    configure(console=False, set_global=False)
    with capture() as trace:
        shout.run("a")
    assert trace.runs[0].trace_id is not None  # there is a provider, to which exporters can be added
    shutdown()


def test_sizes_of_all_types_are_measured_if_that_is_asked_for(spans: InMemorySpanExporter) -> None:
    @module
    async def split(text: str) -> list[str]:
        return text.split()

    configure(sizes=True, set_global=False)
    (split >> len).run("a b")
    sizes = {s.name: (s.attributes or {}).get("mai.output.size") for s in spans.get_finished_spans()}
    assert sizes == {"split": 9, "len": 1, "Sequential": 1}
    with capture() as trace:
        split.run("a b")
    assert trace.runs[0].output_size == 9
    configure(sizes=False, set_global=False)
    split.run("a b")
    assert "mai.output.size" not in (spans.get_finished_spans()[-1].attributes or {})


# ---------------------------------------------------------------- sampling


def test_a_sampler_that_drops_all_leaves_nothing() -> None:
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False, sampler=ALWAYS_OFF)
    assert loud.run("a") == "A"
    shutdown()
    assert names(found) == []


def test_a_ratio_keeps_or_drops_whole_traces_with_the_spans_of_others_in_threads() -> None:
    found = InMemorySpanExporter()
    provider = configure(exporter=found, batch=False, set_global=False, sampler=TraceIdRatioBased(0.5))
    theirs = provider.get_tracer("theirs")

    @module
    def work(text: str) -> str:
        with theirs.start_as_current_span("theirs"):
            return text

    pipeline = shout >> (work & work)
    for _ in range(100):
        pipeline.run("a")
    shutdown()
    traces: dict[int, list[str]] = {}
    for span in found.get_finished_spans():
        traces.setdefault(span.context.trace_id, []).append(span.name)
    assert 20 < len(traces) < 80
    assert {tuple(sorted(one)) for one in traces.values()} == {
        ("Parallel", "Sequential", "shout", "theirs", "theirs", "work", "work")
    }


# ---------------------------------------------------------------- light spans or not


class Stamps(SpanProcessor):
    """Looks at spans that start, and writes into them."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        """Write."""
        span.set_attribute("stamp", 1)  # type: ignore[attr-defined]


def test_a_processor_that_looks_at_starting_spans_gets_real_ones() -> None:
    found = InMemorySpanExporter()
    provider = configure(exporter=found, batch=False, set_global=False)
    loud.run("a")
    kinds = {type(span).__name__ for span in found.get_finished_spans()}
    assert "CallSpan" in kinds
    found.clear()
    provider.add_span_processor(Stamps())  # type: ignore[attr-defined]
    loud.run("a")
    assert [(span.name, (span.attributes or {})["stamp"]) for span in found.get_finished_spans()] == [
        ("shout", 1), ("shout", 1), ("invoke_workflow loud", 1)
    ]  # fmt: skip
    shutdown()


def test_an_exporter_that_fails_ends_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(SpanExporter):
        def export(self, spans: object) -> None:  # type: ignore[override]
            raise OSError("disk full")

    configure(exporter=Fails(), batch=False, set_global=False)
    assert loud.run("a") == "A"
    shutdown()
    assert "disk full" in caplog.text


# ---------------------------------------------------------------- in processes of their own


HEAD = """
from mai import module
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
found = InMemorySpanExporter()
@module
async def shout(text: str) -> str:
    return text.upper()
"""


def ran(program: str, **env: str) -> str:
    done = python(HEAD + program, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_importing_it_loads_no_sdk_and_sets_nothing() -> None:
    program = """
import sys
for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk")]:
    del sys.modules[name]
import mai.telemetry
loaded = [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
print(loaded, type(trace.get_tracer_provider()).__name__)
"""
    assert ran(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") == "[] ProxyTracerProvider"


@pytest.mark.slow
def test_a_provider_of_somebody_else_is_added_to_and_never_replaced() -> None:
    program = """
from opentelemetry.sdk.trace import TracerProvider
theirs = TracerProvider()
trace.set_tracer_provider(theirs)
from mai.telemetry import configure, shutdown
shout.run("before")
assert configure() is theirs  # what the variables name is left to who set it
assert configure(exporter=found, batch=False) is theirs is trace.get_tracer_provider()
shout.run("a")
print([(type(span).__name__, span.name) for span in found.get_finished_spans()])
shutdown()
assert trace.get_tracer_provider() is theirs
"""
    assert ran(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") == "[('ReadableSpan', 'shout')]"


@pytest.mark.slow
def test_a_provider_that_takes_no_exporters_is_refused() -> None:
    program = """
from opentelemetry.trace import NoOpTracerProvider
trace.set_tracer_provider(NoOpTracerProvider())
from mai.telemetry import configure
try:
    configure(exporter=found)
except TypeError as error:
    print(error)
assert shout.run("a") == "A"
"""
    assert ran(program) == "telemetry: the NoOpTracerProvider that is set takes no exporters; configure it itself"


@pytest.mark.slow
def test_a_disabled_sdk_makes_no_spans() -> None:
    program = """
from mai.telemetry import configure, inject
configure(exporter=found, batch=False)
assert shout.run("a") == "A"
print(len(found.get_finished_spans()), inject())
"""
    assert ran(program, OTEL_SDK_DISABLED="true") == "0 {}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "[]"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, "[]"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, "['shout', 'shout', 'Sequential']"),
    ],
)
def test_the_sampler_of_the_environment_holds(env: dict[str, str], told: str) -> None:
    program = """
from mai.telemetry import configure
configure(exporter=found, batch=False)
(shout >> shout).run("a")
print([span.name for span in found.get_finished_spans()])
"""
    assert ran(program, **env) == told


@pytest.mark.slow
def test_limits_of_the_environment_hold_for_light_spans_too() -> None:
    program = """
from mai import Context
from mai.telemetry import configure
configure(exporter=found, batch=False)
@module
async def talks(text: str) -> str:
    span = Context.get().span
    for n in range(5):
        span.add_event(f"e{n}", {"text": text})
    span.set_attribute("long", text)
    return text
(talks >> shout).run("abcdef")
span = next(span for span in found.get_finished_spans() if span.name == "talks")
print([(event.name, event.attributes["text"]) for event in span.events], span.dropped_events, span.attributes["long"])
"""
    env = {"OTEL_SPAN_EVENT_COUNT_LIMIT": "2", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "3"}
    done = python(HEAD + "import logging\nlogging.disable()  # the SDK tells of each value" + program, env=env)
    assert done.stdout.strip() == "[('e3', 'abc'), ('e4', 'abc')] 3 abc"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "variable", "told"),
    [("", "", "prog"), ("", "env", "env"), ("service_name='arg'", "env", "arg")],
)
def test_an_argument_wins_over_a_variable_and_that_over_a_default(argument: str, variable: str, told: str) -> None:
    program = f"""
import sys
sys.argv = ["/a/prog.py"]
from mai.telemetry import configure
print(configure(console=False, {argument}).resource.attributes["service.name"])
"""
    assert ran(program, **({"OTEL_SERVICE_NAME": variable} if variable else {})) == told


@pytest.mark.slow
def test_exporters_of_the_environment_are_found_by_name() -> None:
    program = """
from mai.telemetry import configure
for name in ("nothing", "none", "console"):
    import os
    os.environ["OTEL_TRACES_EXPORTER"] = name
    try:
        configure(batch=False)
    except TypeError as error:
        print(error)
shout.run("a")
"""
    out = ran(program)
    assert out.startswith("OTEL_TRACES_EXPORTER names 'nothing', which no installed package offers; otlp is known")
    assert out.count('"name": "shout"') == 1


@pytest.mark.slow
def test_a_missing_exporter_package_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
from mai.telemetry import configure
try:
    configure("http://127.0.0.1:9")
except TypeError as error:
    print(error)
"""
    told = "sending spans over OTLP needs a package that is not installed: pip install 'mai-kernel[otlp]'"
    assert ran(program) == told


def test_readable_spans_are_what_processors_get(spans: InMemorySpanExporter) -> None:
    loud.run("a")
    assert all(isinstance(span, ReadableSpan) for span in spans.get_finished_spans())


# ---------------------------------------------------------------- the process's own providers, exchanged for a test


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which no provider is set, of spans or of metrics."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics, "_METER_PROVIDER_SET_ONCE", Once())
    yield
    shutdown()


def test_the_provider_becomes_that_of_the_process(fresh: None) -> None:
    found = InMemorySpanExporter()
    provider = configure(exporter=found, batch=False)
    assert trace.get_tracer_provider() is provider is configure(exporter=found, batch=False)
    with trace.get_tracer("mine").start_as_current_span("mine"):
        loud.run("a")
    assert names(found) == ["shout", "shout", "invoke_workflow loud", "mine"]
    shutdown()
    assert trace.get_tracer_provider() is provider
    again = InMemorySpanExporter()
    assert configure(exporter=again, batch=False) is provider
    shout.run("a")
    assert (len(names(found)), names(again)) == (4, ["shout"])


def test_a_provider_that_is_there_gets_an_exporter_and_loses_it(fresh: None) -> None:
    theirs = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(theirs)
    found = InMemorySpanExporter()
    assert configure(exporter=found, batch=False) is theirs
    loud.run("a")
    assert names(found) == ["shout", "shout", "invoke_workflow loud"]
    assert not any(type(span).__name__ == "CallSpan" for span in found.get_finished_spans())
    shutdown()
    shout.run("a")
    assert len(names(found)) == 3


def test_a_provider_without_exporters_is_refused_where_one_is_wanted(fresh: None) -> None:
    trace.set_tracer_provider(trace.NoOpTracerProvider())
    assert configure() is trace.get_tracer_provider()
    with pytest.raises(ConfigError, match="the NoOpTracerProvider that is set takes no exporters"):
        configure(exporter=InMemorySpanExporter())


def test_metrics_have_a_provider_where_the_environment_names_an_exporter(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(console=False, set_global=False)
    assert type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    configure(console=False, set_global=False)
    assert isinstance(metrics.get_meter_provider(), MeterProvider)
    loud.run("a")
    assert flush()


def test_durations_are_recorded_by_a_meter_provider_that_is_there(fresh: None) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    configure(console=False, set_global=False)
    loud.run("a")
    data: Any = reader.get_metrics_data()
    assert data.resource_metrics[0].scope_metrics[0].metrics[0].name == "gen_ai.workflow.duration"
    provider.shutdown()
