"""One call: the way from ``await module(x)`` to ``forward(x)`` and back.

`launch` and `begin` start a call; `mai.core.drive` runs it in a copied context that is then dropped. Composites use
them directly. A simple call, of which at most a handle and a light span know, takes the short body (`quick`), every
other the whole one (`_whole`); both keep the same promises.

Size: what may stand between a call and its ``forward`` is one story, told in order.
"""

import copy
import types
from asyncio import CancelledError, sleep
from contextvars import copy_context
from functools import partial
from typing import Any

from opentelemetry import context as otel

from ..errors import ConfigError
from ..values import names
from ..values.casts import size_of
from ..values.checked import UNSET
from ..values.events import Retrying, Started
from .clock import clock
from .control import join
from .drive import DONE, Body, apart, closed, failed, finish, late, outcome, start
from .engine import current_run, new_run, start_run
from .events import drain, drain_in_thread, post
from .frame import NEST, PENDING, ROOT, Frame, Scope, current, repeat, scoped, set_current
from .gather import hopped
from .middleware import Call, through
from .recorded import StepCall
from .spans import close_span, has_provider, open_span, telemetry
from .spec import Spec
from .threads import offload
from .trace import TraceHandle, begun, collect, note_span, noted, open_handle, succeeded

# What composites need of the core, from one place.
__all__ = ["DONE", "apart", "begin", "call", "current", "current_run", "finish", "launch", "outcome", "started"]


# ---------------------------------------------------------------- starting a call


async def call(m: Any, value: Any = UNSET, /, *args: Any, **kwargs: Any) -> Any:
    """Call the module: ``await m(x)`` gives its value."""
    p = current()
    spec: Spec = m._mai_spec or m._mai_compile()
    key, run, quiet = spec.key, p.run, p.quiet
    if quiet:  # a call made by user code inside a run: repeats are numbered
        if p.seen is None:
            p.seen, p.started = {}, None
        above, seen = p.handle, p.seen
        n = seen[key] = seen.get(key, 0) + 1
    elif run is not None:
        if p.env.tracer is not None:
            return p.env.tracer(m, () if value is UNSET else (value, *args), kwargs)
        n, quiet, above = repeat(p, key), p.light, p.above
    else:
        n, above = 0, p.above
        if p.light and not (has_provider() or telemetry.watchers or (run := new_run(p.env)).engine.watchers):
            quiet = p.light
    if args or kwargs or value is UNSET or not (quiet and spec.simple):
        return await outcome(begin(m, p, key, n, args if value is UNSET else (value, *args), kwargs))
    f, ctx = Frame(), copy_context()  # from here on it does what `launch` does, without a call of it
    f.mod, f.parent, f.key = m, p, key
    f.n, f.env, f.run = n, p.env, run
    f.deadline, f.quiet = p.deadline, quiet - 1
    f.seen = f.handle = None
    body: Any = quick(f, m, value, spec, above)
    y = ctx.run(next, body, DONE)
    if y is not DONE:
        f.y, f.body, f.ctx = y, body, ctx
        await finish(f)
    out, f.out = f.out, DONE
    return out


def launch(
    m: Any, p: Frame, key: str, value: Any, n: int = 0, attrs: Any = None, args: Any = None, ctx: Any = None
) -> Frame:
    """Start ``m(value)`` as the child *key* of *p*; run it to its first suspension or its end (``y is DONE``).

    *args* are values that are known to be of their types; where they are empty, *value* is. *ctx* is a copied context
    for it.
    """
    spec: Spec = m._mai_spec or m._mai_compile()
    if not (p.quiet and (spec.simple if args is None else spec.plain)):
        whole: Any = m, p, key, n, tuple(args) if args else (value,), {}, attrs
        return begin(*whole) if ctx is None else ctx.run(begin, *whole)
    f, ctx = Frame(), ctx or copy_context()
    f.mod, f.parent, f.key = m, p, key
    f.n, f.env, f.run = n, p.env, p.run
    f.deadline, f.quiet = p.deadline, p.quiet - 1
    f.seen = f.handle = None
    body: Any = quick(f, m, value, spec, p.handle, attrs, args)
    y = f.y = ctx.run(next, body, DONE)
    if y is not DONE:
        f.body, f.ctx = body, ctx
    return f


