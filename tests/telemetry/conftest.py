"""Each test of telemetry begins and ends with nothing set up."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mai.telemetry import configure, shutdown


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What mai's calls record, through a provider of the test's own."""
    found = InMemorySpanExporter()
    configure(exporter=found, batch=False, set_global=False)
    yield found
    shutdown()
