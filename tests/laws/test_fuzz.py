"""Data of others gives the errors that are declared, and no others; `tests.fuzz` says what is read, and how."""

import json
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import Graph, WorkflowPlan
from tests import fuzz
from tests.fuzz import MODULES, TARGETS, Job, Target, damaged, deep, fuzzed, plans, tried

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


STORED = [pytest.param(name, marks=pytest.mark.slow) for name in ("trace", "journal", "records", "command")]


@pytest.mark.parametrize("name", ["payload", "plan", *STORED])
@given(st.randoms(use_true_random=False), st.data())
def test_damaged_data_is_refused_in_the_declared_way(name: str, luck: random.Random, data: st.DataObject) -> None:
    target = TARGETS[name]
    example = data.draw(st.sampled_from(target.examples()) | st.binary(max_size=50))
    assert tried(target, damaged(example, luck)) == ""


@pytest.mark.parametrize("name", ["payload", "plan", "trace", "journal", "records"])
@pytest.mark.parametrize("data", [deep(100_000), b"", b"\xff", b'{"a":' * 10_000, b"9" * 10_000, b'"\\ud800"'])
def test_what_is_odd_as_a_whole_is_refused_too(name: str, data: bytes) -> None:
    assert tried(TARGETS[name], data) == ""


@pytest.mark.parametrize("name", ["payload", "trace", "journal", "records", "command"])
def test_an_example_is_read_as_it_is(name: str) -> None:
    for example in TARGETS[name].examples():
        TARGETS[name].read(example)


def test_the_search_sees_what_breaks_the_rule() -> None:
    def read(data: bytes) -> None:
        raise KeyError(data)

    target = TARGETS["payload"]
    assert tried(type(target)(target.examples, read, ()), b"1").startswith("builtins.KeyError")


def test_a_warning_about_a_plan_is_no_error_even_where_warnings_are() -> None:
    plan = json.loads(plans()[0])
    plan["output"], plan["gives"] = "shout", plan["nodes"][0]["gives"]  # so nobody uses what the others give
    with pytest.warns(RuntimeWarning, match="nobody uses"):
        Graph.from_plan(WorkflowPlan.model_validate(plan), MODULES).run("x")
    assert tried(TARGETS["plan"], json.dumps(plan).encode()) == ""


def test_the_same_seed_gives_the_same_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setitem(TARGETS, "seen", Target(TARGETS["payload"].examples, seen.append, ()))
    for number in (0, 1, 0):
        assert fuzzed(Job("seen", 7, number, 20)).problems == []
    assert seen[:20] == seen[40:] != seen[20:40]


def test_an_input_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HANG", 0.02)
    target = Target(tuple, lambda _: threading.Event().wait(), ())
    assert tried(target, b"1").startswith("it hangs")


def test_what_took_long_because_others_had_the_processor_was_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "WAITS", 0.02)
    pauses = iter((0.03, 0.03, 0.03, 0.0))
    assert tried(Target(tuple, lambda _: threading.Event().wait(next(pauses)), ()), b"1") == ""
    assert tried(Target(tuple, lambda _: threading.Event().wait(0.03), ()), b"1").endswith("it worked 0.0 s")


def test_what_takes_long_each_time_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT", 0.0)
    assert tried(TARGETS["payload"], b"1").startswith("it took")
