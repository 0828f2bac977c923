"""Settings: what with_, class keywords and the decorator take, and what they refuse."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from mai import ConfigError, Module, module
from mai.layers import Settings
from tests.support import refused_value


class Search(Module, timeout=5.0, tags=("io",)):
    async def forward(self, query: str, k: int = 3) -> list[str]:
        return [query] * k


def by_with(**settings: Any) -> Settings:
    return Search().with_(**settings).settings


def by_class(**settings: Any) -> Settings:
    class Found(Search, **settings):
        pass

    return Found().settings


def by_decorator(**settings: Any) -> Settings:
    @module(**settings)
    async def search(query: str) -> str:
        return query

    return search.settings


OWNERS: dict[Any, str] = {by_with: "Search", by_class: "Found", by_decorator: "@module"}
DOORS = pytest.mark.parametrize("give", [by_with, by_class, by_decorator])
Give = Callable[..., Settings]


@DOORS
def test_every_setting_can_be_given_by_with_by_class_keyword_and_by_the_decorator(give: Give) -> None:
    settings = give(name="find", timeout=2, total_timeout=3.5, inline=True, isolate=True, tags=["a", "b"])
    assert (settings.name, settings.timeout, settings.total_timeout) == ("find", 2.0, 3.5)
    assert (settings.inline, settings.isolate, settings.tags) == (True, True, ("a", "b"))


def test_with_stands_over_the_class_and_what_it_does_not_name_stays() -> None:
    assert Search().settings == Settings(name="Search", timeout=5.0, tags=("io",))
    assert by_with(timeout=1).timeout == 1.0
    assert by_with(timeout=1).tags == ("io",)
    assert by_class(tags=()).timeout == 5.0
    assert by_class(tags=()).tags == ()


def test_none_takes_a_setting_away_again() -> None:
    assert by_with(timeout=None, inline=None).timeout is None
    assert Search().with_(name="find").with_(name=None).settings.name == "Search"


def test_settings_are_frozen() -> None:
    settings: Any = Search().settings
    with pytest.raises((AttributeError, ValueError), match="frozen"):
        settings.timeout = 1.0
    assert Search().with_(k=5).settings.params == {"k": 5}


@DOORS
@pytest.mark.parametrize("setting", ["timeout", "total_timeout"])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, True, "5", b"5", [1]])
def test_a_timeout_is_a_finite_number_above_zero(give: Give, setting: str, value: object) -> None:
    with refused_value(OWNERS[give], setting, value):
        give(**{setting: value})


@DOORS
@pytest.mark.parametrize("value", ["", "a/b", "a[0]", "a~2", "#a", "a!", 3, b"a", ("a",)])
def test_a_name_is_text_that_a_path_can_hold(give: Give, value: object) -> None:
    with refused_value(OWNERS[give], "name", value):
        give(name=value)


@DOORS
@pytest.mark.parametrize("setting", ["inline", "isolate"])
@pytest.mark.parametrize("value", [1, 0, "yes"])
def test_a_switch_is_a_bool(give: Give, setting: str, value: object) -> None:
    with refused_value(OWNERS[give], setting, value):
        give(**{setting: value})


def test_isolate_cannot_be_none() -> None:
    with refused_value("Search", "isolate", None):
        by_with(isolate=None)


@DOORS
def test_tags_are_a_collection_of_str_and_not_one_str(give: Give) -> None:
    for wrong in ("io", 5, ("a", 1), [b"a"]):
        with pytest.raises(ConfigError, match=f"^{OWNERS[give]}: tags="):
            give(tags=wrong)
    assert give(tags=["a", "b"]).tags == ("a", "b")


def test_an_unknown_setting_is_named_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"^Search has no setting 'tiemout'; did you mean 'timeout'[?]$"):
        by_with(tiemout=2)
    with pytest.raises(ConfigError, match=r"^(class )?Found has no setting 'tiemout'; did you mean 'timeout'[?]$"):
        by_class(tiemout=2)
    with pytest.raises(ConfigError, match=r"has no setting 'tiemout'; did you mean 'timeout'[?]$"):
        by_decorator(tiemout=2)


def test_an_unknown_setting_that_is_near_nothing_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        by_with(zzz=2)
    known = (
        "'detached', 'fallback', 'flow', 'inline', 'isolate', 'k', 'middleware', 'name', 'query', 'retry', 'tags', "
        "'timeout', 'total_timeout', 'undo', 'version'"
    )
    assert str(caught.value) == f"Search has no setting 'zzz'; it has {known}"


def test_what_undoes_a_step_is_a_function_of_its_value() -> None:
    assert Search().with_(undo=len)._mai_settings.undo.run("abc") == 3
    with refused_value("Search", "undo", 3):
        Search().with_(undo=3)


def test_the_error_names_the_module_as_the_user_named_it() -> None:
    with refused_value("find", "timeout", -1):
        Search().with_(name="find").with_(timeout=-1)
