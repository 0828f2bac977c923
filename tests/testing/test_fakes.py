"""Steps that stand in for real ones."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import DeadlineExceeded, Module, Retry, module
from mai.errors import ConfigError
from mai.testing import Scripted, Seen, fixed_chance, flaky, simulate, slow


class Search(Module):
    async def forward(self, query: str, k: int = 2) -> list[str]:
        return [query] * k


search = Search()


@given(st.lists(st.integers() | st.builds(KeyError, st.text()), min_size=1), st.integers(0, 20))
def test_a_script_is_followed_and_its_last_word_stands(script: list[object], calls: int) -> None:
    async def main() -> None:
        step = Scripted(*script)
        for i in range(calls):
            wanted = script[min(i, len(script) - 1)]
            got: object = None
            try:
                got = await step(i)
            except KeyError as error:
                got = error
            assert got is wanted
        assert [seen.args for seen in step.calls] == [(i,) for i in range(calls)]

    simulate(main)


def test_a_script_may_have_functions_and_classes_of_errors_and_tells_its_calls() -> None:
    async def later(query: str, k: int) -> list[str]:
        await asyncio.sleep(5)
        return [query.upper()]

    step = Scripted(ConnectionError, later, lambda query, k: [query] * k)

    async def main() -> list[object]:
        with search.override(step):
            retried = search.with_(retry=Retry(2), name="again")
            return [await retried("x"), await search("abc")]

    with fixed_chance(0.0):
        assert simulate(main) == [["X"], ["abc", "abc"]]
    wanted = [Seen(args, {}, at=0, step_id="") for args in (("x", 2), ("x", 2), ("abc", 2))]
    assert step.calls == wanted  # when and where they were is not compared
    assert [seen.step_id for seen in step.calls] == ["again/Scripted", "again/Scripted", "Search/Scripted"]
    assert step.calls[2].at - step.calls[1].at == 5


def test_copies_share_the_script_and_the_calls() -> None:
    step = Scripted(1, 2, 3)

    async def main() -> tuple[int, int, int]:
        return await step("a"), await step.with_(name="other")("b"), await step("c")

    assert simulate(main) == (1, 2, 3)
    assert len(step.calls) == 3


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_a_flaky_double_fails_so_often_all_callers_together(fails: int) -> None:
    errors = [OSError(i) for i in range(3)]
    double = flaky(search, fails=fails, error=lambda: errors.pop(0))

    async def main() -> list[str]:
        with search.override(flaky(lambda query, k=2: [query.upper()] * k, fails=fails)):
            assert await search.with_(retry=Retry(fails + 1, base=1.0))("x", k=3) == ["X"] * 3
        for _ in range(fails):
            with pytest.raises(OSError, match=r"\d"):
                await double("x")
        return await double("x")

    assert simulate(main) == ["x", "x"]
    assert len(errors) == 3 - fails


def test_a_flaky_double_raises_the_error_that_it_is_given() -> None:
    error = KeyError("x")

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            await flaky(len, fails=1, error=error)("x")
        assert caught.value is error

    simulate(main)


def test_a_double_of_a_step_can_be_a_step() -> None:
    step = module(slow(search, seconds=30))
    assert step.In.model_fields.keys() == {"query", "k"}
    assert simulate(lambda: step.with_(timeout=31)("x")) == ["x", "x"]
    with pytest.raises(DeadlineExceeded):
        simulate(lambda: step.with_(timeout=29)("x"))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="no script"):
        Scripted()
    with pytest.raises(ConfigError, match="negative"):
        flaky(len, fails=-1)
