"""The exceptions of mai: one tree, each error also the builtin that fits.

::

    MaiError
    ├── ConfigError        (TypeError)     a setting, an argument or a class definition that cannot be used
    ├── WiringError        (TypeError)     modules composed that cannot fit together
    ├── TracingError       (TypeError)     a ``@graph`` function that does with a value what only a run can do
    ├── CycleError         (ValueError)    a graph whose steps wait for each other in a circle
    ├── CastError          (ValueError)    a value that does not fit the declared type of a step
    ├── PayloadError       (ValueError)    a value that cannot be written to or read from JSON without loss
    ├── DeadlineExceeded   (TimeoutError)  a call that ran past its timeout or its inherited deadline
    ├── TooManyAbandoned   (RuntimeError)  so many threads hang after a timeout that no step gets another one
    ├── UnknownCase        (LookupError)   a Switch whose selector gave a key that has no case
    ├── LoopExhausted      (RuntimeError)  a Loop whose ``until`` was not met in ``max_iters`` turns
    ├── AskError           (RuntimeError)  a question that nobody can answer, an answer that no open question waits for
    ├── JournalError       (OSError)       the storage of durable runs cannot be read or written
    │   └── CorruptJournal (ValueError)    what is stored there was damaged
    ├── Fenced             (RuntimeError)  a write for a run that another worker has taken over, or that was given back
    ├── AlreadyRecorded    (RuntimeError)  a second record for one path of a run; the first stands
    ├── RunExists          (ValueError)    the id of a new run belongs to a run of another target or input
    ├── UnknownRun         (LookupError)   a run that the journal does not have
    ├── PartialFailure     (ExceptionGroup)  a graph that ran on after a failure; it has the results that there are
    ├── NeedsAttention     (RuntimeError)  a durable run that cannot go on by itself
    │   └── ReplayMismatch                 its code no longer does what its records say
    │       └── PlanChanged                and the plan of its module is another one
    ├── StepFailed         (RuntimeError)  a recorded failure whose type is not known here
    └── WouldDeadlock      (RuntimeError)  ``run`` where the event loop would wait for itself

A user's own exception is never wrapped in one of these: it keeps its type and identity and gains one note that names
the step. All of them can be pickled and keep their facts as attributes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

__all__ = [
    "AlreadyRecorded", "AskError", "CastError", "ConfigError", "CorruptJournal", "CycleError", "DeadlineExceeded",
    "Fenced", "JournalError", "LoopExhausted", "MaiError", "NeedsAttention", "PartialFailure", "PayloadError",
    "PlanChanged", "ReplayMismatch", "RunExists", "StepFailed", "TooManyAbandoned", "TracingError", "UnknownCase",
    "UnknownRun", "WiringError", "WouldDeadlock",
]  # fmt: skip


class MaiError(Exception):
    """Base of every error that mai raises by itself.

    Example:
        >>> from mai import ConfigError, MaiError
        >>> issubclass(ConfigError, MaiError) and issubclass(ConfigError, TypeError)
        True
    """


class ConfigError(MaiError, TypeError):
    """A setting, an argument or a class definition cannot be used; raised as early as it can be seen.

    Example:
        >>> from mai import ConfigError, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> try:
        ...     shout.with_(tiemout=2)
        ... except ConfigError as error:
        ...     print(error)
        shout has no setting 'tiemout'; did you mean 'timeout'?
    """


class WiringError(MaiError, TypeError):
    """Modules were composed that cannot fit together; raised when they are wired, never when they run.

    Example:
        >>> from mai import WiringError, module
        >>> @module
        ... async def count(text: str) -> int:
        ...     return len(text)
        >>> @module
        ... async def total(values: list[int]) -> int:
        ...     return sum(values)
        >>> try:
        ...     count >> total
        ... except WiringError as error:
        ...     print(str(error).splitlines()[0])
        cannot connect count -> total
    """


class AskError(MaiError, RuntimeError):
    """A step asks where nobody can answer, or an answer belongs to no single open question.

    Example:
        >>> from mai import AskError, ask, module
        >>> @module
        ... async def send(text: str) -> bool:
        ...     return await ask("Send this?", bool)
        >>> try:
        ...     send.run("hello")
        ... except AskError as error:
        ...     print(error)
        ask('Send this?') in 'send': nobody can answer; start() the run, or call it in 'with answers(fn):'
    """


class TracingError(MaiError, TypeError):
    """A ``@graph`` function decides, loops or computes on a value that exists only when the graph runs.

    The message names the composite to use instead.

    Example:
        >>> from mai import TracingError, graph, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> try:
        ...     @graph
        ...     async def brief(text: str) -> str:
        ...         return await shout(text) if text else ""
        ... except TracingError as error:
        ...     print(error)
        <Ref text: str> has no value while the graph is traced: use Conditional or Switch instead of if, and, or, not
    """


class CycleError(MaiError, ValueError):
    """The steps of a graph wait for each other in a circle.

    Attributes:
        path: The ids of the steps around the circle; the first is also the last.

    Example:
        >>> from mai import CycleError
        >>> print(CycleError(path=("a", "b", "a")))
        Graph has a cycle: a -> b -> a
    """

    def __init__(self, message: str = "", *, path: Sequence[str] = ()) -> None:
        super().__init__(message or f"Graph has a cycle: {' -> '.join(path)}")
        self.path: tuple[str, ...] = tuple(path)


class PartialFailure(MaiError, ExceptionGroup[Exception]):
    """Steps of a graph with ``on_error="collect"`` failed; all that did not depend on them has run.

    Attributes:
        errors: The error of each failed step, by its id.
        results: The values of those outputs that there are, by the id of the step that gave them.
        skipped: The ids of the steps that never began, since they needed the value of a failed one.

    Example:
        >>> from mai import Graph, PartialFailure, module
        >>> @module
        ... async def invert(n: int) -> float:
        ...     return 1 / n
        >>> g = Graph("both", on_error="collect")
        >>> a, b = g.input("a", int), g.input("b", int)
        >>> both = g.output((g.add(invert, a), g.add(invert, b)))
        >>> try:
        ...     both.run(0, 2)
        ... except PartialFailure as failure:
        ...     print(failure.results, failure.errors)
        {'invert~2': 0.5} {'invert': ZeroDivisionError('division by zero')}
    """

    def __new__(cls, message: str, errors: Sequence[Exception], *_: object) -> Self:
        """Make the group."""
        return super().__new__(cls, message, errors)

    def __init__(  # pyright: ignore[reportInconsistentConstructor]
        self,
        message: str,
        errors: Sequence[Exception],
        by_step: Mapping[str, Exception] | None = None,
        results: Mapping[str, object] | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        super().__init__(message, errors)
        self.errors: dict[str, Exception] = dict(by_step or {})
        self.results: dict[str, object] = dict(results or {})
        self.skipped: tuple[str, ...] = tuple(skipped)

    def derive(self, excs: Any, /) -> Any:
        """Return the same with other errors, as ``split`` and ``except*`` need it."""
        return PartialFailure(self.message, excs, self.errors, self.results, self.skipped)


class CastError(MaiError, ValueError):
    """A value does not fit the type that a step declares, and pydantic's lax mode cannot convert it.

    Attributes:
        step_id: Lexical path of the step, ``""`` where there was no call yet.
        where: What was cast: the name of a parameter, or ``"return"``.
        expected: The declared type, as text.
    """

    def __init__(self, message: str, *, step_id: str = "", where: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.where: str = where
        self.expected: str = expected


class PayloadError(MaiError, ValueError):
    """A value cannot be written to, or read from, the JSON of its declared type without loss.

    Attributes:
        expected: The declared type, as text.
    """

    def __init__(self, message: str, *, expected: str = "") -> None:
        super().__init__(message)
        self.expected = expected


class DeadlineExceeded(MaiError, TimeoutError):
    """A call ran past its ``timeout``, its ``total_timeout`` or the deadline that it inherited.

    It is a TimeoutError and therefore, as in Python, an OSError.

    Attributes:
        step_id: Lexical path of the step whose deadline passed.
        timeout: The timeout that the step itself had [s], None where the deadline was inherited.
    """

    def __init__(self, message: str, *, step_id: str = "", timeout: float | None = None) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.timeout: float | None = timeout


class TooManyAbandoned(MaiError, RuntimeError):
    """A plain step was refused a thread, because too many hang whose callers were freed by a timeout or a cancel.

    Such a thread cannot be stopped; it counts until its work returns. Give what hangs a timeout of its own, or raise
    ``max_abandoned`` of the `LocalEngine`.

    Attributes:
        count: Threads that hang abandoned.
        limit: The engine's ``max_abandoned``.
    """

    def __init__(self, message: str, *, count: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.count: int = count
        self.limit: int = limit


class UnknownCase(MaiError, LookupError):
    """The selector of a Switch gave a key that has no case, and there is no ``otherwise``.

    Attributes:
        step_id: Lexical path of the Switch.
        key: The key.
        cases: The keys that have a case.
    """

    def __init__(self, message: str, *, step_id: str = "", key: Any = None, cases: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.key: Any = key
        self.cases: tuple[Any, ...] = cases


class LoopExhausted(MaiError, RuntimeError):
    """The ``until`` of a Loop was still not met after ``max_iters`` turns.

    Attributes:
        step_id: Lexical path of the Loop.
        iterations: How many turns it made.
        state: What the last turn gave, so that nothing is lost.
    """

    def __init__(self, message: str, *, step_id: str = "", iterations: int = 0, state: Any = None) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.iterations: int = iterations
        self.state: Any = state


class WouldDeadlock(MaiError, RuntimeError):
    """``run`` was called in the thread of a running event loop, which would then wait for itself; use ``await``."""


class JournalError(MaiError, OSError):
    """The storage of durable runs cannot be read or written; what was to be written is not there.

    Attributes:
        path: The file.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path: str = path


