"""Parallel: branches that get the same input and run at the same time."""

import copy
from typing import Any, Literal, TypedDict, TypeVarTuple, Union, Unpack, overload

from ..core.call import DONE, current, current_run, launch
from ..core.frame import Frame, scoped
from ..core.gather import Slot
from ..errors import ConfigError, WiringError
from ..values import names
from ..values.casts import is_open
from ..values.checked import COUNT, checked
from .checks import check_branches, name_of, signature_of
from .declared import single
from .module import A, B, C, Call, D, Module, Step, X, Y, lift
from .settings import NAME

Ts = TypeVarTuple("Ts")


class _How(TypedDict, total=False):
    limit: int | None
    on_error: Literal["cancel"]


class Parallel(Module[X, Y]):
    """Runs all branches on the same input; positional branches give a tuple, named ones a dict.

    On the first failure the other branches are cancelled *and joined* before the error is raised: one failure raises
    itself, several an ExceptionGroup. ``a & b`` writes the same for two or more positional branches.

    Args:
        branches: Modules or functions by position, or by name; at least one.
        limit: Most branches at once, from 1; None: all. (A branch cannot be called ``limit`` or ``on_error``.)
        on_error: ``"cancel"``, or ``"collect"``: every branch runs to its end and a failed one leaves its exception in
            the place of its value.

    Raises:
        WiringError: If there is no branch, there are both kinds, a branch needs more than one value, or the branches
            take types that no value can both be.
        ConfigError: If *limit* or *on_error* is something else.

    Example:
        >>> from mai import Parallel, module
        >>> @module
        ... async def length(text: str) -> int:
        ...     return len(text)
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> (length & shout).run("hello"), Parallel(n=length, loud=shout).run("hello")
        ((5, 'HELLO'), {'n': 5, 'loud': 'HELLO'})
    """

    _mai_kind = "parallel"

    @overload
    def __init__(
        self: "Parallel[A, tuple[B | Exception, ...]]", /, *branches: Step[A, B], on_error: Literal["collect"],
        limit: int | None = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(self: "Parallel[A, tuple[B, C]]", a: Step[A, B], b: Step[A, C], /, **how: Unpack[_How]) -> None: ...
    @overload
    def __init__(
        self: "Parallel[A, tuple[B, C, D]]", a: Step[A, B], b: Step[A, C], c: Step[A, D], /, **how: Unpack[_How]
    ) -> None: ...
    @overload
    def __init__(self: "Parallel[A, tuple[B, ...]]", /, *branches: Step[A, B], **how: Unpack[_How]) -> None: ...
    @overload
    def __init__(
        self: "Parallel[A, dict[str, B | Exception]]", /, *, on_error: Literal["collect"], limit: int | None = ...,
        **named: Step[A, B],
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: "Parallel[A, dict[str, B]]", /, *, limit: int | None = ..., on_error: Literal["cancel"] = ...,
        **named: Step[A, B],
    ) -> None: ...  # fmt: skip
    def __init__(self: Any, /, *branches: Any, limit: Any = None, on_error: str = "cancel", **named: Any) -> None:
        if bool(branches) is bool(named):
            raise WiringError("Parallel takes branches either by position or by name, and at least one")
        if on_error not in ("cancel", "collect"):
            raise ConfigError(f"Parallel: on_error={on_error!r} is not known; give 'cancel' or 'collect'")
        self.limit: int | None = None if limit is None else checked("Parallel", "limit", limit, COUNT)
        self.on_error = on_error
        self.names: tuple[str, ...] | None = tuple(checked("Parallel", "a branch", n, NAME) for n in named) or None
        self.branches: tuple[Module[Any, Any], ...] = tuple(lift(b, "Parallel") for b in branches or named.values())
        fact, labels = (names.BRANCH_INDEX, range(len(branches))) if branches else (names.BRANCH_KEY, named)
        pairs: Any = zip(self.branches, labels, strict=True)
        self._line = tuple((m, f"[{label}]/{name_of(m)}", {fact: label}) for m, label in pairs)
        check_branches("Parallel", self.branches)
        limits = {} if limit is None else {names.PARALLEL_LIMIT: limit}
        self._mai_facts = {names.PARALLEL_WIDTH: len(self.branches), **limits}
        gives: list[Any] = [signature_of(m).returns for m in self.branches]
        gives = [Any if is_open(tp) else Union[tp, Exception] if on_error == "collect" else tp for tp in gives]  # noqa: UP007
        whole = tuple.__class_getitem__(tuple(gives)) if self.names is None else dict[str, Any]
        self._mai_signature = single("Parallel", signature_of(self.branches[0]).first, whole)

    async def forward(self, x: X, /) -> Y:
        """Run the branches."""
        p = current()
        work = Branches(p, x, self._line, collect=self.on_error == "collect", copies=self._mai_settings.isolate)
        await current_run().gather(p.path, work, limit=self.limit)
        values: Any = work.results()
        return tuple(values) if self.names is None else dict(zip(self.names, values, strict=True))  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def __and__(self: "Parallel[A, tuple[*Ts]]", other: Call[A, B]) -> "Parallel[A, tuple[*Ts, B]]":  # type: ignore[override]
        plain = type(self) is Parallel and self._mai_settings is Parallel._mai_settings and self.on_error == "cancel"
        made: Any = (
            Parallel(*self.branches, other) if plain and not self.limit and not self.names else Parallel(self, other)
        )
        return made  # type: ignore[no-any-return]


class Branches:
    """The branches of one call of a Parallel, as work for the branch runner."""

    feed: Any = None
    batch: int = 64  # so many that end at once are started together

    def __init__(self, parent: Frame, x: Any, line: tuple[Any, ...], *, collect: bool = False, copies: bool) -> None:
        self._parent, self._x, self._line, self._last = parent, x, line, -1
        self._collect, self._copies = collect, copies
        self._values: list[Any] = [None] * len(line)
        self._errors: list[BaseException] = []

    def more(self) -> int:
        """Return how many branches have not begun yet."""
        return len(self._line) - 1 - self._last

    def take(self, slot: Slot | None) -> tuple[Any, Frame | None, BaseException | None]:
        """Start the next branch, and more as long as they end at once; the last one is still to be done."""
        i, f, line, values, x = self._last + 1, None, self._line, self._values, self._x
        end = i + 1 if slot is not None else min(i + self.batch, len(line))
        p = self._parent if slot is None else scoped(self._parent, slot=slot)
        try:
            for i in range(self._last + 1, end):
                self._last = i
                m, key, facts = line[i]
                f = launch(m, p, key, copy.deepcopy(x) if self._copies else x, 0, facts)
                if f.y is not DONE:
                    break
                values[i] = f.out
            return i, f, None
        except BaseException as error:  # noqa: BLE001 (becomes the outcome of the branch)
            return i, None, error

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        """Keep the outcome of a branch; False on a failure that ends the others."""
        if error is None or (self._collect and isinstance(error, Exception)):
            self._values[key] = value if error is None else error
            return True
        self._errors.append(error)
        return False

    def results(self) -> list[Any]:
        """Return the values, or raise what failed: one error itself, several as a group."""
        failed = [error for error in self._errors if isinstance(error, Exception)]
        if len(failed) > 1:
            raise ExceptionGroup(f"{len(failed)} branches of {self._parent.path or 'Parallel'} failed", failed)
        for error in (*failed, *self._errors):
            raise error
        return self._values
