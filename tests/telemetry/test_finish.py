"""Subscribers to finished runs, and the metrics made of them."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from mai import LocalEngine, TraceHandle, graph, module
from mai.errors import ConfigError
from mai.telemetry import on_finish
from mai.telemetry.finish import record_durations
from tests.support import python, simulated


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def fails(text: str) -> str:
    raise KeyError(text)


@simulated
async def test_runs_of_all_engines_are_seen_those_made_before_and_after() -> None:
    seen: list[str] = []
    before = LocalEngine()
    stop = on_finish(lambda handle: seen.append(handle.name))
    try:
        await shout.with_(name="default")("a")
        async with before:
            await shout.with_(name="before")("a")
        async with LocalEngine():
            await (shout >> shout).with_(name="after")("a")
    finally:
        stop()
    async with before:
        await shout("a")
    await shout("a")
    stop()
    assert seen == ["default", "before", "after"]


def test_an_async_subscriber_is_refused() -> None:
    async def seen(handle: TraceHandle[Any]) -> None: ...

    with pytest.raises(ConfigError, match="needs a plain function of a handle, not an async one"):
        on_finish(seen)


@pytest.mark.slow
def test_a_forked_child_has_the_subscribers_too() -> None:
    done = python(
        """
import os
from mai import module
from mai.telemetry import on_finish
@module
async def shout(text: str) -> str:
    return text.upper()
on_finish(lambda handle: print(handle.name, flush=True))
shout.run("a")
if (pid := os.fork()) == 0:
    shout.with_(name="child").run("a")
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    assert (done.returncode, done.stdout.split()) == (0, ["shout", "child"])


@simulated
async def test_the_durations_of_workflows_are_recorded_with_what_failed() -> None:
    @graph
    async def rag(text: str) -> str:
        return await shout(text)

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    stop = on_finish(record_durations(provider.get_meter("mai")))
    try:
        await rag("a")
        await rag("b")
        await shout("no workflow")
        with pytest.raises(KeyError):
            await (shout >> fails).with_(name="bad")("c")
    finally:
        stop()
    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("gen_ai.workflow.duration", "s")
    points = {tuple(sorted(point.attributes.items())): point.count for point in metric.data.data_points}
    assert points == {
        (("gen_ai.workflow.name", "rag"),): 2,
        (("error.type", "KeyError"), ("gen_ai.workflow.name", "bad")): 1,
    }
    assert metric.data.data_points[0].explicit_bounds[0] == 0.01
    provider.shutdown()
