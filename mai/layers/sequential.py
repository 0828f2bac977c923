"""Sequential: one step after the other."""

import typing
from typing import Any, overload

from ..core.call import DONE, begin, current, finish, launch
from ..errors import WiringError
from .checks import check_one, keys_of, name_of, needed, signature_of
from .declared import single
from .edges import wire
from .module import A, B, C, D, Module, Step, X, Y, lift


class Sequential(Module[X, Y]):
    """Feeds the value of each step to the next; ``a >> b >> c`` writes the same.

    A tuple of fixed length is spread over the parameters of the next step iff that step has two or more required
    positional parameters. Plain functions become steps. Types are checked when the sequence is made: the same type or
    a subtype passes, a type that pydantic's lax mode can convert is cast on the way, any other is refused.

    Args:
        steps: Modules or functions, at least one.

    Raises:
        WiringError: If there is no step, the first one needs more than one value, two neighbours cannot fit, or two
            explicit names are equal.

    Example:
        >>> from mai import Sequential, module
        >>> @module
        ... async def words(text: str) -> list[str]:
        ...     return text.split()
        >>> Sequential(words, len).run("to be or not")
        4
    """

    _mai_kind = "sequential"

    @overload
    def __init__(self, a: Step[X, Y], /) -> None: ...
    @overload
    def __init__(self, a: Step[X, A], b: Step[A, Y], /) -> None: ...
    @overload
    def __init__(self, a: Step[X, A], b: Step[A, B], c: Step[B, Y], /) -> None: ...
    @overload
    def __init__(self, a: Step[X, A], b: Step[A, B], c: Step[B, C], d: Step[C, Y], /) -> None: ...
    @overload
    def __init__(self, a: Step[X, A], b: Step[A, B], c: Step[B, C], d: Step[C, D], e: Step[D, Y], /) -> None: ...
    @overload
    def __init__(
        self: "Sequential[A, Any]", a: Step[A, Any], b: Any, c: Any, d: Any, e: Any, f: Any, /, *more: Any
    ) -> None: ...
    def __init__(self, *steps: Any) -> None:
        giver: Any = None
        flat, spreads = list[Module[Any, Any]](), list[bool]()
        for step in steps:
            m: Any = lift(step, "Sequential")
            plain = type(m) is Sequential and m._mai_settings is Sequential._mai_settings
            inner: Any = m._line if plain else ((m, "", False),)  # its own edges have been checked
            spreads += [giver is not None and _connect(giver, inner[0][0]), *(spread for _, _, spread in inner[1:])]
            flat += [item[0] for item in inner]
            # What goes into a delay comes out of it: an edge from one is that from the step before it.
            giver = next((one for one in reversed(flat) if not one._mai_kind.endswith("delay")), flat[-1])
        if not flat:
            raise WiringError("Sequential has no steps; give it at least one")
        check_one("Sequential", flat[0])
        self.steps: tuple[Module[Any, Any], ...] = tuple(flat)
        self._line = tuple(zip(flat, keys_of("Sequential", flat), spreads, strict=True))
        typed = [m for m in flat if not m._mai_kind.endswith("delay")] or flat
        self._mai_signature = single("Sequential", signature_of(typed[0]).first, signature_of(typed[-1]).returns)

    async def forward(self, x: X, /) -> Y:
        """Run the steps."""
        p, value = current(), typing.cast(Any, x)  # its type changes from step to step
        for m, key, spread in self._line:
            f = begin(m, p, key, 0, tuple(value), {}) if spread else launch(m, p, key, value)
            if f.y is not DONE:
                await finish(f)
            value = f.out
        return value  # type: ignore[no-any-return]


def _connect(a: Module[Any, Any], b: Module[Any, Any]) -> bool:
    """Check the edge from *a* to *b*; say whether a tuple is spread over the parameters of *b*."""
    gives, takes, source, target = signature_of(a).returns, signature_of(b), name_of(a), name_of(b)
    required = needed(b)
    if len(required) < 2:
        check_one(f"cannot connect {source} -> {target}", b)
        wire(source, gives, target, takes.first.name, takes.first.annotation)
        return False
    parts = typing.get_args(gives) if typing.get_origin(gives) is tuple else ()
    if ... in parts or not takes.positional.index(required[-1]) < len(parts) <= len(takes.positional):
        wants = ", ".join(p.name for p in required)
        facts = f"{target} needs {len(required)} values ({wants}), but {source} returns no tuple of that length"
        raise WiringError(f"cannot connect {source} -> {target}: {facts}; set the others with with_")
    for part, p in zip(parts, takes.positional, strict=False):
        wire(source, part, target, p.name, p.annotation)
    return True
