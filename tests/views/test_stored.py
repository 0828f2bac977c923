"""A trace as data: the round trip, and that foreign data is refused with what is wrong and where."""

import enum
import json
import math
import pickle
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given

from mai import ConfigError, PayloadError, Switch, TraceHandle, capture, module
from mai.types import ErrorInfo, TraceEvent, TraceLink
from mai.views.stored import flattened
from tests.support import refused, simulated
from tests.views.handles import call, handle, stored, traces

MADE = ("parent", "children", "_control", "_zero", "_key", "_n", "_base", "start_ns", "end_ns", "events")


def facts(root: TraceHandle[Any]) -> list[Any]:
    """Return all that the handles of a tree say, times relative to the root."""
    zero = root.start_ns or 0

    def one(h: TraceHandle[Any]) -> Any:
        plain = {f.name: getattr(h, f.name) for f in fields(TraceHandle) if f.name not in MADE}
        times = [None if at is None else at - zero for at in (h.start_ns, h.end_ns)]
        happened = [event._replace(at_ns=event.at_ns - zero) for event in h.events]
        told = h.step_id, h.attempt, h.trace_id, h.span_id, h.traceparent, h.duration, h.self_time, h.queue_time
        return {**plain, "attributes": dict(h.attributes)}, times, happened, told

    return [one(h) for h in root.walk()]


@given(traces())
def test_a_stored_trace_comes_back_as_it_was(data: Any) -> None:
    h = TraceHandle.from_dict(data)
    assert [{**one, "parent": None} for one in h.to_dict()["calls"]] == [
        {**one, "parent": None} for one in data["calls"]
    ]
    again = TraceHandle.from_dict(json.loads(h.to_json()))
    assert facts(again) == facts(h)
    assert h.to_json().isascii()


@module
async def shout(text: str) -> str:
    return text.upper()


@simulated
async def test_the_trace_of_a_run_comes_back_as_it_was() -> None:
    with capture() as trace:
        await (shout.with_(retry=2, tags=("a", "b")) >> shout >> shout & str.title)("x")
    (root,) = trace.runs
    again = TraceHandle.from_dict(json.loads(root.to_json(indent=1)))
    assert facts(again) == facts(root)
    assert again.started_at == root.started_at
    assert [h.step_id for h in again.walk()] == [h.step_id for h in root.walk()]
    assert again.children[0].children[0].attributes["mai.tags"] == ("a", "b")
    assert str(again) == str(root)


def test_a_part_of_a_trace_can_be_stored_alone() -> None:
    root = handle(call("root", 0, 9, call("a", 1, 5, call("b", 2, 4))))
    part = TraceHandle.from_dict(root.children[0].to_dict())
    assert [h.step_id for h in part.walk()] == ["root/a", "root/a/b"]
    assert (part.start_ns, part.started_at, part.duration) == (0, 1000.001, 0.004)


def test_what_stands_in_the_data() -> None:
    one = call("a", 1, 5, outcome="error", error={"type": "E", "module": "m", "message": "no"}, input_size=3)
    assert handle(call("root", 0, 9, one)).to_dict() == {
        "schema": "mai.trace/1",
        "started_at": 1000.0,
        "within": "",
        "calls": [
            {
                "name": "root", "kind": "module", "module": "m.f", "key": "/root", "outcome": "ok",
                "start_ns": 0, "end_ns": 9_000_000,
            },
            {
                "parent": 0, "name": "a", "kind": "module", "module": "m.f", "key": "/a", "outcome": "error",
                "start_ns": 1_000_000, "end_ns": 5_000_000, "input_size": 3,
                "error": {"type": "E", "module": "m", "message": "no"},
            },
        ],
    }  # fmt: skip


def test_events_links_and_ids_come_back() -> None:
    event = {"at_ns": 5, "name": "mai.asked", "attributes": {"n": [1, 2]}}
    link = {"relation": "joined", "trace_id": "1" * 32, "span_id": "2" * 16}
    ids = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331", "trace_flags": 1}
    inner = call("a", 0, 1, span_id="00f067aa0ba902b7", trace_flags=1)
    h = handle(call("root", 0, 9, inner, events=[event], links=[link], **ids))
    assert h.events == (TraceEvent(5, "mai.asked", {"n": (1, 2)}),)
    assert h.links == (TraceLink("joined", "1" * 32, "2" * 16),)
    assert h.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert h.children[0].trace_id == h.trace_id


def test_a_value_that_json_does_not_have_becomes_text() -> None:
    class Case(enum.StrEnum):
        A = "a"

    odd: dict[str, Any] = {
        "nan": math.nan,
        "big": 2**70,
        "enum": Case.A,
        "set": {1},
        "flag": True,
        "long": object,
        "x": (1.5, None),
    }
    h = handle(call("root", 0, 1))
    h.attributes = odd
    stored_facts = json.loads(h.to_json())["calls"][0]["attributes"]
    assert stored_facts == {
        "nan": "nan", "big": hex(2**70), "enum": "a", "set": "{1}", "flag": True, "long": "<class 'object'>",
        "x": [1.5, None],
    }  # fmt: skip


@simulated
async def test_the_key_that_a_switch_chose_is_stored() -> None:
    with capture() as trace:
        await Switch(len, {1: shout, 2: shout})("x")
    again = TraceHandle.from_dict(trace.runs[0].to_dict())
    assert again.attributes["mai.decision"] == 1


def test_a_chain_deeper_than_the_stack_is_stored_and_read() -> None:
    root = call("0", 0, 1)
    for i in range(5_000):
        root = call(str(i + 1), 0, 1, root)
    again = TraceHandle.from_dict(json.loads(handle(root).to_json()))
    assert sum(1 for _ in again.walk()) == 5_001


