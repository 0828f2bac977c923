"""HTTP as a tool: a model may ask the hosts that are named, and nothing that is not public.

The name of a host is resolved once, the addresses are checked, and the connection goes to an address that was checked,
after each redirect again: there is no second look-up that could answer otherwise. The client is a small one of its own,
on the streams of asyncio, because that is the one place where the connection can be made so.
"""

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from http.client import HTTPException, parse_headers
from io import BytesIO
from typing import Any, Unpack
from urllib.parse import urljoin

from mai.errors import ConfigError
from mai.layers import Module, module
from mai.middleware.redact import Redactor
from mai.values.checked import COUNT, SECONDS, checked

from .addresses import Hosts, Network, Target, check_address, networks, target_of
from .errors import AccessRefused, ToolError
from .tool import Tool, ToolPolicy

Resolve = Callable[[str, int], Awaitable[list[str]]]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_CHARSET = re.compile(r"(utf|iso-8859|windows|cp|us-ascii|ascii|latin|gb|big5|euc|shift_jis|koi8)[a-z0-9_-]*")
_REDIRECTS = (301, 302, 303, 307, 308)
_HEAD = 65536  # bytes of a status line and headers, and of a line between chunks
_OURS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade", "te", "trailer"}
_SECRET = re.compile("auth|key|token|secret|password|credential|cookie|session", re.IGNORECASE)
_SHORTEST = 8  # characters of a secret; what is shorter would be found in words
_BODILESS = (204, 304)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server answered.

    Attributes:
        status: The status code; a 404 is an answer, too.
        url: Where the answer came from, after redirects.
        content_type: What the server calls the content.
        text: The content; empty where it is no text.
        size: Length of what came [bytes].
        complete: Whether that is all of it.
    """

    status: int
    url: str
    content_type: str
    text: str
    size: int
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Message
    body: bytes
    complete: bool


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of *host*, as the system knows them; it may block."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpRequest(Module):
    """Sends a request over HTTP to a host that may be asked, and follows redirects to such."""

    resolve: Resolve

    def __init__(
        self, hosts: Hosts, *, methods: tuple[str, ...], headers: Mapping[str, str], private: tuple[Network, ...],
        max_bytes: int, redirects: int, context: ssl.SSLContext | None,
    ) -> None:  # fmt: skip
        self._hosts, self._methods, self._headers, self._private = hosts, methods, headers, private
        self._max_bytes, self._redirects, self._context = max_bytes, redirects, context
        self._redactor = Redactor(*_secrets_of(headers))
        self.resolve = module(resolve)  # in a worker thread of the engine, which a cancel leaves behind

    async def forward(
        self, url: str, method: str = "GET", body: str = "", content_type: str = "application/json", accept: str = "*/*"
    ) -> HttpResponse:
        """Ask a web server.

        Args:
            url: The whole URL, beginning with https:// or http://.
            method: GET, HEAD, POST, PUT, PATCH or DELETE, where they are allowed.
            body: What to send with POST, PUT and PATCH.
            content_type: What the body is.
            accept: Which content is wanted.
        """
        if method not in self._methods:
            raise AccessRefused(f"the method {method!r} is not allowed; allowed: {', '.join(self._methods)}")
        if body and method in ("GET", "HEAD"):
            raise ToolError(f"a request with {method} has no body")
        target = target_of(url)
        headers = {"Accept": accept, **({"Content-Type": content_type} if body else {}), **self._headers}
        request = _Request(method, target, _checked_headers(headers), body.encode())
        try:
            return await self._followed(request)
        except ToolError as error:  # raised below, so that it drags no secret along
            failure = type(error)(self._redactor.text(str(error)))
        raise failure

    async def _followed(self, request: _Request) -> HttpResponse:
        """Return the answer to *request*, after redirects, without our secrets."""
        first = request.target
        for _ in range(self._redirects + 1):
            answer = await self._answer(request)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return _response(request.target, answer, self._redactor)
            request = self._redirected(request, answer.status, location)
        raise ToolError(f"{first.url} redirects more than {self._redirects} times")

    def _redirected(self, request: _Request, status: int, location: str) -> _Request:
        """Return the request that follows a redirect; what was ours to say to one server is not said to another."""
        target = target_of(urljoin(request.target.url, location))
        if request.target.scheme == "https" and target.scheme == "http":
            raise AccessRefused(f"{request.target.url} redirects to {target.url}, which is not encrypted")
        headers = dict(request.headers)
        if target.origin != request.target.origin:
            headers = {key: value for key, value in headers.items() if key not in self._headers}
        turns = status == 303 or (status in (301, 302) and request.method == "POST")
        if turns and request.method not in ("GET", "HEAD"):
            headers.pop("Content-Type", None)
            return _Request("GET", target, headers, b"")
        return replace(request, target=target, headers=headers)

    async def _answer(self, request: _Request) -> _Answer:
        """Connect to a checked address and return the answer."""
        target = request.target
        self._hosts.check(target)
        try:
            found = await self.resolve(target.host, target.port)
        except OSError as error:
            raise ToolError(f"{target.host!r} is not known: {error}") from error
        addresses = [
            check_address(one, target.host, self._private) for one in found
        ]  # one that is not public spoils all
        reader, writer = await self._connected(target, addresses)
        try:
            writer.write(_head(request) + request.body)
            await writer.drain()
            return await _read_answer(reader, request.method, self._max_bytes)
        except asyncio.IncompleteReadError as error:
            raise ToolError(f"{target.url} closed the connection in the middle of its answer") from error
        except (asyncio.LimitOverrunError, HTTPException, ValueError, zlib.error) as error:
            raise ToolError(f"{target.url} answers no HTTP that can be read: {error}") from error
        finally:
            writer.transport.abort()

    async def _connected(
        self, target: Target, addresses: list[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to the first of *addresses* that accepts one."""
        secure = target.scheme == "https"
        tls: dict[str, Any] = {"ssl": self._context or ssl.create_default_context(), "server_hostname": target.host}
        failures = list[str]()
        for address in addresses:
            try:
                return await asyncio.open_connection(address, target.port, limit=_HEAD, **(tls if secure else {}))
            except OSError as error:  # ssl.SSLError is one
                failures.append(str(error))
        raise ToolError(f"no connection to {target.authority}: {'; '.join(failures) or 'it has no address'}")


