"""Handles that become spans after the fact."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mai
from mai import Conditional, TraceHandle, capture, graph, module
from mai.telemetry import export
from mai.telemetry.convert import spans_of
from tests.telemetry.sink import Sink, Wired, read_spans, sink


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def fails(text: str) -> str:
    raise KeyError(text)


@graph
async def rag(text: str) -> str:
    return await shout(text)


@pytest.fixture
def backend() -> Iterator[Sink]:
    with sink() as found:
        yield found


def shape(spans: list[Wired]) -> list[tuple[str, str | None]]:
    names = {span.span_id: span.name for span in spans}
    return sorted((span.name, names.get(span.parent_id or "")) for span in spans)


def test_a_call_without_spans_is_written_as_otlp() -> None:
    with capture() as trace, pytest.raises(KeyError):
        (rag >> Conditional(bool, then=fails)).run("a")
    (handle,) = trace.runs
    spans = list(read_spans(handle.to_otlp()))
    assert shape(spans) == [
        ("Conditional", "Sequential"), ("Sequential", None), ("fails", "Conditional"),
        ("invoke_workflow rag", "Sequential"), ("shout", "invoke_workflow rag"),
    ]  # fmt: skip
    table = {span.name: span for span in spans}
    assert table["invoke_workflow rag"].attributes["gen_ai.workflow.name"] == "rag"
    assert table["shout"].attributes["mai.step.id"] == "Sequential/rag/shout"
    assert table["Conditional"].attributes["mai.decision"] == "then"
    assert [span.status for span in spans] == [2, 0, 0, 2, 2]
    assert {name: len(span.events) for name, span in table.items() if span.events} == {"fails": 1}
    assert table["fails"].events[0] == ("exception", {"exception.type": "KeyError", "exception.message": "'A'"})
    assert table["fails"].message == "KeyError: 'A'"
    assert {span.scope for span in spans} == {("mai", mai.__version__)}
    root = table["Sequential"]
    assert handle.started_at is not None
    assert handle.duration is not None
    assert abs(root.start - handle.started_at * 1e9) < 1000
    assert root.end - root.start == round(handle.duration * 1e9)
    assert all(root.start <= span.start <= span.end <= root.end for span in spans)


def test_the_same_handle_is_the_same_trace_and_another_is_another() -> None:
    with capture() as trace:
        shout.run("a")
        shout.run("a")
    one, two = trace.runs
    assert one.to_otlp() == one.to_otlp()
    assert {span.trace_id for span in read_spans(one.to_otlp())}.isdisjoint(
        span.trace_id for span in read_spans(two.to_otlp())
    )
    assert one.trace_id is None


def test_a_call_that_had_spans_keeps_their_ids_and_facts(spans: InMemorySpanExporter) -> None:
    with capture() as trace:
        (shout >> rag).run("a")
    told = {span.span_id: span for span in read_spans(trace.runs[0].to_otlp())}
    for span in spans.get_finished_spans():
        mine = told.pop(f"{span.context.span_id:016x}")
        assert (mine.name, mine.trace_id) == (span.name, f"{span.context.trace_id:032x}")
        assert mine.parent_id == (None if span.parent is None else f"{span.parent.span_id:016x}")
        facts = dict(span.attributes or {})
        assert mine.attributes.items() <= facts.items()
        assert set(facts) - set(mine.attributes) <= {"mai.run.id", "mai.plan.hash", "code.function.name"}
    assert told == {}


def test_a_failure_that_nothing_observed_can_still_be_written() -> None:
    with pytest.raises(KeyError) as caught:
        (shout >> fails).run("a")
    handle: Any = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert handle.started_at is None
    assert [span.name for span in spans_of(handle)] == ["Sequential", "fails"]


@pytest.mark.slow
def test_a_handle_is_sent_on_demand(backend: Sink, caplog: pytest.LogCaptureFixture) -> None:
    with capture() as trace:
        rag.run("a")
    assert export(trace.runs[0], backend.url, headers={"x-key": "abc"})
    assert shape(backend.spans) == [("invoke_workflow rag", None), ("shout", "invoke_workflow rag")]
    assert (backend.paths, backend.headers[0]["x-key"]) == (["/v1/traces"], "abc")
    backend.status = 400
    assert not export(trace.runs[0], backend.url + "/v1/traces")
    assert f"spans do not reach {backend.url}/v1/traces" in caplog.text


def test_events_and_links_of_handles_are_written(spans: InMemorySpanExporter) -> None:
    @module
    def words(text: str) -> Iterator[str]:
        yield from text.split()

    @module
    async def outer(text: str) -> Any:
        return await words.with_(detached="link")(text)

    handle = outer.start("a b")
    handle.result().result()
    told = {span.name: span for span in read_spans(handle.to_otlp())}
    assert [name for name, _ in told["words"].events] == ["mai.first_chunk"]
    ((trace_id, span_id, why),) = told["words"].links
    assert (trace_id, span_id, why) == (told["outer"].trace_id, told["outer"].span_id, {"mai.link": "spawned_by"})
    assert spans.get_finished_spans() != ()


def test_half_of_a_surrogate_pair_in_a_stored_trace_is_written_out() -> None:
    odd = "a\ud800"
    error = {"type": odd, "module": odd, "message": odd}
    events = [{"at_ns": 0, "name": odd, "attributes": {odd: [odd, 1]}}]
    links = [{"relation": odd, "trace_id": "1" * 32, "span_id": "2" * 16}]
    call = {"name": odd, "kind": odd, "module": odd, "key": odd, "outcome": "error", "error": error}
    call |= {"attributes": {odd: odd}, "events": events, "links": links}
    stored = {"schema": "mai.trace/1", "started_at": None, "within": "", "calls": [call]}
    assert TraceHandle.from_dict(stored).to_otlp().count(b"a\\ud800") == 16


@given(
    st.none() | st.floats(-(2.0**62), 2.0**62),
    st.integers(-(2**63 - 1), 2**63 - 1),
    st.integers(-(2**63 - 1), 2**63 - 1),
)
@example(-1, 0, 0)  # before 1970
@example(2.0**62, 0, 0)  # after the year 2554
def test_a_time_that_otlp_does_not_know_is_written_as_its_first_or_last_one(
    zero: float | None, start: int, end: int
) -> None:
    call = {"name": "a", "kind": "module", "module": "m", "key": "a", "outcome": "ok"}
    call |= {"start_ns": start, "end_ns": end, "events": [{"at_ns": end, "name": "e", "attributes": {}}]}
    stored = {"schema": "mai.trace/1", "started_at": zero, "within": "", "calls": [call, {**call, "parent": 0}]}
    spans = list(read_spans(TraceHandle.from_dict(stored).to_otlp()))
    assert len(spans) == 2
    if zero is not None and zero <= -1:
        assert spans[0].start == 0
