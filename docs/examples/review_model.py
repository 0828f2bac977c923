"""The model at an OpenAI-compatible address: where it is, which key it gets, and what its failures mean.

Nothing is sent anywhere unless a model is connected and asked. The key is read from the environment when that happens.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mai import Call, DeadlineExceeded, Retry
from mai.agents import TurnsExhausted
from mai.models import (
    ContentFiltered,
    ContextTooLong,
    InvalidOutput,
    InvalidReply,
    Model,
    ModelError,
    Overloaded,
    RateLimited,
    Refused,
)
from review_messages import Verdict

OF_ONE_FUNCTION = InvalidReply, InvalidOutput, Refused, ContentFiltered, ContextTooLong, TurnsExhausted
"""Failures after which the next function may go better."""


def connect(url: str, *, name: str, patience: float, key_from: str) -> Model:
    """Return the model *name* at *url*.

    *patience* bounds each attempt [s]. A throttled question is tried twice more, after the wait that the server wants,
    unless that is longer than *patience*.

    Raises:
        ConfigError: If *patience* is no number of seconds.
        ValueError: If *url* is no address of a model.
    """

    def is_worth_waiting(error: Exception) -> bool:
        return isinstance(error, RateLimited | Overloaded) and (error.retry_after or 0) <= patience

    where = address(url)
    model = Model(
        f"openai:{name}", url=where, key=key_for(where, key_from), stream=False
    )  # nobody reads half a verdict
    return model.with_(timeout=patience, retry=Retry(3, on=is_worth_waiting))


def address(url: str) -> str:
    """Return the base address of the model that *url* means.

    Raises:
        ValueError: If it is no http or https address, or holds a user name, a password or a query.

    Example:
        >>> address("http://localhost:8000"), address("https://host/api/v1/chat/completions")
        ('http://localhost:8000/v1', 'https://host/api/v1')
    """
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query:
        raise ValueError(
            f"Cannot ask a model at {parts.hostname!r} with a user name or a query in the address; a key belongs into "
            "OPENAI_API_KEY"
        )
    usable = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    if parts.scheme not in {"http", "https"} or not parts.hostname or not usable:
        raise ValueError(f"Cannot ask a model at {url!r}: give an address as in 'http://localhost:8000/v1'")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def key_for(url: str, variable: str) -> str | None:
    """Return the key in *variable*; none over a plain connection to another machine, where everybody could read it."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        is_here = False
    return (os.environ.get(variable, "").strip() or None) if is_here or url.startswith("https:") else None


@dataclass
class Failures:
    """A middleware around the model's reviews: it notes why one failed, and asks no more when no more will succeed.

    A flow may be repeated with it under a durable engine: from the recorded failures it learns the same again.
    """

    reasons: list[str] = field(default_factory=list[str])
    final: Exception | None = None
    replay_safe = True

    async def __call__(self, call: Call, next: Callable[[Call], Awaitable[Verdict]]) -> Verdict:  # noqa: A002
        if self.final is not None:
            raise self.final
        try:
            return await next(call)
        except (ModelError, TurnsExhausted, DeadlineExceeded) as error:
            self.reasons.append(" ".join(str(error).split())[:200])
            self.final = None if isinstance(error, OF_ONE_FUNCTION) else error
            raise
