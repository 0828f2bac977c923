"""The end of a run, whichever engine carries it on: what it is called, and the steps that are taken back before it."""

import asyncio
from collections.abc import Callable
from typing import Any

from mai.core.call import begin
from mai.core.drive import outcome
from mai.core.frame import Scope, scoped
from mai.durable.records import Status
from mai.errors import DeadlineExceeded
from mai.types import Retry

__all__ = ["status_of", "take_back", "uncancel"]

_PATIENT = Retry(5)


def status_of(error: BaseException) -> Status:
    """Return the status of a run that ends with *error*."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "timeout" if isinstance(error, DeadlineExceeded) else "error"


def uncancel() -> bool:
    """Absorb the cancels of this task; say whether there were any."""
    task = asyncio.current_task()
    found = task is not None and task.cancelling() > 0
    while task is not None and task.cancelling():
        task.uncancel()
    return found


async def take_back(run: Any, scope: Scope, error: BaseException, cut: Callable[[], object] = lambda: None) -> None:
    """Take back the steps of *run*, which has failed with *error*, the last one first.

    What cannot be undone is told in a note of *error*. A step that a cancel meets is tried again, unless *cut* raises.
    """
    p = scoped(scope, deadline=None, armed=None)
    p.run = run
    for _, path, undo, value in sorted(run.undos, key=lambda one: one[0], reverse=True):
        module = undo if undo._mai_settings.retry else undo.with_(retry=_PATIENT)
        done = False
        while not done:
            done = True
            try:
                await outcome(begin(module, p, f"/{path}!undo", 0, (value,), {}))
            except Exception as failure:  # noqa: BLE001 (it is told with what the run failed of)
                error.add_note(f"mai: {path} could not be undone: {failure!r}")
            except asyncio.CancelledError:
                done = False
                uncancel()
                cut()
