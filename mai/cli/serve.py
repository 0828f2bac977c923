"""`mai serve-mcp`: load the targets and offer them as an MCP server."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout, suppress
from typing import Any

from mai.cli.output import say
from mai.cli.run import BAD_USAGE, FAILED, INTERRUPTED, OK
from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage
from mai.errors import ConfigError, WiringError
from mai.layers import Module
from mai.tools import serve_mcp

__all__ = ["serve_targets"]


def serve_targets(targets: Sequence[str], http: str | None, token_env: str | None) -> int:
    """Serve the *targets* over stdio, or at the ``HOST:PORT`` *http*, and return the exit code."""
    try:
        host, port = (None, 0) if http is None else _place(http)
        token = None if token_env is None else _token(token_env)
        with ExitStack() as stack:
            for written in targets:
                stack.enter_context(import_paths(written))
            with redirect_stdout(sys.stderr) if host is None else nullcontext():  # stdout belongs to the protocol
                modules = [load(written) for written in targets]
            asyncio.run(_serve(modules, host, port, token))
    except (BadUsage, ConfigError, WiringError) as problem:
        say(f"mai serve-mcp: {problem}")
        return BAD_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit:  # how uvicorn says that it cannot listen; it has told why
        return FAILED
    return OK


async def _serve(modules: Sequence[Module[Any, Any]], host: str | None, port: int, token: str | None) -> None:
    """Serve until the end; a SIGTERM ends it like a Ctrl-C, so that the calls are cleaned up."""
    task = asyncio.current_task()
    if host is None and task is not None:
        with suppress(NotImplementedError):  # on Windows there is no such handler
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await serve_mcp(*modules, host=host, port=port, token=token)


def _place(http: str) -> tuple[str, int]:
    host, _, port = http.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadUsage(f"--http {http}: give HOST:PORT, such as 127.0.0.1:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _token(name: str) -> str:
    token = os.environ.get(name, "")
    if not token:
        raise BadUsage(f"--token-env {name}: there is no such environment variable, or it is empty")
    return token
