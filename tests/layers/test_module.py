"""Module: classes with a forward, how they are configured, and what is refused when the class is made."""

import asyncio
import copy
import functools
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest
from pydantic import BaseModel

from mai import ConfigError, Module, Parallel, Sequential, WiringError, capture, module
from tests.support import refused, refused_value, simulated

T = TypeVar("T")


class Doc(BaseModel):
    text: str


class Search(Module):
    """Finds."""

    base: str = "x"
    limit: int = 3
    client: ClassVar[Any] = None
    _private = 1

    def __init__(self, base: str = "x") -> None:
        self.base = base

    async def forward(self, query: str, k: int = 1) -> list[str]:
        return [f"{self.base}{query}"] * min(k, self.limit)


# ---------------------------------------------------------------- with_


@simulated
async def test_with_copies_and_never_changes_the_module_it_is_called_on() -> None:
    search = Search()
    one, two = search.with_(k=2, timeout=1), search.with_(base="y", name="other")
    assert await search("a") == ["xa"]
    assert await one("a") == ["xa", "xa"]
    assert await two("a") == ["ya"]
    assert (search.settings.timeout, one.settings.timeout, two.settings.timeout) == (None, 1.0, None)
    assert (search.name if hasattr(search, "name") else search.settings.name, two.settings.name) == ("Search", "other")
    assert (search.base, two.base) == ("x", "y")
    assert type(one) is Search


@simulated
async def test_a_copy_is_made_of_the_settings_and_not_of_what_the_module_holds() -> None:
    class Holds(Module):
        def __init__(self) -> None:
            self.cache: dict[str, int] = {}

        async def forward(self, x: str) -> int:
            self.cache[x] = 1
            return len(self.cache)

    holds = Holds()
    assert holds.with_(timeout=5).cache is holds.cache
    assert await holds.with_(timeout=5)("a") == 1
    assert await holds("b") == 2


@simulated
async def test_a_copy_that_ran_before_can_be_configured_again() -> None:
    search = Search()
    assert await search("a") == ["xa"]
    again = search.with_(base="y")
    assert await again("a") == ["ya"]
    assert await again.with_(k=2)("a") == ["ya", "ya"]


def test_a_declared_attribute_is_checked_and_a_private_or_unknown_one_refused() -> None:
    assert Search().with_(limit="5").limit == 5
    with pytest.raises(ConfigError, match=r"^Search: 'limit' must be int, not str 'many'"):
        Search().with_(limit="many")
    assert Search().with_(client=5).client == 5
    for name in ("_private", "forward", "unknown", "In"):
        with pytest.raises(ConfigError, match=f"^Search has no setting '{name}'"):
            _ = Search().with_(**{name: 2})
    with pytest.raises(ConfigError, match="did you mean 'limit'"):
        Search().with_(limti=2)


def test_attributes_declared_by_a_base_class_count_and_those_of_other_bases_too() -> None:
    class Deeper(Search):
        depth: int = 1

        async def forward(self, query: str) -> list[str]:
            return [query] * self.depth

    deeper = Deeper().with_(depth=2, limit=4)
    assert (deeper.depth, deeper.limit) == (2, 4)
    assert deeper.run("a") == ["a", "a"]


def test_an_attribute_whose_type_is_not_known_yet_is_taken_as_it_is() -> None:
    class Odd(Module):
        thing: "Nowhere" = 1  # type: ignore[name-defined]  # noqa: F821

        async def forward(self, x: int) -> Any:
            return self.thing

    assert Odd().with_(thing="two").run(1) == "two"


def test_a_property_or_a_method_is_no_attribute_to_set() -> None:
    class Props(Module):
        @property
        def size(self) -> int:
            return 1

        @staticmethod
        def helper() -> int:
            return 1

        async def forward(self, x: int) -> int:
            return x

    for name in ("size", "helper"):
        with pytest.raises(ConfigError, match=f"no setting '{name}'"):
            _ = Props().with_(**{name: 2})


def test_a_frozen_dataclass_may_be_a_module() -> None:
    @dataclass(frozen=True)
    class Scale(Module):
        factor: float = 2.0

        async def forward(self, x: float) -> float:
            return self.factor * x

    assert Scale().run(3) == 6
    assert Scale(factor=3).with_(timeout=5).run(3) == 9
    assert Scale().with_(factor=4).run(3) == 12
    assert Scale() == Scale()


def test_a_module_without_super_init_works() -> None:
    class Bare(Module):
        def __init__(self, n: int) -> None:
            self.n = n

        async def forward(self, x: int) -> int:
            return x + self.n

    assert Bare(2).run(1) == 3


@simulated
async def test_a_name_of_a_setting_that_is_a_parameter_is_refused_as_ambiguous() -> None:
    class Book(Module, timeout=9):
        async def forward(self, name: str, timeout: float = 1) -> str:
            return f"{name} {timeout}"

    assert await Book()("ann", timeout=2) == "ann 2.0"
    assert Book().settings.timeout == 9.0
    for setting in ("name", "timeout"):
        with pytest.raises(ConfigError, match=f"^Book: '{setting}' is a setting and a parameter of forward"):
            Book().with_(**{setting: "x"})


