"""Types at run time: is a value already of its type, and if not, how is it cast, and how is it written as JSON?

Where only pydantic knows, it is asked.
"""

import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import suppress
from functools import partial
from typing import Any, NewType, TypeVar, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from ..errors import CastError, PayloadError

_CONFIG = ConfigDict(arbitrary_types_allowed=True)
_HIDDEN = "'**********')"  # how pydantic's secret types look: as JSON they are these asterisks and nothing else
_JSON: ConfigDict = {**_CONFIG, "ser_json_inf_nan": "constants", "ser_json_bytes": "base64", "val_json_bytes": "base64"}
_REAL = {"type": "is-instance", "cls": (float, int)}
# Where a core schema has others: see pydantic_core.core_schema.
_PARTS = frozenset(
    "schema items_schema keys_schema values_schema choices steps fields definitions lax_schema strict_schema "
    "python_schema extras_schema arguments_schema".split()
)
UNIONS = (typing.Union, types.UnionType)
# Types of which strict mode tells all. (For a model it takes a dict, too.) What is iterated can be looked at but once.
_TOLD = re.compile(r"(?s).*(Itera...|Generator)\[.*|((?>(\w+\.)*)(list|dict|tuple|set|str|int|float|None|Any)|\W)+")


def show(tp: Any) -> str:
    """Return *tp* as a reader would write it."""
    if tp is inspect.Parameter.empty:
        return "Any"
    if get_origin(tp) in UNIONS:
        return " | ".join(map(show, get_args(tp)))
    text = tp.__name__ if isinstance(tp, type | NewType) and not get_args(tp) else repr(tp)
    text = re.sub(r"[A-Za-z_<][\w.<>]*\.(?=\w)", "", text).replace("NoneType", "None")
    return re.sub(r"Annotated\[(.+), Many\]", r"\1", text)


def bare_type(tp: Any) -> Any:
    """Return *tp* with NewTypes, TypeVars and aliases replaced by what they stand for."""
    while key := {NewType: "__supertype__", TypeVar: "__bound__"}.get(type(tp), "__value__" if _is_short(tp) else ""):  # pyright: ignore[reportUnknownArgumentType]
        tp = getattr(tp, key) or Any
    return type(None) if tp is None else tp


def _is_short(tp: Any) -> bool:
    """Say whether *tp* is an alias, ``type A = ...``, that is neither generic nor within itself."""
    return hasattr(tp, "__value__") and not get_args(tp) and tp.__name__ not in repr(tp.__value__)


def is_open(tp: Any) -> bool:
    """Say whether *tp* accepts every value, so that there is nothing to check or cast."""
    tp = bare_type(tp)
    protocol = getattr(tp, "_is_protocol", False) and not getattr(tp, "_is_runtime_protocol", False)
    unknown = protocol or isinstance(tp, typing.ParamSpecArgs | typing.ParamSpecKwargs)
    return unknown or tp in (Any, object, inspect.Parameter.empty)


class Caster:
    """Casts values to one type.

    Attributes:
        tp: The type.
        exact: A value whose class is exactly this needs no look at all; None where there is no such class.
        free: The type accepts everything.
    """

    def __init__(self, tp: Any) -> None:
        tp = Any if tp is inspect.Parameter.empty else tp
        plain = bare_type(tp)
        self.tp: Any = tp
        self.free: bool = is_open(plain)
        self.exact: type | None = None if hasattr(plain, "__required_keys__") or not isinstance(plain, type) else plain
        self._always = "Validator(" in repr(tp)  # a validator of the user may change a value of the right type
        self._tells: bool = _TOLD.fullmatch(repr(tp)) is not None

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """The TypeAdapter, or None where pydantic knows no schema at all."""
        return _make_adapter(self.tp, _CONFIG)

    @functools.cached_property
    def _strict(self) -> Any:
        """What tells in strict mode whether a value is of the type already."""
        made: Any = self.adapter
        schema = _with_real(made.core_schema)
        return made.validator if schema == made.core_schema else SchemaValidator(schema)

    @functools.cached_property
    def json(self) -> TypeAdapter[Any]:
        """The TypeAdapter for JSON, in which bytes are base64: in a cast, too, pydantic would decode a str by it."""
        if (made := _make_adapter(self.tp, _JSON)) is not None:
            return made
        text = show(self.tp)
        raise PayloadError(f"Cannot make JSON of {text}: pydantic knows no schema for it", expected=text)

    def __call__(self, value: Any, where: str, frame: Any = None) -> Any:
        """Return *value* itself if it is of the type already, else its cast by pydantic's lax mode.

        Raises:
            CastError: If it cannot be cast.
        """
        exact = self.exact
        if type(value) is exact or self.free:
            return value
        made = self.adapter
        if made is None or (exact is not None and is_subclass(type(value), exact)):
            return value
        try:
            strict = not self._always and exact is None and self._strict.isinstance_python(value, strict=True)
            cast = value if strict and self._tells else made.validator.validate_python(value)
            return value if strict and (cast is value or cast == value) else cast
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            at, text = ".".join(map(str, first["loc"])), repr(value)
            got = f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"
            what = "the returned value" if where == "return" else repr(where)
            step_id, expected = "" if frame is None else frame.path, show(self.tp)
            why = f"{step_id and step_id + ': '}{what} must be {expected}, not {got} ({at and at + ': '}{first['msg']})"
            raise CastError(why, step_id=step_id, where=where, expected=expected) from error

    def dump(self, value: Any) -> bytes:
        """Return *value* as JSON.

        Raises:
            PayloadError: If that cannot be without loss.
        """
        made = self.json
        try:
            data = written(made.dump_python(value, mode="json", warnings="error")).encode()
            back = made.validate_json(data)
            if back != value and (repr(back) != (text := repr(value)) or _HIDDEN in text):  # NaN differs from itself
                raise ValueError(f"it would come back as {back!r}")
        except (ValueError, TypeError, RecursionError) as error:
            what = f"Cannot write a {type(value).__name__} as {show(self.tp)}: {error}"
            raise PayloadError(what, expected=show(self.tp)) from error
        return data

    def load(self, data: bytes | str) -> Any:
        """Return the value that *data*, JSON of the type, stands for.

        Raises:
            PayloadError: If it is none.
        """
        made = self.json
        try:
            return made.validate_json(data)
        except ValueError as error:
            text = show(self.tp)
            raise PayloadError(f"Cannot read a {text} from {data[:60]!r}: {error}", expected=text) from error

    def plain(self, value: Any) -> Any:
        """Return *value* as lists and dicts of what JSON knows, the members of its sets sorted."""
        return ordered(value, self.json.dump_python(value, mode="json", warnings=False))


