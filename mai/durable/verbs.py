"""The verbs of a run that records, and the engine around it: what another engine has to be.

The kernel calls these and nothing else. `DurableRun` answers them with a journal, an adapter through a cluster's SDK.
All paths are lexical: the same call has the same path in every replay.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from opentelemetry.context import Context
from pydantic import JsonValue

from mai.core.frame import Frame
from mai.core.gather import Work
from mai.core.recorded import Recorded, StepCall
from mai.types import Question, TraceHandle

__all__ = ["Engine", "Run", "Work"]


class Run(Protocol):
    """One run, or one attempt to carry it on. It is found in the frames of the calls below it.

    Attributes:
        engine: What owns worker threads, subscribers and started work: a `mai.LocalEngine`, or one of its subclasses.
        run_id: The identity of the run.
        inside: What a step's body has for a run: one that records nothing, and whose verbs raise a ConfigError.
        records: True.
        durable: True: somebody can always answer.
        replaying: Whether the recorded past is still being repeated.
    """

    engine: Any
    run_id: str
    inside: Any
    records: bool
    durable: bool
    replaying: bool

    def spanned(self, f: Frame, opening: Callable[[], Context | None]) -> Context | None:
        """Open the span of the flow *f*, and return the context in which its body is to run; None: as it is.

        It is called only where calls are traced, before the flow is a `step`. A flow that is only repeated should have
        no span.
        """
        ...

    async def step(self, path: str, call: StepCall) -> Recorded:
        """Return what the record at *path* says, or run the step, record what it gave, and return that.

        A failure is recorded, too, and raised. A cancel from outside is not. The body of a flow (``call.spec.flow``)
        runs each time; what is recorded of it is the beginning and the passing of its deadline.
        """
        ...

    async def sleep(self, path: str, seconds: float) -> None:
        """Wait until *seconds* after this was first asked for; at most *seconds*."""
        ...

    async def value(self, path: str, make: Callable[[], JsonValue]) -> JsonValue:
        """Return what *make* gave when this was first asked for."""
        ...

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Return the JSON of the signal ``signal.id``, once it is there.

        Raises:
            DeadlineExceeded: If there was none *timeout* seconds after this was first asked for.
        """
        ...

    async def gather(self, path: str, work: Work, *, limit: int | None = None) -> None:
        """Run the branches that *work* hands out, at most *limit* at once."""
        ...


class Engine(Protocol):
    """What durable runs are started and controlled by."""

    def start(self, module: Any, value: Any, /, *, run_id: str | None = None, delay: float = 0.0) -> TraceHandle[Any]:
        """Start a run, or attach to the one of that id."""
        ...

    async def result(self, run_id: str) -> Any:
        """Wait for the end of a run and return its value, or raise its error."""
        ...

    async def signal(self, run_id: str, name: str, value: object = None, *, id: str | None = None) -> bool:  # noqa: A002
        """Send a signal."""
        ...

    async def answer(self, run_id: str, value: object, *, question: str | None = None) -> None:
        """Answer a question."""
        ...

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of a run."""
        ...

    async def resume(self, run_id: str) -> bool:
        """Let a run that needs attention go on."""
        ...

    async def runs(self, status: Any = None, *, limit: int = 100, after: str | None = None) -> Sequence[Any]:
        """Return what is known of runs."""
        ...

    async def history(self, run_id: str) -> Sequence[Any]:
        """Return the records of a run."""
        ...
