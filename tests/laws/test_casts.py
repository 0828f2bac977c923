"""Casts: what may be wired agrees with what pydantic's lax mode can do, and a right value is left alone."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from mai import BlockingDelay, CastError, Graph, WiringError, module
from mai.layers.edges import fits
from mai.values.casts import caster
from tests.support import simulate

from .typed import Point, Row, identical, types, values

MANY = settings(max_examples=settings.default.max_examples * 2)


@st.composite
def edges(draw: Any) -> tuple[Any, Any, Any]:
    """A source type, a target type, a value of the source type (no empty container, for that fits everywhere)."""
    src, dst = draw(types), draw(types)
    return src, dst, draw(values(src, smallest=1))


def pydantic(tp: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(tp, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # it brings a configuration of its own
        return TypeAdapter(tp)


@MANY
@example((deque[int], list[int], deque([0])))
@example((list[None], Sequence[int | None], [None]))
@example((Decimal, int, Decimal(0)))
@given(edges())
def test_where_no_cast_is_thought_possible_pydantic_finds_none_either(edge: tuple[Any, Any, Any]) -> None:
    src, dst, value = edge
    if fits(src, dst) is None:
        with pytest.raises(ValidationError):
            pydantic(dst).validate_python(value)


@MANY
@example((str, bytes, "abcd"))
@example((list[str], list[bytes], ["red"]))
@example((dict[str, Any], Point | None, {"x": 1, "y": 0.5}))
@example((list[dict[str, Any]], list[Point], [{"x": 1, "y": 0.5}]))
@example((list[Decimal] | None, list[float], [Decimal("0.5")]))
@given(edges())
def test_a_cast_is_what_pydantic_makes_of_it_or_a_cast_error(edge: tuple[Any, Any, Any]) -> None:
    src, dst, value = edge
    try:
        out = caster(dst)(value, "x")
    except CastError:
        assert fits(src, dst) != "same" or "Sequence" in repr(dst)  # for which pydantic takes no str
        with pytest.raises(ValidationError):
            pydantic(dst).validate_python(value)
        return
    assert fits(src, dst) is not None
    made = pydantic(dst).validate_python(value)
    assert identical(out, made) or (out is value and out == made)  # an int among floats is left alone
    again = caster(dst)(out, "x")
    assert again is out or identical(again, out)


@MANY
@example((Row, int, {"b": "", "a": 0}))
@example((list[Row], list[Row | None], [{"b": "", "a": 0}]))
@given(edges())
def test_what_fits_as_it_is_stays_the_very_object(edge: tuple[Any, Any, Any]) -> None:
    src, dst, value = edge
    assert fits(src, src) == "same"
    assert caster(src)(value, "x") is value
    if "Sequence" in repr(dst):  # pydantic takes no str for one, and has no strict look at a deque
        return
    if fits(src, dst) == "same":
        out = caster(dst)(value, "x")
        assert out is value or (out == value and "bool" in repr(src))  # of which pydantic makes an int, among ints


ASKING = [
    Annotated[int, Field(gt=0)], Annotated[str, StringConstraints(to_lower=True)], list[Annotated[float, Field(le=1)]],
    Annotated[int, AfterValidator(lambda n: n + 1)], Annotated[Point, "noted"], dict[str, Any], list[Any],
]  # fmt: skip
OPEN = {
    Any: st.none() | st.integers() | st.text() | st.just({"x": 1}),
    dict[str, Any]: st.fixed_dictionaries({"x": st.integers()}),
}


@st.composite
def wired(draw: Any) -> tuple[Any, Any, Any]:
    """A source type, a target type that may ask for more than pydantic's strict mode, a value of the source type."""
    src, dst = draw(types | st.sampled_from([*OPEN])), draw(types | st.sampled_from(ASKING))
    return src, dst, draw(OPEN[src] if src in OPEN else values(src))


@MANY
@example((int, Annotated[int, Field(gt=0)], -1))
@example((dict[str, Any], Point, {"x": 1}))
@example((Literal["red", "1"], Sequence[int], "red"))
@given(wired())
def test_a_step_gets_the_same_value_in_a_sequence_a_graph_branches_and_a_call(edge: tuple[Any, Any, Any]) -> None:
    src, dst, value = edge
    got: list[Any] = []

    async def giving(x: int) -> Any:
        return value

    async def taking(x: Any) -> int:
        got.append(x)
        return 1

    giving.__annotations__["return"], taking.__annotations__["x"] = src, dst
    a, b = module(giving), module(taking)

    @module
    async def call(x: int) -> int:
        return await b(await a(x))

    try:
        line = a >> b
    except WiringError:
        return
    g = Graph("g")
    wired = g.output(g.add(b, g.add(a, g.input("x", int))))
    outcomes: list[Any] = []

    async def main() -> None:
        for m in (line, wired, call, a >> (b & b.with_(name="again")), a >> BlockingDelay(0) >> b):
            got.clear()
            with suppress(CastError):
                await m(1)
            outcomes.append(got[:1])

    simulate(main)
    assert all(identical(found, outcomes[0]) for found in outcomes)
