"""The engine whose journal is a Restate server or cluster.

Size: what a run can be asked from outside is one list.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from mai.core.drive import framed
from mai.core.engine import start_run
from mai.core.frame import ROOT, Env, Frame, Scope, current, scoped
from mai.core.trace import TraceHandle, ended
from mai.durable.code import Code, Codes
from mai.durable.ending import uncancel
from mai.durable.failures import Failures
from mai.durable.questions import chosen, over
from mai.durable.records import ENDED, Record, Status
from mai.durable.restate.body import Busy
from mai.durable.restate.carry import digest
from mai.durable.restate.client import End, RestateClient, sql_text
from mai.durable.restate.commands import ContextCommands
from mai.durable.restate.mail import Asked
from mai.durable.restate.outside import data_of, send_signal
from mai.durable.restate.runner import sent_along
from mai.durable.restate.server import Server
from mai.durable.restate.service import FACTS, SHAPE, Limits, services_of
from mai.durable.restate.tables import NO_FORK, RemoteInfo, about_of, find_row, journal_of, list_runs, row_of
from mai.durable.restate.turns import Commands
from mai.durable.starting import RecordingEngine, chosen_id
from mai.errors import ConfigError, NeedsAttention, RunExists, StepFailed
from mai.values.casts import written
from mai.values.checked import PAUSE, SECONDS, checked
from mai.values.events import Outcome

__all__ = ["RestateEngine"]

_LOOK = 0.05  # seconds between two looks at what still goes on when the block is left
_KILLED = "killed"  # what the server says of a run that it was told to give up


class RestateEngine(RecordingEngine):
    """Runs calls so that they survive processes and machines: what was done is in the journal of a Restate server.

    ``async with`` chooses it for the calls inside, as any engine, listens for the server, and registers the modules
    with it: each is a Restate workflow of its name, whose key is the id of the run. The server hands the runs to
    whichever worker it reaches, and to another one where a worker dies. A call outside of a run (``await m(x)``,
    ``m.start(x)``) becomes a run with a fresh id; `start` takes one of yours.

    The code of flows runs on an event loop that knows nothing but the journal: it may wait for modules, for the verbs,
    and for timers, and for nothing that reads or writes.

    Size: what a run can be asked from outside is one list.

    Args:
        admin: The address of the server's admin API, or one for each node of a cluster.
        ingress: The address of its ingress, or one for each node.
        modules: Code for runs that are begun elsewhere, as by `serve`.
        host: Where to listen for the server.
        port: The port; 0: any that is free.
        advertised: The address at which the server reaches this worker, if it is another one, as
            ``"http://worker-7:9080"``.
        prefix: What the names of the workflows begin with, so that several applications can share a server.
        inactivity: How long a run may wait before it leaves memory [s]; None: as the server has it (a minute). A step
            that takes longer is not cancelled before it ends.
        longest: How long a step may take then [s], before the server gives it up and lets it begin anew.
        retention: How long what came of a run is kept after its end [s]; then its id may begin another one.
        errors: Exception classes that replays may raise beside those that steps and flows themselves can name.
        auth: The ``auth`` of the runs: it is in no journal.
        patience: How long it goes on asking while no server answers [s].
        max_threads: As of `mai.LocalEngine`.
        max_abandoned: As of `mai.LocalEngine`.

    Raises:
        ConfigError: If an argument cannot be used, or the extra ``restate`` is not installed.

    Example:
        >>> from mai import module
        >>> from mai.durable.restate import RestateEngine
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> async def main() -> int:  # with a server on this machine
        ...     async with RestateEngine() as engine:
        ...         return await engine.start(double, 21, run_id="order-42")
    """

    commands: Callable[[Any], Commands] = ContextCommands  # what the verbs of a run are given to

    def __init__(
        self,
        admin: str | Sequence[str] = "http://127.0.0.1:9070",
        *,
        ingress: str | Sequence[str] = "http://127.0.0.1:8080",
        modules: Iterable[Any] = (),
        host: str = "127.0.0.1",
        port: int = 9080,
        advertised: str | None = None,
        prefix: str = "",
        inactivity: float | None = None,
        longest: float = 86_400.0,
        retention: float = 604_800.0,
        errors: Iterable[type[Exception]] = (),
        auth: Any = None,
        patience: float = 30.0,
        max_threads: int = 64,
        max_abandoned: int = 64,
    ) -> None:
        super().__init__(max_threads=max_threads, max_abandoned=max_abandoned)
        self.failures: Failures = Failures(errors)
        self.auth: Any = auth
        self.prefix: str = prefix
        self.closing: bool = False
        self.busy: Busy = Busy()
        self.asked: Asked = Asked()
        limit = None if inactivity is None else checked("RestateEngine", "inactivity", inactivity, PAUSE)
        kept = checked("RestateEngine", "retention", retention, SECONDS)
        self._limits = Limits(limit, checked("RestateEngine", "longest", longest, SECONDS), kept)
        self._patience = checked("RestateEngine", "patience", patience, PAUSE)
        self._where = admin, ingress, host, port, advertised
        self._client: RestateClient | None = None
        self._codes = Codes()
        self._served: dict[str, Code] = {}  # by the name of the service
        self._registered = ""  # the address that the server knows
        self._lock = asyncio.Lock()
        self._begun: dict[str, str] = {}  # the services of the runs that were begun here, and have not ended
        self._seen: dict[str, tuple[Env, TraceHandle[Any]]] = {}  # the runs that somebody here looks at
        self._active = Counter[str]()
        for module in modules:
            self.serve(module)

    # ---------------------------------------------------------------- starting

    def serve(self, module: Any, /) -> None:
        """Hand over the code of runs, which are found by the module's name; of two of one name, the last one serves.

        Args:
            module: The module.
        """
        self._add(module)
        if self._client is not None:
            self.soon(self._register())

    def _add(self, module: Any) -> Code:
        code = self._codes.add(module)
        self._served[self.prefix + code.target] = code
        return code

    async def _register(self) -> None:
        """Let the server know of all that is served; a set of plans that it does not know is a new deployment."""
        async with self._lock:
            plans = {name: code.fingerprint for name, code in sorted(self._served.items())}
            version = digest(written([SHAPE, plans, *self._limits]).encode())[:16]
            uri = f"{self._uri}/{version}"
            if plans and uri != self._registered:
                served = [services_of(self, code, name, self._limits) for name, code in self._served.items()]
                self._server.offer(one for both in served for one in both)
                await self.client.register(uri)
                self._registered = uri
                self.soon(self._hurry([one.name for both in served for one in both]))

    async def _hurry(self, services: Sequence[str]) -> None:
        """Let the server try at once what it would try again later, since nobody served it."""
        names = ", ".join(sql_text(name) for name in services)
        sql = f"select id from sys_invocation where status = 'backing-off' and target_service_name in ({names})"
        for row in await self.client.query(f"{sql} order by created_at"):
            await self.client.resume(row["id"])

    def _start(self, module: Any, bound: Any, run_id: str | None, delay: float) -> TraceHandle[Any]:
        if self._client is None or self.closing:
            raise ConfigError("RestateEngine: runs are started inside of 'async with engine:'")
        code, data = self._add(module), module._mai_spec.signature.dump(*bound)
        p, scope = current(), scoped(ROOT)
        scope.env = p.env._replace(engine=self, bus=None, slot=None, door=None)
        call = code, chosen_id("start", "run_id", run_id), data, sent_along(), delay
        self._begun[call[1]] = self.prefix + code.target
        return start_run(self._framed, module, scope, f"/{code.target}", 0, call, None)

    def _framed(self, m: Any, scope: Scope, key: str, n: int, call: Any, _: Any, h: TraceHandle[Any]) -> Frame:
        return framed(self._watched(scope, h, *call))

    async def _watched(
        self, scope: Scope, h: TraceHandle[Any], code: Code, run_id: str, data: bytes, headers: Any, delay: float
    ) -> Any:
        """Return the value of a run, and be seen to look at it meanwhile."""
        own = self._seen.setdefault(run_id, (scope.env, h))[1] is h
        found: Outcome = "error"
        try:
            value = await self._driven(code, run_id, data, headers, delay)
            found = "replayed"
            return value
        except asyncio.CancelledError:
            found = "cancelled"
            raise
        finally:
            if h.outcome in ("running", "suspended"):  # nothing of it ran here, or not its end
                ended(h, found)
            if own:
                del self._seen[run_id]
                self._begun.pop(run_id, None)

    async def _driven(self, code: Code, run_id: str, data: bytes, headers: Mapping[str, str], delay: float) -> Any:
        """Begin the run, or find it, and wait for its end."""
        service, begun, asked = self.prefix + code.target, False, False
        end: End | None = None
        while end is None:
            try:
                if not asked:
                    await self._register()
                    _, begun = await self.client.submit(service, run_id, data, delay=delay, headers=headers)
                    asked = True
                end = await self.client.attach(service, run_id)
            except asyncio.CancelledError:
                if self.closing or not uncancel():  # else by its handle
                    raise
                await self._cancelled(service, run_id)
        if not begun:
            await self._check_same(service, run_id, data)
        return await self._outcome(end, service, run_id, code)

    async def _check_same(self, service: str, run_id: str, data: bytes) -> None:
        about = about_of(await row_of(self.client, service, run_id))
        if about.get("input", "") not in ("", digest(data)):
            raise RunExists(f"There is a run {run_id!r} of {service!r} with another input", run_id=run_id)

    async def _cancelled(self, service: str, run_id: str) -> None:
        found = await row_of(self.client, service, run_id)
        if found is not None:
            await self.client.cancel(found["id"])

    async def _outcome(self, end: End, service: str, run_id: str, code: Code | None) -> Any:
        """Return the value of a run that has ended, or raise its error."""
        if end.data is not None:
            return json.loads(end.data) if code is None else code.load(end.data)
        modules, facts = () if code is None else code.modules, end.metadata.get(FACTS)
        if facts is not None:
            raise self.failures.load(facts.encode(), modules)
        text = end.message
        about: Any = about_of(await row_of(self.client, service, run_id) if text == _KILLED else None)
        if "error" in about:
            raise self.failures.load(written(about["error"]).encode(), modules)
        if text == "canceled" or text == "cancelled":
            raise asyncio.CancelledError
        raise StepFailed(f"The server ended run {run_id!r}: {text}", type="TerminalError", module="restate")

    # ---------------------------------------------------------------- while runs are carried on here

    def onlooker(self, run_id: str) -> tuple[Env, TraceHandle[Any]] | None:
        """Return the environment and the handle of whoever looks at a run, if somebody here does."""
        return self._seen.get(run_id)

    @contextmanager
    def active(self, run_id: str) -> Generator[None]:
        """Note that a run is carried on here."""
        self._active[run_id] += 1
        try:
            yield
        finally:
            self._active[run_id] -= 1

    async def give_up(self, service: str, run_id: str, invocation_id: str, error: NeedsAttention) -> None:
        """End a run that would fail in each attempt in the same way; those who wait for it are told why."""
        try:
            await self.client.tell(service, run_id, "end", self.failures.crossed(error, ())[0])
            await self.client.kill(invocation_id)
        except OSError as failure:
            logging.getLogger("mai").warning("run %r cannot be ended: %s", run_id, failure)

    def soon(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do *work* in the loop of the engine; from any thread."""
        self.loop.call_soon_threadsafe(self._do, work)

    # ---------------------------------------------------------------- controlling runs

    @property
    def client(self) -> RestateClient:
        """What the server is asked with."""
        if self._client is None:
            raise ConfigError("RestateEngine: use it inside of 'async with engine:'")
        return self._client

    async def result(self, run_id: str) -> Any:
        """Wait for the end of a run and return its value, or raise its error.

        Of a module that is not served here the value is what its JSON says.

        Raises:
            UnknownRun: If there is no such run.
        """
        service = await self._service(run_id)
        return await self._outcome(
            await self.client.attach(service, run_id), service, run_id, self._served.get(service)
        )

    async def signal(self, run_id: str, name: str, value: object = None, *, id: str | None = None) -> bool:  # noqa: A002
        """Send a signal, whether the run waits for it already or not; ``wait_for(name)`` takes it.

        Args:
            run_id: The run.
            name: Name of the signal.
            value: What it carries: a value that pydantic can write, or a Payload.
            id: By which a second sending of the same signal is known, and not kept again.

        Returns:
            False if the run has ended.

        Raises:
            UnknownRun: If there is no such run.
            PayloadError: If *value* cannot be written as JSON.
        """
        data = data_of(value)
        return await send_signal(self.client, await self._service(run_id), run_id, name, data, key=id)

    def send(self, run_id: str, name: str, data: bytes) -> None:
        """Send what answers a question, in the loop of the engine."""
        self.soon(self._send(run_id, name, data))

    async def _send(self, run_id: str, name: str, data: bytes) -> None:
        await send_signal(self.client, await self._service(run_id), run_id, name, data)

    @property
    def is_open(self) -> bool:
        """Whether its server can be asked."""
        return self._client is not None

    async def answer(self, run_id: str, value: object, *, question: str | None = None) -> None:
        """Answer a question of a run.

        Args:
            run_id: The run.
            value: The answer. It is checked here if a worker that knows the question says so in time, else by the step
                that asks, which puts one that does not fit aside.
            question: The id of the question: the path of its ``ask``. Needed where several are open.

        Raises:
            AskError: If no question is open, several are and *question* is not given, or the run has ended.
            CastError: If *value* is known not to fit.
            UnknownRun: If there is no such run.
        """
        service = await self._service(run_id)
        about = about_of(await row_of(self.client, service, run_id))
        if about.get("status") in ENDED:
            raise over(value, run_id)
        name = chosen(value, question, about.get("questions", ()), run_id)
        known = self.asked.get(run_id, name)
        data = data_of(value) if known is None else known.data(value)
        if not await send_signal(self.client, service, run_id, name, data, answers=True):
            raise over(value, run_id)

    async def cancel(self, run_id: str) -> bool:
        """Ask for the end of a run; False: it has ended already.

        Raises:
            UnknownRun: If there is no such run.
        """
        row = await self._row(run_id)
        return row["status"] != "completed" and await self.client.cancel(row["id"])

    async def resume(self, run_id: str) -> bool:
        """Let a run go on that the server has paused, or that waits to be tried again; False: it has ended.

        Raises:
            UnknownRun: If there is no such run.
        """
        return await self.client.resume((await self._row(run_id))["id"])

    # ---------------------------------------------------------------- looking

    async def history(self, run_id: str) -> Sequence[Record]:
        """Return what the journal of a run has, in the order of completion.

        Raises:
            UnknownRun: If there is no such run.
        """
        return (await journal_of(self.client, (await self._row(run_id))["id"])).records

    async def runs(
        self, status: Status | None = None, *, limit: int = 100, after: str | None = None
    ) -> Sequence[RemoteInfo]:
        """Return what is known of runs, newest first; *after* is the last one of the page before.

        Raises:
            UnknownRun: If there is no run *after*.
        """
        return await list_runs(self.client, self.prefix, status, limit, after)

    async def fork(
        self, run_id: str, *, at: str | None = None, override: Mapping[str, object] | None = None,
        new_id: str | None = None,
    ) -> TraceHandle[Any]:  # fmt: skip
        """Refuse: a Restate server begins no workflow in the middle of another one's journal.

        Raises:
            ConfigError: In any case.
        """
        raise ConfigError(f"fork({run_id!r}): {NO_FORK}")

    async def _service(self, run_id: str) -> str:
        if run_id in self._begun:  # the server may not know of the run yet
            await self._register()
            return self._begun[run_id]
        return str((await self._row(run_id))["target_service_name"])

    async def _row(self, run_id: str) -> Mapping[str, Any]:
        """Return what the server knows of a run."""
        return await find_row(self.client, self.prefix, run_id)

    # ---------------------------------------------------------------- the block

    async def __aenter__(self) -> Self:
        if self._client is None:
            admin, ingress, host, port, advertised = self._where
            self._server = Server(host, port)
            self._uri = (advertised or self._server.uri).rstrip("/")
            self._client = RestateClient(ingress, admin, patience=self._patience)
            self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
            self.closing = self.busy.is_closed = False
            self._registered = ""
            await self._server.open()
            try:
                await self._register()
            except BaseException:
                await self._closed(at_once=True)
                raise
        await super().__aenter__()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._leaves_last():
            await super().__aexit__(kind, error, trace)
            return
        self.closing = True
        watch = asyncio.ensure_future(self._let_go(at_once=error is not None))
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            await self._closed(at_once=error is not None)

    async def _let_go(self, *, at_once: bool) -> None:
        """Leave runs that do nothing here, or, *at_once*, all of them, to the server."""
        quiet: dict[str, int] = {}
        while True:
            for run_id, (_, handle) in list(self._seen.items()):
                busy = self.busy.counts[run_id] > 0
                quiet[run_id] = 0 if busy else quiet.get(run_id, 0) + 1
                if at_once or quiet[run_id] > 4:
                    handle._started().cancel()
            await asyncio.sleep(_LOOK)

    async def _closed(self, *, at_once: bool) -> None:
        """Let the steps end that run here, and listen no more."""
        self.busy.is_closed = True
        self._server.refuse()
        if not at_once:
            await self.busy.bell.heard(self.busy.is_over)
        if self._work:
            await asyncio.wait(self._work)
        await self._server.close()
        await self.client.close()
        self._client = None
