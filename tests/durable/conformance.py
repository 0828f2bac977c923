"""What every durable engine must do. One class; a subclass says with which engine (`Bench`).

The modules write down what their bodies did, so that a test sees what was done again. Times are short and real time or
simulated, as the bench has it.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

import mai
from mai import (
    BlockingDelay,
    Conditional,
    Context,
    DeadlineExceeded,
    Graph,
    Loop,
    Module,
    NonBlockingDelay,
    Parallel,
    Race,
    Retry,
    Switch,
    ask,
    module,
)
from mai.models import Budget, ScriptedModel

__all__ = ["Bench", "Conformance", "Outcome"]


class Bench(Protocol):
    """One engine under test; each bench has a storage of its own."""

    def engine(self, *modules: Any, **settings: Any) -> AbstractAsyncContextManager[Any]:
        """Return a new engine over the storage of this bench, as a new process makes one, which serves *modules*."""
        ...

    async def interrupted(self, m: Any, x: Any, run_id: str, during: Callable[[Any], Awaitable[None]] | None) -> Any:
        """Run ``m(x)`` so that the past is repeated after every step; return what comes of it.

        *during*, if given, is called with each engine that carries the run on, and ends when the run does.
        """
        ...

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``await main()`` in the loop that this engine is tested in."""
        ...


class Boom(Exception):
    """An exception of the user's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Doc(BaseModel):
    """A model."""

    text: str
    tags: set[str] = set()


TICK = float(os.environ.get("CONFORMANCE_TICK", "0.1"))  # seconds in which an engine records a few steps
DONE: list[str] = []  # what the bodies of steps did, in order


def did(what: object) -> None:
    """Write down that a body did something."""
    DONE.append(f"{Context.get().step_id.rpartition('/')[2]} {what}")


@module
async def add(n: int) -> int:
    did(n)
    return n + 1


@module
def double(n: int) -> int:
    did(n)
    return 2 * n


@module
async def slow(n: int) -> int:
    await asyncio.sleep(TICK)
    did(n)
    return n + 100


@module
async def boom(n: int) -> int:
    did(n)
    raise Boom(n)


@module
async def label(doc: Doc) -> Doc:
    did(doc.text)
    return Doc(text=doc.text.upper(), tags=doc.tags | {"loud", "seen", "new"})


@module
async def words(n: int) -> AsyncIterator[str]:
    did(n)
    for i in range(n):
        yield f"w{i} "


@module
async def put_back(n: int) -> None:
    did(n)


@module(flow=True)
async def catching(n: int) -> str:
    try:
        await boom(n)
    except Boom as error:
        return f"caught {error.code} after {await add(n)}"
    return "nothing"


@module(flow=True)
async def many(n: int) -> list[int]:
    return [await add(i) for i in range(n)]


class Approve(Module, flow=True):
    async def forward(self, n: int) -> str:
        before = await add(n)
        ok = await ask(f"Is {before} good?", bool)
        return f"{before} {'yes' if ok else 'no'} {await add(before)}"


@module(flow=True)
async def parcel(n: int) -> str:
    paid = await mai.wait_for("paid", float)
    return f"{n} paid {paid} {await add(n)}"


@module(flow=True)
async def impatient(n: int) -> str:
    try:
        return str(await mai.wait_for("never", int, timeout=2.5 * TICK))
    except DeadlineExceeded:
        return f"gave up {await add(n)}"


MODEL = ScriptedModel("yes", repeat=True)


@module(flow=True)
async def spending(n: int) -> int:
    with Budget(tokens=1000) as budget:
        for _ in range(n):
            await MODEL("go")
            await slow(n)
    return budget.spent_tokens


def graph_of_four() -> Any:
    g = Graph("four")
    n = g.input("n", int)
    left, right = g.add(add, n), g.add(slow, n)
    return g.output((g.add(double, left), g.add(add, right), left))


def flaky(fails: int) -> Any:
    """Return a step that fails the first times that its body runs in this process."""
    tries = Counter[int]()

    @module
    async def shaky(n: int) -> int:
        tries[n] += 1
        did(n)
        if tries[n] <= fails:
            raise ConnectionError(f"try {tries[n]}")
        return n

    return shaky


CASES: dict[str, tuple[Any, Any]] = {
    "a step": (add, 1),
    "models in a budget": (spending, 3),
    "a plain step": (double, 4),
    "a stream": (words, 3),
    "a model with a set": (label, Doc(text="a", tags={"x", "y", "z"})),
    "a sequence": (add >> double >> add, 1),
    "branches": (add & double & slow, 3),
    "named branches": (Parallel(a=add, b=slow >> add), 3),
    "a limit": (Parallel(slow, add, slow >> add, double, limit=2), 3),
    "nested branches": (Parallel(add >> Parallel(slow, add >> slow), Parallel(double, slow) >> len), 2),
    "a failing branch": (Parallel(slow >> add, boom), 2),
    "two failing branches": (Parallel(boom, slow >> boom), 2),
    "collected failures": (Parallel(boom, add, on_error="collect") >> (lambda both: f"{both[0]!r} {both[1]}"), 2),
    "a map": (module(many) >> add.map(concurrency=2) >> sum, 4),
    "a map that fails": (many >> Conditional(lambda n: n == 3, then=boom, otherwise=slow).map() >> sum, 4),
    "a loop": (Loop(add, until=lambda n: n > 4, max_iters=9), 1),
    "branches in a loop": (Loop(Parallel(add, slow) >> max, max_iters=3), 1),
    "an exhausted loop": (Loop(add, until=lambda n: n > 99, max_iters=3), 1),
    "a switch": (Switch(lambda n: n % 2, {0: add, 1: double >> add}), 3),
    "a conditional on a step": (Conditional(module(lambda n: n > 2), then=add, otherwise=double), 3),
    "a race": (Race(slow >> slow, add >> add, slow) >> add, 1),
    "a race of failures": (Race(boom >> add, slow >> boom), 1),
    "a graph": (graph_of_four(), 5),
    "a delay": (add >> BlockingDelay(TICK) >> add, 1),
    "a parked delay": (Parallel(NonBlockingDelay(1.5 * TICK) >> add, slow, add, limit=1), 1),
    "a flow that catches": (catching, 3),
    "a flow of repeats": (many, 3),
    "a flow that fails": (catching >> (lambda text: int(text)), 3),
    "a question without an answer": (impatient, 3),
    "retries of a step": (add >> boom.with_(retry=Retry(3, base=0.001)), 3),
    "retries of a flow": ((add >> boom).with_(retry=Retry(3, base=0.001)), 3),
    "a fallback of a flow": ((add >> boom).with_(fallback=add >> double), 3),
    "a fallback of a step": (add >> boom.with_(fallback=double) >> add, 3),
    "a timeout of a step": (slow.with_(timeout=0.001, fallback=add) >> add, 3),
    "a timeout of a flow": ((add >> slow >> BlockingDelay(9) >> add).with_(timeout=3 * TICK, fallback=add) >> add, 3),
    "an undo": (add.with_(undo=put_back) >> Parallel(double.with_(undo=put_back), slow) >> max >> boom, 3),
}


class Outcome:
    """What came of a run, to be compared."""

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error = value, error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outcome) or type(self.value) is not type(other.value):
            return False
        return plain(self.error) == plain(other.error) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __repr__(self) -> str:
        return f"value {self.value!r}" if self.error is None else f"error {plain(self.error)}"


def plain(error: BaseException | None) -> str:
    """Return an error without the times in it."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}{sorted(map(plain, error.exceptions))}"
    return repr(error)


