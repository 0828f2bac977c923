"""Streams of random pipelines that fail, are cancelled, and are left at any moment: each of them ends."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mai import Conditional, Module, Parallel, Sequential
from mai.types import Chunk, Failed, Finished, Started

from .simulation import simulate, unfinished

MOST_MOMENTS = 40
SEEDS = st.integers(0, 2**16)


@dataclass(frozen=True)
class Gen:
    """A generator: a pause before each chunk, and how it ends; a plain one does not pause."""

    pauses: tuple[float, ...]
    ending: str  # "return", "fail", "swallow"
    colour: str  # "async", "plain"
    timeout: float | None


@dataclass(frozen=True)
class Tree:
    """A composite."""

    kind: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Leaves:
    """A reader: how many items it takes before it goes, and what it does meanwhile."""

    items: int | None
    pause: float
    how: str  # "break", "close", "drop"


PAUSES = st.sampled_from([0.0, 0.0, 0.0, 1.0])
GENS = st.builds(
    Gen,
    st.lists(PAUSES, max_size=30).map(tuple),
    st.sampled_from(["return", "return", "return", "fail", "swallow"]),
    st.sampled_from(["async", "async", "plain"]),
    st.sampled_from([None, None, 0.5, 2.5]),
)
TREES = st.recursive(
    GENS,
    lambda parts: st.builds(
        Tree, st.sampled_from(["seq", "par", "if"]), st.lists(parts, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)
READERS = st.lists(
    st.builds(
        Leaves,
        st.none() | st.integers(0, 30),
        st.sampled_from([0.0, 0.0, 1.0]),
        st.sampled_from(["break", "close", "drop"]),
    ),
    max_size=3,
)


@dataclass
class World:
    """What the generators of one run did."""

    opened: int = 0
    closed: int = 0


class Stream(Module):
    """The generator that a `Gen` says."""

    def __init__(self, gen: Gen, world: World) -> None:
        self.gen, self.world = gen, world

    async def forward(self, x: Any) -> AsyncIterator[int]:
        self.world.opened += 1
        try:
            for i, pause in enumerate(self.gen.pauses):
                try:
                    await asyncio.sleep(pause)
                except asyncio.CancelledError:
                    if self.gen.ending != "swallow":
                        raise
                yield i
            if self.gen.ending == "fail":
                raise KeyError("stream")
        finally:
            try:
                await asyncio.sleep(0.25)
            finally:
                self.world.closed += 1


class Plain(Module):
    """The same in a thread. A simulated thread cannot wait for a reader, so it is used only where there is none."""

    def __init__(self, gen: Gen, world: World) -> None:
        self.gen, self.world = gen, world

    def forward(self, x: Any) -> Iterator[int]:
        self.world.opened += 1
        try:
            yield from range(len(self.gen.pauses))
            if self.gen.ending == "fail":
                raise KeyError("stream")
        finally:
            self.world.closed += 1


def build(tree: Any, world: World, *, threads: bool) -> Module[Any, Any]:
    """Return the pipeline of *tree*."""
    if isinstance(tree, Gen):
        cls = Plain if tree.colour == "plain" and threads else Stream
        return cls(tree, world).with_(timeout=tree.timeout)
    parts = [build(part, world, threads=threads) for part in tree.parts]
    if tree.kind == "par":
        return Parallel(*parts)
    if tree.kind == "if":
        return Conditional(lambda x: True, then=parts[0])
    return Sequential(*parts)


async def read(handle: Any, leaves: Leaves, world: World, ended: list[list[Any]]) -> None:
    """Read the events of a run and go when it is time to."""
    reader, got = aiter(handle), list[Any]()
    async for event in reader:
        got.append(event)
        if leaves.items is not None and len(got) > leaves.items:
            if leaves.how == "close":
                await reader.aclose()
            elif leaves.how == "drop":
                del reader
            return
        await asyncio.sleep(leaves.pause)
    ended.append(got)


def run(tree: Any, leavers: list[Leaves], seed: int, cancel_at: int | None) -> int:
    """Run the pipeline with its readers, cancel it before a step of the loop, and check the law; return the steps."""
    world, handles, whole = World(), list[Any](), list[list[Any]]()

    async def main() -> Any:
        h = build(tree, world, threads=not leavers).start(1)
        handles.append(h)
        readers = [asyncio.create_task(read(h, leaves, world, whole)) for leaves in leavers]
        try:
            value = await h
        except (KeyError, TimeoutError, asyncio.CancelledError, ExceptionGroup) as error:
            value = error
        await asyncio.gather(*readers)
        assert unfinished() == 1, "a task remains"
        assert world.opened == world.closed, "a generator remains"
        late = [event async for event in h]
        return value, late

    out = simulate(main, seed)
    if cancel_at is not None:
        world.opened = world.closed = 0
        handles.clear()
        whole.clear()
        out = simulate_with_cancel(main, seed, cancel_at, handles)
    assert out.error is None, out.error
    value, late = out.value
    check(value, late, handles[0])
    for events in whole:
        assert events == late
    return out.steps


def simulate_with_cancel(main: Any, seed: int, moment: int, handles: list[Any]) -> Any:
    """Run ``main()``, cancelling the started run, not its caller, before step *moment* of the loop."""

    async def around() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.hooks[moment] = lambda: [handle.cancel() for handle in handles]
        return await main()

    return simulate(around, seed)


def check(value: Any, events: list[Any], handle: Any) -> None:
    """Check what one run told: each call begins and ends once, and its chunks joined give its value."""
    begun = [event.step_id for event in events if isinstance(event, Started)]
    over = [event.step_id for event in events if isinstance(event, Finished | Failed)]
    assert sorted(begun) == sorted(over)
    for h in handle.walk():
        chunks = [event for event in events if isinstance(event, Chunk) and event.step_id == h.step_id]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        if h.kind == "module" and h.ok:
            assert h.items == len(chunks)
            if h is handle:
                assert value == [chunk.value for chunk in chunks]
    if events:
        last = events[-1]
        assert last.step_id == handle.step_id
        assert isinstance(last, Finished) is handle.ok
    assert isinstance(value, BaseException) is not handle.ok


def gen(*pauses: float, ending: str = "return", timeout: float | None = None) -> Gen:
    return Gen(pauses, ending, "async", timeout)


@settings(max_examples=settings.default.max_examples)
@example(gen(*[0.0] * 30), [Leaves(3, 0.0, "drop"), Leaves(None, 1.0, "break")], 0)
@example(Tree("par", (gen(*[0.0] * 30, ending="fail"), gen(1.0, 1.0))), [Leaves(None, 1.0, "break")], 0)
@given(TREES, READERS, SEEDS)
def test_every_stream_ends_whatever_happens_and_tells_the_truth(tree: Any, leavers: list[Leaves], seed: int) -> None:
    steps = run(tree, leavers, seed, None)
    for moment in range(1, steps + 1, 1 + steps // MOST_MOMENTS):
        run(tree, leavers, seed, moment)
    gc.collect()
