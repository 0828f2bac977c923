"""TraceHandle and capture: what a call leaves behind."""

import asyncio
import gc
import json
import pickle
import types
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from mai import (
    BlockingDelay,
    CastError,
    Conditional,
    Context,
    DeadlineExceeded,
    Graph,
    Module,
    Parallel,
    TraceHandle,
    answers,
    ask,
    capture,
    module,
)  # fmt: skip
from mai.core.events import MAX_TRACE_EVENTS
from mai.core.trace import MAX_CHILDREN
from mai.types import ErrorInfo
from tests.support import loop_of, recorded_spans, simulate, simulated


class Doc(BaseModel):
    text: str


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def search(text: str, k: int = 1) -> list[Doc]:
    return [Doc(text=text)] * k


@module
async def fails(text: str) -> str:
    raise ValueError(f"no {text}")


@module
def measure(text: str) -> int:
    return len(text)


wait = BlockingDelay(2)


# ---------------------------------------------------------------- fields


@simulated
async def test_a_handle_tells_name_kind_class_and_path() -> None:
    class Step(Module):
        async def forward(self, x: str) -> str:
            return await shout(x)

    line = Step().with_(name="first") >> shout
    with capture() as trace:
        await Conditional(bool, then=line & measure)("a")
    (root,) = trace.runs
    assert [(h.name, h.kind, h.step_id) for h in root.walk()] == [
        ("Conditional", "conditional", "Conditional"),
        ("Parallel", "parallel", "Conditional/Parallel"),
        ("Sequential", "sequential", "Conditional/Parallel[0]/Sequential"),
        ("first", "module", "Conditional/Parallel[0]/Sequential/first"),
        ("shout", "module", "Conditional/Parallel[0]/Sequential/first/shout"),
        ("shout", "module", "Conditional/Parallel[0]/Sequential/shout"),
        ("measure", "module", "Conditional/Parallel[1]/measure"),
    ]
    modules = [h.module for h in root.walk()]
    assert modules[0] == "mai.layers.conditional.Conditional"
    assert modules[3].startswith(f"{__name__}.test_a_handle_tells")
    assert modules[3].endswith(".<locals>.Step")
    assert modules[4] == f"{__name__}.shout"


@simulated
async def test_times_are_of_the_clock_and_relative_to_the_root() -> None:
    began = loop_of().time()
    with capture() as trace:
        await (wait >> wait)("x")
    root = trace.runs[0]
    first, second = root.children
    assert root.started_at == pytest.approx(began)
    assert second.started_at == pytest.approx(began + 2)
    assert (root.duration, first.duration, second.duration) == pytest.approx((4, 2, 2))
    assert second.start_ns is not None
    assert first.end_ns is not None
    assert second.start_ns >= first.end_ns


@simulated
async def test_a_running_call_has_a_handle_that_says_so() -> None:
    with capture() as trace:
        task = asyncio.create_task((shout >> wait)("x"))
        await asyncio.sleep(1)
    (root,) = trace.runs
    first, second = root.children
    assert (root.outcome, first.outcome, second.outcome) == ("running", "ok", "running")
    assert (root.duration, root.end_ns, root.ok) == (None, None, False)
    await task
    assert (root.outcome, root.ok, root.duration) == ("ok", True, pytest.approx(2))