def http(
    *hosts: str,
    methods: tuple[str, ...] = ("GET", "HEAD"),
    headers: Mapping[str, str] | None = None,
    private: tuple[str, ...] = (),
    max_bytes: int = 1_000_000,
    timeout: float = 30.0,
    redirects: int = 5,
    context: ssl.SSLContext | None = None,
    **policy: Unpack[ToolPolicy],
) -> Tool[..., HttpResponse]:
    """Return the tool ``http_request``, which asks *hosts* over HTTP.

    Only public addresses are connected to, however a host is spelt and whatever it resolves to; redirects are followed
    to such hosts only. Proxies of the environment are not used.

    Args:
        hosts: Who may be asked: ``"api.example.org"``, ``"*.example.org"`` (all below it), each also with ``":8443"``;
            ``"*"`` for every public host.
        methods: What may be asked.
        headers: Headers that every request has, such as ``Authorization``; no other server than the one that was asked
            gets them by a redirect, and the model does not see them: what a server repeats of those that are called
            like secrets (a key, a cookie) is taken out.
        private: Networks, such as ``"10.1.0.0/16"``, that may be connected to though they are not public.
        max_bytes: Most bytes of an answer that are kept, from 1.
        timeout: How long all of it may take [s].
        redirects: Most redirects that are followed, from 0.
        context: The TLS settings; None: the default ones.
        policy: As of `Tool`.

    Raises:
        ConfigError: If an argument cannot be used.

    Example:
        >>> from mai.tools import http
        >>> tool = http("*.example.org")
        >>> (await tool.use({"url": "http://2130706433/"})).text
        "error: AccessRefused: '2130706433' is a number, not a host name; write an address as 192.0.2.1"
        >>> (await tool.use({"url": "https://example.com/"})).text
        'error: AccessRefused: example.com is not among the hosts that may be asked'
    """
    for method in methods:
        if not re.fullmatch("[A-Z]+", method):
            raise ConfigError(f"http: {method!r} is no method; write it as 'GET'")
    if redirects < 0:
        raise ConfigError(f"http: redirects={redirects!r} cannot be used; give 0 or more")
    fixed = dict(headers or {})
    try:
        _checked_headers(fixed)
    except ToolError as error:
        raise ConfigError(f"http: {error}") from error
    request = HttpRequest(
        Hosts(*hosts), methods=methods, headers=fixed, private=networks(private),
        max_bytes=checked("http", "max_bytes", max_bytes, COUNT), redirects=redirects, context=context,
    ).with_(timeout=checked("http", "timeout", timeout, SECONDS))  # fmt: skip
    return Tool(request, name="http_request", **policy)


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for key, value in headers.items():
        if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ToolError(f"the header {key!r} has a character that no header may have")
        if key.lower() in _OURS:
            raise ToolError(f"the header {key!r} is set by the tool itself")
    return dict(headers)


