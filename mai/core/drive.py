"""Driving a call, and how it ends.

The first step of a call is taken in a copied context that is then dropped. The body is a generator, not a coroutine,
because ``next(body, DONE)`` takes that step without creating an exception for the end. The context is never reset: when
the call ends it is simply gone, with whatever the step did to any contextvar. What a failure, a timeout or a cancel
leaves in the handle, the span and the exception is written here too.
"""

import asyncio
import types
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from ..errors import DeadlineExceeded
from ..values.events import ErrorInfo, Failed, Finished
from .clock import clock
from .events import post
from .frame import PENDING, Frame, Scope, Timer
from .recorded import Suspended
from .spans import close_span, telemetry
from .trace import MAX_CHILDREN, TraceHandle, ended, open_handle

DONE: Any = object()
Body = Generator[Any, Any, Any]
enclosed: Callable[[], Context] = copy_context  # what functions do to contextvars stays among those that it runs
_DECISIONS = frozenset({bool, str, int})  # what is decided, as a rule: hasattr is slow to say no


class Worker(asyncio.Task[Any]):
    """A task of mai's own: whoever waits for it hands it every cancel, also that of a deadline."""


def start(f: Frame, body: Body) -> Frame:
    """Take the first step of *body* in a copied context."""
    ctx = copy_context()
    y = f.y = ctx.run(next, body, DONE)
    if y is not DONE:
        f.body, f.ctx = body, ctx
    return f


@types.coroutine
def finish(f: Frame) -> Body:
    """Drive a started call from its first suspension to its end.

    Only here, where the call really waits, its deadline gets a timer. A timeout cancels once. A cancel that the step
    swallowed does not win: what it was for is raised when the step ends.
    """
    y, ctx, body = f.y, f.ctx, f.body
    f.body = f.ctx = None
    task: Any = asyncio.current_task()
    before, timer = task.cancelling(), None
    words: tuple[Any, ...] = ()
    f.y = task, before, words
    if f.deadline is not None and (f.timer is PENDING or not _is_served(f, task)):
        timer = f.timer = Timer(task, before, f.deadline - clock.now())
    try:
        while y is not DONE:
            if words and task.cancelling() == before:  # the cancel was absorbed inside
                f.y = task, before, (words := ())
            try:
                sent = yield y
            except BaseException as error:  # noqa: BLE001 (whatever it is, it is thrown into the step)
                if isinstance(error, CancelledError) and not words:  # else this one comes in a clean-up
                    f.y = task, before, (words := error.args)  # by which anyio knows its own cancels
                y = ctx.run(body.throw, error)
            else:
                y = ctx.run(next, body, DONE) if sent is None else ctx.run(body.send, sent)
    except StopIteration:
        pass
    finally:
        if timer is not None:
            timer.handle.cancel()
    if task.cancelling() > before:
        failed(f, swallowed := CancelledError(*f.y[2]))
        raise swallowed


def _is_served(f: Frame, task: "asyncio.Task[Any]") -> bool:
    """Whether a timer around cancels *task* at the inherited deadline: not where user code made the task."""
    around = DONE if getattr(f.parent, "out", None) is DONE else getattr(f.parent, "y", None)
    return isinstance(task, Worker) or not (around is DONE or (isinstance(around, tuple) and around[0] is not task))


async def outcome(f: Frame) -> Any:
    """Return the value of a call that was started, once it has one."""
    if f.y is not DONE:
        await finish(f)
    value, f.out = f.out, None  # whatever still knows the call does not keep its value
    return value


def apart(fn: Any, *args: Any) -> Frame:
    """Start ``fn(*args)``, awaited if need be, apart: what it does to a contextvar stays with it."""
    ctx = copy_context()
    out = ctx.run(fn, *args)
    if type(out) not in _DECISIONS and hasattr(type(out), "__await__"):  # pyright: ignore[reportUnknownArgumentType]
        return framed(out, ctx)
    f = Frame()
    f.y, f.out = DONE, out
    return f


def framed(awaitable: Any, ctx: Context | None = None) -> Frame:
    """Start *awaitable* in *ctx*, or in a copied context, as if it were a call."""
    f = Frame()
    f.deadline = f.timer = f.handle = None
    f.body, f.ctx = _kept(f, awaitable), ctx or copy_context()
    f.y = f.ctx.run(next, f.body, DONE)
    return f