def begin(
    m: Any, p: Frame, key: str, n: int, args: tuple[Any, ...], kwargs: dict[str, Any], attrs: Any = None,
    handle: TraceHandle[Any] | None = None,
) -> Frame:  # fmt: skip
    """Start any call: with settings, several arguments, a *handle* that was started, a span, a scope around."""
    spec: Spec = m._mai_spec or m._mai_compile()
    if p.run is None and handle is None and p.env.engine is not None and p.env.engine.durable:
        return p.env.engine.called(m, args, kwargs)  # type: ignore[no-any-return]
    if spec.detached and handle is None:
        return _detach(m, p, key, n, args, kwargs, attrs=attrs)
    owner, armed = (p.owner, p.armed) if isinstance(p, Scope) else (p, p.deadline)
    f = Frame()
    left = owner.quiet or getattr(owner, "left", 0)
    f.mod, f.parent, f.key, f.n, f.left = m, owner, key, n, (left or NEST + 1) - 1
    f.env, f.run, f.deadline = p.env, p.run or new_run(p.env), p.deadline
    f.seen = f.lost = f.started = f.handle = f.span = f.timer = f.since = f.out = f.y = None
    timed = p.deadline is not None or spec.limit is not None or spec.attempts
    overdue = _set_deadline(f, p, spec, armed) if timed else False
    records, traced = f.run.records, (p.handle is not None and p.span is not None) or (owner is ROOT and has_provider())
    context = open_span(f, p, spec, attrs, handle) if traced and not records else None
    live: Any = f.span
    sink, above, watched = f.env.sink, owner.handle, owner is ROOT and (f.run.engine.watchers or telemetry.watchers)
    if handle is not None or above is not None or sink is not None or watched or live or records:
        h = f.handle = handle or open_handle(f, above, spec, attrs)
        if live:
            note_span(h, live)
        collect(h, f, owner)
    direct = spec.direct and not f.env.doubles
    heavy = records or telemetry.sizes or (live and (telemetry.light is None or telemetry.record))
    f.quiet = 0 if heavy or f.env.bus or f.env.doubles or (sink is not None and sink.sizes) else f.left
    if records:
        opening = partial(open_span, f, p, spec, attrs, handle) if traced else None
        body: Any = _asked(f, m, args, kwargs, spec, opening, overdue=overdue)
    else:
        body = _whole(f, m, args, kwargs, spec, context, direct=direct, overdue=overdue)
    return start(f, body if left else hopped(body, lambda cancel: _dropped(f, cancel)))


