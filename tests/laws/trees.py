"""Random trees of modules: what they are (plain values), how they are built, and what they must give.

A step folds everything it sees (its input, contextvars, metadata, auth) into one number, so that a value that agrees
with the reference evaluator says that nothing leaked, nothing was lost and nothing came twice.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from mai import BlockingDelay, Conditional, Context, Module, NonBlockingDelay, Parallel, Sequential
from mai.core.clock import clock

VARS = (ContextVar("law.a", default=0), ContextVar("law.b", default=0))


# ---------------------------------------------------------------- what a tree is


@dataclass(frozen=True)
class Wait:
    """Suspend for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Set:
    """Set a contextvar and leave it so."""

    var: int
    value: int


@dataclass(frozen=True)
class Put:
    """Change what the Context says, and leave it so: metadata, or the hidden auth."""

    key: str
    value: int


@dataclass(frozen=True)
class Scope:
    """Do something inside ``Context.scope``."""

    user: int
    timeout: float | None
    actions: tuple[Any, ...]


@dataclass(frozen=True)
class Call:
    """Call a module from user code; guarded: its failure is caught and becomes a value."""

    node: Any
    guarded: bool


@dataclass(frozen=True)
class Node:
    """Any module of the tree."""

    ident: int = field(default=0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Step(Node):
    """A leaf: what it does, how it ends, how long its clean-up takes (negative: it awaits nothing)."""

    colour: str  # of forward: async, stream, thread, chunks, inline
    actions: tuple[Any, ...]
    ending: str  # return, raise; when cancelled: swallow, fail
    cleanup: float = 0.01
    named: bool = False
    boolean: bool = False
    places: tuple[tuple[int, int], ...] = ()  # (ident of a Par with a limit, branch), outermost first


@dataclass(frozen=True)
class Seq(Node):
    """A Sequential."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class Par(Node):
    """A Parallel."""

    branches: tuple[Any, ...]
    limit: int | None
    collect: bool
    named: bool


@dataclass(frozen=True)
class Cond(Node):
    """A Conditional; the test is a step, or (None) a plain function."""

    test: Step | None
    then: Any
    otherwise: Any


@dataclass(frozen=True)
class Delay(Node):
    """A delay of either kind."""

    seconds: float
    blocking: bool


def children(node: Any) -> tuple[Any, ...]:
    """Return the nodes right below *node*."""
    match node:
        case Step():
            return tuple(call.node for call in calls(node.actions))
        case Seq():
            return node.steps
        case Par():
            return node.branches
        case Cond():
            return tuple(child for child in (node.test, node.then, node.otherwise) if child is not None)
    return ()


def calls(actions: tuple[Any, ...]) -> Iterator[Call]:
    """Yield the calls that a step makes if nothing fails, in order."""
    for action in actions:
        if isinstance(action, Scope):
            yield from calls(action.actions)
        elif isinstance(action, Call):
            yield action


def nodes(node: Any) -> Iterator[Any]:
    """Yield all nodes of a tree."""
    yield node
    for child in children(node):
        yield from nodes(child)


def numbered(node: Any, count: Any = None, places: tuple[tuple[int, int], ...] = ()) -> Any:
    """Return the tree with an own number for each node, and with the limits that each step stands under."""
    count = itertools.count(1) if count is None else count
    ident = next(count)

    def act(action: Any) -> Any:
        if isinstance(action, Call):
            return replace(action, node=numbered(action.node, count, places))
        return replace(action, actions=tuple(map(act, action.actions))) if isinstance(action, Scope) else action

    match node:
        case Step():
            return replace(node, ident=ident, places=places, actions=tuple(map(act, node.actions)))
        case Seq():
            return replace(node, ident=ident, steps=tuple(numbered(step, count, places) for step in node.steps))
        case Par():
            own = [(*places, (ident, i)) if node.limit else places for i in range(len(node.branches))]
            branches = (numbered(branch, count, p) for branch, p in zip(node.branches, own, strict=True))
            return replace(node, ident=ident, branches=tuple(branches))
        case Cond():
            parts = {"test": node.test, "then": node.then, "otherwise": node.otherwise}
            return replace(
                node,
                ident=ident,
                **{key: numbered(part, count, places) for key, part in parts.items() if part is not None},
            )
    return replace(node, ident=ident)


# ---------------------------------------------------------------- what it must give


@dataclass(frozen=True)
class Failed:
    """The reference's word for a failure: whose error it may be (several branches may fail at once)."""

    of: frozenset[int]


def digest(*parts: Any) -> int:
    """Return one number for all of *parts*; failures are all alike, for which of several came first may vary."""
    return hash(tuple(map(_plain, parts)))


def _plain(part: Any) -> Any:
    if isinstance(part, Exception | Failed):
        return -7
    if isinstance(part, dict):
        return tuple(sorted((key.encode()[-1], _plain(value)) for key, value in part.items()))
    return tuple(map(_plain, part)) if isinstance(part, tuple | list) else part


def evaluate(node: Any, x: Any, env: dict[Any, int]) -> Any:
    """The reference: the value of *node*, or `Failed`, by plain recursion; *env*: what contextvars and Context say."""
    match node:
        case Seq():
            for step in node.steps:
                x = evaluate(step, x, env) if not isinstance(x, Failed) else x
        case Par():
            outs = [evaluate(branch, x, env) for branch in node.branches]
            bad = frozenset[int]().union(*(out.of for out in outs if isinstance(out, Failed)))
            stopped = frozenset(step.ident for step in nodes(node) if isinstance(step, Step) and step.ending == "fail")
            x = Failed(bad | stopped) if bad and not node.collect else keyed(node, outs)
        case Cond():
            truth = _even(x) if node.test is None else evaluate(node.test, x, env)
            branch = node.then if truth else node.otherwise
            x = truth if isinstance(truth, Failed) else x if branch is None else evaluate(branch, x, env)
        case Step():
            env = dict(env)
            x = perform(node.actions, digest(node.ident, x, *env.values()), env)
            x = Failed(frozenset({node.ident})) if node.ending == "raise" and not isinstance(x, Failed) else x
            x = shaped(node, x if isinstance(x, Failed) else digest(x, *env.values()))
    return x


def perform(actions: tuple[Any, ...], x: Any, env: dict[Any, int]) -> Any:
    """The reference's way through the actions of a step."""
    for action in actions:
        match action:
            case Set(var, value):
                env[var] = value
            case Put(key, value):
                env[key] = value
            case Scope(user, _, inner):
                before, env["user"] = {key: env[key] for key in ("user", "auth")}, user
                x = perform(inner, x, env)
                env.update(before)
            case Call(child, guarded):
                out = evaluate(child, x, env)
                if isinstance(out, Failed) and not guarded:
                    return out
                x = digest(x, out, *env.values())
        if isinstance(x, Failed):
            return x
    return x


def keyed(node: Par, outs: list[Any]) -> Any:
    """Return the results of branches as the Parallel gives them."""
    return {f"k{i}": out for i, out in enumerate(outs)} if node.named else tuple(outs)


def shaped(step: Step, x: Any) -> Any:
    """Return the result of a step in the form that its colour gives."""
    if isinstance(x, Failed):
        return x
    return [x] if step.colour in ("stream", "chunks") else _even(x) if step.boolean else x


def _even(x: Any) -> bool:
    return digest(x) % 2 == 0


def fresh_env() -> dict[Any, int]:
    """What a tree sees when nothing is set."""
    return {0: 0, 1: 0, "user": 0, "auth": 0}


def arrived(real: Any, wanted: Any, raised: dict[int, Exception]) -> bool:
    """Say whether *real* is what the reference wants, errors by identity."""
    match wanted:
        case Failed():
            known = {id(raised[ident]) for ident in wanted.of if ident in raised}
            parts = list(leaves(real))
            grouped = not isinstance(real, BaseExceptionGroup) or len(parts) > 1
            return bool(parts) and grouped and len({*map(id, parts)}) == len(parts) and {*map(id, parts)} <= known
        case tuple() | list():
            same = type(real) is type(wanted) and len(real) == len(wanted)
            return same and all(arrived(a, b, raised) for a, b in zip(real, wanted, strict=True))
        case dict():
            same = type(real) is dict and list(real) == list(wanted)
            return same and all(arrived(real[key], wanted[key], raised) for key in wanted)
    return type(real) is type(wanted) and bool(real == wanted)


def leaves(error: Any) -> Iterator[Exception]:
    """Yield the errors in a group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    elif isinstance(error, Exception):
        yield error


# ---------------------------------------------------------------- how it is built


class World:
    """What the steps of one run write down."""

    def __init__(self, *, named: bool = False) -> None:
        self.named = named  # every module has a name of its own
        self.began: dict[int, tuple[float, float | None]] = {}  # ident -> when, and its deadline
        self.entered: list[int] = []
        self.cleaned: list[int] = []
        self.cut: list[int] = []  # a second cancel met the clean-up
        self.raised: dict[int, Exception] = {}
        self.paths: dict[int, str] = {}
        self.leaked: list[str] = []
        self.active: Counter[tuple[int, int]] = Counter()
        self.most: Counter[int] = Counter()

    @contextmanager
    def running(self, step: Step) -> Iterator[None]:
        """Count the branches under a limit in which *step* works just now."""
        self.active.update(step.places)
        for par in {par for par, _ in step.places}:
            busy = sum(1 for (owner, _), strands in self.active.items() if owner == par and strands > 0)
            self.most[par] = max(self.most[par], busy)
        try:
            yield
        finally:
            self.active.subtract(step.places)

    def fail(self, step: Step) -> Exception:
        """Return the error of *step*."""
        self.raised[step.ident] = KeyError(step.ident)
        return self.raised[step.ident]


def seen() -> tuple[int, ...]:
    """Return what a step sees: contextvars, metadata, auth."""
    context = Context.get()
    return (VARS[0].get(), VARS[1].get(), context.metadata.get("user", 0), context.auth or 0)


class Work(Module):
    """What the steps of all colours share."""

    def __init__(self, step: Step, world: World) -> None:
        self.step, self.world = step, world
        self.modules = {id(call): build(call.node, world) for call in calls(step.actions)}

    def begin(self, x: Any) -> int:
        """Write down that the step runs; return its first number."""
        context = Context.get()
        self.world.entered.append(self.step.ident)
        self.world.began[self.step.ident] = clock.now(), context.deadline
        self.world.paths[self.step.ident] = context.step_id
        return digest(self.step.ident, x, *seen())

    def change(self, action: Any) -> None:
        """Do what needs no waiting."""
        match action:
            case Set(var, value):
                VARS[var].set(value)
            case Put("user", value):
                Context.set(user=value)
            case Put(_, value):
                Context.set(auth=value)

    async def act(self, actions: tuple[Any, ...], x: int) -> int:
        """Do it all."""
        for action in actions:
            match action:
                case Wait(seconds):
                    with self.world.running(self.step):
                        await asyncio.sleep(seconds)
                case Scope(user, timeout, inner):
                    with Context.scope(user=user, timeout=timeout):
                        x = await self.act(inner, x)
                case Call(_, guarded):
                    x = await self.call(action, guarded, x)
                case _:
                    self.change(action)
        return x

    async def call(self, action: Call, guarded: bool, x: int) -> int:
        """Call a module and see what came of it, and that it changed nothing here."""
        before = seen()
        try:
            out = await self.modules[id(action)](x)
        except Exception as error:
            if not guarded:
                raise
            out = error
        if seen() != before:
            self.world.leaked.append(f"{action.node} changed {before} to {seen()}")
        return digest(x, out, *seen())

    def end(self, x: int) -> Any:
        """Fail or give the last number."""
        if self.step.ending == "raise":
            raise self.world.fail(self.step)
        value = digest(x, *seen())
        return _even(value) if self.step.boolean else value

    async def live(self, x: Any) -> Any:
        """The whole life of an async step."""
        cancelled = False
        try:
            with self.world.running(self.step):
                x = self.begin(x)
            return self.end(await self.act(self.step.actions, x))
        except asyncio.CancelledError:
            cancelled = True
            if self.step.ending == "fail":
                raise self.world.fail(self.step) from None
            if self.step.ending != "swallow":
                raise
            return None  # which is no int
        finally:
            try:
                if self.step.cleanup >= 0:
                    await asyncio.sleep(self.step.cleanup)
            except asyncio.CancelledError:  # the first one may well meet the clean-up itself, as in plain asyncio
                if cancelled:
                    self.world.cut.append(self.step.ident)
                self.world.raised.pop(self.step.ident, None)
                raise
            finally:
                self.world.cleaned.append(self.step.ident)

    def direct(self, x: Any) -> Any:
        """The whole life of a plain step."""
        with self.world.running(self.step):
            x = self.begin(x)
            for action in self.step.actions:
                self.change(action)
            self.world.cleaned.append(self.step.ident)
            return self.end(x)


class Async(Work):
    """A coroutine step."""

    async def forward(self, x) -> int:
        return await self.live(x)


class Stream(Work):
    """An async generator step."""

    async def forward(self, x) -> AsyncIterator[int]:
        yield await self.live(x)


class Thread(Work):
    """A plain step: it runs in a (simulated) worker thread; inline on the loop."""

    def forward(self, x):
        return self.direct(x)


class Chunks(Work):
    """A plain generator step."""

    def forward(self, x) -> Iterator[int]:
        yield self.direct(x)


COLOURS: dict[str, Any] = {"async": Async, "stream": Stream, "thread": Thread, "chunks": Chunks, "inline": Thread}


def build(node: Any, world: World) -> Module:
    """Make the modules of a tree."""
    match node:
        case Step():
            made = COLOURS[node.colour](node, world)
            if node.named:
                made = made.with_(name=f"s{node.ident}")
            if node.colour == "inline":
                made = made.with_(inline=True)
        case Seq():
            made = Sequential(*(build(step, world) for step in node.steps))
        case Par():
            on_error: Any = "collect" if node.collect else "cancel"
            branches = [build(branch, world) for branch in node.branches]
            if node.named:
                named = {f"k{i}": branch for i, branch in enumerate(branches)}
                made = Parallel(**named, limit=node.limit, on_error=on_error)
            else:
                made = Parallel(*branches, limit=node.limit, on_error=on_error)
        case Cond():
            test = _even if node.test is None else build(node.test, world)
            other = None if node.otherwise is None else build(node.otherwise, world)
            made = Conditional(test, then=build(node.then, world), otherwise=other)
        case _:
            made = (BlockingDelay if node.blocking else NonBlockingDelay)(node.seconds)
    if world.named:
        made = made.with_(name=f"s{node.ident}")
    return made if node.timeout is None else made.with_(timeout=node.timeout)


# ---------------------------------------------------------------- random trees


@dataclass(frozen=True)
class Kinds:
    """What a law's trees may hold."""

    endings: tuple[str, ...] = ("return",)
    colours: tuple[str, ...] = ("async", "async", "async", "async", "stream", "thread", "chunks", "inline")
    limits: tuple[int | None, ...] = (None, None, 1, 2)
    timeouts: tuple[float | None, ...] = (None,)
    seconds: tuple[float, ...] = (0.0, 0.0, 0.01, 0.02, 0.03)
    cleanups: tuple[float, ...] = (-1.0, 0.0, 0.01, 0.02, 0.03)
    collect: tuple[bool, ...] = (False, True)
    guards: tuple[bool, ...] = (False, True)


def trees(kinds: Kinds, max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Return a strategy for numbered trees."""
    seconds, numbers = st.sampled_from(kinds.seconds), st.integers(1, 9)
    changes = st.builds(Set, st.integers(0, 1), numbers) | st.builds(Put, st.sampled_from(["user", "auth"]), numbers)
    timeout = st.sampled_from(kinds.timeouts)
    simple = changes | st.builds(Wait, seconds)

    def step(colour: str, actions: Any, boolean: bool = False) -> st.SearchStrategy[Any]:
        waits = colour in ("async", "stream")
        endings = kinds.endings if waits else tuple(e for e in kinds.endings if e in ("return", "raise"))
        return st.builds(
            Step,
            st.just(colour),
            actions,
            st.sampled_from(endings),
            st.sampled_from(kinds.cleanups),
            st.just(False) if boolean else st.booleans(),
            st.just(boolean),
            timeout=timeout,
        )

    def leaf(colour: str) -> st.SearchStrategy[Any]:
        return step(colour, st.lists(simple if colour in ("async", "stream") else changes, max_size=3).map(tuple))

    def extend(inner: Any) -> Any:
        call = st.builds(Call, inner, st.sampled_from(kinds.guards))
        scope = st.builds(Scope, numbers, timeout, st.lists(simple | call, max_size=2).map(tuple))
        deep = st.lists(simple | call | scope, min_size=1, max_size=3).map(tuple)
        test = st.none() | step("async", st.lists(simple, max_size=2).map(tuple), True)
        several = st.lists(inner, min_size=1, max_size=4).map(tuple)
        limits, collect = st.sampled_from(kinds.limits), st.sampled_from(kinds.collect)
        return (
            step("async", deep)
            | st.builds(Seq, several, timeout=timeout)
            | st.builds(Par, several, limits, collect, st.booleans(), timeout=timeout)
            | st.builds(Cond, test, inner, st.none() | inner, timeout=timeout)
        )

    delays = st.builds(Delay, seconds, st.booleans(), timeout=timeout)
    leaves_ = st.one_of([leaf(colour) for colour in kinds.colours]) | delays
    return st.recursive(leaves_, extend, max_leaves=max_leaves).map(numbered)
