"""`configure`, and what undoes it: the one place that sets up the OpenTelemetry SDK for mai."""

import atexit
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

import mai
from mai.core import engine as engines
from mai.core.clock import clock
from mai.core.spans import telemetry
from mai.errors import ConfigError
from mai.telemetry import content
from mai.telemetry.finish import on_finish, print_tree, record_durations
from mai.telemetry.missing import needs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

__all__ = ["configure", "flush", "shutdown"]


class _Setup:
    """What `configure` has done so far in this process."""

    def __init__(self) -> None:
        self.provider: Any = None  # where our spans go; ours, or one that somebody else has set
        self.meters: Any = None  # a meter provider of ours
        self.processors: dict[object, SpanProcessor] = {}  # by what asked for them
        self.stops: dict[str, Callable[[], None]] = {}  # the subscriptions


_setup = _Setup()


def configure(
    endpoint: str | None = None,
    *,
    exporter: "SpanExporter | None" = None,
    console: bool | None = None,
    headers: Mapping[str, str] | None = None,
    service_name: str | None = None,
    sampler: "Sampler | None" = None,
    batch: bool = True,
    set_global: bool = True,
    sizes: bool | None = None,
    capture_content: bool | None = None,
) -> trace.TracerProvider:
    """Send the spans of all calls to a backend; without arguments, as the OTEL_* variables say.

    Arguments win over OTEL_* variables, these over the defaults of OpenTelemetry (OTLP to ``http://localhost:4318``).
    The variables are read by the SDK, so all of them hold. A tracer provider that is set already is used and never
    replaced: what the arguments name is added to it, and what the variables name is left to who set it. Calling it
    again adds what is new, and nothing twice. What is not sent yet when the interpreter ends is sent then.

    Args:
        endpoint: Base URL of a backend that takes OTLP over HTTP, such as ``"http://127.0.0.1:6006"``.
        exporter: An exporter of the SDK, instead of or beside *endpoint*.
        console: Print the tree of each finished run to standard error; None: as it is.
        headers: Headers of each request to *endpoint*.
        service_name: The resource's ``service.name``; None: what OTEL_SERVICE_NAME says, else the program's name.
        sampler: Which traces are recorded; None: what OTEL_TRACES_SAMPLER says, else all.
        batch: Send in the background; False: each span when it ends, which is for tests.
        set_global: Make the provider that of the process; False: mai's spans alone go there, which is for tests.
        sizes: Measure the exact JSON size of what goes in and out of each step; None: as it is.
        capture_content: Write what goes in and out of each step into its span, up to 32,768 characters each; None:
            what OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, else no.

    Returns:
        The tracer provider.

    Raises:
        ConfigError: If *endpoint* is no URL, a provider is set that takes no exporters, or the exporter needs a package
            that is not installed.

    Example:
        >>> from mai import module
        >>> from mai.telemetry import configure, shutdown
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> found = InMemorySpanExporter()
        >>> provider = configure(exporter=found, batch=False, set_global=False)
        >>> shout.run("hello")
        'HELLO'
        >>> [span.name for span in found.get_finished_spans()]
        ['shout']
        >>> shutdown()
    """
    with needs("opentelemetry-sdk", "telemetry.configure"):
        from mai.telemetry import sending  # noqa: PLC0415 (it imports the SDK)
    chosen: dict[object, Callable[[], list[SpanExporter]]] = {}
    if exporter is not None:
        chosen[id(exporter)] = lambda: [exporter]
    if endpoint is not None:
        chosen[sending.traces_url(endpoint)] = lambda: [sending.otlp(endpoint, headers)]
    theirs = _provider(service_name, sampler, set_global=set_global)
    others = (console, sizes, capture_content) != (None, None, None)
    if not (chosen or theirs) and (sending.names_an_exporter() or not others):
        chosen["OTEL_*"] = sending.from_environment
    _add(chosen, batch=batch)
    _look(console=console, sizes=sizes, capture_content=capture_content)
    _measure()
    atexit.unregister(_exit)
    atexit.register(_exit)
    return _setup.provider  # type: ignore[no-any-return]


