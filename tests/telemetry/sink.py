"""An OTLP/HTTP backend on loopback that keeps what it gets, read with OpenTelemetry's own protobuf classes."""

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_INFLATE: dict[str, Any] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@dataclass(frozen=True)
class Wired:
    """A span as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    kind: int
    status: int
    message: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str, dict[str, Any]]]
    scope: tuple[str, str]
    resource: dict[str, Any]


@dataclass
class Sink:
    """What came in so far."""

    url: str = ""
    status: int = 200  # what requests are answered with
    spans: list[Wired] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def named(self, name: str) -> Wired:
        """Return the only span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def parents(self) -> dict[str, str | None]:
        """Return the name of each span's parent; names must differ."""
        assert len({span.name for span in self.spans}) == len(self.spans), [span.name for span in self.spans]
        names = {span.span_id: span.name for span in self.spans}
        return {span.name: names[span.parent_id] if span.parent_id else None for span in self.spans}

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Read one request."""
        self.paths.append(path)
        self.headers.append(headers)
        data = _INFLATE.get(headers.get("content-encoding", ""), bytes)(body)
        if path.endswith("/v1/metrics"):
            request = ExportMetricsServiceRequest.FromString(data)
            scopes = [scope for one in request.resource_metrics for scope in one.scope_metrics]
            self.metrics += [metric.name for scope in scopes for metric in scope.metrics]
        elif self.status == 200:
            self.spans += read_spans(data)


def read_spans(data: bytes) -> Iterator[Wired]:
    """Yield the spans of an ``ExportTraceServiceRequest``."""
    for from_one in ExportTraceServiceRequest.FromString(data).resource_spans:
        resource = _facts(from_one.resource.attributes)
        for scope in from_one.scope_spans:
            for span in scope.spans:
                yield Wired(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() or None,
                    span.kind,
                    span.status.code,
                    span.status.message,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _facts(span.attributes),
                    [(event.name, _facts(event.attributes)) for event in span.events],
                    [(link.trace_id.hex(), link.span_id.hex(), _facts(link.attributes)) for link in span.links],
                    (scope.scope.name, scope.scope.version),
                    resource,
                )


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextmanager
def sink() -> Iterator[Sink]:
    """Listen on loopback for the time of the block."""
    found = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.take(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
            self.send_response(found.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
