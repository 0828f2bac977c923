"""The figures that follow from a trace: against references, and for traces as calls leave them."""

import asyncio
import itertools
import threading
from typing import Any

import pytest
from hypothesis import given

from mai import BlockingDelay, Graph, LocalEngine, Parallel, TraceHandle, capture, module
from mai.core.clock import clock
from mai.views.figures import latest
from tests.support import simulated
from tests.views.handles import call, handle, timed


def names(path: list[TraceHandle[Any]]) -> list[str]:
    return [one.name for one in path]


# ---------------------------------------------------------------- laws


def own_nanoseconds(h: TraceHandle[Any]) -> int:
    """The reference: count the nanoseconds in which nothing inside ran."""
    assert h.start_ns is not None
    assert h.end_ns is not None
    inside = [(c.start_ns, c.end_ns) for c in h.children]
    return sum(
        not any(a <= at < b for a, b in inside if a is not None and b is not None) for at in range(h.start_ns, h.end_ns)
    )


def last_first(h: TraceHandle[Any]) -> list[TraceHandle[Any]]:
    """The reference: of all that had ended when the later one began, the one that ended last, by plain recursion."""
    until, found = h.end_ns, list[TraceHandle[Any]]()
    left = list(h.children)
    while fit := [c for c in left if c.end_ns is not None and until is not None and c.end_ns <= until]:
        best = max(fit, key=lambda c: (c.end_ns, c.start_ns, h.children.index(c)))
        found.insert(0, best)
        left.remove(best)
        until = best.start_ns
    return [h, *(one for c in found for one in last_first(c))]


@given(timed())
def test_walk_find_self_time_and_critical_path_are_those_of_the_references(root: Any) -> None:
    h = handle(root)

    def below(one: TraceHandle[Any]) -> list[TraceHandle[Any]]:
        return [one, *(inner for c in one.children for inner in below(c))]

    assert list(h.walk()) == below(h)
    assert h.find("step", outcome="ok") == below(h)
    assert h.find("other") == []
    assert [round((one.self_time or 0) * 1e9) for one in h.walk()] == [own_nanoseconds(one) for one in h.walk()]
    assert h.critical_path() == last_first(h)


@given(timed())
def test_the_times_on_the_critical_path_add_up_to_the_whole(root: Any) -> None:
    h = handle(root)
    path = h.critical_path()
    own = 0
    for one in path:
        spans = [(c.start_ns, c.end_ns) for c in path if c.parent is one]
        assert all(a is not None and b is not None and a <= b for a, b in spans)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))  # type: ignore[operator]
        own += (one.end_ns or 0) - (one.start_ns or 0) - sum(b - a for a, b in spans)  # type: ignore[operator]
    assert own == (h.end_ns or 0) - (h.start_ns or 0)
    assert sum(one.self_time or 0 for one in path) <= (h.duration or 0) + 1e-12


@given(timed())
def test_without_anything_at_the_same_time_the_own_times_add_up_to_the_whole(root: Any) -> None:
    def in_a_row(one: Any, begin: float) -> Any:
        """Let the calls inside come one after the other."""
        inside, at = [], begin
        for inner in one["inside"]:
            inside.append(in_a_row(inner, at))
            at = inside[-1]["end_ns"] / 1e6
        return call(one["name"], begin, at + 1e-6, *inside)

    h = handle(in_a_row(root, 0.0))
    assert sum(one.self_time or 0 for one in h.walk()) == pytest.approx(h.duration)
    assert set(map(id, h.critical_path())) == set(map(id, h.walk()))


# ---------------------------------------------------------------- examples


def test_the_critical_path_goes_back_from_the_end() -> None:
    slow = call("slow", 10, 60, call("a", 10, 30), call("b", 30, 60))
    root = call("root", 0, 100, call("first", 0, 10), call("quick", 10, 20), slow, call("last", 60, 95))
    assert names(handle(root).critical_path()) == ["root", "first", "slow", "a", "b", "last"]
    assert names(handle(root).children[2].critical_path()) == ["slow", "a", "b"]


def test_work_that_outlives_the_call_is_not_on_its_critical_path() -> None:
    root = call("root", 0, 10, call("detached", 1, 50), call("step", 2, 9))
    assert names(handle(root).critical_path()) == ["root", "step"]
    assert handle(root).self_time == pytest.approx(0.001)


def test_calls_that_took_no_time_are_on_the_path_in_their_order() -> None:
    root = call("root", 0, 5, call("a", 0, 0), call("b", 0, 0), call("c", 0, 5), call("d", 5, 5))
    assert names(handle(root).critical_path()) == ["root", "a", "b", "c", "d"]


