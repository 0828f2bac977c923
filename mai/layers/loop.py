"""Loop: one step again and again, on what it gave the last time."""

from collections.abc import Awaitable, Callable
from typing import Any, overload

from ..core.call import apart, current, launch, outcome
from ..core.drive import breathe
from ..core.frame import Frame
from ..core.trace import noted
from ..errors import ConfigError, LoopExhausted
from ..values import names
from ..values.checked import COUNT, UNSET, checked
from .checks import check_branches, keys_of, name_of, signature_of
from .conditional import label_of
from .declared import single
from .edges import wire
from .module import A, Module, Step, X, lift

_Until = Callable[[A], bool] | Callable[[A], Awaitable[bool]]


class Loop(Module[X, X]):
    """Calls a step with its input, then with what it gave, until that will do.

    Args:
        body: The step; what it gives must fit what it takes.
        until: Asked after each turn (never before the first) whether the state will do. A function, plain or async,
            is called directly (it should be quick and pure), a Module is a step of its own. Without it all turns are
            made.
        max_iters: Most turns, from 1; there is no Loop without a bound.

    Raises:
        ConfigError: If *max_iters* is missing or no positive int.
        WiringError: If *body* or *until* is no module or function, one needs more than one value, or what *body* gives
            fits one of them not.
        LoopExhausted: In a call, if *until* is still not true after the last turn.

    Example:
        >>> from mai import Loop, module
        >>> @module
        ... async def halve(n: float) -> float:
        ...     return n / 2
        >>> Loop(halve, until=lambda n: n < 1, max_iters=100).run(20), Loop(halve, max_iters=2).run(20)
        (0.625, 5.0)
    """

    _mai_kind = "loop"

    @overload
    def __init__(self: "Loop[A]", body: Step[A, A], *, until: _Until[A], max_iters: int) -> None: ...
    @overload
    def __init__(self: "Loop[A]", body: Step[A, A], *, max_iters: int) -> None: ...
    def __init__(self: Any, body: Any, *, until: Any = None, max_iters: Any = UNSET) -> None:
        if max_iters is UNSET:
            raise ConfigError("Loop needs a bound: max_iters=..., the most turns that it may make")
        self.max_iters: int = checked("Loop", "max_iters", max_iters, COUNT)
        self._label = "" if until is None else label_of("Loop", "until", until)
        self.body: Module[Any, Any] = lift(body, "Loop")
        self.until: Any = until
        members: list[Module[Any, Any]] = [self.body, *([until] if isinstance(until, Module) else [])]
        self._line = tuple(zip(members, keys_of("Loop", members), strict=True))
        own = signature_of(self.body)
        for member in members:
            check_branches("Loop", [member])
            takes = signature_of(member).first
            wire(name_of(self.body), own.returns, name_of(member), takes.name, takes.annotation)
        self._why = {names.DECISION_PREDICATE: self._label} if self._label else {}
        self._mai_facts = {names.LOOP_LIMIT: self.max_iters}
        self._mai_signature = single("Loop", own.first, own.returns)

    async def forward(self, x: X, /) -> X:
        """Make the turns."""
        p, state, met = current(), x, False
        body, *judges = self._line
        for turn in range(self.max_iters):
            if turn & 63 == 63:  # a body that never waits must not keep everybody else waiting
                await breathe()
            state = await _step(*body, p, turn, state)
            noted(p, {names.LOOP_TURNS: turn + 1})
            for judge in judges:
                met = bool(await _step(*judge, p, turn, state))
            if not judges and self.until is not None:
                met = bool(await outcome(apart(self.until, state)))
            if met:
                break
        noted(p, {names.DECISION: "until" if met else "max_iters", **self._why})
        if met or self.until is None:
            return state
        message = f"{p.path}: {self._label} was not met in {self.max_iters} turns; raise max_iters, or catch this"
        raise LoopExhausted(f"{message} and take its state", step_id=p.path, iterations=self.max_iters, state=state)


async def _step(m: Module[Any, Any], key: str, p: Frame, turn: int, state: Any) -> Any:
    return await outcome(launch(m, p, f"[{turn}]{key}", state, 0, {names.BRANCH_INDEX: turn}))
