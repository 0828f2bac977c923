"""What calls cost: prices that the user gives, else those that ``genai-prices`` knows; never a guess.

A price that is not known is None, not 0.
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from mai.errors import ConfigError

from .request import Usage

_Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_VENDOR = {"gcp.gemini": "google"}  # as genai-prices calls those whom OpenTelemetry calls otherwise


class Prices(BaseModel, frozen=True, extra="forbid"):
    """What a model costs, for one that no list knows.

    Attributes:
        input_usd: A million tokens of input [USD].
        output_usd: A million tokens of output [USD].
        cache_read_usd: A million tokens of input from the vendor's cache [USD]; None: as other input.
        cache_write_usd: A million tokens of input into it [USD]; None: as other input.

    Example:
        >>> from mai.models import Prices, Usage
        >>> Prices(input_usd=1.0, output_usd=4.0).of(Usage(input_tokens=500_000, output_tokens=250_000))
        1.5
    """

    input_usd: _Usd
    output_usd: _Usd
    cache_read_usd: _Usd | None = None
    cache_write_usd: _Usd | None = None

    def of(self, usage: Usage) -> float:
        """Return what *usage* costs [USD]."""
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        plain = max(0, usage.input_tokens - read - written)
        per_read = self.input_usd if self.cache_read_usd is None else self.cache_read_usd
        per_written = self.input_usd if self.cache_write_usd is None else self.cache_write_usd
        total = plain * self.input_usd + read * per_read + written * per_written + usage.output_tokens * self.output_usd
        return total / 1e6


class ModelInfo(BaseModel, frozen=True):
    """What is known of a model without asking its vendor; None where it is not.

    Attributes:
        name: Its name.
        vendor: Who offers it.
        context_tokens: Most tokens that it can read.
        images: False if it is known to take no images.
        tools: False if it is known to call no tools.
        json_schema: Whether the vendor can hold it to a JSON schema.
        prices: What it costs; where a vendor has several prices, those of a short request.
    """

    name: str
    vendor: str
    context_tokens: int | None = None
    images: bool | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    prices: Prices | None = None


def listed_cost(vendor: str, name: str, usage: Usage) -> float | None:
    """Return what *usage* costs by the list [USD]; None where it does not know the model.

    Raises:
        ConfigError: If the extra is not installed.
    """
    try:
        from genai_prices import Usage as Priced  # noqa: PLC0415 (an extra)
        from genai_prices import calc_price  # noqa: PLC0415 (the same)
    except ImportError as error:
        raise ConfigError(f"prices need the extra 'llm': pip install 'mai-kernel[llm]' ({error})") from error
    used = Priced(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        return float(calc_price(used, name, provider_id=_VENDOR.get(vendor, vendor)).total_price)
    except (LookupError, ValueError):  # not in the list; or counts that its prices cannot tell apart
        return None


def listed_info(kind: str, vendor: str, name: str) -> ModelInfo:
    """Return what pydantic-ai and the list of prices know of a model.

    Raises:
        ConfigError: If the extra is not installed.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 (an extra)
        from pydantic_ai.models import infer_model_profile  # noqa: PLC0415 (the same)
        from pydantic_ai.profiles import DEFAULT_PROFILE  # noqa: PLC0415 (the same)
    except ImportError as error:
        raise ConfigError(f"Model.info needs the extra 'llm': pip install 'mai-kernel[llm]' ({error})") from error
    profile = {**DEFAULT_PROFILE, **infer_model_profile(f"{kind}:{name}")}
    context: Any = profile.get("context_window")
    prices = None
    try:
        _, known = get_snapshot().find_provider_model(name, None, _VENDOR.get(vendor, vendor), None)
    except LookupError:
        pass
    else:
        context = context or known.context_window
        read = listed_cost(vendor, name, Usage(input_tokens=1000))
        written = listed_cost(vendor, name, Usage(output_tokens=1000))
        if read is not None and written is not None:
            prices = Prices(input_usd=read * 1000, output_usd=written * 1000)
    return ModelInfo(
        name=name,
        vendor=vendor,
        context_tokens=context,
        images=bool(profile["supports_image_input"]),
        tools=bool(profile["supports_tools"]),
        json_schema=bool(profile["supports_json_schema_output"]),
        prices=prices,
    )
