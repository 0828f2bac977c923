"""Random trees whose modules have policies (retry, fallback, middleware, timeouts), and a reference that plays them.

`Paper` is the reference: it goes through a tree by plain recursion, with a number for the time, and writes down which
attempt of which step begins when, what each call gives and how it ends. All durations are long and odd, so that two
moments that have to be told apart are so: a tree in which they are not is thrown away (`Tie`).
"""

import asyncio
import copy
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from mai import Context, DeadlineExceeded, Module, Parallel, Retry, Sequential
from mai.core.clock import clock

from .trees import digest

NEAR = 0.5  # seconds within which two moments may come in any order
CHANCE = 0.5
around: ContextVar[int] = ContextVar("law.around", default=0)  # the step whose code makes the call


# ---------------------------------------------------------------- what a tree is


@dataclass(frozen=True)
class Node:
    """A module and its policy; times in seconds, attempts 0 for no policy at all."""

    ident: int = field(default=0, kw_only=True)
    attempts: int = field(default=0, kw_only=True)
    base: float = field(default=1.0, kw_only=True)
    on: str = field(default="any", kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    total: float | None = field(default=None, kw_only=True)
    fallback: tuple[Any, ...] = field(default=(), kw_only=True)
    middleware: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Job(Node):
    """A step: waits, calls its children, waits, and fails in its first ``fails`` attempts."""

    colour: str
    before: float
    calls: tuple[tuple[Any, bool], ...]  # (node, whether its failure is caught)
    after: float
    fails: int
    cancelled: str  # what it does about a cancel: "", "swallow", or "fail" in its clean-up


@dataclass(frozen=True)
class Chain(Node):
    """A Sequential."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class Fan(Node):
    """A Parallel of named branches: each gives a dict, so that any may stand in for another."""

    branches: tuple[Any, ...]
    limit: int | None
    collect: bool


def nodes(node: Any) -> Iterator[Any]:
    """Yield all nodes of a tree."""
    yield node
    match node:
        case Job():
            inner = tuple(child for child, _ in node.calls)
        case Chain():
            inner = node.steps
        case _:
            inner = node.branches
    for child in (*inner, *node.fallback):
        yield from nodes(child)


def numbered(node: Any, count: Any = None) -> Any:
    """Return the tree with an own number for each node, and with times of its own."""
    count = itertools.count(1) if count is None else count
    ident = next(count)

    def odd(seconds: float | None, salt: float) -> Any:
        return seconds and 100.0 * seconds + 61.8 * ident * salt % 97.0

    node = replace(
        node, ident=ident, base=odd(node.base, 1.0), timeout=odd(node.timeout, 1.9), total=odd(node.total, 2.7)
    )
    match node:
        case Job():
            waits = {"before": odd(node.before, 3.1), "after": odd(node.after, 4.3)}
            node = replace(node, calls=tuple((numbered(child, count), guard) for child, guard in node.calls), **waits)
        case Chain():
            node = replace(node, steps=tuple(numbered(step, count) for step in node.steps))
        case Fan():
            node = replace(node, branches=tuple(numbered(branch, count) for branch in node.branches))
    return replace(node, fallback=tuple(numbered(other, count) for other in node.fallback))


# ---------------------------------------------------------------- what it must do


class Tie(Exception):
    """Two moments are too near to each other to say which comes first."""


class Cut(Exception):
    """A deadline of a call around, or a failure beside it, ends the play here."""


class Broken(Exception):
    """A call fails: when, how, and whose failure it is."""

    def __init__(self, at: float, kind: str, ident: int) -> None:
        super().__init__(at, kind, ident)
        self.at, self.kind, self.ident = at, kind, ident


@dataclass
class Mark:
    """A call or an attempt, as its handle has to show it."""

    name: str
    attempt: int = 1
    outcome: str = "ok"
    children: list["Mark"] = field(default_factory=list)
    retries: int | None = None
    fallback: int | None = None

    def under(self, parent: "Mark") -> "Mark":
        """Put it there."""
        parent.children.append(self)
        return self


@dataclass
class Span:
    """From when on, the deadline that is known by then, and when the play ends whatever is known."""

    deadline: float
    stop: float

    def upto(self, end: float) -> "Span":
        """Return it with an end that may be nearer."""
        return Span(min(self.deadline, end), min(self.stop, end))


KINDS = {"any": ("boom", "timeout"), "boom": ("boom",), "timeout": ("timeout",)}


class Paper:
    """The reference."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int, float]] = []  # step, attempt, when
        self.ran: Counter[int] = Counter()

    def wait(self, now: float, seconds: float, stop: float) -> float:
        """Let time pass."""
        if seconds and abs(now + seconds - stop) < NEAR:
            raise Tie
        if seconds and now + seconds > stop:
            raise Cut
        return now + seconds

    def limited(self, node: Node, mark: Mark, end: float, span: Span, play: Callable[[Span], Any]) -> Any:
        """Play with a deadline of its own, and write down how it ends."""
        if end != span.stop and abs(end - span.stop) < NEAR:
            raise Tie
        try:
            return play(span.upto(end))
        except Cut:
            if end < span.stop:
                mark.outcome = "timeout"
                raise Broken(end, "timeout", node.ident) from None
            mark.outcome = "cancelled"
            raise
        except Broken as broken:
            mark.outcome = "timeout" if broken.kind == "timeout" else "error"
            raise

    def call(self, node: Node, x: Any, now: float, span: Span, parent: Mark, fresh: float = math.inf) -> Any:
        """A call of a module; *fresh* is the deadline that a fallback is given."""
        mark = Mark(f"s{node.ident}").under(parent)
        layered = bool(node.attempts or node.fallback or node.middleware)
        limits = [limit for limit in (node.total, None if layered else node.timeout) if limit]
        end = min([now + limit for limit in limits], default=math.inf)
        return self.limited(
            node, mark, min(end, fresh), span, lambda s: self.through(node, node.middleware, x, now, s, mark, layered)
        )

    def through(self, node: Node, layers: Any, x: Any, now: float, span: Span, mark: Mark, layered: bool) -> Any:
        """The middleware of a call, and what it surrounds."""
        if not layers:
            return (self.attempts if layered else self.once)(node, x, now, span, mark)

        def inner(now: float, x: Any = x) -> Any:
            return self.through(node, layers[1:], x, now, span, mark, layered)

        try:
            match layers[0]:
                case "slow":
                    now = self.wait(now, 33.0, span.stop)
                case "twice":
                    _, now = inner(now)
                case "answer":
                    return digest("answer", x), now
                case "change":
                    x = digest("change", x)
            return inner(now, x)
        except Broken as broken:
            if layers[0] == "guard":
                return -7, broken.at
            if layers[0] == "again":
                return inner(broken.at)
            raise

    def once(self, node: Node, x: Any, now: float, span: Span, mark: Mark) -> Any:
        """A body that is no attempt."""
        return self.body(node, 1, x, now, span, mark)

    def attempts(self, node: Node, x: Any, now: float, span: Span, mark: Mark) -> Any:
        """The attempts of a call, and then its fallbacks."""
        for count in itertools.count(1):
            attempt = Mark("attempt", count).under(mark)
            try:
                return self.limited(
                    node, attempt, now + (node.timeout or math.inf), span,
                    lambda s: self.body(node, count, x, now, s, attempt),  # noqa: B023 (played at once)
                )  # fmt: skip
            except Broken as broken:
                now, last = broken.at, broken
            pause = CHANCE * node.base * 2.0 ** (count - 1)
            if abs(now + pause - span.deadline) < NEAR:
                raise Tie
            if count >= node.attempts or last.kind not in KINDS[node.on] or now + pause > span.deadline:
                break
            mark.retries = count
            now = self.wait(now, pause, span.stop)
        for i, other in enumerate(node.fallback):
            try:
                out = self.call(other, x, now, span, mark, fresh=now + (node.timeout or math.inf))
            except Broken as broken:
                now, last = broken.at, broken
                continue
            mark.fallback = i
            return out
        raise last

    def body(self, node: Any, attempt: int, x: Any, now: float, span: Span, mark: Mark) -> Any:
        """What a module does in one attempt."""
        match node:
            case Chain():
                for step in node.steps:
                    x, now = self.call(step, x, now, span, mark)
                return x, now
            case Fan():
                return self.fan(node, x, now, span, mark)
        self.begun.append((node.ident, attempt, now))
        self.ran[node.ident] += 1
        fails, x = self.ran[node.ident] <= node.fails, digest(node.ident, attempt, x)
        now = self.wait(now, node.before, span.stop)
        for child, guarded in node.calls:
            try:
                out, now = self.call(child, x, now, span, mark)
            except Broken as broken:
                if not guarded:
                    raise
                out, now = -7, broken.at
            x = digest(x, out)
        now = self.wait(now, node.after, span.stop)
        if fails:
            raise Broken(now, "boom", node.ident)
        return x, now

    def fan(self, node: Fan, x: Any, now: float, span: Span, mark: Mark) -> Any:
        """Branches: played once to find the first failure, and once more up to there."""
        first = copy.deepcopy(self).race(node, x, now, span, Mark("dry"), math.inf, None)
        failed = sorted((broken.at, i) for i, broken in enumerate(first) if isinstance(broken, Broken))
        if len(failed) > 1 and failed[1][0] - failed[0][0] < NEAR and not node.collect:
            raise Tie
        end, loser = failed[0] if failed and not node.collect else (math.inf, None)
        ends = [out[1] for out in first if not isinstance(out, Broken | Cut)]
        if any(now < at and abs(at - end) < NEAR for at in ends):  # it makes a place for one that fails at once
            raise Tie
        outs = self.race(node, x, now, span, mark, end, loser)
        if loser is not None:
            raise outs[loser]
        for cut in (out for out in outs if isinstance(out, Cut)):
            raise cut
        ends = [out.at if isinstance(out, Broken) else out[1] for out in outs]
        return {f"k{i}": -7 if isinstance(out, Broken) else out[0] for i, out in enumerate(outs)}, max(ends)

    def race(self, node: Fan, x: Any, now: float, span: Span, mark: Mark, end: float, loser: int | None) -> list[Any]:
        """Play all branches as if alone, each from when there is a place; all but *loser* up to *end*."""
        places, outs = [now] * (node.limit or len(node.branches)), list[Any]()
        for i, branch in enumerate(node.branches):
            start = heapq.heappop(places) if places else math.inf
            if i != loser and abs(start - end) < NEAR:
                raise Tie
            if start >= (span.stop if i == loser else min(end, span.stop)):
                outs.append(Cut())
                continue
            until = span if i == loser else Span(span.deadline, min(span.stop, end))
            try:
                outs.append(self.call(branch, x, start, until, mark))
                heapq.heappush(places, outs[-1][1])
            except (Broken, Cut) as ended:
                outs.append(ended)
                if isinstance(ended, Broken):
                    heapq.heappush(places, ended.at)
        return outs


@dataclass
class Wanted:
    """What the reference says of a whole tree."""

    begun: list[tuple[int, int, float]]
    root: Mark
    value: Any = None
    broken: Broken | None = None
    end: float = 0.0


def on_paper(tree: Any, x: Any) -> Wanted:
    """Play *tree*."""
    paper, top = Paper(), Mark("top")
    wanted = Wanted(paper.begun, top)
    try:
        wanted.value, wanted.end = paper.call(tree, x, 0.0, Span(math.inf, math.inf), top)
    except Broken as broken:
        wanted.broken, wanted.end = broken, broken.at
    wanted.root = top.children[0]
    return wanted


# ---------------------------------------------------------------- how it is built


class Boom(Exception):
    """What a step raises."""


class Diary:
    """What the steps of one run write down."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int, float]] = []
        self.ended: list[tuple[int, int]] = []
        self.booms: list[tuple[int, Boom]] = []
        self.wrong: list[str] = []
        self.ran: Counter[int] = Counter()


class Work(Module):
    """What the steps of all colours share."""

    def __init__(self, job: Job, diary: Diary, outer: int) -> None:
        self.job, self.diary, self.outer = job, diary, outer
        self.inner = [(build(child, diary, job.ident), guarded) for child, guarded in job.calls]

    def begin(self, x: Any) -> tuple[Any, int, bool]:
        """Write down that an attempt begins."""
        job, diary, context = self.job, self.diary, Context.get()
        attempt, now = context.retry_count + 1, clock.now()
        if around.get() != self.outer:
            diary.wrong.append(f"s{job.ident} sees a contextvar of {around.get()}, not of {self.outer}")
        if context.deadline is not None and now >= context.deadline:
            diary.wrong.append(f"s{job.ident} begins after its deadline")
        around.set(job.ident)
        diary.begun.append((job.ident, attempt, now - 1000.0))
        diary.ran[job.ident] += 1
        return digest(job.ident, attempt, x), attempt, diary.ran[job.ident] <= job.fails

    def end(self, x: Any, fails: bool) -> Any:
        """Fail or give the value."""
        if fails:
            self.diary.booms.append((self.job.ident, Boom(self.job.ident)))
            raise self.diary.booms[-1][1]
        return x

    async def live(self, x: Any) -> Any:
        """An attempt that may wait."""
        x, attempt, fails = self.begin(x)
        try:
            await asyncio.sleep(self.job.before)
            for module, guarded in self.inner:
                try:
                    out = await module(x)
                except Exception:
                    if not guarded:
                        raise
                    out = -7
                x = digest(x, out)
            await asyncio.sleep(self.job.after)
            return self.end(x, fails)
        except asyncio.CancelledError:
            if self.job.cancelled == "fail":
                self.end(x, fails=True)
            if not self.job.cancelled:
                raise
            return -1
        finally:
            try:
                await asyncio.sleep(0)  # clean-up that waits
            finally:
                self.diary.ended.append((self.job.ident, attempt))

    def direct(self, x: Any) -> Any:
        """An attempt that does not wait."""
        x, attempt, fails = self.begin(x)
        self.diary.ended.append((self.job.ident, attempt))
        return self.end(x, fails)


class Async(Work):
    """A coroutine step."""

    async def forward(self, x):
        return await self.live(x)


class Plain(Work):
    """A plain step."""

    def forward(self, x):
        return self.direct(x)


COLOURS: dict[str, Any] = {"async": Async, "stream": Async, "thread": Plain, "inline": Plain}


class Middle:
    """A middleware that looks, before and after what it surrounds, at what the caller set."""

    def __init__(self, kind: str, node: Node, diary: Diary, outer: int) -> None:
        self.kind, self.name, self.diary, self.outer = kind, f"s{node.ident}", diary, outer

    def look(self) -> None:
        """Write down what leaked."""
        if around.get() != self.outer:
            self.diary.wrong.append(f"the middleware {self.kind} of {self.name} sees a contextvar of {around.get()}")

    async def __call__(self, call: Any, next_: Any) -> Any:
        """Go on after a failure, or not."""
        self.look()
        try:
            return await self.on(call, next_)
        except Exception:
            self.look()
            if self.kind == "again":
                return await next_(call)
            if self.kind != "guard":
                raise
            return -7
        finally:
            self.look()

    async def on(self, call: Any, next_: Any) -> Any:
        """Do what this kind does."""
        match self.kind:
            case "slow":
                await asyncio.sleep(33.0)
            case "twice":
                await next_(call)
                self.look()
            case "answer":
                return digest("answer", *call.args)
            case "change":
                call = replace(call, args=(digest("change", *call.args),))
        return await next_(call)


ON: dict[str, Any] = {"any": Exception, "boom": Boom, "timeout": lambda error: isinstance(error, DeadlineExceeded)}


def build(node: Any, diary: Diary, outer: int = 0) -> Module:
    """Make the modules of a tree; *outer* is the step whose code calls it."""
    match node:
        case Job():
            made = COLOURS[node.colour](node, diary, outer)
            made = made.with_(inline=True) if node.colour == "inline" else made
        case Chain():
            made = Sequential(*(build(step, diary, outer) for step in node.steps))
        case _:
            on_error: Any = "collect" if node.collect else "cancel"
            named = {f"k{i}": build(branch, diary, outer) for i, branch in enumerate(node.branches)}
            made = Parallel(**named, limit=node.limit, on_error=on_error)
    settings: dict[str, Any] = {"name": f"s{node.ident}", "timeout": node.timeout, "total_timeout": node.total}
    if node.attempts:
        settings["retry"] = Retry(node.attempts, base=node.base, limit=1e6, on=ON[node.on])
    if node.fallback:
        settings["fallback"] = [build(other, diary, outer) for other in node.fallback]
    if node.middleware:
        settings["middleware"] = [Middle(kind, node, diary, outer) for kind in node.middleware]
    return made.with_(**settings)


# ---------------------------------------------------------------- random trees

MIDDLE = ("pass", "slow", "twice", "answer", "change", "guard", "again")


def trees(max_leaves: int = 6, *, stubborn: bool = False) -> st.SearchStrategy[Any]:
    """Return a strategy for numbered trees; *stubborn*: clean-up may fail, and users' code catches no failures."""
    cancels = st.sampled_from(["", "swallow", "fail"] if stubborn else ["", "swallow"])
    around_ = st.sampled_from([kind for kind in MIDDLE if not (stubborn and kind in ("guard", "again"))])
    guards = st.just(False) if stubborn else st.booleans()
    times, limits = st.integers(1, 4), st.sampled_from([None, None, None, 1, 2, 4, 7])

    def policy(inner: Any) -> dict[str, Any]:
        few = st.lists(inner, max_size=2) if inner is not None else st.just([])
        return {
            "attempts": st.sampled_from([0, 0, 1, 2, 3, 4]),
            "base": times,
            "on": st.sampled_from(["any", "any", "boom", "timeout"]),
            "timeout": limits,
            "total": limits.map(lambda limit: limit and 2 * limit),
            "fallback": few.map(tuple),
            "middleware": st.just(()) | st.lists(around_, max_size=2).map(tuple),
        }

    def job(calls: Any, inner: Any = None) -> st.SearchStrategy[Any]:
        waits = st.integers(0, 4)
        fails = st.sampled_from([0, 0, 1, 2, 99])
        async_ = st.just("async")
        return st.builds(Job, async_, waits, calls, waits, fails, cancels, **policy(inner))

    plain = st.builds(
        Job, st.sampled_from(["thread", "inline"]), st.just(0), st.just(()), st.just(0), st.sampled_from([0, 1, 99]),
        st.just(""), **policy(None),
    )  # fmt: skip

    def extend(inner: Any) -> Any:
        several = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return (
            job(st.lists(st.tuples(inner, guards), min_size=1, max_size=2).map(tuple), inner)
            | st.builds(Chain, several, **policy(inner))
            | st.builds(Fan, several, st.sampled_from([None, None, 1, 2]), st.booleans(), **policy(inner))
        )

    leaves = job(st.just(())) | job(st.just(())) | plain
    return st.recursive(leaves, extend, max_leaves=max_leaves).map(numbered)
