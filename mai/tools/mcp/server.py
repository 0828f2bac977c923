"""Modules as the tools of an MCP server, over stdio or streamable HTTP."""

import asyncio
import hmac
import ipaddress
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import anyio

import mai
from mai.errors import AskError, ConfigError
from mai.layers import Module
from mai.layers.ask import answers
from mai.middleware.redact import Redactor
from mai.types import Progress, Question, TraceHandle

from ..tool import Tool, ToolResult, as_tools
from ..written import told
from .connection import secrets_of
from .stdin import lines_of

if TYPE_CHECKING:
    from mcp.server import Server, ServerRequestContext
    from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
_SHORTEST = 16  # characters of a token
_GRACE = 2  # seconds that open requests have when the server is to end


class Served(Module[dict[str, Any], ToolResult]):
    """One call that a client makes."""

    def __init__(self, tool: Tool[..., Any]) -> None:
        self.tool = tool

    async def forward(self, arguments: dict[str, Any]) -> ToolResult:
        """Use the tool."""
        return await self.tool.use(arguments)


def mcp_server(*things: Any, name: str = "mai") -> "Server[Any]":
    """Return a server of the MCP SDK that offers *things*: Tools, Modules, functions, or lists of such.

    Arguments are checked as in any call, unknown ones are refused; what fails is told as a result with ``isError``. The
    values of environment variables that are called like secrets are taken out of all texts. Nobody can be asked, so a
    tool that needs approval fails. A client's cancel cancels the call, and a `Map` with ``progress`` tells it.

    Args:
        things: What `as_tools` takes.
        name: What the server calls itself.

    Raises:
        ConfigError: If there is nothing to offer, two tools have one name, or the extra ``mcp`` is not installed.
        WiringError: If something cannot be a tool.
    """
    _check_installed()
    from mcp import MCPError  # noqa: PLC0415 (an extra, as are the next ones)
    from mcp.server import Server  # noqa: PLC0415
    from mcp.types import INVALID_PARAMS, CallToolResult, ListToolsResult, TextContent  # noqa: PLC0415
    from mcp.types import Tool as Definition  # noqa: PLC0415

    redactor = Redactor(*secrets_of(os.environ))
    offered = {tool.name: tool if tool.redact else tool.with_(redact=redactor) for tool in as_tools(*things)}
    if not offered:
        raise ConfigError("mcp_server: name the modules that it offers")
    definitions = [
        Definition(name=tool.name, description=tool.description, input_schema=tool.schema())
        for tool in offered.values()
    ]

    async def listed(_: "ServerRequestContext[Any]", __: "PaginatedRequestParams | None") -> "ListToolsResult":
        return ListToolsResult(tools=definitions)

    async def called(context: "ServerRequestContext[Any]", params: "CallToolRequestParams") -> "CallToolResult":
        if params.name not in offered:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}")
        tool = offered[params.name]
        try:
            result = await _run(Served(tool), dict(params.arguments or {}), context.session.report_progress)
            text, failed = result.text, not result.ok
        except Exception as error:  # noqa: BLE001 (its policy is to raise, or nobody can be asked)
            text, failed = f"error: {(tool.redact or redactor).text(told(error))}", True
        return CallToolResult(content=[TextContent(text=text)], is_error=failed)

    return Server(name, version=mai.__version__, on_list_tools=listed, on_call_tool=called)


async def _run(served: Served, arguments: dict[str, Any], report: Any) -> ToolResult:
    """Run the call to its end; a cancel of the SDK, which comes again at each await, reaches it once."""
    with answers(_nobody):
        handle: TraceHandle[ToolResult] = served.start(arguments)
    try:
        async for event in handle:
            if isinstance(event, Progress):
                await report(event.done, event.total)
        return await handle
    except asyncio.CancelledError:
        handle.cancel()
        with anyio.CancelScope(shield=True), suppress(BaseException):
            await handle
        raise


def _nobody(question: Question) -> bool:
    raise AskError(f"{question.prompt!r} is asked, and over MCP nobody can answer")


async def serve_mcp(*things: Any, host: str | None = None, port: int = 8000, token: str | None = None) -> None:
    """Offer *things* as an MCP server until the client leaves or the call is cancelled.

    Args:
        things: What `as_tools` takes.
        host: Where to listen for streamable HTTP, at ``/mcp``; None: speak over stdin and stdout.
        port: The port to listen on.
        token: What each request over HTTP must have as ``Authorization: Bearer``, at least 16 characters; needed
            unless *host* is this machine alone.

    Raises:
        ConfigError: If that cannot be offered, or *token* is missing or too short.
        WiringError: If something cannot be a tool.
    """
    server = mcp_server(*things)
    if host is None:
        from mcp.server.stdio import stdio_server  # noqa: PLC0415 (an extra)

        async with (
            lines_of() as lines,
            stdio_server(stdin=cast("Any", lines)) as (read, write),
        ):  # all it needs of a file
            with redirect_stdout(sys.stderr):  # what a module prints must not get among the messages
                await server.run(read, write, server.create_initialization_options())
        return
    if token is None and not _is_loopback(host):
        raise ConfigError(f"serve_mcp: whoever reaches {host!r} could call the tools; give a token")
    if token is not None and len(token) < _SHORTEST:
        raise ConfigError(f"serve_mcp: the token is shorter than {_SHORTEST} characters")
    import uvicorn  # noqa: PLC0415 (the extra mcp brings it)

    app: Any = server.streamable_http_app(host=host)
    config = uvicorn.Config(app if token is None else Guard(app, token), host=host, port=port, log_level="warning")
    config.timeout_graceful_shutdown = _GRACE  # a stream of events has no end of its own
    await uvicorn.Server(config).serve()


class Guard:
    """Lets requests through that have the token."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str) -> None:
        self._app, self._wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        headers = dict(cast("list[tuple[bytes, bytes]]", scope.get("headers", [])))  # of ASGI
        if scope["type"] == "http" and not hmac.compare_digest(headers.get(b"authorization", b""), self._wanted):
            refusal = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": refusal})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_installed() -> None:
    if find_spec("mcp") is None:
        raise ConfigError("an MCP server needs the extra mcp: pip install 'mai-kernel[mcp]'")
