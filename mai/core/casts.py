"""Types at run time: is a value already of its type, how is it cast, and can one type be cast to another at all?

Answers two questions: what happens to a value on its way into and out of ``forward`` (`Caster`), and may an edge be
wired from a step that gives one type to a step that takes another (`fits`). Where only pydantic knows, it is asked.
"""

import contextlib
import functools
import inspect
import itertools
import re
import types
import typing
from collections import abc, deque
from enum import Enum
from typing import Annotated, Any, Literal, NewType, TypeVar, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import CastError, WiringError

_CONFIG = ConfigDict(arbitrary_types_allowed=True)
_JSON: ConfigDict = {**_CONFIG, "ser_json_inf_nan": "constants", "ser_json_bytes": "base64", "val_json_bytes": "base64"}
_UNIONS = (typing.Union, types.UnionType)
_SAMPLES: dict[type, list[Any]] = {
    bool: [True, False],
    int: [1, 0, 86400],
    float: [1.0, 0.5, 0.0],
    str: ["1", "true", "a", "2020-01-01", "12:00", "2020-01-01T00:00:00", "P1D", "0" * 32, "127.0.0.1", "{}"],
    bytes: [b"1", b"true", b"a", b"2020-01-01", b"12:00", b"0" * 16],
    type(None): [None],
}
_MANY = (list, tuple, set, frozenset, deque, abc.Iterator)  # lax mode makes one of another
Fit = Literal["same", "cast"] | None


def show(tp: Any) -> str:
    """Return *tp* as a reader would write it."""
    if tp is inspect.Parameter.empty:
        return "Any"
    if get_origin(tp) in _UNIONS:
        return " | ".join(map(show, get_args(tp)))
    text = tp.__name__ if isinstance(tp, type | NewType) and not get_args(tp) else repr(tp)
    text = re.sub(r"[A-Za-z_<][\w.<>]*\.(?=\w)", "", text).replace("NoneType", "None")
    return re.sub(rf"Annotated\[(.+), {_MARK!r}\]", r"\1", text)


def _plain(tp: Any) -> Any:
    """Return *tp* with NewTypes and TypeVars replaced by what they stand for."""
    while isinstance(tp, NewType | TypeVar):
        tp = tp.__supertype__ if isinstance(tp, NewType) else tp.__bound__ or Any
    return type(None) if tp is None else tp


def is_open(tp: Any) -> bool:
    """Say whether *tp* accepts every value, so that there is nothing to check or cast."""
    tp = _plain(tp)
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
        plain = _plain(tp)
        self.tp: Any = tp
        self.free: bool = is_open(plain)
        self.exact: type | None = None if hasattr(plain, "__required_keys__") or not isinstance(plain, type) else plain
        self._always = "Validator(" in repr(tp)  # a validator of the user may change a value of the right type

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """The TypeAdapter, or None where pydantic knows no schema at all."""
        return _make_adapter(self.tp, _CONFIG)

    @functools.cached_property
    def json(self) -> TypeAdapter[Any] | None:
        """The TypeAdapter for JSON, in which bytes are base64: in a cast, too, pydantic would decode a str by it."""
        return _make_adapter(self.tp, _JSON)

    def __call__(self, value: Any, where: str, frame: Any = None) -> Any:
        """Return *value* itself if it is of the type already, else its cast by pydantic's lax mode.

        Raises:
            CastError: If it cannot be cast.
        """
        if type(value) is self.exact or self.free:
            return value
        made = self.adapter
        if made is None or (self.exact is not None and _is_subclass(type(value), self.exact)):
            return value
        try:
            if not self._always and self.exact is None and made.validator.isinstance_python(value, strict=True):
                return value
            return made.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            at, text = ".".join(map(str, first["loc"])), repr(value)
            given = f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"
            what = "the returned value" if where == "return" else repr(where)
            step_id, expected = "" if frame is None else frame.path, show(self.tp)
            message = f"{what} must be {expected}, not {given} ({at and at + ': '}{first['msg']})"
            message = f"{step_id}: {message}" if step_id else message
            raise CastError(message, step_id=step_id, where=where, expected=expected) from error


def _make_adapter(tp: Any, own: ConfigDict) -> TypeAdapter[Any] | None:
    for config in (own, None):  # models, dataclasses and typed dicts bring a configuration of their own
        try:
            made = TypeAdapter(tp, config=config)
        except Exception:  # noqa: BLE001 (what a type of the user's raises here is not for us to say)
            continue
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


# ---------------------------------------------------------------- may an edge be wired?


class _Many:
    """Marks the type of what a Map takes: any iterable of items, sync or async; from JSON a list."""

    def __repr__(self) -> str:
        return "Many"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        listed = handler(list.__class_getitem__(get_args(get_args(source)[0])))
        return {"type": "json-or-python", "json_schema": listed, "python_schema": {"type": "any"}}


_MARK = _Many()


def many(item: Any) -> Any:
    """Return the type of an iterable of *item*, sync or async, that is not a text."""
    one: Any = Any if is_open(item) else item
    return Annotated[abc.Iterable[one] | abc.AsyncIterable[one], _MARK]


def fits(src: Any, dst: Any) -> Fit:
    """Say whether a value of type *src* can go where *dst* is expected.

    Returns:
        ``"same"`` for the same type or a subtype, ``"cast"`` where pydantic's lax mode can convert some value of
        *src*, None where it can convert none.

    Example:
        >>> fits(bool, int), fits(str, int), fits(int, list[int])
        ('same', 'cast', None)
    """
    text = (str, bytes, bytearray) if any(mark is _MARK for mark in getattr(dst, "__metadata__", ())) else ()
    best = [0 if _is_subclass(one, text) else max(_rank(one, o) for o in _options(dst)) for one in _options(src)]
    return "same" if min(best) == 2 else "cast" if max(best) else None


