"""mai.types: the typed envelope Payload; what Context shows of a call is in `tests.core.test_frame`."""

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer, RootModel, SecretBytes, SecretStr
from pydantic.errors import PydanticSchemaGenerationError
from typing_extensions import TypedDict

from mai import Payload, PayloadError
from tests.support import refused


class Point(BaseModel):
    x: float
    note: bytes = b""


class Point3(Point):
    z: int = 0


@dataclass
class Size:
    w: float
    raw: bytes


class Movie(TypedDict):
    title: str
    raw: bytes


class Opaque: ...


def unchanged(value: Any, tp: Any) -> bool:
    """Say whether *value* is written without loss or not at all."""
    try:
        data = Payload.of(value, tp).json()
    except PayloadError:
        return True
    again = Payload.load(tp, data).value
    return type(again) is type(value) and repr(again) == repr(value)


NUMBERS = st.floats(allow_nan=False) | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    payload = Payload.of(value, Any)
    again = Payload.load(Any, payload.json())
    assert again.value == value
    assert again == payload
    assert again.digest == payload.digest


@given(st.binary(), st.floats(allow_nan=False))
def test_bytes_keep_their_value(raw: bytes, number: float) -> None:
    for tp, value in ((bytes, raw), (list[bytes], [raw]), (dict[str, bytes], {"a": raw}), (bytes | None, raw)):
        assert Payload.load(tp, Payload.of(value, tp).json()).value == value


@given(st.binary(), st.floats(allow_nan=False))
def test_bytes_keep_their_value_or_fail_where_a_type_brings_its_own_configuration(raw: bytes, number: float) -> None:
    for tp, value in (
        (Size, Size(number, raw)),
        (Point, Point(x=number, note=raw)),
        (Movie, {"title": "x", "raw": raw}),
        (list[Point], [Point(x=number, note=raw)]),
    ):
        assert unchanged(value, tp)


@pytest.mark.parametrize("tp", [Any, object, list[Any], dict[str, Any]])
def test_bytes_of_no_declared_type_keep_their_value_or_fail(tp: Any) -> None:
    value = {list[Any]: [b"ab"], dict[str, Any]: {"a": b"ab"}}.get(tp, b"ab")
    assert unchanged(value, tp)


ODD_NUMBERS = pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])


class Note(BaseModel):
    about: Any
    also: dict[str, Any] = {}


@ODD_NUMBERS
def test_nan_and_the_infinities_keep_their_value(number: float) -> None:
    for tp, value in ((float, number), (list[float], [number]), (Point, Point(x=number)), (Size, Size(number, b""))):
        assert repr(Payload.load(tp, Payload.of(value, tp).json()).value) == repr(value)


@ODD_NUMBERS
@pytest.mark.parametrize("tp", [Any, list[Any], dict[str, Any], Note, list])
def test_nan_and_the_infinities_of_no_declared_type_never_become_null(tp: Any, number: float) -> None:
    note = Note(about=number, also={"a": number})
    value = {list[Any]: [number], dict[str, Any]: {"a": [number]}, Note: note, list: [number]}.get(tp, number)
    assert unchanged(value, tp)


def test_dates_and_other_types_go_by_their_declared_type() -> None:
    day = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    assert Payload.load(dt.datetime, Payload.of(day, dt.datetime).json()).value == day
    assert Payload.load(set[int], Payload.of({1, 2}, set[int]).json()).value == {1, 2}
    assert Payload.load(tuple[int, str], b'[1,"a"]').value == (1, "a")


def test_json_is_small_utf8_and_made_once() -> None:
    payload = Payload.of({"ä": [1, 2]}, dict[str, list[int]])
    assert payload.json() == '{"ä":[1,2]}'.encode()
    assert payload.json() is payload.json()


def test_the_size_is_the_length_of_the_json_but_of_text_and_bytes_their_own() -> None:
    assert Payload.of({"a": [1, 2]}, dict[str, list[int]]).size == 11
    assert Payload.of("ä\n", str).size == 3
    assert Payload.of(b"\x00\xff", bytes).size == 2
    assert Payload.of("\ud800", str).size == 3


def test_the_digest_names_the_content_and_the_schema_id_the_shape() -> None:
    one, same, other = Payload.of([1], list[int]), Payload.of([1], list[int]), Payload.of([2], list[int])
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == 32
    assert int(one.digest, 16) >= 0
    assert one.schema_id == other.schema_id != Payload.of(["1"], list[str]).schema_id
    assert len(one.schema_id) == 16
    assert Payload.of(Point(x=1), Point).schema_id != Payload.of(Point3(x=1), Point3).schema_id


class Numbers(BaseModel, serialize_by_alias=True, validate_by_name=True):
    found: set[int] = Field(alias="gefunden")
    rest: dict[str, list[set[int]]] = {}


class Root(RootModel[set[int]]):
    pass


@dataclass
class Pair:
    left: frozenset[int]
    right: list[set[int]]


def test_the_digest_does_not_follow_the_order_of_sets_and_keys_and_the_json_does() -> None:
    made: dict[Any, Callable[[list[int]], Any]] = {
        set[int]: set,
        frozenset[frozenset[int]]: lambda found: frozenset(map(frozenset[int], (found, [1]))),
        dict[str, dict[str, set[int]]]: lambda found: {str(number): {"inner": set(found)} for number in found},
        Numbers: lambda found: Numbers(found=set(found), rest={str(number): [set(found)] for number in found}),
        Root: lambda found: Root(set(found)),
        Pair: lambda found: Pair(frozenset(found), [set(found), {1}]),
        tuple[set[int], int]: lambda found: (set(found), 1),
    }
    one, other = [0, 8, 16], [16, 8, 0]  # they fall into one place of the table, so the first to come stays first
    for tp, make in made.items():
        first, second = Payload.of(make(one), tp), Payload.of(make(other), tp)
        assert first.json() != second.json(), tp
        assert first.digest == second.digest, tp
        assert first.digest != Payload.of(make([0, 8]), tp).digest
    assert Payload.of({"b": 1, "a": 2}, dict[str, int]).json() == b'{"b":1,"a":2}'


