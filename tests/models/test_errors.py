import copy
import pickle

import pytest

from mai import MaiError, models
from mai.models import BudgetExhausted, InvalidOutput, ModelError, RateLimited, transient
from mai.models.errors import __doc__ as tree

KINDS = [
    kind for name in models.__all__ if isinstance(kind := getattr(models, name), type) and issubclass(kind, ModelError)
]
RETRYABLE = {"RateLimited", "Overloaded", "Unreachable", "InvalidReply"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_is_in_the_tree_and_survives_pickle_with_its_facts(kind: type[ModelError]) -> None:
    error = kind("it failed", model="openai:x", status=429, code="c", retry_after=2.5)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), vars(again)) == ("it failed", vars(error))
    assert isinstance(error, MaiError)
    assert kind.__name__ in (tree or "")


def test_each_error_says_whether_another_attempt_makes_sense() -> None:
    assert {kind.__name__ for kind in KINDS if kind.retryable} == RETRYABLE
    assert {kind.__name__ for kind in KINDS if transient(kind("x"))} == RETRYABLE
    assert transient(KeyError("does not say"))


def test_facts_of_their_own_are_attributes() -> None:
    invalid = InvalidOutput("x", text="{", problem="no JSON", model="m")
    assert (invalid.text, invalid.problem, invalid.model) == ("{", "no JSON", "m")
    spent = BudgetExhausted("x", limit=1.0, spent=0.5, needed=0.6, unit="usd")
    assert (spent.limit, spent.spent, spent.needed, spent.unit) == (1.0, 0.5, 0.6, "usd")
    assert RateLimited("x").retry_after is None
