"""What mypy and pyright must infer of tools: a Tool is called like the module inside."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, assert_type

from mai import Module, module
from mai.tools import CommandResult, HttpResponse, Tool, ToolResult, as_tools, files, http, shell


class Search(Module):
    """Search."""

    async def forward(self, query: str, k: int = 3) -> list[str]:
        return [query] * k


class Lookup(Module):
    """Look up."""

    def forward(self, key: str) -> int:
        return len(key)


@module
async def shout(text: str) -> str:
    """Shout."""
    return text.upper()


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


async def write(topic: str) -> AsyncIterator[str]:
    """Write."""
    yield topic


def is_large(arguments: Mapping[str, Any]) -> bool:
    return bool(arguments)


async def keeps_the_signature() -> None:
    assert_type(await Tool(Search())("x", k=2), list[str])
    assert_type(await Tool(Lookup(), approve=is_large)("x"), int)
    assert_type(await Tool(shout, name="loud", approve=True)("x"), str)
    assert_type(await Tool(add, on_error="raise").with_(timeout=1.0)(1, b=2), int)
    assert_type(await Tool(write)("x"), str)
    assert_type(await Tool(add).use({"a": 1}), ToolResult)
    assert_type(Tool(add).name, str)


async def refuses_wrong_arguments() -> None:
    await Tool(add)("x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await Tool(Search())("x", limit=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Tool(add, descripton="Add.")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def knows_what_the_tools_of_this_room_give() -> None:
    assert_type(await http("example.org")("https://example.org"), HttpResponse)
    assert_type(await shell("ls", cwd=".")("ls", ["-l"]), CommandResult)
    assert_type(as_tools(*files("."), add), tuple[Tool[..., Any], ...])