def _provider(service_name: str | None, sampler: Any, *, set_global: bool) -> bool:
    """Find or make the provider, and let mai's spans come from it; say whether somebody else has set it."""
    from mai.telemetry.light import LightTracer  # noqa: PLC0415 (it imports the SDK)
    from mai.telemetry.provider import Provider  # noqa: PLC0415 (it imports the SDK)
    from mai.telemetry.resource import resource  # noqa: PLC0415 (it imports the SDK)

    known = trace.get_tracer_provider()
    nobody = isinstance(known, trace.ProxyTracerProvider)
    if _setup.provider is None or (set_global and _setup.provider is not known):
        if set_global and not nobody:
            _setup.provider = known
        else:
            _setup.provider = Provider(resource=resource(service_name), sampler=sampler, shutdown_on_exit=False)
    provider = _setup.provider
    if set_global and nobody:
        trace.set_tracer_provider(provider)
    tracer = telemetry.tracer = provider.get_tracer("mai", mai.__version__)
    if isinstance(tracer, LightTracer):
        telemetry.light = tracer.below if tracer.processors.all_light else None
    return not isinstance(provider, Provider)


def _add(chosen: "Mapping[object, Callable[[], list[SpanExporter]]]", *, batch: bool) -> None:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415 (the SDK)

    for key, make in chosen.items():
        if key in _setup.processors:
            continue
        if not hasattr(_setup.provider, "add_span_processor"):
            kind = type(_setup.provider).__qualname__
            raise ConfigError(f"telemetry: the {kind} that is set takes no exporters; configure it itself")
        for exporter in make():
            processor = (BatchSpanProcessor if batch else SimpleSpanProcessor)(exporter)
            _setup.provider.add_span_processor(processor)
            _setup.processors[key] = processor


def _look(*, console: bool | None, sizes: bool | None, capture_content: bool | None) -> None:
    """Switch on, or off, what is looked at besides spans."""
    if console is not None:
        _subscribe("console", (lambda: print_tree) if console else None)
    if sizes is not None:
        telemetry.sizes = sizes
    if capture_content or (capture_content is None and content.wanted()):
        telemetry.record = content.record
    elif capture_content is False:
        telemetry.record = None


def _subscribe(what: str, make: "Callable[[], Callable[[Any], object]] | None") -> None:
    if make is None:
        _setup.stops.pop(what, int)()
    elif what not in _setup.stops:
        _setup.stops[what] = on_finish(make())


def _measure() -> None:
    """Record durations where there is a meter provider, or the environment names an exporter of metrics."""
    named = os.environ.get("OTEL_METRICS_EXPORTER", "").strip()
    wanted = named not in ("", "none") or (named == "" and "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in os.environ)
    known = metrics.get_meter_provider()
    if type(known).__name__ == "_ProxyMeterProvider":
        if not wanted:
            return
        from mai.telemetry.meters import meter_provider  # noqa: PLC0415 (the SDK)

        known = _setup.meters = meter_provider(named or "otlp")
        metrics.set_meter_provider(known)
    meter = known.get_meter("mai", mai.__version__)
    _subscribe("metrics", lambda: record_durations(meter))


def flush(timeout: float = 10.0) -> bool:
    """Send now what has ended, and wait for it.

    Args:
        timeout: How long to wait at most [s]; a request that is on its way is waited for in any case.

    Returns:
        Whether everything was handed over in time; also True where there was nothing to do.

    Example:
        >>> from mai.telemetry import flush
        >>> flush()
        True
    """
    until = clock.now() + timeout
    told = [
        one.force_flush(max(1, int((until - clock.now()) * 1000)))
        for one in (_setup.provider, _setup.meters)
        if hasattr(one, "force_flush")
    ]
    return all(told)


def shutdown() -> None:
    """Send what is left and undo `configure`: exporters, console tree, metrics, content and sizes.

    A tracer provider of the process stays, as OpenTelemetry wants it; `configure` can be called again.

    Example:
        >>> from mai.telemetry import shutdown
        >>> shutdown()
    """
    for stop in _setup.stops.values():
        stop()
    own = hasattr(_setup.provider, "processors")
    for one in [_setup.provider] if own else list(_setup.processors.values()):
        one.shutdown()
    if _setup.meters is not None:
        _setup.meters.shutdown()
    telemetry.tracer = telemetry.light = telemetry.record = None
    telemetry.sizes = False
    _setup.__init__()  # type: ignore[misc]


def _exit() -> None:
    """Let detached work of sync code end, then send what is left."""
    if (loop := engines._process.portal) is not None:
        engines._flush(loop)
    shutdown()
