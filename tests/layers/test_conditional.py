"""Conditional: one of two branches, and a trace that says which."""

import asyncio
import contextvars
import functools
from typing import Any

import pytest

from mai import Conditional, WiringError, capture, module
from tests.support import refused, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def length(text: str) -> int:
    return len(text)


@module
async def is_long(text: str) -> bool:
    await asyncio.sleep(1)
    return len(text) > 2


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def long(text: str) -> bool:
    return len(text) > 2


@simulated
async def test_one_of_two_branches_is_called() -> None:
    choose = Conditional(long, then=shout, otherwise=length)
    assert await choose("abc") == "ABC"
    assert await choose("ab") == 2


@simulated
async def test_without_otherwise_the_input_passes_through() -> None:
    choose = Conditional(long, then=shout)
    value = "ab"
    assert await choose("abc") == "ABC"
    assert await choose(value) is value


@simulated
async def test_functions_may_be_branches() -> None:
    assert await Conditional(bool, then=len, otherwise=lambda x: "empty")("") == "empty"
    assert await Conditional(bool, then=len, otherwise=lambda x: "empty")("abc") == 3


@pytest.mark.parametrize("text", ["abc", "ab"])
@simulated
async def test_a_test_may_be_a_module_and_is_a_step_of_its_own(text: str) -> None:
    for test, name in ((is_long, "is_long"), (is_long.with_(name="asks"), "asks")):
        with capture() as trace:
            await Conditional(test, then=shout, otherwise=length)(text)
        branch = "shout" if text == "abc" else "length"
        assert [h.step_id for h in trace.runs[0].children] == [f"Conditional/{name}", f"Conditional/{branch}"]
        assert trace.runs[0].attributes["mai.decision.predicate"] == name


@simulated
async def test_a_test_may_be_a_coroutine_function() -> None:
    async def later(text: str) -> bool:
        await asyncio.sleep(1)
        return len(text) > 2

    choose = Conditional(later, then=shout, otherwise=length)
    assert (await choose("abc"), await choose("ab")) == ("ABC", 2)


@simulated
async def test_anything_that_is_true_will_do() -> None:
    choose = Conditional(lambda x: x, then=lambda x: "then", otherwise=lambda x: "otherwise")
    assert [await choose(x) for x in ([1], [], None, 0, "a")] == ["then", "otherwise", "otherwise", "otherwise", "then"]


@pytest.mark.parametrize(
    ("test", "label"),
    [
        (long, "long"),
        (str.isupper, "str.isupper"),
        (functools.partial(long), "partial"),
        (type("Check", (), {"__call__": lambda self, x: True})(), "Check"),
    ],
)
@simulated
async def test_the_decision_and_its_predicate_are_in_the_trace(test: Any, label: str) -> None:
    with capture() as trace:
        await Conditional(test, then=shout, otherwise=length)("ABC")
        await Conditional(lambda text: False, then=shout)("ABC")
        await Conditional(lambda text: False, then=shout, otherwise=length)("ABC")
    first, second, third = (run.attributes for run in trace.runs)
    assert (first["mai.decision"], first["mai.decision.predicate"]) == ("then", label)
    assert (second["mai.decision"], third["mai.decision"]) == ("pass", "otherwise")
    assert second["mai.decision.predicate"].endswith("<lambda>")


@simulated
async def test_a_failing_test_fails_the_call() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await Conditional(lambda text: 1 / 0, then=shout)("a")
    assert caught.value.__notes__ == ["mai: in Conditional"]

    @module
    async def broken(text: str) -> bool:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as other:
        await Conditional(broken, then=shout)("a")
    assert other.value.__notes__ == ["mai: in Conditional/broken"]


@simulated
async def test_what_a_test_does_to_a_contextvar_does_not_leak_out() -> None:
    def changes(text: str) -> bool:
        mark.set("changed")
        return True

    async def later(text: str) -> bool:
        return changes(text)

    for test in (changes, later, module(later)):
        await Conditional(test, then=shout)("a")
        assert mark.get() == "clean"
    assert await Conditional(module(later), then=lambda text: mark.get())("a") == "clean"


