"""Race: several ways at the same time, of which the first success is taken."""

from typing import Any, overload

from ..core.call import current, current_run
from ..core.recorded import Suspended
from ..core.trace import noted
from ..errors import WiringError
from ..values import names
from .checks import check_branches, name_of, signature_of
from .conditional import union_of
from .declared import single
from .module import A, B, C, D, Module, Step, X, Y, lift
from .parallel import Branches


class Race(Module[X, Y]):
    """Runs all steps on the same input and gives the value of the first that succeeds.

    The others are then cancelled *and joined*, so that nothing goes on behind the value. A step that fails, or cancels
    itself, is out of the race. Where all of them are, one failure raises itself, several an ExceptionGroup. Steps begin
    in the order given, and one that gives its value without ever waiting wins before the later ones have begun.

    Args:
        steps: Modules or functions, at least one.

    Raises:
        WiringError: If there is no step, one needs more than one value, or they take types that no value can all be.

    Example:
        >>> import asyncio
        >>> from mai import Race, module
        >>> @module
        ... async def near(text: str) -> str:
        ...     raise ConnectionError("near is down")
        >>> @module
        ... async def far(text: str) -> str:
        ...     await asyncio.sleep(0.01)
        ...     return text.upper()
        >>> Race(near, far).run("hello")
        'HELLO'
    """

    _mai_kind = "race"

    @overload
    def __init__(self: "Race[A, B | C]", a: Step[A, B], b: Step[A, C], /) -> None: ...
    @overload
    def __init__(self: "Race[A, B | C | D]", a: Step[A, B], b: Step[A, C], c: Step[A, D], /) -> None: ...
    @overload
    def __init__(self: "Race[A, B]", /, *steps: Step[A, B]) -> None: ...
    def __init__(self: Any, /, *steps: Any) -> None:
        if not steps:
            raise WiringError("Race has no steps; give it at least one")
        self.steps: tuple[Module[Any, Any], ...] = tuple(lift(step, "Race") for step in steps)
        check_branches("Race", self.steps)
        line = enumerate(self.steps)
        self._line = tuple((m, f"[{i}]/{name_of(m)}", {names.BRANCH_INDEX: i}) for i, m in line)
        self._mai_facts = {names.PARALLEL_WIDTH: len(self.steps)}
        gives = union_of([signature_of(m).returns for m in self.steps])
        self._mai_signature = single("Race", signature_of(self.steps[0]).first, gives)

    async def forward(self, x: X, /) -> Y:
        """Run the steps."""
        p = current()
        race = _Runners(p, x, self._line, copies=self._mai_settings.isolate)
        await current_run().gather(p.path, race)
        if race.fatal is not None:
            raise race.fatal
        if race.winner is None:
            race.results()  # raises
        noted(p, {names.DECISION: race.winner})
        return race.value  # type: ignore[no-any-return]


class _Runners(Branches):
    """The steps of one call of a Race, as work for the branch runner."""

    batch = 1
    winner: int | None = None
    value: Any = None
    fatal: BaseException | None = None

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        """Keep the first success, which ends the others; one that fails is out, unless the interpreter goes down."""
        if isinstance(error, KeyboardInterrupt | SystemExit | Suspended):
            self.fatal = error
        elif error is not None:
            self._errors.append(error)
            return True
        elif self.winner is None:
            self.winner, self.value = key, value
        return False
