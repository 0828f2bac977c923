"""What an engine has to find out about a call: its input as it is shown, its deadline, its place."""

import asyncio
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any

from mai.core.clock import clock
from mai.core.drive import Worker
from mai.core.frame import PENDING, Frame, Timer
from mai.core.recorded import StepCall
from mai.core.spec import Spec
from mai.errors import ConfigError
from mai.values.casts import Caster, caster
from mai.values.signature import Signature

__all__ = [
    "Casts",
    "arm",
    "around",
    "check_middleware",
    "check_named",
    "expired",
    "has_deadline",
    "has_own_code",
    "recalled",
    "shown",
]

_SIMPLE: Mapping[Any, Callable[[Any], str]] = {
    str: encode_basestring, int: int.__repr__, bool: {True: "true", False: "false"}.__getitem__
}  # fmt: skip
_SHOWN = 4096  # bytes of an input that are kept to be shown
_COMPOSITES = frozenset(
    {"attempt", "blocking_delay", "conditional", "graph", "loop", "map", "non_blocking_delay", "parallel", "race",
     "sequential", "switch"}
)  # fmt: skip


def shown(call: StepCall) -> bytes | None:
    """Return the input as it is kept: canonical JSON, of a long one its beginning and a digest; None if it has none."""
    data = call.spec.signature.shown(*call.bound)
    return None if data is None else _shortened(data)


def _shortened(data: bytes) -> bytes:
    if len(data) <= _SHOWN:
        return data
    return data[:_SHOWN] + b"... blake2b:" + blake2b(data, digest_size=16).hexdigest().encode()


class Casts:
    """What is known of the signatures of a run's steps, looked up once for each: how a value is read and is shown."""

    def __init__(self) -> None:
        self._gives: dict[Signature, Caster] = {}
        self._places: dict[Signature, list[tuple[str, int, type | None]]] = {}

    def gives(self, call: StepCall) -> Caster:
        """Return the caster of what a step gives."""
        signature = call.spec.signature
        found = self._gives.get(signature)
        if found is None:
            found = self._gives[signature] = caster(signature.returns)
        return found

    def shown(self, call: StepCall) -> bytes | None:
        """Return what `shown` does; texts and numbers, of which most inputs are, are written here."""
        args, kwargs = call.bound
        data = self._simple(call.spec.signature, args) if not kwargs else None
        return shown(call) if data is None else _shortened(data)

    def _simple(self, signature: Signature, args: tuple[Any, ...]) -> bytes | None:
        """Return *args* as JSON if each is of exactly a simple type that its parameter has, else None."""
        places = self._places.get(signature)
        if places is None:
            places = self._places[signature] = sorted(
                (f"{encode_basestring(p.name)}:", i, caster(p.annotation).exact)
                for i, p in enumerate(signature.positional)
            )
        if len(args) != len(places):
            return None
        parts: list[str] = []
        for name, i, exact in places:
            value = args[i]
            write = _SIMPLE.get(exact) if type(value) is exact else None
            if write is None:
                return None
            try:
                parts.append(name + write(value))
            except ValueError:  # an int with more digits than Python writes
                return None
        return f"{{{','.join(parts)}}}".encode("utf-8", "backslashreplace")


def around(f: Frame) -> Iterator[Any]:
    """Yield the module of the call *f* and those of the calls around it."""
    while f.mod is not None:
        yield f.mod
        f = f.parent


def recalled(call: StepCall, value: Any) -> Any:
    """Return *value*, which was on record, and let the module hear of it: what a model cost still counts."""
    if (hear := getattr(call.frame.mod, "_mai_replayed", None)) is not None:
        hear(value)
    return value


def has_deadline(f: Frame) -> bool:
    """Say whether the call *f* has a deadline that no call around it serves."""
    return f.timer is PENDING or isinstance(f.timer, Timer)


def has_own_code(spec: Spec) -> bool:
    """Say whether a flow has code that may start tasks of its own, of which nobody knows."""
    return bool(spec.middleware) or spec.what[1] not in _COMPOSITES


def expired(f: Frame) -> bool:
    """Say whether a deadline of its own, and no cancel from outside, ends the call *f*."""
    timer = f.timer
    return isinstance(timer, Timer) and timer.fired and timer.task.cancelling() - 1 <= timer.before


def arm(f: Frame, left: float) -> None:
    """Let the deadline of the call *f* be in *left* seconds; infinite: only when it is told so."""
    later = 10.0**8 if left == math.inf else left
    f.deadline = clock.now() + later
    if isinstance(f.timer, Timer):
        f.timer.handle.cancel()
        f.timer.handle = f.timer.task.get_loop().call_later(later, f.timer.fire)


def check_middleware(path: str, call: StepCall) -> None:
    """Raise ConfigError if something around a flow does not say that it may be repeated."""
    for layer in call.spec.middleware:
        if not getattr(layer, "replay_safe", False):
            name = getattr(layer, "__qualname__", type(layer).__qualname__)
            hint = "it runs again in each replay; mark it @replay_safe if that does no harm, or put it on a step"
            raise ConfigError(f"{path}: middleware {name} is around a flow; {hint}")


def check_named(path: str, call: StepCall) -> None:
    """Warn of a call that user code makes a second time, in a task of its own: which one is the second may vary."""
    f = call.frame
    owner: Any = getattr(f.parent, "y", None)
    task = asyncio.current_task() if f.n > 1 and isinstance(owner, tuple) else None
    waited = f.env.door is not f.parent.env.door  # for by the thread of a plain forward, which calls `run` in a row
    if task is not None and owner[0] is not task and not (waited or isinstance(task, Worker)):
        what = "is made in a task of its own, and its number depends on which task comes first"
        text = f"{path}: this call {what}; give each its own name: .with_(name=...)"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
