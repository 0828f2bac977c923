"""What a call needs to know of a module with its settings; made once for each configured copy."""

import copy
from collections.abc import Mapping
from typing import Any

from . import names
from .casts import Caster, caster, is_open
from .retry import Retry
from .settings import Settings
from .signature import Signature


class Spec:
    """The module's name, kind and types, and how its calls go.

    ``simple`` says that one positional value of exactly the class ``tin`` (None: any) needs no binding and no cast.
    ``inner`` is what an attempt needs to know, where an attempt is a call of its own below the call: with a retry, a
    fallback or middleware.
    """

    def __init__(
        self,
        what: tuple[str, str, str],
        function: str,
        settings: Settings,
        signature: Signature,
        facts: Mapping[str, Any],
    ) -> None:
        name, kind, module = what
        composite = kind != "module"  # its children cast for it
        self.what: tuple[str, str, str] = what
        self.signature: Signature = signature
        self.key: str = f"/{name}"
        self.params: Mapping[str, object] = settings.params
        self.timeout: float | None = settings.timeout
        self.limit: float | None = min((t for t in (settings.timeout, settings.total_timeout) if t), default=None)
        self.deep: bool = settings.isolate
        self.detached: bool = settings.detached
        self.takes: Any = signature.first.annotation
        self.cast_out: Caster = caster(object if composite else signature.returns)
        self.gives: Any = self.cast_out.tp
        self.tin: type | None = None if composite or is_open(self.takes) else caster(self.takes).exact or _Never
        self.tout: type | None = None if self.cast_out.free else self.cast_out.exact or _Never
        self.colour: str = signature.colour
        if self.colour in ("plain", "inline") and settings.inline is not None:
            self.colour = "inline" if settings.inline else "plain"
        self.attempts: int = 0  # in an attempt: how many there may be
        self.middleware: tuple[Any, ...] = settings.middleware
        self.fallback: tuple[Any, ...] = settings.fallback
        self.retry: Retry = settings.retry or Retry(1)
        needed = [p for p in signature.params.values() if p.default is p.empty]
        one = signature.first in signature.positional and needed in ([], [signature.first])
        plain = not (self.params or self.deep or self.detached or self.middleware or self.fallback or settings.retry)
        self.plain: bool = self.colour == "coroutine" and plain
        self.simple: bool = self.plain and one
        self.facts: dict[str, Any] = {**({names.TAGS: settings.tags} if settings.tags else {}), **facts}
        if settings.retry:
            self.facts[names.RETRY_MAX] = settings.retry.attempts
        static = {names.KIND: kind, names.MODULE: module, names.CODE_FUNCTION: function}
        self.attributes: dict[str, Any] = {**static, names.OPENINFERENCE_KIND: "CHAIN", **self.facts}
        self.direct: bool = self.colour == "coroutine"  # nothing stands between the body and forward
        layered = settings.retry or self.fallback or self.middleware
        self.inner: Spec | None = self._attempt(settings) if layered else None
        self.direct = self.direct and not layered

    def _attempt(self, settings: Settings) -> "Spec":
        inner = copy.copy(self)
        inner.what, inner.attempts = ("attempt", "attempt", self.what[2]), self.retry.attempts
        inner.limit, inner.middleware, inner.inner = settings.timeout, (), None
        inner.detached = False
        inner.facts, inner.attributes = {}, {**self.attributes, names.KIND: "attempt"}
        self.limit, self.deep = settings.total_timeout, False  # each attempt has a timeout and a copy of its own
        return inner


class _Never:
    """No value has this class: for a type that takes more than one look at a value's class."""