@simulated
async def test_branches_that_wait_are_waited_for() -> None:
    @module
    async def slow(text: str) -> str:
        await asyncio.sleep(2)
        return text

    assert await Conditional(is_long, then=slow, otherwise=slow)("abc") == "abc"
    assert await Conditional(is_long, then=slow, otherwise=slow)("ab") == "ab"


def test_the_type_is_that_of_either_branch() -> None:
    assert Conditional(long, then=shout, otherwise=length).Out == str | int
    assert Conditional(long, then=shout).Out is str
    assert Conditional(long, then=length).Out == int | str
    assert Conditional(long, then=shout, otherwise=shout).Out is str
    assert Conditional(long, then=shout, otherwise=len).Out is Any
    assert list(Conditional(long, then=shout).In.model_fields) == ["text"]
    assert Conditional(long, then=module(lambda x: x)).Out is Any


def test_a_branch_that_gives_none_keeps_the_type_whole() -> None:
    @module
    async def nothing(text: str) -> None: ...

    assert Conditional(long, then=nothing, otherwise=nothing).Out is type(None)
    assert Conditional(long, then=nothing).Out == (None | str)


@pytest.mark.parametrize("wrong", [5, "text", None])
def test_a_test_that_cannot_be_called_is_refused(wrong: Any) -> None:
    with refused(WiringError, f"Conditional: test={wrong!r} is neither a Module nor a function"):
        Conditional(wrong, then=shout)


def test_a_branch_that_is_no_module_is_refused() -> None:
    with refused(WiringError, "Conditional: 5 is neither a Module nor a function"):
        Conditional(long, then=5)  # type: ignore[call-overload]
    with refused(WiringError, "Conditional: 'x' is neither a Module nor a function"):
        Conditional(long, then=shout, otherwise="x")  # type: ignore[call-overload]


def test_branches_that_no_value_can_both_go_into_are_refused() -> None:
    with pytest.raises(WiringError, match=r"^Conditional: .*takes list\[int\], .*str"):
        Conditional(long, then=shout, otherwise=total)


def test_equal_explicit_names_are_refused() -> None:
    with refused(WiringError, "Conditional: two steps are named 'same'; names in one scope must differ"):
        Conditional(long, then=shout.with_(name="same"), otherwise=length.with_(name="same"))


@simulated
async def test_the_same_module_may_be_both_branches_and_the_test() -> None:
    with capture() as trace:
        await Conditional(shout, then=shout, otherwise=shout)("a")
    assert [h.step_id for h in trace.runs[0].children] == ["Conditional/shout", "Conditional/shout~2"]


async def test_no_test_leaks_a_contextvar_into_its_branch() -> None:
    async def test(text: str) -> bool:
        mark.set("leaked")
        await asyncio.sleep(0)
        return text == "x"

    @module
    async def look(text: str) -> str:
        return mark.get()

    def quick(text: str) -> bool:
        mark.set("leaked")
        return text == "x"

    for branch in (look, look.with_(retry=2)):
        assert await Conditional(test, then=branch, otherwise=branch)("x") == "clean"
        assert await Conditional(quick, then=branch, otherwise=branch)("y") == "clean"
    assert mark.get() == "clean"


def test_a_module_that_decides_must_take_what_the_branches_take() -> None:
    @module
    async def many(numbers: list[int]) -> bool:
        return len(numbers) > 1

    @module
    async def pair(a: str, b: str) -> bool:
        return a == b

    with pytest.raises(WiringError, match=r"^Conditional: \w+ takes str, another branch list\[int\]"):
        Conditional(many, then=shout)
    with pytest.raises(WiringError, match=r"^Conditional: pair needs 2 values \(a, b\), but gets one"):
        Conditional(pair, then=shout)
    assert Conditional(pair.with_(b="a"), then=shout).run("a") == "A"