# ---------------------------------------------------------------- with_ as a bare statement


def test_a_copy_that_is_thrown_away_warns_with_the_line() -> None:
    search = Search()
    with pytest.warns(RuntimeWarning, match=r"^Search\.with_\(\) returns a copy, which is thrown away here") as caught:
        search.with_(k=2)
    assert caught[0].filename == __file__
    assert "search.with_(k=2)" in Path(__file__).read_text().splitlines()[caught[0].lineno - 1]


def test_a_copy_that_is_thrown_away_warns_however_it_is_called() -> None:
    search, settings = Search(), {"k": 2}
    with pytest.warns(RuntimeWarning, match="thrown away"):
        search.with_(**settings)
    with pytest.warns(RuntimeWarning, match="thrown away"):
        search.with_()
    with pytest.warns(RuntimeWarning, match="thrown away"):
        functools.partial(search.with_, k=2)()
    with pytest.warns(RuntimeWarning, match="thrown away"):
        Search().with_(name="a").with_(k=2)


def test_a_copy_that_is_used_in_any_way_does_not_warn() -> None:
    def give() -> Search:
        return search.with_(k=2)

    search = Search()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = search.with_(k=2)
        _ = search.with_(k=3)
        copies = [search.with_(k=i) for i in range(2)]
        line = search.with_(k=2) >> len
        made = {"a": search.with_(k=2)}
        truth = search.with_(k=2) is not None and bool(search.with_(k=2))
    assert all((kept, copies, line, made, truth, give(), (lambda: search.with_(k=2))()))


def test_a_bad_setting_is_an_error_before_it_is_a_warning() -> None:
    with refused_value("Search", "timeout", -1):
        Search().with_(timeout=-1)


# ---------------------------------------------------------------- classes


def test_a_class_without_forward_cannot_be_made_an_instance_of() -> None:
    class Half(Module):
        pass

    for cls in (Half, Module):
        with refused(ConfigError, f"{cls.__name__} has no forward; write one, it is what a module does"):
            cls()

    class Whole(Half):
        async def forward(self, x: int) -> int:
            return x

    assert Whole().run(1) == 1


@simulated
async def test_the_plain_forward_may_be_called_untraced() -> None:
    with capture() as trace:
        assert await Search().forward("a") == ["xa"]
    assert trace.runs == []
    with pytest.raises(ConfigError, match="has no forward"):
        Module.forward(Search(), 1)


def test_a_class_without_an_init_takes_no_arguments() -> None:
    class Shout(Module):
        async def forward(self, text: str) -> str:
            return text.upper()

    with pytest.raises(TypeError, match=r"Shout\('hello', loud=True\) takes no arguments: it has no __init__"):
        Shout("hello", loud=True)


def test_brackets_that_agree_with_forward_are_fine() -> None:
    class Agree(Module[str, list[Doc]]):
        async def forward(self, x: str) -> list[Doc]:
            return []

    class Narrower(Module[bool, object]):
        async def forward(self, x: int) -> Doc:
            return Doc(text="x")

    class Untyped(Module[int, int]):
        async def forward(self, x):  # type: ignore[no-untyped-def]
            return x

    class Stream(Module[int, str]):
        async def forward(self, x: int) -> AsyncIterator[str]:  # type: ignore[override]
            yield "x"

    class Open(Module[T, T], Generic[T]):
        async def forward(self, x: T) -> T:
            return x

    assert Agree.Out == list[Doc]
    assert (Narrower.Out, Untyped.Out, Stream.Out, Open().run(1)) == (Doc, Any, str, 1)


def test_brackets_that_contradict_forward_are_refused_when_the_class_is_made() -> None:
    with refused(WiringError, "Takes is declared Module[int, str], but forward takes str"):

        class Takes(Module[int, str]):
            async def forward(self, x: str) -> str:  # type: ignore[override]
                return x

    with refused(WiringError, "Gives is declared Module[str, int], but forward returns str"):

        class Gives(Module[str, int]):
            async def forward(self, x: str) -> str:  # type: ignore[override]
                return x


def test_brackets_with_an_annotation_that_is_not_known_yet_are_looked_at_later() -> None:
    class Later(Module[int, int]):
        async def forward(self, x: "Unknown") -> int:  # type: ignore[name-defined]  # noqa: F821
            return 1

    with pytest.raises(ConfigError, match=r"^Later: forward names an unknown type: name 'Unknown' is not defined"):
        Later().run(1)


def test_brackets_in_a_base_class_need_not_be_repeated() -> None:
    class Base(Module[str, str]):
        async def forward(self, x: str) -> str:
            return x

    class Derived(Base):
        mark: str = "!"

    assert Derived().with_(mark="?").run("a") == "a"


