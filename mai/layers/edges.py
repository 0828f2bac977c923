"""May an edge be wired? Whether values of one type can go where another is expected, seen from the types alone.

The answer is pydantic's: where a type is no subtype of another, samples of the one are tried on the other.
"""

import contextlib
import itertools
from collections import abc, deque
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from ..errors import WiringError
from ..values.casts import UNIONS, bare_type, caster, is_open, is_subclass, show

Fit = Literal["same", "cast"] | None
_SAMPLES: dict[type, list[Any]] = {
    bool: [True, False],
    int: [1, 0, 86400],
    float: [1.0, 0.5, 0.0],
    str: ["1", "true", "a", "2020-01-01", "12:00", "2020-01-01T00:00:00", "P1D", "0" * 32, "127.0.0.1", "{}"],
    bytes: [b"1", b"true", b"a", b"2020-01-01", b"12:00", b"0" * 16],
    type(None): [None],
}
_READ = (abc.Iterable, abc.AsyncIterable, abc.Iterator, abc.AsyncIterator)
_MANY = (list, tuple, set, frozenset, deque, abc.Iterator)  # lax mode makes one of another


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
    if src == dst and repr(src) == repr(dst):  # equal is not the same: Literal[1] == Literal[True]
        return "same"
    text = (str, bytes, bytearray) if any(mark is _MARK for mark in getattr(dst, "__metadata__", ())) else ()
    best = [0 if is_subclass(one, text) else max(_rank(one, o) for o in _options(dst)) for one in _options(src)]
    return "same" if min(best) == 2 else "cast" if max(best) else None


def _options(tp: Any) -> list[Any]:
    """Return the members of a union, else the type alone; without what Annotated adds."""
    tp = bare_type(tp)
    if get_origin(tp) is Annotated:
        return _options(get_args(tp)[0])
    if get_origin(tp) is Literal:
        return [Literal[value] for value in get_args(tp)]
    return [one for arg in get_args(tp) for one in _options(arg)] if get_origin(tp) in UNIONS else [tp]


def _rank(src: Any, dst: Any) -> int:
    """Return 2 where *src* is a *dst*, 1 where some value of it can be made one, 0 where none can."""
    if is_open(dst) or src == dst:
        return 2
    if is_open(src) or hasattr(src, "__value__") or hasattr(dst, "__value__"):  # an alias that may be within itself
        return 1
    have, want = get_origin(src) or src, get_origin(dst) or dst
    if have is Literal:
        given = [v in get_args(dst) if want is Literal else _rank(type(v), dst) == 2 for v in get_args(src)]
        return 2 if all(given) else int(any(given) or _converts(src, dst, have, want))
    if is_subclass(have, want):
        first = want in _READ and have is not tuple  # a dict gives keys, a generator yields
        return _compare(get_args(src)[: 1 if first else None], get_args(dst), fixed=want is tuple)
    if all(any(is_subclass(kind, one) or is_subclass(one, kind) for one in _MANY) for kind in (have, want)):
        return min(1, _compare(get_args(src), get_args(dst), fixed=have is want is tuple))
    return int(is_subclass(want, have) or _converts(src, dst, have, want))


def _compare(src: tuple[Any, ...], dst: tuple[Any, ...], *, fixed: bool) -> int:
    """Rank the parameters of two generic types of one family; *fixed*: their number counts."""
    if not src or not dst:
        return 1 if dst else 2
    ones, others = [a for a in src if a is not ...], [b for b in dst if b is not ...]
    if fixed and ... not in (*src, *dst) and len(ones) != len(others):
        return 0
    pairs = zip(ones, others, strict=True) if len(ones) == len(others) else itertools.product(ones, others)
    most = 1 if fixed and ... in src and ... not in dst else 2  # only the tuples of the right length fit
    return min(most, *({None: 0, "cast": 1, "same": 2}[fits(a, b)] for a, b in pairs))


def _converts(src: Any, dst: Any, have: Any, want: Any) -> bool:
    """Ask pydantic with samples: does its lax mode take some value of *src* for a *dst*?"""
    made, samples = caster(dst).adapter, _samples(src)
    fields = any(hasattr(want, mark) for mark in ("__required_keys__", "__pydantic_fields__", "__dataclass_fields__"))
    one, other = (getattr(tp, "__pydantic_generic_metadata__", {"origin": None}) for tp in (have, want))
    if one["origin"] is other["origin"] is not None:  # of one generic family of models
        return bool(_compare(one["args"], other["args"], fixed=False))
    if made is None or (fields and (is_subclass(have, dict) or hasattr(have, "__required_keys__"))):
        return True  # some dict has the fields; and where pydantic knows nothing, nothing can be said
    if samples and hasattr(want, "__get_pydantic_core_schema__") and not fields:
        return True  # only the type's own validator knows
    if want is Literal or is_subclass(want, Enum):
        values = get_args(dst) or [member.value for member in dst]
        samples = samples + [value for value in values if is_subclass(type(value), have)]
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
    kind, args = get_origin(tp) or bare_type(tp), [bare_type(arg) for arg in get_args(tp) if arg is not ...]
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
