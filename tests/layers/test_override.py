"""override: a test double for a module and all its copies, where the test looks and nowhere else."""

import asyncio
import copy
from typing import Any

import pytest

from mai import CastError, ConfigError, Module, Retry, capture, module
from tests.support import simulated


class Search(Module):
    async def forward(self, query: str, k: int = 3) -> list[str]:
        raise ConnectionError("no network in tests")


@module
async def shout(text: str, *, mark: str) -> str:
    raise ConnectionError("no network in tests")


@simulated
async def test_it_stands_in_for_the_module_and_copies_made_before_and_after() -> None:
    search = Search()
    before = search.with_(name="before", k=1)
    with search.override(lambda query, k=3: [query] * k):
        assert await search("x") == ["x"] * 3
        assert await before("x") == ["x"]
        assert await search.with_(k=2)("x") == ["x"] * 2
        assert await (search >> len)("x") == 3
    for one in (search, before):
        with pytest.raises(ConnectionError):
            await one("x")


@simulated
async def test_it_stands_in_for_deep_copies_too() -> None:
    whole = Search() >> len
    deep = copy.deepcopy(whole)
    with whole.steps[0].override(lambda query, k=3: [query] * k):
        assert await deep("x") == 3


@simulated
async def test_another_instance_is_not_concerned() -> None:
    with Search().override(lambda query, k=3: [query]), pytest.raises(ConnectionError):
        await Search()("x")


@simulated
async def test_it_may_be_async_or_a_module_or_a_generator() -> None:
    async def fake(query: str, k: int = 3) -> list[str]:
        await asyncio.sleep(1)
        return [query]

    async def words(query: str, k: int = 3) -> Any:
        for _ in range(k):
            yield query.encode()

    search = Search()
    for double in (fake, module(fake), lambda *args, **kwargs: ["x"]):
        with search.override(double):
            assert await search("x") == ["x"]
    with search.override(words):
        assert await search("x") == ["x"] * 3
    with search.override(lambda query, k=3: 3), pytest.raises(CastError, match="Search: the returned value must be"):
        await search("x")


@simulated
async def test_settings_casts_and_traces_stay() -> None:
    tries: list[str] = []

    def failing(query: str, k: int = 3) -> list[str]:
        tries.append(query)
        if len(tries) < 2:
            raise ValueError
        return (query,)  # type: ignore[return-value]

    search = Search()
    with search.override(failing), capture() as trace:
        assert await search.with_(retry=Retry(2, base=0.1))(b"5") == ["5"]  # type: ignore[arg-type]
    assert tries == ["5", "5"]
    assert [h.outcome for h in trace.runs[0].children] == ["error", "ok"]


@simulated
async def test_it_concerns_only_what_is_called_inside_the_block() -> None:
    search = Search()

    async def elsewhere() -> None:
        await asyncio.sleep(1)
        with pytest.raises(ConnectionError):
            await search("x")

    task = asyncio.ensure_future(elsewhere())
    with search.override(lambda query, k=3: []):
        await asyncio.sleep(2)
        assert await search("x") == []
    await task


@simulated
async def test_the_innermost_one_counts_and_threads_see_it() -> None:
    search = Search()

    @module
    def outer(query: str) -> list[str]:
        return search.run(query)

    with search.override(lambda query, k=3: ["outer"]):
        with search.override(lambda query, k=3: ["inner"]):
            assert await outer("x") == ["inner"]
        assert await outer("x") == ["outer"]


@pytest.mark.parametrize(
    "double",
    [
        list,
        lambda query: [],
        lambda query, limit=3: [],
        lambda query, k, more: [],
        lambda query, *, k=3: [],
        Search,
    ],
)
def test_another_signature_is_refused(double: Any) -> None:
    wrong = r"Search\(query: str, k: int = 3\) -> list\[str\] cannot be overridden by"
    with pytest.raises(ConfigError, match=wrong), Search().override(double):
        pass


def test_keywords_are_compared_by_name() -> None:
    with pytest.raises(ConfigError, match="cannot be overridden by"), shout.override(lambda text, sign: text):  # type: ignore[arg-type, misc]
        pass
    with shout.override(lambda text, mark: text + mark):  # type: ignore[arg-type, misc]
        assert shout.run("a", mark="!") == "a!"


def test_a_copy_cannot_stand_in_for_its_own_module() -> None:
    search = Search()
    for double in (search, search.with_(k=1)):
        with pytest.raises(ConfigError, match="Search cannot be overridden by itself"), search.override(double):
            pass
