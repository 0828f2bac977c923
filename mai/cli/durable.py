"""Durable runs at the command line: one of `mai run --durable`, and the process that `mai worker` is."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

from pydantic import BaseModel

from mai.cli.output import say
from mai.cli.restate import ingress_of
from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage
from mai.core.clock import clock
from mai.durable import SQLiteEngine
from mai.durable.restate import RestateEngine
from mai.durable.restate.server import hear as hear_signal
from mai.errors import ConfigError, JournalError, WiringError
from mai.layers import Module
from mai.types import Asked, Context, Payload, TraceHandle

__all__ = ["carry", "serve_runs"]


async def carry(module: Module[Any, Any], given: BaseModel, file: str, run_id: str, timeout: float | None) -> Any:
    """Start the run *run_id*, or go on with it, and return its value.

    Where it waits for an answer and no terminal is there to give one, it is told how to send one; so is it that another
    process has the run, which may have been killed.
    """
    async with SQLiteEngine(file) as engine:
        if (held := await _held(engine, run_id)) is not None:
            say(f"mai run: another process has {run_id}; if it was killed, its lease is over in {held:.0f} s at most")
        with Context.scope(timeout=timeout) if timeout is not None else nullcontext():
            handle = engine.start(module, Payload.of(given, type(given)), run_id=run_id)
        async for event in handle:
            if isinstance(event, Asked) and handle.questions:
                say(f"mai run: {event.question.prompt} (mai runs answer {run_id} VALUE --db {file})")
        return await handle


async def _held(engine: SQLiteEngine, run_id: str) -> float | None:
    """Return for how long another process has the run if it says no more [s], None if none has it."""
    info = await engine.journal.run(run_id)
    left = None if info is None or info.lease_until is None else info.lease_until - clock.wall()
    return None if left is None or left <= 0.0 else left


class Restate(NamedTuple):
    """A Restate server, and where it reaches this worker.

    Attributes:
        admin: The address of its admin API.
        ingress: That of its ingress; None: port 8080 of the same machine.
        host: Where to listen.
        port: The port.
        advertised: Where the server reaches this; None: there.
        patience: How long to wait for the server [s].
    """

    admin: str
    ingress: str | None
    host: str
    port: int
    advertised: str | None
    patience: float

    def engine(self, modules: Sequence[Module[Any, Any]]) -> RestateEngine:
        """Return an engine that serves *modules*."""
        return RestateEngine(
            self.admin, ingress=ingress_of(self.admin, self.ingress), modules=modules, host=self.host, port=self.port,
            advertised=self.advertised, patience=self.patience,
        )  # fmt: skip


def serve_runs(targets: Sequence[str], file: str | None, server: Restate | None = None, **settings: Any) -> int:
    """Serve the runs of the *targets* until a signal comes, and return the exit code; *settings*: of `SQLiteEngine`."""
    try:
        if (file is None) is (server is None):
            raise BadUsage("give either --db FILE or --restate URL, where the runs are kept")
        with ExitStack() as stack:
            for written in targets:
                stack.enter_context(import_paths(written))
            modules = [load(written) for written in targets]
            engine: Any = (
                server.engine(modules) if server is not None else SQLiteEngine(file or "", modules=modules, **settings)
            )
            where, listen = (file or "", _listen) if server is None else (server.admin, hear_signal)
            asyncio.run(_serve(engine, modules, where, listen))
    except (BadUsage, ConfigError, WiringError) as problem:
        say(f"mai worker: {problem}")
        return 2
    except JournalError as error:
        say(f"mai worker: {error}")
        return 1
    except asyncio.CancelledError:  # a second signal
        return 130
    return 0


def _listen(signum: int, hook: Callable[[], object]) -> None:
    asyncio.get_running_loop().add_signal_handler(signum, hook)


async def _serve(
    engine: Any, modules: Sequence[Module[Any, Any]], where: str, listen: Callable[[int, Callable[[], object]], object]
) -> None:
    """Serve until the first signal; then let what runs come to its end, or to where it only waits."""
    stop, task = asyncio.Event(), asyncio.current_task()

    def hear(name: str) -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()
        say(f"mai worker: {name}, waiting for the runs that go on (once more leaves them to the next worker)")

    for one in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # on Windows there are no such handlers; there Ctrl-C ends it at once
            listen(one, partial(hear, one.name))
    async with engine:
        engine.subscribe(_tell)
        names = ", ".join(str(module.settings.name or type(module).__name__) for module in modules)
        say(f"mai worker: serving {names} from {where}")
        await stop.wait()


def _tell(handle: TraceHandle[Any]) -> None:
    took = "" if handle.duration is None else f" after {handle.duration:.3f} s"
    why = "" if handle.error is None else f": {handle.error.type}: {handle.error.message}"
    say(f"mai worker: {handle.name} {handle.outcome}{took}{why}")
