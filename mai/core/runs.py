"""Starting a run: a call in a task of its own, controlled by its TraceHandle.

Every task is held by its engine until it ends. A run that was started inside a call is joined by that call; a detached
one by the engine, when its block is left.
"""

import asyncio
from contextvars import copy_context
from typing import Any

from .control import Control
from .drive import DONE, finish
from .engine import LocalEngine, new_run, portal
from .frame import Frame, Scope, scoped, set_current
from .threads import worker_loop
from .trace import TraceHandle, ended, open_handle


def start_run(begin: Any, m: Any, p: Frame, key: str, n: int, *call: Any, apart: bool = False) -> TraceHandle[Any]:
    """Start ``begin(m, p, key, n, *call, handle)`` in a task, and return its handle at once.

    It runs in the loop that runs in this thread, else in the one that waits for this worker thread, else in the
    process's portal loop. A run *apart* is detached.
    """
    waiting, engine = worker_loop(), (p.run or new_run(p.env)).engine
    loop = asyncio._get_running_loop() or (portal() if waiting is None or waiting.is_closed() else waiting)
    control, context, shell = Control(loop, p.env.bus, apart=apart), copy_context(), Frame()
    shell.key, shell.n, shell.parent, shell.span = key, n, p.owner if isinstance(p, Scope) else p, None
    h = open_handle(shell, p.handle, m._mai_spec, call[-1])
    h._control = control
    own: dict[str, Any] = {"deadline": None, "door": None} if apart else {}
    scope = scoped(p, armed=None, slot=None, bus=control, **own)

    async def main() -> None:
        set_current(scope)
        try:
            f = begin(m, scope, key, n, *call, h)
            if f.y is not DONE:
                await finish(f)
            control.value = f.out
        except BaseException as error:  # noqa: BLE001 (whoever asks the handle gets it)
            control.error = error

    def spawn() -> None:
        control.task = loop.create_task(main(), context=context)
        control.task.add_done_callback(lambda task: _ended(task, control, h, engine))

    _enlist(control, shell.parent)
    engine.runs.add(control)
    if asyncio._get_running_loop() is loop:
        spawn()
    else:
        loop.call_soon_threadsafe(spawn)
    return h


def _enlist(control: Control, owner: Frame) -> None:
    """Let those know of a run that will wait for it: the call that started it, or whoever waits for detached work."""
    if control.apart:
        for around in control.around:
            around.detached.add(control)
    elif owner.mod is not None:
        owner.started = [*(owner.started or ()), control]


def _ended(task: "asyncio.Task[None]", control: Control, h: TraceHandle[Any], engine: LocalEngine) -> None:
    """Close what was open for a run, and tell all that wait for its end."""
    if task.cancelled():  # before it began
        ended(h, "cancelled")
        control.error = asyncio.CancelledError()
    if control.error is not None:
        control.step_id = h.step_id
    control.task = None
    control.end()
    engine.runs.discard(control)
    engine.idle.ring()
    for around in control.around:
        around.detached.discard(control)
        around.over.ring()