def started(m: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TraceHandle[Any]:
    """Start ``m(*args, **kwargs)`` as a run, which is a child of the call around if there is one."""
    p, spec = current(), m._mai_spec or m._mai_compile()
    if p.run is None and p.env.engine is not None and p.env.engine.durable:
        return p.env.engine.submit(m, args, kwargs)  # type: ignore[no-any-return]
    return start_run(begin, m, p, spec.key, 0 if p.run is None else repeat(p, spec.key), args, kwargs, None)


def _detach(m: Any, p: Frame, *call: Any, attrs: dict[str, Any] | None) -> Frame:
    """Start a call as detached work; its handle is the value."""
    if p.run is not None and p.run.records:
        raise ConfigError(f"{p.path}: detached work would not be recorded; start a run of its own: engine.start(...)")
    f = Frame()
    f.handle, f.y = None, DONE
    link = {names.LINK: "spawned_by"} if m._mai_spec.detached == "link" else {}
    f.out = start_run(begin, m, p, *call, {**(attrs or {}), names.DETACHED: True, **link}, apart=True)
    return f


def _set_deadline(f: Frame, p: Frame, spec: Spec, armed: float | None) -> bool:
    """Give *f* its deadline and, where no timer around serves it, a timer; say whether it has passed already."""
    now, inherited = clock.now(), p.deadline
    f.since, f.timer = now, None
    if inherited is not None and inherited != armed:
        f.timer = PENDING
    if spec.limit is not None and (inherited is None or now + spec.limit < inherited):
        f.deadline, f.timer = now + spec.limit, PENDING
    return inherited is not None and now >= inherited


# ---------------------------------------------------------------- the body of a call


@types.coroutine
def quick(f: Frame, m: Any, value: Any, spec: Spec, above: Any, attrs: Any = None, args: Any = None) -> Body:
    """The body of a simple call, of which nothing but a handle knows, with *args* or, where there are none, *value*.

    It has one if there is one *above*.
    """
    set_current(f)
    h = None
    try:
        if above is not None:
            h = f.handle = open_handle(f, above, spec, attrs, args or value)
            f.y, f.span = None, f.parent.span and telemetry.light and telemetry.light(f.parent.span, h, spec)
        if (f.deadline is not None or spec.limit is not None) and _set_deadline(f, f.parent, spec, f.deadline):
            raise late(f)  # nothing starts
        if spec.tin is not None and args is None and type(value) is not spec.tin:
            value = spec.fit(value, f)
        if spec.direct:
            out: Any = yield from m.forward(*args) if args else m.forward(value)  # pyright: ignore[reportUnknownVariableType]
        else:
            out = yield from offload(partial(m.forward, *(args or (value,))))  # pyright: ignore[reportUnknownVariableType, reportGeneralTypeIssues]
        if f.seen is not None and f.started is not None:
            yield from join(f.started).__await__()
        if spec.tout is not None and type(out) is not spec.tout and not _cancelled(f):  # pyright: ignore[reportUnknownArgumentType]
            out = spec.cast_out(out, "return", f)
        f.out = out
        if h is not None and (f.y is None or f.y[0].cancelling() <= f.y[1]):  # not `_cancelled`, else `finish` tells it
            succeeded(h, out, spec, None)
            if f.span is not None:
                close_span(f, h, None, innermost=False)
    except BaseException as error:
        yield from _ended(f, error)  # pyright: ignore[reportGeneralTypeIssues]
        raise


@types.coroutine
def _whole(f: Frame, m: Any, args: Any, kwargs: Any, spec: Spec, context: Any, *, direct: bool, overdue: bool) -> Body:
    """The body of any call."""
    set_current(f)
    if context is not None:
        otel.attach(context)
    h = f.handle
    try:
        _tell(f, h)
        bound = _prepared(f, args, kwargs, spec, overdue=overdue)
        if direct:
            out: Any = yield from m.forward(*bound[0], **bound[1])  # pyright: ignore[reportUnknownVariableType]
        else:
            out = yield from _answer(f, m, spec, (args, kwargs), bound).__await__()
        if f.started is not None:
            yield from join(f.started).__await__()
        if type(out) is not spec.tout and spec.tout is not None and not _cancelled(f):  # pyright: ignore[reportUnknownArgumentType]
            out = spec.cast_out(out, "return", f)
        _go_on(f)  # the step swallowed it
        f.out = out
        if h is not None:
            _close(f, h, out, spec)
    except BaseException as error:
        yield from _ended(f, error)  # pyright: ignore[reportGeneralTypeIssues]
        raise


@types.coroutine
def _asked(f: Frame, m: Any, args: Any, kwargs: Any, spec: Spec, opening: Any, *, overdue: bool) -> Body:
    """The body of any call in a run that records."""
    set_current(f)
    h: Any = f.handle
    run: Any = f.run
    if spec.flow and opening is not None and (context := run.spanned(f, opening)) is not None:
        otel.attach(context)
    try:
        begun(h)
        bound = _prepared(f, args, kwargs, spec, overdue=False)
        given = args, kwargs
        if spec.flow:
            body = StepCall(f, spec, bound, lambda: _answer(f, m, spec, given, bound))
        else:
            body = StepCall(f, spec, bound, lambda: _performed(f, m, spec, given, bound, opening, overdue=overdue))
        asked: Body = run.step(f.path, body).__await__()
        out, _, replayed = yield from asked
        if f.started is not None:
            yield from join(f.started).__await__()
        _go_on(f)
        f.out = out
        _close(f, h, out, spec, replayed=replayed)
    except BaseException as error:
        yield from _ended(f, error)  # pyright: ignore[reportGeneralTypeIssues]
        raise


async def _performed(f: Frame, m: Any, spec: Spec, given: Any, bound: Any, opening: Any, *, overdue: bool) -> Any:
    """Run the body of a step of which there is no record: only now its span opens, and nothing inside is recorded."""
    h: Any = f.handle
    run: Any = f.run
    f.run = run.inside
    context = opening and opening()
    if context is not None:
        otel.attach(context)
    if f.span is not None:
        note_span(h, f.span)
        if telemetry.record is not None:
            telemetry.record(f.span, spec, "input", bound)
    _tell(f, h)
    if overdue:
        raise late(f)
    out = await _answer(f, m, spec, given, bound)
    if f.started is not None:
        await join(f.started)
    if type(out) is not spec.tout and spec.tout is not None and not _cancelled(f):
        out = spec.cast_out(out, "return", f)
    _go_on(f)
    return out


@types.coroutine
def _ended(f: Frame, error: BaseException) -> Body:
    """End the call *f* with *error*, which the caller raises, when what it has started has ended."""
    cut: Any = None if f.seen is None or f.started is None else (yield from join(f.started, error).__await__())
    failed(f, error)
    if cut is not None and isinstance(error, Exception):  # else who catches the failure would go on
        raise cut


def _dropped(f: Frame, cancel: BaseException) -> None:
    """Tell of a call that was cancelled before its body could begin: each call begins and ends once."""
    _tell(f, f.handle)
    failed(f, cancel)


def _tell(f: Frame, h: TraceHandle[Any] | None) -> None:
    """Let the call *f* have begun, and the started run know."""
    if h is not None and h.start_ns is None:
        begun(h)
    if h is not None and f.env.bus is not None and f.n >= 0:  # of an attempt only the outcome is told
        post(Started, h.name, h.kind, frame=f)


def _close(f: Frame, h: TraceHandle[Any], out: Any, spec: Spec, *, replayed: bool = False) -> None:
    succeeded(h, out, spec, telemetry if telemetry.sizes else f.env.sink)
    if replayed:
        h.outcome = "replayed"
    if f.span is not None:
        if telemetry.record is not None and not spec.attempts:
            telemetry.record(f.span, spec, "output", out)
        close_span(f, h, None, innermost=False)
    if (f.env.bus is not None or f.parent is ROOT) and not replayed:
        closed(f, h)


def _prepared(f: Frame, args: Any, kwargs: Any, spec: Spec, *, overdue: bool) -> Any:
    """Return the arguments for ``forward``: bound, cast, measured, and copied if they are to be isolated."""
    if overdue:
        raise late(f)  # nothing starts
    alone = len(args) == 1 and not kwargs
    if not spec.attempts:  # an attempt gets what the call around it has bound
        args, kwargs = spec.signature.bind(args, kwargs, spec.params, f, spec.settings)
    if f.handle is not None and alone:
        f.handle.input_size = size_of(args[0], spec.signature.takes, telemetry if telemetry.sizes else f.env.sink)
    if telemetry.record is not None and f.span is not None and not spec.attempts:
        telemetry.record(f.span, spec, "input", (args, kwargs))
    return copy.deepcopy((args, kwargs)) if spec.deep else (args, kwargs)


async def _answer(f: Frame, m: Any, spec: Spec, given: Any, bound: Any) -> Any:
    """Return what ``forward``, or what stands in for it, answers through middleware, fallbacks and attempts."""
    own = m.forward, m.colour if spec.attempts else spec.colour
    forward, colour = f.env.doubles.get(m._mai_identity, own)
    if spec.inner is None:
        return await _invoke(colour, spec, forward, *bound)
    # What stands for the module in the call of an attempt.
    attempt = types.SimpleNamespace(_mai_spec=spec.inner, _mai_identity=None, forward=forward, colour=colour)

    async def innermost(call: Call) -> Any:
        _go_on(f)  # a middleware that asks once more
        if call is first:
            return await _attempts(f, spec, attempt, bound, given)
        raw = call.args, dict(call.kwargs)
        return await _attempts(f, spec, attempt, spec.signature.bind(*raw, {}, f, spec.settings), raw)

    first = Call(spec.what[0], f.path, *bound)
    return await through(spec.middleware, innermost)(first)


async def _attempts(f: Frame, spec: Spec, attempt: Any, bound: Any, given: Any) -> Any:
    """Return what the first attempt to succeed answers, or else the first fallback."""
    count, delay = 1, 0.0
    while True:
        facts = {names.RETRY_ATTEMPT: count, **({names.RETRY_DELAY: delay} if count > 1 else {})}
        try:
            # An attempt of a flow is a scope of its own: it must not find the records of the one before.
            key = f"#{count}" if count > 1 and current_run().records else ""
            return await outcome(begin(attempt, current(), key, -count, bound[0], bound[1], facts))
        except Exception as error:  # noqa: BLE001 (the policy says whether it is the call's outcome)
            pause = spec.retry.pause(count, error)
            pause = None if pause is None else await _decided(f, f"!pause[{count}]", pause)
            if pause is None:
                return await _fallen_back(f, spec, given, bound, error)
            delay, text = pause, str(error)
        if f.env.bus is not None:
            f.env.bus.post(Retrying(f.path, count, text, delay))
        noted(f, {names.RETRY_COUNT: count})
        run = current_run()  # within a step, whose attempts have one record in all, it records nothing
        await (run.sleep(f"{f.path}!retry[{count}]", delay) if run.records else sleep(delay))
        count += 1


async def _fallen_back(f: Frame, spec: Spec, given: Any, bound: Any, error: Exception) -> Any:
    """Return what the first fallback to succeed answers; with none, raise the last error.

    It gets what the caller gave, by position as far as it has places, and what it knows by name; no defaults.
    """
    places = [p.name for p in spec.signature.positional]
    count = max([len(given[0]), *(places.index(key) + 1 for key in given[1] if key in places)])
    for i, other in enumerate(spec.fallback):
        if await _decided(f, f"!next[{i}]", 0.0) is None:
            break
        p = current()
        if spec.timeout is not None:
            fresh = clock.now() + spec.timeout
            p = scoped(p, deadline=fresh if p.deadline is None else min(fresh, p.deadline))
        try:
            to: Spec = other._mai_spec or other._mai_compile()
            named = {key: given[1][key] for key in given[1] if key not in places and to.signature.parameter(key)}
            args = bound[0][: count if to.signature.rest else min(count, len(to.signature.positional))]
            out = await outcome(begin(other, p, f"!fallback[{i}]{to.key}", 0, args, named))
        except Exception as failure:  # noqa: BLE001 (the next one is asked)
            error = failure
            continue
        noted(f, {names.FALLBACK_INDEX: i})
        return out
    raise error


async def _decided(f: Frame, key: str, pause: float) -> float | None:
    """Return *pause* if the call *f* was not cancelled, and has time for it and for something after it, else None."""
    deadline, run = current().deadline, current_run()
    made = pause if not _cancelled(f) and (deadline is None or clock.now() + pause < deadline) else None
    return await run.value(f.path + key, lambda: made) if run.records else made


def _go_on(f: Frame) -> None:
    """Raise the cancel that has come for *f*, if one has."""
    if _cancelled(f):
        raise CancelledError(*f.y[2])


def _cancelled(f: Frame) -> bool:
    """Whether a cancel has come for *f*, if it has waited, be it that a step swallowed it or failed in its clean-up."""
    return (y := getattr(f, "y", None)) is not None and y[0].cancelling() > y[1]


async def _invoke(colour: str, spec: Spec, forward: Any, args: Any, kwargs: Any) -> Any:
    """Run ``forward`` in the way that its colour needs."""
    if colour in ("async generator", "generator"):
        drained = drain if colour == "async generator" else drain_in_thread
        return _join(await drained(lambda: forward(*args, **kwargs)), spec)
    if colour == "plain":
        return await offload(partial(forward, *args, **kwargs))
    out = forward(*args, **kwargs)
    return await out if hasattr(type(out), "__await__") else out  # a partial or a cached function may hide a coroutine  # pyright: ignore[reportUnknownArgumentType]


def _join(chunks: list[Any], spec: Spec) -> Any:
    """Return the value of a stream: the joined str or bytes, else the list."""
    gives = spec.cast_out
    for kind, empty in ((str, ""), (bytes, b"")):
        if all(isinstance(chunk, kind) for chunk in chunks) and (gives.tp is kind or (gives.free and chunks)):
            return empty.join(chunks)
    return chunks
