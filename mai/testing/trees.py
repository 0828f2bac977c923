"""Random module trees and random inputs, as Hypothesis strategies.

A tree is a plain value that knows what its module has to give, by a recursion of a few lines. So whoever writes an
engine, a middleware or a layer can hold it against any composition of modules.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import ConfigError
from ..layers import BlockingDelay, Conditional, Loop, Map, Module, Parallel, Sequential, module

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KINDS = ("async", "thread", "inline", "stream", "sequential", "parallel", "conditional", "loop", "map", "delay")
_LEAVES = ("async", "thread", "inline", "stream", "delay")


@dataclass(frozen=True, slots=True)
class Tree:
    """What a module is made of. It takes an int and gives an int.

    Attributes:
        kind: One of ``async``, ``thread``, ``inline``, ``stream`` and ``delay``, which are leaves, or
            ``sequential``, ``parallel``, ``conditional``, ``loop``, ``map``.
        number: What a leaf adds; how often a loop turns, how many items a map has, which limit a parallel has.
        seconds: How long a leaf waits.
        children: The trees below.

    Example:
        >>> from mai.testing import Tree
        >>> tree = Tree("parallel", 1, 0.0, (Tree("async", 5), Tree("inline", 7)))
        >>> await tree.build()(10), tree.expected(10)
        (32, 32)
    """

    kind: str
    number: int = 1
    seconds: float = 0.0
    children: "tuple[Tree, ...]" = ()

    def build(self) -> Module[Any, Any]:
        """Return the module."""
        below = [child.build() for child in self.children]
        make = _COMPOSITES.get(self.kind)
        return _leaf(self) if make is None else make(self.number, below)

    def expected(self, x: int) -> int:
        """Return what the module gives for *x*."""
        values = [child.expected for child in self.children]
        if self.kind == "parallel":
            return sum(value(x) for value in values)
        if self.kind == "conditional":
            return values[0 if _is_even(x) else -1](x)
        if self.kind == "map":
            return sum(values[0](x + i) for i in range(self.number))
        for value in values * (self.number if self.kind == "loop" else 1):
            x = value(x)
        return x if self.children or self.kind == "delay" else x + self.number


def _is_even(x: int) -> bool:
    return x % 2 == 0


# Of modules that are made at run time the overloads know nothing.
_in_turn: Any = Sequential


def _parallel(number: int, below: list[Any]) -> Module[Any, Any]:
    branches = Parallel(limit=number, **{f"b{i}": branch for i, branch in enumerate(below)})
    return _in_turn(branches, _total)  # type: ignore[no-any-return]


def _total(values: dict[str, int]) -> int:
    return sum(values.values())


def _map(number: int, below: list[Any]) -> Module[Any, Any]:
    def items(x: int) -> list[int]:
        return [x + i for i in range(number)]

    return _in_turn(items, Map(below[0], concurrency=2), sum)  # type: ignore[no-any-return]


_COMPOSITES: dict[str, Callable[[int, list[Any]], Module[Any, Any]]] = {
    "sequential": lambda number, below: _in_turn(*below),
    "parallel": _parallel,
    "conditional": lambda number, below: Conditional(_is_even, then=below[0], otherwise=below[-1]),
    "loop": lambda number, below: Loop(below[0], max_iters=number),
    "map": _map,
}


def _leaf(tree: Tree) -> Module[Any, Any]:
    async def wait(x: int) -> int:
        if tree.seconds:
            await asyncio.sleep(tree.seconds)
        return x + tree.number

    def add(x: int) -> int:
        return x + tree.number

    async def parts(x: int) -> AsyncIterator[int]:
        yield x
        if tree.seconds:
            await asyncio.sleep(tree.seconds)
        yield tree.number

    if tree.kind == "delay":
        return BlockingDelay(tree.seconds)
    if tree.kind == "stream":
        return _in_turn(module(parts), sum)  # type: ignore[no-any-return]
    return module(wait) if tree.kind == "async" else module(inline=tree.kind == "inline")(add)


def module_trees(*, max_leaves: int = 8, kinds: tuple[str, ...] = KINDS) -> "SearchStrategy[Tree]":
    """Return a Hypothesis strategy for trees of modules.

    Args:
        max_leaves: Most leaves, about.
        kinds: The kinds of modules in them; see `Tree`.

    Raises:
        ConfigError: If a kind is unknown, or none is a leaf.
        ImportError: If Hypothesis is missing.

    Example:
        >>> from hypothesis import given
        >>> from hypothesis import strategies as st
        >>> from mai.testing import module_trees, simulate
        >>> @given(module_trees(), st.integers(-9, 9))
        ... def test_a_tree_gives_what_it_should(tree, x):
        ...     assert simulate(lambda: tree.build()(x)) == tree.expected(x)
        >>> test_a_tree_gives_what_it_should()
    """
    st = _strategies()
    leaves = [kind for kind in kinds if kind in _LEAVES]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"module_trees: kinds {unknown!r} are unknown; there are {', '.join(KINDS)}")
    if not leaves:
        raise ConfigError(f"module_trees: kinds={kinds!r} has no leaf; give one of {', '.join(_LEAVES)}")
    numbers, seconds = st.integers(1, 3), st.sampled_from([0.0, 0.0, 1.0, 2.0])

    def extend(inner: "SearchStrategy[Tree]") -> "SearchStrategy[Tree]":
        below = {"sequential": (1, 3), "parallel": (1, 4), "conditional": (2, 2), "loop": (1, 1), "map": (1, 1)}
        made: SearchStrategy[Tree] = st.one_of(
            [
                st.builds(Tree, st.just(kind), numbers, children=st.lists(inner, min_size=a, max_size=b).map(tuple))
                for kind, (a, b) in below.items()
                if kind in kinds
            ]
        )
        return made

    trees: SearchStrategy[Tree] = st.builds(Tree, st.sampled_from(leaves), numbers, seconds)
    if len(leaves) < len(kinds):
        trees = st.recursive(trees, extend, max_leaves=max_leaves)
    return trees


def inputs(step: Module[Any, Any]) -> "SearchStrategy[dict[str, Any]]":
    """Return a Hypothesis strategy for what a module can be called with, by the types of its parameters.

    Args:
        step: Called as ``step(**values)``; what has a default may be left out. Parameters after ``*`` or ``**`` are.

    Raises:
        ImportError: If Hypothesis is missing.

    Example:
        >>> from hypothesis import given
        >>> from mai import module
        >>> from mai.testing import inputs
        >>> @module
        ... async def words(text: str, lower: bool = False) -> list[str]:
        ...     return (text.lower() if lower else text).split()
        >>> @given(inputs(words))
        ... def test_any_text_will_do(values):
        ...     assert len(words.run(**values)) <= len(values["text"])
        >>> test_any_text_will_do()
    """
    st = _strategies()
    fields = step.In.model_fields
    needed = {name: st.from_type(_typed(field)) for name, field in fields.items() if field.is_required()}
    others = {name: st.from_type(_typed(field)) for name, field in fields.items() if not field.is_required()}
    drawn: SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(needed, optional=others)
    return drawn


def _typed(field: Any) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _strategies() -> Any:
    """Return ``hypothesis.strategies``.

    Raises:
        ImportError: If it is missing.
    """
    try:
        from hypothesis import strategies  # noqa: PLC0415 (of an extra)
    except ImportError as error:
        raise ImportError("mai.testing draws with Hypothesis: pip install 'mai-kernel[testing]'") from error
    return strategies
