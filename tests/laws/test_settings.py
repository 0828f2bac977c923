"""Settings: ``with_`` never changes its module, merging is associative, an unknown name is always an error."""

import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mai import ConfigError, Module
from mai.layers.settings import SETTINGS

from .simulation import simulate

PLENTY = st.floats(1.0, 1e6)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.none() | st.text("abcxyz", min_size=1),
    "timeout": st.none() | PLENTY,
    "total_timeout": st.none() | PLENTY,
    "inline": st.none() | st.booleans(),
    "isolate": st.booleans(),
    "tags": st.lists(st.text()).map(tuple),
    "k": st.integers(),  # a parameter of forward
    "unit": st.text(),  # a declared attribute
}
given_settings = st.fixed_dictionaries({}, optional=VALUES)


class Scale(Module, timeout=7.0):
    unit: str = "m"

    async def forward(self, x: int, k: int = 2) -> tuple[int, str]:
        return x * k, self.unit


def facts(m: Module) -> Any:
    """Everything that can be seen of a module."""
    return m.settings, copy.copy(vars(m).get("unit")), m.unit, type(m)  # type: ignore[attr-defined]


def behaviour(m: Module) -> Any:
    return simulate(lambda: m(3)).value


@given(given_settings, given_settings)
def test_with_leaves_its_module_as_it_was(first: dict[str, Any], second: dict[str, Any]) -> None:
    m = Scale().with_(**first)
    before, gave = facts(m), behaviour(m)
    clone = m.with_(**second)
    assert clone is not m
    behaviour(clone)
    assert (facts(m), behaviour(m)) == (before, gave)
    assert facts(Scale()) == (Scale().settings, None, "m", Scale)
    assert behaviour(Scale()) == (6, "m")


@given(given_settings, given_settings, given_settings)
def test_settings_merge_associatively_and_the_last_one_counts(a: Any, b: Any, c: Any) -> None:
    one_by_one = Scale().with_(**a).with_(**b).with_(**c)
    assert facts(one_by_one) == facts(Scale().with_(**a).with_(**{**b, **c})) == facts(Scale().with_(**{**a, **b, **c}))
    merged = {"timeout": 7.0, "k": 2, "unit": "m", **a, **b, **c}
    assert behaviour(one_by_one) == (3 * merged["k"], merged["unit"])
    assert one_by_one.settings.timeout == merged["timeout"]


@example("fallback", {})
@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1), given_settings)
def test_an_unknown_name_is_an_error_at_once(name: str, others: dict[str, Any]) -> None:
    known = {*VALUES, *SETTINGS, "x", "self", "cls", "metaclass"}  # the last three are refused by Python itself
    if name.isidentifier() and name not in known:
        with pytest.raises(ConfigError, match=f"no setting {name!r}"):
            configured(Scale(), {**others, name: 1})
        with pytest.raises(ConfigError, match=f"no setting {name!r}"):
            type("Other", (Scale,), {}, **{name: 1})


WRONG_VALUES: dict[str, tuple[Any, ...]] = {
    "timeout": (-1.0, float("nan"), float("inf"), 0, True, "1"),
    "total_timeout": (-1,),
    "name": ("", "a/b", 3),
    "inline": (1,),
    "isolate": (None, 0),
    "tags": ("ab", (1,)),
    "k": ("many",),
    "unit": (3,),
}
WRONG = st.sampled_from([(key, value) for key, values in WRONG_VALUES.items() for value in values])


def configured(m: Module, settings: dict[str, Any]) -> Module:
    return m.with_(**settings)


@given(WRONG, given_settings)
def test_a_wrong_value_is_an_error_at_once_and_changes_nothing(wrong: tuple[str, Any], others: dict[str, Any]) -> None:
    m = Scale().with_(**others)
    before = facts(m)
    with pytest.raises(ConfigError):
        configured(m, {wrong[0]: wrong[1]})
    assert facts(m) == before
