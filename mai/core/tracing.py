"""Tracing a function: it runs once, alone, and the calls of modules in it are taken down instead of made."""

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any

from .call import current_run
from .frame import ROOT, Frame, set_current

Taken = Callable[[Frame, Any, tuple[Any, ...], dict[str, Any]], Any]


def run_traced(coroutine: Coroutine[Any, Any, Any], take: Taken) -> tuple[bool, Any]:
    """Run *coroutine* as far as it comes without waiting; say whether it ended, and with which value.

    A call of a module inside gives what ``take(frame, module, args, kwargs)`` gives; *frame* is the function's.
    """
    f = Frame()
    f.mod = f.deadline = f.since = f.timer = f.handle = f.span = f.seen = f.lost = None
    f.parent, f.key, f.n, f.depth, f.quiet, f.run = ROOT, "", 0, 0, False, current_run()
    f.env = ROOT.env._replace(tracer=partial(take, f))
    context = copy_context()
    context.run(set_current, f)
    try:
        context.run(coroutine.send, None)
    except StopIteration as end:
        return True, end.value
    coroutine.close()
    return False, None
