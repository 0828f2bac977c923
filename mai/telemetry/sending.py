"""Where spans go: the exporters that OpenTelemetry's variables name, that of an endpoint, and how failures are told."""

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult

from mai.core.clock import clock
from mai.errors import ConfigError
from mai.telemetry.missing import needs

__all__ = ["Watched", "from_environment", "names_an_exporter", "otlp", "traces_url"]

PAUSE = 5.0  # seconds for which nothing is tried after a failure, so that a dead backend delays neither flush nor exit
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
log: logging.Logger = logging.getLogger("mai.telemetry")


def names_an_exporter(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether the environment says where spans go."""
    return any(environ.get(key, "").strip() for key in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS))


def traces_url(endpoint: str) -> str:
    """Return the URL for spans of an OTLP/HTTP *endpoint*, which is the base URL or that URL itself.

    Raises:
        ConfigError: If it is no http or https URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"telemetry: endpoint={endpoint!r} is no URL of an OTLP/HTTP backend; give http://host:port")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith("/v1/traces") else f"{path}/v1/traces").geturl()


def otlp(endpoint: str | None, headers: Mapping[str, str] | None = None) -> SpanExporter:
    """Return the exporter to *endpoint* over OTLP/HTTP; None: to where the OTEL_EXPORTER_OTLP variables say.

    Raises:
        ConfigError: If its package is not installed, or *endpoint* is no URL.
    """
    url = None if endpoint is None else traces_url(endpoint)
    protocol = next((os.environ[key].strip() for key in _PROTOCOLS if os.environ.get(key)), "http/protobuf")
    given = None if headers is None else dict(headers)
    if endpoint is None and protocol == "grpc":
        with needs("opentelemetry-exporter-otlp-proto-grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"):
            exporter: Any = _load("otlp_proto_grpc")
        return Watched(exporter(headers=given), "the OTLP endpoint")
    with needs("mai-kernel[otlp]", "sending spans over OTLP"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 (the extra otlp)
            OTLPSpanExporter,
        )
    made = OTLPSpanExporter(endpoint=url, headers=given)
    where = url or next((os.environ[key] for key in _ENDPOINTS if os.environ.get(key)), "http://localhost:4318")
    return Watched(made, where)


def from_environment() -> list[SpanExporter]:
    """Return the exporters that OTEL_TRACES_EXPORTER names; OTLP where it names none.

    Raises:
        ConfigError: If it names one that is not known or not installed.
    """
    listed = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
    made: list[SpanExporter] = []
    for name in listed or ["otlp"]:
        make = _KNOWN.get(name)
        made += make() if make is not None else [Watched(_load(name)(), name)]
    return made


_KNOWN: dict[str, Callable[[], list[SpanExporter]]] = {
    "none": list,
    "otlp": lambda: [otlp(None)],
    "console": lambda: [ConsoleSpanExporter()],
}


def _load(name: str) -> Any:
    """Return the exporter that an installed package gives this name."""
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found and name == "otlp_proto_grpc":
        raise ImportError(name)
    if not found:
        raise ConfigError(f"OTEL_TRACES_EXPORTER names {name!r}, which no installed package offers; otlp is known")
    return found[0].load()


_quiet: ContextVar[list[str] | None] = ContextVar("mai.telemetry.quiet", default=None)


def _listen(record: logging.LogRecord) -> bool:
    """Keep what an exporter logs while `Watched` exports, instead of having it printed again and again."""
    said = _quiet.get()
    if said is not None:
        said.append(record.getMessage())
    return said is None


@contextmanager
def _hushed(name: str) -> Generator[list[str]]:
    logger = logging.getLogger(name)
    logger.addFilter(_listen)  # one that is there already is not added again
    said: list[str] = []
    token = _quiet.set(said)
    try:
        yield said
    finally:
        _quiet.reset(token)


class Watched(SpanExporter):
    """An exporter whose failures are told once, and its recovery too; nothing is tried for some seconds after one.

    Args:
        inner: The exporter.
        where: How the backend is called in the warning.
    """

    def __init__(self, inner: SpanExporter, where: str) -> None:
        self.inner: SpanExporter = inner
        self.where: str = where
        self.lost: int = 0
        self._resting = -1.0  # until then

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the *spans*."""
        if self.lost and clock.now() < self._resting:
            self.lost += len(spans)
            return SpanExportResult.FAILURE
        with _hushed(type(self.inner).__module__) as said:
            try:
                result = self.inner.export(spans)
            except Exception as error:  # noqa: BLE001 (whatever an exporter does, it is told and ends here)
                result = SpanExportResult.FAILURE
                said.append(f"{type(error).__name__}: {error}")
        if result is SpanExportResult.SUCCESS:
            if self.lost:
                log.warning("spans reach %s again; %d were lost", self.where, self.lost)
            self.lost = 0
            return result
        if not self.lost:
            why = said[-1] if said else "the exporter says no more"
            log.warning("spans do not reach %s and are dropped until they do: %s", self.where, why)
        self.lost += len(spans)
        self._resting = clock.now() + PAUSE
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self.inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter."""
        return self.inner.force_flush(timeout_millis)
