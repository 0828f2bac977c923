"""The body of a step, seen from its run: nothing in it is recorded, and it cannot wait durably."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from mai.core.engine import LocalEngine, Run
from mai.durable.records import Record
from mai.durable.transactions import Transaction
from mai.errors import AskError, ConfigError
from mai.values.events import Question

if TYPE_CHECKING:
    import asyncio

    from mai.durable.engine import DurableEngine

__all__ = ["Inside", "Turn"]


_Transact = Callable[[str, Transaction], Awaitable[Record]]


class Inside(Run):
    """What the calls inside of a step have for a run; *transact* records a transaction, where there is a journal."""

    durable = True

    def __init__(self, engine: "DurableEngine", run_id: str, transact: _Transact | None = None) -> None:
        self.engine: LocalEngine = engine
        self.run_id: str = run_id
        self._transact = transact

    async def value(self, path: str, make: Callable[[], Any]) -> Any:
        """Make the value; that of a transaction in there, where it is recorded with what it did."""
        if isinstance(make, Transaction) and self._transact is not None:
            record = await self._transact(path, make)
            return make.read(record.output)
        return make()

    async def sleep(self, path: str, seconds: float) -> None:
        """Refuse."""
        _refuse(path, "a delay")

    async def wait(self, path: str, signal: Question, timeout: float | None) -> bytes:
        """Refuse."""
        _refuse(path, "a question or signal")


def _refuse(path: str, what: str) -> NoReturn:
    hint = "the module that calls it must be a flow: a composite, a graph, or one with flow=True"
    raise ConfigError(f"{path}: {what} inside of a step is not durable; {hint}")


class Turn:
    """In the place of the future of a question: the answer goes through the journal, as every signal does."""

    def __init__(self, engine: Any, run_id: str, name: str) -> None:
        self._engine, self._run_id, self._name = engine, run_id, name

    def get_loop(self) -> "asyncio.AbstractEventLoop":
        """Return the loop of the engine.

        Raises:
            AskError: If nobody takes an answer any more.
        """
        if not self._engine.is_open:
            where = f"the block of its engine was left; answer({self._run_id!r}, ...) by an engine that is open"
            raise AskError(f"The question {self._name!r} waits in the journal: {where}")
        return self._engine.loop  # type: ignore[no-any-return]

    def done(self) -> bool:
        """Say that an answer is welcome."""
        return False

    def set_result(self, data: bytes) -> None:
        """Send the answer."""
        self._engine.send(self._run_id, self._name, data)
