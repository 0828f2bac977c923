"""The way out: one request to a vendor through ``pydantic_ai.direct``, in our words on both sides.

Answers: what does a vendor get to see, and what does its answer, or failure, mean? pydantic-ai is imported when the
first request is made. The SDKs' own retries are off, as they would multiply with ours, and so are their spans.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from mai.errors import ConfigError, MaiError
from mai.middleware import Redactor

from . import errors
from .request import Reply, Request, Usage
from .translate import incoming, outgoing, parameters, settings

_STRICT = {"openai_chat_streaming_requires_finish_reason": True}  # a stream that broke off is no short answer
_SHORTEST = 4  # characters of what can be redacted
Say = Callable[[str], Awaitable[None]]
_NO_KEY = "api-key-not-set"  # else the SDK would look for one, and send it to whatever url
_EXTRA = "mai.models needs the extra 'llm': pip install 'mai-kernel[llm]'"
_ERRORS: tuple[tuple[str, type[errors.ModelError]], ...] = (  # the first that fits, by the name in pydantic_ai
    ("ModelContextWindowExceededError", errors.ContextTooLong),
    ("ModelAuthenticationError", errors.AuthError),
    ("ModelNotFoundError", errors.UnknownModel),
    ("ModelRequestRejectedError", errors.BadRequest),
    ("ModelQuotaExceededError", errors.QuotaExceeded),
    ("ModelRateLimitError", errors.RateLimited),
    ("ModelUnavailableError", errors.Overloaded),
    ("ModelServerError", errors.Overloaded),
    ("ModelConnectionError", errors.Unreachable),
    ("ModelRequestTimeout", errors.Unreachable),
    ("ModelHTTPError", errors.BadRequest),
    ("ModelAPIError", errors.InvalidReply),  # without a status: an answer that cannot be read
    ("ContentFilterError", errors.ContentFiltered),
    ("UnexpectedModelBehavior", errors.InvalidReply),
    ("UserError", errors.BadRequest),
)
_BY_STATUS: dict[int | None, type[errors.ModelError]] = {
    408: errors.Overloaded, 409: errors.Overloaded, 425: errors.Overloaded, 501: errors.BadRequest,
}  # fmt: skip
_TOO_LONG = ("context size", "context length", "context window", "prompt is too long")


class Client(NamedTuple):
    """A model of pydantic-ai's, and what has the connections that it uses."""

    asked: Any
    provider: Any


def connect(kind: str, name: str, key: str | None, url: str | None) -> Client:
    """Return a model, with connections of its own.

    Raises:
        ConfigError: If the extra is not installed, or there is no such vendor.
    """
    return _connected("Model", "pydantic_ai.models", "infer_model", (kind, name, key, url))


def connect_embedder(kind: str, name: str, key: str | None, url: str | None) -> Client:
    """Return a model for embeddings, with connections of its own; errors as of `connect`."""
    kind = "openai" if kind == "openai-chat" else kind
    made = _connected("Embedder", "pydantic_ai.embeddings", "infer_embedding_model", (kind, name, key, url))
    of_openai: Any = getattr(getattr(made.provider, "client", None), "embeddings", None)
    if of_openai is not None:  # pydantic-ai takes the vectors as they come; they say themselves whose they are
        create = of_openai.create

        async def created(**asked: Any) -> Any:
            answer = await create(**asked)
            answer.data = in_order(f"{kind}:{name}", answer.data)
            return answer

        of_openai.create = created
    return made


def in_order(label: str, found: list[Any]) -> list[Any]:
    """Return the vectors of an answer in the order of their texts; where none has a number, as they are.

    Raises:
        InvalidReply: If their numbers are not one for each text.
    """
    numbers = [getattr(one, "index", None) for one in found]
    if len(set(numbers)) == 1:  # all of them None, or 0: the vendor does not count
        return found
    if any(not isinstance(number, int) for number in numbers) or set(numbers) != set(range(len(found))):
        raise errors.InvalidReply(f"{label}: vectors came for the texts {numbers}", model=label)
    return sorted(found, key=lambda one: one.index)


def _connected(owner: str, room: str, function: str, facts: tuple[str, str, str | None, str | None]) -> Client:
    kind, name, key, url = facts
    sent = _NO_KEY if key is None and url is not None else key
    given = {option: value for option, value in {"api_key": sent, "base_url": url}.items() if value is not None}
    try:
        from pydantic_ai.providers import infer_provider_class  # noqa: PLC0415 (an extra, and slow to import)

        import_module("pydantic_ai.direct")  # now, as this may be a thread: it takes long
        cls: Any = infer_provider_class(kind)
        provider = cls(**given)
        provider.model_profile = partial(_profile, cls)

        def factory(_: str) -> Any:
            return provider

        return Client(getattr(import_module(room), function)(f"{kind}:{name}", provider_factory=factory), provider)
    except ImportError as error:
        raise ConfigError(f"{_EXTRA} ({error})") from error
    except (ValueError, TypeError, RuntimeError) as error:  # an unknown vendor, or one that wants other things
        text = Redactor(*([key] if key and len(key) >= _SHORTEST else [])).text(str(error))
    raise ConfigError(f"{owner}: model={f'{kind}:{name}'!r} cannot be used: {text}")


