"""What nobody is to see is nowhere: a canary in ``auth`` and in values, looked for wherever mai writes."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import Conditional, Context, Loop, Map, Module, Parallel, Race, Switch, capture, module
from mai.errors import MaiError
from tests.support import recorded_spans

CANARY = "canary-4b1d"


class Key:
    """An object that shows its secret as soon as anybody prints it."""

    def __repr__(self) -> str:
        return CANARY

    __str__ = __repr__


@module
async def through(text: str) -> str:
    assert str(Context.get().auth) == CANARY
    return text


@module
def in_thread(text: str) -> str:
    assert str(Context.get().auth) == CANARY
    return text


@module
async def stream(text: str) -> AsyncIterator[str]:
    yield text[:5]
    yield text[5:]


@module
async def fails(text: str) -> str:
    raise KeyError("no such thing")


@module
async def odd(text: str) -> int:
    return len(text)


class Configured(Module):
    key: str = ""

    async def forward(self, text: str, *, suffix: str = "") -> str:
        return text + suffix


TREES: list[Callable[[], Any]] = [
    lambda: through >> in_thread >> stream,
    lambda: through & in_thread & stream,
    lambda: Parallel(through, fails, on_error="collect"),
    lambda: through >> fails,
    lambda: fails.with_(retry=2, fallback=through),
    lambda: fails.with_(retry=2) & through,
    lambda: through.with_(timeout=5, tags=("a",)),
    lambda: Conditional(lambda text: text in text, then=through),
    lambda: Switch(lambda text: len(text) % 2, {0: through, 1: in_thread}),
    lambda: Loop(through, max_iters=2),
    lambda: Race(fails, through),
    lambda: in_thread.map(),
    lambda: Configured().with_(key=CANARY),
]


def shown(handle: Any, error: BaseException | None) -> list[str]:
    """Everything that a handle and an error show."""
    texts = [repr(handle), str(handle)] if handle is not None else []
    for one in handle.walk() if handle is not None else ():
        texts += [repr(one), one.name, one.step_id, repr(one.attributes), repr(one.error)]
    if error is not None:
        texts += [str(error), repr(error), *getattr(error, "__notes__", [])]
    return texts


@given(tree=st.sampled_from(TREES), pad=st.text(alphabet="ab", max_size=3))
def test_no_payload_and_no_auth_is_in_traces_spans_notes_logs_or_reprs(tree: Callable[[], Any], pad: str) -> None:
    step: Any = tree()
    logs: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: logs.append(record.getMessage() + repr(record.args))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    error: BaseException | None = None
    value: Any = [CANARY + pad] if type(step) is Map else CANARY + pad
    try:
        with recorded_spans() as exporter, Context.scope(auth=Key()), capture() as trace:
            texts = [repr(Context.get()), str(Context.get()), str(Context.get().model_dump())]
            try:
                step.run(value)
            except (KeyError, ExceptionGroup, MaiError) as failure:
                error = failure
    finally:
        logging.getLogger().removeHandler(handler)
    for handle in trace.runs:
        texts += shown(handle, error)
    for span in exporter.get_finished_spans():
        texts += [span.to_json()]
    texts += [*logs, repr(step), str(step.plan()), step.plan().model_dump_json()]
    assert [text for text in texts if CANARY in text] == []
    assert len(texts) > 5


def test_what_is_said_of_a_value_that_does_not_fit_is_short() -> None:
    with pytest.raises(MaiError) as caught:
        odd.run(["x" * 1_000])  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300