@simulated
async def test_outcomes_are_ok_error_timeout_and_cancelled() -> None:
    with capture() as trace:
        await shout("x")
        with pytest.raises(ValueError, match="no x"):
            await fails("x")
        with pytest.raises(TimeoutError):
            await wait.with_(timeout=1)("x")
        task = asyncio.create_task(wait("x"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [run.outcome for run in trace.runs] == ["ok", "error", "timeout", "cancelled"]
    assert [run.duration for run in trace.runs] == pytest.approx([0, 0, 1, 1])
    assert [run.error and run.error.type for run in trace.runs] == [None, "ValueError", "DeadlineExceeded", None]
    assert [run.ok for run in trace.runs] == [True, False, False, False]


@simulated
async def test_an_error_is_kept_as_type_module_and_message_at_every_level_that_it_passes() -> None:
    with capture() as trace, pytest.raises(ValueError, match="no X"):
        await (shout >> fails >> shout)("x")
    root = trace.runs[0]
    assert root.error == root.children[1].error == ErrorInfo("ValueError", "builtins", "no X")
    assert [h.outcome for h in root.walk()] == ["error", "ok", "error"]


@simulated
async def test_what_is_kept_of_an_error_is_its_class_and_its_message() -> None:
    class Local(Exception): ...

    @module
    async def raises(error: Any) -> int:
        raise error

    with capture() as trace:
        for error in (KeyError("x"), Local()):
            with pytest.raises(type(error)):
                await raises(error)
    first, second = (run.error for run in trace.runs)
    assert first == ErrorInfo(type="KeyError", module="builtins", message="'x'")
    assert second is not None
    assert second.type.endswith("<locals>.Local")
    assert (second.module, second.message) == (__name__, "")


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 3),
        ("ä€", 5),
        ("\ud800", 3),
        (b"\x00\x01", 2),
        (12345, 5),
        (-1, 2),
        (True, 4),
        (False, 5),
        (None, 4),
        (1.5, 3),
    ],
)
@simulated
async def test_sizes_of_plain_values_are_exact_and_always_there(value: Any, size: int) -> None:
    @module
    async def same(x):  # type: ignore[no-untyped-def]
        return x

    with capture() as trace:
        await same(value)
    run = trace.runs[0]
    assert (run.input_size, run.output_size, run.items) == (size, size, None)


@simulated
async def test_other_values_have_their_length_unless_sizes_are_asked_for() -> None:
    with capture() as trace:
        await search("x", 3)
        await search("x")
    first, second = trace.runs
    assert (first.input_size, first.output_size, first.items) == (None, None, 3)
    assert (second.input_size, second.output_size, second.items) == (1, None, 1)
    with capture(sizes=True) as trace:
        await (search >> Named())("x")
    run = trace.runs[0]
    assert [(h.input_size, h.output_size) for h in run.walk()] == [(1, 2), (1, 14), (14, 2)]


class Named(Module):
    async def forward(self, docs: list[Doc]) -> str:
        return "ok"


@simulated
async def test_what_cannot_be_measured_has_no_size_and_what_has_no_length_no_items() -> None:
    @module
    async def odd(x):  # type: ignore[no-untyped-def]
        return object()

    with capture(sizes=True) as trace:
        await odd(object())
        await odd(10**5000)
    first, second = trace.runs
    assert (first.input_size, first.output_size, first.items) == (None, None, None)
    assert second.input_size is None


@simulated
async def test_a_length_that_fails_does_not_fail_the_call() -> None:
    class Shy:
        def __len__(self) -> int:
            raise RuntimeError("not telling")

    @module
    async def shy(x: int) -> Shy:
        return Shy()

    with capture() as trace:
        assert isinstance(await shy(1), Shy)
    assert (trace.runs[0].items, trace.runs[0].outcome) == (None, "ok")


@simulated
async def test_measuring_does_not_change_what_is_passed_on() -> None:
    docs: list[Any] = [Doc(text="x")]

    @module
    async def give(x: int) -> list[Doc]:
        return docs

    with capture(sizes=True):
        assert await give(1) is docs


# ---------------------------------------------------------------- capture


@simulated
async def test_capture_collects_the_outermost_calls_inside_the_block_only() -> None:
    await shout("before")
    with capture() as trace:
        assert trace.runs == []
        await (shout >> shout)("a")
        await shout("b")
    await shout("after")
    assert [run.step_id for run in trace.runs] == ["Sequential", "shout"]


@simulated
async def test_captures_may_be_nested_and_each_gets_the_calls_inside_it() -> None:
    with capture() as outer:
        await shout("a")
        with capture() as inner:
            await measure("b")
        await shout("c")
    assert [run.name for run in outer.runs] == ["shout", "measure", "shout"]
    assert [run.name for run in inner.runs] == ["measure"]
    assert inner.runs[0] is outer.runs[1]


@simulated
async def test_capture_inside_a_run_collects_the_calls_made_there() -> None:
    found: list[TraceHandle[Any]] = []

    @module
    async def around(x: str) -> str:
        await shout(x)
        with capture() as trace:
            await (shout >> measure)(x)
            with Context.scope(user="ann"):
                await shout(x)
        found.extend(trace.runs)
        return await shout(x)

    await (around >> shout)("x")
    assert [h.step_id for h in found] == ["Sequential/around/Sequential", "Sequential/around/shout~2"]
    assert [h.step_id for h in found[0].walk()][1:] == [
        "Sequential/around/Sequential/shout",
        "Sequential/around/Sequential/measure",
    ]
    found.clear()
    with capture() as outer:
        await around("x")
    assert [h.step_id for h in outer.runs[0].children] == [
        "around/shout", "around/Sequential", "around/shout~2", "around/shout~3"
    ]  # fmt: skip
    assert [h.step_id for h in found] == ["around/Sequential", "around/shout~2"]
    assert found[0] in outer.runs[0].children


