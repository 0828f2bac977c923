"""Runs on a Restate cluster, started and controlled from a process that serves none of them."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, overload

from opentelemetry import propagate

from mai.core.clock import clock
from mai.core.frame import current
from mai.core.spans import around
from mai.durable.code import modules_in
from mai.durable.driver import kept
from mai.durable.failures import Failures
from mai.durable.questions import chosen, over
from mai.durable.records import Record, Status
from mai.durable.restate.carry import digest
from mai.durable.restate.client import End, RestateClient
from mai.durable.restate.outside import SOON, data_of, send_signal
from mai.durable.restate.service import FACTS
from mai.durable.restate.tables import RemoteInfo, about_of, find_row, info_of, journal_of, list_runs, row_of
from mai.durable.starting import bound_value, chosen_id
from mai.errors import ConfigError, RunExists, StepFailed, UnknownRun
from mai.layers import Module
from mai.types import Payload
from mai.values.casts import caster, written
from mai.values.checked import PAUSE, checked

__all__ = ["RemoteInfo", "RemoteRun", "RestateRunner"]

T = TypeVar("T")


class RemoteRun(Generic[T]):
    """One run, as `RestateRunner.start` and `RestateRunner.attach` give it.

    Attributes:
        target: Name of its module.
        run_id: Its id.
    """

    def __init__(self, runner: "RestateRunner", target: str, run_id: str, module: "Module[Any, T] | None") -> None:
        self.target = target
        self.run_id = run_id
        self._runner, self._module = runner, module

    def __repr__(self) -> str:
        return f"<RemoteRun {self.run_id!r} of {self.target}>"

    async def result(self) -> T:
        """Wait for the end of the run and return its value, or raise its error.

        A cancel of this wait does not cancel the run. Without the module, the value is what its JSON says.

        Raises:
            UnknownRun: If there is no such run.
            NeedsAttention: If its code no longer does what its records say.
            JournalError: If no server answers.
        """
        runner = self._runner
        return await runner._value(self, await runner._client.attach(runner._service(self.target), self.run_id))

    async def info(self) -> RemoteInfo:
        """Return what is known of the run.

        Raises:
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        return info_of(await self._row(), self._runner._prefix)

    async def history(self) -> Sequence[Record]:
        """Return what the journal of the run has, in the order of completion.

        Raises:
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        return (await journal_of(self._runner._client, (await self._row())["id"])).records

    async def signal(self, name: str, value: object = None, *, id: str | None = None) -> bool:  # noqa: A002
        """Send a signal, whether the run waits for it already or not; ``wait_for(name)`` takes it.

        Args:
            name: Name of the signal.
            value: What it carries: a value that pydantic can write, or a Payload.
            id: By which a second sending of the same signal is known, and not stored again.

        Returns:
            False if the run has ended.

        Raises:
            PayloadError: If *value* cannot be written as JSON.
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        return await self._send(name, data_of(value), key=id)

    async def _send(self, name: str, data: bytes, *, key: str | None = None, answers: bool = False) -> bool:
        if await self._output() is not None:
            return False
        client, service = self._runner._client, self._runner._service(self.target)
        return await send_signal(client, service, self.run_id, name, data, key=key, answers=answers)

    async def questions(self) -> Mapping[str, str]:
        """Return the prompts of the questions that wait for an answer, by their ids.

        Raises:
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        if await self._output() is not None:
            return {}
        asked: Mapping[str, Any] = (await self._about()).get("questions") or {}
        return {key: one["prompt"] for key, one in asked.items()}

    async def answer(self, value: object, *, question: str | None = None) -> None:
        """Answer a question of the run.

        Args:
            value: The answer. It is checked here if a worker that knows the question says so in time, else by the step
                that asks, which puts one that does not fit aside.
            question: The id of the question: the path of its ``ask``. Needed where several are open.

        Raises:
            AskError: If no question is open, several are and *question* is not given, or the run has ended.
            CastError: If *value* is known not to fit.
            PayloadError: If *value* cannot be written as JSON.
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        if await self._output() is not None:
            raise over(value, self.run_id)
        name = chosen(value, question, await self.questions(), self.run_id)
        if not await self._send(name, data_of(value), answers=True):
            raise over(value, self.run_id)

    async def cancel(self) -> bool:
        """Ask for the end of the run; False: it has ended already.

        Raises:
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        return await self._runner._client.cancel((await self._row())["id"])

    async def resume(self) -> bool:
        """Let a run go on that the server has paused, or is about to try again; False: it has done neither.

        Raises:
            UnknownRun: If there is no such run.
            JournalError: If no server answers.
        """
        return await self._runner._client.resume((await self._row())["id"])

    async def _row(self) -> Mapping[str, Any]:
        """Return what the server's tables have of it."""
        row = await row_of(self._runner._client, self._runner._service(self.target), self.run_id)
        if row is None:
            raise UnknownRun(f"There is no run {self.run_id!r} of {self.target!r}", run_id=self.run_id)
        return row

    async def _about(self) -> Mapping[str, Any]:
        """Return what the run has said of itself; nothing before it began.

        The run is asked itself, which needs the ingress only; where no worker serves it, the tables say it.
        """
        client, service = self._runner._client, self._runner._service(self.target)
        try:
            async with asyncio.timeout(SOON):
                return json.loads(await client.tell(service, self.run_id, "about", b"{}", once=False)) or {}
        except OSError:
            return about_of(await row_of(client, service, self.run_id))  # type: ignore[no-any-return]

    async def _output(self) -> End | None:
        return await self._runner._client.output(self._runner._service(self.target), self.run_id)


