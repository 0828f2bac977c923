"""Calls in a run that records: what an engine is told of a step or a flow, and what it tells the kernel.

A run with ``records`` is asked by each call below it. A *step* runs only if there is no record of it; a *flow* always
runs, and what it calls is asked for in turn. `mai.durable` has the protocols and an engine.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from .frame import Frame
from .spec import Spec


class Suspended(BaseException):
    """Unloads a run that only waits: its coroutines end with this, and are begun anew some other time.

    It is neither a failure nor a cancel, so retries, fallbacks, ``on_error`` and a Race do not see it.
    """


class Recorded(NamedTuple):
    """What a run gives for a step: its value, its place in the order of completion, and whether it was on record."""

    value: Any
    seq: int
    replayed: bool


class StepCall(NamedTuple):
    """One call of a step or a flow, for the run that records it.

    Attributes:
        frame: The call.
        spec: What is known of its module: ``spec.what`` (name, kind, qualified name), ``flow``, ``version``, ``undo``,
            ``middleware``, ``signature``.
        bound: Its arguments, positional and by name, cast.
        run: Runs the body: of a step in one go, its value cast; of a flow its attempts, its ``forward``.
    """

    frame: Frame
    spec: Spec
    bound: tuple[tuple[Any, ...], dict[str, Any]]
    run: Callable[[], Awaitable[Any]]