def _options(tp: Any) -> list[Any]:
    """Return the members of a union, else the type alone; without what Annotated adds."""
    tp = _plain(tp)
    if get_origin(tp) is Annotated:
        return _options(get_args(tp)[0])
    if get_origin(tp) is Literal:
        return [Literal[value] for value in get_args(tp)]
    return [one for arg in get_args(tp) for one in _options(arg)] if get_origin(tp) in _UNIONS else [tp]


def _rank(src: Any, dst: Any) -> int:
    """Return 2 where *src* is a *dst*, 1 where some value of it can be made one, 0 where none can."""
    if is_open(dst) or src == dst:
        return 2
    if is_open(src):
        return 1
    have, want = get_origin(src) or src, get_origin(dst) or dst
    if have is Literal:
        given = [v in get_args(dst) if want is Literal else _is_subclass(type(v), want) for v in get_args(src)]
        return 2 if all(given) else int(any(given) or _converts(src, dst, have, want))
    if _is_subclass(have, want):
        first = want in (abc.Iterable, abc.AsyncIterable) and have is not tuple  # a dict gives keys, a generator yields
        return _compare(get_args(src)[: 1 if first else None], get_args(dst), fixed=want is tuple)
    if all(any(_is_subclass(kind, one) or _is_subclass(one, kind) for one in _MANY) for kind in (have, want)):
        return min(1, _compare(get_args(src), get_args(dst), fixed=have is want is tuple))
    return int(_is_subclass(want, have) or _converts(src, dst, have, want))


def _is_subclass(have: Any, want: Any) -> bool:
    try:
        return isinstance(have, type) and issubclass(have, want)
    except TypeError:  # no class, a Protocol with data members, a TypedDict: only values tell
        return getattr(want, "_is_protocol", False)


def _compare(src: tuple[Any, ...], dst: tuple[Any, ...], *, fixed: bool) -> int:
    """Rank the parameters of two generic types of one family; *fixed*: their number counts."""
    if not src or not dst:
        return 1 if dst else 2
    ones, others = [a for a in src if a is not ...], [b for b in dst if b is not ...]
    if fixed and ... not in (*src, *dst) and len(ones) != len(others):
        return 0
    pairs = zip(ones, others, strict=True) if len(ones) == len(others) else itertools.product(ones, others)
    most = 1 if fixed and ... in src and ... not in dst else 2  # only the tuples of the right length fit
    return min(most, *(_rank_all(a, b) for a, b in pairs))


def _rank_all(src: Any, dst: Any) -> int:
    return {None: 0, "cast": 1, "same": 2}[fits(src, dst)]


def _converts(src: Any, dst: Any, have: Any, want: Any) -> bool:
    """Ask pydantic with samples: does its lax mode take some value of *src* for a *dst*?"""
    made, samples = caster(dst).adapter, _samples(src)
    fields = any(hasattr(want, mark) for mark in ("__required_keys__", "__pydantic_fields__", "__dataclass_fields__"))
    if made is None or (fields and (_is_subclass(have, dict) or hasattr(have, "__required_keys__"))):
        return True  # some dict has the fields; and where pydantic knows nothing, nothing can be said
    if samples and hasattr(want, "__get_pydantic_core_schema__") and not fields:
        return True  # only the type's own validator knows
    if want is Literal or _is_subclass(want, Enum):
        values = get_args(dst) or [member.value for member in dst]
        samples = samples + [value for value in values if _is_subclass(type(value), have)]
    return bool(_taken(made, samples))


def _taken(made: Any, samples: list[Any]) -> list[Any]:
    """Return what pydantic's lax mode makes of those *samples* that it takes."""
    values: list[Any] = []
    for sample in samples:
        with contextlib.suppress(Exception):  # a validator of the user may raise anything: here that is a no
            values.append(made.validate_python(sample))
    return values


def _samples(tp: Any) -> list[Any]:
    """Return some values of type *tp*, none where there is no way to make one."""
    kind, args = get_origin(tp) or _plain(tp), [_plain(arg) for arg in get_args(tp) if arg is not ...]
    if kind is Literal:
        return args
    if len(_options(tp)) > 1 or is_open(kind):
        return [1, "a"] if is_open(kind) else [sample for one in _options(tp) for sample in _samples(one)]
    inner = [_samples(arg) for arg in args] or [[1, "a"]]
    try:
        if issubclass(kind, dict):
            return [{key: value} for key in inner[0] for value in inner[-1]]
        enum = [*kind] if issubclass(kind, Enum) else None
        known = enum or next((_SAMPLES[base] for base in kind.__mro__ if base in _SAMPLES), None)
        return known or _taken(caster(kind).adapter, [*itertools.chain(*_SAMPLES.values())]) or [object.__new__(kind)]
    except (TypeError, ZeroDivisionError, AttributeError):  # abstract, unhashable, or not a class
        return []


def wire(source: str, gives: Any, target: str, parameter: str, takes: Any) -> None:
    """Check the edge from *source* to *target*.

    Raises:
        WiringError: If no value of the one type can become the other.
    """
    if fits(gives, takes) is None:
        have, want = show(gives), show(takes)
        facts = f"  {source} returns {have}\n  {target}({parameter}) expects {want}\n"
        hint = f"  hint: put a step between them that turns {have} into {want}"
        raise WiringError(f"cannot connect {source} -> {target}\n{facts}{hint}")
