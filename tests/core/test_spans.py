"""Spans: names, parents, attributes, status; what an unsampled trace costs; how users' own spans nest."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from mai import (
    BlockingDelay,
    Conditional,
    ConfigError,
    Context,
    LocalEngine,
    Module,
    NonBlockingDelay,
    Parallel,
    capture,
    graph,
    module,
)
from mai.telemetry import configure, shutdown
from tests.support import python, recorded_spans, simulated, spans_asked


class Source:
    """Where the spans of a test come from."""

    provider: trace.TracerProvider | None = None


@pytest.fixture(params=["of the SDK", "light"])
def exporter(request: pytest.FixtureRequest) -> Iterator[InMemorySpanExporter]:
    """All that is recorded, by the SDK's own spans and by light ones: the same must hold for both."""
    if request.param == "of the SDK":
        with recorded_spans() as found:
            yield found
        return
    found = InMemorySpanExporter()
    Source.provider = configure(exporter=found, batch=False, set_global=False)
    yield found
    shutdown()
    Source.provider = None


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans by name, which must differ."""
    spans = exporter.get_finished_spans()
    table = {span.name: span for span in spans}
    assert len(table) == len(spans)
    return table


def tree(spans: Sequence[ReadableSpan]) -> dict[str, str | None]:
    """The name of each span's parent."""
    by_id = {span.context.span_id: span.name for span in spans}
    return {span.name: None if span.parent is None else by_id[span.parent.span_id] for span in spans}


@functools.cache
def log_records() -> InMemoryLogRecordExporter:
    """What is logged through OpenTelemetry; its provider can be set only once in a process."""
    found, provider = InMemoryLogRecordExporter(), LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(found))
    set_logger_provider(provider)
    return found


def tracer() -> trace.Tracer:
    return trace.get_tracer("user", tracer_provider=Source.provider)


@module
async def shout(text: str) -> str:
    return text.upper()


@module
def measure(text: str) -> int:
    return len(text)


@module
async def fails(text: str) -> str:
    raise KeyError(text)


# ---------------------------------------------------------------- shape


@simulated
async def test_the_span_tree_is_the_call_tree(exporter: InMemorySpanExporter) -> None:
    class Step(Module):
        async def forward(self, x: str) -> str:
            return await shout.with_(name="inner")(x)

    await (Step() >> (shout & measure))("a")
    spans = exporter.get_finished_spans()
    assert tree(spans) == {
        "Sequential": None,
        "Step": "Sequential",
        "inner": "Step",
        "Parallel": "Sequential",
        "shout": "Parallel",
        "measure": "Parallel",
    }
    assert len({span.context.trace_id for span in spans}) == 1
    assert {span.kind for span in spans} == {SpanKind.INTERNAL}
    assert {span.instrumentation_scope.name for span in spans if span.instrumentation_scope} == {"mai"}


@simulated
async def test_every_span_has_the_attributes_of_its_module_from_the_start(exporter: InMemorySpanExporter) -> None:
    class Step(Module):
        async def forward(self, x: str) -> str:
            return x

    await (shout.with_(tags=("a", "b")) >> Step())("abc")
    spans = named(exporter)
    facts = dict(spans["shout"].attributes or {})
    assert facts == {
        "mai.kind": "module",
        "mai.step.id": "Sequential/shout",
        "mai.module": f"{__name__}.shout",
        "code.function.name": f"{__name__}.shout",
        "openinference.span.kind": "CHAIN",
        "mai.tags": ("a", "b"),
        "mai.input.size": 3,
        "mai.output.size": 3,
    }
    step = spans["Step"].attributes or {}
    assert str(step["mai.module"]).endswith("<locals>.Step")
    assert step["code.function.name"] == f"{step['mai.module']}.forward"
    root = dict(spans["Sequential"].attributes or {})
    assert (root["mai.kind"], root["mai.module"]) == ("sequential", "mai.layers.sequential.Sequential")
    assert root["code.function.name"] == "mai.layers.sequential.Sequential.forward"
    assert "mai.run.id" in root
    assert not any("mai.run.id" in (spans[name].attributes or {}) for name in ("shout", "Step"))


