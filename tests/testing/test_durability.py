"""Durable runs that are interrupted on purpose end as they do undisturbed, or it is seen that they do not."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings

import mai
from mai import LocalEngine, NonBlockingDelay, Parallel, UnknownRun, module
from mai.durable import DurableEngine, MemoryJournal, Tables, transaction
from mai.errors import ConfigError
from mai.testing import DurabilityError, Tree, crash_check, durability, module_trees, replay_check

HOW: Any = {"journal": MemoryJournal, "engine": DurableEngine}


@module
async def add(n: int) -> int:
    await asyncio.sleep(0.01)
    return n + 1


@settings(max_examples=10)
@given(module_trees(max_leaves=4))
def test_a_tree_of_modules_ends_as_it_does_undisturbed(tree: Tree) -> None:
    assert replay_check(tree.build(), 1, seeds=1, **HOW).value == tree.expected(1)


def test_the_process_dies_once_for_each_record_and_twice_for_each_write() -> None:
    flow = Parallel(add, add >> add, NonBlockingDelay(3600) >> add)
    replayed, crashed = replay_check(flow, 1, seeds=2, **HOW), crash_check(flow, 1, seeds=1, **HOW)
    assert replayed.value == crashed.value == (2, 3, 2)
    assert replayed.interruptions == 2 * 5  # four steps and a timer
    assert crashed.interruptions >= 2 * 7


def test_a_failure_has_to_be_the_same_too() -> None:
    @module(flow=True)
    async def fails(n: int) -> int:
        raise ValueError(f"at {await add(n)}")

    seen = crash_check(fails, 1, **HOW)
    assert (seen.value, seen.error) == (None, "ValueError: at 2")


def test_a_flow_that_does_something_else_on_replay_is_seen() -> None:
    @module(flow=True)
    async def draws(n: int) -> int:
        return await add(await add(random.randint(0, 10**9)))

    with pytest.raises(DurabilityError, match=r"With seed 0, .* ended with .*ReplayMismatch.* instead of \('ok', "):
        replay_check(draws, 1, **HOW)
    with pytest.raises(DurabilityError, match=r"after the process died (before|after) append number"):
        crash_check(draws, 1, **HOW)


def test_a_flow_that_never_gets_to_its_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "MOST", 20)
    lives: list[int] = []

    @module(flow=True)
    async def ages(n: int) -> int:
        lives.append(1)
        for i in range(len(lives)):
            await add(i)
        return 0

    with pytest.raises(DurabilityError, match="does not get on: it was taken up 20 times"):
        replay_check(ages, 1, **HOW)


def test_signals_may_be_sent_meanwhile() -> None:
    @module(flow=True)
    async def waits(n: int) -> int:
        return await add(n) + await mai.wait_for("paid", int)

    async def pay(engine: Any) -> None:
        while True:
            with suppress(UnknownRun):
                await engine.signal("checked", "paid", 5, id="paid")
                return
            await asyncio.sleep(0.01)

    assert crash_check(waits, 1, during=pay, **HOW).value == 7
    assert replay_check(waits, 1, during=pay, **HOW).interruptions == 3 * 2


def test_a_transaction_in_a_step_that_begins_again_is_no_new_record() -> None:
    def book(tables: Tables) -> int:
        tables.execute("CREATE TABLE IF NOT EXISTS entry(n INTEGER)")
        tables.execute("INSERT INTO entry VALUES(1)")
        return int(tables.execute("SELECT count(*) FROM entry").fetchone()[0])

    @module
    async def books(n: int) -> int:
        count = await transaction(book)
        await asyncio.sleep(0.01)
        return n + count

    flow: Any = books >> add
    replayed = replay_check(flow, 1, seeds=1, **HOW)
    assert (replayed.value, replayed.interruptions) == (3, 3)  # two steps and what is booked, once
    assert crash_check(flow, 1, **HOW).value == 3


def test_what_fails_meanwhile_is_raised() -> None:
    @module(flow=True)
    async def waits(n: int) -> int:
        return await mai.wait_for("paid", int)

    async def fails(engine: Any) -> None:
        raise KeyError("meanwhile")

    with pytest.raises(KeyError):
        replay_check(waits, 1, during=fails, **HOW)


def test_a_journal_that_cannot_lose_leases_is_refused() -> None:
    with pytest.raises(ConfigError, match="use MemoryJournal"):
        crash_check(add, 1, journal=dict, engine=LocalEngine)  # type: ignore[arg-type]