@simulated
async def test_tasks_started_inside_the_block_are_captured_too() -> None:
    with capture() as trace:
        await asyncio.gather(*[shout(str(i)) for i in range(3)])
    assert len(trace.runs) == 3


def test_sync_calls_and_worker_threads_are_captured_too() -> None:
    @module
    def around(text: str) -> str:
        return shout.run(text)

    with capture() as trace:
        assert around.run("a") == "A"
    assert [h.step_id for h in trace.runs[0].walk()] == ["around", "around/shout"]


@simulated
async def test_a_capture_left_in_another_context_does_no_harm() -> None:
    trace = await asyncio.create_task(enter_capture())
    trace.__exit__(None, None, None)
    await shout("x")
    assert trace.runs == []


async def enter_capture() -> Any:
    return capture().__enter__()


@simulated
async def test_a_failing_block_keeps_what_was_captured() -> None:
    with pytest.raises(ValueError, match="no x"), capture() as trace:
        await fails("x")
    assert [run.outcome for run in trace.runs] == ["error"]


# ---------------------------------------------------------------- the tree


@simulated
async def test_find_and_walk_look_through_the_tree() -> None:
    with capture() as trace, pytest.raises(ValueError, match="no"):
        await Parallel(shout >> shout, wait >> str, fails)("x")
    root = trace.runs[0]
    assert [h.step_id for h in root.find("shout")] == ["Parallel[0]/Sequential/shout", "Parallel[0]/Sequential/shout~2"]
    assert root.find(outcome="error") == [root, root.children[2]]
    assert root.find("shout", outcome="error") == []
    assert [h.step_id for h in root.find(kind="sequential", outcome="cancelled")] == ["Parallel[1]/Sequential"]
    assert next(iter(root.walk())) is root
    assert root.find() == list(root.walk())


@simulated
async def test_children_know_their_parent() -> None:
    with capture() as trace:
        await (shout >> shout)("x")
    root = trace.runs[0]
    assert root.parent is None
    assert all(child.parent is root for child in root.children)


@simulated
async def test_a_thousand_children_are_kept_and_the_rest_counted() -> None:
    @module
    async def many(n: int) -> int:
        for i in range(n):
            await shout(str(i))
        return n

    with capture() as trace:
        await many(MAX_CHILDREN + 7)
    root = trace.runs[0]
    assert (len(root.children), root.dropped) == (MAX_CHILDREN, 7)
    assert root.children[-1].step_id == f"many/shout~{MAX_CHILDREN}"


@simulated
async def test_an_unseen_child_beyond_the_thousandth_still_knows_its_path() -> None:
    @module
    async def many(n: int) -> int:
        for i in range(n):
            await shout(str(i))
        await fails("x")
        return n

    with capture(), pytest.raises(ValueError, match="no x") as caught:
        await many(MAX_CHILDREN)
    assert caught.value.__notes__[0].startswith("mai: in many/fails")


@simulated
async def test_a_handle_prints_as_a_tree_and_has_a_short_repr() -> None:
    with capture() as trace:
        await (shout >> measure)("x")
        await shout("y")
    assert repr(trace.runs[0]) == "<TraceHandle Sequential ok, 2 children>"
    assert "measure" in str(trace.runs[0])
    assert str(trace) == "\n".join(map(str, trace.runs))


@simulated
async def test_attributes_tell_branch_decision_delay_and_tags() -> None:
    def long(text: str) -> bool:
        return len(text) > 2

    with capture() as trace:
        await Conditional(long, then=shout & measure.with_(tags=("a", "b")))("abc")
        await Conditional(long, then=shout)("a")
        await Parallel(left=shout)("a")
    root = trace.runs[0]
    assert dict(root.attributes) == {"mai.decision": "then", "mai.decision.predicate": long.__qualname__}
    assert [dict(h.attributes) for h in root.children[0].children] == [
        {"mai.branch.index": 0},
        {"mai.branch.index": 1, "mai.tags": ("a", "b")},
    ]
    assert trace.runs[1].attributes["mai.decision"] == "pass"
    assert dict(trace.runs[2].children[0].attributes) == {"mai.branch.key": "left"}