@simulated
async def test_the_root_tells_the_run_the_conversation_and_the_session(exporter: InMemorySpanExporter) -> None:
    @module
    async def outer(x: str) -> str | None:
        await shout(x)
        return Context.get().run_id

    with Context.scope(conversation_id="c1", session_id=7):
        run_id = await outer("x")
    spans = named(exporter)
    facts = spans["outer"].attributes or {}
    assert facts["mai.run.id"] == run_id
    assert (facts["gen_ai.conversation.id"], facts["session.id"]) == ("c1", "7")
    assert not {"gen_ai.conversation.id", "session.id", "mai.run.id"} & set(spans["shout"].attributes or {})


@simulated
async def test_composites_and_delays_tell_their_facts(exporter: InMemorySpanExporter) -> None:
    def long(text: str) -> bool:
        return len(text) > 2

    delay = BlockingDelay(2) >> NonBlockingDelay(0.5)
    await (delay >> Conditional(long, then=Parallel(shout, measure, limit=1), otherwise=shout))("abc")
    spans = named(exporter)
    facts = {name: dict(span.attributes or {}) for name, span in spans.items()}
    assert facts["BlockingDelay"]["mai.delay.seconds"] == 2.0
    assert facts["NonBlockingDelay"]["mai.delay.seconds"] == 0.5
    assert (facts["BlockingDelay"]["mai.kind"], facts["NonBlockingDelay"]["mai.kind"]) == (
        "blocking_delay", "non_blocking_delay"
    )  # fmt: skip
    assert facts["Conditional"]["mai.decision"] == "then"
    assert facts["Conditional"]["mai.decision.predicate"] == long.__qualname__
    assert (facts["Parallel"]["mai.parallel.width"], facts["Parallel"]["mai.parallel.limit"]) == (2, 1)
    assert (facts["shout"]["mai.branch.index"], facts["measure"]["mai.branch.index"]) == (0, 1)
    delayed = spans["BlockingDelay"]
    assert delayed.start_time is not None
    assert delayed.end_time is not None
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}
    assert all("mai.outcome" not in one for one in facts.values())


@simulated
async def test_named_branches_tell_their_key_and_an_unlimited_parallel_no_limit(exporter: InMemorySpanExporter) -> None:
    await Parallel(left=shout)("a")
    spans = named(exporter)
    assert (spans["shout"].attributes or {})["mai.branch.key"] == "left"
    assert "mai.parallel.limit" not in (spans["Parallel"].attributes or {})


@simulated
async def test_payloads_are_not_in_spans(exporter: InMemorySpanExporter) -> None:
    with Context.scope(auth="s3cret", user="ann"):
        await (shout >> measure)("s3cret")
    for span in exporter.get_finished_spans():
        assert "s3cret" not in span.to_json()
        assert "ann" not in str(dict(span.attributes or {}).values())


@simulated
async def test_the_name_of_a_span_can_be_set_and_is_never_user_data(exporter: InMemorySpanExporter) -> None:
    await Parallel(left=shout.with_(name="loud"))("secret")
    assert set(named(exporter)) == {"Parallel", "loud"}


@simulated
async def test_sizes_that_are_not_known_are_left_out(exporter: InMemorySpanExporter) -> None:
    @module
    async def split(x: list[str]) -> list[str]:
        return x

    await split(["a"])
    facts = named(exporter)["split"].attributes or {}
    assert "mai.input.size" not in facts
    assert "mai.output.size" not in facts


# ---------------------------------------------------------------- failures


