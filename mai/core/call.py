"""One call: the way from ``await module(x)`` to ``forward(x)`` and back.

`launch` and `begin` start a call; `mai.core.drive` runs it in a copied context that is then dropped. Composites use
them directly. A simple call that nothing observes takes the short body (`quick`), every other the whole one (`_whole`);
both keep the same promises.
"""

import copy
import types
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import aclosing
from contextvars import copy_context
from typing import Any

from opentelemetry import context as otel

from . import names
from .clock import clock
from .drive import DONE, Body, apart, failed, finish, late, start
from .engine import current_run, new_run
from .events import Retrying
from .frame import PENDING, ROOT, Frame, Scope, current, scoped, set_current
from .hop import hopped
from .middleware import Call, through
from .signature import colour_of
from .spans import close_span, has_provider, open_span
from .spec import Spec
from .threads import offload
from .trace import begun, open_handle, size_of, succeeded

# What composites need of the core, from one place.
__all__ = ["DONE", "apart", "begin", "current", "current_run", "finish", "launch", "launcher", "names"]


# ---------------------------------------------------------------- starting a call


def launch(m: Any, p: Frame, key: str, value: Any, n: int = 0, attrs: dict[str, Any] | None = None) -> Frame:
    """Start ``m(value)`` as the child *key* of *p*; run it to its first suspension or its end (``y is DONE``)."""
    spec: Spec = m._mai_spec or m._mai_compile()
    run, deadline, since, timer = p.run, p.deadline, None, None
    slow = not (p.quiet and spec.simple) or (spec.tin is not None and type(value) is not spec.tin)
    if slow or (run is None and has_provider()):
        return begin(m, p, key, n, (value,), {}, attrs)
    if deadline is not None or spec.limit is not None:
        since = clock.now()
        if deadline is not None and since >= deadline:
            return begin(m, p, key, n, (value,), {}, attrs)  # which starts nothing
        if spec.limit is not None and (deadline is None or since + spec.limit < deadline):
            deadline, timer = since + spec.limit, PENDING
    f = Frame()
    f.mod, f.parent, f.key, f.n, f.depth = m, p, key, n, p.depth + 1
    f.env, f.run, f.deadline, f.since, f.timer = p.env, run or new_run(p.env), deadline, since, timer
    f.seen = f.lost = f.handle = f.span = None
    f.quiet = True
    body: Any = quick(f, m, value, spec)
    return start(f, body if f.depth & 63 else hopped(body))


def launcher(p: Frame) -> Callable[[Any, str, int, tuple[Any, ...] | list[Any]], Frame]:
    """Return what starts ``m(*args)`` as a child of *p*, like `launch`, with arguments known to be of their types.

    For the branch runner, whose tasks have fresh stacks: no such call needs one of its own.
    """
    run, env, deadline, depth = p.run, p.env, p.deadline, p.depth + 1
    straight = p.quiet and run is not None

    def start_wired(m: Any, key: str, n: int, args: tuple[Any, ...] | list[Any]) -> Frame:
        spec: Spec = m._mai_spec or m._mai_compile()
        since, limit, timer = None, deadline, None
        if not (straight and spec.plain):
            return begin(m, p, key, n, tuple(args), {}, wired=True)
        if deadline is not None or spec.limit is not None:
            since = clock.now()
            if deadline is not None and since >= deadline:
                return begin(m, p, key, n, tuple(args), {}, wired=True)  # which starts nothing
            if spec.limit is not None and (deadline is None or since + spec.limit < deadline):
                limit, timer = since + spec.limit, PENDING
        f = Frame()
        f.mod, f.parent, f.key, f.n, f.depth = m, p, key, n, depth
        f.env, f.run, f.deadline, f.since, f.timer = env, run, limit, since, timer
        f.seen = f.lost = f.handle = f.span = None
        f.quiet = True
        body: Any = quick_wired(f, m, args, spec)
        ctx = copy_context()
        y = f.y = ctx.run(next, body, DONE)
        if y is not DONE:
            f.body, f.ctx = body, ctx
        return f

    return start_wired


