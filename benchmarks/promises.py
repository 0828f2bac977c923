"""The promises of a call, asserted of the very objects that are timed, before they are timed.

While a check runs, the code of the timed ``forward`` is exchanged for a probe that looks around and fails where it is
told to; the module, its settings and all that the kernel has prepared for it stay the same objects. Afterwards the
timed code is put back.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from types import CodeType
from typing import Any

from mai import CastError, Context, DeadlineExceeded, Module, TraceHandle, capture

__all__ = [
    "BrokenPromise",
    "check_cancel",
    "check_deadline",
    "check_misfit",
    "check_promises",
    "look",
    "look_again",
    "probing",
    "promise",
]

_OUTSIDE = "the caller's"
_var: ContextVar[str] = ContextVar("benchmarks.promises")
_HANG = 0.01  # seconds until a hanging step must be over


class BrokenPromise(AssertionError):
    """A timed object does not keep a promise, so its time would say nothing."""


class Boom(Exception):
    """What a probe raises."""


class _Ledger:
    """What the probes of one check saw."""

    def __init__(self) -> None:
        self.clear()

    def clear(self, fail_at: str | None = None) -> None:
        self.seen: dict[str, int] = {}  # step id: how often
        self.foreign: list[str] = []
        self.fail_at = fail_at
        self.deadline: float | None = None


_ledger = _Ledger()


def promise(kept: object, text: str) -> None:
    """Raise BrokenPromise with *text* unless *kept*."""
    if not kept:
        raise BrokenPromise(text)


def look() -> str:
    """Do what a step may do: ask for its Context, set a contextvar, fail. Probes call it."""
    here = Context.get()
    around = here.step_id.rpartition("/")[0]
    if _var.get(None) != (around if around in _ledger.seen else _OUTSIDE):
        _ledger.foreign.append(here.step_id)
    _ledger.seen[here.step_id] = _ledger.seen.get(here.step_id, 0) + 1
    _ledger.deadline = here.deadline
    _var.set(here.step_id)
    if here.step_id == _ledger.fail_at:
        raise Boom(here.step_id)
    return here.step_id


def look_again(mine: str) -> None:
    """Look once more after the step has waited: its contextvar is still its own."""
    if _var.get(None) != mine:
        _ledger.foreign.append(mine)


@contextlib.contextmanager
def probing(forward: Any, probe: Any) -> Iterator[None]:
    """Let the function *forward* do what *probe* does, inside the block."""
    timed: CodeType = forward.__code__
    forward.__code__ = probe.__code__
    try:
        yield
    finally:
        forward.__code__ = timed


async def check_promises(
    call: Callable[[], Awaitable[Any]], forward: Any, probe: Any, paths: Sequence[str], *, value: Any
) -> None:
    """Assert that all steps inside ``await call()`` keep the promises of a call.

    Args:
        call: Calls the timed object in the timed circumstances, without a capture around.
        forward: The function that is timed; *probe* takes its place meanwhile.
        probe: Calls `look` and returns a value like *forward*.
        paths: The step ids of all steps that run *forward*.
        value: What the call gives.

    Raises:
        BrokenPromise: If one does not.
    """
    token = _var.set(_OUTSIDE)
    try:
        with probing(forward, probe):
            await _check_isolation(call, paths, value)
            for path in {paths[0], paths[-1], paths[len(paths) // 2]}:
                await _check_failure(call, path)
                with capture():
                    await _check_failure(call, path, timed=True)
            await _check_handles(call, paths)
    finally:
        _ledger.clear()
        _var.reset(token)
    promise(await call() == value, f"the timed code gives {value!r}")


async def _check_isolation(call: Callable[[], Awaitable[Any]], paths: Sequence[str], value: Any) -> None:
    for watched in (False, True):
        _ledger.clear()
        with capture() if watched else contextlib.nullcontext():
            got = await call()
        promise(got == value, f"the call gives {value!r}, not {got!r}")
        promise(_var.get() == _OUTSIDE, "a contextvar that a step sets does not reach its caller")
        promise(not _ledger.foreign, f"a step sees its caller's contextvars, not a sibling's: {_ledger.foreign[:3]}")
        different = sorted(set(_ledger.seen) ^ set(paths)) or [path for path, n in _ledger.seen.items() if n > 1]
        promise(not different, f"Context.get().step_id is each step's own, once: {len(paths)} steps, {different[:3]}")


async def _check_failure(call: Callable[[], Awaitable[Any]], path: str, *, timed: bool = False) -> None:
    _ledger.clear(fail_at=path)
    try:
        await call()
    except Boom as error:
        notes = getattr(error, "__notes__", [])
        promise(len(notes) == 1 and notes[0].startswith(f"mai: in {path}"), f"one note names the step {path}: {notes}")
        promise(not timed or "(after " in notes[0], f"the note of an observed step says after which time: {notes}")
        trace = getattr(error, "__mai_trace__", None)
        promise(isinstance(trace, TraceHandle), f"a failure carries __mai_trace__: {trace!r}")
        top = path.split("/")[0].split("[")[0]
        promise(trace.step_id == top, f"__mai_trace__ is the handle of the outermost call {top!r}: {trace!r}")
        own = [handle for handle in trace.find(outcome="error") if handle.step_id == path]
        full = any(
            handle.dropped for handle in trace.walk()
        )  # a handle keeps its first 1,000 children and counts the rest
        promise(full or (own and own[0].error.type == "Boom"), f"the failed step {path} has its handle: {own}")
    except (asyncio.CancelledError, Exception) as error:  # what else comes of it is not what was raised
        raise BrokenPromise(f"the failure of {path} reaches the caller unchanged, not as {error!r}") from error
    else:
        raise BrokenPromise(f"the failure of {path} reaches the caller")
    promise(_var.get() == _OUTSIDE, "a contextvar that a failing step set does not reach its caller")


async def _check_handles(call: Callable[[], Awaitable[Any]], paths: Sequence[str]) -> None:
    _ledger.clear()
    with capture() as trace:
        await call()
    handles = {handle.step_id: handle for run in trace.runs for handle in run.walk()}
    dropped = sum(handle.dropped for handle in handles.values())
    missing = [path for path in paths if path not in handles]
    promise(len(missing) <= dropped, f"a handle can be had of each step: none of {missing[:3]}")
    for path in paths:
        if path in handles:
            handle = handles[path]
            known = handle.ok and handle.duration is not None and handle.started_at is not None
            promise(known, f"a handle says how the step ended and when: {handle!r}")


async def check_deadline(
    m: Module, forward: Any, probe: Any, hang: Any, *, value: Any = 1, within: float | None = None
) -> None:
    """Assert that the deadline of *m* is honoured.

    Args:
        m: The timed module.
        forward: Its function.
        probe: As in `check_promises`.
        hang: A probe that does not end in time.
        value: What *m* is called with.
        within: The timed module's own timeout [s], if it has one.

    Raises:
        BrokenPromise: If a hanging step is not ended, or a step does not know its deadline.
    """
    if within is not None:
        _ledger.clear()
        with probing(forward, probe):
            await m(value)
        left = (_ledger.deadline or 0.0) - time.monotonic()
        promise(0 < left <= within, f"a step knows its deadline: {left} s are left of {within} s")
    start = time.monotonic()
    with probing(forward, hang):
        try:
            await m.with_(timeout=_HANG)(value)
        except DeadlineExceeded as error:
            promise(isinstance(getattr(error, "__mai_trace__", None), TraceHandle), "a timeout carries __mai_trace__")
        else:
            raise BrokenPromise("a step that hangs is ended at its deadline")
    promise(time.monotonic() - start < 1.0, "a step that hangs is ended soon after its deadline")


async def check_cancel(call: Callable[[], Awaitable[Any]]) -> None:
    """Assert that a call that is cancelled while its steps wait leaves no task behind.

    Raises:
        BrokenPromise: If it does, or goes on.
    """
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise BrokenPromise("a cancelled call ends with CancelledError")
    promise(asyncio.all_tasks() == before, "a cancelled call leaves no task behind")


async def check_misfit(call: Callable[[Any], Awaitable[Any]], bad: Any) -> None:
    """Assert that a value that does not fit is refused.

    Raises:
        BrokenPromise: If it is not.
    """
    try:
        await call(bad)
    except CastError as error:
        promise(error.step_id, "a CastError names its step")
    else:
        raise BrokenPromise(f"an input that does not fit is refused: {bad!r}")
