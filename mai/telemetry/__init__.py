"""OpenTelemetry for mai: where the spans of calls go, and how traces cross processes.

The kernel writes spans through OpenTelemetry's API alone. This room sets up the SDK, when it is asked to::

    configure()                          everything from the OTEL_* variables
    configure("http://127.0.0.1:6006")   any backend that takes OTLP over HTTP
    configure(console=True)              a tree of each run, on standard error

Importing it loads no SDK, reads no variable and sets nothing.
"""

from collections.abc import Mapping
from typing import Any

from mai.telemetry.configure import configure, flush, shutdown
from mai.telemetry.finish import on_finish
from mai.telemetry.remote import continue_trace, inject
from mai.types import TraceHandle

__all__ = ["configure", "continue_trace", "export", "flush", "inject", "on_finish", "shutdown"]


def export(handle: TraceHandle[Any], endpoint: str | None = None, *, headers: Mapping[str, str] | None = None) -> bool:
    """Send the tree of a handle as spans to a backend, and wait for that; it needs no `configure`.

    A call that had spans keeps their ids; of others the ids are made from the handle, so that the same handle sent
    twice is one trace.

    Args:
        handle: A handle, say of ``capture()`` or an error's ``__mai_trace__``.
        endpoint: Base URL of a backend that takes OTLP over HTTP; None: what the OTEL_EXPORTER_OTLP variables say.
        headers: Headers of the request.

    Returns:
        Whether the backend took it; if not, the logger ``mai.telemetry`` tells why.

    Raises:
        ConfigError: If *endpoint* is no URL, or the extra ``otlp`` is not installed.

    Example:
        >>> from mai import capture, module
        >>> from mai.telemetry import export
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> with capture() as trace:
        ...     shout.run("hello")
        'HELLO'
        >>> export(trace.runs[0], "localhost:6006")
        Traceback (most recent call last):
        ...
        mai.errors.ConfigError: telemetry: endpoint='localhost:6006' is no URL of an OTLP/HTTP backend; give http://host:port
    """
    from mai.telemetry.convert import send  # noqa: PLC0415 (it imports the SDK)

    return send(handle, endpoint, headers)