@simulated
async def test_one_handles_attributes_are_not_anothers() -> None:
    with capture() as trace:
        await (shout >> shout)("x")
    first, second = trace.runs[0].children
    assert first.attributes == second.attributes == {}
    assert list(first.children) == list(second.children) == []


# ---------------------------------------------------------------- failures that nobody observed


def test_a_duration_is_in_seconds_to_the_nanosecond() -> None:
    call = {"name": "a", "kind": "module", "module": "a", "key": "a", "outcome": "ok", "start_ns": 0, "end_ns": 10**9}
    stored = {"schema": "mai.trace/1", "started_at": None, "within": "", "calls": [call]}
    assert TraceHandle.from_dict(stored).duration == 1.0


@simulated
async def test_an_unobserved_failure_carries_the_handles_of_the_calls_that_it_passed() -> None:
    with pytest.raises(ValueError, match="no X") as caught:
        await (shout >> (fails & shout))("x")
    handle = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert [h.step_id for h in handle.walk()] == ["Sequential", "Sequential/Parallel", "Sequential/Parallel[0]/fails"]
    assert {h.outcome for h in handle.walk()} == {"error"}
    assert (handle.duration, handle.started_at) == (None, None)
    assert handle.error == ErrorInfo("ValueError", "builtins", "no X")


@simulated
async def test_a_failure_is_known_by_the_handle_of_the_outermost_call() -> None:
    with capture() as trace, pytest.raises(ValueError, match="no X") as caught:
        await (shout >> fails)("x")
    assert caught.value.__mai_trace__ is trace.runs[0]  # type: ignore[attr-defined]


@simulated
async def test_a_handled_failure_is_not_part_of_a_later_one() -> None:
    @module
    async def tries(text: str) -> str:
        try:
            await fails("first")
        except ValueError:
            pass
        return await fails("second")

    with pytest.raises(ValueError, match="no second") as caught:
        await tries("x")
    handle = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert [h.error.message for h in handle.walk()] == ["no second", "no first", "no second"]
    assert caught.value.__notes__ == ["mai: in tries/fails~2"]


@simulated
async def test_a_step_that_fails_very_often_keeps_only_the_last_thousand_failures() -> None:
    @module
    async def stubborn(n: int) -> int:
        for i in range(n):
            try:
                await fails(str(i))
            except ValueError:
                pass
        raise KeyError("enough")

    with pytest.raises(KeyError) as caught:
        await stubborn(MAX_CHILDREN + 5)
    handle = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert len(handle.children) == MAX_CHILDREN
    assert handle.children[-1].error.message == f"no {MAX_CHILDREN + 4}"


def test_a_finished_handle_keeps_neither_values_nor_tasks_alive() -> None:
    class Big: ...

    class Step(Module):
        async def forward(self, x: Big) -> Big:
            return Big()

    class Fail(Module):
        async def forward(self, x: Big) -> Big:
            raise ValueError("no")

    async def main() -> tuple[list[TraceHandle[Any]], list[Any]]:
        value = Big()
        with capture() as trace:
            result = await (Step() >> Step())(value)
            with pytest.raises(ValueError, match="no"):
                await Fail()(value)
        return trace.runs, [weakref.ref(value), weakref.ref(result)]

    runs, references = simulate(main)
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert [run.outcome for run in runs] == ["ok", "error"]


@simulated
async def test_handles_can_be_pickled() -> None:
    with capture() as trace:
        await (shout >> measure)("x")
    again = pickle.loads(pickle.dumps(trace.runs[0]))
    assert [h.step_id for h in again.walk()] == [h.step_id for h in trace.runs[0].walk()]
    assert again.duration == trace.runs[0].duration
    assert again.children[0].parent is again


@simulated
async def test_a_capture_entered_again_inside_its_own_block_gets_each_call_once() -> None:
    with capture() as first, capture() as second:
        with first, second, first:
            await shout("a")
        await shout("b")
    await shout("c")
    assert [len(trace.runs) for trace in (first, second)] == [2, 2]


@simulated
async def test_a_capture_inside_one_that_measures_all_sizes_sees_them_too() -> None:
    with capture(sizes=True) as outer, capture() as inner:
        await search("x")
    assert outer.runs == inner.runs
    assert outer.runs[0].output_size is not None
    with inner:
        await search("x")
    assert inner.runs[-1].output_size is None


