"""The public data types: what calls take, know and leave behind, and what plans say.

Size: Context, Payload and WorkflowPlan are data that users import from here; most of it is their docstrings.
"""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from types import MappingProxyType
from typing import Annotated, Any, Generic, Optional, TypeVar

from opentelemetry.trace import Span
from pydantic import AfterValidator, BaseModel, Field, JsonValue, PlainSerializer, computed_field

from .core.clock import clock
from .core.control import Reader, Stream
from .core.frame import Frame, current, restore, scoped, set_current
from .core.middleware import Call
from .core.retry import Retry
from .core.trace import TraceHandle
from .errors import ConfigError, CycleError, WiringError
from .values.casts import caster, ordered, sized, written
from .values.checked import PAUSE, SECONDS, UNSET, checked, near
from .values.events import (
    Asked,
    Chunk,
    Emitted,
    ErrorInfo,
    Event,
    Failed,
    Finished,
    Outcome,
    Progress,
    Question,
    Retrying,
    Started,
    TraceEvent,
    TraceLink,
)

__all__ = [
    "Asked", "Call", "Chunk", "Context", "Emitted", "ErrorInfo", "Event", "Failed", "Finished", "Outcome", "Payload",
    "PlanEdge", "PlanInput", "PlanNode", "PlanType", "Progress", "Question", "Reader", "Retry", "Retrying", "Started",
    "Stream", "TraceEvent", "TraceHandle", "TraceLink", "WorkflowPlan",
]  # fmt: skip

T = TypeVar("T")
V = TypeVar("V")


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
        default_factory=lambda: MappingProxyType({})
    )
    auth: Any = Field(default=None, repr=False, exclude=True)
    retry_count: int = 0
    step_id: str = ""
    span: Optional[Span] = Field(default=None, repr=False, exclude=True)  # noqa: UP045 (pydantic reads it at run time)
    run_id: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def idempotency_key(self) -> str | None:
        """The same for every attempt and replay of this step, for use towards the outside world."""
        if self.run_id is None:
            return None
        return blake2b(f"{self.run_id}\0{self.step_id}".encode(), digest_size=16).hexdigest()

    @classmethod
    def get(cls) -> "Context":
        """Return the Context of the current call (outside a call: of the scopes around)."""
        frame, made = current(), object.__new__(cls)
        env, run = frame.env, frame.run
        values = {
            "deadline": frame.deadline, "metadata": env.metadata, "auth": env.auth,
            "retry_count": -frame.n - 1 if frame.n < 0 else 0, "step_id": frame.path,
            "span": None if frame.handle is None else frame.span,
            "run_id": None if run is None else run.run_id or run.id_of(frame),
        }  # fmt: skip
        _put_values(made, values)  # as model_construct does, which looks at every field
        _put_names(made, _ALL_SET)
        _put_extra(made, None)
        _put_private(made, None)
        return made

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
        for key in (*cls.model_fields, *cls.model_computed_fields):
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


_put_values, _put_names, _put_extra, _put_private = (vars(BaseModel)[place].__set__ for place in BaseModel.__slots__)
_ALL_SET = {*Context.model_fields}  # shared: a frozen model never writes to it, and its copies have one of their own