def written(plain: Any, *, sort_keys: bool = False) -> str:
    """Return *plain*, lists and dicts of what JSON knows, as text."""
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


def ordered(value: Any, plain: Any) -> Any:
    """Return *plain*, what JSON makes of *value*, with the members of its sets sorted."""
    made: Any = plain.__class__
    cls: Any = value.__class__  # looked at in the place of the value, whose type is to stay open
    if getattr(cls, "__pydantic_root_model__", False):
        return ordered(value.root, plain)
    if made is dict:
        names = {info.serialization_alias: name for name, info in getattr(value, "__pydantic_fields__", {}).items()}
        mapping = issubclass(cls, Mapping)
        parts: Any = value.values() if mapping else [getattr(value, names.get(key, key), None) for key in plain]
        return {**plain, **dict(zip(plain, map(ordered, parts, plain.values()), strict=False))}
    if made is list and issubclass(cls, Collection) and len(value) == len(plain):
        members = list(map(ordered, value, plain))
        return sorted(members, key=partial(written, sort_keys=True)) if issubclass(cls, Set) else members
    return plain


def sized(value: Any, dump: Callable[[], bytes]) -> int:
    """Return the length of what *dump* gives of *value* [bytes]; of a str its own length in UTF-8, of bytes theirs."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    return len(value if isinstance(value, bytes) else dump())


def size_of(value: Any, tp: Any, sink: Any) -> int | None:
    """Return the JSON length of *value* [bytes]; of a str its UTF-8 length, of bytes their length.

    None for other types, unless *sink* asks for sizes and *value* can be serialised as type *tp*.
    """
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    try:
        if kind in _SCALARS:  # in JSON NaN, true, false and null are as long, and the infinities are written out
            return len(text := str(value)) + 5 * text.endswith("inf")
        if kind is str or kind is bytes or (sink is not None and sink.sizes):
            return sized(value, partial(caster(tp).dump, value))  # no lambda: no cells
    except ValueError:  # not serialisable, or of several thousand digits
        return None
    return None


_SCALARS = (float, bool, int, type(None))
DIGITS = [len(str(2**bits - 1)) for bits in range(64)]  # by its bits, what a number has at most
LEAST = [0 if n == 1 else 10 ** (n - 1) for n in DIGITS]  # the least number that has as many


def _with_real(part: Any) -> Any:
    """Return a core schema, or a part of one, in which no float takes a Decimal and the like, as in strict mode.

    What models and dataclasses hold is left to them: their instances are not looked into.
    """
    if part.__class__ in (list, tuple):
        return part.__class__(map(_with_real, part))  # pyright: ignore[reportUnknownVariableType]
    if part.__class__ is not dict or part.get("type") in ("model", "dataclass"):
        return part
    inside = _PARTS & part.keys() if isinstance(part.get("type"), str) else part.keys()  # else by name, or by tag
    made: Any = {**part, **{key: _with_real(part[key]) for key in inside}}
    if made.get("type") != "float":
        return made
    return {"type": "chain", **{key: made.pop(key) for key in ("ref",) if key in made}, "steps": [_REAL, made]}


def _make_adapter(tp: Any, own: ConfigDict) -> TypeAdapter[Any] | None:
    for config in (own, None):  # models, dataclasses and typed dicts bring a configuration of their own
        with suppress(Exception):  # what a type of the user's raises here is not for us to say
            made = TypeAdapter(tp, config=config)
            return made if made.pydantic_complete else None
    return None


def caster(tp: Any) -> Caster:
    """Return the Caster of *tp*, made once for each type that can be hashed."""
    try:
        return _cached(tp, repr(tp))  # equal is not the same: Literal[1] == Literal[True]
    except TypeError:
        return Caster(tp)


@functools.lru_cache(maxsize=4096)
def _cached(tp: Any, _text: str) -> Caster:
    return Caster(tp)


def is_subclass(have: Any, want: Any) -> bool:
    """Say whether *have* is a class and one of *want*, which may be anything."""
    try:
        return isinstance(have, type) and issubclass(have, want)
    except TypeError:  # no class, a Protocol with data members, a TypedDict: only values tell
        return getattr(want, "_is_protocol", False)
