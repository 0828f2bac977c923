"""Map: one step for each item of an iterable, many at once, in flat memory."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mai import (
    CastError,
    ConfigError,
    Context,
    DeadlineExceeded,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Retry,
    WiringError,
    capture,
    module,
)
from mai.core.events import Bus
from mai.core.frame import current, restore, scoped, set_current
from mai.types import Progress
from tests.support import loop_of, refused, refused_value, simulated

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


@module
async def length(text: str) -> int:
    return len(text)


@module
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@module
async def fails(n: int) -> int:
    raise ValueError(n)


@module
async def double(n: int) -> int:
    return 2 * n


@module
async def later(n: int) -> int:
    await asyncio.sleep(1)
    if n < 0:
        raise ValueError(n)
    return n


class Source:
    """Items, sync or async; it notes what was taken, and that it was closed, and in which task."""

    def __init__(self, items: Any, *, pause: float = 0, fail: Exception | None = None) -> None:
        self.items, self.pause, self.fail = items, pause, fail
        self.taken: list[Any] = []
        self.closed: list[str] = []
        self.tasks: set[Any] = set()

    def plain(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.taken.append(item)
                yield item
            if self.fail:
                raise self.fail
        finally:
            self.closed.append("plain")

    async def slow(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                self.tasks.add(asyncio.current_task())
                if self.pause:
                    await asyncio.sleep(self.pause)
                self.taken.append(item)
                yield item
            if self.fail:
                raise self.fail
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0.25)
            self.closed.append("async")

    def either(self, kind: str) -> Any:
        return self.plain() if kind == "plain" else self.slow()


BOTH = pytest.mark.parametrize("kind", ["plain", "async"])


@contextmanager
def events() -> Iterator[Bus]:
    """Let calls post to a bus, as under a started run."""
    bus = Bus()
    token = set_current(scoped(current(), bus=bus))
    try:
        yield bus
    finally:
        restore(token)


# ---------------------------------------------------------------- values and order


@simulated
async def test_values_stand_in_the_order_of_the_items() -> None:
    assert await nap.map()([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
    assert await Map(length)(["a", "bcd"]) == [1, 3]


@BOTH
@simulated
async def test_any_iterable_will_do(kind: str) -> None:
    assert await double.map(concurrency=2)(Source(range(5)).either(kind)) == [0, 2, 4, 6, 8]
    assert await double.map()(Source([]).either(kind)) == []


@simulated
async def test_sets_dicts_ranges_and_what_only_has_indices_are_iterables() -> None:
    class Rows:
        def __getitem__(self, i: int) -> int:
            return [5, 6][i]

    class Feed:
        def __init__(self) -> None:
            self.left = [1, 2]

        def __aiter__(self) -> "Feed":
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert await double.map()(Rows()) == [10, 12]
    assert await double.map()(range(3)) == [0, 2, 4]
    assert await length.map()({"a": 1, "bc": 2}) == [1, 2]
    assert sorted(await double.map()({1, 2})) == [2, 4]
    assert await double.map()(Feed()) == [4, 2]


@simulated
async def test_functions_composites_and_maps_may_be_mapped() -> None:
    assert await Map(len)(["a"]) == [1]
    assert await (length >> double).map()(["ab"]) == [4]
    assert await (length & length).map()(["ab"]) == [(2, 2)]
    assert await length.map().map()([["a", "bc"], []]) == [[1, 2], []]


@simulated
async def test_it_is_a_step_among_others() -> None:
    words = module(str.split)
    assert await (words >> length.map() >> sum)("to be or") == 6
    assert await (length.map() & length.map())(["a"]) == ([1], [1])


# ---------------------------------------------------------------- concurrency


@BOTH
@pytest.mark.parametrize("concurrency", [1, 2, 5])
@simulated
async def test_so_many_items_run_at_once_and_no_more_are_taken_than_have_a_place(kind: str, concurrency: int) -> None:
    source, running, most = Source(range(20)), [0], [0]

    async def work(n: int) -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        assert len(source.taken) <= n + concurrency
        await asyncio.sleep(1)
        running[0] -= 1
        return n

    began = loop_of().time()
    assert await Map(work, concurrency=concurrency)(source.either(kind)) == [*range(20)]
    assert most == [concurrency]
    assert loop_of().time() - began == 20 / concurrency + (0.25 if kind == "async" else 0)


@simulated
async def test_sixty_four_items_run_at_once_unless_told_otherwise() -> None:
    began = loop_of().time()
    await nap.map()([1.0] * 65)
    assert loop_of().time() - began == 2
    assert Map(nap).concurrency == 64


@simulated
async def test_an_async_source_runs_beside_the_items() -> None:
    began = loop_of().time()
    assert await later.map()(Source(range(3), pause=1).slow()) == [0, 1, 2]
    assert loop_of().time() - began == 4  # the source's three seconds, in the last of which it closes, and one item


@BOTH
@pytest.mark.parametrize("parked", [NonBlockingDelay(10.0) >> nap, nap >> NonBlockingDelay(10.0)])
@simulated
async def test_a_delay_that_does_not_block_gives_the_place_of_its_item_to_another(kind: str, parked: Any) -> None:
    began = loop_of().time()
    assert await parked.map(concurrency=1)(Source([1.0] * 5).either(kind)) == [1.0] * 5
    assert loop_of().time() - began == 15


@simulated
async def test_an_item_that_was_parked_goes_on_while_the_source_is_slow() -> None:
    ends: list[float] = []

    async def note(x: float) -> None:
        ends.append(loop_of().time() - began)

    parked = NonBlockingDelay(1.0) >> nap >> note
    began = loop_of().time()
    await parked.map(concurrency=1)(Source([0.5, 0.5], pause=100).slow())
    assert ends == [101.5, 201.5]


@simulated
async def test_a_map_below_a_limit_takes_one_place_of_it() -> None:
    began = loop_of().time()
    mapped = later.map()
    await Parallel(mapped, mapped, limit=1)([1, 2, 3])
    assert loop_of().time() - began == 2


# ---------------------------------------------------------------- failures


@BOTH
@simulated
async def test_a_failure_cancels_and_joins_the_items_in_flight_and_closes_the_source(kind: str) -> None:
    source, log = Source([1, 2, -1, 3, 4, 5]), list[str]()

    @module
    async def work(n: int) -> int:
        try:
            await asyncio.sleep(0.5 if n < 0 else 9)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            log.append(f"clean {n}")
            raise
        raise ValueError(n)

    with pytest.raises(ValueError, match="-1") as caught:
        await work.map(concurrency=3)(source.either(kind))
    assert log == ["clean 1", "clean 2"]
    assert source.closed == [kind]
    assert caught.value.__notes__[0].startswith("mai: in Map[2]/work")


@simulated
async def test_several_failures_are_a_group() -> None:
    with pytest.raises(ExceptionGroup, match=r"^2 branches of Map failed") as caught:
        await later.map()([-1, 1, -2])
    assert [error.args for error in caught.value.exceptions] == [(-1,), (-2,)]


@BOTH
@simulated
async def test_collect_leaves_errors_in_the_place_of_values(kind: str) -> None:
    values = await later.map(on_error="collect", concurrency=2)(Source([1, -1, 2]).either(kind))
    assert (values[0], type(values[1]), values[2]) == (1, ValueError, 2)
    at_once = await fails.map(on_error="collect")([1])
    assert [type(error) for error in at_once] == [ValueError]


@BOTH
@pytest.mark.parametrize("on_error", ["cancel", "collect"])
@simulated
async def test_a_source_that_fails_fails_the_map_once_the_items_are_joined(kind: str, on_error: Any) -> None:
    log = list[str]()

    async def work(n: int) -> int:
        try:
            await asyncio.sleep(9)
        finally:
            log.append("clean")
        return n

    source = Source([1, 2], fail=KeyError("source"))
    with pytest.raises(KeyError, match="source") as caught:
        await Map(work, on_error=on_error)(source.either(kind))
    assert log == ["clean", "clean"]
    assert caught.value.__notes__[0].startswith("mai: in Map")


@BOTH
@simulated
async def test_a_source_that_fails_with_an_item_is_one_of_several_failures(kind: str) -> None:
    @module
    async def stubborn(n: int) -> int:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            raise ValueError(n) from None
        return n

    with pytest.raises(ExceptionGroup) as caught:
        await stubborn.map()(Source([1], fail=KeyError("source")).either(kind))
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


@simulated
async def test_an_iterable_that_cannot_even_begin_fails_the_map() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise KeyError("no")

    class Late:
        def __aiter__(self) -> AsyncIterator[int]:
            raise KeyError("no")

    for broken in (Broken(), Late()):
        with pytest.raises(KeyError, match="no"):
            await double.map()(broken)


@BOTH
@simulated
async def test_a_cancel_of_the_caller_ends_items_and_source(kind: str) -> None:
    source = Source(range(100), pause=1)
    task = asyncio.create_task(nap.map(concurrency=3)(source.either(kind)))
    await asyncio.sleep(2.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == [kind]


@BOTH
@simulated
async def test_a_deadline_ends_items_and_source(kind: str) -> None:
    source = Source([5.0] * 10)
    with pytest.raises(DeadlineExceeded):
        await nap.map(concurrency=2).with_(timeout=7)(source.either(kind))
    assert source.closed == [kind]
    assert len(source.taken) == 4


@simulated
async def test_a_source_that_swallows_its_cancel_gives_nothing_more() -> None:
    class Stubborn:
        given = 0

        def __aiter__(self) -> "Stubborn":
            return self

        async def __anext__(self) -> int:
            self.given += 1
            if self.given > 1:
                try:
                    await asyncio.sleep(9)
                except asyncio.CancelledError:
                    await asyncio.sleep(1)
            return -1

    source = Stubborn()
    with pytest.raises(ValueError, match="-1"):
        await later.map()(source)
    assert source.given == 2


@simulated
async def test_a_failing_close_of_the_source_is_a_failure_but_hides_none() -> None:
    def plain() -> Iterator[int]:
        try:
            yield -1
            yield 2
        finally:
            raise KeyError("close")

    async def slow() -> AsyncIterator[int]:
        try:
            yield -1
            yield 2
        finally:
            raise KeyError("close")

    for source in (plain(), slow()):
        with pytest.raises(ExceptionGroup) as caught:
            await later.map(concurrency=1)(source)
        assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
    task = asyncio.create_task(later.map(concurrency=1)(plain()))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@BOTH
@simulated
async def test_an_endless_source_of_items_that_never_wait_lets_others_run(kind: str) -> None:
    def plain() -> Iterator[int]:
        while True:
            loop_of().now += 0.0001
            yield 1

    async def slow() -> AsyncIterator[int]:
        for item in plain():
            yield item

    task = asyncio.create_task(double.map()(plain() if kind == "plain" else slow()))
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- isolation


@BOTH
@simulated
async def test_what_source_and_items_do_to_contextvars_stays_with_them(kind: str) -> None:
    seen: list[tuple[str, Any]] = []

    def plain() -> Iterator[int]:
        for n in range(4):
            seen.append(("source", mark.get() in ("clean", f"source {n - 1}")))
            mark.set(f"source {n}")
            Context.set(user="leaked")
            yield n

    async def slow() -> AsyncIterator[int]:
        for n in plain():
            await asyncio.sleep(0)
            yield n

    async def work(n: int) -> int:
        seen.append((mark.get(), Context.get().metadata.get("user")))
        mark.set("item")
        await asyncio.sleep(n % 2)
        return n

    assert await Map(work, concurrency=2)(plain() if kind == "plain" else slow()) == [0, 1, 2, 3]
    assert {*seen} == {("source", True), ("clean", None)}
    assert mark.get() == "clean"


@simulated
async def test_an_async_source_lives_and_is_closed_in_one_task() -> None:
    source = Source(range(10))
    await later.map(concurrency=3)(source.slow())
    assert len(source.tasks) == 1
    failing = Source([-1, *range(10)])
    with pytest.raises(ValueError, match="-1"):
        await later.map(concurrency=3)(failing.slow())
    assert len(failing.tasks) == 1


@simulated
async def test_a_source_may_call_modules_which_are_steps_of_the_map() -> None:
    async def source() -> AsyncIterator[int]:
        for word in ("a", "bc"):
            yield await length(word)

    with capture() as trace:
        assert await double.map()(source()) == [2, 4]
    ids = [h.step_id for h in trace.runs[0].children]
    assert sorted(ids) == ["Map/length", "Map/length~2", "Map[0]/double", "Map[1]/double"]


# ---------------------------------------------------------------- memory


class Item:
    """Something that can be counted while it lives."""

    living: "weakref.WeakSet[Item]" = weakref.WeakSet()

    def __init__(self) -> None:
        self.living.add(self)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("plain", 100_000), ("async", 20_000)])
async def test_only_what_is_in_flight_and_the_values_are_held(kind: str, count: int) -> None:
    most = [0]

    def plain() -> Iterator[Item]:
        for _ in range(count):
            yield Item()

    async def slow() -> AsyncIterator[Item]:
        for item in plain():
            yield item

    @module
    async def look(item: Item) -> None:
        most[0] = max(most[0], len(Item.living))
        if len(Item.living) % 7 == 3:
            await asyncio.sleep(0)

    with capture() as trace:
        values = await look.map(concurrency=8)(plain() if kind == "plain" else slow())
    assert values == [None] * count
    assert most[0] <= 8 + 2
    assert len(trace.runs[0].children) + trace.runs[0].dropped == count
    assert len(trace.runs[0].children) == 1000
    del values, trace
    gc.collect()
    assert len(Item.living) == 0


# ---------------------------------------------------------------- trace and progress


@simulated
async def test_items_have_paths_and_the_trace_says_how_many_there_were() -> None:
    with capture() as trace:
        await length.map(concurrency=2)(["a", "b"])
        await length.map()(iter(["a"]))
        with pytest.raises(ValueError, match="-1"):
            await later.map()([1, -1])
    first, second, third = trace.runs
    assert [h.step_id for h in first.children] == ["Map[0]/length", "Map[1]/length"]
    assert [h.attributes["mai.branch.index"] for h in first.children] == [0, 1]
    assert (first.kind, dict(first.attributes)) == (
        "map", {"mai.parallel.limit": 2, "mai.parallel.width": 2, "mai.map.items": 2},
    )  # fmt: skip
    assert dict(second.attributes) == {"mai.parallel.limit": 64, "mai.map.items": 1}
    assert third.attributes["mai.map.items"] == 2


@simulated
async def test_progress_tells_of_each_item_that_has_ended() -> None:
    with events() as bus:
        await later.map(progress=True, on_error="collect").with_(name="all")([1, -1])
        await length.map(progress=True)(iter(["a"]))
        await length.map()(["a"])
    assert [*bus.events] == [Progress("all", 1, 1, 2), Progress("all", 1, 2, 2), Progress("Map", 1, 1, None)]


@simulated
async def test_a_map_with_progress_tells_its_handle_while_it_runs_how_much_is_done() -> None:
    told: list[object] = []

    @module
    async def look(n: int) -> None:
        told.append(trace.runs[0].attributes.get("mai.map.items"))

    with capture() as trace:
        await look.map(concurrency=1, progress=True)(range(3))
        await look.map(concurrency=1)([0])
    assert told == [None, 1, 2, 3]


async def test_progress_without_a_started_run_is_nothing() -> None:
    assert await length.map(progress=True)(["a"]) == [1]


# ---------------------------------------------------------------- types and mistakes


@simulated
async def test_types_go_in_and_come_out() -> None:
    mapped = length.map()
    assert mapped.Out == list[int]
    assert length.map(on_error="collect").Out == list[int | Exception]
    assert Map(len).Out == list[Any]
    assert repr(mapped) == "<Map(items: Iterable[str] | AsyncIterable[str], /) -> list[int]>"
    assert mapped.schema()["properties"]["items"] == {"items": {"type": "string"}, "title": "Items", "type": "array"}
    assert mapped.payload(items=["a"]).json() == b'{"items":["a"]}'
    assert mapped.In.model_validate_json('{"items": ["a"]}').items == ["a"]  # type: ignore[attr-defined]


@simulated
async def test_each_item_is_cast_by_the_step() -> None:
    assert await double.map()(["1", 2]) == [2, 4]
    with pytest.raises(CastError, match=r"^Map\[1\]/double: 'n' must be int"):
        await double.map()([1, "x"])


@pytest.mark.parametrize("wrong", [3, None, "text", b"text", bytearray(b"text")])
@simulated
async def test_what_is_no_iterable_of_items_is_refused_when_called(wrong: Any) -> None:
    with pytest.raises(CastError) as caught:
        await length.map().with_(name="all")(wrong)
    what = f"{type(wrong).__name__} {wrong!r} "
    assert str(caught.value).startswith(f"all: a Map takes an iterable of items, sync or async, not {what}(")
    assert (caught.value.step_id, caught.value.where) == ("all", "items")


@simulated
async def test_a_long_text_is_not_repeated_whole_in_its_refusal() -> None:
    with pytest.raises(CastError) as caught:
        await length.map()("x" * 500)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "tp", [int, str, bytes, None, list[list[int]], tuple[int, list[int]], dict[tuple[int, int], str], bool | str]
)
def test_a_step_that_gives_no_iterable_of_items_that_fit_is_refused_when_wired(tp: Any) -> None:
    @module
    async def gives(x: int) -> Any: ...

    gives.forward.__annotations__["return"] = tp
    source = module(gives.forward)
    with pytest.raises(WiringError, match=r"(?s)^cannot connect gives -> Map\n.*Map\(items\) expects Iterable\[int\]"):
        source >> double.map()


@pytest.mark.parametrize(
    "tp",
    [
        list[int], tuple[int, ...], tuple[int, str], set[str], dict[int, list[str]], Iterator[int], AsyncIterator[int],
        Any, list[int] | str, list, range,
    ],
)  # fmt: skip
def test_a_step_that_gives_an_iterable_of_items_that_fit_can_be_wired(tp: Any) -> None:
    async def gives(x: int) -> Any: ...

    gives.__annotations__["return"] = tp
    module(gives) >> double.map()


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2", True, None])
def test_the_concurrency_is_a_number_of_items(concurrency: Any) -> None:
    with refused_value("Map", "concurrency", concurrency):
        length.map(concurrency=concurrency)


@pytest.mark.parametrize(("key", "value"), [("on_error", "stop"), ("on_error", None), ("progress", 1)])
def test_the_other_settings_are_checked_too(key: str, value: Any) -> None:
    with refused_value("Map", key, value):
        length.map(**{key: value})


def test_what_cannot_be_wired_is_refused() -> None:
    @module
    async def add(a: int, b: int) -> int:
        return a + b

    with refused(WiringError, "Map: 3 is neither a Module nor a function"):
        Map(3)  # type: ignore[call-overload]
    with pytest.raises(WiringError, match=r"^Map: add needs 2 values \(a, b\)"):
        Map(add)
    with pytest.raises(TypeError, match="limit"):
        length.map(limit=3)  # type: ignore[call-overload]
    assert issubclass(ConfigError, TypeError)
    assert add.with_(b=1).map().run([1]) == [2]


@simulated
async def test_isolated_items_are_copies() -> None:
    class Change(Module):
        async def forward(self, values: list[int]) -> list[int]:
            values.append(0)
            return values

    mine = [[1], [2]]
    assert await Change().with_(isolate=True).map()(x for x in mine) == [[1, 0], [2, 0]]
    assert await Change().map().with_(isolate=True)(mine) == [[1, 0], [2, 0]]
    assert mine == [[1], [2]]
    assert await Change().map()(mine) == mine == [[1, 0], [2, 0]]


@simulated
async def test_a_generator_that_was_read_already_is_refused_and_the_rest_of_one_is_mapped() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1

    used, tried = (x for x in [1]), source()
    for items in (used, tried):
        assert await double.map()(items) == [2]
        with pytest.raises(ConfigError, match="used up by an earlier call or attempt"):
            await double.map()(items)
    rest = (x for x in [1, 2])
    next(rest)
    assert await double.map()(rest) == [4]


def test_an_unknown_setting_of_a_map_is_refused_with_the_near_miss() -> None:
    with refused(ConfigError, "Map has no setting 'concurency'; did you mean 'concurrency'?"):
        double.map(concurency=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUnknownMemberType]


@simulated
async def test_an_iterator_cannot_be_mapped_by_a_second_attempt() -> None:
    tries: list[int] = []

    @module
    async def fail_once(n: int) -> int:
        tries.append(n)
        if len(tries) == 1:
            raise ValueError("once")
        return n

    retried = fail_once.map().with_(retry=Retry(2, base=1.0))
    assert await retried([1, 2]) == [1, 2]
    tries.clear()
    with pytest.raises(
        ConfigError, match=r"^Map: an iterator is used up by an earlier call or attempt; retry the step"
    ):
        await retried(n for n in (1, 2))
    tries.clear()
    assert await fail_once.with_(retry=Retry(2, base=1.0)).map()(n for n in (1, 2)) == [1, 2]
