"""Ref: stands for a value that a graph will have when it runs; and which type its parts have."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel

from ..errors import TracingError, WiringError
from ..values.casts import is_open, show
from ..values.signature import Signature
from .declared import single
from .module import Module

R_co = TypeVar("R_co", covariant=True)
_NO = "{} has no value while the graph is traced: {}"
_LOOP = "use Map instead of for, and Loop instead of while"
_REFUSED = {
    "use Conditional or Switch instead of if, and, or, not": "bool",
    _LOOP: "len contains next aiter",
    "compare in a step, or decide with Conditional or Switch": "eq ne lt le gt ge",
    "make text in a step (repr() shows the Ref itself)": "str format",
    "it is the value already and needs no further await": "await",
    "call a function of it as a step, such as module(str.upper)": "call",
    "compute in a step, such as module(operator.add), and call that": (
        "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg pos abs "
        "or ror and rand xor rxor invert lshift rlshift rshift rrshift int float index round setitem delitem"
    ),
}


class Ref(Generic[R_co]):
    """The future value of a step or an input of a graph, for wiring.

    ``Graph.input`` and ``Graph.add`` give one; in a function under ``@graph`` every value is one. An attribute or an
    item of it (``doc.title``, ``docs[0]``) is a Ref again and a node of its own, checked against the type; a tuple of
    fixed length can be unpacked. Everything else needs the value itself, and raises TracingError saying what to use.

    Example:
        >>> from mai import Graph, module
        >>> @module
        ... async def split(text: str) -> list[str]:
        ...     return text.split()
        >>> g = Graph("first")
        >>> words = g.add(split, g.input("text", str))
        >>> words, words[0]
        (<Ref split: list[str]>, <Ref .0: str>)
        >>> g.output(words[0]).run("to be or not")
        'to'
    """

    __slots__ = ("_index", "_type", "_wiring")
    _wiring: Any
    _index: int
    _type: Any

    def __init__(self, wiring: Any, index: int, tp: Any) -> None:
        self._wiring, self._index, self._type = wiring, index, tp

    def __repr__(self) -> str:
        return f"<Ref {self._wiring.id_of(self._index).removeprefix('$')}: {show(self._type)}>"

    def __getattr__(self, name: str) -> "Ref[Any]":
        if name.startswith("_"):
            raise AttributeError(name)
        return self._wiring.part(self, name, attribute=True)  # type: ignore[no-any-return]

    def __getitem__(self, key: int | str) -> "Ref[Any]":
        return self._wiring.part(self, key, attribute=False)  # type: ignore[no-any-return]

    def __iter__(self) -> "Iterator[Ref[Any]]":
        args = get_args(self._type)
        if get_origin(self._type) is tuple and ... not in args:
            return iter([self[i] for i in range(len(args))])
        raise TracingError(_NO.format(repr(self), _LOOP))


def _refusal(hint: str) -> Any:
    def refuse(self: Ref[Any], *_: object, **__: object) -> NoReturn:
        raise TracingError(_NO.format(repr(self), hint))

    return refuse


for _hint, _names in _REFUSED.items():  # a type checker sees none of them, and so refuses them itself
    for _name in _names.split():
        setattr(Ref, f"__{_name}__", _refusal(_hint))


class Part(Module[Any, Any]):
    """Gives an attribute or an item of a value."""

    _mai_kind = "part"

    def __init__(self, key: Any, source: Any, *, attribute: bool) -> None:
        self.key: Any = key
        self.attribute: bool = attribute
        self._mai_label = f".{key}"
        find = type_of_attribute if attribute else type_of_item
        first = inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY, annotation=source)
        self._mai_signature = single(self._mai_label, first, find(source, key))

    async def forward(self, value: Any, /) -> Any:
        """Look it up."""
        return getattr(value, self.key) if self.attribute else value[self.key]


class Pack(Module[Any, Any]):
    """Makes one tuple, list or dict of several values."""

    _mai_kind = "pack"

    def __init__(self, kind: str, keys: Sequence[str], gives: Sequence[Any]) -> None:
        self._mai_label = kind
        self.kind: str = kind
        self.keys: tuple[str, ...] = tuple(keys)
        many = inspect.Parameter("values", inspect.Parameter.VAR_POSITIONAL)
        either: Any = Any if not gives or any(map(is_open, gives)) else typing.Union[tuple(gives)]  # noqa: UP007
        whole: Any = dict[str, either] if kind == "dict" else list[either]
        whole = tuple.__class_getitem__(tuple(gives)) if kind == "tuple" else whole
        self._mai_signature = Signature(kind, [many], whole)

    async def forward(self, *values: Any) -> Any:
        """Put them together."""
        if self.kind == "dict":
            return dict(zip(self.keys, values, strict=True))
        return values if self.kind == "tuple" else list(values)


def type_of_attribute(tp: Any, name: str) -> Any:
    """Return the type of the attribute *name* of a value of type *tp*.

    Raises:
        WiringError: If values of that type have no such attribute.
        TracingError: If nothing is known of the type, or the attribute is a method.
    """
    cls = _class_of(tp, f".{name}")
    found = inspect.getattr_static(cls, name, None)
    if isinstance(found, types.FunctionType | types.MethodDescriptorType | classmethod | staticmethod):
        asked = f"{cls.__name__}.{name}"
        raise TracingError(f"{asked} is a method: call it as a step, such as module({asked})")
    if isinstance(found, property):
        return typing.get_type_hints(found.fget).get("return", Any)
    hints = typing.get_type_hints(cls, include_extras=True)
    if name in hints:
        return hints[name]
    if found is not None and not isinstance(found, types.WrapperDescriptorType):
        return Any
    known = ", ".join(key for key in hints if not key.startswith("_"))
    raise WiringError(f"{show(tp)} has no attribute {name!r}" + (f"; it has {known}" if known else ""))


def type_of_item(tp: Any, key: Any) -> Any:
    """Return the type of ``value[key]`` for a value of type *tp*.

    Raises:
        WiringError: If values of that type have no such item.
        TracingError: If nothing is known of the type.
    """
    args = get_args(tp)
    cls: Any = _class_of(tp, f"[{key!r}]")
    if hasattr(cls, "__required_keys__"):
        hints = typing.get_type_hints(cls, include_extras=True)
        if key in hints:
            return hints[key]
        raise WiringError(f"{show(tp)} has no item {key!r}; it has {', '.join(hints)}")
    if cls is tuple and args and ... not in args and isinstance(key, int):
        if -len(args) <= key < len(args):
            return args[key]
        raise WiringError(f"{show(tp)} has no item {key}: it has {len(args)}")
    if issubclass(cls, Mapping):
        return args[1] if len(args) == 2 else Any
    if isinstance(key, int) and issubclass(cls, Sequence):
        return cls if issubclass(cls, str) else int if issubclass(cls, bytes) else args[0] if args else Any
    if not issubclass(cls, Sequence) and hasattr(cls, "__getitem__"):
        return typing.get_type_hints(cls.__getitem__).get("return", Any)
    raise WiringError(f"{show(tp)} has no item {key!r}")


def _class_of(tp: Any, what: str) -> Any:
    kind = get_origin(tp) or tp
    if is_open(tp):
        raise TracingError(f"{what} of a value of unknown type: annotate what the step before it returns")
    if isinstance(kind, type) and kind is not types.UnionType:
        return kind
    raise TracingError(f"{what} of a {show(tp)} may fail: look it up in a step that says what else to do")


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, named tuple or pydantic model, None for any other value."""
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    given: Any = value
    named = isinstance(value, tuple) and hasattr(given, "_fields")
    return dict(zip(given._fields, given, strict=True)) if named else None
