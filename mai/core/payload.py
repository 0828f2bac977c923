"""Payload: the typed envelope of a value wherever it leaves the process or is named by its content."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

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
    _data: list[bytes] = field(
        default_factory=list[bytes], init=False, repr=False, compare=False
    )  # made when asked for

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
        made = _adapter(tp)
        try:
            return cls(made.validate_json(data), tp)
        except ValueError as error:
            raise PayloadError(f"Cannot read a {show(tp)} from {data[:60]!r}: {error}", expected=show(tp)) from error

    def json(self) -> bytes:
        """Return the JSON, made once.

        Raises:
            PayloadError: If the value cannot be written as its type without loss.
        """
        if not self._data:
            made = _adapter(self.tp)
            try:
                plain = made.dump_python(self.value, mode="json", warnings="error")
                data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
                back = made.validate_json(data)
                if back != self.value and repr(back) != repr(self.value):  # NaN differs from itself
                    raise ValueError(f"it would come back as {back!r}")
            except (ValueError, TypeError, RecursionError) as error:
                what = f"Cannot write a {type(self.value).__name__} as {show(self.tp)}: {error}"
                raise PayloadError(what, expected=show(self.tp)) from error
            self._data.append(data)
        return self._data[0]

    @property
    def size(self) -> int:
        """Length of the JSON [bytes]; of a str its own length in UTF-8, of bytes their number."""
        if isinstance(self.value, str):
            return len(self.value.encode("utf-8", "surrogatepass"))
        return len(self.value) if isinstance(self.value, bytes) else len(self.json())

    @property
    def digest(self) -> str:
        """blake2b of the JSON, 32 hexadecimal digits: one for values of one type with equal JSON."""
        return blake2b(self.json(), digest_size=16).hexdigest()

    @property
    def schema_id(self) -> str:
        """blake2b of the type's JSON schema, 16 hexadecimal digits: changes when the type's shape does."""
        schema = json.dumps(_adapter(self.tp).json_schema(mode="serialization"))
        shape = json.dumps(json.loads(schema, object_hook=_without_text), sort_keys=True)
        return blake2b(shape.encode(), digest_size=8).hexdigest()


def _without_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a JSON schema without its docstring."""
    return {key: value for key, value in schema.items() if key != "description" or not isinstance(value, str)}


def _adapter(tp: Any) -> TypeAdapter[Any]:
    made = caster(tp).json
    if made is None:
        raise PayloadError(f"Cannot make JSON of {show(tp)}: pydantic knows no schema for it", expected=show(tp))
    return made