def test_the_digest_keeps_the_order_of_lists() -> None:
    assert Payload.of([1, 2], list[int]).digest != Payload.of([2, 1], list[int]).digest


def test_the_digest_counts_what_a_serializer_of_the_users_own_makes_of_a_set() -> None:
    def doubled(found: set[int]) -> list[int]:
        return [*sorted(found), *sorted(found)]

    tp = Annotated[set[int], PlainSerializer(doubled)]
    assert Payload.of({1, 2}, tp).digest == Payload.of({2, 1}, tp).digest != Payload.of({1, 3}, tp).digest


def test_equal_values_of_equal_types_are_equal() -> None:
    assert Payload.of([1], list[int]) == Payload.of([1], list[int])
    assert Payload.of([1], list[int]) != Payload.of([1], list[float])
    assert Payload.of(1, int) != 1


def test_the_repr_tells_type_and_value() -> None:
    assert repr(Payload.of([1], list[int])) == "Payload(value=[1], tp=list[int])"


def test_a_type_that_cannot_be_hashed_works() -> None:
    tp = Annotated[int, ["not hashable"]]
    assert Payload.load(tp, Payload.of(5, tp).json()).value == 5


@pytest.mark.parametrize("data", [b"nonsense", "{", b"\xff", b'"a"', b"", b"null"])
def test_data_that_is_not_json_of_the_type_is_refused(data: Any) -> None:
    with pytest.raises(PayloadError, match=r"^Cannot read a int from ") as caught:
        Payload.load(int, data)
    assert caught.value.expected == "int"
    assert isinstance(caught.value.__cause__, ValueError)


def test_only_the_beginning_of_the_data_is_shown() -> None:
    with pytest.raises(PayloadError) as caught:
        Payload.load(int, "x" * 10_000)
    assert len(str(caught.value)) < 400


class Hidden:
    def __repr__(self) -> str:
        return "<Hidden>"


@pytest.mark.parametrize(
    ("value", "tp", "expected"),
    [
        ("a", int, "int"),  # not of its type
        ({1: object()}, Any, "Any"),
        (Hidden(), Hidden, "Hidden"),
        (lambda: 1, Any, "Any"),
        ("\ud800", str, "str"),  # a lone surrogate is no UTF-8
        (b"\xff", int | list[int], "int | list[int]"),
    ],
)
def test_what_cannot_be_written_without_loss_fails_when_written(value: Any, tp: Any, expected: str) -> None:
    payload = Payload.of(value, tp)
    with pytest.raises(PayloadError, match=r"^Cannot write a ") as caught:
        payload.json()
    assert caught.value.expected == expected


def test_a_value_that_holds_itself_fails_when_written() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PayloadError, match=r"^Cannot write a list as list"):
        Payload.of(loop, list[Any]).json()


class Schemaless:
    """A type that refuses every schema."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise PydanticSchemaGenerationError("not today")


def test_a_type_without_any_schema_is_refused() -> None:
    message = "Cannot make JSON of Schemaless: pydantic knows no schema for it"
    with refused(PayloadError, message) as caught:
        Payload.load(Schemaless, b"1")
    assert caught.value.expected == "Schemaless"
    with pytest.raises(PayloadError, match=message):
        Payload.of(Schemaless(), Schemaless).json()


def test_a_type_that_is_not_fully_defined_is_refused() -> None:
    odd = Annotated["Nowhere", 1]  # type: ignore[name-defined]  # noqa: F821
    with pytest.raises(PayloadError):
        Payload.load(odd, b"1")
    with pytest.raises(PayloadError):
        Payload.of(1, odd).json()


@pytest.mark.parametrize("value", [{1: "a"}, {(1, 2): "a"}, {None: 1}, {1.5: 2}, {True: 1}, (1, 2), {1, 2}, b"ab"])
def test_what_has_no_json_of_its_own_keeps_its_value_or_fails(value: Any) -> None:
    assert unchanged(value, type(value))


def test_a_subclass_does_not_lose_its_own_fields_silently() -> None:
    assert unchanged(Point3(x=1, z=5), Point)


@pytest.mark.parametrize("tp", [Any, object, BaseModel, dict[str, Any]])
def test_data_never_chooses_a_class(tp: Any) -> None:
    data = b'{"py/object":"subprocess.Popen","__class__":"Point","x":1}'
    try:
        value = Payload.load(tp, data).value
    except PayloadError:
        return
    assert type(value) in (dict, BaseModel)


def test_a_constraint_is_checked_when_read() -> None:
    with pytest.raises(PayloadError, match="greater than or equal to 0"):
        Payload.load(Annotated[int, Field(ge=0)], b"-1")


class Account(BaseModel):
    name: str
    key: SecretStr


@pytest.mark.parametrize(
    ("value", "tp"),
    [
        (SecretStr("k"), SecretStr),
        (SecretBytes(b"k"), SecretBytes),
        ([SecretStr("k")], list[SecretStr]),
        (Account(name="ann", key=SecretStr("k")), Account),
    ],
)
def test_what_would_come_back_as_asterisks_is_no_payload(value: Any, tp: Any) -> None:
    with pytest.raises(PayloadError, match="Cannot write a"):
        Payload.of(value, tp).json()
