"""Payload: the typed envelope of a value wherever it leaves the process or is named by its content."""

import json
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from ..errors import PayloadError
from .casts import caster, show

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class Payload(Generic[T]):
    """A value with its declared type, written as JSON of that type and nothing else.

    NaN, the infinities and bytes keep their value. What would not come back equal fails when it is written.
    Never pickle, never a class that is looked up by a name found in data.

    Attributes:
        value: The value.
        tp: Its declared type.

    Example:
        >>> from mai import Payload
        >>> payload = Payload.of({"a": [1, 2]}, dict[str, list[int]])
        >>> payload.json(), payload.size
        (b'{"a":[1,2]}', 11)
        >>> Payload.load(dict[str, list[int]], payload.json()).value
        {'a': [1, 2]}
    """

    value: T
    tp: Any

    @classmethod
    def of(cls, value: V, tp: Any) -> "Payload[V]":
        """Wrap *value*, which must be of type *tp*; whether it can be written shows when it is."""
        return Payload(value, tp)

    @classmethod
    def load(cls, tp: Any, data: bytes | str) -> "Payload[Any]":
        """Read the JSON *data* as type *tp*.

        Raises:
            PayloadError: If *data* is not JSON of that type.
        """
        made = caster(tp).json
        try:
            return cls(made.validate_json(data), tp)
        except ValueError as error:
            raise PayloadError(f"Cannot read a {show(tp)} from {data[:60]!r}: {error}", expected=show(tp)) from error

    def json(self) -> bytes:
        """Return the JSON, made once.

        Raises:
            PayloadError: If the value cannot be written as its type without loss.
        """
        return self._json

    @cached_property
    def _json(self) -> bytes:
        made = caster(self.tp).json
        try:
            data = _written(made.dump_python(self.value, mode="json", warnings="error")).encode()
            back = made.validate_json(data)
            if back != self.value and repr(back) != repr(self.value):  # NaN differs from itself
                raise ValueError(f"it would come back as {back!r}")
        except (ValueError, TypeError, RecursionError) as error:
            what = f"Cannot write a {type(self.value).__name__} as {show(self.tp)}: {error}"
            raise PayloadError(what, expected=show(self.tp)) from error
        return data

    @property
    def size(self) -> int:
        """Length of the JSON [bytes]; of a str its own length in UTF-8, of bytes their number."""
        if isinstance(self.value, str):
            return len(self.value.encode("utf-8", "surrogatepass"))
        return len(self.value) if isinstance(self.value, bytes) else len(self.json())

    @property
    def digest(self) -> str:
        """blake2b of the JSON, 32 hexadecimal digits: one for values of one type whose JSON differs only in order.

        That is the order of the keys of objects and of the members of sets, which are sorted here; `json` keeps it.
        """
        plain = _ordered(self.value, json.loads(self.json()))
        return blake2b(_written(plain, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def schema_id(self) -> str:
        """blake2b of the type's JSON schema, 16 hexadecimal digits: changes when the type's shape does."""
        schema = json.dumps(caster(self.tp).json.json_schema(mode="serialization"))
        shape = json.dumps(json.loads(schema, object_hook=_without_text), sort_keys=True)
        return blake2b(shape.encode(), digest_size=8).hexdigest()


def _without_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a JSON schema without its docstring."""
    return {key: value for key, value in schema.items() if key != "description" or not isinstance(value, str)}


def _written(plain: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


def _ordered(value: Any, plain: Any) -> Any:
    """Return *plain*, what JSON makes of *value*, with the members of its sets sorted."""
    made: Any = plain.__class__
    cls: Any = value.__class__  # looked at in the place of the value, whose type is to stay open
    if getattr(cls, "__pydantic_root_model__", False):
        return _ordered(value.root, plain)
    if made is dict:
        names = {info.serialization_alias: name for name, info in getattr(value, "__pydantic_fields__", {}).items()}
        mapping = issubclass(cls, Mapping)
        parts: Any = value.values() if mapping else [getattr(value, names.get(key, key), None) for key in plain]
        return {**plain, **dict(zip(plain, map(_ordered, parts, plain.values()), strict=False))}
    if made is list and issubclass(cls, Collection) and len(value) == len(plain):
        members = list(map(_ordered, value, plain))
        return sorted(members, key=partial(_written, sort_keys=True)) if issubclass(cls, Set) else members
    return plain