# ---------------------------------------------------------------- events, ids, ends without a value


@simulated
async def test_the_first_chunk_of_a_stream_is_an_event_of_its_call() -> None:
    @module
    async def words(text: str) -> AsyncIterator[str]:
        for word in text.split():
            await asyncio.sleep(2)
            yield word

    @module
    def letters(text: str) -> Iterator[str]:
        yield from text

    @module
    async def silent(text: str) -> AsyncIterator[str]:
        for word in ():
            yield word

    with capture() as trace:
        await words("to be")
        await letters("ab")
        await silent("x")
    first, second, third = trace.runs
    (event,) = first.events
    assert (event.name, dict(event.attributes)) == ("mai.first_chunk", {})
    assert first.start_ns is not None
    assert (event.at_ns - first.start_ns) / 1e9 == pytest.approx(2)
    assert [e.name for e in second.events] == ["mai.first_chunk"]
    assert list(third.events) == []


@simulated
async def test_a_call_keeps_the_first_events_only() -> None:
    @module
    async def curious(n: int) -> int:
        for _ in range(n):
            await ask("?", int)
        return n

    with capture() as trace, answers(lambda question: 1):
        await curious(100)
    assert len(trace.runs[0].events) == MAX_TRACE_EVENTS < 200


@simulated
async def test_a_call_whose_coroutine_is_closed_is_abandoned() -> None:
    with capture() as trace:
        call = (shout >> wait)("to be").__await__()
        next(iter(call))
        call.close()
    root = trace.runs[0]
    assert [(h.name, h.outcome, h.ok) for h in root.walk()] == [
        ("Sequential", "abandoned", False), ("shout", "ok", True), ("BlockingDelay", "abandoned", False),
    ]  # fmt: skip
    assert root.error is None


@simulated
async def test_the_traceparent_is_that_of_the_span() -> None:
    with capture() as trace:
        await shout("x")
        with recorded_spans() as exporter:
            await shout("x")
    without, with_one = trace.runs
    assert without.traceparent is None
    (span,) = exporter.get_finished_spans()
    ids = span.get_span_context()
    assert ids is not None
    assert with_one.traceparent == f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"
    assert with_one.links == ()


@simulated
async def test_a_graph_of_very_many_nodes_leaves_a_bounded_trace() -> None:
    g = Graph("many")
    last = g.input("text", str)
    for _ in range(5_000):
        last = g.add(shout, last)
    many = g.output(last)
    with capture() as trace:
        await many("x")
    root = trace.runs[0]
    assert (len(root.children), root.dropped) == (MAX_CHILDREN, 4_000)
    assert (len(root.to_dict()["calls"]), len(str(root).split("\n"))) == (1001, 1002)
    assert root.self_time is None


def test_handles_hold_no_traceback_and_nothing_of_the_frames_of_a_failure() -> None:
    class Big: ...

    @module
    async def fails_with(big: Big) -> Big:
        local = Big()
        kept.append(weakref.ref(local))
        raise ValueError(f"no {type(local).__name__}")

    async def main() -> list[TraceHandle[Any]]:
        with capture(sizes=True) as trace:
            for step in (fails_with, fails_with.with_(retry=2, timeout=5), fails_with >> (lambda big: big)):
                value = Big()
                kept.append(weakref.ref(value))
                with pytest.raises(ValueError, match="no Big"):
                    await step(value)
            value = None
        return trace.runs

    kept: list[Any] = []
    runs = simulate(main)
    gc.collect()
    assert [reference() for reference in kept] == [None] * 7
    assert [h.outcome for run in runs for h in run.walk()].count("error") == 6
    reached, stack = {id(run) for run in runs}, list[Any](runs)
    while stack:  # nothing that is reached from a handle is a traceback, a frame, a task or a span
        one = stack.pop()
        assert not isinstance(one, BaseException | types.TracebackType | types.FrameType | asyncio.Task)
        for other in gc.get_referents(one):
            if id(other) not in reached and not isinstance(other, type | types.ModuleType | types.FunctionType):
                reached.add(id(other))
                stack.append(other)


# ---------------------------------------------------------------- quick calls


@module
async def same(x: Any) -> Any:
    return x