def test_class_settings_are_inherited_and_may_be_overridden() -> None:
    class Slow(Search, timeout=9, tags=("a",)):
        pass

    class Quick(Slow, timeout=1, name="quick"):
        pass

    assert (Slow.settings.timeout, Slow().settings.name) == (9.0, "Slow")
    assert (Quick.settings.timeout, Quick.settings.tags, Quick().settings.name) == (1.0, ("a",), "quick")
    assert Search.settings.timeout is None


def test_an_attribute_of_an_instance_wins_over_a_derived_one() -> None:
    class Payment(Module):
        def __init__(self) -> None:
            self.payload = "mine"
            self.schema = 5

        async def forward(self, x: int) -> Any:
            return [self.payload, self.schema]

    assert Payment().run(1) == ["mine", 5]


def test_types_of_forward_that_are_local_are_found() -> None:
    class Local(BaseModel):
        n: int

    class Uses(Module):
        async def forward(self, x: "Local") -> "list[Local]":
            return [x]

    assert Uses().run({"n": 1}) == [Local(n=1)]
    assert Uses.Out == list[Local]


def test_a_subclass_may_have_a_forward_of_another_colour_and_other_types() -> None:
    class Plain(Search):
        def forward(self, n: int) -> int:  # type: ignore[override]
            return n + 1

    assert Plain().run("1") == 2
    assert Search().run("a") == ["xa"]


# ---------------------------------------------------------------- operators


async def test_pipes_are_refused_with_what_to_write_instead() -> None:
    for wrong in (lambda: Search() | Search(), lambda: Search() | len, lambda: len | Search(), lambda: 5 | Search()):
        with pytest.raises(WiringError, match=r"^modules have no |: write a >> b for a sequence and a & b"):
            wrong()  # type: ignore[no-untyped-call]


@simulated
async def test_operators_compose_modules_and_functions() -> None:
    line = Search() >> len >> str
    assert isinstance(line, Sequential)
    assert await line("a") == "1"
    assert isinstance(Search() & Search(), Parallel)
    assert await (Search() & (lambda query: query))("a") == (["xa"], "a")


@pytest.mark.parametrize("wrong", [5, None, "text", [Search]])
def test_only_modules_and_functions_can_be_composed(wrong: Any) -> None:
    with refused(WiringError, f"Sequential: {wrong!r} is neither a Module nor a function"):
        Search() >> wrong
    with refused(WiringError, f"Parallel: {wrong!r} is neither a Module nor a function"):
        Search() & wrong


def test_a_class_in_place_of_an_instance_is_named() -> None:
    with refused(WiringError, "Sequential: Search is a class; write Search() to make a step of it"):
        Search() >> Search


# ---------------------------------------------------------------- copies and sharing


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("ran", [False, True])
def test_a_module_can_be_copied_before_and_after_it_ran(how: Any, ran: bool) -> None:
    search = Search("y").with_(k=2, timeout=5)
    if ran:
        search.run("a")
    again = how(search)
    assert again.run("b") == ["yb", "yb"]
    assert again.settings == search.settings


@simulated
async def test_one_instance_runs_in_many_tasks_and_keeps_no_state_of_them() -> None:
    class Sleepy(Module):
        async def forward(self, seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

    sleepy = Sleepy()
    assert await asyncio.gather(*[sleepy(i / 10) for i in range(10)]) == [i / 10 for i in range(10)]
    assert vars(sleepy).keys() <= {"_mai_spec", "_mai_identity"}


def test_a_module_is_shown_by_its_name_and_signature() -> None:
    assert repr(Search()) == "<Search(query: str, k: int = 1) -> list[str]>"
    assert repr(Search().with_(name="find")) == "<find(query: str, k: int = 1) -> list[str]>"
    assert repr(module(len)).startswith("<len(")


@simulated
async def test_forward_may_be_a_static_or_a_class_method() -> None:
    class Static(Module):
        @staticmethod
        async def forward(text: str, times: int = 2) -> str:
            return text * times

    class OfClass(Module):
        mark = "!"

        @classmethod
        def forward(cls, text: str, times: int = 2) -> str:
            return text * times + cls.mark

    assert list(Static.In.model_fields) == list(OfClass.In.model_fields) == ["text", "times"]
    assert await Static()("a") == await Static().with_(times=1)("aa") == "aa"
    assert await OfClass()("a", times=3) == "aaa!"
    assert await (Static() >> OfClass())("a") == "aaaa!"


@simulated
async def test_a_forward_that_a_mixin_brings_is_the_one_that_counts() -> None:
    class Base(Module):
        async def forward(self, number: int) -> int:
            return number

    class Mixin:
        def forward(self, text: str, times: int = 2) -> str:
            return text * times

    class Both(Mixin, Base):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
        pass

    class Other(Base, Mixin):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
        pass

    assert (list(Both.In.model_fields), Both.Out) == (["text", "times"], str)
    assert await Both()("a") == "aa"
    assert (list(Other.In.model_fields), await Other()(1)) == (["number"], 1)
