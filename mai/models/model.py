"""Model: a language model as a Module. A prompt goes in, a `Reply` comes out; its text streams as it comes."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, overload
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind
from pydantic import Field, JsonValue, SecretStr

from mai.core.frame import current
from mai.core.trace import noted
from mai.errors import ConfigError
from mai.layers import Module
from mai.layers.checks import sort_params
from mai.values import names

from .budget import charged, check_online, replayed
from .connections import Connections
from .messages import Message
from .prices import ModelInfo, Prices, listed_cost, listed_info
from .provider import Say, ask_vendor, connect
from .request import Effort, Prompt, Reply, Request, Usage
from .speech import Speech, is_heard
from .structured import Returning
from .vendors import Key, split

T = TypeVar("T")
_OWN = ("temperature", "top_p", "max_tokens", "stop", "seed", "thinking", "extra")  # as in Request


class Model(Module[Prompt, Reply]):
    """A language model.

    ``await model("hello")`` gives a `Reply`. A prompt is a text, a `Message`, several, or a whole `Request`. As every
    Module it is configured by ``with_``, here also by any attribute below: ``model.with_(temperature=0, retry=3)``.
    In a started run (``model.start("hello")``, or that of a pipeline around) the text streams:
    ``async for text in handle.chunks()``.

    The vendors ``openai``, ``anthropic``, ``google``, ``huggingface`` and ``ollama`` are known here, others by
    pydantic-ai; with *url* any endpoint that speaks OpenAI's chat completions. One model may serve many tasks, threads
    and event loops; each loop has connections of its own, which `aclose` closes.

    Attributes:
        model: ``"vendor:name"``; with a *url* the name alone will do.
        url: Where the vendor is; None: where it always is.
        key: The key; None: the vendor's variable (``OPENAI_API_KEY``, ...), which is read when a call is made, and is
            sent to no *url* but the vendor's own and that of its variable (``OPENAI_BASE_URL``, ...). It is in no repr,
            plan, trace or message.
        temperature: How much chance there is in the answer, from 0; None: as the vendor does.
        top_p: The share of likely words to choose from, above 0, at most 1; None: as the vendor does.
        max_tokens: Longest answer [tokens]; None: as the vendor does.
        stop: Texts that end the answer.
        seed: For vendors that can repeat an answer.
        thinking: How much the model is to think first; None: as the vendor does.
        extra: Further fields of the request's body, as the vendor names them.
        stream: Whether to read the answer as a stream; None: in started runs.
        prices: What it costs; None: what the list of ``genai-prices`` says, and nothing with a *url*.

    Raises:
        ConfigError: If *model* names no vendor, or a value cannot be used.

    Example:
        >>> from mai.models import Model
        >>> model = Model("openai:gpt-5", temperature=0)
        >>> model.with_(max_tokens=100, timeout=30, retry=3)
        <Model(prompt: str | Message | list[Message] | tuple[Message, ...] | Request) -> Reply>
    """

    model: str
    url: str | None = None
    key: Key | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: Effort | None = None
    extra: Mapping[str, JsonValue] = {}
    stream: bool | None = None
    prices: Prices | None = None

    _mai_span_kind = SpanKind.CLIENT

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        key: str | SecretStr | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        thinking: Effort | None = None,
        extra: Mapping[str, JsonValue] | None = None,
        stream: bool | None = None,
        prices: Prices | None = None,
    ) -> None:
        given: dict[str, object] = {
            "model": model, "url": url, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens,
            "stop": tuple(stop), "seed": seed, "thinking": thinking, "extra": dict(extra or {}), "stream": stream,
            "prices": prices,
        }  # fmt: skip
        if key is not None:
            if not isinstance(key, str | SecretStr):
                raise ConfigError(f"Model: key is a {type(key).__name__}, not a text")
            self.key = key if isinstance(key, SecretStr) else SecretStr(key)
        _, attributes = sort_params(self, given)
        for name, value in attributes.items():
            setattr(self, name, value)
        self._connections = Connections(connect)
        split(self.model, self.url)

    @property
    def _mai_span(self) -> str:
        """The name of the span."""
        return f"chat {self._name}"

    @property
    def _mai_facts(self) -> dict[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attributes that every span and handle of the model has."""
        found: dict[str, Any] = {
            names.OPENINFERENCE_KIND: "LLM",
            names.OPERATION: "chat",
            names.PROVIDER: self._vendor,
            names.REQUEST_MODEL: self._name,
            names.REQUEST_TEMPERATURE: None if self.temperature is None else float(self.temperature),
            names.REQUEST_TOP_P: self.top_p,
            names.REQUEST_MAX_TOKENS: self.max_tokens,
            names.REQUEST_STOP: self.stop or None,
            names.REQUEST_SEED: self.seed,
            **server_of(self.url),
        }
        return {key: value for key, value in found.items() if value is not None}

    @property
    def _vendor(self) -> str:
        return split(self.model, self.url)[0].label

    @property
    def _name(self) -> str:
        return split(self.model, self.url)[1]

    async def forward(self, prompt: Prompt) -> Reply:
        """Ask the model."""
        request, speech = self.request(prompt), None
        if self.stream or (self.stream is None and is_heard(current())):
            speech = Speech(current())
        with charged(self.model, request, self.cost) as charge:
            reply = await self.answer(request, None if speech is None else speech.say)
            reply = self._complete(reply, request)
            charge.settle(reply)
        noted(current(), _facts_of(reply))
        return reply

    def _mai_replayed(self, reply: Reply) -> None:
        """Let what the call cost before the process ended count."""
        replayed(reply.usage, reply.cost_usd, self._mai_settings.middleware)

    async def answer(self, request: Request, say: Say | None) -> Reply:
        """Return the reply to *request*: what a subclass writes instead that answers in another way.

        Args:
            request: All that is asked.
            say: An async function that takes the text of the answer piece by piece; None: nobody listens.

        Raises:
            ModelError: If the vendor gives none; NoRequests: inside `no_requests`.
        """
        check_online(self.model)
        client, redactor, hint = await self._connections.client(self.model, self.url, self.key)
        return await ask_vendor(client, request, self.model, redactor, say, hint)

    def request(self, prompt: Prompt) -> Request:
        """Return exactly what will be sent for *prompt*: its messages, with the settings of this model.

        What a `Request` sets itself is kept.

        Example:
            >>> from mai.models import Model
            >>> Model("openai:gpt-5", temperature=0).request("hello").temperature
            0.0
        """
        own = {key: value for key in _OWN if (value := getattr(self, key)) not in (None, (), {})}
        if isinstance(prompt, Request):
            return prompt.model_copy(update={key: own[key] for key in own.keys() - prompt.model_fields_set})
        said = [prompt] if isinstance(prompt, str | Message) else prompt
        messages = tuple(Message.user(one) if isinstance(one, str) else one for one in said)
        return Request(messages=messages, **own)

    def cost(self, usage: Usage) -> float | None:
        """Return what *usage* costs with this model [USD], or None where no price is known."""
        if self.prices is not None:
            return self.prices.of(usage)
        return None if self.url is not None else listed_cost(self._vendor, self._name, usage)

    def info(self) -> ModelInfo:
        """Return what is known of the model without asking the vendor.

        Raises:
            ConfigError: If the extra ``llm`` is not installed.

        Example:
            >>> from mai.models import Model
            >>> Model("openai:gpt-4o-mini").info().context_tokens
            128000
        """
        vendor, name = split(self.model, self.url)
        if self.url is not None:
            return ModelInfo(name=name, vendor=vendor.label, prices=self.prices)
        found = listed_info(vendor.kind, vendor.label, name)
        return found if self.prices is None else found.model_copy(update={"prices": self.prices})

    @overload
    def returning(self, type: type[T], *, attempts: int = ...) -> Returning[T]: ...
    @overload
    def returning(self, type: Any, *, attempts: int = ...) -> Returning[Any]: ...
    def returning(self, type: Any, *, attempts: int = 3) -> Returning[Any]:  # noqa: A002 (clear at the call)
        """Return a Module that gives a value of *type* instead of a Reply.

        The model is asked for JSON by the type's schema. An answer that does not fit is shown to it with what is wrong.

        Args:
            type: Any type that pydantic has a JSON schema for.
            attempts: How often it is asked in all, at least 1.

        Raises:
            ConfigError: If *type* has no JSON schema, or *attempts* is no whole number above 0.

        Example:
            >>> from pydantic import BaseModel
            >>> from mai.models import ScriptedModel
            >>> class City(BaseModel):
            ...     name: str
            ...     people: int
            >>> model = ScriptedModel('{"name": "Bern"}', '{"name": "Bern", "people": 134000}')
            >>> model.returning(City).run("The capital of Switzerland?")
            City(name='Bern', people=134000)
        """
        return Returning(self, type, attempts=attempts)

    async def aclose(self) -> None:
        """Close the connections that the model and its copies have in this event loop; a later call opens new ones."""
        await self._connections.aclose()

    def _complete(self, reply: Reply, request: Request) -> Reply:
        """Return *reply* with its cost and its data."""
        facts: dict[str, Any] = {}
        if reply.cost_usd is None:
            facts["cost_usd"] = self.cost(reply.usage)
        if request.output is not None and reply.data is None:
            facts["data"] = _data(reply.text)
        return reply.model_copy(update=facts)


def server_of(url: str | None) -> dict[str, Any]:
    """Return the attributes that say where *url* is; of a password in it nothing is told."""
    if url is None:
        return {}
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    found = {names.SERVER_ADDRESS: parts.hostname, names.SERVER_PORT: port}
    return {key: value for key, value in found.items() if value is not None}


def _data(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def _facts_of(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    found: dict[str, Any] = {
        names.RESPONSE_MODEL: reply.model or None,
        names.RESPONSE_ID: reply.id,
        names.RESPONSE_FINISH: (reply.finish,),
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHE_READ_TOKENS: usage.cache_read_tokens or None,
        names.CACHE_WRITE_TOKENS: usage.cache_write_tokens or None,
        names.COST_USD: reply.cost_usd,
    }
    return {key: value for key, value in found.items() if value is not None}
