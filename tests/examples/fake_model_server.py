"""A real HTTP server on this machine that speaks the OpenAI-compatible chat completions: well, badly, or not at all.

What it does with each request is a list of behaviours, the last of which stays. It records every request.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias

Json: TypeAlias = Any  # what json.loads gives


@dataclass(frozen=True)
class Request:
    """What was asked: the path, the headers by lower-case name, and the decoded body."""

    path: str
    headers: Mapping[str, str]
    body: Json


class Connection(BaseHTTPRequestHandler):
    """One request being answered; behaviours use `send` or take the socket into their own hands."""

    server: "_Listener"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, json.loads(body))
        self.close_connection = True
        self.server.fake.serve(self, request)

    def do_GET(self) -> None:  # only a followed redirect comes this way
        self.server.fake.serve(self, Request(self.path, {k.lower(): v for k, v in self.headers.items()}, None))

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        for name, value in (given | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay silent: the tests look at `requests`."""


Behaviour: TypeAlias = Callable[[Connection, Request], None]


class _Listener(ThreadingHTTPServer):
    daemon_threads = False
    fake: "FakeModelServer"


@dataclass
class FakeModelServer:
    """Listens on a free port of this machine while its block runs.

    Attributes:
        behaviours: What to do with the first request, the second...; the last one stays.
        requests: All requests so far.
        let_go: Set when the block ends; a stalling behaviour waits for it.
    """

    behaviours: list[Behaviour]
    requests: list[Request] = field(default_factory=list[Request])
    let_go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = _Listener(("127.0.0.1", 0), Connection)
        self._listener.fake = self
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.let_go.set()
        self._listener.shutdown()
        self._listener.server_close()  # joins the threads of the connections
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}/v1"

    def serve(self, connection: Connection, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        self.behaviours[min(number, len(self.behaviours) - 1)](connection, request)


def completion(message: Json) -> bytes:
    choice = {"index": 0, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop", "message": message}
    facts = {"id": "c", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice]}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({**facts, "usage": usage}).encode()


def say(content: str) -> Behaviour:
    """Answer with text."""
    return lambda connection, request: connection.send(200, completion({"role": "assistant", "content": content}))


def call(tool: str, arguments: object, call_id: str = "call-x") -> Behaviour:
    """Wish for a tool; *arguments* that are no str are written as JSON."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    wish = {"id": call_id, "type": "function", "function": {"name": tool, "arguments": text}}
    return lambda connection, request: connection.send(
        200, completion({"role": "assistant", "content": None, "tool_calls": [wish]})
    )


def send(body: bytes, *, status: int = 200, **headers: str) -> Behaviour:
    """Answer with whatever bytes; `Retry_After="3"` becomes the header of that name."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda connection, request: connection.send(status, body, named)


def throttle(retry_after: str = "0") -> Behaviour:
    return send(b'{"error": {"message": "slow down"}}', status=429, Retry_After=retry_after)


def stall(connection: Connection, request: Request) -> None:
    """Say nothing until the test is over."""
    connection.server.fake.let_go.wait()


def drop(connection: Connection, request: Request) -> None:
    """Close the connection without a word."""
    connection.connection.shutdown(socket.SHUT_RDWR)


def half(connection: Connection, request: Request) -> None:
    """Promise more than is sent."""
    connection.send(200, b'{"choices": [', {"Content-Length": "1000"})


def echo_key(connection: Connection, request: Request) -> None:
    """Complain about the key by quoting it."""
    connection.send(401, f"wrong key {request.headers.get('authorization')}".encode())


def review(connection: Connection, request: Request) -> None:
    """Review well: read the source, find the callers, then a verdict that quotes what the tools said."""
    answers = [json.loads(message["content"]) for message in request.body["messages"] if message["role"] == "tool"]
    facts = json.loads(request.body["messages"][1]["content"])["function"]
    if not answers:
        call("read_source", {"path": facts["path"], "line": facts["line"]}, "r1")(connection, request)
    elif len(answers) == 1:
        call("find_callers", {"name": facts["name"]}, "c1")(connection, request)
    else:
        source, callers = answers
        head = source["text"].split(":")[0].strip()
        verdict = {"severity": "medium", "reason": f"read {head}", "advice": f"look at {callers['total']} callers"}
        say(f"Here it is:\n```json\n{json.dumps(verdict)}\n```")(connection, request)
