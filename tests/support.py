"""What many tests use: simulated time, recorded spans, a program in an interpreter of its own.

`simulated` runs an async test on a loop whose clock jumps to the next timer when nothing else is left to do, so that a
test of a minute's timeout takes a millisecond and its times are exact. The loop is in debug mode, and a test fails if
it leaves a task or an unheard exception behind. Other than in `mai.testing` the worker threads are real ones, which run
at the same time: that is what many of these tests are about.
"""

import asyncio
import functools
import inspect
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

import mai
from mai import ConfigError
from mai.core.clock import clock
from mai.testing.clocks import exchanged

__all__ = [
    "Simulation", "loop_of", "python", "recorded_spans", "refused", "refused_value", "simulate", "simulated",
    "spans_asked", "still",
]  # fmt: skip

T = TypeVar("T")
_STUCK = 5.0  # real seconds in which a thread must have said something


class _Jump(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Instead of waiting for a timer, moves the loop's clock."""

    loop: "Simulation"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; never wait for time to pass, only for threads."""
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.loop.frozen:
            ready = super().select(_STUCK)
            if not ready:
                raise AssertionError("nothing is ready, no timer is set, and no thread has come back: a deadlock")
            return ready
        self.loop.now += timeout
        return ready


class Simulation(asyncio.SelectorEventLoop):
    """An event loop whose time passes only by jumps to its next timer."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the executor's threads in real time: simulated seconds pass at once."""
        executor = getattr(self, "_default_executor", None)
        if executor is not None:
            executor.shutdown(wait=True)

    def __init__(self) -> None:
        self.now, self.frozen = 1000.0, 0
        self.problems: list[str] = []
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)
        self.set_debug(True)
        self.set_exception_handler(lambda _, facts: self.problems.append(f"{facts['message']}: {facts}"))

    def time(self) -> float:
        """Return the simulated time [s]."""
        return self.now

    def freeze(self) -> None:
        """Let time stand still until `thaw`: a thread has something to do first."""
        self.frozen += 1

    def thaw(self) -> None:
        """Undo one `freeze`; from any thread."""
        self.call_soon_threadsafe(self._thaw)

    def _thaw(self) -> None:
        self.frozen -= 1


def loop_of() -> Simulation:
    """Return the running simulation."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Simulation)
    return loop


@contextmanager
def still() -> Iterator[None]:
    """Let no simulated time pass inside the block, where worker threads have something to do before a deadline."""
    loop = loop_of()
    loop.frozen += 1
    try:
        yield
    finally:
        loop.frozen -= 1


def simulate(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``await main()`` in simulated time; nothing may be left behind."""
    with asyncio.Runner(loop_factory=Simulation) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Simulation)
        with exchanged(clock, now=loop.time, wall=loop.time, ticks=lambda: int(loop.now * 1e9)):
            try:
                return runner.run(main())
            finally:
                left = [task for task in asyncio.all_tasks(loop) if not task.done()]
                assert not left, f"tasks left behind: {left}"
                assert not loop.problems, loop.problems


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test one that runs in simulated time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        simulate(lambda: test(*args, **kwargs))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


class _Switch(Sampler):
    """Samples what tests ask for."""

    def __init__(self) -> None:
        self.decision = Decision.DROP
        self.asked = 0
        self.block = object()
        self.provider: TracerProvider | None = None

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None, links: Any = None
    ) -> SamplingResult:
        """Return the decision of the moment."""
        self.asked += 1
        return SamplingResult(self.decision, attributes)

    def get_description(self) -> str:
        """Return a name."""
        return "switch"


class _Begun(SimpleSpanProcessor):
    """Exports the spans that began in the block that is open: the garbage collector may end one of an earlier block."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        super().__init__(exporter)
        self.begun = set[int]()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Write down that it began."""
        self.begun.add(span.context.span_id)

    def on_end(self, span: ReadableSpan) -> None:
        """Export it if it began here."""
        if span.context.span_id in self.begun:
            super().on_end(span)


@functools.cache
def _provider() -> tuple[_Switch, InMemorySpanExporter, _Begun]:
    """Set the provider: that can be done only once in a process. It drops everything unless a test asks."""
    switch, exporter = _Switch(), InMemorySpanExporter()
    processor = _Begun(exporter)
    provider = switch.provider = TracerProvider(sampler=switch, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return switch, exporter, processor


@contextmanager
def recorded_spans(decision: Decision = Decision.RECORD_AND_SAMPLE) -> Iterator[InMemorySpanExporter]:
    """Collect the spans that begin and end inside the block; *decision* is the sampler's for every span.

    A block that is left late, because what holds it is garbage, says nothing about the one that is open then.
    """
    switch, exporter, processor = _provider()
    assert trace.get_tracer_provider() is switch.provider, "another tracer provider was set before"
    exporter.clear()
    processor.begun.clear()
    own = switch.block = object()
    switch.decision, switch.asked = decision, 0
    try:
        yield exporter
    finally:
        if switch.block is own:
            switch.decision = Decision.DROP


def spans_asked() -> int:
    """Return how often the sampler was asked in the innermost `recorded_spans` block."""
    return _provider()[0].asked


@contextmanager
def refused_value(owner: str, key: str, value: object) -> "Iterator[pytest.ExceptionInfo[Any]]":
    """Expect the ConfigError of a value that cannot be used: it names owner, setting and value, and says what can."""
    with pytest.raises(ConfigError) as caught:
        yield caught
    assert type(caught.value) is ConfigError
    about = f"{owner}: {key}={value!r} "
    assert str(caught.value).startswith(about)
    assert len(str(caught.value)) > len(about) + 15


@contextmanager
def refused(kind: type[BaseException], message: str) -> "Iterator[pytest.ExceptionInfo[Any]]":
    """Expect exactly this error: its class and its whole message (notes left out)."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind
    assert str(caught.value) == message


def python(
    code: str, *, env: Mapping[str, str] | None = None, timeout: float = 60.0, watched: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run a program in an interpreter of its own, warnings as errors, and return how it ended.

    Unless it is *watched*, its standard error leaves out what the watch says of a busy machine: that a step has blocked
    the event loop.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=Path(mai.__file__).resolve().parents[1],
        env={**os.environ, **(env or {})},
        check=False,
    )
    if not watched:
        lines = done.stderr.splitlines(keepends=True)
        done.stderr = "".join(line for line in lines if "has blocked the event loop for" not in line)
    return done
