"""Traces across processes: inject, continue_trace, and what they leave behind."""

import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mai import Context, module
from mai.telemetry import configure, continue_trace, inject, shutdown
from tests.support import simulated

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@module
async def sends(text: str) -> dict[str, str]:
    return inject()


@module
def receives(headers: dict[str, str]) -> str:
    with continue_trace(headers):
        return inject().get("traceparent", "")


def test_a_hand_off_is_one_trace(spans: InMemorySpanExporter) -> None:
    headers = sends.run("a")
    with continue_trace(headers):
        sends.with_(name="other side").run("b")
    here, there = spans.get_finished_spans()
    assert there.parent is not None
    assert (there.context.trace_id, there.parent.span_id) == (here.context.trace_id, here.context.span_id)
    assert there.parent.is_remote
    version, trace_id, parent_id, flags = headers["traceparent"].split("-")
    assert (version, trace_id, parent_id) == ("00", f"{here.context.trace_id:032x}", f"{here.context.span_id:016x}")
    assert int(flags, 16) & 1  # sampled


def test_headers_are_read_in_any_case_and_added_to_those_of_a_request(spans: InMemorySpanExporter) -> None:
    request = {"accept": "*/*"}
    with continue_trace({"TraceParent": f"00-{TRACE}-{PARENT}-01", "TraceState": "a=b", "Baggage": "user=ann"}):
        assert baggage.get_baggage("user") == "ann"
        inject(request)
        sends.run("a")
    assert request == {
        "accept": "*/*", "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b", "baggage": "user=ann"
    }  # fmt: skip
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.context.trace_state.get("a") == "b"


def test_an_unsampled_trace_stays_unsampled(spans: InMemorySpanExporter) -> None:
    with continue_trace({"traceparent": f"00-{TRACE}-{PARENT}-00"}):
        headers = sends.run("a")
    assert spans.get_finished_spans() == ()
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")


def test_without_headers_or_with_bad_ones_nothing_changes(spans: InMemorySpanExporter) -> None:
    for headers in ({}, {"traceparent": "nonsense"}):
        with continue_trace(headers):
            assert not trace.get_current_span().get_span_context().is_valid
            sends.run("a")
    assert [span.parent for span in spans.get_finished_spans()] == [None, None]


def test_inside_a_call_the_trace_stays_that_of_the_call(spans: InMemorySpanExporter) -> None:
    @module
    async def outer(text: str) -> dict[str, str]:
        with continue_trace({"traceparent": f"00-{TRACE}-{PARENT}-01"}):
            return await sends(text)

    headers = outer.run("a")
    inner, root = spans.get_finished_spans()
    assert inner.parent is not None
    assert (inner.parent.span_id, root.parent) == (root.context.span_id, None)
    assert headers["traceparent"].split("-")[1] == f"{root.context.trace_id:032x}"


def test_inside_a_call_whose_context_was_cleared_its_span_is_the_parent(spans: InMemorySpanExporter) -> None:
    @module
    async def clears(text: str) -> dict[str, str]:
        otel.attach(otel.Context())
        return inject()

    headers = clears.run("a")
    (span,) = spans.get_finished_spans()
    assert headers["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"


def test_what_was_current_before_is_current_after() -> None:
    before = otel.get_current()
    with pytest.raises(KeyError), continue_trace({"traceparent": f"00-{TRACE}-{PARENT}-01"}):
        raise KeyError
    assert otel.get_current() == before


def test_one_that_is_left_in_another_context_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import contextvars

    with caplog.at_level(logging.DEBUG):
        scope = continue_trace({"traceparent": f"00-{TRACE}-{PARENT}-01"})
        contextvars.copy_context().run(scope.__enter__)
        scope.__exit__(None, None, None)
    assert "detach" not in caplog.text
    assert not trace.get_current_span().get_span_context().is_valid


@simulated
async def test_the_idle_hand_off_of_a_queue(spans: InMemorySpanExporter) -> None:
    with Context.scope(user="ann"):
        headers = await sends("a")
    await receives(headers)
    assert [span.name for span in spans.get_finished_spans()] == ["sends", "receives"]


def test_without_telemetry_there_is_nothing_to_carry() -> None:
    configure(console=False, set_global=False)
    shutdown()
    assert inject() == {}
