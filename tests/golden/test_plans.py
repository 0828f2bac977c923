"""Plans that were written once are what the same composites give today, and have the same fingerprint.

A plan that is to change is written again by ``python -c "from tests.golden.test_plans import write; write()"``.
"""

import asyncio
import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from mai import (
    BlockingDelay,
    Conditional,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Race,
    Switch,
    WorkflowPlan,
    graph,
    module,
)

FOLDER = Path(__file__).parent / "plans"


class Colour(Enum):
    RED = 1
    BLUE = 2


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def whisper(text: str, mark: str = ".") -> str:
    return text.lower() + mark


@module
async def length(text: str) -> int:
    return len(text)


@module
async def colour(text: str) -> Colour:
    return Colour.RED


@module
async def pause(text: str) -> str:
    await asyncio.sleep(0)
    return text


def first(text: str) -> str:
    return text[:1]


def is_long(text: str) -> bool:
    return len(text) > 8


@graph(on_error="collect", limit=2)
async def nested(text: str, k: int = 3) -> dict[str, Any]:
    loud = await Switch(colour, {Colour.RED: shout, Colour.BLUE: whisper})(text)
    return {"loud": loud, "size": await length(loud), "k": k}


PLANS: dict[str, Module[Any, Any]] = {
    "conditional": Conditional(is_long, then=shout, otherwise=whisper.with_(mark="!")),
    "switch": Switch(first, {"!": shout, "?": whisper, 3: length}, otherwise=pause),
    "switch-by-module": Switch(colour, {Colour.RED: shout, Colour.BLUE: whisper}),
    "loop": Loop(whisper, until=is_long, max_iters=4),
    "map": Map(length, concurrency=5, on_error="collect"),
    "race": Race(shout, whisper, shout),
    "delays": shout >> BlockingDelay(0.5) >> NonBlockingDelay(60) >> whisper,
    "settings": shout.with_(
        timeout=2.0, retry=3, fallback=whisper, version="2", tags=("a",), isolate=True, total_timeout=9.0
    ),
    "graph": nested,
}


def written(made: Module[Any, Any]) -> str:
    plan = made.plan()
    return json.dumps({"fingerprint": plan.fingerprint, "plan": plan.model_dump(mode="json")}, indent=1) + "\n"


def write() -> None:
    """Write all plans as they are today."""
    for name, made in PLANS.items():
        (FOLDER / f"{name}.json").write_text(written(made), encoding="utf-8")


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_what_it_was(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    made, known = PLANS[name], json.loads(text)
    old, new = WorkflowPlan.model_validate(known["plan"]), made.plan()
    assert old.diff(new) == []
    assert old == new
    assert old.fingerprint == new.fingerprint == known["fingerprint"]
    assert "".join(made.plan_json()) == new.model_dump_json()


def test_every_plan_that_was_written_is_looked_at() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*PLANS}


def swapped(made: Any) -> list[tuple[Module[Any, Any], Module[Any, Any]]]:
    return [
        (Switch(first, {"a": shout, "b": whisper}), Switch(first, {"b": shout, "a": whisper})),
        (Switch(first, {1: shout, 2: whisper}), Switch(first, {1: shout, 3: whisper})),
        (Switch(first, {"1": shout}), Switch(first, {1: shout})),
        (Switch(first, {b"1": shout}), Switch(first, {b"2": shout})),
        (Switch(first, {(1, "a"): shout}), Switch(first, {(1, "b"): shout})),
        (Switch(colour, {Colour.RED: shout}), Switch(colour, {Colour.BLUE: shout})),
        (Switch(first, {1: shout, 2: pause}), Switch(first, {1: shout}, otherwise=pause)),
        (Conditional(is_long, then=shout, otherwise=pause), Conditional(is_long, then=pause, otherwise=shout)),
        (Conditional(is_long, then=shout), Conditional(first, then=shout)),
        (Loop(shout, max_iters=3), Loop(shout, max_iters=4)),
        (Loop(shout, max_iters=3), Loop(shout, until=is_long, max_iters=3)),
        (Race(shout, pause), Race(pause, shout)),
        (shout.with_(fallback=pause), shout.with_(fallback=whisper)),
        (whisper.with_(mark="!"), whisper.with_(mark="?")),
        (made({"a": shout, "b": pause}), made({"b": shout, "a": pause})),
        (made({"a": shout}), made({"a": shout}).with_(on_error="collect")),
    ]


def packed(parts: dict[str, Any]) -> Any:
    g = Graph("g")
    text = g.input("text", str)
    return g.output({key: g.add(step, text) for key, step in parts.items()})


@pytest.mark.parametrize(("one", "other"), swapped(packed))
def test_a_setting_that_changes_what_comes_out_changes_the_fingerprint_and_is_told(one: Any, other: Any) -> None:
    assert one.plan().fingerprint != other.plan().fingerprint
    assert one.plan().diff(other.plan())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (shout, shout.with_(timeout=2, total_timeout=3, retry=2, tags=("a",))),
        (Map(shout), Map(shout, concurrency=2)),
        (packed({"a": shout}), packed({"a": shout}).with_(limit=2)),
        (BlockingDelay(1) >> shout, BlockingDelay(2) >> shout),
    ],
)
def test_how_fast_how_often_and_how_long_does_not_change_it(one: Any, other: Any) -> None:
    assert one.plan() != other.plan()
    assert one.plan().fingerprint == other.plan().fingerprint
    assert one.plan().diff(other.plan()) == []


def test_the_names_of_variables_do_not_change_it() -> None:
    @graph
    async def g(text: str) -> int:
        loud = await shout(text)  # in a variable of one name
        return await length(loud)

    one = g

    @graph
    async def g(text: str) -> int:
        return await length(await shout(text))

    assert one.plan() == g.plan()