def test_a_running_call_has_a_critical_path_up_to_now_and_no_own_time() -> None:
    running = call("waits", 20, None, outcome="running")
    root = handle(call("root", 0, None, call("done", 0, 20), running, call("aside", 0, 30), outcome="running"))
    assert names(root.critical_path()) == ["root", "done", "waits"]
    assert (root.self_time, latest(root), latest(root.children[0])) == (None, 30_000_000, 20_000_000)


def test_a_call_that_still_runs_counts_as_running_until_the_end_of_the_one_around() -> None:
    root = call("root", 0, 10, call("detached", 4, None, outcome="running"))
    assert handle(root).self_time == pytest.approx(0.004)
    assert names(handle(root).critical_path()) == ["root"]


def test_where_no_times_are_known_the_path_is_the_call_itself() -> None:
    root = handle(call("root", None, None, call("inner", None, None, outcome="error"), outcome="error"))
    assert names(root.critical_path()) == ["root"]
    assert (root.self_time, root.queue_time, latest(root)) == (None, None, None)


def test_the_own_time_is_not_told_where_calls_inside_were_not_kept() -> None:
    assert handle(call("root", 0, 10, call("a", 0, 5), dropped=1)).self_time is None


def test_a_chain_of_ten_thousand_calls_has_a_critical_path() -> None:
    root = call("0", 0, 1)
    for i in range(10_000):
        root = call(str(i + 1), 0, 1, root)
    assert len(handle(root).critical_path()) == 10_001


def test_a_total_is_over_the_whole_tree() -> None:
    usage = {"gen_ai.usage.input_tokens": 20, "cost": 0.5, "yes": True, "text": "9"}
    root = call(
        "root", 0, 9, call("a", 0, 4, attributes=usage), call("b", 4, 9, attributes=usage, input_size=7, dropped=3)
    )
    h = handle(root)
    assert h.total("gen_ai.usage.input_tokens") == 40
    assert isinstance(h.total("gen_ai.usage.input_tokens"), int)
    assert [h.total(key) for key in ("cost", "yes", "text", "input_size", "dropped")] == [1.0, 0, 0, 7, 3]
    assert h.total("self_time") == pytest.approx(0.004)  # of b it is not known


# ---------------------------------------------------------------- the time that a call waits for its turn


@simulated
async def test_a_branch_under_a_limit_waits_from_the_beginning_of_its_parallel() -> None:
    wait = BlockingDelay(2)
    with capture() as trace:
        await Parallel(wait, wait, wait, wait, limit=2)("x")
        await Parallel(wait, wait, wait)("x")
        await Parallel(a=wait, b=wait, limit=1).with_(retry=2)("x")
        await wait.map(concurrency=1)(["x", "y"])
        await wait.map(concurrency=1)(iter(["x", "y"]))
    limited, free, retried, mapped, endless = trace.runs
    assert [c.queue_time for c in limited.children] == pytest.approx([0, 0, 2, 2])
    assert [c.queue_time for c in free.children] == [0, 0, 0]
    assert [c.queue_time for c in retried.children[0].children] == pytest.approx([0, 2])
    assert [c.queue_time for c in mapped.children] == pytest.approx([0, 2])
    assert [c.queue_time for c in endless.children] == [0, 0]  # an item is ready when it is taken
    assert limited.queue_time == 0


@simulated
async def test_when_the_nodes_of_a_graph_with_a_limit_were_ready_is_not_known() -> None:
    @module
    async def shout(text: str) -> str:
        return text.upper()

    for limit, wanted in ((1, None), (None, 0)):
        g = Graph("g", limit=limit)
        text = g.input("text", str)
        made = g.output((g.add(shout, text), g.add(shout, text)))
        with capture() as trace:
            await made("x")
        assert {c.queue_time for c in trace.runs[0].children} == {wanted}


def test_a_plain_step_waits_for_a_worker_thread() -> None:
    times, both = iter(range(0, 10**9, 1000)), threading.Event()

    @module
    def step(text: str) -> str:
        assert both.wait(10)
        for _ in range(100):
            clock.ticks()
        return text

    async def main() -> list[TraceHandle[Any]]:
        async with LocalEngine(max_threads=1):
            with capture() as trace:
                steps = asyncio.gather(step("a"), step("b"))
                await asyncio.sleep(0)  # both are handed over
                both.set()
                await steps
        return trace.runs

    before = dict(vars(clock))
    vars(clock).update(ticks=lambda: next(times))
    try:
        first, second = asyncio.run(main())
    finally:
        vars(clock).clear()
        vars(clock).update(before)
    assert first.queue_time is not None
    assert second.queue_time is not None
    assert 0 < first.queue_time < 50e-6
    assert 100e-6 < second.queue_time < (second.duration or 0)
