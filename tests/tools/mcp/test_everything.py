"""The reference server of the protocol, ``@modelcontextprotocol/server-everything``, which node runs.

Set ``MCP_SERVER_EVERYTHING`` to its ``dist/index.js``; without that these tests are skipped.
"""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mai.tools import ArgumentsRefused, MCPProgress, MCPTools, ServerGone, ToolError
from mai.types import Emitted

SERVER = os.environ.get("MCP_SERVER_EVERYTHING", "")
KEY = "sk-canary-123456"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(SERVER).is_file(), reason="MCP_SERVER_EVERYTHING does not name the npm server"),
]


def everything() -> MCPTools:
    return MCPTools(["node", SERVER, "stdio"], env={"SERVICE_API_KEY": KEY})


def nodes() -> list[int]:
    """The node processes that this one has started."""
    done = subprocess.run(["pgrep", "-P", str(os.getpid()), "node"], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


async def test_its_tools_are_called() -> None:
    async with everything() as server:
        assert len(server.tools) >= 10
        tools = {tool.name: tool for tool in server}
        assert (await tools["echo"].use({"message": "hello"})).text == "Echo: hello"
        assert (await tools["get-sum"].use('{"a": 2, "b": 3}')).text == "The sum of 2 and 3 is 5."
        structured = await tools["get-structured-content"].use({"location": "Chicago"})
        assert set(structured.value) == {"temperature", "conditions", "humidity"}
        assert "[image/png, " in (await tools["get-tiny-image"].use({})).text
        assert "[link demo://" in (await tools["get-resource-links"].use({"count": 2})).text
        environment = await tools["get-env"].use({})
        assert "SERVICE_API_KEY" in environment.text
        assert KEY not in environment.text
    assert nodes() == []


async def test_bad_arguments_are_refused() -> None:
    async with everything() as server:
        tools = {tool.name: tool for tool in server}
        for name, arguments in (("echo", {"msg": "x"}), ("echo", {}), ("get-sum", {"a": 1, "b": 2, "c": 3})):
            assert isinstance((await tools[name].use(arguments)).error, ArgumentsRefused)
        wrong = await tools["get-sum"].use({"a": "one", "b": 2})
        assert type(wrong.error) is ToolError
        assert "expected number" in wrong.text


async def test_a_cancelled_call_tells_its_progress_and_keeps_the_session() -> None:
    async with everything() as server:
        tools = {tool.name: tool for tool in server}
        handle = tools["trigger-long-running-operation"].start(duration=60, steps=600)
        async for event in handle:
            if isinstance(event, Emitted):
                assert isinstance(event.value, MCPProgress)
                assert event.value.total == 600
                handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
        assert (await tools["echo"].use({"message": "still"})).text == "Echo: still"


async def test_killed_in_the_middle_of_a_call_it_is_told_and_nothing_is_left() -> None:
    async with everything() as server:
        tools = {tool.name: tool for tool in server}
        handle = tools["trigger-long-running-operation"].start(duration=60, steps=600)
        async for event in handle:
            if isinstance(event, Emitted):
                break
        for pid in nodes():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerGone, match="is gone: Connection closed"):
            await asyncio.wait_for(handle, 10)
        assert isinstance((await tools["echo"].use({"message": "x"})).error, ServerGone)
    assert nodes() == []
