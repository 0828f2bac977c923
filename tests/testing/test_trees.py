"""Random trees and inputs: they give what they say, have every kind, and fit what they are for."""

from collections import Counter
from typing import Annotated, Any, Literal

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from mai import Module, module
from mai.errors import ConfigError
from mai.testing import Tree, inputs, module_trees, simulate
from mai.testing.trees import KINDS


@given(module_trees(), st.integers(-9, 9), st.integers(0, 99))
def test_a_tree_gives_what_it_should(tree: Tree, x: int, seed: int) -> None:
    assert simulate(lambda: tree.build()(x), seed=seed) == tree.expected(x)


def test_there_are_trees_of_every_kind() -> None:
    met: Counter[str] = Counter()

    def count(tree: Tree) -> None:
        met[tree.kind] += 1
        for child in tree.children:
            count(child)

    @settings(max_examples=200, derandomize=True, database=None)
    @given(module_trees())
    def look(tree: Tree) -> None:
        count(tree)

    look()
    assert set(met) == set(KINDS)


@given(module_trees(kinds=("inline", "sequential"), max_leaves=4))
def test_only_the_kinds_that_were_asked_for_are_drawn(tree: Tree) -> None:
    assert tree.kind in ("inline", "sequential")
    assert {child.kind for child in tree.children} <= {"inline", "sequential"}


def test_leaves_alone_are_trees_too_and_a_tree_can_be_found() -> None:
    assert find(module_trees(kinds=("delay",)), lambda tree: tree.seconds > 0).children == ()
    smallest = find(module_trees(), lambda tree: tree.kind == "parallel" and len(tree.children) == 2)
    assert smallest.expected(1) == simulate(lambda: smallest.build()(1))


def test_kinds_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="'lopp'"):
        module_trees(kinds=("inline", "lopp"))
    with pytest.raises(ConfigError, match="has no leaf"):
        module_trees(kinds=("loop",))


class Doc(BaseModel):
    text: str
    score: float = Field(ge=0, le=1)


@module
async def rank(docs: list[Doc], how: Literal["up", "down"], k: Annotated[int, Field(gt=0)] = 3) -> int:
    return len(docs) * k * (1 if how == "up" else -1)


class Named(Module):
    def forward(self, name: str, *, loud: bool) -> str:
        return name.upper() if loud else name


@given(inputs(rank))
def test_inputs_fit_the_types_of_the_parameters(values: dict[str, Any]) -> None:
    assert {"docs", "how"} <= values.keys() <= {"docs", "how", "k"}
    assert values.get("k", 1) > 0
    assert isinstance(simulate(lambda: rank(**values)), int)


@given(inputs(Named()))
def test_inputs_may_be_for_an_instance(values: dict[str, Any]) -> None:
    assert simulate(lambda: Named()(**values)) in (values["name"], values["name"].upper())
