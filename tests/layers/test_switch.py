"""Switch: one of several branches by a key, and a trace that says which."""

import asyncio
import contextvars
import enum
from typing import Any, Literal

import pytest

from mai import Context, MaiError, Switch, UnknownCase, WiringError, capture, module
from tests.support import refused, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def length(text: str) -> int:
    return len(text)


@module
async def first(text: str) -> str:
    await asyncio.sleep(1)
    return text[0]


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def head(text: str) -> str:
    return text[0]


@simulated
async def test_the_branch_of_the_key_is_called() -> None:
    choose = Switch(head, {"a": shout, "b": length})
    assert await choose("abc") == "ABC"
    assert await choose("bcd") == 3


@simulated
async def test_otherwise_is_called_where_the_key_has_no_case() -> None:
    choose = Switch(head, {"a": length}, otherwise=shout)
    assert (await choose("abc"), await choose("xyz")) == (3, "XYZ")


@simulated
async def test_without_otherwise_an_unknown_key_is_an_error_that_names_it_and_the_known_ones() -> None:
    choose = Switch(head, {"a": shout, "b": length}).with_(name="route")
    with pytest.raises(UnknownCase) as caught:
        await choose("xyz")
    error = caught.value
    assert str(error) == "route: head gave 'x', which has no case; it has 'a', 'b': add it, or otherwise=..."
    assert isinstance(error, MaiError)
    assert (error.step_id, error.key, error.cases) == ("route", "x", ("a", "b"))
    assert error.__notes__ == ["mai: in route"]


@simulated
async def test_a_key_that_cannot_be_one_is_an_error_as_in_a_dict() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        await Switch(lambda text: [text], {"a": shout}, otherwise=shout)("a")


@simulated
async def test_keys_are_compared_as_in_a_dict() -> None:
    choose = Switch(lambda x: x, {1: lambda x: "one", None: lambda x: "none", (1, 2): lambda x: "pair"})
    assert [await choose(x) for x in (1, 1.0, True, None, (1, 2))] == ["one", "one", "one", "none", "pair"]


@pytest.mark.parametrize("selector", [first, first.with_(name="asks")])
@simulated
async def test_a_selector_may_be_a_module_and_is_a_step_of_its_own(selector: Any) -> None:
    name = selector.settings.name
    with capture() as trace:
        assert await Switch(selector, {"a": shout, "b": length})("abc") == "ABC"
    assert [h.step_id for h in trace.runs[0].children] == [f"Switch/{name}", "Switch/shout"]
    assert trace.runs[0].attributes["mai.decision.predicate"] == name


@simulated
async def test_a_selector_may_be_a_coroutine_function() -> None:
    async def later(text: str) -> str:
        await asyncio.sleep(1)
        return text[0]

    assert await Switch(later, {"a": length})("abc") == 3


@simulated
async def test_the_decision_and_its_predicate_are_in_the_trace() -> None:
    with capture() as trace:
        await Switch(head, {"a": shout})("abc")
        await Switch(head, {"a": shout}, otherwise=shout)("xyz")
        await Switch(len, {3: shout})("abc")
        await Switch(lambda x: Colour(len(x)), {Colour.RED: shout})("a")
    assert [run.attributes["mai.decision"] for run in trace.runs] == ["a", "otherwise", 3, "Colour.RED"]
    labels = [run.attributes["mai.decision.predicate"] for run in trace.runs]
    assert labels[:3] == ["head", "head", "len"]
    assert labels[3].endswith("<lambda>")


@simulated
async def test_equal_names_are_numbered_and_keep_their_paths_whatever_is_chosen() -> None:
    choose = Switch(head, {"a": length, "b": length}, otherwise=length)
    with capture() as trace:
        for text in ("a", "b", "c"):
            await choose(text)
    paths = [run.children[0].step_id for run in trace.runs]
    assert paths == ["Switch/length", "Switch/length~2", "Switch/length~3"]


@simulated
async def test_what_the_selector_does_to_a_contextvar_stays_with_it() -> None:
    def leaky(x: int) -> int:
        mark.set("leaked")
        Context.set(user="leaked")
        return x

    async def look(x: int) -> tuple[str, Any]:
        return mark.get(), Context.get().metadata.get("user")

    assert await Switch(leaky, {0: look})(0) == ("clean", None)
    assert mark.get() == "clean"


@simulated
async def test_a_failing_selector_fails_the_call() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await Switch(lambda text: 1 / 0, {1: shout})("a")
    assert caught.value.__notes__ == ["mai: in Switch"]


@simulated
async def test_types_go_in_and_come_out() -> None:
    choose = Switch(head, {"a": shout, "b": length}, otherwise=length)
    assert (choose.Out, choose.In.model_fields["text"].annotation) == (str | int, str)
    assert Switch(head, {"a": shout, "b": len}).Out is Any


def test_what_cannot_be_wired_is_refused() -> None:
    with refused(WiringError, "Switch: selector=3 is neither a Module nor a function"):
        Switch(3, {"a": shout})  # type: ignore[call-overload]
    for cases in ({}, [shout], None):
        message = f"Switch: cases={cases!r} cannot be used: give a dict of key and step, at least one"
        with refused(WiringError, message):
            Switch(head, cases)  # type: ignore[arg-type]
    with refused(WiringError, "Switch: 'no' is neither a Module nor a function"):
        Switch(head, {"a": "no"})  # type: ignore[dict-item]
    with refused(WiringError, "Switch: total takes list[int], another branch str"):
        Switch(head, {"a": shout, "b": total})
    with refused(WiringError, "Switch: total takes list[int], another branch str"):
        Switch(head, {"a": shout}, otherwise=total)
    with refused(WiringError, "Switch: shout takes str, another branch list[int]"):
        Switch(total, {"a": shout})
    with refused(WiringError, "Switch: two steps are named 'x'; names in one scope must differ"):
        Switch(head, {"a": shout.with_(name="x")}, otherwise=length.with_(name="x"))


def test_a_key_that_the_selector_can_never_give_is_refused() -> None:
    @module
    async def colour(text: str) -> Literal["red", "blue"]:
        return "red"

    @module
    async def enumerated(text: str) -> Colour:
        return Colour.RED

    Switch(colour, {"red": shout, "blue": length})
    Switch(enumerated, {Colour.RED: shout})
    Switch(module(lambda text: text), {"red": shout, 3: shout, (1, 2): shout})
    with refused(WiringError, "Switch: there is a case 'green', but colour gives Literal['red', 'blue']"):
        Switch(colour, {"red": shout, "green": length})
    with refused(WiringError, "Switch: there is a case 'a', but length gives int"):
        Switch(length, {1: shout, "a": length})


def test_it_can_be_copied_with_settings_and_be_a_branch_itself() -> None:
    inner = Switch(len, {1: shout}, otherwise=length).with_(name="inner", timeout=1)
    assert Switch(head, {"a": inner}, otherwise=shout).run("a") == "A"
    assert Switch(head, {"a": inner}, otherwise=shout).run("ab") == 2
