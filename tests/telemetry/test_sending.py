"""Exporters: which the environment asks for, what stands for a URL, and how failures are told."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mai import module
from mai.errors import ConfigError
from mai.telemetry import configure, flush, shutdown
from mai.telemetry.meters import meter_provider
from mai.telemetry.missing import needs
from mai.telemetry.resource import resource
from mai.telemetry.sending import PAUSE, Watched, from_environment, otlp, traces_url
from mai.testing import FakeClock
from tests.support import refused


@module
async def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(key, raising=False)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://a:1", "http://a:1/v1/traces"),
        ("http://a:1/", "http://a:1/v1/traces"),
        ("https://a/otlp/", "https://a/otlp/v1/traces"),
        ("http://a/v1/traces", "http://a/v1/traces"),
        ("http://a/x?key=1", "http://a/x/v1/traces?key=1"),
    ],
)
def test_an_endpoint_is_a_base_or_the_url_itself(given: str, url: str) -> None:
    assert traces_url(given) == url


def names(exporters: Sequence[SpanExporter]) -> list[tuple[str, str]]:
    return [
        (type(one.inner).__name__, one.where) if isinstance(one, Watched) else (type(one).__name__, "")
        for one in exporters
    ]


@pytest.mark.parametrize(
    ("env", "made"),
    [
        ({}, [("OTLPSpanExporter", "http://localhost:4318")]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, [("OTLPSpanExporter", "http://a:1")]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a/b"}, [("OTLPSpanExporter", "http://a/b")]),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, [("ConsoleSpanExporter", ""), ("OTLPSpanExporter", "http://localhost:4318")]),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, [("OTLPSpanExporter", "otlp_proto_http")]),
    ],
)  # fmt: skip
def test_the_environment_names_the_exporters(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], made: list[tuple[str, str]]
) -> None:
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert names(from_environment()) == made


def test_an_exporter_that_nobody_offers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with refused(ConfigError, "OTEL_TRACES_EXPORTER names 'zipkin', which no installed package offers; otlp is known"):
        from_environment()


def test_grpc_needs_a_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match="pip install 'opentelemetry-exporter-otlp-proto-grpc'"):
        otlp(None)
    assert names([otlp("http://a:1")]) == [("OTLPSpanExporter", "http://a:1/v1/traces")]  # an endpoint is HTTP


def test_what_is_missing_is_named() -> None:
    with refused(ConfigError, "this needs a package that is not installed: pip install 'that'"), needs("that", "this"):
        raise ImportError


@pytest.mark.parametrize(
    ("argv", "env", "name"),
    [
        (["/a/shop.py"], {}, "shop"), (["-c"], {}, "mai"), ([""], {}, "mai"), ([], {}, "mai"),
        (["/a/__main__.py"], {}, "mai"), (["/a/shop.py"], {"OTEL_SERVICE_NAME": "told"}, "told"),
        (["x"], {"OTEL_RESOURCE_ATTRIBUTES": "service.name=attr,a=b"}, "attr"),
    ],
)  # fmt: skip
def test_the_service_is_called_after_the_program_if_it_is_not_told(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], env: dict[str, str], name: str
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert resource().attributes["service.name"] == name
    assert resource("given").attributes["service.name"] == "given"


# ---------------------------------------------------------------- failures


class Flaky(SpanExporter):
    """Fails as often as it is told to."""

    def __init__(self, *results: Any) -> None:
        self.results, self.tries = list(results), 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Log, as the OTLP exporter does, and fail or not."""
        self.tries += 1
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        if result is SpanExportResult.FAILURE:
            logging.getLogger(__name__).error("connection refused")
        return result  # type: ignore[no-any-return]


def test_failures_are_told_once_and_so_is_the_recovery(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    flaky = Flaky(bad, OSError("gone"), good, good)
    watched = Watched(flaky, "http://a")
    span = ReadableSpan("x")
    with FakeClock(100.0) as clock:
        assert watched.export([span]) is bad
        assert watched.export([span, span]) is bad  # not even tried
        assert (flaky.tries, watched.lost) == (1, 3)
        clock.advance(PAUSE + 1)
        assert watched.export([span]) is bad
        clock.advance(PAUSE + 1)
        assert watched.export([span]) is good
        assert watched.export([span]) is good
    assert [record.getMessage() for record in caplog.records] == [
        "spans do not reach http://a and are dropped until they do: connection refused",
        "spans reach http://a again; 4 were lost",
    ]
    watched.force_flush()
    watched.shutdown()


def test_what_others_log_is_not_hushed(caplog: pytest.LogCaptureFixture) -> None:
    Watched(Flaky(SpanExportResult.FAILURE), "http://a").export([])
    logging.getLogger(__name__).error("somebody else")
    assert "somebody else" in caplog.text
    assert "connection refused" not in [record.getMessage() for record in caplog.records]


def test_a_silent_failure_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.FAILURE

    Watched(Silent(), "there").export([ReadableSpan("x")])
    assert "spans do not reach there" in caplog.text


# ---------------------------------------------------------------- the environment through configure


def test_the_exporters_of_the_environment_are_set_up_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    one: Any = configure(batch=False, set_global=False, console=True)
    two: Any = configure(batch=False, set_global=False)
    assert names([processor.span_exporter for processor in two.processors.listed]) == [("ConsoleSpanExporter", "")]
    assert one is two
    shout.run("a")
    assert flush()
    shutdown()
    assert capsys.readouterr().err.startswith("✓ shout")


def test_a_destination_of_the_arguments_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    found = InMemorySpanExporter()
    provider: Any = configure(exporter=found, batch=False, set_global=False)
    assert [processor.span_exporter for processor in provider.processors.listed] == [found]
    shout.run("a")
    shutdown()
    assert len(found.get_finished_spans()) == 1


# ---------------------------------------------------------------- metrics


def test_the_exporters_of_metrics_are_known_by_name() -> None:
    provider = meter_provider("console,otlp")
    provider.shutdown()
    with refused(ConfigError, "OTEL_METRICS_EXPORTER names 'prometheus'; otlp, console and none are known"):
        meter_provider("prometheus")
    assert ConsoleSpanExporter is not ConsoleMetricExporter
