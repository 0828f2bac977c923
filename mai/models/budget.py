"""Limits on what models may cost, and what they have cost: before a call, and after a run."""

import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import TypeAdapter

from mai import capture
from mai.core.frame import current
from mai.errors import ConfigError
from mai.types import Call, TraceHandle
from mai.values import names
from mai.values.checked import COUNT, Seconds, checked

from .errors import BudgetExhausted, NoRequests
from .request import Reply, Request, Usage

_POSITIVE: TypeAdapter[float] = TypeAdapter(Seconds)
_budgets: ContextVar[tuple["Budget", ...]] = ContextVar("mai.models.budgets", default=())
_offline: ContextVar[bool] = ContextVar("mai.models.offline", default=False)
Cost = Callable[[Usage], float | None]


class Budget:
    """A limit on what the models called inside a ``with`` block may cost, all in all.

    Before each call it takes the least that the call can cost: about the tokens of the request, and all of
    ``max_tokens`` where that is set. If more than that is not left, the call is not made. While a call is under way
    its share is held, so that several at once cannot exceed the limit together; afterwards what it really used counts.
    Where ``max_tokens`` is not set the length of the answer is not known before, and the last call may exceed the
    limit; none follows it.

    It can also stand as a middleware: ``agent.with_(middleware=Budget(usd=1.0))``. One object is one budget, wherever
    it is used; it may be shared by tasks and threads. In a durable run that goes on after a crash, what its recorded
    calls cost counts as well, each once; what a call cost that was under way in the crash is known to nobody.

    Args:
        usd: The limit [USD], above 0; None: none.
        tokens: The limit of input and output together [tokens], at least 1; None: none.

    Raises:
        ConfigError: If neither is given, or one cannot be used.

    Example:
        >>> from mai.models import Budget, BudgetExhausted, ScriptedModel
        >>> model = ScriptedModel("one", "two").with_(max_tokens=10)
        >>> with Budget(tokens=13) as budget:
        ...     print(model.run("Count.").text)
        ...     try:
        ...         model.run("Go on.")
        ...     except BudgetExhausted as error:
        ...         print(error)
        one
        scripted:model: the call needs at least 12 tokens, but of 13 only 10 are left, with 3 spent
    """

    replay_safe = True  # as a middleware of a flow under a durable engine: what is replayed counts once

    def __init__(self, *, usd: float | None = None, tokens: int | None = None) -> None:
        if usd is None and tokens is None:
            raise ConfigError("Budget: give usd=, tokens=, or both")
        self.usd: float | None = None if usd is None else checked("Budget", "usd", usd, _POSITIVE)
        self.tokens: int | None = None if tokens is None else checked("Budget", "tokens", tokens, COUNT)
        self.spent_usd: float = 0.0
        self.spent_tokens: int = 0
        self._held_usd, self._held_tokens = 0.0, 0
        self._counted: set[int] = set()  # the recorded steps whose calls have counted
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        _budgets.set((*_budgets.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        around = list(_budgets.get())
        if self in around:  # else the block was entered in another context
            around.reverse()
            around.remove(self)  # the innermost one: it may stand there twice
            _budgets.set(tuple(reversed(around)))

    async def __call__(self, call: Call, next: Callable[[Call], Awaitable[Any]]) -> Any:  # noqa: A002 (a middleware's)
        """Be the budget of *call* and all calls inside."""
        _budgets.set((*_budgets.get(), self))  # each call has a context of its own, which is dropped
        return await next(call)

    def _hold(self, model: str, usage: Usage, usd: float | None) -> None:
        with self._lock:
            spent = self.spent_tokens + self._held_tokens
            self._check(model, "tokens", self.tokens, spent, usage.total_tokens)
            if self.usd is not None:
                if usd is None:
                    raise ConfigError(f"{model}: its price is not known, so Budget(usd=) cannot hold; give it prices=")
                self._check(model, "usd", self.usd, self.spent_usd + self._held_usd, usd)
            self._held_tokens += usage.total_tokens
            self._held_usd += usd or 0.0

    @staticmethod
    def _check(model: str, unit: str, limit: float | None, spent: float, needed: float) -> None:
        if limit is not None and (spent + needed > limit or spent >= limit):
            left = f"of {limit:g} only {max(0, limit - spent):g} are left, with {spent:g} spent"
            raise BudgetExhausted(
                f"{model}: the call needs at least {needed:g} {unit}, but {left}",
                model=model, limit=limit, spent=spent, needed=needed, unit=unit,
            )  # fmt: skip

    def _settle(self, held: Usage, held_usd: float | None, charge: "Charge", step: int | None) -> None:
        with self._lock:
            if step is not None:
                self._counted.add(step)
            self._held_tokens -= held.total_tokens
            self._held_usd -= held_usd or 0.0
            self._add(charge.used, charge.usd)

    def _count(self, step: int, used: Usage, usd: float | None) -> None:
        """Count a call that was made before, unless it has been counted."""
        with self._lock:
            if step not in self._counted:
                self._counted.add(step)
                self._add(used, usd)

    def _add(self, used: Usage, usd: float | None) -> None:
        self.spent_tokens += used.total_tokens
        self.spent_usd += usd or 0.0

    def __repr__(self) -> str:
        limits = [f"{self.spent_usd:g} of {self.usd:g} USD"] if self.usd is not None else []
        limits += [f"{self.spent_tokens} of {self.tokens} tokens"] if self.tokens is not None else []
        return f"<Budget {', '.join(limits)}>"


@dataclass
class Charge:
    """One call under way, and what it turned out to use."""

    used: Usage = field(default_factory=Usage)
    usd: float | None = None

    def settle(self, reply: Reply) -> None:
        """Note what the call used."""
        self.used, self.usd = reply.usage, reply.cost_usd


@contextmanager
def charged(model: str, request: Request, cost: Cost) -> Generator[Charge]:
    """Hold the share of one call in every budget around, and settle it in the end.

    Raises:
        BudgetExhausted: If one of them has not enough left.
    """
    budgets, charge = _budgets.get(), Charge()
    if not budgets:
        yield charge
        return
    least = Usage(input_tokens=request.estimated_tokens, output_tokens=request.max_tokens or 0)
    usd, holding = cost(least), list[Budget]()
    try:
        for budget in budgets:
            budget._hold(model, least, usd)
            holding.append(budget)
        yield charge
    finally:
        for budget in holding:
            budget._settle(least, usd, charge, _step())


def replayed(used: Usage, usd: float | None, around: Iterable[object]) -> None:
    """Count a call that was made before the process ended, in every budget around it and in its middleware."""
    frame = current()
    assert frame.run is not None
    for budget in (*_budgets.get(), *around):
        if isinstance(budget, Budget):
            budget._count(hash((frame.run.run_id, frame.path)), used, usd)


def _step() -> int | None:
    """Return by what the recorded step is known that this call is made in; None outside of a durable run."""
    frame = current()
    run = frame.run
    if run is None or not run.durable:
        return None
    while frame.parent.run is run:
        frame = frame.parent
    return hash((run.run_id, frame.path))


@contextmanager
def no_requests() -> Generator[None]:
    """Let no model ask its vendor inside a ``with`` block: for tests. Scripted and replayed models go on.

    Raises:
        NoRequests: In a call that would leave the process.

    Example:
        >>> from mai.models import Model, NoRequests, no_requests
        >>> with no_requests():
        ...     try:
        ...         Model("openai:gpt-5").run("hello")
        ...     except NoRequests as error:
        ...         print(error)
        openai:gpt-5 would be asked inside no_requests(); give a ScriptedModel, or override it
    """
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def check_online(model: str) -> None:
    """Raise NoRequests inside `no_requests`."""
    if _offline.get():
        raise NoRequests(
            f"{model} would be asked inside no_requests(); give a ScriptedModel, or override it", model=model
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What the models in a trace used and cost.

    Attributes:
        calls: How many calls of models gave an answer.
        usage: Their tokens.
        usd: What they cost [USD], as far as it is known.
        unpriced: How many of the calls have no known price.
    """

    calls: int
    usage: Usage
    usd: float
    unpriced: int


def spent(*traces: TraceHandle[Any] | capture) -> Spent:
    """Sum up what the models in *traces* used and cost, failed attempts that gave an answer included.

    Args:
        traces: Handles, finished or not, or what `mai.capture` collected.

    Example:
        >>> from mai import capture
        >>> from mai.models import Prices, ScriptedModel, spent
        >>> model = ScriptedModel("yes").with_(prices=Prices(input_usd=1.0, output_usd=2.0))
        >>> with capture() as trace:
        ...     model.run("Do you hear me?").text
        'yes'
        >>> total = spent(trace)
        >>> total.calls, total.usage.total_tokens, total.usd
        (1, 5, 6e-06)
    """
    handles = [handle for trace in traces for handle in (trace.runs if isinstance(trace, capture) else [trace])]
    found = [h.attributes for handle in handles for h in handle.walk() if names.INPUT_TOKENS in h.attributes]
    usage, usd = Usage(), [facts[names.COST_USD] for facts in found if names.COST_USD in facts]
    for facts in found:
        usage += Usage(
            input_tokens=facts[names.INPUT_TOKENS],
            output_tokens=facts.get(names.OUTPUT_TOKENS, 0),
            cache_read_tokens=facts.get(names.CACHE_READ_TOKENS, 0),
            cache_write_tokens=facts.get(names.CACHE_WRITE_TOKENS, 0),
        )
    return Spent(len(found), usage, sum(usd), len(found) - len(usd))
