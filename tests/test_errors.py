"""The exceptions: one tree, each the builtin that fits, with facts, and picklable."""

import pickle
from typing import Any

import pytest

import mai
from mai import (
    AlreadyRecorded,
    AskError,
    CastError,
    ConfigError,
    CorruptJournal,
    CycleError,
    DeadlineExceeded,
    Fenced,
    JournalError,
    LoopExhausted,
    MaiError,
    NeedsAttention,
    PartialFailure,
    PayloadError,
    PlanChanged,
    ReplayMismatch,
    RunExists,
    StepFailed,
    TooManyAbandoned,
    TracingError,
    UnknownCase,
    UnknownRun,
    WiringError,
    WouldDeadlock,
    errors,
    module,
)
from tests.support import simulated

BUILTINS = [
    (ConfigError, TypeError),
    (WiringError, TypeError),
    (TracingError, TypeError),
    (CycleError, ValueError),
    (PartialFailure, ExceptionGroup),
    (CastError, ValueError),
    (PayloadError, ValueError),
    (DeadlineExceeded, TimeoutError),
    (TooManyAbandoned, RuntimeError),
    (UnknownCase, LookupError),
    (LoopExhausted, RuntimeError),
    (AskError, RuntimeError),
    (WouldDeadlock, RuntimeError),
    (JournalError, OSError),
    (CorruptJournal, ValueError),
    (Fenced, RuntimeError),
    (AlreadyRecorded, RuntimeError),
    (RunExists, ValueError),
    (UnknownRun, LookupError),
    (NeedsAttention, RuntimeError),
    (ReplayMismatch, RuntimeError),
    (PlanChanged, RuntimeError),
    (StepFailed, RuntimeError),
]
EXAMPLES: list[tuple[MaiError, dict[str, Any]]] = [
    (MaiError("m"), {}),
    (ConfigError("m"), {}),
    (WiringError("m"), {}),
    (TracingError("m"), {}),
    (CycleError("m", path=("a", "b", "a")), {"path": ("a", "b", "a")}),
    (CastError("m", step_id="rag/Search", where="query", expected="str"),
     {"step_id": "rag/Search", "where": "query", "expected": "str"}),
    (PayloadError("m", expected="int"), {"expected": "int"}),
    (DeadlineExceeded("m", step_id="rag", timeout=2.5), {"step_id": "rag", "timeout": 2.5}),
    (TooManyAbandoned("m", count=3, limit=3), {"count": 3, "limit": 3}),
    (UnknownCase("m", step_id="rag/Switch", key=3, cases=("a", "b")),
     {"step_id": "rag/Switch", "key": 3, "cases": ("a", "b")}),
    (LoopExhausted("m", step_id="Loop", iterations=3, state=[1, 2]),
     {"step_id": "Loop", "iterations": 3, "state": [1, 2]}),
    (AskError("m"), {}),
    (WouldDeadlock("m"), {}),
    (JournalError("m", path="runs.db"), {"path": "runs.db"}),
    (CorruptJournal("m", path="runs.db"), {"path": "runs.db"}),
    (Fenced("m", run_id="r"), {"run_id": "r"}),
    (AlreadyRecorded("m", run_id="r"), {"run_id": "r", "record": None}),
    (RunExists("m", run_id="r"), {"run_id": "r"}),
    (UnknownRun("m", run_id="r"), {"run_id": "r"}),
    (NeedsAttention("m", run_id="r"), {"run_id": "r"}),
    (ReplayMismatch("m", run_id="r", step_id="a", recorded="1", found="2"),
     {"run_id": "r", "step_id": "a", "recorded": "1", "found": "2"}),
    (PlanChanged("m", run_id="r", step_id="a"), {"run_id": "r", "step_id": "a", "diff": ()}),
    (StepFailed("m", type="Boom", module="shop"), {"type": "Boom", "module": "shop"}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "builtin"), BUILTINS)
def test_every_error_is_a_mai_error_and_the_builtin_that_fits(error: type[MaiError], builtin: type) -> None:
    assert issubclass(error, MaiError)
    assert issubclass(error, builtin)


def test_the_tree_is_the_public_list_and_stands_in_the_docstring() -> None:
    assert {error.__name__ for error, _ in BUILTINS} | {"MaiError"} == set(errors.__all__)
    assert errors.__doc__ is not None
    for error, builtin in BUILTINS:
        assert f"{error.__name__} " in errors.__doc__
        assert f"({builtin.__name__})" in errors.__doc__
    assert all(getattr(mai, name) is getattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("error", "facts"), EXAMPLES)
def test_every_error_can_be_pickled_with_its_facts(error: MaiError, facts: dict[str, Any], protocol: int) -> None:
    error.add_note("mai: in rag")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == "m"
    assert {key: getattr(again, key) for key in facts} == facts
    assert again.__notes__[-1] == "mai: in rag"


def test_facts_that_are_not_known_are_empty() -> None:
    cast, payload, late = CastError("m"), PayloadError("m"), DeadlineExceeded("m")
    assert (cast.step_id, cast.where, cast.expected) == ("", "", "")
    assert payload.expected == ""
    assert (late.step_id, late.timeout) == ("", None)
    assert (TooManyAbandoned("m").count, TooManyAbandoned("m").limit) == (0, 0)
    unknown, exhausted = UnknownCase("m"), LoopExhausted("m")
    assert (unknown.step_id, unknown.key, unknown.cases) == ("", None, ())
    assert (exhausted.step_id, exhausted.iterations, exhausted.state) == ("", 0, None)


@simulated
async def test_an_error_that_went_through_a_call_can_still_be_pickled() -> None:
    @module
    async def fails(text: str) -> str:
        raise ConfigError(text)

    with pytest.raises(ConfigError) as caught:
        await (fails >> fails)("why")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == "why"
    assert again.__notes__ == caught.value.__notes__
