"""TraceHandles that become spans after the fact: for calls that were not traced, or whose spans went elsewhere."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

import mai
from mai.core.clock import clock
from mai.core.spans import facts_of
from mai.telemetry.missing import needs
from mai.telemetry.resource import resource
from mai.telemetry.sending import otlp
from mai.types import TraceHandle, TraceLink
from mai.values import names

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
__all__ = ["as_otlp", "send", "spans_of"]


def as_otlp(handle: TraceHandle[Any]) -> bytes:
    """Return the tree of *handle* as an ``ExportTraceServiceRequest`` of OTLP, in protobuf."""
    with needs("mai-kernel[otlp]", "to_otlp()"):
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415 (an extra)

    data: bytes = encode_spans(list(spans_of(handle))).SerializeToString()
    return data


def send(handle: TraceHandle[Any], endpoint: str | None, headers: Mapping[str, str] | None) -> bool:
    """Send the tree of *handle*; say whether the backend took it."""
    exporter = otlp(endpoint, headers)
    try:
        return exporter.export(list(spans_of(handle))) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()


def spans_of(handle: TraceHandle[Any]) -> Iterator[ReadableSpan]:
    """Yield a span for each handle, parents first; those that had one keep its ids, others always get the same."""
    here, scope = resource(), InstrumentationScope("mai", mai.__version__)
    trace_id = handle._span[0] or _id(16, handle.started_at, handle.start_ns, handle.step_id)
    zero = int((handle.started_at or clock.wall()) * 1e9)
    ids: dict[int, SpanContext] = {}
    for number, one in enumerate(handle.walk()):
        span_id = one._span[1] or _id(8, trace_id, number, one.step_id)
        ids[id(one)] = context = SpanContext(trace_id, span_id, False, SAMPLED)  # noqa: FBT003
        began = _time(zero + ((one.start_ns or handle.start_ns or 0) - (handle.start_ns or 0)))
        over = began if one.end_ns is None or one.start_ns is None else _time(began + one.end_ns - one.start_ns)
        yield ReadableSpan(
            name=_text(_name(one)),
            context=context,
            parent=ids.get(id(one.parent)),
            resource=here,
            attributes=_attributes(one),
            events=[*_told(one, began), *_events(one, over)],
            links=[_link(link) for link in one.links],
            kind=SpanKind.CLIENT if one.attributes.get(names.OPERATION) in _REMOTE else SpanKind.INTERNAL,
            status=_status(one),
            start_time=began,
            end_time=over,
            instrumentation_scope=scope,
        )


def _id(size: int, *facts: object) -> int:
    return int.from_bytes(blake2b(repr(facts).encode(), digest_size=size).digest()) or 1


def _name(one: TraceHandle[Any]) -> str:
    """Return the name of a span, by which the conventions for generative AI know its operation."""
    operation = "invoke_workflow" if one.kind == "graph" else one.attributes.get(names.OPERATION, "")
    called = (one.attributes[key] for key in _CALLED if key in one.attributes)
    return f"{operation} {next(called, one.name)}" if operation else one.name


_LATEST = 2**64 - 1  # ns since 1970
_REMOTE = ("chat", "embeddings")
_CALLED = ("gen_ai.request.model", "gen_ai.tool.name", "gen_ai.agent.name")


def _attributes(one: TraceHandle[Any]) -> dict[str, Any]:
    workflow = {names.OPERATION: "invoke_workflow", names.WORKFLOW: one.name} if one.kind == "graph" else {}
    fixed = {names.KIND: one.kind, names.MODULE: one.module, names.OPENINFERENCE_KIND: "CHAIN"}
    return _facts({**fixed, **workflow, names.STEP_ID: one.step_id, **facts_of(one)})


def _facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {_text(key): _fact(value) for key, value in attributes.items()}


def _fact(value: Any) -> Any:
    if isinstance(value, tuple):
        many: tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return tuple(_fact(one) for one in many)
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Return *text* as UTF-8 has it: half of a pair of surrogates, which a stored trace may have, is written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _told(one: TraceHandle[Any], began: int) -> Iterator[Event]:
    for event in one.events:
        at = _time(began + event.at_ns - (one.start_ns or event.at_ns))
        yield Event(_text(event.name), _facts(event.attributes), at)


def _time(ns: int) -> int:
    """Return *ns* since 1970 as OTLP has it, which knows no time before that: a stored trace may have one."""
    return min(max(0, ns), _LATEST)


def _link(link: TraceLink) -> Link:
    context = SpanContext(int(link.trace_id, 16), int(link.span_id, 16), True, SAMPLED)  # noqa: FBT003 (is_remote)
    return Link(context, {names.LINK: _text(link.relation)})


def _status(one: TraceHandle[Any]) -> Status:
    error = one._error
    return (
        Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, _text(f"{error.type}: {error.message}"))
    )


def _events(one: TraceHandle[Any], at: int) -> Iterator[Event]:
    """Yield the exception at the innermost handle that it ended."""
    error = one._error
    if error is not None and not any(child._error == error for child in one.children):
        name = error.type if error.module == "builtins" else f"{error.module}.{error.type}"
        yield Event("exception", _facts({"exception.type": name, "exception.message": error.message}), at)
