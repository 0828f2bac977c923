"""Durable runs at the command line: one of `mai run --durable`, and the process that `mai worker` is."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

from pydantic import BaseModel

from mai.cli.output import say
from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage
from mai.core.clock import clock
from mai.durable import SQLiteEngine
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


def serve_runs(targets: Sequence[str], file: str, ttl: float) -> int:
    """Serve the runs of the *targets* in the journal *file* until a signal comes, and return the exit code."""
    try:
        with ExitStack() as stack:
            for written in targets:
                stack.enter_context(import_paths(written))
            modules = [load(written) for written in targets]
            asyncio.run(_serve(modules, file, ttl))
    except (BadUsage, ConfigError, WiringError) as problem:
        say(f"mai worker: {problem}")
        return 2
    except JournalError as error:
        say(f"mai worker: {error}")
        return 1
    except asyncio.CancelledError:  # a second signal
        return 130
    return 0


async def _serve(modules: Sequence[Module[Any, Any]], file: str, ttl: float) -> None:
    """Serve until the first signal; then let what runs come to its end, or to where it only waits."""
    stop, task = asyncio.Event(), asyncio.current_task()

    def hear(name: str) -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()
        say(f"mai worker: {name}, waiting for the runs that go on (once more leaves them to the next worker)")

    for one in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # on Windows there are no such handlers; there Ctrl-C ends it at once
            asyncio.get_running_loop().add_signal_handler(one, hear, one.name)
    async with SQLiteEngine(file, modules=modules, ttl=ttl) as engine:
        engine.subscribe(_tell)
        names = ", ".join(str(module.settings.name or type(module).__name__) for module in modules)
        say(f"mai worker: serving {names} from {file}")
        await stop.wait()


def _tell(handle: TraceHandle[Any]) -> None:
    took = "" if handle.duration is None else f" after {handle.duration:.3f} s"
    why = "" if handle.error is None else f": {handle.error.type}: {handle.error.message}"
    say(f"mai worker: {handle.name} {handle.outcome}{took}{why}")
