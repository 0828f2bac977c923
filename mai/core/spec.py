"""What a call needs to know of a module with its settings; `mai.layers.compile` makes it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from opentelemetry.trace import SpanKind

from ..values.casts import Caster
from ..values.signature import Signature
from .retry import Retry


@dataclass(slots=True, eq=False)
class Spec:
    """The module's name, kind and types, and how its calls go."""

    what: tuple[str, str, str]  # name, kind, and qualified name of the class or function
    title: str  # of the span
    span_kind: SpanKind
    key: str  # in the path, if user code makes the call
    signature: Signature
    params: Mapping[str, object]  # defaults that `with_` set
    settings: Collection[str]  # the names of settings, which are no arguments of a call
    tin: type | None  # one value of exactly this class needs no `fit`; None: any value
    tout: type | None
    fit: Callable[[Any, Any], Any]  # casts the one value that the call of a frame is given, and measures it
    cast_out: Caster
    plain: bool  # nothing but the casts of its values matters
    simple: bool  # plain, and one value is all it needs
    direct: bool  # nothing stands between the body and forward
    colour: str
    timeout: float | None  # of each attempt
    limit: float | None  # of this call
    deep: bool
    flow: bool  # in a run that records: its body is repeated, and what it calls is recorded
    version: str | None
    undo: Any
    detached: bool | str  # "link": as a trace of its own
    middleware: tuple[Any, ...]
    fallback: tuple[Any, ...]
    retry: Retry
    facts: dict[str, Any]  # attributes of the handle
    attributes: dict[str, Any]  # those of the span
    fingerprint: Callable[[], str] | None  # of the plan of a graph, for its span
    attempts: int = 0  # in an attempt: how many there may be
    inner: Optional["Spec"] = None  # of an attempt, where it is a call of its own: with retry, fallback or middleware
