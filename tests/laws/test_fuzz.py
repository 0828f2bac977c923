"""Data of others gives the errors that are declared, and no others; `tests.fuzz` says what is read, and how."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fuzz
from tests.fuzz import TARGETS, damaged, deep, tried

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


STORED = [pytest.param(name, marks=pytest.mark.slow) for name in ("trace", "journal", "records")]


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


@pytest.mark.parametrize("name", ["payload", "trace", "journal", "records"])
def test_an_example_is_read_as_it_is(name: str) -> None:
    for example in TARGETS[name].examples():
        TARGETS[name].read(example)


def test_the_search_sees_what_breaks_the_rule() -> None:
    def read(data: bytes) -> None:
        raise KeyError(data)

    target = TARGETS["payload"]
    assert tried(type(target)(target.examples, read, ()), b"1").startswith("builtins.KeyError")


def test_what_takes_long_each_time_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT", 0.0)
    assert tried(TARGETS["payload"], b"1").startswith("it took")