class RestateRunner:
    """Starts runs on a Restate cluster, and tells them what comes from outside; workers elsewhere carry them on.

    Args:
        ingress: The address of the server's ingress, or one for each node of a cluster: the next one is asked where one
            does not answer.
        admin: The address of its admin API, or one for each node.
        prefix: As of `RestateEngine`: what the names of services begin with.
        errors: Exception classes that results may raise beside those that the modules can name.
        headers: What each request has, such as the key for a proxy in front of the server.
        patience: How long it goes on asking while no node answers [s].

    Raises:
        ConfigError: If an argument cannot be used, or the extra ``restate`` is not installed.

    Example:
        >>> from mai import module
        >>> from mai.durable.restate import RestateRunner
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> async def order(n: int) -> int:
        ...     async with RestateRunner("http://127.0.0.1:8080") as runner:
        ...         run = await runner.start(double, n, run_id="order-42")
        ...         return await run.result()
    """

    def __init__(
        self,
        ingress: str | Sequence[str] = "http://127.0.0.1:8080",
        *,
        admin: str | Sequence[str] = "http://127.0.0.1:9070",
        prefix: str = "",
        errors: Iterable[type[Exception]] = (),
        headers: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> None:
        checked("RestateRunner", "patience", patience, PAUSE)
        self._client = RestateClient(ingress, admin, headers=headers, patience=patience)
        self._failures = Failures(errors)
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @overload
    async def start(
        self, module: Module[Any, T], value: object, /, *, run_id: str | None = None, delay: float = 0.0
    ) -> RemoteRun[T]: ...
    @overload
    async def start(
        self, module: str, value: object, /, *, run_id: str | None = None, delay: float = 0.0
    ) -> RemoteRun[Any]: ...
    async def start(
        self, module: Any, value: object, /, *, run_id: str | None = None, delay: float = 0.0
    ) -> RemoteRun[Any]:
        """Start a run, or attach to the one that has this id.

        The deadline and the metadata of the current `mai.Context` are those of the run, as is its trace.

        Args:
            module: The module; or its name, where its code is not here.
            value: The one value that it is called with, or a Payload of ``module.payload(...)``; for a name a mapping
                of all arguments.
            run_id: The id; None: a fresh one.
            delay: When it is to begin [s from now]; so long it is only in the server.

        Raises:
            RunExists: If the run of that id has another input.
            PayloadError: If the value cannot be written as JSON.
            ConfigError: If no worker has registered the module, or an argument cannot be used.
            JournalError: If no server answers.
        """
        run: RemoteRun[Any] = self.attach(module, chosen_id("start", "run_id", run_id))
        wait, data = checked("start", "delay", delay, PAUSE), _input(module, value)
        service = self._service(run.target)
        _, begun = await self._client.submit(service, run.run_id, data, delay=wait, headers=sent_along())
        if not begun and (await run._about()).get("input", digest(data)) != digest(data):
            text = f"There is a run {run.run_id!r} of {run.target!r} already, with another input"
            raise RunExists(text, run_id=run.run_id)
        return run

    @overload
    def attach(self, module: Module[Any, T], run_id: str, /) -> RemoteRun[T]: ...
    @overload
    def attach(self, module: str, run_id: str, /) -> RemoteRun[Any]: ...
    def attach(self, module: Any, run_id: str, /) -> RemoteRun[Any]:
        """Return the run of that id; the server is asked as soon as the run is.

        Args:
            module: Its module; or the name of that, where its code is not here.
            run_id: The id.

        Raises:
            ConfigError: If *module* is neither.
        """
        known: Any = module
        if isinstance(module, str):
            return RemoteRun(self, module, run_id, None)
        if not isinstance(module, Module):
            raise ConfigError(f"attach({module!r}): give a Module, or its name")
        return RemoteRun(self, _target(known), run_id, known)

    async def find(self, run_id: str) -> RemoteRun[Any]:
        """Return the run of that id, whichever module it is of; of several the newest.

        Raises:
            UnknownRun: If there is none.
            JournalError: If no server answers.
        """
        row = await find_row(self._client, self._prefix, run_id)
        return self.attach(row["target_service_name"].removeprefix(self._prefix), run_id)

    async def runs(
        self, status: Status | None = None, *, limit: int = 100, after: str | None = None
    ) -> Sequence[RemoteInfo]:
        """Return what is known of runs, newest first; *after* is the last one of the page before.

        Raises:
            UnknownRun: If there is no run *after*.
            JournalError: If no server answers.
        """
        return await list_runs(self._client, self._prefix, status, limit, after)

    def _service(self, target: str) -> str:
        return self._prefix + target

    async def _value(self, run: RemoteRun[T], end: End) -> T:
        """Return the value of a run that has ended, or raise its error."""
        module: Any = run._module
        if end.data is not None:
            return json.loads(end.data) if module is None else caster(module._mai_spec.signature.returns).load(end.data)  # type: ignore[no-any-return]
        facts = end.metadata.get(FACTS)
        if facts is None and (error := (await run._about()).get("error")) is not None:
            facts = written(error)
        if facts is not None:
            raise self._failures.load(facts.encode(), () if module is None else modules_in(module))
        if end.code == 409:
            raise asyncio.CancelledError
        raise StepFailed(f"run {run.run_id!r}: {end.message}", type="TerminalError", module="restate")


def sent_along() -> dict[str, str]:
    """Return what a run that is begun now has from here: metadata, the time that is left, the trace."""
    f, headers = current(), dict[str, str]()
    propagate.inject(headers, context=around(f))
    if metadata := kept(f.env.metadata):
        headers["x-mai-metadata"] = json.dumps(metadata)  # headers are ASCII
    if f.deadline is not None:
        headers["x-mai-timeout"] = repr(max(0.0, f.deadline - clock.now()))
    return headers


def _target(module: Module[Any, Any]) -> str:
    return str((module._mai_spec or module._mai_compile()).what[0])


def _input(module: Any, value: Any) -> bytes:
    """Return the arguments as JSON."""
    whole: Any = value
    given: Any = whole.value if isinstance(value, Payload) else whole
    if isinstance(module, str):
        if not isinstance(value, Payload | Mapping):
            raise ConfigError(f"start({module!r}, {value!r}): for a module by its name give a mapping of its arguments")
        return caster(type(given)).dump(given)
    bound = bound_value(module, value)
    return bytes(module._mai_spec.signature.dump(*bound))