def begin(
    m: Any,
    p: Frame,
    key: str,
    n: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    attrs: Any = None,
    *,
    wired: bool = False,
) -> Frame:
    """Start any call: with settings, several arguments, a handle, a span, a scope around."""
    spec: Spec = m._mai_spec or m._mai_compile()
    owner, armed = (p.owner, p.armed) if isinstance(p, Scope) else (p, p.deadline)
    f = Frame()
    f.mod, f.parent, f.key, f.n, f.depth = m, owner, key, n, owner.depth + 1
    f.env, f.run, f.deadline = p.env, owner.run or new_run(p.env), p.deadline
    f.seen = f.lost = f.handle = f.span = f.timer = f.since = f.out = f.y = None
    timed = p.deadline is not None or spec.limit is not None or spec.attempts
    overdue = _set_deadline(f, p, spec, armed) if timed else False
    context = None
    if owner.span is not None or (owner is ROOT and has_provider()):
        context = open_span(f, owner, spec, attrs)
    sink, above = f.env.sink, owner.handle
    if above is not None or sink is not None or f.span is not None:
        h = f.handle = open_handle(f, above, spec)
        if attrs or spec.facts:
            h.attributes = {**spec.facts, **(attrs or {})}
        while sink is not None and sink is not owner.env.sink:
            sink.runs.append(h)
            sink = sink.outer
    doubled = bool(f.env.doubles)
    f.quiet = f.handle is None and not doubled
    simple = spec.simple and len(args) == 1 and not kwargs and (spec.tin is None or type(args[0]) is spec.tin)
    simple = simple or (wired and spec.plain)
    body: Any = _whole(f, m, args, kwargs, spec, context, simple=simple and not doubled, overdue=overdue)
    return start(f, body if f.depth & 63 else hopped(body))


def _set_deadline(f: Frame, p: Frame, spec: Spec, armed: float | None) -> bool:
    """Give *f* its deadline and, where no timer around serves it, a timer; say whether it has passed already."""
    now, inherited = clock.now(), p.deadline
    f.since = now
    if inherited is not None and inherited != armed:
        f.timer = PENDING
    if spec.limit is not None and (inherited is None or now + spec.limit < inherited):
        f.deadline, f.timer = now + spec.limit, PENDING
    return inherited is not None and now >= inherited


# ---------------------------------------------------------------- the body of a call


@types.coroutine
def quick(f: Frame, m: Any, value: Any, spec: Spec) -> Body:
    """The body of a simple call that nothing observes."""
    set_current(f)
    try:
        out: Any = yield from m.forward(value)  # pyright: ignore[reportUnknownVariableType]
        if type(out) is not spec.tout and spec.tout is not None:  # pyright: ignore[reportUnknownArgumentType]
            out = spec.cast_out(out, "return", f)
        f.out = out
    except BaseException as error:
        failed(f, error)
        raise


@types.coroutine
def quick_wired(f: Frame, m: Any, args: tuple[Any, ...] | list[Any], spec: Spec) -> Body:
    """`quick` for several arguments."""
    set_current(f)
    try:
        out: Any = yield from m.forward(*args)  # pyright: ignore[reportUnknownVariableType]
        if type(out) is not spec.tout and spec.tout is not None:  # pyright: ignore[reportUnknownArgumentType]
            out = spec.cast_out(out, "return", f)
        f.out = out
    except BaseException as error:
        failed(f, error)
        raise


@types.coroutine
def _whole(f: Frame, m: Any, args: Any, kwargs: Any, spec: Spec, context: Any, *, simple: bool, overdue: bool) -> Body:
    """The body of any call."""
    set_current(f)
    if context is not None:
        otel.attach(context)
    h = f.handle
    try:
        if h is not None:
            begun(h)
        if overdue:
            raise late(f)  # nothing starts
        given = args, kwargs
        args, kwargs = _prepared(f, args, kwargs, spec, simple=simple)
        out: Any = yield from m.forward(*args) if simple else _answer(f, m, spec, given, (args, kwargs))  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        if type(out) is not spec.tout and spec.tout is not None:  # pyright: ignore[reportUnknownArgumentType]
            out = spec.cast_out(out, "return", f)
        if f.y is not None and f.y[0].cancelling() > f.y[1]:
            raise CancelledError  # the step swallowed it
        f.out = out
        if h is not None:
            succeeded(h, out, spec.gives, f.env.sink)
            if f.span is not None:
                close_span(f, h, None, innermost=False)
    except BaseException as error:
        failed(f, error)
        raise


def _prepared(f: Frame, args: Any, kwargs: Any, spec: Spec, *, simple: bool) -> Any:
    """Return the arguments for ``forward``: bound, cast, measured, and copied if they are to be isolated."""
    if not simple and not spec.attempts:  # an attempt gets what the call around it has bound
        args, kwargs = spec.signature.bind(args, kwargs, spec.params, f)
    if f.handle is not None and len(args) == 1 and not kwargs:
        f.handle.input_size = size_of(args[0], spec.takes, f.env.sink)
    return copy.deepcopy((args, kwargs)) if spec.deep else (args, kwargs)


