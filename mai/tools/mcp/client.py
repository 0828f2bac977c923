"""MCPTools: the tools of an MCP server, as modules.

A server is another's program. What it says of its tools goes into a model's prompt, so it is pinned: a tool whose name,
description or schema is not what was approved is not called. What it answers is capped, and the secrets that it was
given are taken out of it.
"""

import asyncio
import contextvars
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, Unpack, cast

from opentelemetry.trace import SpanKind
from pydantic import TypeAdapter

from mai.core.clock import clock
from mai.core.events import emit
from mai.errors import ConfigError
from mai.layers import Module
from mai.values.checked import SECONDS, checked, near

from ..errors import ArgumentsRefused, ServerGone, ToolChanged, ToolError
from ..tool import Tool, ToolPolicy, as_tools
from ..written import as_text
from .connection import Connection

if TYPE_CHECKING:
    from mcp.types import CallToolResult
    from mcp.types import Tool as Definition

_PAGES = 100  # of a list of tools
_MOST = 10_000_000  # characters of an answer


@dataclass(frozen=True, slots=True)
class MCPProgress:
    """What a server tells while a tool runs; it comes as the value of an `mai.types.Emitted` event.

    Attributes:
        tool: The name of the tool.
        progress: How much is done.
        total: How much there is; None if the server does not tell.
        message: What it says of it.
    """

    tool: str
    progress: float
    total: float | None = None
    message: str | None = None


class MCPCall(Module[Any, Any]):
    """Calls one tool of an MCP server."""

    def __init__(self, server: "MCPTools", definition: "Definition") -> None:
        self._server, self._definition = server, definition
        self.description: str = definition.description or definition.title or definition.name
        self.input_schema: dict[str, Any] = _closed(definition.input_schema)

    async def forward(self, /, **arguments: Any) -> Any:  # type: ignore[override]
        """Call the tool.

        Raises:
            ArgumentsRefused: If an argument is unknown or missing.
            ToolChanged: If the server says other things of the tool than were approved.
            ServerGone: If the connection to the server is closed.
            ToolError: If the server says that the tool failed.
        """
        self._check(arguments)
        return await self._server._call(self._definition, arguments)

    def _check(self, arguments: Mapping[str, Any]) -> None:
        """Refuse what servers tend to drop in silence."""
        name, known = self._definition.name, self.input_schema["properties"]
        if self.input_schema["additionalProperties"] is False:
            for key in arguments:
                if key not in known:
                    raise ArgumentsRefused(f"{name} has no parameter {key!r}{near(key, known)}", tool=name)
        missing = [key for key in self.input_schema.get("required", ()) if key not in arguments]
        if missing:
            raise ArgumentsRefused(f"{name} is missing its argument {missing[0]!r}", tool=name)


class MCPTool(Tool[..., Any]):
    """A tool that another process executes: its span is the one of the call that leaves this process."""

    _mai_span_kind = SpanKind.CLIENT


