"""A vendor on this machine: a real HTTP server that speaks OpenAI's chat completions, whole and as a stream."""

import json
from typing import Any

from tests.examples.fake_model_server import Behaviour, Connection, FakeModelServer, Request, send

__all__ = ["KEY", "FakeModelServer", "answer", "chunk", "error", "events", "send", "stream"]

KEY = "sk-canary-4711-abcdefgh"


def answer(content: str | None = "hello", *, finish: str = "stop", usage: Any = None, **message: Any) -> Behaviour:
    """Answer with a whole completion."""
    body = {
        "id": "chat-1", "object": "chat.completion", "created": 1, "model": "tiny-1",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
        "usage": usage or {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }  # fmt: skip
    return send(json.dumps(body).encode())


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    """Return one event of a streamed completion."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if usage is None else []
    body = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny-1", "choices": choices}
    return f"data: {json.dumps(body | {'usage': usage})}\n\n".encode()


def events(*parts: bytes, done: bool = True) -> Behaviour:
    """Answer with server-sent events, one write for each of *parts*."""

    def behave(connection: Connection, request: Request) -> None:
        connection.send_response(200)
        connection.send_header("Content-Type", "text/event-stream")
        connection.send_header("Connection", "close")
        connection.end_headers()
        for part in (*parts, *([b"data: [DONE]\n\n"] if done else [])):
            connection.wfile.write(part)
            connection.wfile.flush()

    return behave


def stream(*texts: str, finish: str = "stop") -> Behaviour:
    """Answer with a stream of *texts*."""
    usage = {"prompt_tokens": 7, "completion_tokens": len(texts), "total_tokens": 7 + len(texts)}
    return events(*[chunk(content=text) for text in texts], chunk(finish), chunk(usage=usage))


def error(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Behaviour:
    """Fail as OpenAI does."""
    body = {"error": {"message": message, "type": "x", "code": code}}
    return send(json.dumps(body).encode(), status=status, **headers)
