"""What a call of a step or a flow does under an engine that records, where it ends in an odd way."""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import (
    AskError,
    BlockingDelay,
    ConfigError,
    Context,
    DeadlineExceeded,
    Parallel,
    PayloadError,
    module,
    patched,
    wait_for,
)
from mai.core.clock import clock
from mai.durable.calls import Casts
from mai.layers.checks import signature_of
from mai.values.signature import Signature
from tests.durable.benches import MemoryBench
from tests.support import recorded_spans, simulated

SEEN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


@module
async def late(x: int) -> int:
    await asyncio.sleep(1)
    SEEN.append(f"late {x}")
    return x


@module
async def begins(x: int) -> int:
    late.start(x)
    return x


@module(flow=True)
async def flow_begins(x: int) -> int:
    late.start(x)
    return x


@module(flow=True)
async def flow_fails(x: int) -> int:
    late.start(x)
    raise KeyError(x)


@module
async def stubborn(x: int) -> int:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        SEEN.append("swallowed")
    return x


@module
async def silent(x: int) -> int:  # type: ignore[return]
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        SEEN.append("swallowed")


@module(flow=True)
async def stubborn_flow(x: int) -> int:
    try:
        await (BlockingDelay(60) >> late)(x)
    except asyncio.CancelledError:
        SEEN.append("swallowed")
    return x


@simulated
async def test_a_step_joins_what_it_started() -> None:
    async with MemoryBench().engine() as engine:
        assert await engine.start(begins, 1, run_id="r") == 1
        assert SEEN == ["late 1"]


@simulated
async def test_a_flow_joins_what_it_started() -> None:
    async with MemoryBench().engine() as engine:
        assert await engine.start(flow_begins, 1, run_id="r") == 1
        assert SEEN == ["late 1"]


@simulated
async def test_a_flow_that_fails_ends_what_it_started() -> None:
    async with MemoryBench().engine() as engine:
        with pytest.raises(KeyError):
            await engine.start(flow_fails, 1, run_id="r")
        assert SEEN == []


@pytest.mark.parametrize("step", [stubborn, silent, stubborn_flow])
def test_a_cancel_that_is_swallowed_ends_the_run_all_the_same(step: object) -> None:
    @simulated
    async def main() -> None:
        async with MemoryBench().engine() as engine:
            handle = engine.start(step, 1, run_id="r")
            await asyncio.sleep(0.5)
            handle.cancel()
            with pytest.raises(asyncio.CancelledError):
                await handle
            assert (await engine.info("r")).status == "cancelled"
        assert SEEN == ["swallowed"]

    main()


@simulated
async def test_a_step_of_a_run_that_records_has_its_span() -> None:
    with recorded_spans() as exporter:
        async with MemoryBench().engine() as engine:
            handle = engine.start(late, 1, run_id="r")
            await handle
    (span,) = exporter.get_finished_spans()
    assert (handle.outcome, span.name, handle.span_id) == ("ok", "late", f"{span.context.span_id:016x}")


@simulated
async def test_no_step_begins_after_the_deadline() -> None:
    @module(flow=True)
    async def too_late(x: int) -> int:
        with Context.scope(deadline=clock.now() - 1):
            return await late(x)

    async with MemoryBench().engine() as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.start(too_late, 1, run_id="r")
    assert SEEN == []


@pytest.mark.parametrize("branch", [stubborn, silent, stubborn_flow])
def test_a_branch_that_swallows_the_end_of_the_others_has_no_value(branch: Any) -> None:
    @module
    async def fails(x: int) -> int:
        await asyncio.sleep(1)
        raise KeyError(x)

    @simulated
    async def main() -> None:
        async with MemoryBench().engine() as engine:
            with pytest.raises(KeyError):
                await engine.start(Parallel(branch, fails), 1, run_id="r")
            assert [
                record.path for record in await engine.history("r") if record.output and record.kind == "step"
            ] == []
        assert SEEN == ["swallowed"]

    main()


@simulated
async def test_names_of_signals_and_patches_are_not_empty_and_somebody_can_answer() -> None:
    with pytest.raises(ConfigError, match="name='' is empty"):
        await patched("")
    with pytest.raises(ConfigError, match="signal='' is empty"):
        await wait_for("")
    with pytest.raises(AskError, match="nobody can send it"):
        await wait_for("paid")


def test_input_on_record_that_the_step_has_no_parameter_for_is_refused() -> None:
    with pytest.raises(PayloadError, match="has no parameter 'y'"):
        signature_of(late).load(b'{"x":1,"y":2}')


def test_middleware_of_which_python_tells_no_signature_is_taken() -> None:
    assert late.with_(middleware=max).settings.middleware == (max,)


NAMES = st.lists(
    st.sampled_from(["n", "b", "z", "\N{GREEK SMALL LETTER PI}", "A"]), min_size=1, max_size=4, unique=True
)
VALUES: Any = st.one_of(st.integers(), st.booleans(), st.text(), st.none(), st.floats(), st.lists(st.integers()))


@given(NAMES, st.data())
def test_an_input_is_shown_as_its_signature_writes_it(names: list[str], data: st.DataObject) -> None:
    values = [data.draw(VALUES) for _ in names]
    types = [data.draw(st.sampled_from([type(value), Any, object])) for value in values]
    params = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=tp)
        for name, tp in zip(names, types, strict=True)
    ]
    signature = Signature("owner", params, int)
    casts, call = Casts(), SimpleNamespace(spec=SimpleNamespace(signature=signature), bound=(tuple(values), {}))
    for _ in range(2):
        shown = casts.shown(call)  # type: ignore[arg-type]
        whole = signature.shown(tuple(values), {})
        assert shown == whole or (shown is not None and whole is not None and shown[:4096] == whole[:4096])
    by_name = SimpleNamespace(spec=call.spec, bound=(tuple(values[1:]), {names[0]: values[0]}))
    assert casts.shown(by_name) is not None  # type: ignore[arg-type]


def test_an_int_with_too_many_digits_is_shown_as_nothing() -> None:
    signature = Signature("owner", [inspect.Parameter("n", inspect.Parameter.POSITIONAL_ONLY, annotation=int)], int)
    call: Any = SimpleNamespace(spec=SimpleNamespace(signature=signature), bound=((10**5000,), {}))
    assert Casts().shown(call) is None
