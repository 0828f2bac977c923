"""What a call needs to know of a module, worked out from its settings and its signature when it is first called."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from opentelemetry.trace import SpanKind

from ..core.frame import Frame
from ..core.retry import Retry
from ..core.spec import Spec
from ..errors import ConfigError
from ..values import names
from ..values.casts import Caster, caster, size_of
from ..values.signature import Signature
from .checks import check_fallback, check_undo, name_of
from .settings import SETTINGS, Settings


def spec_of(module: Any) -> Spec:
    """Make the Spec of a configured copy.

    Raises:
        ConfigError: If ``forward`` names a type that does not exist.
        WiringError: If a fallback does not fit.
    """
    try:
        signature: Signature = module._mai_signature or module._mai_sign()
    except NameError as error:
        raise ConfigError(f"{name_of(module)}: forward names an unknown type: {error}") from error
    check_fallback(module)
    check_undo(module)
    settings: Settings = module._mai_settings
    name, kind, code = name_of(module), module._mai_kind, getattr(module, "__wrapped__", module.__class__)
    qualified = f"{getattr(code, '__module__', None) or 'builtins'}.{getattr(code, '__qualname__', name)}"
    function = f"{qualified}.forward" if code is module.__class__ else qualified
    composite = kind != "module"  # its children cast for it
    flow = composite if module._mai_flow is None else module._mai_flow
    cast_in, cast_out = caster(signature.takes), caster(object if composite else signature.returns)
    colour: str = signature.colour
    if colour in ("plain", "inline") and settings.inline is not None:
        colour = "inline" if settings.inline else "plain"
    inner = bool(settings.retry or settings.fallback or settings.middleware)
    plain = colour in ("coroutine", "plain") and not (inner or settings.params or settings.isolate or settings.detached)
    facts = {**({names.TAGS: settings.tags} if settings.tags else {}), **module._mai_facts}
    if settings.retry:
        facts[names.RETRY_MAX] = settings.retry.attempts
    static = {names.KIND: kind, names.MODULE: qualified, names.CODE_FUNCTION: function}
    operation: str = module._mai_operation
    known = {names.OPERATION: operation} if operation else {}
    known |= {names.WORKFLOW: name} if kind == "graph" else {}
    needed = [p for p in signature.params.values() if p.default is p.empty]
    alone = signature.first in signature.positional and needed in ([], [signature.first])  # one value is all it needs
    small = kind == "graph" and len(module._wiring.of) <= 10_000  # its plan is made soon enough for a span
    spec = Spec(
        what=(name, kind, qualified),
        title=module._mai_span or f"{operation} {name}".strip(),
        span_kind=module._mai_span_kind,
        key=f"/{name}",
        signature=signature,
        params=settings.params,
        settings=SETTINGS,
        tin=None if composite or cast_in.free else cast_in.exact or _Never,
        tout=None if cast_out.free else cast_out.exact or _Never,
        fit=_fitting(cast_in, signature.first.name),
        cast_out=cast_out,
        plain=plain,
        simple=plain and alone,
        direct=colour == "coroutine",
        colour=colour,
        timeout=settings.timeout,
        limit=min((t for t in (settings.timeout, settings.total_timeout) if t), default=None),
        deep=settings.isolate,
        flow=flow if settings.flow is None else settings.flow,
        version=settings.version,
        undo=settings.undo,
        detached=settings.detached,
        middleware=settings.middleware,
        fallback=settings.fallback,
        retry=settings.retry or Retry(1),
        facts=facts,
        attributes={**static, names.OPENINFERENCE_KIND: "CHAIN", **known, **facts},
        fingerprint=(lambda: module.plan().fingerprint) if small else None,
    )
    if not inner:
        return spec
    # Each attempt has a timeout and a copy of its own.
    return replace(spec, direct=False, limit=settings.total_timeout, deep=False, inner=_attempt(spec))


def _fitting(cast: Caster, name: str) -> Callable[[Any, Frame], Any]:
    """Return what casts the one value of a call, which goes to the parameter *name*."""

    def fit(value: Any, f: Frame) -> Any:
        h, size = f.handle, None
        if h is not None:
            size, h.input_size = h.input_size, None
        made = cast(value, name, f)
        if h is not None:
            h.input_size = size if made is value else size_of(made, cast.tp, None)
        return made

    return fit


def _attempt(spec: Spec) -> Spec:
    """Make the Spec of an attempt of the call of which *spec* is."""
    return replace(
        spec,
        what=("attempt", "attempt", spec.what[2]),
        title="attempt",
        span_kind=SpanKind.INTERNAL,
        fingerprint=None,
        attempts=spec.retry.attempts,
        limit=spec.timeout,
        detached=False,
        middleware=(),
        facts={},
        attributes={**{key: spec.attributes[key] for key in _OF_ATTEMPTS}, names.KIND: "attempt"},
    )


_OF_ATTEMPTS = (names.MODULE, names.CODE_FUNCTION, names.OPENINFERENCE_KIND)


class _Never:
    """No value has this class: for a type that takes more than one look at a value's class."""
