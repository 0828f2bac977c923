"""Functions as modules: ``@module``."""

import functools
from typing import Any

import pytest

from mai import ConfigError, Module, capture, module
from mai.layers import FunctionModule
from tests.support import refused, simulated


@module
async def shout(text: str, mark: str = "!") -> str:
    """Make it loud."""
    return text.upper() + mark


@simulated
async def test_a_decorated_function_is_a_module_with_the_functions_signature() -> None:
    assert isinstance(shout, FunctionModule)
    assert isinstance(shout, Module)
    assert await shout("a") == "A!"
    assert await shout("a", mark="?") == "A?"
    assert await shout.forward("a") == "A!"
    assert await FunctionModule.forward(shout, "a") == "A!"
    assert shout.__doc__ == "Make it loud."
    assert shout.__wrapped__("a").close() is None
    assert shout.__module__ == __name__


def test_the_decorator_takes_settings() -> None:
    @module(timeout=1.0, name="loud", tags=("a",))
    def loud(text: str) -> str:
        return text.upper()

    assert loud.run("a") == "A"
    assert (loud.settings.timeout, loud.settings.name, loud.settings.tags) == (1.0, "loud", ("a",))


def test_a_module_given_to_the_decorator_comes_back() -> None:
    assert module(shout) is shout


@pytest.mark.parametrize("wrong", [5, "text", None.__class__ and [1]])
def test_something_that_is_no_function_is_refused(wrong: Any) -> None:
    with refused(ConfigError, f"module: {wrong!r} is not a function; settings are keywords: @module(timeout=1.0)"):
        module(wrong)


def test_an_unknown_setting_is_refused_when_it_decorates() -> None:
    with pytest.raises(ConfigError, match="has no setting 'tiemout'; did you mean 'timeout'"):

        @module(tiemout=1)  # type: ignore[call-overload]
        def f(x: int) -> int:
            return x


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (lambda x: x, "<lambda>"),
        (functools.partial(sorted, reverse=True), "sorted"),
        (str.upper, "upper"),
        (len, "len"),
        (type("Callable", (), {"__call__": lambda self, x: x})(), "Callable"),
        (int, "int"),
        (dict, "dict"),
    ],
)
def test_every_function_has_a_name(fn: Any, name: str) -> None:
    assert module(fn).settings.name == name


@simulated
async def test_partials_and_bound_methods_work() -> None:
    class Client:
        def __init__(self, base: str) -> None:
            self.base = base

        async def get(self, path: str) -> str:
            return self.base + path

    assert await module(functools.partial(sorted, reverse=True))([1, 2]) == [2, 1]
    assert await module(Client("x/").get)("a") == "x/a"
    assert await module(functools.partial(shout.__wrapped__, mark="?"))("a") == "A?"
    assert module(Client("x/").get).Out is str


@simulated
async def test_traces_name_the_function() -> None:
    with capture() as trace:
        await shout("a")
        await module(str.upper)("a")
        await module(len)("a")
    assert [run.module for run in trace.runs] == [f"{__name__}.shout", "builtins.str.upper", "builtins.len"]


def test_a_function_in_a_class_keeps_its_instance_out() -> None:
    class Tools:
        @staticmethod
        @module
        def double(x: int) -> int:
            return 2 * x

        triple = module(lambda x: 3 * x)

    assert Tools.double.run(2) == 4
    assert Tools().double.run(2) == 4
    assert Tools().triple.run(2) == 6


def test_the_class_may_be_used_directly() -> None:
    assert FunctionModule(len, name="size").run("abc") == 3
    with pytest.raises(ConfigError, match="no setting 'nmae'; did you mean 'name'"):
        FunctionModule(len, nmae="size")