def _secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Return what stands in headers that are called like secrets: a server may repeat it."""
    values = [value.rpartition(" ")[2] for key, value in headers.items() if _SECRET.search(key)]
    return [value for value in values if len(value) >= _SHORTEST]


def _head(request: _Request) -> bytes:
    lines = [f"{request.method} {request.target.path} HTTP/1.1", f"Host: {request.target.authority}"]
    lines += [f"{key}: {value}" for key, value in request.headers.items()]
    lines += ["Accept-Encoding: gzip, deflate", "Connection: close"]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(request.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read_answer(reader: asyncio.StreamReader, method: str, most: int) -> _Answer:
    """Read one answer; of its body at most *most* bytes, as they come and as they unpack."""
    status, headers = 100, Message()
    while status < 200:  # 1xx only announce
        first = await reader.readuntil(b"\n")
        match = _STATUS.fullmatch(first)
        if match is None:
            raise ValueError(f"its first line is {first[:60]!r}")
        status, raw = int(match[1]), bytearray()
        while (line := await reader.readuntil(b"\n")) not in (b"\r\n", b"\n"):
            raw += line
            if len(raw) > _HEAD:
                raise ValueError("its headers are too long")
        headers = parse_headers(BytesIO(raw + b"\r\n"))
    if method == "HEAD" or status in _BODILESS:
        return _Answer(status, headers, b"", complete=True)
    body, complete = await _read_body(reader, headers, most)
    packed = headers.get("Content-Encoding", "").lower()
    if packed in ("gzip", "x-gzip", "deflate"):
        body, complete = _unpacked(body, most, complete=complete)
    return _Answer(status, headers, body, complete)


async def _read_body(reader: asyncio.StreamReader, headers: Message, most: int) -> tuple[bytes, bool]:
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return await _read_chunks(reader, most)
    given = headers.get("Content-Length")
    if given is None:
        body = await _read_up_to(reader, most + 1)
        return body[:most], len(body) <= most
    if not given.isascii() or not given.isdigit():
        raise ValueError(f"its Content-Length is {given!r}")
    return await reader.readexactly(min(int(given), most)), int(given) <= most


async def _read_chunks(reader: asyncio.StreamReader, most: int) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        line = (await reader.readuntil(b"\n")).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", line):
            raise ValueError(f"a chunk begins with {line[:20]!r}")
        size = int(line, 16)
        if size == 0:
            return bytes(body), True
        body += await reader.readexactly(min(size, most + 1 - len(body)))
        if len(body) > most:
            return bytes(body[:most]), False
        await reader.readuntil(b"\n")


async def _read_up_to(reader: asyncio.StreamReader, most: int) -> bytes:
    body = bytearray()
    while len(body) < most and (data := await reader.read(most - len(body))):
        body += data
    return bytes(body)


def _unpacked(body: bytes, most: int, *, complete: bool) -> tuple[bytes, bool]:
    """Return what *body* unpacks to, at most *most* bytes of it."""
    try:
        unpacker = zlib.decompressobj(47)  # gzip or zlib
        out = unpacker.decompress(body, most + 1)
    except zlib.error:
        unpacker = zlib.decompressobj(-15)  # what some servers call deflate
        out = unpacker.decompress(body, most + 1)
    return out[:most], complete and len(out) <= most and unpacker.eof


def _response(target: Target, answer: _Answer, redactor: Redactor) -> HttpResponse:
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    told = str(answer.headers.get_content_charset(""))
    charset = told if _CHARSET.fullmatch(told) else "utf-8"  # Python has codecs that are none, and slow ones
    wide = charset.startswith(("utf-16", "utf-32"))
    try:
        text = answer.body.decode(charset, "replace") if wide or b"\0" not in answer.body else ""
    except LookupError:
        text = answer.body.decode("utf-8", "replace")
    text, url = redactor.text(text), redactor.text(target.url)
    return HttpResponse(answer.status, url, kind, text, len(answer.body), answer.complete)
