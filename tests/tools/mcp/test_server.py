"""Modules as an MCP server, driven by the official client."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from mai import ConfigError, module
from mai.tools import Tool, files, mcp_server, serve_mcp
from tests.support import refused

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")
from mai.tools.mcp.server import Guard  # noqa: E402
from tests.tools.mcp.hostile import listening  # noqa: E402 (needs the extra)

KEY = "sk-canary-123456"
ROOT = Path(__file__).resolve().parents[3]


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first one.
    """
    return a + b


@module
async def fail(text: str) -> str:
    """Fail."""
    raise LookupError(f"no {text} with {KEY}")


@module
async def square(n: int) -> int:
    """Square."""
    return n * n


@module
async def squares(count: int) -> list[int]:
    """Square many numbers."""
    return await square.map(concurrency=2, progress=True)(range(count))


class Hanging:
    """A tool that never ends, and says when it has begun and when it was cleaned up."""

    def __init__(self) -> None:
        self.begun, self.cleaned = asyncio.Event(), asyncio.Event()

    async def hang(self, x: int) -> int:
        """Hang."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # which a cancel that comes again would not let through
            self.cleaned.set()
        return x


def text_of(result: Any) -> str:
    return str(result.content[0].text)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_API_KEY", KEY)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls_modules(mode: str) -> None:
    async with mcp.Client(mcp_server(add, fail, [squares]), mode=mode) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(listed) == ["add", "fail", "squares"]
        assert listed["add"].description == "Add two numbers."
        assert listed["add"].input_schema["properties"]["a"] == {"description": "The first one.", "type": "integer"}
        assert text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
        for arguments, words in (
            ({"a": 1, "c": 2}, "has no parameter 'c'"),
            ({"a": "x"}, "'a' must be int"),
            ({}, "'a'"),
        ):
            result = await client.call_tool("add", arguments)
            assert result.is_error
            assert words in text_of(result)
        result = await client.call_tool("fail", {"text": "thing"})
        assert (result.is_error, text_of(result)) == (True, "error: LookupError: no thing with [redacted]")
        with pytest.raises(mcp.MCPError, match="there is no tool 'gone'"):
            await client.call_tool("gone", {})


async def test_progress_of_a_map_is_told() -> None:
    told = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    async with mcp.Client(mcp_server(squares), mode="legacy") as client:
        result = await client.call_tool("squares", {"count": 3}, progress_callback=tell)
    assert text_of(result) == "[0,1,4]"
    assert told[-1] == (3, 3)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_cancelled_call_is_cleaned_up_and_the_session_goes_on(mode: str) -> None:
    hanging = Hanging()
    async with mcp.Client(mcp_server(hanging.hang, add), mode=mode) as client:
        call = asyncio.create_task(client.call_tool("hang", {"x": 1}))
        await asyncio.wait_for(hanging.begun.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(hanging.cleaned.wait(), 10)
        assert text_of(await client.call_tool("add", {"a": 1})) == "2"


async def test_what_needs_approval_fails_since_nobody_can_be_asked(tmp_path: Path) -> None:
    *_, write = files(tmp_path, write=True, approve=True)
    async with mcp.Client(mcp_server(write, Tool(fail, on_error="raise"))) as client:
        result = await client.call_tool("write_file", {"path": "x", "text": "y"})
        assert result.is_error
        assert "over MCP nobody can answer" in text_of(result)
        assert list(tmp_path.iterdir()) == []
        assert text_of(await client.call_tool("fail", {"text": "x"})) == "error: LookupError: no x with [redacted]"


def test_what_cannot_be_offered_is_refused() -> None:
    with refused(ConfigError, "mcp_server: name the modules that it offers"):
        mcp_server()
    with pytest.raises(ConfigError, match="two tools are called 'add'"):
        mcp_server(add, add)


async def test_others_than_this_machine_need_a_token() -> None:
    with refused(ConfigError, "serve_mcp: whoever reaches '0.0.0.0' could call the tools; give a token"):
        await serve_mcp(add, host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"whoever reaches 'example\.org'"):
        await serve_mcp(add, host="example.org")
    with refused(ConfigError, "serve_mcp: the token is shorter than 16 characters"):
        await serve_mcp(add, host="0.0.0.0", token="short")


@pytest.mark.slow
@pytest.mark.parametrize("given", ["the right token, really", "another", None])
async def test_a_token_is_asked_for(given: str | None) -> None:
    import httpx2

    headers = {} if given is None else {"Authorization": f"Bearer {given}"}
    app = Guard(mcp_server(add).streamable_http_app(), "the right token, really")
    async with listening(app) as url, httpx2.AsyncClient(headers=headers) as http:
        if given != "the right token, really":
            assert (await http.post(url, json={})).status_code == 401
            return
        from mcp.client.streamable_http import streamable_http_client

        async with mcp.Client(streamable_http_client(url, http_client=http)) as client:
            assert text_of(await client.call_tool("add", {"a": 1})) == "2"


SOURCE = '''
from mai import module

print("a stray word on stdout")


@module
async def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    print("another one")
    return a + b
'''


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_command_serves_over_stdio(tmp_path: Path, mode: str) -> None:
    (tmp_path / "steps.py").write_text(SOURCE)
    started = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "mai.cli", "serve-mcp", f"{tmp_path}/steps.py:add"],
        env={"PYTHONPATH": os.pathsep.join([str(Path(sys.modules["mai"].__file__ or "").parents[1])])},
    )
    with (tmp_path / "log").open("w") as log:
        async with mcp.Client(mcp.stdio_client(started, errlog=log), mode=mode) as client:
            assert text_of(await client.call_tool("add", {"a": 2})) == "3"
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert "a stray word on stdout\n" in said
    assert "another one\n" in said


@pytest.mark.slow
async def test_the_command_serves_over_http(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(SOURCE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mai.cli", "serve-mcp", f"{tmp_path}/steps.py:add", "--http", f"127.0.0.1:{port}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        while True:
            try:
                async with mcp.Client(f"http://127.0.0.1:{port}/mcp") as client:
                    assert text_of(await client.call_tool("add", {"a": 2})) == "3"
                break
            except (OSError, ExceptionGroup, mcp.MCPError):
                assert process.returncode is None
                await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert b"Traceback" not in err
    assert b"a stray word" in out


HANGING = '''
import asyncio
from pathlib import Path

from mai import module


@module
async def hang(place: str) -> str:
    """Hang."""
    Path(place, "begun").touch()
    try:
        await asyncio.Event().wait()
    finally:
        Path(place, "cleaned").touch()
    return place
'''


def message(method: str, params: dict[str, Any], number: int | None = None) -> bytes:
    told = {"jsonrpc": "2.0", "method": method, "params": params, **({} if number is None else {"id": number})}
    return json.dumps(told).encode() + b"\n"


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["SIGINT", "SIGTERM", "EOF"])
async def test_a_signal_ends_the_command_and_cleans_up_though_the_client_says_nothing_more(
    tmp_path: Path, ended: str
) -> None:
    (tmp_path / "steps.py").write_text(HANGING)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mai.cli", "serve-mcp", f"{tmp_path}/steps.py:hang",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    process.stdin.write(message("initialize", client, 1) + message("notifications/initialized", {}))
    process.stdin.write(message("tools/call", {"name": "hang", "arguments": {"place": str(tmp_path)}}, 2))
    while not (tmp_path / "begun").exists():
        assert process.returncode is None
        await asyncio.sleep(0.01)
    if ended == "EOF":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, ended))
    assert process.stdout is not None
    out, code = await asyncio.wait_for(asyncio.gather(process.stdout.read(), process.wait()), 20)
    assert (code, (tmp_path / "cleaned").exists()) == (0, True)
    assert json.loads(out.splitlines()[0])["result"]["serverInfo"]["name"] == "mai"
