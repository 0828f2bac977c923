"""Parallel: branches with one input; the branch runner itself is tested beside it in core."""

import asyncio
import re
from typing import Any

import pytest

from mai import ConfigError, Module, Parallel, Sequential, WiringError, capture, module
from tests.support import loop_of, refused, refused_value, simulated


@module
async def length(text: str) -> int:
    return len(text)


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def fails(text: str) -> str:
    raise ValueError(f"no {text}")


class Nap(Module):
    async def forward(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


@simulated
async def test_positional_branches_give_a_tuple_and_named_ones_a_dict() -> None:
    assert await Parallel(length, shout)("a") == (1, "A")
    assert await Parallel(length)("a") == (1,)
    assert await Parallel(n=length, loud=shout)("a") == {"n": 1, "loud": "A"}


@simulated
async def test_results_stand_in_the_order_of_the_branches() -> None:
    naps = [Nap() >> (lambda s, i=i: (i, s)) for i in range(5)]
    delayed = [Sequential(lambda s, i=i: s * (5 - i), Nap()) for i in range(5)]
    assert await Parallel(*naps)(1.0) == tuple((i, 1.0) for i in range(5))
    assert await Parallel(*delayed)(1.0) == (5.0, 4.0, 3.0, 2.0, 1.0)


@simulated
async def test_and_joins_branches_until_they_are_configured() -> None:
    assert await (length & shout & length)("a") == (1, "A", 1)
    assert await ((length & shout).with_(name="two") & length)("a") == ((1, "A"), 1)
    assert await (Parallel(length, limit=1) & length)("a") == ((1,), 1)
    assert await (Parallel(length, on_error="collect") & length)("a") == ((1,), 1)
    assert await (Parallel(n=length) & length)("a") == ({"n": 1}, 1)
    assert await (length & (length & shout))("a") == (1, (1, "A"))
    assert await (length & len)("a") == (1, 1)


@simulated
async def test_collect_leaves_errors_in_the_place_of_values() -> None:
    values = await Parallel(length, fails, shout, on_error="collect")("a")
    assert (values[0], values[2]) == (1, "A")
    assert isinstance(values[1], ValueError)
    assert values[1].__notes__[0].startswith("mai: in Parallel[1]/fails")
    named = await Parallel(a=fails, b=length, on_error="collect")("a")
    assert (type(named["a"]), named["b"]) == (ValueError, 1)


@simulated
async def test_collect_waits_for_all_and_keeps_a_late_failure() -> None:
    began = loop_of().time()
    values = await Parallel(Nap().with_(timeout=1), Nap(), on_error="collect")(3)
    assert (type(values[0]).__name__, values[1]) == ("DeadlineExceeded", 3)
    assert loop_of().time() == began + 3


@simulated
async def test_a_value_that_is_an_exception_is_a_value() -> None:
    error = ValueError("a value")
    give = module(lambda x: error)
    assert await Parallel(give, give)(1) == (error, error)


@simulated
async def test_none_is_a_value() -> None:
    assert await Parallel(lambda x: None, lambda x: None)(1) == (None, None)


@simulated
async def test_branches_share_the_input_unless_isolated() -> None:
    async def change(values: list[list[int]]) -> list[list[int]]:
        values[0].append(len(values[0]))
        return values

    mine = [[0]]
    shared = await Parallel(change, change)(mine)
    assert shared[0] is shared[1] is mine
    mine = [[0]]
    first, second = await Parallel(change, change).with_(isolate=True)(mine)
    assert (first, second, mine) == ([[0, 1]], [[0, 1]], [[0]])
    assert first is not second


@simulated
async def test_what_cannot_be_copied_fails_an_isolated_parallel() -> None:
    async def gen() -> Any:
        yield 1

    with pytest.raises(TypeError, match="pickle"):
        await Parallel(len, len).with_(isolate=True)(gen())


@simulated
async def test_types_go_in_and_come_out() -> None:
    both = Parallel(length, shout)
    assert (both.Out, both.In.model_fields["text"].annotation) == (tuple[int, str], str)
    assert Parallel(length, on_error="collect").Out == tuple[int | Exception]
    assert Parallel(length, len).Out == tuple[int, Any]
    assert Parallel(a=length).Out == dict[str, Any]


def test_no_branches_and_both_kinds_of_branches_are_refused() -> None:
    with pytest.raises(WiringError, match=r"^Parallel .*at least one"):
        Parallel()
    with pytest.raises(WiringError, match=r"^Parallel .* by position .*by name"):
        Parallel(length, loud=shout)  # type: ignore[call-overload]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
def test_a_limit_is_a_number_of_branches(limit: Any) -> None:
    with refused_value("Parallel", "limit", limit):
        Parallel(length, limit=limit)


@pytest.mark.parametrize("on_error", ["stop", None, True])
def test_on_error_is_one_of_two_words(on_error: Any) -> None:
    with refused_value("Parallel", "on_error", on_error):
        Parallel(length, on_error=on_error)


@pytest.mark.parametrize("name", ["a/b", "a[0]", "~"])
def test_a_branch_has_a_name_that_a_path_can_hold(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Parallel: .*{re.escape(repr(name))} "):
        Parallel(**{name: length})


@pytest.mark.parametrize("wrong", [5, "text"])
def test_a_branch_is_a_module_or_a_function(wrong: Any) -> None:
    with refused(WiringError, f"Parallel: {wrong!r} is neither a Module nor a function"):
        Parallel(length, wrong)


def test_a_branch_takes_one_value_and_the_branches_fit_together() -> None:
    @module
    async def add(a: int, b: int) -> int:
        return a + b

    @module
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(WiringError, match=r"^Parallel: add needs 2 values \(a, b\)"):
        Parallel(add, length)
    with pytest.raises(WiringError, match=r"^Parallel: total takes list\[int\], .*str"):
        Parallel(length, total)
    assert Parallel(add.with_(b=1), add.with_(b=2)).run(1) == (2, 3)


@simulated
async def test_equal_names_of_branches_are_fine_for_their_places_tell_them_apart() -> None:
    with capture() as trace:
        await Parallel(length.with_(name="same"), shout.with_(name="same"))("a")
    assert [h.step_id for h in trace.runs[0].children] == ["Parallel[0]/same", "Parallel[1]/same"]


@simulated
async def test_a_parallel_can_be_configured_like_any_module() -> None:
    both = (length & shout).with_(name="both", timeout=5, tags=("t",))
    with capture() as trace:
        await both("a")
    assert (trace.runs[0].step_id, trace.runs[0].attributes["mai.tags"]) == ("both", ("t",))
    with pytest.raises(ConfigError, match=r"^Parallel has no setting 'limit'"):
        (length & shout).with_(limit=2)


@simulated
async def test_the_group_of_several_failures_names_the_step_and_each_error_its_branch() -> None:
    class Late(Module):
        async def forward(self, text: str) -> str:
            try:
                await asyncio.sleep(9)
            finally:
                raise KeyError("late")
            return text

    with pytest.raises(ExceptionGroup, match=r"^2 branches of outer failed") as caught:
        await Parallel(Late(), fails).with_(name="outer")("a")
    notes = sorted(error.__notes__[0].split(" (")[0] for error in caught.value.exceptions)
    assert notes == ["mai: in outer[0]/Late", "mai: in outer[1]/fails"]
    assert caught.value.__notes__[0].startswith("mai: in outer")


async def test_a_subclass_of_parallel_stays_one_branch_of_an_and() -> None:
    class Twice(Parallel[Any, Any]):
        pass

    @module
    async def same(x: int) -> int:
        return x

    assert await (Twice(same, same) & same)(1) == ((1, 1), 1)
