"""Payload: for any type, what is written is read back as the same value of the same type, or it is not written."""

import json
import math
import re
from typing import Any, Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mai import Payload, PayloadError

from .typed import identical, types, values

JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
SETS = re.compile(r"\b(?:frozen)?set\[")
MANY = settings(max_examples=settings.default.max_examples * 2)


@st.composite
def typed_values(draw: Any) -> tuple[Any, Any]:
    tp = draw(types)
    return tp, draw(values(tp))


@MANY
@example((set[int] | frozenset[int], frozenset({1})))
@example((list[Literal[1, 2] | bool], [True]))
@given(typed_values())
def test_a_value_comes_back_as_it_was_or_is_not_written(case: tuple[Any, Any]) -> None:
    tp, value = case
    payload = Payload.of(value, tp)
    try:
        data = payload.json()
    except PayloadError:
        return
    json.loads(data)
    back = Payload.load(tp, data)
    # Of int | IntEnum, of set | frozenset, and for pydantic of Literal[1] | bool, JSON tells the value and not the
    # class; what is equal comes back.
    text = repr(tp)
    one = "Literal[1, 2]" in text and "bool" in text
    mixed = "Size" in text or "Colour" in text or {"set[", "frozenset["} <= set(SETS.findall(text)) or one
    assert identical(back.value, value) or (mixed and back.value == value)
    assert back.schema_id == payload.schema_id
    if not mixed:
        assert back.digest == payload.digest


NUMBERS_AND_BYTES = st.recursive(
    st.sampled_from([float, bytes, int, str, bool]),
    lambda inner: inner.map(lambda t: list[t]) | inner.map(lambda t: dict[str, t]) | inner.map(lambda t: tuple[t, ...]),
    max_leaves=3,
)


@MANY
@example((float, math.nan))
@example((float, -math.inf))
@example((bytes, b"\xff\x00"))
@given(NUMBERS_AND_BYTES.flatmap(lambda tp: st.tuples(st.just(tp), values(tp))))
def test_nan_infinities_and_bytes_keep_their_value(case: tuple[Any, Any]) -> None:
    tp, value = case
    data = Payload.of(value, tp).json()
    assert b"null" not in data or "str" in repr(tp)
    assert identical(Payload.load(tp, data).value, value)


@MANY
@given(types, st.binary() | st.text().map(str.encode) | JSON)
def test_foreign_data_is_read_as_the_type_or_refused(tp: Any, data: bytes) -> None:
    try:
        value = Payload.load(tp, data).value
    except PayloadError:
        return
    assert Payload.of(value, tp).value is value