async def outcome(awaitable: Awaitable[Any]) -> Outcome:
    """Return what comes of *awaitable*."""
    try:
        return Outcome(await awaitable)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the outcome is what is compared)
        return Outcome(error=error)


class Conformance:
    """The suite; ``bench`` is a fixture of the subclass's module."""

    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        DONE.clear()

    @pytest.mark.parametrize("case", CASES)
    def test_a_run_gives_what_it_gives_in_memory(self, bench: Bench, case: str) -> None:
        m, x = CASES[case]

        async def main() -> None:
            wanted = await outcome(m.start(x))
            in_memory = Counter(DONE)
            DONE.clear()
            async with bench.engine() as engine:
                found = await outcome(engine.start(m, x, run_id="one"))
                assert found == wanted, (found, wanted)
                undone = Counter(what for what in DONE if "!undo" in what)
                assert Counter(DONE) - undone == in_memory
                DONE.clear()
                assert await outcome(engine.start(m, x, run_id="one")) == wanted
            assert DONE == []

        bench.run(main)

    @pytest.mark.parametrize("case", CASES)
    def test_a_run_whose_past_is_repeated_after_every_step_gives_the_same(self, bench: Bench, case: str) -> None:
        m, x = CASES[case]

        async def main() -> None:
            async with bench.engine() as engine:
                wanted = await outcome(engine.start(m, x, run_id="straight"))
                records = {one.path: one.output for one in await engine.history("straight") if one.kind != "timer"}
            DONE.clear()
            found = await bench.interrupted(m, x, "repeated", None)
            assert found == wanted, (found, wanted)
            async with bench.engine() as engine:
                again = {one.path: one.output for one in await engine.history("repeated") if one.kind != "timer"}
            assert records.keys() <= again.keys() or "race" in case or "timeout" in case
            assert all(again[path] == records[path] for path in again.keys() & records.keys() if "!" not in path)

        bench.run(main)

    def test_a_signal_that_came_while_nobody_served_a_waiting_run_ends_it_in_a_fresh_process(
        self, bench: Bench
    ) -> None:
        async def main() -> None:
            async with bench.engine() as engine:
                engine.start(parcel, 1, run_id="one")
                await asyncio.sleep(0.1)
            async with bench.engine() as engine:
                assert await engine.signal("one", "paid", 9.5)
            assert DONE == []
            async with bench.engine(parcel) as engine:
                assert await engine.result("one") == "1 paid 9.5 2"

        bench.run(main)

    def test_an_answer_that_does_not_fit_is_put_aside_and_the_next_one_is_taken(self, bench: Bench) -> None:
        async def main() -> None:
            async with bench.engine() as engine:
                engine.start(Approve(), 1, run_id="one")
                await asyncio.sleep(0.1)
            async with bench.engine() as engine:  # which has not the code, so cannot check the answer
                await engine.answer("one", "perhaps")
            async with bench.engine(Approve()) as engine:
                await asyncio.sleep(0.1)
                await engine.answer("one", "yes", question="Approve/ask")
                assert await engine.result("one") == "2 yes 3"
                refused = [one.output for one in await engine.history("one") if "!refused" in one.path]
                assert refused == [b'"perhaps"']
            assert DONE == ["add 1", "add~2 2"]

        bench.run(main)