@given(st.integers() | st.integers(-(10**6), 10**6) | st.integers(0, 70).map(lambda n: 10**n) | st.text())
@example(0)
@example(9)
@example(10)
@example(-1)
@example(10**18 - 1)
@example(2**63 - 1)
@example(2**63)
@example(-(2**63))
@example(True)
@example(None)
@example(1.5)
@example(-1e300)
@example(float("inf"))
@example(float("-inf"))
@example(float("nan"))
@example(False)
def test_the_size_of_a_number_and_of_a_text_is_exact(value: Any) -> None:
    with capture() as trace:
        (same >> same).run(value)
    wanted = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(json.dumps(value))
    for handle in trace.runs[0].walk():
        assert (handle.input_size, handle.output_size) == (wanted, wanted)


@simulated
async def test_what_cannot_be_cast_has_no_size_and_what_was_cast_has_its_own() -> None:
    @module
    async def count(x: int) -> int:
        return x + 1

    for step in (count, count.with_(retry=2)):  # the short body and the whole one
        with capture() as trace:
            assert await step("0009") == 10
            with pytest.raises(CastError):
                await step("nine")
        assert [(h.outcome, h.input_size, h.output_size) for h in trace.runs] == [("ok", 1, 2), ("error", None, None)]


@simulated
async def test_a_quick_call_under_capture_has_all_that_a_handle_has() -> None:
    with capture() as trace:
        await shout("a")
        await shout("b")
    first, second = trace.runs
    for handle in (first, second):
        assert (handle.step_id, handle.outcome, handle.parent, handle.children) == ("shout", "ok", None, ())
        assert handle.started_at is not None
        assert handle.duration is not None
    assert first is not second


@simulated
async def test_captures_inside_one_another_get_the_calls_inside_of_each() -> None:
    with capture() as outer:
        await shout("a")
        with capture() as inner:
            await shout("b")
        await shout("c")
    assert [len(outer.runs), len(inner.runs)] == [3, 1]
    assert inner.runs[0] is outer.runs[1]


@simulated
async def test_a_capture_inside_a_step_gets_its_calls_whether_the_step_is_observed_or_not() -> None:
    caught: list[capture] = []

    @module
    async def outer(x: str) -> str:
        await shout(x)
        with capture() as trace:
            caught.append(trace)
            await shout(x)
            with Context.scope(user="ann"):
                await shout(x)
        return await shout(x)

    await outer("a")
    with capture() as around:
        await outer("a")
    for trace in caught:
        assert [h.step_id for h in trace.runs] == ["outer/shout~2", "outer/shout~3"]
        assert all(h.started_at is not None for h in trace.runs)
    (run,) = around.runs
    assert caught[0].runs[0].parent is None
    assert caught[1].runs[0].parent is run
    assert [h.step_id for h in run.children] == ["outer/shout", "outer/shout~2", "outer/shout~3", "outer/shout~4"]
    assert run.children[1:3] == caught[1].runs


@simulated
async def test_a_failure_inside_a_capture_is_explained_once_and_by_its_innermost_call() -> None:
    @module
    async def outer(x: str) -> str:
        with capture(), Context.scope(user="ann"):
            return await fails(x)

    @module
    async def handles(x: str) -> str:
        with capture():
            try:
                await fails(x)
            except ValueError:
                return await outer(x)
        return x

    for step, path in ((outer, "outer/fails"), (handles, "handles/outer/fails")):
        with pytest.raises(ValueError, match="no a") as error:
            await step("a")
        assert error.value.__notes__[0].startswith(f"mai: in {path}")
        assert len(error.value.__notes__) == 1
        assert error.value.__mai_trace__.step_id == path.split("/")[0]  # type: ignore[attr-defined]


@simulated
async def test_what_a_scope_sets_is_known_in_a_quick_call_and_in_what_it_calls() -> None:
    seen: list[tuple[str, Any]] = []

    @module
    async def look(x: str) -> str:
        context = Context.get()
        seen.append((context.step_id, context.metadata.get("user")))
        return x

    @module
    async def calls(x: str) -> str:
        with Context.scope(user="bob"):
            await look(x)
        return await look(x)

    with Context.scope(user="ann"):
        await look("a")
        await calls("a")
    await look("a")
    assert seen == [("look", "ann"), ("calls/look", "bob"), ("calls/look~2", "ann"), ("look", None)]


@simulated
async def test_a_quick_call_inside_a_scope_with_a_deadline_has_it() -> None:
    with pytest.raises(DeadlineExceeded), Context.scope(timeout=1), capture():
        await wait("a")