def _profile(provider: Any, name: str) -> dict[str, Any]:
    return {**(provider.model_profile(name) or {}), **_STRICT}


async def ask_vendor(
    client: Any, request: Request, label: str, redactor: Redactor, say: Say | None, hint: str = ""
) -> Reply:
    """Send *request* and return the reply; with *say*, read it as a stream and hand on its text as it comes.

    Raises:
        ModelError: If it fails; no secret that *redactor* knows is in it, and nothing of the vendor's error but facts.
            If it wants a key, *hint* is added.
    """
    from pydantic_ai import direct  # noqa: PLC0415 (an extra)

    asked: dict[str, Any] = {
        "messages": list(outgoing(request.messages)),
        "model_settings": settings(request),
        "model_request_parameters": parameters(client, request),
        "instrument": False,
    }
    try:
        if say is None:
            response = await direct.model_request(client, **asked)
        else:
            async with direct.model_request_stream(client, **asked) as stream:
                await _tell(stream, redactor, say)
                response = stream.get()
        return incoming(response, redactor)
    except Exception as error:  # noqa: BLE001 (each becomes a ModelError; raised below, so that it drags no secret along)
        failure = failure_of(error, label, redactor, hint)
    raise failure


async def embed(
    client: Any, texts: list[str], label: str, redactor: Redactor, hint: str = ""
) -> tuple[tuple[tuple[float, ...], ...], Usage, str]:
    """Return the vectors of *texts*, the tokens used, and the model that answered; errors as of `ask_vendor`."""
    try:
        found = await client.embed(texts, input_type="document")
        vectors = tuple(tuple(map(float, vector)) for vector in found.embeddings)
        if len(vectors) != len(texts):  # whose is which cannot be told
            raise errors.InvalidReply(f"{label}: {len(vectors)} vectors came for {len(texts)} texts", model=label)
        return vectors, Usage(input_tokens=found.usage.input_tokens), redactor.text(found.model_name)
    except Exception as error:  # noqa: BLE001 (as in `ask_vendor`)
        failure = failure_of(error, label, redactor, hint)
    raise failure


async def _tell(stream: Any, redactor: Redactor, say: Say) -> None:
    clean = redactor.stream()
    async with aclosing(aiter(stream)) as events:
        async for event in events:
            part = getattr(event, "part" if event.event_kind == "part_start" else "delta", None)
            content = {"text": "content"}.get(getattr(part, "part_kind", "")) or "content_delta"
            is_text = getattr(part, "part_kind", getattr(part, "part_delta_kind", "")) == "text"
            if is_text and (text := clean.feed(getattr(part, content))):
                await say(text)
    if text := clean.close():
        await say(text)


def failure_of(error: Exception, label: str, redactor: Redactor, hint: str = "") -> Exception:
    """Return what *error* means, with its facts and without its chain, in which secrets may be."""
    if isinstance(error, MaiError):
        return error
    names = {cls.__name__ for cls in type(error).__mro__}
    kind = next((ours for name, ours in _ERRORS if name in names), None)
    text = redactor.text(_reason(error))
    if kind is None:  # what the SDK trips over in an answer that is none
        return errors.InvalidReply(f"{label}: its answer cannot be read: {type(error).__name__}: {text}", model=label)
    status, code = getattr(error, "status_code", None), getattr(error, "provider_error_code", None)
    if kind is errors.BadRequest and any(hint in text.lower() for hint in _TOO_LONG):
        kind = errors.ContextTooLong
    return _BY_STATUS.get(status, kind)(
        f"{label}: {text[:500]}{hint if kind is errors.AuthError else ''}",
        model=label,
        status=status,
        code=redactor.text(str(code or "")),
        retry_after=getattr(error, "retry_after", None),
    )


_SAID = (("error", "message"), ("message",), ("error",))  # where vendors put their words


def _reason(error: Exception) -> str:
    """Return what the vendor says, without the rest of its answer."""
    for path in _SAID:
        found: Any = getattr(error, "body", None)
        try:
            for key in path:
                found = found[key]
        except (TypeError, KeyError, IndexError):
            continue
        if type(found) is str:
            status = getattr(error, "status_code", None)
            return f"{found} (HTTP {status})" if status else found
    root: BaseException = error
    while type(error).__name__ == "ModelConnectionError" and (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper  # "Connection error." alone helps nobody
    return str(error) if root is error else f"{str(error).rstrip('.')}: {type(root).__name__}: {root}"