@simulated
async def test_a_failure_marks_every_span_that_it_passes_and_is_described_once_at_the_innermost(
    exporter: InMemorySpanExporter,
) -> None:
    with pytest.raises(KeyError):
        await (shout >> (fails & shout))("x")
    spans = {(span.attributes or {})["mai.step.id"]: span for span in exporter.get_finished_spans()}
    failed = ["Sequential", "Sequential/Parallel", "Sequential/Parallel[0]/fails"]
    for path in failed:
        assert spans[path].status.status_code is StatusCode.ERROR
        assert spans[path].status.description == "KeyError: 'X'"
        assert (spans[path].attributes or {})["error.type"] == "KeyError"
        assert (spans[path].attributes or {})["mai.outcome"] == "error"
    events = {path: [event.name for event in span.events] for path, span in spans.items()}
    assert {path for path, found in events.items() if found} == {"Sequential/Parallel[0]/fails"}
    (event,) = spans["Sequential/Parallel[0]/fails"].events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.type"] == "KeyError"
    assert spans["Sequential/shout"].status.status_code is StatusCode.UNSET


@simulated
async def test_two_failures_are_described_where_each_began_and_the_group_where_it_began(
    exporter: InMemorySpanExporter,
) -> None:
    gate = asyncio.Event()

    @module
    async def one(x: str) -> str:
        try:
            await gate.wait()
        finally:
            raise KeyError("one")

    @module
    async def two(x: str) -> str:
        raise ValueError("two")

    with pytest.raises(ExceptionGroup):
        await (one & two)("x")
    events = {
        span.name: [(e.attributes or {})["exception.type"] for e in span.events]
        for span in exporter.get_finished_spans()
    }
    assert events == {"one": ["KeyError"], "two": ["ValueError"], "Parallel": ["ExceptionGroup"]}


@simulated
async def test_an_error_that_is_handled_marks_only_the_step_that_failed(exporter: InMemorySpanExporter) -> None:
    @module
    async def careful(x: str) -> str:
        try:
            return await fails(x)
        except KeyError:
            return "ok"

    await careful("x")
    spans = named(exporter)
    assert spans["fails"].status.status_code is StatusCode.ERROR
    assert (spans["careful"].status.status_code, spans["careful"].events) == (StatusCode.UNSET, ())


@simulated
async def test_an_error_that_is_raised_again_later_is_described_once(exporter: InMemorySpanExporter) -> None:
    @module
    async def later(x: str) -> str:
        try:
            return await fails(x)
        except KeyError as error:
            kept = error
        await shout(x)
        raise kept

    with pytest.raises(KeyError) as caught:
        await later("x")
    spans = named(exporter)
    assert [len(spans[name].events) for name in ("fails", "later")] == [1, 0]
    assert caught.value.__notes__[0].startswith("mai: in later/fails")
    assert len(caught.value.__notes__) == 1


@simulated
async def test_one_exception_object_raised_by_two_calls_is_described_in_each(exporter: InMemorySpanExporter) -> None:
    shared = KeyError("shared")

    @module
    async def again(x: str) -> str:
        raise shared

    for _ in range(2):
        with pytest.raises(KeyError):
            await again("x")
    assert [len(span.events) for span in exporter.get_finished_spans()] == [1, 1]


