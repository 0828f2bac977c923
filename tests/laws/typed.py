"""Random types with values of them, for the laws about casts and payloads."""

import datetime
import enum
import math
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal, NewType, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Point(BaseModel):
    x: int
    y: float = 0.0


class Named(Point):
    label: str


@dataclass
class Pair:
    left: int
    right: str


class Row(TypedDict):
    a: int
    b: str


UserId = NewType("UserId", int)
numbers = st.integers(-(2**70), 2**70)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    str: st.text() | st.sampled_from(["1", "1.5", "true", "2020-01-01", "red", "12:00", "", "nan", "P1D"]),
    float: st.floats(),
    bool: st.booleans(),
    bytes: st.binary() | st.sampled_from([b"1", b"red", b"2020-01-01"]),
    None: st.none(),
    datetime.date: st.dates(),
    datetime.time: st.times(),
    datetime.timedelta: st.timedeltas(datetime.timedelta(days=-9999), datetime.timedelta(days=9999)),
    uuid.UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    PurePosixPath: st.text("abc/", min_size=1).map(PurePosixPath),
    Colour: st.sampled_from(Colour),
    Size: st.sampled_from(Size),
    UserId: numbers,
    Literal["red", "1"]: st.sampled_from(["red", "1"]),
    Literal[1, 2]: st.sampled_from([1, 2]),
    Point: st.builds(Point, x=numbers, y=st.floats()),
    Named: st.builds(Named, x=numbers, y=st.floats(), label=st.text()),
    Pair: st.builds(Pair, numbers, st.text()),
    Row: st.fixed_dictionaries({"a": numbers, "b": st.text()}),
}
HASHABLE = (int, str, bool, bytes, datetime.date, uuid.UUID, Colour)


def _extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        inner.map(lambda t: list[t])
        | inner.map(lambda t: tuple[t, ...])
        | inner.map(lambda t: Sequence[t])
        | inner.map(lambda t: deque[t])
        | inner.map(lambda t: dict[str, t])
        | inner.map(lambda t: Mapping[str, t])
        | inner.map(lambda t: t | None if t is not None else t)
        | st.tuples(inner, inner).map(lambda ts: tuple[ts])
        | st.tuples(inner, inner).map(lambda ts: Union[ts])  # noqa: UP007 (the types are values here)
        | st.sampled_from(HASHABLE).map(lambda t: set[t])
        | st.sampled_from(HASHABLE).map(lambda t: frozenset[t])
    )


types = st.recursive(st.sampled_from([*VALUES]), _extend, max_leaves=3)


def values(tp: Any, smallest: int = 0) -> st.SearchStrategy[Any]:
    """Return a strategy for values of *tp*, its containers with at least so many items."""
    if tp in VALUES:
        return VALUES[tp]
    if tp is type(None):
        return st.none()
    kind, args = get_origin(tp), get_args(tp)
    if kind is Union or type(tp).__name__ == "UnionType":
        return st.one_of([values(arg, smallest) for arg in args])
    if kind is tuple and args[-1] is not ...:
        return st.tuples(*(values(arg, smallest) for arg in args))
    if kind in (dict, Mapping):
        return st.dictionaries(st.text(), values(args[1], smallest), min_size=smallest, max_size=3)
    items = st.lists(values(args[0], smallest), min_size=smallest, max_size=3)
    return items if kind in (list, Sequence) else items.map(kind)


def identical(a: Any, b: Any) -> bool:
    """Say whether two values are equal, of the same types all through, and NaN where the other is NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, BaseModel | Pair):
        return identical(vars(a), vars(b))
    if isinstance(a, dict):
        return set(a) == set(b) and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
