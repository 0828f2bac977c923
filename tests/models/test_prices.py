import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from pydantic import ValidationError

from mai import ConfigError
from mai.models import Model, ModelInfo, Prices, Usage
from mai.models.prices import listed_cost
from tests.models.test_request import usages


@given(usages, usages)
def test_two_calls_cost_as_much_as_one_with_the_tokens_of_both(a: Usage, b: Usage) -> None:
    prices = Prices(input_usd=1.0, output_usd=4.0)
    plain = [usage.model_copy(update={"cache_read_tokens": 0, "cache_write_tokens": 0}) for usage in (a, b)]
    assert prices.of(plain[0]) + prices.of(plain[1]) == pytest.approx(prices.of(plain[0] + plain[1]))
    assert prices.of(a) >= 0


def test_the_cache_has_prices_of_its_own() -> None:
    usage = Usage(
        input_tokens=3_000_000, output_tokens=1_000_000, cache_read_tokens=1_000_000, cache_write_tokens=1_000_000
    )
    assert Prices(input_usd=10, output_usd=1).of(usage) == 31
    assert Prices(input_usd=10, output_usd=1, cache_read_usd=1, cache_write_usd=12).of(usage) == 10 + 1 + 12 + 1


def test_a_price_is_not_below_zero() -> None:
    with pytest.raises(ValidationError):
        Prices(input_usd=-1, output_usd=0)


def test_the_list_knows_what_many_models_cost_and_nothing_of_others() -> None:
    million = Usage(input_tokens=1_000_000)
    assert listed_cost("openai", "gpt-4o-mini", million) == 0.15
    assert (listed_cost("gcp.gemini", "gemini-2.5-flash", million) or 0) > 0
    assert listed_cost("openai", "no-such-model", million) is None
    assert listed_cost("nobody", "gpt-4o-mini", million) is None


def test_counts_that_contradict_each_other_have_no_price() -> None:
    assert listed_cost("openai", "gpt-4o-mini", Usage(input_tokens=1, cache_read_tokens=5)) is None


def test_a_model_tells_what_is_known_of_it() -> None:
    info = Model("openai:gpt-4o-mini").info()
    assert (info.name, info.vendor, info.context_tokens, info.tools) == ("gpt-4o-mini", "openai", 128_000, True)
    assert info.prices == Prices(input_usd=0.15, output_usd=0.6)
    own = Prices(input_usd=1, output_usd=2)
    assert Model("openai:gpt-4o-mini", prices=own).info().prices == own
    assert Model("x", url="http://here/v1", prices=own).info() == ModelInfo(name="x", vendor="openai", prices=own)
    assert Model("openai:no-such-model").info().prices is None


def test_a_model_at_an_address_has_no_listed_price() -> None:
    usage = Usage(input_tokens=1_000_000)
    assert Model("openai:gpt-4o-mini").cost(usage) == 0.15
    assert Model("openai:gpt-4o-mini", url="http://here/v1").cost(usage) is None


@pytest.mark.parametrize("ask", [lambda: listed_cost("openai", "x", Usage()), lambda: Model("openai:gpt-5").info()])
def test_a_missing_extra_is_named(ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(ConfigError, match="extra 'llm'"):
        ask()
