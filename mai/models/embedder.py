"""Embedder: texts to vectors, as a Module."""

from typing import Any

from opentelemetry.trace import SpanKind
from pydantic import SecretStr

from mai.core.frame import current
from mai.core.trace import noted
from mai.layers import Module
from mai.values import names

from .budget import charged, check_online, replayed
from .connections import Connections
from .messages import Message, _Said
from .model import server_of
from .prices import Prices, listed_cost
from .provider import connect_embedder, embed
from .request import Request, Usage
from .vendors import Key, split


class Embeddings(_Said, frozen=True):
    """Vectors, one for each text, in their order.

    Attributes:
        vectors: The vectors.
        usage: The tokens.
        cost_usd: What it cost; None where the price is not known.
        model: What the vendor calls the model.
    """

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage = Usage()
    cost_usd: float | None = None
    model: str = ""


class Embedder(Module[list[str], Embeddings]):
    """A model that turns texts into vectors.

    Attributes:
        model: ``"vendor:name"``, as of a `Model`; with a *url* the name alone will do.
        url: Where the vendor is; None: where it always is.
        key: The key; None: the vendor's variable, which is read when a call is made, as of a `Model`.
        prices: What it costs; None: what the list of ``genai-prices`` says, and nothing with a *url*.

    Raises:
        ConfigError: If *model* names no vendor.
        ModelError: In a call, as of a `Model`.

    Example:
        >>> from mai.models import Embedder, Embeddings
        >>> embedder = Embedder("openai:text-embedding-3-small")
        >>> with embedder.override(lambda texts: Embeddings(vectors=[(1.0, 0.0) for _ in texts])):
        ...     embedder.run(["a text"]).vectors
        ((1.0, 0.0),)
    """

    model: str
    url: str | None = None
    key: Key | None = None
    prices: Prices | None = None

    _mai_span_kind = SpanKind.CLIENT

    def __init__(
        self, model: str, *, url: str | None = None, key: str | SecretStr | None = None, prices: Prices | None = None
    ) -> None:
        self.model, self.url, self.prices = model, url, prices
        self.key = SecretStr(key) if isinstance(key, str) else key
        self._connections = Connections(connect_embedder)
        split(model, url)

    @property
    def _mai_span(self) -> str:
        """The name of the span."""
        return f"embeddings {split(self.model, self.url)[1]}"

    @property
    def _mai_facts(self) -> dict[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attributes that every span and handle of the embedder has."""
        vendor, name = split(self.model, self.url)
        return {
            names.OPENINFERENCE_KIND: "EMBEDDING",
            names.OPERATION: "embeddings",
            names.PROVIDER: vendor.label,
            names.REQUEST_MODEL: name,
            **server_of(self.url),
        }

    async def forward(self, texts: list[str]) -> Embeddings:
        """Return the vectors of *texts*."""
        if not texts:
            return Embeddings(vectors=())
        request = Request(messages=(Message.user(*texts),))
        with charged(self.model, request, self.cost) as charge:
            found = await self._embed(texts)
            usd = self.cost(found.usage)
            charge.used, charge.usd = found.usage, usd
        facts: dict[str, Any] = {
            names.RESPONSE_MODEL: found.model or None,
            names.INPUT_TOKENS: found.usage.input_tokens,
        }
        facts |= {names.DIMENSIONS: len(found.vectors[0]), names.COST_USD: usd}
        noted(current(), {key: value for key, value in facts.items() if value is not None})
        return found.model_copy(update={"cost_usd": usd})

    def _mai_replayed(self, found: Embeddings) -> None:
        """Let what the call cost before the process ended count."""
        replayed(found.usage, found.cost_usd, self._mai_settings.middleware)

    async def _embed(self, texts: list[str]) -> Embeddings:
        check_online(self.model)
        client, redactor, hint = await self._connections.client(self.model, self.url, self.key)
        vectors, usage, answered = await embed(client, texts, self.model, redactor, hint)
        return Embeddings(vectors=vectors, usage=usage, model=answered)

    async def aclose(self) -> None:
        """Close the connections that the embedder and its copies have in this event loop."""
        await self._connections.aclose()

    def cost(self, usage: Usage) -> float | None:
        """Return what *usage* costs with this model [USD], or None where no price is known."""
        if self.prices is not None:
            return self.prices.of(usage)
        vendor, name = split(self.model, self.url)
        return None if self.url is not None else listed_cost(vendor.label, name, usage)