class MCPTools:
    """The tools of an MCP server, over stdio or streamable HTTP, for the length of an ``async with`` block.

    Leaving the block closes the connection, and ends the server if it was started here, with all its processes. It
    belongs to the event loop in which the block was entered.

    What a server says of a tool is pinned by a hash of its name, description and schema. Without *pins*, what it says
    first counts for this block. With a mapping or a file, a tool is only there if it is pinned with that hash; the
    others are in ``refused``, until ``approve``. A file that does not exist yet is written with what the server says.

    Args:
        server: The URL of its endpoint, or its command as a list of arguments.
        pins: The hashes that were approved, by name; or the JSON file that keeps them.
        prefix: What stands before the names of the tools for the model, such as ``"github_"``.
        env: What is in the server's environment beside ``PATH``, ``HOME`` and the like.
        cwd: Where the server runs.
        headers: Headers of each request, such as ``Authorization``.
        timeout: How long connecting and listing may take [s].
        call_timeout: How long each call may take [s]; None: as long as it likes.
        max_age: How old the list of tools may be [s] when one is called; an older one, and one of which the server says
            that it has changed, is asked for again before.
        stderr: Where the server's complaints go, a file with a descriptor; None: nowhere, as they may hold secrets.
        policy: As of `Tool`.

    Raises:
        ConfigError: If an argument cannot be used; when entered, if the extra ``mcp`` is not installed.
        ServerGone: When entered, if the server cannot be reached.

    Attributes:
        tools: The tools that may be called.
        refused: Why each of the others may not.
        pins: The hashes that are approved.

    Example:
        >>> from mai.tools import MCPTools
        >>> server = MCPTools(["npx", "-y", "@modelcontextprotocol/server-everything"], prefix="every_")
        >>> [tool.name for tool in server]  # there are some only inside of its block
        []
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        pins: Mapping[str, str] | str | os.PathLike[str] | None = None,
        prefix: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        call_timeout: float | None = None,
        max_age: float = 60.0,
        stderr: TextIO | None = None,
        **policy: Unpack[ToolPolicy],
    ) -> None:
        target: str | list[str] = server if isinstance(server, str) else list(server)
        if not target or (isinstance(target, str) and not target.startswith(("http://", "https://"))):
            raise ConfigError(f"MCPTools: {server!r} is neither an http(s) URL nor a command such as ['npx', 'server']")
        self._timeout = checked("MCPTools", "timeout", timeout, SECONDS)
        self._limit = None if call_timeout is None else checked("MCPTools", "call_timeout", call_timeout, SECONDS)
        self._max_age = checked("MCPTools", "max_age", max_age, SECONDS)
        self._prefix, self._policy = prefix, policy
        self._connection = Connection(
            target, env=env or {}, cwd=cwd, headers=headers or {}, stderr=stderr, changed=self._note_change
        )
        self._file: Path | None = Path(pins) if isinstance(pins, str | os.PathLike) else None
        self.pins: dict[str, str] = dict(pins) if isinstance(pins, Mapping) else {}
        self._trusts_first = pins is None
        self._known: dict[str, Definition] = {}
        self._listed = 0.0  # when the list was asked for [s]
        self._changed = False  # the server has said that its list is another one
        self.tools: tuple[Tool[..., Any], ...] = ()
        self.refused: dict[str, str] = {}

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(self.tools)

    async def __aenter__(self) -> Self:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await self._connection.open()
                await self._list(trust=self._read_pins())
        except BaseException as error:
            await self._connection.close()
            if limit.expired() and isinstance(error, TimeoutError):
                raise ServerGone(f"the MCP server {self!r} did not answer within {self._timeout:g} s") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tools = ()
        await self._connection.close()

    # ---------------------------------------------------------------- pins

    async def refresh(self) -> None:
        """Ask the server for its tools again; a tool that has changed is refused from now on.

        Raises:
            ServerGone: If the server does not answer.
            ConfigError: If two tools have one name for the model.
        """
        await self._list(trust=False)

    async def _list(self, *, trust: bool) -> None:
        self._changed, self._listed, found, cursor = (
            False,
            clock.now(),
            dict[str, "Definition"](),
            cast("str | None", None),
        )
        for _ in range(_PAGES):
            at = cursor
            page = await self._connection.ask(lambda client, at=at: client.list_tools(cursor=at, cache_mode="refresh"))  # type: ignore[misc]
            found |= {definition.name: definition for definition in page.tools}
            cursor = page.next_cursor
            if cursor is None:
                break
        self._known = found
        if trust:
            self.approve()
        else:
            self._sort()

    def _note_change(self) -> None:
        self._changed = True

    def _read_pins(self) -> bool:
        """Read what was approved; return whether what the server says first is."""
        if self._file is None or not self._file.exists():
            return self._trusts_first or self._file is not None
        try:
            self.pins = TypeAdapter(dict[str, str]).validate_json(self._file.read_bytes())
        except ValueError as error:
            raise ConfigError(f"MCPTools: {str(self._file)!r} has no pins: {error}") from error
        return False

    def approve(self, *names: str) -> None:
        """Approve what the server says of its tools now; of all of them, or of those that are named.

        Raises:
            ConfigError: If it has no tool of that name.
        """
        for name in names:
            if name not in self._known:
                raise ConfigError(f"{self!r} has no tool {name!r}{near(name, self._known)}")
        self.pins |= {name: fingerprint(self._known[name]) for name in names or self._known}
        if self._file is not None:
            self._file.write_text(json.dumps(self.pins, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        self._sort()

    def _sort(self) -> None:
        """Tell the tools that may be called from the others."""
        self.refused, allowed = {}, list[Tool[..., Any]]()
        for name, definition in self._known.items():
            why = self._objection(definition)
            if why:
                self.refused[name] = why
            else:
                call = MCPCall(self, definition).with_(timeout=self._limit)
                allowed.append(MCPTool(call, name=_name(self._prefix + name), **self._policy))
        self.tools = as_tools(allowed)

    def _objection(self, definition: "Definition") -> str:
        pinned = self.pins.get(definition.name)
        if pinned is None:
            return "it is new, and not approved"
        return "" if pinned == fingerprint(definition) else "its description or schema is not the one that was approved"

    # ---------------------------------------------------------------- calls

    async def _call(self, definition: "Definition", arguments: dict[str, Any]) -> Any:
        """Call a tool as it was pinned, and return its structured content, or else its text.

        Raises:
            ToolChanged: If the server says other things of it now.
            ServerGone: If the connection is closed.
            ToolError: If the server says that it failed.
        """
        name = definition.name
        if self._changed or clock.now() - self._listed > self._max_age:
            await self.refresh()
        now = self._known.get(name)
        objection = "the server has it no more" if now is None else self._objection(now)
        if not objection and fingerprint(definition) != self.pins[name]:
            objection = "it was approved in another form; take the tool from tools again"
        if objection:
            raise ToolChanged(f"{name} is not called: {objection}", tool=name)
        context = contextvars.copy_context()  # that of this step: what is told belongs to it

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            context.run(emit, MCPProgress(name, progress, total, message))

        result = await self._connection.ask(
            lambda client: client.call_tool(name, arguments, progress_callback=tell), name
        )
        return self._value(name, result)

    def _value(self, name: str, result: "CallToolResult") -> Any:
        text, redactor, structured = "\n".join(map(_text, result.content)), self._connection.redactor, None
        if result.structured_content is not None:
            structured = redactor.value(result.structured_content)
        if max(len(text), len(as_text(structured))) > _MOST:
            raise ToolError(f"{name} answers with more than {_MOST} characters", tool=name)
        if result.is_error:
            raise ToolError(f"{name} failed: {redactor.text(text)}", tool=name)
        return redactor.text(text) if structured is None else structured

    def __repr__(self) -> str:
        return repr(self._connection)


def fingerprint(definition: "Definition") -> str:
    """Return the hash by which a tool is pinned: of its name, description and schema."""
    told = {"name": definition.name, "description": definition.description, "schema": definition.input_schema}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return *schema* so that it allows no other arguments, unless it says itself that it does."""
    more = schema.get("additionalProperties", bool(schema.get("patternProperties")))
    return {"type": "object", "properties": {}, **schema, "additionalProperties": more}


def _name(name: str) -> str:
    """Return *name* with the characters that a tool's name may have for a model."""
    return re.sub("[^A-Za-z0-9_-]", "_", name)[:64]


def _text(block: Any) -> str:
    """Return a part of an answer as text; of what is none, what it is."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource_link":
        return f"[link {block.uri}]"
    holder = block.resource if block.type == "resource" else block
    if hasattr(holder, "text"):
        return str(holder.text)
    data = str(holder.blob if block.type == "resource" else holder.data)
    return f"[{holder.mime_type or block.type}, {len(data) * 3 // 4} bytes]"
