"""HTTP as a tool: who is connected to, what is sent, how much is read, and what an odd server can do."""

import asyncio
import gzip
import re
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mai import ConfigError, DeadlineExceeded
from mai.tools import AccessRefused, HttpResponse, Tool, ToolError, http
from mai.tools.addresses import Hosts, target_of
from mai.tools.http import HttpRequest, _Request
from tests.support import refused, refused_value

CERTIFICATE = Path(__file__).with_name("api_example.pem")
"""Of a server called api.example, with its key; made for these tests, and trusted by nobody else."""


class Server:
    """A server on loopback: it keeps what it was asked and answers with the bytes that the test gives."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: dict[str, bytes] = {}
        self.hang = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
            self.asked.append(head + await reader.readexactly(size))
            path = head.split(b" ")[1].decode()
            writer.write(self.answers.get(path, page(b"not here", status="404 Not Found")))
            await writer.drain()
            if path.startswith("/hang"):
                self.hang.set()
                await reader.read()
                self.gone.set()
        except (OSError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    def tool(self, *hosts: str, found: dict[str, list[str]] | None = None, **how: Any) -> Tool[..., HttpResponse]:
        """The tool, to which every name leads here unless *found* says where."""
        self.looked: list[str] = []

        async def resolve(host: str, port: int) -> list[str]:
            self.looked.append(host)
            return (found or {}).get(host, ["127.0.0.1"])

        tool = http(*(hosts or (f"*:{self.port}",)), **{"private": ("127.0.0.1/32",), **how})
        tool.inner = tool.inner.with_(resolve=resolve)
        return tool

    def url(self, path: str = "/", host: str = "api.example") -> str:
        return f"http://{host}:{self.port}{path}"


def page(body: bytes, *headers: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    loop, handler = asyncio.get_running_loop(), asyncio.get_running_loop().get_exception_handler()
    if context is not None:  # a client that leaves in the handshake is nothing that this server is to be blamed for
        loop.set_exception_handler(lambda *_: None)
    async with listening:
        yield server
        for _ in range(10):  # until it has seen that, too
            await asyncio.sleep(0)
    loop.set_exception_handler(handler)


async def test_a_page_is_fetched() -> None:
    async with serving() as server:
        server.answers["/a?q=1"] = page("grüß".encode("latin-1"), kind="text/html; charset=ISO-8859-1")
        answer = await server.tool()(server.url("/a?q=1"))
        assert answer == HttpResponse(200, server.url("/a?q=1"), "text/html", "grüß", 4)
        head = server.asked[0].decode().split("\r\n")
    assert head[:2] == ["GET /a?q=1 HTTP/1.1", f"Host: api.example:{server.port}"]
    assert {"Accept: */*", "Connection: close"} < set(head)


async def test_a_body_is_sent() -> None:
    async with serving() as server:
        server.answers["/"] = page(b"done")
        tool = server.tool(methods=("POST",), headers={"Authorization": "Bearer sk-1"})
        assert (await tool(server.url(), method="POST", body="{}")).text == "done"
        asked = server.asked[0]
        assert b"Authorization: Bearer sk-1\r\n" in asked
        assert b"Content-Type: application/json\r\n" in asked
        assert asked.endswith(b"Content-Length: 2\r\n\r\n{}")


async def test_a_failure_of_the_server_is_an_answer() -> None:
    async with serving() as server:
        answer = await server.tool()(server.url("/gone"))
    assert (answer.status, answer.text) == (404, "not here")


@pytest.mark.parametrize(
    ("headers", "body", "text", "complete"),
    [
        ("Content-Length: 5", b"hello", "hello", True),
        ("Content-Length: 99", b"x" * 99, "x" * 10, False),
        ("X: y", b"hello", "hello", True),
        ("X: y", b"x" * 99, "x" * 10, False),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n4;a=b\r\n you\r\n0\r\n\r\n", "hello you", True),
        ("Transfer-Encoding: chunked", b"A\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n", "x" * 10, True),
        ("Transfer-Encoding: chunked", b"FFFFFFFFFFFF\r\n" + b"x" * 99, "x" * 10, False),
        ("Content-Encoding: gzip\r\nContent-Length: 25", gzip.compress(b"hello", mtime=0), "hello", True),
        ("Content-Encoding: deflate\r\nX: y", zlib.compress(b"hi")[2:-4], "hi", True),
        ("Content-Length: 3", b"a\0b", "", True),
        ("Content-Type: text/plain; charset=utf-16\r\nContent-Length: 6", "hi".encode("utf-16"), "hi", True),
        ("Content-Type: text/plain; charset=idna\r\nContent-Length: 2", b"hi", "hi", True),
        ("Content-Type: text/plain; charset=utf-99\r\nContent-Length: 2", b"hi", "hi", True),
    ],
)
async def test_a_body_comes_in_many_ways_and_never_more_of_it_than_may(
    headers: str, body: bytes, text: str, complete: bool
) -> None:
    async with serving() as server:
        server.answers["/"] = f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body
        most = 30 if "gzip" in headers else 10
        answer = await server.tool(max_bytes=most)(server.url())
    assert (answer.text, answer.complete) == (text, complete)


@pytest.mark.slow
async def test_what_unpacks_to_very_much_is_cut_off() -> None:
    async with serving() as server:
        server.answers["/"] = page(gzip.compress(bytes(50_000_000).replace(b"\0", b"x")), "Content-Encoding: gzip")
        tracemalloc.start()
        try:
            answer = await server.tool(max_bytes=100_000)(server.url())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (len(answer.text), answer.complete) == (100_000, False)
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
    ids=lambda raw: repr(raw[:40]),
)
async def test_what_is_no_http_is_an_error_that_says_so(raw: bytes) -> None:
    async with serving() as server:
        server.answers["/"] = raw
        result = await server.tool().use({"url": server.url()})
    assert isinstance(result.error, ToolError)
    assert "closed the connection in the middle" in result.text or "no HTTP that can be read" in result.text


async def test_announcements_are_passed_over_and_a_head_has_no_body() -> None:
    async with serving() as server:
        server.answers["/"] = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + page(b"then")
        assert (await server.tool()(server.url())).text == "then"
        server.answers["/head"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
        assert (await server.tool()(server.url("/head"), method="HEAD")).status == 200
        server.answers["/none"] = b"HTTP/1.1 204 No Content\r\n\r\n"
        assert (await server.tool()(server.url("/none"))).status == 204


# ---------------------------------------------------------------- where it goes


@pytest.mark.parametrize(
    "found",
    [["127.0.0.2"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["93.184.216.34", "127.0.0.2"], ["fe80::1%lo"], []],
)
async def test_a_name_that_leads_elsewhere_is_not_connected_to(found: list[str]) -> None:
    async with serving() as server:
        result = await server.tool(found={"evil.example": found}).use({"url": server.url(host="evil.example")})
        assert isinstance(result.error, AccessRefused if found else ToolError)
        assert server.asked == []


async def test_a_name_is_looked_up_once_so_that_it_cannot_answer_otherwise_when_connected_to() -> None:
    async with serving() as server:
        server.answers["/"] = page(b"x")
        turns = iter([["127.0.0.1"], ["169.254.169.254"]])

        async def rebinding(host: str, port: int) -> list[str]:
            return next(turns)

        tool = http(f"*:{server.port}", private=("127.0.0.1/32",))
        tool.inner = tool.inner.with_(resolve=rebinding)
        assert (await tool(server.url())).text == "x"
        assert "169.254.169.254" in (await tool.use({"url": server.url()})).text
        assert len(server.asked) == 1


async def test_the_second_address_is_tried_where_the_first_accepts_nothing() -> None:
    async with serving() as server:
        server.answers["/"] = page(b"x")
        how = {"found": {"api.example": ["::1", "127.0.0.1"]}, "private": ("127.0.0.1/32", "::1/128")}
        assert (await server.tool(**how)(server.url())).text == "x"
        nowhere = server.tool(found={"api.example": ["::1"]}, private=("::1/128",))
        assert "no connection to api.example" in (await nowhere.use({"url": server.url()})).text


async def test_an_unknown_name_is_told() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    tool = http("*")
    tool.inner = tool.inner.with_(resolve=resolve)
    assert "'gone.example' is not known" in (await tool.use({"url": "http://gone.example/"})).text


async def test_the_system_resolves_numbers_without_asking_anybody() -> None:
    result = await http("*").use({"url": "http://127.0.0.1/"})
    assert result.text == "error: AccessRefused: '127.0.0.1' leads to 127.0.0.1, which is no public address"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://169.254.169.254/latest/", "is not among the hosts|no public address"),
        ("http://metadata.example:{port}/", "no public address"),
        ("http://other.test/", "is not among the hosts"),
        ("file:///etc/passwd", "does not begin with http"),
        ("//user:x@api.example:{port}/", "user name"),
        ("/again", "redirects more than 2 times"),
        ("http://0x7f.1:{port}/", "is a number"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(location: str, words: str) -> None:
    async with serving() as server:
        where = f"Location: {location.format(port=server.port)}"
        server.answers = {path: page(b"", where, status="302 Found") for path in ("/", "/again")}
        tool = server.tool(redirects=2, found={"metadata.example": ["169.254.169.254"]})
        result = await tool.use({"url": server.url()})
    assert re.search(words, result.text)
    assert {line.split(b"\r\n")[1] for line in server.asked} == {f"Host: api.example:{server.port}".encode()}


async def test_a_redirect_to_another_server_takes_nothing_with_it() -> None:
    async with serving() as server:
        there = server.url("/there", host="other.example")
        server.answers["/"] = page(b"", f"Location: {there}", status="307 Temporary")
        server.answers["/near"] = page(b"", "Location: /there", status="301 Moved")
        server.answers["/there"] = page(b"ok")
        tool = server.tool(headers={"Authorization": "Bearer sk-1"}, methods=("GET", "POST"))
        answer = await tool(server.url(), method="POST", body="x")
        assert (answer.url, answer.text) == (there, "ok")
        assert [b"sk-1" in asked for asked in server.asked] == [True, False]
        assert server.asked[1].startswith(b"POST")
        await tool(server.url("/near"), method="POST", body="x")
    assert server.asked[3].startswith(b"GET /there")
    assert b"sk-1" in server.asked[3]
    assert b"Content-Type" not in server.asked[3]


async def test_a_redirect_away_from_encryption_is_refused() -> None:
    request = HttpRequest(Hosts("*"), methods=(), headers={}, private=(), max_bytes=1, redirects=1, context=None)
    given = _Request("GET", target_of("https://example.org/"), {}, b"")
    with pytest.raises(AccessRefused, match="which is not encrypted"):
        request._redirected(given, 302, "http://example.org/")
    assert request._redirected(given, 303, "/x").target.url == "https://example.org/x"


async def test_tls_is_checked_against_the_name_though_the_connection_goes_to_an_address() -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(CERTIFICATE)
    async with serving(own) as server:
        server.answers["/"] = page(b"safe")
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        right, wrong = (server.url(host=host).replace("http:", "https:") for host in ("api.example", "other.example"))
        assert (await server.tool(context=trusting)(right)).text == "safe"
        assert "certificate" in (await server.tool(context=trusting).use({"url": wrong})).text
        assert "certificate" in (await server.tool().use({"url": right})).text
        assert len(server.asked) == 1


# ---------------------------------------------------------------- what may be asked


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "DELETE"},
        {"method": "get"},
        {"method": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"},
        {"method": "GET", "body": "x"},
        {"method": "POST", "body": "x", "content_type": "a\r\nHost: evil"},
        {"accept": "a\r\n\r\nGET /evil HTTP/1.1"},
        {"accept": "\0"},
        {"accept": "ä\u2028"},
        {"headers": {"Host": "evil"}},
    ],
)
async def test_what_may_not_be_asked_is_not_sent(arguments: dict[str, Any]) -> None:
    async with serving() as server:
        result = await server.tool(methods=("GET", "POST")).use({"url": server.url(), **arguments})
        assert not result.ok
        assert server.asked == []


@pytest.mark.slow
async def test_a_server_that_does_not_answer_has_its_time_and_is_left() -> None:
    async with serving() as server:
        server.answers["/hang"] = b""
        result = await server.tool(timeout=1.0).use({"url": server.url("/hang")})
        assert isinstance(result.error, DeadlineExceeded)
        server.answers["/hang2"] = b"HTTP/1.1 200 OK\r\nX"
        result = await server.tool(timeout=1.0).use({"url": server.url("/hang2")})
        assert isinstance(result.error, DeadlineExceeded)
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_cancel_closes_the_connection() -> None:
    async with serving() as server:
        server.answers["/hang"] = b"HTTP/1.1 200 OK\r\nX"
        handle = server.tool().start(server.url("/hang"))
        await asyncio.wait_for(server.hang.wait(), 5)
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
        await asyncio.wait_for(server.gone.wait(), 5)


def test_what_cannot_be_used_is_refused_when_the_tool_is_made() -> None:
    with refused(ConfigError, "http: name the hosts that may be asked; '*' stands for every public one"):
        http()
    for how in ({"methods": ("get",)}, {"redirects": -1}, {"headers": {"Host": "x"}}, {"headers": {"a": "\n"}}):
        with pytest.raises(ConfigError, match="http: "):
            http("*", **how)  # type: ignore[arg-type]
    with refused_value("http", "timeout", 0):
        http("*", timeout=0)
    with refused_value("http", "max_bytes", 0):
        http("*", max_bytes=0)


async def test_a_server_that_repeats_a_secret_header_does_not_show_it_to_the_model() -> None:
    async with serving() as server:
        key = "sk-canary/31415926"
        server.answers["/echo"] = page(f"you sent Bearer {key} and en-GB,en".encode(), kind="text/plain")
        server.answers["/move"] = page(b"", f"Location: /echo?key={key}", status="302 Found")
        headers = {"Authorization": f"Bearer {key}", "Accept-Language": "en-GB,en"}
        tool = server.tool(headers=headers)
        assert (await tool(server.url("/echo"))).text == "you sent Bearer [redacted] and en-GB,en"
        server.answers["/echo?key=sk-canary/31415926"] = server.answers["/echo"]
        moved = await tool(server.url("/move"))
        assert moved.url.endswith("/echo?key=[redacted]")
        server.answers["/odd"] = f"{key}\r\n".encode()
        odd = await tool.use({"url": server.url("/odd")})
        assert "no HTTP that can be read" in odd.text
        assert key not in f"{moved} {odd.text} {odd.error!r} {odd.error.__cause__!r}"
