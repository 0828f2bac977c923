"""Laws of the input: what a value is written as, in any way, comes back as that value."""

import json
import math
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model

from mai.cli.inputs import arguments
from mai.cli.usage import BadUsage


class Colour(Enum):
    RED = "red"
    TWO = "2"


class Leaf(BaseModel):
    model_config = ConfigDict(strict=True)
    when: date
    sizes: tuple[int, ...] = ()


def nothing() -> None:
    """A terminal: there is no standard input to read."""


def take(model: type[BaseModel], *tokens: str) -> Any:
    return arguments(model, tokens, nothing)


texts = st.text(st.characters(exclude_categories=["Cs"]))
FLAT: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(10**30), 10**30),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=20),
    date: st.dates(),
    timedelta: st.integers(-(10**9), 10**9).map(lambda seconds: timedelta(seconds=seconds)),
    UUID: st.uuids(),
    Colour: st.sampled_from(Colour),
    PurePosixPath: texts.map(PurePosixPath),
    int | None: st.none() | st.integers(),
}
DEEP: dict[Any, st.SearchStrategy[Any]] = {
    list[str]: st.lists(texts),
    set[int]: st.sets(st.integers()),
    dict[str, float]: st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False)),
    Leaf: st.builds(Leaf, when=st.dates(), sizes=st.lists(st.integers()).map(tuple)),
    list[Leaf]: st.lists(st.builds(Leaf, when=st.dates(), sizes=st.lists(st.integers()).map(tuple))),
}


def typed(types: dict[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[type[BaseModel], Any]]:
    """Draw a model with the one field ``value`` and a value that fits it."""
    models = {tp: create_model("In", value=(tp, ...), other=(int, 0)) for tp in types}
    return st.sampled_from([*types]).flatmap(lambda tp: types[tp].map(lambda value: (models[tp], value)))


def written(model: type[BaseModel], value: Any) -> str:
    """Return the JSON of *value* as the model writes it."""
    dumped: Any = model(value=value).model_dump_json(include={"value"})
    return json.dumps(json.loads(dumped)["value"])


@given(typed(FLAT | DEEP))
def test_a_json_object_round_trips(case: tuple[type[BaseModel], Any]) -> None:
    model, value = case
    assert take(model, f'{{"value": {written(model, value)}}}').value == value


@given(typed(DEEP))
def test_a_json_value_round_trips(case: tuple[type[BaseModel], Any]) -> None:
    model, value = case
    assert take(model, written(model, value)).value == value


@given(typed(FLAT))
def test_a_named_value_round_trips(case: tuple[type[BaseModel], Any]) -> None:
    model, value = case
    plain = json.loads(written(model, value))
    text = plain if isinstance(plain, str) else json.dumps(plain)
    assert take(model, f"--value={text}", "--other", "1").value == value


@given(st.lists(texts, min_size=2))
def test_repeated_values_are_a_list(values: list[str]) -> None:
    model = create_model("In", value=(list[str], ...))
    tokens = [f"--value={value}" for value in values]
    assert take(model, *tokens).value == values


@given(texts)
def test_a_str_given_by_name_is_never_interpreted(text: str) -> None:
    model = create_model("In", value=(str, ...))
    assert take(model, f"--value={text}").value == text


@given(st.lists(texts.filter(lambda text: not text.startswith(("-", "@", '"', "{", "["))), min_size=2))
def test_words_are_joined_as_the_shell_gave_them(words: list[str]) -> None:
    model = create_model("In", value=(str, ...))
    assert take(model, *words).value == " ".join(words)


@given(texts)
def test_the_json_of_a_text_on_standard_input_is_that_text(text: str) -> None:
    model = create_model("In", value=(str, ...))
    data = json.dumps(text).encode() + b"\n"
    assert arguments(model, [], lambda: data).value == text  # type: ignore[attr-defined]


@given(st.lists(texts, max_size=6))
def test_any_words_are_taken_or_refused_and_nothing_else(words: list[str]) -> None:
    model = create_model("In", query=(str, ...), k=(int, 3), full=(bool, False), tags=(list[str], []))
    tokens = [word for word in words if not word.startswith("@")]
    try:
        given_input: Any = take(model, *tokens)
    except BadUsage:
        return
    assert isinstance(given_input.query, str)


@pytest.mark.parametrize("deep", ["[" * 5_000, '{"a":' * 5_000, "9" * 5_000, '"\\ud800"'])
def test_json_that_cannot_be_read_is_text(deep: str) -> None:
    model = create_model("In", value=(str, ...))
    assert take(model, deep).value == deep


def test_standard_input_is_read_at_most_once() -> None:
    reads: list[bytes] = []

    def read() -> bytes:
        reads.append(b"x")
        return b"x"

    read_stdin: Callable[[], bytes] = read
    model = create_model("In", value=(str, ...), more=(str, ...))
    with pytest.raises(BadUsage, match="more is missing"):
        arguments(model, ["-"], read_stdin)
    assert len(reads) == 1


@pytest.mark.parametrize("text", ["inf", "-inf", "Infinity", "-Infinity", "1e999"])
def test_a_float_may_be_infinite(text: str) -> None:
    model = create_model("In", value=(float, ...))
    assert abs(take(model, f"--value={text}").value) == math.inf
    if text.endswith("Infinity"):
        assert abs(take(model, f'{{"value": {text}}}').value) == math.inf


def test_an_iterable_is_not_a_text() -> None:
    model = create_model("In", value=(Iterable[str], ...))
    assert list(take(model, "--value", "abc").value) == ["abc"]
    assert list(take(model, '["a", "b"]').value) == ["a", "b"]