@simulated
async def test_a_timeout_is_an_error_of_type_deadline_exceeded(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(TimeoutError):
        await BlockingDelay(5).with_(timeout=1, name="slow")("x")
    span = named(exporter)["slow"]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "DeadlineExceeded"
    assert (span.attributes or {})["mai.outcome"] == "timeout"
    assert [event.name for event in span.events] == ["exception"]


@simulated
async def test_a_cancelled_call_is_unset_and_says_so(exporter: InMemorySpanExporter) -> None:
    task = asyncio.create_task((shout >> BlockingDelay(5))("x"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spans = named(exporter)
    for name in ("Sequential", "BlockingDelay"):
        assert spans[name].status.status_code is StatusCode.UNSET
        assert (spans[name].attributes or {})["mai.outcome"] == "cancelled"
        assert "error.type" not in (spans[name].attributes or {})
        assert spans[name].events == ()
    assert "mai.outcome" not in (spans["shout"].attributes or {})


@simulated
async def test_a_cancel_that_the_step_swallowed_still_shows_as_cancelled(exporter: InMemorySpanExporter) -> None:
    @module
    async def stubborn(x: str) -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            pass
        return x

    with capture() as found:
        task = asyncio.create_task(stubborn("x"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    span = named(exporter)["stubborn"]
    assert found.runs[0].outcome == "cancelled"
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {}).get("mai.outcome") == "cancelled"


@simulated
async def test_an_abandoned_thread_is_named_in_its_span(exporter: InMemorySpanExporter) -> None:
    gate, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @module
    def stuck(x: str) -> str:
        loop.call_soon_threadsafe(began.set)
        gate.wait()
        return x

    task = asyncio.create_task(stuck("x"))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    facts = named(exporter)["stuck"].attributes or {}
    assert (facts["mai.thread.abandoned"], facts["mai.outcome"]) == (True, "cancelled")


@simulated
async def test_a_bad_argument_is_a_failure_of_the_call(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="must be str"):
        await shout(5)  # type: ignore[arg-type]
    span = named(exporter)["shout"]
    assert (span.attributes or {})["error.type"] == "CastError"
    assert len(span.events) == 1


@simulated
async def test_an_error_that_was_retried_marks_its_attempt_only(exporter: InMemorySpanExporter) -> None:
    @module(retry=3)
    async def flaky(x: str) -> str:
        if Context.get().retry_count < 2:
            raise ConnectionError("no")
        return x

    await (shout >> flaky)("x")
    attempts = [span for span in exporter.get_finished_spans() if span.name == "attempt"]
    others = [span for span in exporter.get_finished_spans() if span.name != "attempt"]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [len(span.events) for span in attempts] == [1, 1, 0]
    assert [(span.attributes or {})["mai.retry.attempt"] for span in attempts] == [1, 2, 3]
    assert ["mai.retry.delay" in (span.attributes or {}) for span in attempts] == [False, True, True]
    assert {span.status.status_code for span in others} == {StatusCode.UNSET}
    (outer,) = [span for span in others if span.name == "flaky"]
    facts = outer.attributes or {}
    assert (facts["mai.retry.max"], facts["mai.retry.count"], "error.type" in facts) == (3, 2, False)
    assert {span.parent.span_id for span in attempts if span.parent} == {outer.context.span_id}
    assert not {key for span in attempts for key in span.attributes or {} if key.startswith("mai.retry.max")}


@simulated
async def test_a_chain_of_exceptions_is_one_event_with_its_causes(exporter: InMemorySpanExporter) -> None:
    @module
    async def wraps(x: str) -> str:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise RuntimeError("the consequence") from error

    with pytest.raises(RuntimeError):
        await (shout >> (shout >> wraps))("x")
    events = [event for span in exporter.get_finished_spans() for event in span.events]
    (event,) = events
    facts = event.attributes or {}
    assert (facts["exception.type"], facts["exception.message"]) == ("RuntimeError", "the consequence")
    assert "ValueError: the cause" in str(facts["exception.stacktrace"])


@simulated
async def test_siblings_of_a_failure_are_cancelled_in_their_spans_too(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError):
        await Parallel(BlockingDelay(5), NonBlockingDelay(7), BlockingDelay(1).with_(name="first") >> fails)("x")
    spans = {
        (span.attributes or {})["mai.kind"]: span for span in exporter.get_finished_spans() if span.name != "first"
    }
    for kind in ("blocking_delay", "non_blocking_delay"):
        facts = spans[kind].attributes or {}
        assert (facts["mai.outcome"], spans[kind].status.status_code) == ("cancelled", StatusCode.UNSET)
    assert spans["parallel"].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(("way", "events", "records"), [("", 1, 0), ("logs", 0, 1), ("logs/dup", 1, 1)])
def test_an_exception_is_an_event_a_log_record_or_both_as_the_switch_says(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, way: str, events: int, records: int
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", way)
    logged = log_records()
    logged.clear()
    with pytest.raises(KeyError):
        (shout >> fails).run("x")
    spans = named(exporter)
    assert sum(len(span.events) for span in spans.values()) == events
    found = logged.get_finished_logs()
    assert len(found) == records
    for one in found:
        record = one.log_record
        assert (record.trace_id, record.span_id) == (spans["fails"].context.trace_id, spans["fails"].context.span_id)
        facts = record.attributes or {}
        assert (record.event_name, facts["exception.type"], facts["exception.message"]) == (
            "exception",
            "KeyError",
            "'X'",
        )
        assert "KeyError" in str(facts["exception.stacktrace"])


# ---------------------------------------------------------------- graphs and detached work


@simulated
async def test_a_graph_is_a_workflow_with_the_hash_of_its_plan(exporter: InMemorySpanExporter) -> None:
    @graph
    async def rag(text: str) -> str:
        return await shout(await shout(text))

    await rag("a")
    await (shout >> rag.with_(name="inner", retry=2))("a")
    for name, path in (("rag", "rag"), ("inner", "Sequential/inner")):
        (span,) = [one for one in exporter.get_finished_spans() if one.name == f"invoke_workflow {name}"]
        facts = span.attributes or {}
        assert (facts["gen_ai.operation.name"], facts["gen_ai.workflow.name"]) == ("invoke_workflow", name)
        assert facts["mai.plan.hash"] == rag.with_(name=name).plan().fingerprint
        assert (facts["mai.step.id"], facts["mai.kind"]) == (path, "graph")
    (attempt,) = [span for span in exporter.get_finished_spans() if span.name == "attempt"]
    assert not [key for key in attempt.attributes or {} if key.startswith("gen_ai.") or key == "mai.plan.hash"]


@simulated
async def test_detached_work_is_a_child_that_may_outlive_its_parent(exporter: InMemorySpanExporter) -> None:
    @module
    async def outer(x: float) -> Any:
        return await BlockingDelay(x).with_(detached=True, name="behind")(x)

    async with LocalEngine():
        await outer(60.0)
        assert [span.name for span in exporter.get_finished_spans()] == ["outer"]
    spans = named(exporter)
    assert tree(list(spans.values())) == {"outer": None, "behind": "outer"}
    assert (spans["behind"].attributes or {})["mai.detached"] is True
    assert "mai.outcome" not in (spans["behind"].attributes or {})
    assert (spans["behind"].end_time or 0) > (spans["outer"].end_time or 0)


@simulated
async def test_linked_detached_work_is_a_trace_of_its_own(exporter: InMemorySpanExporter) -> None:
    @module
    async def outer(x: str) -> Any:
        with tracer().start_as_current_span("mine"):
            return await (shout >> shout).with_(detached="link", name="later")(x)

    async with LocalEngine():
        handle = await outer("a")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    later, mine = spans["later"], spans["mine"]
    assert (later.parent, later.context.trace_id == mine.context.trace_id) == (None, False)
    (link,) = later.links
    assert (link.context, dict(link.attributes or {})) == (mine.context, {"mai.link": "spawned_by"})
    assert (later.attributes or {})["mai.run.id"] == (spans["outer"].attributes or {})["mai.run.id"]
    inner = [span for span in exporter.get_finished_spans() if span.name == "shout"]
    assert {span.parent.span_id for span in inner if span.parent} == {later.context.span_id}
    assert handle.trace_id == f"{later.context.trace_id:032x}"
    (known,) = handle.links
    assert known == ("spawned_by", f"{mine.context.trace_id:032x}", f"{mine.context.span_id:016x}")


@pytest.mark.parametrize("detached", [True, "link"])
@simulated
async def test_detached_work_below_an_unsampled_call_has_no_span(detached: Any) -> None:
    with recorded_spans(Decision.DROP) as found:
        async with LocalEngine():
            await Conditional(bool, then=shout.with_(detached=detached))("a")
        assert spans_asked() == 1
    assert found.get_finished_spans() == ()


def test_there_is_no_third_way_to_be_detached() -> None:
    with pytest.raises(ConfigError, match="detached"):
        shout.with_(detached="linked")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- streams


@simulated
async def test_a_stream_that_is_left_or_closed_elsewhere_ends_its_span_when_its_work_ends(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    @module
    async def words(text: str) -> AsyncIterator[str]:
        with tracer().start_as_current_span("mine"):
            for word in text.split():
                yield word
                await shout(word)

    left = words.start("a b c")
    async for _ in left.chunks():
        assert not trace.get_current_span().get_span_context().is_valid  # a reader's context stays clean
        break
    other = words.with_(name="other").start("a b c")
    reader = other.chunks().__aiter__()
    await reader.__anext__()
    await asyncio.create_task(reader.aclose())
    assert (await left, await other) == ("abc", "abc")
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    assert sorted(by_id[s.parent.span_id].name for s in spans if s.name == "mine" and s.parent) == ["other", "words"]
    assert {by_id[s.parent.span_id].name for s in spans if s.name == "shout" and s.parent} == {"mine"}
    assert [span.status.status_code for span in spans] == [StatusCode.UNSET] * len(spans)
    assert "detach" not in caplog.text.lower()


def test_what_happened_in_a_call_is_in_its_span(exporter: InMemorySpanExporter) -> None:
    @module
    async def words(text: str) -> AsyncIterator[str]:
        yield text

    (shout >> words).run("a")
    span = named(exporter)["words"]
    (event,) = span.events
    assert event.name == "mai.first_chunk"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time - 1000 < event.timestamp < span.end_time + 1000  # two clocks


@simulated
async def test_a_call_that_is_dropped_half_way_ends_its_spans(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    @module
    async def waits(x: str) -> str:
        with tracer().start_as_current_span("mine"):
            await asyncio.sleep(5)
        return x

    call = (shout >> waits)("x")
    call.send(None)  # type: ignore[attr-defined]
    call.close()  # type: ignore[attr-defined]
    spans = named(exporter)
    assert tree(list(spans.values())) == {
        "Sequential": None,
        "shout": "Sequential",
        "waits": "Sequential",
        "mine": "waits",
    }
    for name in ("Sequential", "waits"):
        assert spans[name].status.status_code is StatusCode.UNSET
        assert (spans[name].attributes or {})["mai.outcome"] == "abandoned"
    assert not [record for record in caplog.records if record.name.startswith("mai")]


# ---------------------------------------------------------------- sampling


@simulated
async def test_below_an_unsampled_root_no_tracer_is_asked_again() -> None:
    with recorded_spans(Decision.DROP) as exporter:
        result = await ((shout >> shout) & measure)("a")
        assert spans_asked() == 1
    assert result == ("A", 1)
    assert exporter.get_finished_spans() == ()


@simulated
async def test_an_unsampled_root_is_still_the_parent_that_others_see() -> None:
    found: list[SpanContext] = []

    @module
    async def look(x: str) -> str:
        found.append(trace.get_current_span().get_span_context())
        return x

    with recorded_spans(Decision.DROP), capture() as captured:
        await (look >> look)("a")
    assert found[0].is_valid
    assert not found[0].trace_flags.sampled
    assert found[0] == found[1]
    assert [h.trace_id for h in captured.runs[0].walk()] == [None, None, None]


@simulated
async def test_a_span_that_is_recorded_but_not_sampled_is_opened_below_too() -> None:
    with recorded_spans(Decision.RECORD_ONLY):
        await (shout >> shout)("a")
        assert spans_asked() == 3


@simulated
async def test_a_context_tells_the_live_span_and_a_handle_its_ids(exporter: InMemorySpanExporter) -> None:
    @module
    async def look(x: str) -> Any:
        return Context.get().span

    with capture() as captured:
        live = await look("x")
        await shout("y")
    spans = named(exporter)
    look_span, handle = spans["look"], captured.runs[0]
    assert live.get_span_context() == look_span.context
    assert handle.trace_id == f"{look_span.context.trace_id:032x}"
    assert handle.span_id == f"{look_span.context.span_id:016x}"
    assert captured.runs[1].trace_id != handle.trace_id
    assert Context.get().span is None


# ---------------------------------------------------------------- users' own spans


@simulated
async def test_a_span_that_the_user_opens_between_two_modules_is_honoured(exporter: InMemorySpanExporter) -> None:
    @module
    async def outer(x: str) -> str:
        with tracer().start_as_current_span("mine"):
            await shout(x)
        return await shout.with_(name="after")(x)

    with tracer().start_as_current_span("request"):
        await outer("x")
    assert tree(exporter.get_finished_spans()) == {
        "request": None, "outer": "request", "mine": "outer", "shout": "mine", "after": "outer"
    }  # fmt: skip


@simulated
async def test_spans_of_users_nest_in_coroutines_threads_and_generators(exporter: InMemorySpanExporter) -> None:
    class Async(Module):
        async def forward(self, x: str) -> str:
            with tracer().start_as_current_span("in async"):
                await asyncio.sleep(1)
                await shout.with_(name="below async")(x)
            return x

    class Plain(Module):
        def forward(self, x: str) -> str:
            with tracer().start_as_current_span("in thread"):
                shout.with_(name="below thread").run(x)
            return x

    class Stream(Module):
        async def forward(self, x: str) -> AsyncIterator[str]:
            with tracer().start_as_current_span("in stream"):
                yield x
                await shout.with_(name="below stream")(x)
                yield x

    class SyncStream(Module):
        def forward(self, x: str) -> Iterator[str]:
            with tracer().start_as_current_span("in sync stream"):
                yield x
                shout.with_(name="below sync stream").run(x)

    await Parallel(Async(), Plain(), Stream(), SyncStream())("x")
    found = tree(exporter.get_finished_spans())
    for step, mine in (("Async", "async"), ("Plain", "thread"), ("Stream", "stream"), ("SyncStream", "sync stream")):
        assert found.pop(step) == "Parallel"
        assert found.pop(f"in {mine}") == step
        assert found.pop(f"below {mine}") == f"in {mine}"
    assert found == {"Parallel": None}


@simulated
async def test_branches_do_not_see_each_others_spans(exporter: InMemorySpanExporter) -> None:
    class Step(Module):
        async def forward(self, seconds: float) -> float:
            with tracer().start_as_current_span("mine"):
                await asyncio.sleep(seconds)
                await shout("x")
            return seconds

    await Parallel(Step().with_(name="a"), Step().with_(name="b") >> Step().with_(name="c"))(1.0)
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}

    def up(span: ReadableSpan) -> str:
        return "" if span.parent is None else by_id[span.parent.span_id].name

    assert sorted(up(span) for span in spans if span.name == "mine") == ["a", "b", "c"]
    assert {up(span) for span in spans if span.name == "shout"} == {"mine"}


@simulated
async def test_twenty_branches_keep_their_own_spans(exporter: InMemorySpanExporter) -> None:
    class Step(Module):
        async def forward(self, seconds: float) -> str:
            name = Context.get().step_id.partition("/")[2]
            with tracer().start_as_current_span(f"{name} mine"):
                await asyncio.sleep(seconds)
                await measure.with_(name=f"{name} in a thread")("x")
            with tracer().start_as_current_span(f"{name} again"):
                return name

    await Parallel(*(Step().with_(name=f"b{i}") for i in range(20)))(1.0)
    found = tree(exporter.get_finished_spans())
    for i in range(20):
        b = f"b{i}"
        assert (found[b], found[f"{b} mine"], found[f"{b} again"]) == ("Parallel", b, b)
        assert found[f"{b} in a thread"] == f"{b} mine"
    assert len(found) == 81


@simulated
async def test_a_cleared_context_is_mended_by_the_next_call(exporter: InMemorySpanExporter) -> None:
    @module
    async def clears(x: str) -> str:
        otel.attach(otel.Context())
        return await (shout >> shout.with_(name="second"))(x)

    await clears("x")
    assert tree(exporter.get_finished_spans()) == {
        "clears": None, "Sequential": "clears", "shout": "Sequential", "second": "Sequential"
    }  # fmt: skip


@simulated
async def test_a_span_left_open_by_a_step_does_not_become_anybodys_parent(exporter: InMemorySpanExporter) -> None:
    @module
    async def careless(x: str) -> str:
        otel.attach(trace.set_span_in_context(tracer().start_span("left open")))
        return x

    await (careless >> shout)("x")
    assert trace.get_current_span().get_span_context().is_valid is False
    assert tree(exporter.get_finished_spans()) == {"Sequential": None, "careless": "Sequential", "shout": "Sequential"}


@simulated
async def test_a_context_of_another_trace_does_not_tear_ours_apart(exporter: InMemorySpanExporter) -> None:
    foreign = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState())

    @module
    async def outer(x: str) -> str:
        token = otel.attach(trace.set_span_in_context(NonRecordingSpan(foreign)))
        try:
            return await shout(x)
        finally:
            otel.detach(token)

    await outer("x")
    assert tree(exporter.get_finished_spans()) == {"outer": None, "shout": "outer"}


@simulated
async def test_baggage_of_the_ambient_context_is_kept(exporter: InMemorySpanExporter) -> None:
    found: list[object] = []

    @module
    async def look(x: str) -> str:
        found.append(otel.get_value("mine"))
        return x

    @module
    async def outer(x: str) -> str:
        otel.attach(otel.set_value("mine", 5, trace.set_span_in_context(trace.INVALID_SPAN)))
        return await look(x)

    await outer("x")
    assert found == [5]
    assert tree(exporter.get_finished_spans()) == {"outer": None, "look": "outer"}


@simulated
async def test_a_remote_parent_is_taken_up_by_the_root(exporter: InMemorySpanExporter) -> None:
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState())
    token = otel.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
    try:
        await shout("x")
    finally:
        otel.detach(token)
    span = named(exporter)["shout"]
    assert span.context.trace_id == 0xABC
    assert span.parent is not None
    assert span.parent.span_id == 0xDEF


@simulated
async def test_the_ambient_span_of_the_caller_is_untouched(exporter: InMemorySpanExporter) -> None:
    with tracer().start_as_current_span("request") as request:
        await (shout >> measure)("x")
        with pytest.raises(KeyError):
            await fails("x")
        assert trace.get_current_span() is request


@simulated
async def test_every_span_is_ended_and_none_is_kept_by_a_handle(exporter: InMemorySpanExporter) -> None:
    with capture() as captured:
        await (shout >> measure)("x")
    assert all(span.end_time for span in exporter.get_finished_spans())
    for handle in captured.runs[0].walk():
        assert not any(isinstance(value, trace.Span) for value in vars(handle).values())


@simulated
async def test_a_span_that_the_step_itself_ended_does_no_harm(exporter: InMemorySpanExporter) -> None:
    @module
    async def ends(x: str) -> str:
        span = Context.get().span
        assert span is not None
        span.end()
        return x

    assert await (ends >> shout)("a") == "A"
    assert tree(exporter.get_finished_spans()) == {"ends": "Sequential", "shout": "Sequential", "Sequential": None}


# ---------------------------------------------------------------- without an SDK


def test_without_a_provider_nothing_is_loaded_exported_or_slowed() -> None:
    done = python(
        """
import sys
import mai
from opentelemetry import trace
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")], "import mai loads the SDK"
@mai.module
async def look(x: int) -> bool:
    return mai.Context.get().span is None and not trace.get_current_span().get_span_context().is_valid
with mai.capture() as found:
    assert (look >> bool).run(1)
assert [h.trace_id for h in found.runs[0].walk()] == [None, None, None]
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")], "a run loads the SDK"
print("fine")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_provider_that_is_set_after_the_first_run_is_used() -> None:
    done = python(
        """
import mai
from opentelemetry import trace
@mai.module
async def same(x: int) -> int:
    return x
same.run(1)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
same.run(2)
print([span.name for span in exporter.get_finished_spans()])
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "['same']\n", "")


def test_a_provider_named_in_the_environment_is_used() -> None:
    done = python(
        """
import mai
@mai.module
async def look(x: int) -> bool:
    return mai.Context.get().span is not None
print(look.run(1))
""",
        env={"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_disabled_sdk_gives_no_spans() -> None:
    done = python(
        """
import mai
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
@mai.module
async def look(x: int) -> bool:
    return mai.Context.get().span is None and not trace.get_current_span().get_span_context().is_valid
print((look >> bool).run(1))
""",
        env={"OTEL_SDK_DISABLED": "true"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
