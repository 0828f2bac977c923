"""Casts: what passes as it is, what is converted, what is refused, and which edges may be wired."""

# ruff: noqa: UP006, UP007, UP035, UP045 (old spellings of types are given to steps too)

import abc
import datetime as dt
import enum
import types
import typing
from collections import defaultdict, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Dict,
    Generic,
    List,
    Literal,
    NewType,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
    Union,
    runtime_checkable,
)

import pytest
from pydantic import (
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    RootModel,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType, TypedDict  # what pydantic asks for before Python 3.12

from mai import CastError, Module, WiringError, module
from mai.values.casts import caster, show
from tests.laws.typed import identical
from tests.support import refused, simulated


class Point(BaseModel):
    x: int


class Point3(Point):
    z: int = 0


@dataclass
class Size:
    w: int


class Movie(TypedDict):
    title: str


class Show(TypedDict):
    title: str


class PlainMovie(typing.TypedDict):
    title: str


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Run(TypedDict):
    km: float


@dataclass
class Unit:  # what is compared and may change cannot be hashed
    name: str


class Unity(dict[str, int], enum.Enum):
    KM = {"metres": 1000}


class Road(TypedDict):
    unit: Unity
    long: float


class Fields(TypedDict):  # named like the parts of a core schema
    type: float
    schema: float


class Spot(typing.NamedTuple):
    x: float
    y: float


LOOP: dict[str, Any] = {}
LOOP["loop"] = LOOP


class Looped(BaseModel):
    a: Any = LOOP
    b: float = 1.0


Real = TypeAliasType("Real", float)
Metres = NewType("Metres", float)


class Opaque:
    def __init__(self, n: int = 0) -> None:
        self.n = n


class Special(Opaque):
    pass


@runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...


class Quacks(Protocol):
    def quack(self) -> None: ...


class Duck:
    def quack(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Named(Protocol):
    name: str


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


class Circle(Shape):
    def area(self) -> float:
        return 1.0


class Person:
    def __init__(self) -> None:
        self.name = "ann"


class Iban:
    """A type with a validator of its own."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda v: v)


class Touchy(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def _boom(cls, value: int) -> int:
        raise RuntimeError("never")


UserId = NewType("UserId", int)
AdminId = NewType("AdminId", UserId)
T = TypeVar("T")
B = TypeVar("B", bound=Point)
S = TypeVar("S", int, str)


class Box(Generic[T]):
    pass


class BoxModel(BaseModel, Generic[T]):
    item: T


Numbers = TypeAliasType("Numbers", list[int])
Tree = TypeAliasType("Tree", "int | list[Tree]")  # type: ignore[misc]  # as ``type Tree = int | list[Tree]``


def f() -> None: ...


# ---------------------------------------------------------------- values


POINT, SIZE, OPAQUE, DUCK = Point3(x=1), Size(1), Special(), Duck()


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (Any, object()),
        (object, 1),
        (T, 1),
        (int, 1),
        (int, True),
        (str, "a"),
        (float, 1.0),
        (type(None), None),
        (None, None),
        (Point, POINT),
        (Size, SIZE),
        (Opaque, OPAQUE),
        (Colour, Colour.RED),
        (UserId, 5),
        (AdminId, 5),
        (B, POINT),
        (Optional[int], None),
        (int | None, 5),
        (Union[int, str], "a"),
        (int | list[str], ["a"]),
        (list[int], [1]),
        (List[int], [1]),
        (list[Any], [object()]),
        (list[list[int]], [[1], []]),
        (set[int], {1}),
        (frozenset[int], frozenset({1})),
        (deque[int], deque([1])),
        (Sequence[int], [1]),
        (Sequence[int], (1,)),
        (Collection[int], {1}),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2)),
        (tuple[int, ...], ()),
        (Tuple[int], (1,)),
        (dict[str, int], {"a": 1}),
        (Dict[str, Any], {"a": f}),
        (Mapping[str, int], {"a": 1}),
        (Literal["a", "b"], "a"),
        (Literal[1], 1),
        (Callable[[int], int], f),
        (type[Point], Point3),
        (Iterable[int], [1]),
        (Iterator[int], iter([1])),
        (Iterable[Point], [POINT]),
        (list[Iterable[int]], [[1]]),
        (Point | None, POINT),
        (list[Point], [POINT]),
        (list[Opaque | None], [OPAQUE]),
        (Closes, DUCK),
        (Quacks, DUCK),
        (list, [1]),
        (dict, {}),
        (tuple, ()),
        (Path, Path("a")),
        (list[Annotated[float, Unit("m")]] | None, [1.0]),
        (defaultdict[str, float], defaultdict(float, a=1.0)),
        (dict[str, Real] | Real, {"a": 1.0}),
        (tuple[Annotated[float, Field(gt=0)], int], (1.0, 2)),
        (float | None, 1),
        (Road, {"unit": Unity.KM, "long": 1.0}),
        (dict[str, Unity | float], {"a": Unity.KM, "b": 1.0}),
        (Looped | None, Looped()),
        (list[Fields], [{"type": 1.0, "schema": 2.0}]),
    ],
)
def test_a_value_of_the_type_passes_as_the_very_same_object(tp: Any, value: Any) -> None:
    assert caster(tp)(value, "x") is value


@pytest.mark.parametrize(
    ("tp", "value", "result"),
    [
        (int, "5", 5),
        (float, 1, 1.0),
        (str, b"a", "a"),
        (bool, "yes", True),
        (Point, {"x": "1"}, Point(x=1)),
        (Size, {"w": 2}, Size(2)),
        (list[int], ("1", 2), [1, 2]),
        (tuple[int, int], [1, "2"], (1, 2)),
        (tuple[int, ...], ["1"], (1,)),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Mapping[str, int], {"a": "1"}, {"a": 1}),
        (set[int], [1, 1], {1}),
        (Movie, {"title": "x"}, {"title": "x"}),
        (Colour, "red", Colour.RED),
        (Level, 1, Level.LOW),
        (dt.date, "2026-01-02", dt.date(2026, 1, 2)),
        (Path, "a/b", Path("a/b")),
        (list[Point], [{"x": 1}], [Point(x=1)]),
        (Point | None, {"x": 1}, Point(x=1)),
        (Point | Size, {"x": 1}, Point(x=1)),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(x=1)}),
        (Sequence[tuple[Point, int]], [({"x": 1}, 2)], [(Point(x=1), 2)]),
        (Annotated[Point, "note"], {"x": 1}, Point(x=1)),
        (Annotated[str, StringConstraints(strip_whitespace=True)], " a ", "a"),
        (list[SecretStr], ["a"], [SecretStr("a")]),
        (list[RootModel[int]], [1], [RootModel[int](1)]),
        (Numbers, ["1"], [1]),
        (BoxModel[Any], BoxModel[int](item=1), BoxModel[Any](item=1)),
        (int | None, "5", 5),
        (list[int | None], ["5", None], [5, None]),
        (UserId, "5", 5),
        (B, {"x": 1}, Point(x=1)),
        (Annotated[int, Field(ge=0)], "5", 5),
        (deque[int], ["1"], deque([1])),
        (BoxModel[int], {"item": "1"}, BoxModel[int](item=1)),
        (tuple[Annotated[int, Field(ge=0)], int], ("1", 2), (1, 2)),
        (list[Movie], [{"title": "x"}], [{"title": "x"}]),
        (dict[str, Movie], {"a": {"title": "x"}}, {"a": {"title": "x"}}),
        (Movie | int, {"title": "x"}, {"title": "x"}),
        (S, 5, 5),
        (list[float], [Decimal("0.5"), 1], [0.5, 1.0]),
        (float | None, Fraction(1, 2), 0.5),
        (Annotated[float, Field(gt=0)], Decimal("0.5"), 0.5),
        (dict[str, Real] | Real, {"a": Decimal("0.5")}, {"a": 0.5}),
        (tuple[Metres, ...], (Decimal("0.5"),), (0.5,)),
        (list[Run], [{"km": Decimal("0.5")}], [{"km": 0.5}]),
        (list[Fields], [{"type": Decimal(1), "schema": Decimal(2)}], [{"type": 1.0, "schema": 2.0}]),
        (list[Spot], [Spot(Decimal("0.5"), 1.0)], [Spot(0.5, 1.0)]),
    ],
)
def test_what_pydantics_lax_mode_converts_is_cast(tp: Any, value: Any, result: Any) -> None:
    cast = caster(tp)(value, "x")
    assert identical(cast, result)


@pytest.mark.parametrize(
    ("tp", "value", "message"),
    [
        (
            int,
            "a",
            "'x' must be int, not str 'a' (Input should be a valid integer, unable to parse string as an integer)",
        ),
        (
            Point,
            {"x": "a"},
            (
                "'x' must be Point, not dict {'x': 'a'} "
                "(x: Input should be a valid integer, unable to parse string as an integer)"
            ),
        ),
        (Movie, {"title": 1}, "'x' must be Movie, not dict {'title': 1} (title: Input should be a valid string)"),
        (Movie, 5, "'x' must be Movie, not int 5 (Input should be a valid dictionary)"),
        (Opaque, 5, "'x' must be Opaque, not int 5 (Input should be an instance of Opaque)"),
        (Literal["a"], "b", "'x' must be Literal['a'], not str 'b' (Input should be 'a')"),
        (None, 1, "'x' must be None, not int 1 (Input should be None)"),
        (tuple[int, int], (1,), "'x' must be tuple[int, int], not tuple (1,) (1: Field required)"),
        (
            list[float],
            [10**400],
            f"'x' must be list[float], not list [1{'0' * 57}… (0: Input should be a valid number)",
        ),
        (
            Annotated[int, Field(ge=0)],
            -1,
            f"'x' must be {show(Annotated[int, Field(ge=0)])}, not int -1 (Input should be greater than or equal to 0)",
        ),
    ],
)
def test_what_cannot_be_cast_says_where_and_what_was_expected(tp: Any, value: Any, message: str) -> None:
    with refused(CastError, message) as caught:
        caster(tp)(value, "x")
    error = caught.value
    assert (error.step_id, error.where, error.expected) == ("", "x", show(tp))
    assert isinstance(error.__cause__, ValidationError)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(CastError) as caught:
        caster(int)("y" * 200, "x")
    assert f"not str '{'y' * 58}… (" in str(caught.value)


def test_a_type_that_pydantic_knows_nothing_of_is_checked_by_class_alone() -> None:
    odd = Annotated[AsyncIterator[int], "note"]
    with pytest.raises(CastError, match="'x' must be Annotated"):
        caster(odd)(5, "x")


def test_no_text_in_a_type_takes_long_to_look_at() -> None:
    for text in ("list." * 99, "Iterator" * 9_999, "Iterable[\n" * 9_999):
        tp: Any = Literal.__getitem__(text)
        assert caster(list[tp])([text], "x") == [text]


def test_a_type_that_cannot_be_hashed_works() -> None:
    tp = Annotated[int, ["not hashable"]]
    assert caster(tp)("5", "x") == 5


@simulated
async def test_a_typed_dict_of_the_standard_library_is_taken_on_every_python() -> None:
    @module
    async def title(movie: PlainMovie) -> str:
        return movie["title"]

    assert await title({"title": "x"}) == "x"


@simulated
async def test_inputs_and_outputs_are_cast_in_a_call_and_errors_name_the_step() -> None:
    @module
    async def shift(point: Point, by: float = 1) -> Point3:
        return {"x": point.x + by, "z": "2"}  # type: ignore[return-value]

    @module
    async def bad(point: Point) -> int:
        return "many"  # type: ignore[return-value]

    @module
    async def outer(point: Point) -> int:
        return await bad(point)

    assert await shift({"x": 1}, by="2") == Point3(x=3, z=2)
    with pytest.raises(CastError) as caught:
        await outer({"x": 1})
    assert str(caught.value).startswith("outer/bad: the returned value must be int, not str 'many' (")
    assert (caught.value.step_id, caught.value.where, caught.value.expected) == ("outer/bad", "return", "int")
    with pytest.raises(CastError) as caught:
        await outer({"y": 1})
    assert str(caught.value).startswith("outer: 'point' must be Point, not dict {'y': 1} (x: Field required)")


# ---------------------------------------------------------------- edges


SAME = [
    (Circle, Shape),
    (int, int),
    (bool, int),
    (Point3, Point),
    (Any, Any),
    (int, Any),
    (int, object),
    (int, T),
    (list[int], list[int]),
    (list[bool], list[int]),
    (list[int], Sequence[int]),
    (list[int], Iterable[int]),
    (list[int], list),
    (dict[str, int], Mapping[str, int]),
    (tuple[int, str], tuple[int, str]),
    (tuple[bool, str], tuple[int, str]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, ...], Sequence[int]),
    (int, int | None),
    (int | str, int | str | None),
    (int | None, Optional[int]),
    (UserId, int),
    (UserId, UserId),
    (AdminId, UserId),
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (Literal["a", 1], str | int),
    (Special, Opaque),
    (B, Point),
    (Annotated[int, "x"], int),
    (type(None), int | None),
    (Duck, Quacks),
    (Duck, Closes),
    (Movie, Movie),
    (Level, int),
    (Movie, dict),
    (Person, Named),
    (Numbers, list[int]),
    (list[int], Numbers),
    (dict[str, Numbers], Mapping[str, Sequence[int]]),
    (Generator[int, str, None], Iterator[int]),
    (AsyncGenerator[int, None], AsyncIterable[int]),
]
CAST = [
    (Shape, Circle),
    (Any, int),
    (int, float),
    (str, int),
    (int, str | float),
    (dict, Point),
    (dict[str, Any], Point),
    (dict, Size),
    (dict[str, int], Movie),
    (Movie, dict[str, Any]),
    (str, dt.date),
    (str, dt.timedelta),
    (str, Path),
    (str, Colour),
    (int, Level),
    (list[int], tuple[int, ...]),
    (list[str], list[int]),
    (list[int], set[int]),
    (tuple[int, int], list[int]),
    (list, list[int]),
    (Point, Point3),
    (object, int),
    (int | str, int),
    (int | list[int], int),
    (int, Annotated[int, Field(ge=0)]),
    (Annotated[str, "x"], int),
    (Literal["1"], int),
    (str, Literal["a"]),
    (Literal["a", "b"], Literal["a"]),
    (str, Iban),
    (int, bool),
    (str, float),
    (bytes, str),
    (str, bytes),
    (float, int),
    (Opaque, Special),
    (tuple[str, str], tuple[int, int]),
    (list[str], tuple[int, str]),
    (tuple[int, ...], tuple[int, int]),
    (S, int),
    (Movie, Show),
    (dict, Show),
    (str, UserId),
    (dict[str, str], dict[str, int]),
    (Mapping[str, int], dict[str, int]),
    (bool, str | float),
    (Iterator[int], list[int]),
    (set[int], deque[int]),
    (int, Callable[[int], int] | float),
    (dict, BoxModel[int]),
    (BoxModel[int], BoxModel[Any]),
    (BoxModel[Any], BoxModel[int]),
    (BoxModel[int], BoxModel[str | float]),
    (Numbers, list[str | float]),
    (int, Tree),
    (Tree, JsonValue),
    (JsonValue, str),
]
NEVER = [
    (Shape, int),
    (Shape, Opaque),
    (int, list[int]),
    (str, Point),
    (Point, str),
    (Point, int),
    (list[int], int),
    (int, dict[str, int]),
    (Opaque, int),
    (BoxModel[int], BoxModel[Point]),
    (Numbers, int),
    (int, Opaque),
    (Point, Size),
    (type(None), int),
    (int, type(None)),
    (tuple[int, int], tuple[int, int, int]),
    (list[Point], list[int]),
    (dict[str, Point], dict[str, int]),
    (int, Movie),
    (Literal["a"], int),
    (Literal["a"], Literal["b"]),
    (int, Literal["a"]),
    (Point, Colour),
    (float, list[float] | dict[str, float]),
    (Point, int | Opaque),
    (Opaque | Point, int),
    (str, Touchy),
    (Point, Annotated[int, Field(ge=0)]),
    (Annotated[Point, "x"], int),
    (int, Size),
    (list[int], Point),
    (tuple[int, Point], list[int]),
    (list[Point], tuple[int, str]),
    (list[int], tuple[int, str]),
    (Movie, int),
    (Opaque, Colour),
    (str, Opaque),
    (Point, Literal["a"]),
]


def wired(src: Any, dst: Any) -> Any:
    async def a(x): ...  # type: ignore[no-untyped-def]
    async def b(x): ...  # type: ignore[no-untyped-def]

    a.__annotations__, b.__annotations__ = {"return": src}, {"x": dst}
    return module(a) >> b


@pytest.mark.parametrize(("src", "dst"), SAME + CAST)
def test_an_edge_that_some_value_can_take_is_wired(src: Any, dst: Any) -> None:
    assert len(wired(src, dst).steps) == 2


@pytest.mark.parametrize(("src", "dst"), SAME)
def test_the_same_type_or_a_subtype_passes_for_brackets_too(src: Any, dst: Any) -> None:
    async def forward(self, x): ...  # type: ignore[no-untyped-def]

    forward.__annotations__ = {"x": dst, "return": src}
    assert types.new_class("Made", (Module[src, dst],), exec_body=lambda body: body.update(forward=forward))


@pytest.mark.parametrize(("src", "dst"), NEVER)
def test_where_no_value_can_be_converted_the_edge_is_refused(src: Any, dst: Any) -> None:
    with refused(
        WiringError,
        f"cannot connect a -> b\n  a returns {show(src)}\n  b(x) expects {show(dst)}\n"
        f"  hint: put a step between them that turns {show(src)} into {show(dst)}",
    ):
        wired(src, dst)


@pytest.mark.parametrize(
    ("tp", "text"),
    [
        (int, "int"),
        (None, "None"),
        (type(None), "None"),
        (Any, "Any"),
        (int | None, "int | None"),
        (Optional[Point], "Point | None"),
        (list[int], "list[int]"),
        (dict[str, list[Point]], "dict[str, list[Point]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Callable[[], int], "Callable[[], int]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (T, "~T"),
        (list, "list"),
        (Callable[[int], str], "Callable[[int], str]"),
        (Callable[..., str], "Callable[..., str]"),
        (tuple[()], "tuple[()]"),
    ],
)
def test_types_are_shown_as_a_reader_would_write_them(tp: Any, text: str) -> None:
    assert show(tp) == text