@types.coroutine
def breathe() -> Body:
    """Let the loop run once: others have their turn, and a cancel arrives."""
    yield


@types.coroutine
def _kept(f: Frame, awaitable: Any) -> Body:
    f.out = yield from awaitable.__await__()


def closed(f: Frame, h: TraceHandle[Any]) -> None:
    """Tell the started run and the subscribers that the call *f* has ended, and how."""
    if f.n >= 0:  # no attempt
        facts: tuple[Any, ...] = (Finished, h.duration) if h.ok else (Failed, h.outcome, h._error)
        post(*facts, frame=f)
    if f.parent.mod is None and f.run is not None and (f.run.engine.watchers or telemetry.watchers):
        f.run.engine.tell(h)


def late(f: Frame) -> DeadlineExceeded:
    """Return the error of a call that ran past its deadline."""
    own = f.mod._mai_spec.limit
    why = "the deadline that it inherited" if own is None else f"its deadline (timeout={own:g} s, or one inherited)"
    return DeadlineExceeded(f"Step {f.path!r} ran past {why}", step_id=f.path, timeout=own)


def failed(f: Frame, error: BaseException) -> None:
    """Record that the call *f* ends with *error*, which the caller raises; or raise what it becomes.

    A cancel of our own timer becomes DeadlineExceeded, unless an outer cancel came with it. The innermost frame adds
    the note; each frame on the way up leaves its handle in ``__mai_trace__``.
    """
    f.out, timer, raised = DONE, getattr(f, "timer", None), error
    if isinstance(timer, Timer) and timer.fired and isinstance(error, CancelledError | Exception):
        timer.fired = False
        cancelled = error if isinstance(error, CancelledError) and error.args else CancelledError(*f.y[2])
        raised = late(f) if timer.task.uncancel() <= timer.before else cancelled
    if isinstance(raised, Exception):
        _explain(f, raised)
    elif isinstance(raised, Suspended):  # it goes on some other time
        if f.handle is not None:
            ended(f.handle, "suspended")
            close_span(f, f.handle, None, innermost=False)
        return
    elif f.handle is not None:  # cancelled, dropped, or the interpreter is going down: no failure of the step
        ended(f.handle, "abandoned" if isinstance(raised, GeneratorExit) else "cancelled")
        close_span(f, f.handle, raised, innermost=False)
    if f.handle is not None:
        closed(f, f.handle)
    if raised is not error:
        raise raised from error


def _explain(f: Frame, error: Exception) -> None:
    owner = f.parent.owner if isinstance(f.parent, Scope) else f.parent
    lost, since = getattr(f, "lost", None) or (), getattr(f, "since", None)
    innermost = getattr(error, "__mai_trace__", None) not in lost
    h = f.handle
    if h is None:
        h = open_handle(f, None, f.mod._mai_spec)
        h.children = list(lost)
        for child in lost:
            child.parent = h
    ended(h, "timeout" if isinstance(error, DeadlineExceeded) else "error")
    h._error = ErrorInfo(type(error).__qualname__, type(error).__module__, str(error))
    close_span(f, h, error, innermost=innermost)
    with suppress(Exception):  # an exception that is frozen, has slots, or is odd in another way
        if innermost:
            took = clock.now() - since if h.duration is None and since is not None else h.duration
            facts = [] if took is None else [f"after {took:.3f} s"]
            if f.mod._mai_spec.attempts > 1:
                facts.insert(0, f"attempt {-f.n}/{f.mod._mai_spec.attempts}")
            if notes := getattr(error, "__notes__", None):  # one object may be raised again and again
                notes[:] = [note for note in notes if not note.startswith("mai: in ")]
            error.add_note(f"mai: in {f.path}" + (f" ({', '.join(facts)})" if facts else ""))
        error.__mai_trace__ = h  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    if owner.mod is not None:
        owner.lost = known = getattr(owner, "lost", None) or deque[TraceHandle[Any]](maxlen=MAX_CHILDREN)
        known.append(h)
