"""Retries, fallbacks, middleware and timeouts at random places, against a reference that plays the tree on paper."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mai import DeadlineExceeded, Module, TraceHandle, capture
from mai.testing import Trial, fixed_chance
from tests.support import recorded_spans

from .policies import (
    CHANCE,
    NEAR,
    Boom,
    Chain,
    Diary,
    Fan,
    Job,
    Mark,
    Tie,
    Wanted,
    around,
    build,
    nodes,
    on_paper,
    trees,
)
from .simulation import loop_of, simulate, unfinished
from .trees import digest

MANY = settings(max_examples=settings.default.max_examples * 4)
SEEDS = st.integers(0, 2**16)
DEPTHS = st.sampled_from([0, 0, 61, 62, 63])  # of calls around: a call at a depth of 64 goes on in a task of its own
MOST_MOMENTS = 6


class Nest(Module):
    """Calls another module."""

    def __init__(self, inner: Module) -> None:
        self.inner = inner

    async def forward(self, x: Any) -> Any:
        return await self.inner(x)


def paper(tree: Any) -> Wanted:
    """Play the tree, unless chance has a say in it."""
    try:
        return on_paper(tree, 3)
    except Tie:
        assume(False)
        raise


def run(
    tree: Any, diary: Diary, seed: int, depth: int = 0, moment: int | None = None
) -> tuple[Trial[Any], list[TraceHandle[Any]]]:
    """Run the tree; see that nothing is left behind when the caller has its turn again."""
    runs: list[TraceHandle[Any]] = []

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        made = build(tree, diary)
        for _ in range(depth):
            made = Nest(made)
        try:
            with capture() as trace, fixed_chance(CHANCE):
                return await made(3)
        finally:
            runs.extend(trace.runs)
            assert unfinished() == 1
            assert task.cancelling() == (moment is not None and loop_of().steps >= moment)
            assert around.get() == 0
            assert Counter(diary.ended) == Counter((ident, attempt) for ident, attempt, _ in diary.begun)
            ends.append((len(diary.begun), len(diary.ended)))

    ends: list[Any] = []

    out = simulate(main, seed, moment)  # which raises Leak if a task or an error is left
    assert diary.wrong == []
    assert ends in ([], [(len(diary.begun), len(diary.ended))])
    if isinstance(out.error, AssertionError):
        raise out.error
    return out, runs


def moments(steps: int, seed: int) -> range:
    """Return some steps of the loop, others for each seed."""
    return range(2 + seed % (1 + steps // MOST_MOMENTS), steps + 1, 1 + steps // MOST_MOMENTS)


def like(real: Mark | None, handle: TraceHandle[Any]) -> None:
    """Check a handle and all below it against the reference."""
    assert real is not None
    assert (handle.name, handle.attempt, handle.outcome) == (real.name, real.attempt, real.outcome)
    assert handle.attributes.get("mai.retry.count") == real.retries
    assert handle.attributes.get("mai.fallback.index") == real.fallback
    assert (handle.error is not None) == (handle.outcome in ("error", "timeout"))
    assert handle.end_ns is not None
    for mark, child in zip(real.children, handle.children, strict=True):
        like(mark, child)


def inner(handle: TraceHandle[Any], depth: int) -> TraceHandle[Any]:
    """Return what is below the nest."""
    for _ in range(depth):
        handle = handle.children[0]
    return handle


@MANY
@given(trees(), SEEDS, DEPTHS)
def test_every_attempt_begins_when_it_should_and_every_call_ends_as_it_should(tree: Any, seed: int, depth: int) -> None:
    wanted, diary = paper(tree), Diary()
    out, runs = run(tree, diary, seed, depth)
    counts = [Counter((ident, attempt) for ident, attempt, _ in one) for one in (diary.begun, wanted.begun)]
    assert counts[0] == counts[1]
    for real, due in zip(sorted(diary.begun), sorted(wanted.begun), strict=True):
        assert real == (*due[:2], pytest.approx(due[2], abs=NEAR))
    assert out.elapsed == pytest.approx(wanted.end, abs=NEAR)
    like(wanted.root, inner(runs[0], depth))
    if wanted.broken is None:
        assert out.error is None
        assert digest(out.value) == digest(wanted.value)
        return
    error: Any = out.error
    assert isinstance(error, DeadlineExceeded if wanted.broken.kind == "timeout" else Boom)
    where = f"s{wanted.broken.ident}"
    (note,) = error.__notes__
    assert note.startswith("mai: in ")
    assert note.split(" ")[2].rsplit("/", 1)[-1].split("~")[0] == where
    assert error.__mai_trace__ is runs[0]
    said = [handle for handle in runs[0].walk() if handle.name == where and not handle.ok and handle.error]
    assert any(handle.error.type == type(error).__qualname__ for handle in said if handle.error)
    if isinstance(error, Boom):
        assert any(error is boom and ident == wanted.broken.ident for ident, boom in diary.booms)


@MANY
@given(trees(), SEEDS)
def test_the_span_tree_is_the_handle_tree(tree: Any, seed: int) -> None:
    paper(tree)
    with recorded_spans() as exporter:
        _, runs = run(tree, Diary(), seed)
        spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context}
        handles = list(runs[0].walk())
        assert len(spans) == len(exporter.get_finished_spans()) == len(handles)
        exceptions: Counter[str] = Counter()
        for handle in handles:
            span = spans[int(handle.span_id or "0", 16)]
            above = None if handle.parent is None else handle.parent.span_id
            assert span.name == handle.name
            assert (span.parent and f"{span.parent.span_id:016x}") == above
            assert span.status.is_ok == (handle.error is None)
            assert (span.attributes or {}).get("mai.outcome", "ok") == handle.outcome
            exceptions.update(event.name for event in span.events)
            if handle.error is not None and not any(child.error for child in handle.children):
                assert [event.name for event in span.events] == ["exception"]


@settings(max_examples=settings.default.max_examples)
@given(trees(max_leaves=4), SEEDS, DEPTHS)
def test_a_cancel_at_any_moment_ends_all_attempts_and_nothing_begins_any_more(tree: Any, seed: int, depth: int) -> None:
    wanted = paper(tree)
    steps = run(tree, Diary(), seed, depth)[0].steps
    for moment in moments(steps, seed):
        diary = Diary()
        out, _ = run(tree, diary, seed, depth, moment)
        if out.at is None:
            continue
        assert all(when <= out.at for _, _, when in diary.begun)
        due = Counter((ident, attempt) for ident, attempt, when in wanted.begun if when <= out.at + NEAR)
        assert Counter((ident, attempt) for ident, attempt, _ in diary.begun) <= due
        assert out.elapsed - out.at < NEAR
        if out.at < wanted.end - NEAR:
            assert isinstance(out.error, asyncio.CancelledError)


@settings(max_examples=settings.default.max_examples)
@given(trees(max_leaves=4, stubborn=True), SEEDS, DEPTHS)
def test_a_clean_up_that_fails_does_not_keep_a_cancelled_call_going(tree: Any, seed: int, depth: int) -> None:
    steps = run(tree, Diary(), seed, depth)[0].steps
    for moment in moments(steps, seed):
        diary = Diary()
        out, _ = run(tree, diary, seed, depth, moment)
        if out.at is not None:
            assert all(when <= out.at for _, _, when in diary.begun)
            assert out.elapsed - out.at < NEAR
            assert out.error is not None


def test_the_trees_have_every_part_and_few_are_thrown_away() -> None:
    """A guard for the laws above: a strategy that no longer makes some part would let them pass for nothing."""
    met: Counter[str] = Counter()

    @settings(MANY, derandomize=True)
    @given(trees())
    def look(tree: Any) -> None:
        try:
            wanted = on_paper(tree, 3)
        except Tie:
            met["tie"] += 1
            return
        met["played"] += 1
        met["timeout"] += wanted.broken is not None and wanted.broken.kind == "timeout"
        met["boom"] += wanted.broken is not None and wanted.broken.kind == "boom"
        marks = [wanted.root]
        for mark in marks:
            marks.extend(mark.children)
        met["second attempt"] += any(mark.attempt > 1 for mark in marks)
        met["fallback"] += any(mark.fallback is not None for mark in marks)
        met["cancelled"] += any(mark.outcome == "cancelled" for mark in marks)
        met["success after failure"] += wanted.broken is None and any(mark.outcome != "ok" for mark in marks)
        for node in nodes(tree):
            met.update([type(node).__name__, *node.middleware])
            met["limit"] += isinstance(node, Fan) and node.limit is not None and len(node.branches) > node.limit
            met["swallows"] += isinstance(node, Job) and bool(node.cancelled)
            met["fallback of a chain"] += isinstance(node, Chain) and bool(node.fallback)

    look()
    assert met["tie"] < met["played"] / 2
    parts = "timeout boom second_attempt fallback cancelled success_after_failure limit swallows fallback_of_a_chain"
    parts += " Job Chain Fan pass slow twice answer change guard again"
    assert not [part for part in parts.split() if not met[part.replace("_", " ")]]