class CorruptJournal(JournalError, ValueError):
    """What the journal has stored was damaged: a checksum is wrong, a part is missing, or it is no journal at all."""


class _RunError(MaiError):
    """An error that names a run."""

    def __init__(self, message: str, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id: str = run_id


class Fenced(_RunError, RuntimeError):
    """A write for a run came from a worker that no longer holds its lease, and was refused.

    Attributes:
        run_id: The run.
    """


class AlreadyRecorded(_RunError, RuntimeError):
    """A path of a run got a second record; the first one stands.

    Attributes:
        run_id: The run.
        record: The first record, a `mai.durable.Record`.
    """

    record: Any = None


class RunExists(_RunError, ValueError):
    """A run was to be started under the id of one that has another target or another input.

    Attributes:
        run_id: The run.
    """


class UnknownRun(_RunError, LookupError):
    """The journal has no run with this id.

    Attributes:
        run_id: The run.
    """


class NeedsAttention(_RunError, RuntimeError):
    """A durable run cannot go on by itself: look at it, mend the cause, then resume it.

    Attributes:
        run_id: The run.
    """


class ReplayMismatch(NeedsAttention):
    """The code of a durable run no longer does what its records say, so the run cannot go on by itself.

    It is the run that needs attention, not the flow: its code never gets to see this error.

    Attributes:
        run_id: The run.
        step_id: Path of the step at which they part.
        recorded: What the record says: the input as JSON, or what is not asked for any more.
        found: What the code says.
    """

    def __init__(
        self, message: str, *, run_id: str = "", step_id: str = "", recorded: str = "", found: str = ""
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.step_id: str = step_id
        self.recorded: str = recorded
        self.found: str = found


class PlanChanged(ReplayMismatch):
    """A run was begun with another plan of its module, and a recorded step has no place in the new one.

    Serve the old module as well (pin), start anew from a step (``engine.fork(run_id, at=...)``), or say which old path
    is which new one (``engine.serve(module, moved={...})``).

    Attributes:
        diff: The changes of the plan, in words.
    """

    diff: tuple[str, ...] = ()


class StepFailed(MaiError, RuntimeError):
    """A step of a durable run failed with an exception whose type cannot be had back from its record.

    It is raised in the first run and in every replay alike; in the first run the exception itself is its cause.

    Attributes:
        type: Name of the exception's class.
        module: Name of the module that the class is in.
    """

    def __init__(self, message: str, *, type: str = "", module: str = "") -> None:  # noqa: A002 (as in ErrorInfo)
        super().__init__(message)
        self.type: str = type
        self.module: str = module