def test_of_a_trace_that_is_too_large_the_calls_near_the_root_are_kept() -> None:
    branches = [call(f"b{i}", 0, 1, *(call("leaf", 0, 1) for _ in range(3))) for i in range(3)]
    data, kept = flattened(handle(call("root", 0, 1, *branches)), 6)
    assert (
        [one["name"] for one in data["calls"]] == [h.name for h in kept] == ["root", "b0", "leaf", "leaf", "b1", "b2"]
    )
    assert [one.get("dropped") for one in data["calls"]] == [None, 1, None, None, 3, 3]
    assert TraceHandle.from_dict(data).total("dropped") == 7


@simulated
async def test_a_stored_trace_cannot_be_controlled_and_says_so() -> None:
    h = handle(call("root", 0, 1))
    for control in (h.cancel, h.result, h.chunks, lambda: h.answer(1), lambda: h.__await__().send(None)):
        with pytest.raises(ConfigError, match="<TraceHandle root ok, 0 children> was not given by start"):
            control()


def test_a_stored_trace_can_be_pickled_and_its_error_be_read() -> None:
    error = {"type": "E", "module": "m", "message": "no"}
    h = pickle.loads(pickle.dumps(handle(call("root", 0, 1, outcome="error", error=error))))
    assert (h.error, h.ok) == (ErrorInfo("E", "m", "no"), False)


def test_replayed_and_cached_calls_gave_their_value_and_skipped_ones_did_not() -> None:
    outcomes = ("ok", "replayed", "cached", "skipped", "abandoned", "running", "cancelled")
    assert [handle(call("a", 0, 1, outcome=one)).ok for one in outcomes] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


# ---------------------------------------------------------------- foreign data


def whole(**changes: Any) -> dict[str, Any]:
    return {**stored(call("root", 0, 9)), **changes}


def first(**changes: Any) -> dict[str, Any]:
    return stored({**call("root", 0, 9), **changes})


def second(**changes: Any) -> dict[str, Any]:
    data = stored(call("root", 0, 9, call("a", 0, 1)))
    data["calls"][1] = {key: value for key, value in {**data["calls"][1], **changes}.items() if value != "left out"}
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data is [], not an object"),
        (None, "data is None, not an object"),
        ({}, "data.schema is None, not 'mai.trace/1'"),
        (whole(schema="mai.trace/2"), "data.schema is 'mai.trace/2', not 'mai.trace/1'"),
        (whole(calls=[]), "data.calls is [], not a list with at least one call"),
        (whole(calls="x" * 100), f"data.calls is '{'x' * 59}…, not a list of objects"),
        (whole(calls=[1]), "data.calls[0] is 1, not an object"),
        (whole(started_at="now"), "data.started_at is 'now', not a number of seconds"),
        (whole(started_at=math.nan), "data.started_at is nan, not a number of seconds"),
        (whole(started_at=True), "data.started_at is True, not a number of seconds"),
        (whole(within=1), "data.within is 1, not a text"),
        (first(parent=0), "data.calls[0].parent is 0, not None: the first call is the root"),
        (second(parent=1), "data.calls[1].parent is 1, not the index of an earlier call, from 0 to 0"),
        (second(parent=-1), "data.calls[1].parent is -1, not the index of an earlier call, from 0 to 0"),
        (second(parent=True), "data.calls[1].parent is True, not the index of an earlier call, from 0 to 0"),
        (second(parent="left out"), "data.calls[1].parent is None, not the index of an earlier call, from 0 to 0"),
        (first(name=None), "data.calls[0].name is None, not a text"),
        (first(start_ns=0.5), "data.calls[0].start_ns is 0.5, not a whole number"),
        (first(end_ns=2**63), f"data.calls[0].end_ns is {2**63}, not a whole number"),
        (first(items=-1), "data.calls[0].items is -1, not a whole number from 0"),
        (first(attempt=1), "data.calls[0].attempt is 1, not a whole number from 2"),
        (first(error=[1]), "data.calls[0].error[0] is 1, not an object"),
        (first(error={"type": "E"}), "data.calls[0].error.module is None, not a text"),
        (first(attributes=[]), "data.calls[0].attributes is [], not an object"),
        (
            first(attributes={"a": [{}]}),
            "data.calls[0].attributes.a is {}, not a text, a number, a truth value, or a list of them",
        ),
        (first(events=[{"at_ns": 1}]), "data.calls[0].events[0].name is None, not a text"),
        (first(links=[{}]), "data.calls[0].links[0].relation is None, not a text"),
        (
            first(links=[{"relation": "joined", "trace_id": "../etc", "span_id": "2" * 16}]),
            "data.calls[0].links[0].trace_id is '../etc', not 32 hexadecimal digits",
        ),
        (first(span_id="12"), "data.calls[0].trace_id is None, not a text"),
        (
            first(span_id="XY", trace_id="0" * 32),
            "data.calls[0].span_id is 'XY', not 16 hexadecimal digits",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_foreign_data_is_said_and_where(data: object, message: str) -> None:
    with refused(PayloadError, f"Cannot read a trace: {message}") as caught:
        TraceHandle.from_dict(data)
    assert caught.value.expected == "mai.trace/1"


def test_an_outcome_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        PayloadError, match=r"outcome is 'great', not one of running, ok, error, timeout, cancelled, ab"
    ):
        TraceHandle.from_dict(first(outcome="great"))


def test_keys_that_are_not_known_are_passed_over() -> None:
    assert TraceHandle.from_dict(whole(colour="red")).to_dict() == TraceHandle.from_dict(first(colour="red")).to_dict()
