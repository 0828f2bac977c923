"""Exceptions as log records, where OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN asks for them."""

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.trace import Span

from mai.core.clock import clock
from mai.telemetry.stack import Stack

__all__ = ["log_exception"]


def log_exception(span: Span, error: BaseException) -> None:
    """Emit the log record of an exception that ended the call with this *span*."""
    get_logger("mai").emit(
        timestamp=int(clock.wall() * 1e9),
        context=trace.set_span_in_context(span),
        severity_number=SeverityNumber.ERROR,
        severity_text="ERROR",
        event_name="exception",
        attributes=Stack(error).facts(),
    )
