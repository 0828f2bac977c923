"""Switch: one of several branches, by a key."""

import itertools
from collections.abc import Awaitable, Callable, Hashable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar, overload

from ..core.call import apart, current, launch, outcome
from ..core.trace import noted
from ..errors import UnknownCase, WiringError
from ..values import names
from ..values.casts import show
from .checks import check_branches, keys_of, signature_of
from .conditional import label_of, union_of
from .declared import single
from .edges import fits
from .module import A, B, C, Module, Step, X, Y, lift

K = TypeVar("K", bound=Hashable)
_Selector = Callable[[A], K] | Callable[[A], Awaitable[K]]


class Switch(Module[X, Y]):
    """Calls the branch that a key chooses; the decision is recorded in the trace.

    Args:
        selector: Gives the key. A function, plain or async, is called directly (it should be quick and pure), a Module
            is a step of its own.
        cases: The branches by key; at least one. Keys are compared as those of a dict.
        otherwise: Called where the key has no case; without it that is an error.

    Raises:
        WiringError: If *cases* is no mapping or empty, *selector* or a branch is no module or function, a branch needs
            more than one value, the branches take types that no value can all be, or *selector* is a Module that gives
            a type which one of the keys can never be.
        UnknownCase: In a call, if the key has no case and there is no *otherwise*.

    Example:
        >>> from mai import Switch, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> @module
        ... async def length(text: str) -> int:
        ...     return len(text)
        >>> command = Switch(lambda text: text[0], {"!": shout, "#": length}, otherwise=str.strip)
        >>> command.run("!hey"), command.run("#hey"), command.run(" hey")
        ('!HEY', 4, 'hey')
    """

    _mai_kind = "switch"

    @overload
    def __init__(
        self: "Switch[A, B | C]", selector: _Selector[A, K], cases: Mapping[K, Step[A, B]], *, otherwise: Step[A, C]
    ) -> None: ...
    @overload
    def __init__(self: "Switch[A, B]", selector: _Selector[A, K], cases: Mapping[K, Step[A, B]]) -> None: ...
    def __init__(self: Any, selector: Any, cases: Any, *, otherwise: Any = None) -> None:
        self._label = label_of("Switch", "selector", selector)
        table: Any = cases
        if not isinstance(cases, Mapping) or not cases:
            raise WiringError(f"Switch: cases={cases!r} cannot be used: give a dict of key and step, at least one")
        self.selector: Any = selector
        self.cases: Mapping[Any, Module[Any, Any]] = {key: lift(step, "Switch") for key, step in table.items()}
        self.otherwise: Module[Any, Any] | None = None if otherwise is None else lift(otherwise, "Switch")
        judges: list[Module[Any, Any]] = [selector] if isinstance(selector, Module) else []
        branches = [*self.cases.values(), *([] if self.otherwise is None else [self.otherwise])]
        check_branches("Switch", [*judges, *branches])
        for key, judge in itertools.product(self.cases, judges):
            gives = signature_of(judge).returns
            if isinstance(key, str | int | Enum) and fits(Literal[key], gives) is None:
                raise WiringError(f"Switch: there is a case {key!r}, but {self._label} gives {show(gives)}")
        keys = keys_of("Switch", [*judges, *branches])[len(judges) :]
        self._line: dict[Any, Any] = dict(zip(self.cases, zip(branches, keys, strict=False), strict=False))
        self._other = None if self.otherwise is None else (self.otherwise, keys[-1])
        gives = union_of([signature_of(m).returns for m in branches])
        self._mai_signature = single("Switch", signature_of(branches[0]).first, gives)

    async def forward(self, x: X, /) -> Y:
        """Run the branch that the selector chooses."""
        p, key = current(), await outcome(apart(self.selector, x))
        decision = "otherwise" if key not in self._line else key if isinstance(key, str | int | float) else str(key)
        noted(p, {names.DECISION: decision, names.DECISION_PREDICATE: self._label})
        found = self._line.get(key, self._other)
        if found is None:
            known, path = tuple(self.cases), p.path
            gave = f"{path}: {self._label} gave {key!r}, which has no case; it has {', '.join(map(repr, known))}"
            raise UnknownCase(f"{gave}: add it, or otherwise=...", step_id=path, key=key, cases=known)
        return await outcome(launch(found[0], p, found[1], x))  # type: ignore[no-any-return]
