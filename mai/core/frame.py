"""The frame of a call.

One ContextVar holds the current frame: a slotted object that a call makes for itself. Everything that a step can
ask about its call (deadline, metadata, path, span) is found from there; the pydantic `mai.types.Context` is built only
when asked for. `Context.scope` and its like never change a frame: they put a `Scope` in front of it, which the calls
inside inherit.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from opentelemetry.trace import Span

from ..values.checked import UNSET

if TYPE_CHECKING:
    from .control import Control
    from .engine import Run
    from .gather import Slot
    from .trace import TraceHandle


class Env(NamedTuple):
    """What calls inherit and only scopes change."""

    metadata: Mapping[str, Any] = MappingProxyType({})
    auth: Any = None  # any value of the user's; never shown
    engine: Any = None  # an Engine; None: the default engine
    sink: Any = None  # the innermost `capture` around, if any
    slot: "Slot | None" = None  # the nearest enclosing place under a `limit`
    door: Any = None  # the blocked worker thread that serves nested jobs, if any
    bus: Any = None  # the Bus of the started run, if it is one
    answers: Any = None  # the function that answers questions, if any
    doubles: Mapping[Any, Any] = MappingProxyType({})  # what stands in for a module, and its colour
    tracer: Any = None  # what takes down the calls of a function that is traced into a graph


@dataclass(slots=True, init=False, eq=False, repr=False)
class Frame:
    """One call. Plain slots, all set by the call itself: there is no ``__init__`` on the hot path.

    ``quiet`` is how many calls may nest in it the quick way, 0 where something observes them; ``lost`` holds the
    handles of failed calls inside, for the case that the failure goes on to the top; ``y``, ``body`` and ``ctx`` are
    the suspended rest of its body. Once `finish` drives that, ``y`` is the task, how many cancels had come for it
    before, and the words of the first since that has any. ``out`` is DONE once the call has failed or its value was
    handed on. ``n`` says how often the caller had called it by then, from 1 (0: not counted); in an attempt it is minus
    the number of the attempt. To fill a slot costs a twentieth of a bare await, so a quick call has ``left``,
    ``since``, ``timer``, ``lost``, ``y``, ``body`` and ``ctx`` only where it comes to need them, ``span`` where it has
    a handle, and ``started`` where it has ``seen``.
    """

    mod: Any  # a Module, None in ROOT
    parent: "Frame"
    key: str
    n: int
    left: int  # how many calls may nest in it on one stack; in a quick call ``quiet`` says so
    env: Env
    run: "Run | None"
    deadline: float | None
    since: float | None  # when the call began [s], if it has a deadline
    timer: "Timer | None"  # for a deadline that no timer of a call around serves
    handle: "TraceHandle[Any] | None"
    span: Span | None
    seen: dict[str, int] | None
    lost: "deque[TraceHandle[Any]] | None"
    started: "list[Control] | None"  # the runs that were started in it, which it joins
    quiet: int
    out: Any  # the value of the call, until it is handed on
    y: Any
    body: Any
    ctx: Any
    light: ClassVar[int] = 0  # of a call; a Scope has its own
    above: ClassVar[Any] = None

    @property
    def path(self) -> str:
        """The lexical path: the step id."""
        parts: list[str] = []
        frame = self
        while frame.mod is not None:
            parts.append(frame.key if frame.n < 2 else f"{frame.key}~{frame.n}")
            frame = frame.parent
        parts.reverse()
        return "".join(parts).removeprefix("/")


class Scope(Frame):
    """Stands before a frame (``owner``) for the calls made inside a scope; `ROOT` is the one around everything.

    ``armed`` is the deadline that the owner's timer serves, so that a nearer one gets a timer of its own. ``light`` is
    how many calls may nest in it the quick way; their handles, if they have any, are put under ``above``: the scope
    itself, since captures are told of them.
    """

    __slots__ = ("above", "armed", "light", "owner")
    children: ClassVar[Any] = ()
    owner: Frame
    armed: float | None


class Timer:
    """The timer of one deadline; armed when its call first suspends: it then cancels the task once.

    ``before`` is the task's count of cancels when it is armed.
    """

    fired: bool = False

    def __init__(self, task: "asyncio.Task[Any]", before: int, seconds: float) -> None:
        self.task: asyncio.Task[Any] = task
        self.before: int = before
        self.handle: asyncio.TimerHandle = task.get_loop().call_later(max(0.0, seconds), self.fire)

    def fire(self) -> None:
        """Let the deadline have passed."""
        self.handle.cancel()
        self.fired = True
        self.task.cancel()


NEST = 63  # calls on one stack: each costs some Python frames and some of the C stack
PENDING: Any = object()  # in the place of a timer that is still to be armed: a call that never waits needs none
ROOT = Scope()
for _fact in "mod run deadline since timer handle span seen lost started armed above".split():
    setattr(ROOT, _fact, None)
ROOT.quiet, ROOT.left, ROOT.key, ROOT.n, ROOT.env, ROOT.parent, ROOT.owner = 0, NEST, "", 0, Env(), ROOT, ROOT
ROOT.light = NEST  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] (a slot, in a Scope)
_frame: ContextVar[Frame] = ContextVar("mai.frame", default=ROOT)
current: Callable[[], Frame] = _frame.get
set_current: Callable[[Frame], Token[Frame]] = _frame.set


def scoped(frame: Frame, *, deadline: Any = UNSET, armed: Any = UNSET, **env: Any) -> Scope:
    """Return a scope before *frame*, with changes of its Env and its deadline."""
    owner, serves = (frame.owner, frame.armed) if isinstance(frame, Scope) else (frame, frame.deadline)
    scope = Scope()
    scope.owner, scope.armed = owner, serves if armed is UNSET else armed
    scope.mod, scope.parent, scope.key, scope.n = owner.mod, owner.parent, owner.key, owner.n
    scope.run, scope.handle, scope.span = owner.run, owner.handle, None if owner.handle is None else owner.span
    scope.env = e = frame.env._replace(**env)
    scope.deadline = frame.deadline if deadline is UNSET else deadline
    whole = scope.deadline is not None or e.bus or e.doubles or e.tracer or (e.engine and e.engine.durable)
    scope.quiet, scope.light = 0, 0 if whole or (e.sink and e.sink.sizes) else owner.quiet or owner.light  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    scope.above = None if e.sink is None and owner.handle is None else scope  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return scope


def repeat(p: Frame, key: str) -> int:
    """Count one more call *key* that user code makes in the call *p*; return how many there are by now."""
    owner = p.owner if isinstance(p, Scope) else p
    if owner.seen is None:
        owner.seen, owner.started = {}, None
    owner.seen[key] = n = owner.seen.get(key, 0) + 1
    return n


def restore(token: Token[Frame]) -> bool:
    """Undo the `set` that gave *token*; in another context than it was given in, do nothing and say so."""
    with suppress(ValueError):  # closed by another task, say in an abandoned generator: its context is gone anyway
        _frame.reset(token)
        return True
    return False
