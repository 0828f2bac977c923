"""How spans tell of exceptions: as events, or as log records if OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN asks for them."""

import os

from opentelemetry import trace
from opentelemetry.trace import Span

from mai.core.clock import clock
from mai.telemetry.stack import Stack

__all__ = ["describe"]


def describe(span: Span, error: BaseException) -> None:
    """Tell of the exception that ended the call with this *span*: as its event, as a log record, or both."""
    way = os.environ.get("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "")
    if way.startswith("logs"):
        _log(span, error)
    if way != "logs":
        span.record_exception(error)


def _log(span: Span, error: BaseException) -> None:
    from opentelemetry._logs import SeverityNumber, get_logger  # noqa: PLC0415 (wanted by few)

    get_logger("mai").emit(
        timestamp=int(clock.wall() * 1e9),
        context=trace.set_span_in_context(span),
        severity_number=SeverityNumber.ERROR,
        severity_text="ERROR",
        event_name="exception",
        attributes=Stack(error).facts(),
    )
