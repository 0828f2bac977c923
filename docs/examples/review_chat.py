"""A model behind any OpenAI-compatible endpoint, asked with nothing but the standard library.

Nothing is sent anywhere unless a `ChatModel` is made and called. The key is read from `OPENAI_API_KEY` when the call is
made; it goes into one header of that request, and it is taken out of everything that comes back.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import math
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from email.message import Message as Headers
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, Field, JsonValue, SecretStr, ValidationError

from mai import Module
from review_messages import Message, Reply, Throttled, ToolCall, ToolSpec, Unavailable, Unusable

LONGEST_ANSWER_BYTES = 1_000_000


class ChatModel(Module[list[Message], Reply]):
    """Asks the chat model at *url*. Its `forward` blocks; mai runs it in a worker thread.

    Args:
        url: The endpoint, as in `http://localhost:8000/v1`; `/chat/completions` is added where it is missing.
        name: What the endpoint calls the model.
        tools: The tools that the model may use.
        patience: How long the server may stay silent [s].

    Raises:
        ValueError: If *url* is no http or https address, or holds a user name or password.
    """

    def __init__(
        self, url: str, *, name: str = "default", tools: Sequence[ToolSpec] = (), patience: float = 30.0
    ) -> None:
        super().__init__()
        self.url = endpoint(url)
        self.model_name = name
        self.tools = tuple(tools)
        self.patience = patience

    def forward(self, messages: list[Message]) -> Reply:
        key = _key(self.url)
        answer = _post(self.url, json.dumps(self.request(messages)).encode(), key, self.patience)
        return _reply(answer, key)

    def request(self, messages: Sequence[Message]) -> dict[str, JsonValue]:
        """Return the body of the request that asks the model what comes after *messages*."""
        body: dict[str, JsonValue] = {"model": self.model_name, "messages": [_wire(message) for message in messages]}
        if self.tools:
            body["tools"] = [{"type": "function", "function": tool.model_dump()} for tool in self.tools]
        return body


def endpoint(url: str) -> str:
    """Return the address of the chat completions that *url* means.

    Raises:
        ValueError: If it is no http or https address, or holds a user name or password.

    Example:
        >>> endpoint("http://localhost:8000"), endpoint("https://host/api/v1/")
        ('http://localhost:8000/v1/chat/completions', 'https://host/api/v1/chat/completions')
    """
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"Cannot ask a model at {parts.hostname!r} with a user name in the address; put the key into OPENAI_API_KEY"
        )
    usable = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    if parts.scheme not in {"http", "https"} or not parts.hostname or not usable:
        raise ValueError(f"Cannot ask a model at {url!r}: give an address as in 'http://localhost:8000/v1'")
    path = parts.path.rstrip("/") or "/v1"
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def hidden(text: str, key: SecretStr) -> str:
    """Return *text* without *key*, as it is and in the forms that JSON, URLs and base64 give it."""
    secret = key.get_secret_value()
    if not secret:
        return text
    forms = {secret, urllib.parse.quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    in_json = secret
    for _ in range(3):  # JSON in a string of JSON, as the arguments of tools are
        in_json = json.dumps(in_json)[1:-1]
        forms |= {in_json, in_json.replace("/", "\\/")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[key]")
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the key along to whatever address the server names."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, JsonValue] = "{}"


class _Call(BaseModel):
    id: str = ""
    function: _Function


class _Answer(BaseModel):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Answer


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _key(url: str) -> SecretStr:
    """The key for *url*: none over a plain connection to another machine, where everybody on the way could read it."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise Unavailable("OPENAI_API_KEY holds characters that no HTTP header can carry")
    return SecretStr(key if url.startswith("https:") or _is_here(url) else "")


def _is_here(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _post(url: str, body: bytes, key: SecretStr, patience: float) -> str:
    """What the server answers, without the key.

    Raises:
        ModelError: If it cannot be reached, or answers with an error or without end.
    """
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    if key:
        request.add_header("Authorization", f"Bearer {key.get_secret_value()}")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_here(url):
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=patience) as response:
            answer = response.read(LONGEST_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error, key) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(_one_line(f"{type(reason).__name__}: {reason}", key)) from None
    if len(answer) > LONGEST_ANSWER_BYTES:
        raise Unusable(f"the answer is longer than {LONGEST_ANSWER_BYTES} bytes")
    return hidden(answer.decode("utf-8", "replace"), key)


def _refused(error: urllib.error.HTTPError, key: SecretStr) -> Unavailable:
    """What an HTTP status other than success means for the next question."""
    try:
        said = error.read(20_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        said = ""
    message = _one_line(f"HTTP {error.code} {error.reason}" + (f": {said}" if said else ""), key)
    if error.code in {429, 503}:
        return Throttled(message, _retry_after(error.headers))
    return Unavailable(message)


def _one_line(text: str, key: SecretStr) -> str:
    """The start of *text*; the key goes first, so that no cut leaves half of it."""
    return " ".join(hidden(text, key).split())[:200]


def _retry_after(headers: Headers) -> float:
    """The wait that the server asks for [s]; one second if it does not say. A date counts from the server's own clock.

    Source:
        RFC 9110, section 10.2.3: seconds, or a date.
    """
    said = headers.get("Retry-After", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
        except (ValueError, TypeError):  # no date, or one with a time zone and one without
            return 1.0
    return max(0.0, seconds) if math.isfinite(seconds) else 1.0


def _reply(answer: str, key: SecretStr) -> Reply:
    """What the model says; decoding may bring the key to light again."""
    try:
        said = _Completion.model_validate_json(answer).choices[0].message
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise Unusable(f"no chat completion ({where}: {first['msg']}); it starts with {answer[:60]!r}") from None
    calls = (_tool_call(call, number, key) for number, call in enumerate(said.tool_calls or (), 1))
    return Reply(content=hidden(said.content or "", key), tool_calls=tuple(calls))


def _tool_call(call: _Call, number: int, key: SecretStr) -> ToolCall:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    name = hidden(call.function.name, key)
    return ToolCall(id=hidden(call.id, key) or f"call-{number}", name=name, arguments=hidden(text, key))


def _wire(message: Message) -> dict[str, JsonValue]:
    """The message as the endpoint wants it."""
    wire: dict[str, JsonValue] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    return wire
