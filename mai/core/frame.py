"""The frame of a call, and the Context that users see of it.

One ContextVar holds the current frame: a slotted object that a call makes for itself. Everything that a step can
ask about its call (deadline, metadata, path, span) is found from there; the pydantic `Context` is built only when
asked for. `Context.scope` and its like never change a frame: they put a `Scope` in front of it, which the calls
inside inherit.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional

from opentelemetry.trace import Span
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer

from ..errors import ConfigError
from .clock import clock
from .settings import PAUSE, SECONDS, UNSET, checked

if TYPE_CHECKING:
    from .control import Control
    from .engine import Run
    from .gather import Slot
    from .trace import TraceHandle


_NONE: Mapping[str, Any] = MappingProxyType({})


class Env(NamedTuple):
    """What calls inherit and only scopes change."""

    metadata: Mapping[str, Any] = _NONE
    auth: Any = None  # any value of the user's; never shown
    engine: Any = None  # an Engine; None: the default engine
    sink: Any = None  # the innermost `capture` around, if any
    slot: "Slot | None" = None  # the nearest enclosing place under a `limit`
    door: Any = None  # the blocked worker thread that serves nested jobs, if any
    bus: Any = None  # the Bus of the started run, if it is one
    answers: Any = None  # the function that answers questions, if any
    doubles: Mapping[Any, Any] = _NONE  # what stands in for a module, and its colour
    tracer: Any = None  # what takes down the calls of a function that is traced into a graph


@dataclass(slots=True, init=False, eq=False, repr=False)
class Frame:
    """One call. Plain slots, all set by the call itself: there is no ``__init__`` on the hot path.

    ``quiet`` says that nothing observes the call; ``lost`` holds the handles of failed calls inside, for the case that
    the failure goes on to the top; ``y``, ``body`` and ``ctx`` are the suspended rest of its body. ``n`` says how often
    the caller had called it by then, from 1 (0: not counted); in an attempt it is minus the number of the attempt.
    """

    mod: Any  # a Module, None in ROOT
    parent: "Frame"
    key: str
    n: int
    depth: int  # of calls around; every 64 of them, the body goes on in a task of its own
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
    quiet: bool
    out: Any  # the value of the call, until it is handed on
    y: Any
    body: Any
    ctx: Any

    @property
    def path(self) -> str:
        """The lexical path: the step id."""
        parts, frame = list[str](), self
        while frame.mod is not None:
            parts.append(f"{frame.key}~{frame.n}" if frame.n > 1 else frame.key)
            frame = frame.parent
        return "".join(reversed(parts)).removeprefix("/")


class Scope(Frame):
    """Stands before a frame (``owner``) for the calls made inside a scope.

    ``armed`` is the deadline that the owner's timer serves, so that a nearer one gets a timer of its own.
    """

    __slots__ = ("armed", "owner")
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
        self.handle: asyncio.TimerHandle = task.get_loop().call_later(max(0.0, seconds), self._fire)

    def _fire(self) -> None:
        self.fired = True
        self.task.cancel()


PENDING: Any = object()  # in the place of a timer that is still to be armed: a call that never waits needs none
ROOT = Frame()
ROOT.mod = ROOT.run = ROOT.deadline = ROOT.since = ROOT.timer = ROOT.handle = ROOT.span = ROOT.seen = ROOT.lost = None
ROOT.started = None
ROOT.quiet, ROOT.key, ROOT.n, ROOT.depth, ROOT.env, ROOT.parent = True, "", 0, 0, Env(), ROOT
_frame: ContextVar[Frame] = ContextVar("mai.frame", default=ROOT)
current: Callable[[], Frame] = _frame.get
set_current: Callable[[Frame], Token[Frame]] = _frame.set


def scoped(frame: Frame, *, deadline: Any = UNSET, armed: Any = UNSET, **env: Any) -> Scope:
    """Return a scope before *frame*, with changes of its Env and its deadline."""
    owner, serves = (frame.owner, frame.armed) if isinstance(frame, Scope) else (frame, frame.deadline)
    scope = Scope()
    scope.owner, scope.armed = owner, serves if armed is UNSET else armed
    scope.mod, scope.parent, scope.key, scope.n, scope.depth = owner.mod, owner.parent, owner.key, owner.n, owner.depth
    scope.run, scope.handle, scope.span = owner.run, owner.handle, owner.span
    scope.seen = scope.lost = scope.started = scope.timer = scope.since = None
    scope.env = frame.env._replace(**env)
    scope.deadline = frame.deadline if deadline is UNSET else deadline
    scope.quiet = False
    return scope


def repeat(p: Frame, key: str) -> int:
    """Count one more call *key* that user code makes in the call *p*; return how many there are by now."""
    owner = p.owner if isinstance(p, Scope) else p
    if owner.seen is None:
        owner.seen = {}
    n = owner.seen[key] = owner.seen.get(key, 0) + 1
    return n


def restore(token: Token[Frame]) -> bool:
    """Undo the `set` that gave *token*; in another context than it was given in, do nothing and say so."""
    with suppress(ValueError):  # closed by another task, say in an abandoned generator: its context is gone anyway
        _frame.reset(token)
        return True
    return False


def _monotonic(deadline: object) -> float | None:
    instant: float | None = None if deadline is None else checked("Context", "deadline", deadline, PAUSE)
    if instant is not None and instant > clock.now() + 10 * 365.25 * 86400.0:  # in ten years
        wrong = "looks like wall-clock time; deadline is monotonic seconds; use timeout="
        raise ConfigError(f"Context: deadline={deadline!r} {wrong}")
    return instant


class Context(BaseModel, frozen=True, arbitrary_types_allowed=True, revalidate_instances="never", defer_build=True):
    """What a step can know about its call: a frozen snapshot.

    ``Context.get()`` gives the current one anywhere, also in worker threads. ``Context.scope`` sets what the calls
    inside a block inherit. Nothing that a step sets is ever seen by its caller or its siblings.

    Attributes:
        deadline: When the call must end [s, monotonic clock]; None means never.
        metadata: What the user attached; read-only.
        auth: Any value, inherited by the calls inside and hidden: it is in no repr, span, log, note or journal.
        retry_count: Failed attempts of this call so far.
        step_id: Lexical path of the call, such as ``Sequential/Parallel[0]/Summarise~2``; ``""`` outside a call.
        span: The live OpenTelemetry span, or None.
        run_id: Identity of the top-level call; None outside a run.
        idempotency_key: The same for every attempt and replay of this step, for use towards the outside world.

    Example:
        >>> from mai import Context, module
        >>> @module
        ... async def greet(greeting: str) -> str:
        ...     context = Context.get()
        ...     return f"{greeting} {context.metadata['user']} from {context.step_id}"
        >>> with Context.scope(timeout=5, user="ann"):
        ...     greet.run("hello")
        'hello ann from greet'
    """

    deadline: Annotated[float | None, AfterValidator(_monotonic)] = None
    metadata: Annotated[Mapping[str, Any], AfterValidator(MappingProxyType), PlainSerializer(dict)] = Field(
        default_factory=lambda: _NONE
    )
    auth: Any = Field(default=None, repr=False, exclude=True)
    retry_count: int = 0
    step_id: str = ""
    span: Optional[Span] = Field(default=None, repr=False, exclude=True)  # noqa: UP045 (pydantic reads it at run time)
    run_id: str | None = None
    idempotency_key: str | None = None

    @classmethod
    def get(cls) -> "Context":
        """Return the Context of the current call (outside a call: of the scopes around)."""
        frame = current()
        env, path, run_id = frame.env, frame.path, None if frame.run is None else frame.run.run_id
        key = None if run_id is None else blake2b(f"{run_id}\0{path}".encode(), digest_size=16).hexdigest()
        values: Any = (frame.deadline, env.metadata, env.auth, max(0, -frame.n - 1), path, frame.span, run_id, key)
        return cls.model_construct(**dict(zip(cls.model_fields, values, strict=True)))

    @classmethod
    def set(
        cls, *, timeout: float | None = None, deadline: float | None = None, auth: Any = UNSET, **metadata: object
    ) -> Token[Frame]:
        """Change what the calls from here on inherit; ``Context.reset(token)`` undoes it.

        Args:
            timeout: Seconds from now; becomes a deadline, never later than the inherited one.
            deadline: Monotonic seconds (``time.monotonic()``), never later than the inherited one.
            auth: Any value; hidden everywhere.
            metadata: Entries to add.

        Raises:
            ConfigError: If a time is negative, not a number or a wall-clock time, or an entry is called like a fact
                that mai itself sets (``step_id``, ``run_id``, ...).
        """
        frame = current()
        for key in cls.model_fields:
            if key in metadata:
                raise ConfigError(f"Context: {key!r} is set by mai itself; choose another name for your metadata")
        env: dict[str, Any] = {} if auth is UNSET else {"auth": auth}
        if metadata:
            env["metadata"] = MappingProxyType({**frame.env.metadata, **metadata})
        limit = None if timeout is None else clock.now() + checked("Context", "timeout", timeout, SECONDS)
        times = [time for time in (limit, _monotonic(deadline), frame.deadline) if time is not None]
        return set_current(scoped(frame, deadline=min(times, default=None), **env))

    @staticmethod
    def reset(token: Token[Frame]) -> None:
        """Undo the `set` that gave *token*."""
        restore(token)

    @classmethod
    @contextmanager
    def scope(
        cls, *, timeout: float | None = None, deadline: float | None = None, auth: Any = UNSET, **metadata: object
    ) -> Generator[None]:
        """Do `set` for the calls inside a ``with`` block; same arguments and errors."""
        token = cls.set(timeout=timeout, deadline=deadline, auth=auth, **metadata)
        try:
            yield
        finally:
            restore(token)
