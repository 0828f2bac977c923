"""The public data types: what calls take, know and leave behind."""

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

from pydantic import BaseModel, JsonValue

from .core.control import Question, Reader, Stream
from .core.events import Asked, Chunk, Emitted, Event, Failed, Finished, Progress, Retrying, Started
from .core.frame import Context
from .core.middleware import Call
from .core.payload import Payload
from .core.retry import Retry
from .core.settings import Settings, near
from .core.trace import ErrorInfo, Outcome, TraceHandle
from .errors import CycleError, WiringError

__all__ = [
    "Asked", "Call", "Chunk", "Context", "Emitted", "ErrorInfo", "Event", "Failed", "Finished", "Outcome", "Payload",
    "PlanEdge", "PlanInput", "PlanNode", "PlanType", "Progress", "Question", "Reader", "Retry", "Retrying", "Settings",
    "Started", "Stream", "TraceHandle", "WorkflowPlan",
]  # fmt: skip


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
        settings: What was set, of a delay its seconds, and the like.
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
        """32 hexadecimal digits that change with names, ids, versions, types and edges; not with settings or code."""
        facts = self.model_dump(mode="json", exclude={"settings": True, "nodes": {"__all__": {"settings"}}})
        return blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def validate(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Check that ids are unique, edges lead from and to what there is, and no step waits for itself.

        Raises:
            WiringError: If a name is unknown, or there twice, or a parameter is fed twice.
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
        for unknown in sorted(end for end in ends - known - inner if end is not None):
            raise WiringError(f"plan {self.name!r}: there is no step {unknown!r}{near(unknown, known)}")
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
