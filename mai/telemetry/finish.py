"""What looks at runs that have ended: subscribers, the tree on standard error, the metrics."""

import sys
from collections.abc import Callable
from typing import Any

from mai.core.spans import telemetry, watched
from mai.types import TraceHandle
from mai.values import names

__all__ = ["on_finish", "print_tree", "record_durations"]

_BOUNDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]  # OpenTelemetry's


def on_finish(fn: Callable[[TraceHandle[Any]], object]) -> Callable[[], None]:
    """Call *fn* with the handle of each top-level call that ends, in whatever way and on whatever engine.

    It is called in the thread of the call, before the call returns, so it should be quick. If it fails, the logger
    ``mai`` tells so, and nobody else. To have it for one engine only, use `LocalEngine.subscribe`.

    Args:
        fn: A plain function of a TraceHandle.

    Returns:
        A function that ends the subscription.

    Raises:
        ConfigError: If *fn* is not a plain function.

    Example:
        >>> from mai import module
        >>> from mai.telemetry import on_finish
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> stop = on_finish(lambda handle: print(handle.name, handle.outcome))
        >>> shout.run("hello")
        shout ok
        'HELLO'
        >>> stop()
    """
    return watched(telemetry.watchers, fn, "on_finish")


def print_tree(handle: TraceHandle[Any]) -> None:
    """Print the tree of a run to standard error, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{handle}\n")


def record_durations(meter: Any) -> Callable[[TraceHandle[Any]], None]:
    """Return a subscriber that records the duration of each top-level composite or graph."""
    histogram = meter.create_histogram(
        names.WORKFLOW_DURATION,
        unit="s",
        description="Duration of a workflow, from its call to its end.",
        explicit_bucket_boundaries_advisory=_BOUNDS,
    )

    def record(handle: TraceHandle[Any]) -> None:
        if handle.kind == "module" or handle.duration is None:
            return
        failed = {} if handle._error is None else {names.ERROR_TYPE: handle._error.type}
        histogram.record(handle.duration, {names.WORKFLOW: handle.name, **failed})

    return record
