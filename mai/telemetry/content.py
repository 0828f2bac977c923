"""What goes in and out of steps, as attributes of their spans; only where that was asked for."""

import os
from typing import Any

from opentelemetry.trace import Span
from pydantic import ConfigDict, TypeAdapter

from mai.core.spec import Spec
from mai.values import names

__all__ = ["MOST", "record", "wanted"]

MOST = 32_768  # characters of one value; what is longer is cut
_SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_JSON: TypeAdapter[Any] = TypeAdapter(
    Any, config=ConfigDict(ser_json_bytes="base64", ser_json_inf_nan="constants", defer_build=True)
)


def wanted() -> bool:
    """Say whether the environment asks for content in spans."""
    return os.environ.get(_SWITCH, "").strip().lower() in ("true", "1", "span_only", "span_and_event")


def record(span: Span, spec: Spec, way: str, value: Any) -> None:
    """Write the input or the output of a call into its span.

    A str is written as it is, all else as JSON. A `SecretStr` stays hidden, and of a value that JSON does not know only
    its type is told. Several arguments are an object with their names.
    """
    if way == "input":
        args, kwargs = value
        named = {p.name: arg for p, arg in zip(spec.signature.positional, args, strict=False)} | kwargs
        value = args[0] if len(args) == 1 and not kwargs else named
    text, mime = (value, "text/plain") if isinstance(value, str) else (_json(value), "application/json")
    if text is not None:
        span.set_attributes({names.VALUE[way]: text[:MOST], names.MIME_TYPE[way]: mime})


def _json(value: Any) -> str | None:
    try:
        return _JSON.dump_json(value, fallback=lambda odd: f"<{type(odd).__qualname__}>").decode()
    except Exception:  # noqa: BLE001 (a value that refuses to be written must not fail the call)
        return None
