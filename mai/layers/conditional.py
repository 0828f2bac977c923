"""Conditional: one of two branches."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Union, overload

from ..core.call import DONE, current, finish, launch
from ..core.drive import enclosed
from ..errors import WiringError
from ..values import names
from ..values.casts import is_open
from .checks import check_branches, keys_of, name_of, signature_of
from .declared import single
from .module import A, B, C, Module, Step, X, Y, lift

_Test = Callable[[A], bool] | Callable[[A], Awaitable[bool]]


class Conditional(Module[X, Y]):
    """Calls one of two branches; the decision is recorded in the trace.

    Args:
        test: Decides. A function, plain or async, is called directly (it should be quick and pure), a Module is a
            step of its own, which must take what the branches take.
        then: Called where the test is true.
        otherwise: Called where it is false; without it the input passes through.

    Raises:
        WiringError: If *test*, *then* or *otherwise* is no module or function, a branch needs more than one value, or
            two of them take types that no value can both be.

    Example:
        >>> from mai import Conditional, module
        >>> @module
        ... async def shorten(text: str) -> str:
        ...     return text[:3] + "..."
        >>> brief = Conditional(lambda text: len(text) > 6, then=shorten)
        >>> brief.run("hi"), brief.run("hello world")
        ('hi', 'hel...')
    """

    _mai_kind = "conditional"

    @overload
    def __init__(self: "Conditional[A, B | C]", test: _Test[A], *, then: Step[A, B], otherwise: Step[A, C]) -> None: ...
    @overload
    def __init__(self: "Conditional[A, B | A]", test: _Test[A], *, then: Step[A, B]) -> None: ...
    def __init__(self: Any, test: Any, *, then: Any, otherwise: Any = None) -> None:
        self._label = label_of("Conditional", "test", test)
        self.test: Any = test
        self.then: Module[Any, Any] = lift(then, "Conditional")
        self.otherwise: Module[Any, Any] | None = None if otherwise is None else lift(otherwise, "Conditional")
        branches = [m for m in (self.then, self.otherwise) if m is not None]
        calls: list[Any] = [*([test] if isinstance(test, Module) else []), *branches]
        keys = keys_of("Conditional", calls)
        why = {names.DECISION_PREDICATE: self._label}
        self._met = self.then, keys[-len(branches)], {names.DECISION: "then", **why}
        self._unmet = self.otherwise, keys[-1], {names.DECISION: "pass" if otherwise is None else "otherwise", **why}
        check_branches("Conditional", calls)
        then = signature_of(self.then)
        other: Any = then.takes if self.otherwise is None else signature_of(self.otherwise).returns
        self._mai_signature = single("Conditional", then.first, union_of([then.returns, other]))

    async def forward(self, x: X, /) -> Y:
        """Run the branch that the test chooses."""
        p, clean = current(), enclosed()  # the branch does not see what the test sets, and here this context ends
        met: Any = self.test(x)
        if type(met) is not bool and hasattr(type(met), "__await__"):  # pyright: ignore[reportUnknownArgumentType]
            met = await met
        branch, key, facts = self._met if met else self._unmet
        if (h := p.handle) is not None:
            h.attributes = {**h.attributes, **facts} if h.attributes else facts  # never written to
        if branch is None:
            return x  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        f = launch(branch, p, key, x, 0, None, None, clean)
        if f.y is not DONE:
            await finish(f)
        return f.out  # type: ignore[no-any-return]


def label_of(owner: str, role: str, judge: Any) -> str:
    """Return what the trace calls the Module or function that decides.

    Raises:
        WiringError: If it is neither.
    """
    if not callable(judge):
        raise WiringError(f"{owner}: {role}={judge!r} is neither a Module nor a function")
    return name_of(judge) if isinstance(judge, Module) else getattr(judge, "__qualname__", type(judge).__name__)


def union_of(types: list[Any]) -> Any:
    """Return the type of a value that is of one of *types*."""
    return Any if any(map(is_open, types)) else functools.reduce(lambda a, b: Union[a, b], types)  # noqa: UP007