async def _answer(f: Frame, m: Any, spec: Spec, given: Any, bound: Any) -> Any:
    """Return what ``forward``, or what stands in for it, answers through middleware, fallbacks and attempts."""
    forward, colour = m.forward, m.colour if spec.attempts else spec.colour
    double = f.env.doubles.get(m._mai_identity) if f.env.doubles else None
    if double is not None:
        forward, colour = double, colour_of(double).replace("plain", "inline")
    if spec.inner is None and not spec.middleware:
        return await _invoke(colour, spec, forward, *bound)

    async def innermost(call: Call) -> Any:
        same = call is first
        args, kwargs = bound if same else spec.signature.bind(call.args, dict(call.kwargs), {}, f)
        if spec.inner is None:
            return await _invoke(colour, spec, forward, args, kwargs)
        raw = given if same else (call.args, dict(call.kwargs))
        return await _attempts(f, spec, Attempt(spec.inner, forward, colour), (args, kwargs), raw)

    first = Call(spec.what[0], f.path, *bound)
    return await through(spec.middleware, innermost)(first)


class Attempt:
    """What stands for the module in the call of an attempt."""

    _mai_identity = None

    def __init__(self, spec: Spec, forward: Any, colour: str) -> None:
        self._mai_spec: Spec = spec
        self.forward: Any = forward
        self.colour: str = colour


async def _attempts(f: Frame, spec: Spec, attempt: Attempt, bound: Any, given: Any) -> Any:
    """Return what the first attempt to succeed answers, or else the first fallback."""
    count, delay = 1, 0.0
    while True:
        facts = {names.RETRY_ATTEMPT: count, **({names.RETRY_DELAY: delay} if count > 1 else {})}
        try:
            return await _ended(begin(attempt, current(), "", -count, bound[0], bound[1], facts))
        except Exception as error:  # noqa: BLE001 (the policy says whether it is the call's outcome)
            pause = spec.retry.pause(count, error)
            if pause is None or not _in_time(pause):
                return await _fallen_back(f, spec, given, error)
            delay, text = pause, str(error)
        if f.env.bus is not None:
            f.env.bus.post(Retrying(f.path, count, text, delay))
        if f.handle is not None:
            f.handle.attributes = {**f.handle.attributes, names.RETRY_COUNT: count}
        await current_run().sleep(f.path, delay)
        count += 1


async def _fallen_back(f: Frame, spec: Spec, given: Any, error: Exception) -> Any:
    """Return what the first fallback to succeed answers; with none, raise the last error."""
    for i, other in enumerate(spec.fallback):
        if not _in_time(0.0):
            break
        p = current()
        if spec.timeout is not None:
            fresh = clock.now() + spec.timeout
            p = scoped(p, deadline=fresh if p.deadline is None else min(fresh, p.deadline))
        try:
            key = (other._mai_spec or other._mai_compile()).key
            out = await _ended(begin(other, p, f"!fallback[{i}]{key}", 0, given[0], given[1]))
        except Exception as failure:  # noqa: BLE001 (the next one is asked)
            failure.__context__ = failure.__context__ or error
            error = failure
            continue
        if f.handle is not None:
            f.handle.attributes = {**f.handle.attributes, names.FALLBACK_INDEX: i}
        return out
    raise error


async def _ended(f: Frame) -> Any:
    if f.y is not DONE:
        await finish(f)
    return f.out


def _in_time(pause: float) -> bool:
    """Whether there is time for *pause* and for something after it."""
    deadline = current().deadline
    return deadline is None or clock.now() + pause < deadline


async def _invoke(colour: str, spec: Spec, forward: Any, args: Any, kwargs: Any) -> Any:
    """Run ``forward`` in the way that its colour needs."""
    if colour == "async generator":
        async with aclosing(forward(*args, **kwargs)) as stream:
            return _join([chunk async for chunk in stream], spec)
    if colour == "generator":
        return _join(await offload(lambda: list(forward(*args, **kwargs))), spec)
    out = await offload(lambda: forward(*args, **kwargs)) if colour == "plain" else forward(*args, **kwargs)
    return await out if hasattr(type(out), "__await__") else out  # a partial or a cached function may hide a coroutine  # pyright: ignore[reportUnknownArgumentType]


def _join(chunks: list[Any], spec: Spec) -> Any:
    """Return the value of a stream: the joined str or bytes, else the list."""
    for kind, empty in ((str, ""), (bytes, b"")):
        if all(isinstance(chunk, kind) for chunk in chunks) and (spec.gives is kind or (spec.cast_out.free and chunks)):
            return empty.join(chunks)
    return chunks
