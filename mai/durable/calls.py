"""What an engine has to find out about a call: its input as it is shown, its deadline, its place."""

import asyncio
import math
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from mai.core.clock import clock
from mai.core.drive import Worker
from mai.core.frame import PENDING, Frame, Timer
from mai.core.recorded import StepCall
from mai.core.spec import Spec
from mai.errors import ConfigError

__all__ = ["arm", "around", "check_middleware", "check_named", "expired", "has_deadline", "has_own_code", "shown"]

_SHOWN = 4096  # bytes of an input that are kept to be shown
_COMPOSITES = frozenset(
    {"attempt", "blocking_delay", "conditional", "graph", "loop", "map", "non_blocking_delay", "parallel", "race",
     "sequential", "switch"}
)  # fmt: skip


def shown(call: StepCall) -> bytes | None:
    """Return the input as it is kept: canonical JSON, of a long one its beginning and a digest; None if it has none."""
    data = call.spec.signature.shown(*call.bound)
    if data is None or len(data) <= _SHOWN:
        return data
    return data[:_SHOWN] + b"... blake2b:" + blake2b(data, digest_size=16).hexdigest().encode()


def around(f: Frame) -> Iterator[Any]:
    """Yield the module of the call *f* and those of the calls around it."""
    while f.mod is not None:
        yield f.mod
        f = f.parent


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
    f, task = call.frame, asyncio.current_task()
    owner = getattr(f.parent, "y", None)
    if f.n > 1 and isinstance(owner, tuple) and owner[0] is not task and not isinstance(task, Worker):
        what = "is made in a task of its own, and its number depends on which task comes first"
        text = f"{path}: this call {what}; give each its own name: .with_(name=...)"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
