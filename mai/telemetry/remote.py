"""Traces that cross processes: what a request carries, and how a call goes on with it."""

from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import Token
from typing import Any

from opentelemetry import context as otel
from opentelemetry import propagate

from mai.core.frame import current
from mai.core.spans import around

__all__ = ["continue_trace", "inject"]


def inject(carrier: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Return what a request to another process has to carry so that its spans belong to this trace.

    These are the headers of OTEL_PROPAGATORS: by default ``traceparent``, ``tracestate`` and ``baggage`` of the W3C. In
    a step its own span is the parent, or what the user opened inside; outside of calls it is the current span. Without
    a tracer provider there is nothing to carry.

    Args:
        carrier: Headers to add them to.

    Example:
        >>> from mai.telemetry import inject
        >>> inject()
        {}
    """
    headers = dict[str, str]()
    propagate.inject(headers, context=around(current()))
    if carrier is not None:
        carrier.update(headers)
    return headers


@contextmanager
def continue_trace(carrier: Mapping[str, str]) -> Generator[None]:
    """Let the calls inside a ``with`` block belong to the trace of a request that came from elsewhere.

    Without such headers in *carrier* nothing changes. Inside of a call nothing changes for the calls below it: they
    belong to the trace of that call.

    Args:
        carrier: The headers of the request, such as `inject` made; names in any case.

    Example:
        >>> from mai import module
        >>> from mai.telemetry import continue_trace, inject
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> with continue_trace({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        ...     inject()["traceparent"][3:35], shout.run("hello")
        ('0af7651916cd43dd8448eb211c80319c', 'HELLO')
    """
    headers = {str(key).lower(): value for key, value in carrier.items()}
    before = otel.get_current()
    inside = propagate.extract(headers, context=before)
    token: Token[Any] = otel.attach(inside)
    del token  # restored by what was there: a token of another context could not be given back
    try:
        yield
    finally:
        if otel.get_current() is inside:
            otel.attach(before)