@dataclass(frozen=True)
class Payload(Generic[T]):
    """A value with its declared type, written as JSON of that type and nothing else.

    NaN, the infinities and bytes keep their value. What would not come back equal fails when it is written.
    Never pickle, never a class that is looked up by a name found in data.

    Attributes:
        value: The value.
        tp: Its declared type.

    Example:
        >>> from mai import Payload
        >>> payload = Payload.of({"a": [1, 2]}, dict[str, list[int]])
        >>> payload.json(), payload.size
        (b'{"a":[1,2]}', 11)
        >>> Payload.load(dict[str, list[int]], payload.json()).value
        {'a': [1, 2]}
    """

    value: T
    tp: Any

    @classmethod
    def of(cls, value: V, tp: Any) -> "Payload[V]":
        """Wrap *value*, which must be of type *tp*; whether it can be written shows when it is."""
        return Payload(value, tp)

    @classmethod
    def load(cls, tp: Any, data: bytes | str) -> "Payload[Any]":
        """Read the JSON *data* as type *tp*.

        Raises:
            PayloadError: If *data* is not JSON of that type.
        """
        return cls(caster(tp).load(data), tp)

    def json(self) -> bytes:
        """Return the JSON, made once.

        Raises:
            PayloadError: If the value cannot be written as its type without loss.
        """
        return self._json

    @cached_property
    def _json(self) -> bytes:
        return caster(self.tp).dump(self.value)

    @property
    def size(self) -> int:
        """Length of the JSON [bytes]; of a str its own length in UTF-8, of bytes their number."""
        return sized(self.value, self.json)

    @property
    def digest(self) -> str:
        """blake2b of the JSON, 32 hexadecimal digits: one for values of one type whose JSON differs only in order.

        That is the order of the keys of objects and of the members of sets, which are sorted here; `json` keeps it.
        """
        plain = ordered(self.value, json.loads(self.json()))
        return blake2b(written(plain, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def schema_id(self) -> str:
        """blake2b of the type's JSON schema, 16 hexadecimal digits: changes when the type's shape does."""
        schema = json.dumps(caster(self.tp).json.json_schema(mode="serialization"))
        shape = json.dumps(json.loads(schema, object_hook=_without_text), sort_keys=True)
        return blake2b(shape.encode(), digest_size=8).hexdigest()


def _without_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a JSON schema without its docstring."""
    return {key: value for key, value in schema.items() if key != "description" or not isinstance(value, str)}


_TUNING = frozenset(
    "timeout total_timeout retry inline tags limit mai.parallel.limit mai.parallel.width mai.delay.seconds".split()
)


def decisive(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the *settings* in a plan that change what comes out, not only how fast, how often or how long."""
    return {key: value for key, value in settings.items() if key not in _TUNING}


class PlanType(BaseModel, frozen=True):
    """A type in a plan.

    Attributes:
        text: The type as a reader would write it.
        schema_id: Changes when the shape of its values does.
    """

    text: str
    schema_id: str


class PlanInput(BaseModel, frozen=True):
    """An input of the whole.

    Attributes:
        name: Its name; edges call it ``$name``.
        type: Its type.
        required: Whether it must be given.
        default: The JSON of what it is otherwise, None where that cannot be written.
    """

    name: str
    type: PlanType
    required: bool = True
    default: str | None = None


class PlanNode(BaseModel, frozen=True):
    """A step in a plan, or a cast on the way to one.

    Attributes:
        id: Its path in the plan.
        within: The id of the composite that it is part of, ``""`` at the top.
        name: Name of the step.
        kind: ``"module"``, ``"sequential"``, ``"graph"``, ...; ``"cast"``, ``"part"`` (an attribute or an item) and
            ``"pack"`` (a tuple, list or dict of several values) are steps that mai itself put in.
        module: Qualified name of the class or function.
        version: The declared version.
        settings: What was set, of a delay its seconds, of a Switch its cases, and the like.
        takes: The types of its parameters.
        gives: The type of its value.
    """

    id: str
    within: str = ""
    name: str
    kind: str
    module: str
    version: str | None = None
    settings: dict[str, JsonValue] = {}
    takes: dict[str, PlanType] = {}
    gives: PlanType


class PlanEdge(BaseModel, frozen=True):
    """What feeds one parameter of a step.

    Attributes:
        source: The id of the node whose value it is, ``$name`` for an input; None for a constant.
        target: The id of the node.
        parameter: The parameter of the node.
        constant: The JSON of the constant, None where there is none or it cannot be written.
    """

    source: str | None
    target: str
    parameter: str
    constant: str | None = None


class WorkflowPlan(BaseModel, frozen=True):
    """What a module will do, as data: frozen, and the same after a round trip through JSON.

    ``Module.plan`` makes one, ``Graph.from_plan`` wires a graph from one.

    Attributes:
        format: Name of this format.
        name: Name of the module.
        kind: Its kind.
        settings: What was set for the whole.
        inputs: Its inputs.
        nodes: Its steps, with the inner ones of composites and sub-graphs.
        edges: What feeds them.
        output: The id of the node, or input, whose value is the value of the whole.
        gives: The type of that value.

    Example:
        >>> from mai import WorkflowPlan, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> plan = (shout >> len).plan()
        >>> [node.id for node in plan.nodes]
        ['Sequential', 'Sequential/shout', 'Sequential/len']
        >>> WorkflowPlan.model_validate_json(plan.model_dump_json()) == plan
        True
    """

    format: str = "mai.plan/1"
    name: str
    kind: str
    settings: dict[str, JsonValue] = {}
    inputs: tuple[PlanInput, ...]
    nodes: tuple[PlanNode, ...]
    edges: tuple[PlanEdge, ...]
    output: str
    gives: PlanType

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with names, ids, versions, types, edges and settings; not with code.

        Settings that only say how fast, how often or how long do not count: timeouts, retries, limits, delays, tags.
        """
        facts = self.model_dump(mode="json")
        for one in (facts, *facts["nodes"]):
            one["settings"] = decisive(one["settings"])
        return blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def validate(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Check that ids are unique, edges join what there is in one graph, and no step waits for itself.

        Raises:
            WiringError: If a name is unknown, there twice, or in another graph, or a parameter is fed twice.
            CycleError: If there is a cycle; it names the steps.
        """
        ids = [*(f"${one.name}" for one in self.inputs), *(node.id for node in self.nodes)]
        known = set(ids)
        inner = {edge.source for edge in self.edges if edge.source and "/$" in edge.source}
        for what, found in (
            ("steps named", Counter(ids)),
            ("edges to", Counter(f"{edge.target}.{edge.parameter}" for edge in self.edges)),
        ):
            name, count = next(iter(found.most_common(1)), ("", 0))
            if count > 1:
                raise WiringError(f"plan {self.name!r}: there are {count} {what} {name!r}")
        ends = {edge.source for edge in self.edges} | {edge.target for edge in self.edges} | {self.output}
        ends |= {node.within or None for node in self.nodes}
        for unknown in sorted(end for end in ends - known - inner if end is not None):
            raise WiringError(f"plan {self.name!r}: there is no step {unknown!r}{near(unknown, known)}")
        within = {**{f"${one.name}": "" for one in self.inputs}, **{node.id: node.within for node in self.nodes}}
        for source, target in (*((edge.source, edge.target) for edge in self.edges), (self.output, "")):
            if source in within and within[source] != within.get(target, ""):
                raise WiringError(f"plan {self.name!r}: {source!r} and {target!r} are not in one graph")
        self._check_cycles()

    def _check_cycles(self) -> None:
        after: dict[str, list[str]] = {}
        for edge in self.edges:
            if edge.source is not None:
                after.setdefault(edge.source, []).append(edge.target)
        ended, path = set[str](), dict[str, Iterator[str]]()
        for first in after:
            walk = first if first not in ended else None
            while walk is not None:
                path.setdefault(walk, iter(after.get(walk, ())))
                step = next((one for one in path[walk] if one not in ended), None)
                if step in path:
                    around = [*path]
                    raise CycleError(path=(*around[around.index(step) :], step))
                if step is None:
                    path.popitem()
                    ended.add(walk)
                    step = next(reversed(path), None)
                walk = step

    def stages(self) -> list[list[str]]:
        """Return the ids of the steps at the top, in stages: each step as early as its inputs allow."""
        from mai.views.plan import stages  # noqa: PLC0415 (a view method)

        return stages(self)

    def critical_path(self) -> list[str]:
        """Return the ids of the steps on a longest way from an input to the output."""
        from mai.views.plan import critical_path  # noqa: PLC0415 (a view method)

        return critical_path(self)

    def chains(self) -> list[list[str]]:
        """Return the chains of steps that run as one: each is the only consumer of the one before it."""
        from mai.views.plan import chains  # noqa: PLC0415 (a view method)

        return chains(self)

    def diff(self, other: "WorkflowPlan") -> list[str]:
        """Return in words what is different in *other*; nothing where the fingerprints are equal."""
        from mai.views.plan import diff  # noqa: PLC0415 (a view method)

        return diff(self, other)

    def __str__(self) -> str:
        from mai.views.plan import text  # noqa: PLC0415 (a view method)

        return text(self)
