"""What is told of a run: its events, the questions that it asks, and how its calls ended; plain facts, all frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import PydanticInvalidForJsonSchema

from ..errors import PayloadError
from .casts import caster, show

Outcome = Literal[
    "running", "ok", "error", "timeout", "cancelled", "abandoned", "skipped", "suspended", "replayed", "cached"
]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What is kept of an exception: its class's name and module, and its message; never a traceback.

    Example:
        >>> from mai.types import ErrorInfo
        >>> ErrorInfo("KeyError", "builtins", "'x'")
        ErrorInfo(type='KeyError', module='builtins', message="'x'")
    """

    type: str
    module: str
    message: str


class TraceLink(NamedTuple):
    """A span that belongs to a call and is not around it.

    Attributes:
        relation: ``"spawned_by"``, ``"resumed_from"``, ``"replayed_from"`` or ``"joined"``.
        trace_id: Its OpenTelemetry trace id, 32 hexadecimal digits.
        span_id: Its OpenTelemetry span id, 16 hexadecimal digits.

    Example:
        >>> from mai.types import TraceLink
        >>> TraceLink("resumed_from", "0" * 31 + "1", "0" * 15 + "2").relation
        'resumed_from'
    """

    relation: str
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a step asks, and the type that the answer must have.

    Attributes:
        id: Identity of the question.
        prompt: The text for the person who answers.
        step_id: Path of the step that asks.
        type: The type of the answer.

    Example:
        >>> from mai import answers, ask, module
        >>> @module
        ... async def send(text: str) -> bool:
        ...     return await ask(f"Send {text!r}?", bool)
        >>> with answers(lambda question: len(question.prompt) < 20 and question.expected == "bool"):
        ...     send.run("hello")
        True
    """

    id: str
    prompt: str
    step_id: str
    type: Any = field(repr=False, compare=False)

    @property
    def expected(self) -> str:
        """The type of the answer, as text."""
        return show(self.type)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the answer."""
        try:
            return caster(self.type).json.json_schema()
        except PydanticInvalidForJsonSchema as error:
            raise PayloadError(f"Cannot ask for a {self.expected}: {error}", expected=self.expected) from error

    def data(self, value: object) -> bytes:
        """Return *value* as the JSON of the answer.

        Raises:
            CastError: If it does not fit.
        """
        return caster(self.type).dump(caster(self.type)(value, "answer"))


class TraceEvent(NamedTuple):
    """Something that happened in a call at one moment, as its `TraceHandle` keeps it.

    Attributes:
        at_ns: When [ns, monotonic].
        name: ``"mai.first_chunk"``, ``"mai.asked"`` or ``"mai.answered"``.
        attributes: Facts about it.

    Example:
        >>> from mai import capture, module
        >>> from collections.abc import Iterator
        >>> @module
        ... def words(text: str) -> Iterator[str]:
        ...     yield from text.split()
        >>> with capture() as trace:
        ...     words.run("to be")
        'tobe'
        >>> [event.name for event in trace.runs[0].events]
        ['mai.first_chunk']
    """

    at_ns: int
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a started run.

    Attributes:
        step_id: The path of the step that it happened in.
        attempt: The number of the attempt, from 1.
    """

    step_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A call began.

    Attributes:
        name: Name of the step.
        kind: ``"module"``, ``"sequential"``, ...; as in its TraceHandle.
    """

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chunk(Event):
    """A generator gave its next chunk.

    Attributes:
        value: The chunk.
        index: Its number within the attempt, from 0.
        nested: Whether the generator was called by another streaming step, which tells its own chunks.
    """

    value: object
    index: int
    nested: bool


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt failed and another will follow: drop the chunks of this one.

    Attributes:
        error: The text of the error that ended the attempt.
        delay: The pause before the next attempt [s].
    """

    error: str
    delay: float


@dataclass(frozen=True, slots=True)
class Emitted(Event):
    """A step told something of its own, with `emit`.

    Attributes:
        value: What it told.
    """

    value: object


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """So much of a `Map` is done.

    Attributes:
        done: How many items have ended.
        total: How many there are, None if the source does not tell.
    """

    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Asked(Event):
    """A step asks a question and waits for the answer.

    Attributes:
        question: The question, which ``handle.answer`` takes.
    """

    question: "Question"


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A call gave its value.

    Attributes:
        duration: How long it took [s].
    """

    duration: float | None


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A call ended without a value.

    Attributes:
        outcome: ``"error"``, ``"timeout"`` or ``"cancelled"``.
        error: What failed; None for a cancel.
    """

    outcome: "Outcome"
    error: "ErrorInfo | None"
