"""The connection to an MCP server: a task of its own holds it, and what fails there is told as one of our errors."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

import anyio

from mai.errors import ConfigError
from mai.middleware.redact import Redactor

from ..errors import ServerGone, ToolError

if TYPE_CHECKING:
    from mcp import Client

T = TypeVar("T")
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST = 8  # characters; what is shorter is hardly a secret, and would be found in words
_CLOSED = -32000  # the code of a JSON-RPC error: the connection was closed


class Connection:
    """One connection, from `open` to `close`; it belongs to the event loop in which it was opened.

    The SDK's scopes must be left in the task that entered them, so a task of its own holds them, and the block of a
    user may be entered and left in different tasks.

    Args:
        target: A URL, or a command.
        env: What a command has in its environment.
        cwd: Where it runs.
        headers: What each request over HTTP has.
        stderr: Where a command complains; None: nowhere.
        changed: Called when the server says that its list of tools is another.
    """

    def __init__(
        self, target: str | list[str], *, env: Mapping[str, str], cwd: str | os.PathLike[str] | None,
        headers: Mapping[str, str], stderr: TextIO | None, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._target, self._env, self._cwd, self._headers = target, dict(env), cwd, dict(headers)
        self._stderr, self._changed = stderr, changed
        self._client: Client | None = None
        self._owner: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self.redactor: Redactor = Redactor(*secrets_of(self._env, self._headers))

    async def open(self) -> None:
        """Connect.

        Raises:
            ServerGone: If that fails.
            ConfigError: If the extra ``mcp`` is not installed, or the connection is open already.
        """
        if find_spec("mcp") is None or find_spec("httpx2") is None:
            raise ConfigError("MCPTools needs the extra mcp: pip install 'mai-kernel[mcp]'")
        if self._owner is not None:
            raise ConfigError(f"the block of {self!r} is entered already")
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._owner = asyncio.create_task(self._own(ready), name="mai-mcp")
        self._client = await ready

    async def close(self) -> None:
        """End the connection, whatever state it is in, and wait for that through further cancels."""
        owner, self._owner, self._client = self._owner, None, None
        self._leave.set()
        cancelled: asyncio.CancelledError | None = None
        while owner is not None and not owner.done():
            if self._opening:
                owner.cancel()
            try:
                await asyncio.wait([owner])
            except asyncio.CancelledError as error:
                cancelled = error
        if owner is not None and not owner.cancelled():
            owner.exception()  # what a dead server leaves behind was told by the calls that it failed
        if cancelled is not None:
            raise cancelled

    _opening = True  # until there is a client, or there will be none

    async def _own(self, ready: "asyncio.Future[Client]") -> None:
        """Hold the connection until it is to be closed."""
        self._opening = True
        try:
            async with self._connected() as client:
                self._opening = False
                if not ready.cancelled():
                    ready.set_result(client)
                    await self._leave.wait()
        except Exception as error:
            if ready.done():
                raise
            text = self.redactor.text(_reason(error))
            silent = isinstance(self._target, list) and self._stderr is None
            hint = "; stderr=sys.stderr shows what it complains of" if silent else ""
            ready.set_exception(ServerGone(f"cannot connect to the MCP server {self!r}: {text}{hint}"))
        finally:
            self._opening = False

    @asynccontextmanager
    async def _connected(self) -> "AsyncGenerator[Client]":
        import httpx2  # noqa: PLC0415 (an extra, as are the next ones)
        from mcp import Client, StdioServerParameters  # noqa: PLC0415
        from mcp.client.stdio import stdio_client  # noqa: PLC0415
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        async with AsyncExitStack() as stack:
            transport: Any
            if isinstance(self._target, str):
                patience = httpx2.Timeout(30.0, read=300.0)  # a stream of events may be silent for long
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=self._headers, timeout=patience))
                transport = streamable_http_client(self._target, http_client=http)
            else:
                command, *arguments = self._target
                cwd = None if self._cwd is None else os.fspath(self._cwd)
                started = StdioServerParameters(command=command, args=arguments, env=self._env, cwd=cwd)
                nowhere = await anyio.open_file(os.devnull, "w")
                stack.callback(nowhere.wrapped.close)
                transport = stdio_client(
                    started, errlog=self._stderr or cast("TextIO", nowhere.wrapped)
                )  # opened as text
            yield await stack.enter_async_context(Client(transport, message_handler=self._told))

    async def _told(self, message: object) -> None:
        """Hear what the server says by itself."""
        if type(message).__name__ == "ToolListChangedNotification":
            self._changed()

    async def ask(self, question: "Callable[[Client], Awaitable[T]]", tool: str = "") -> T:
        """Return what the server answers.

        Raises:
            ServerGone: If there is no connection.
            ToolError: If the server refuses.
            ConfigError: In another event loop.
        """
        client, owner = self._client, self._owner
        if client is None or owner is None:
            raise ServerGone(f"{self!r} is not connected: use its tools inside of its 'async with' block", tool=tool)
        if owner.get_loop() is not asyncio.get_running_loop():
            raise ConfigError(f"{self!r} belongs to another event loop; use it where it was entered")
        from mcp import MCPError  # noqa: PLC0415 (an extra)

        gone = OSError, RuntimeError, anyio.ClosedResourceError, anyio.BrokenResourceError
        try:
            return await question(client)
        except (MCPError, ValueError, *gone) as error:
            text = self.redactor.text(_reason(error))
            if owner.done() or isinstance(error, gone) or getattr(error, "code", 0) == _CLOSED:
                raise ServerGone(f"the MCP server {self!r} is gone: {text}", tool=tool) from None
            raise ToolError(f"{tool or repr(self)} failed: {text}", tool=tool) from None

    def __repr__(self) -> str:
        if isinstance(self._target, str):
            return f"<MCPTools {re.sub('//.*@', '//', self._target).partition('?')[0]}>"
        return f"<MCPTools {os.path.basename(self._target[0])}>"


def secrets_of(env: Mapping[str, str], headers: Mapping[str, str] | None = None) -> list[str]:
    """Return what in an environment is called like a secret, and what headers authorize with."""
    values = [value for key, value in env.items() if _SECRET.search(key)]
    values += [value.rpartition(" ")[2] for value in (headers or {}).values()]
    return [value for value in values if len(value) >= _SHORTEST]


def _reason(error: BaseException) -> str:
    """Return what *error* comes down to: the first that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]  # whichever they are
    return str(error) or type(error).__name__
