"""The SDK's meter provider, where OTEL_METRICS_EXPORTER names an exporter."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from mai.errors import ConfigError
from mai.telemetry.missing import needs

__all__ = ["meter_provider"]


def meter_provider(named: str) -> MeterProvider:
    """Return a meter provider with the exporters that *named* lists.

    Raises:
        ConfigError: If it lists one that is not known or not installed.
    """
    readers = [PeriodicExportingMetricReader(_exporter(name.strip())) for name in named.split(",")]
    return MeterProvider(metric_readers=readers, shutdown_on_exit=False)


def _exporter(name: str) -> Any:
    if name == "console":
        return ConsoleMetricExporter()
    if name != "otlp":
        raise ConfigError(f"OTEL_METRICS_EXPORTER names {name!r}; otlp, console and none are known")
    with needs("mai-kernel[otlp]", "sending metrics over OTLP"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 (the extra otlp)
            OTLPMetricExporter,
        )
    return OTLPMetricExporter()
