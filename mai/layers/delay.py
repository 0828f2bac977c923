"""Delays: a pause between steps that passes its input through."""

from inspect import Parameter
from typing import TYPE_CHECKING, Any

from ..core.call import current, current_run
from ..core.gather import held_slot
from ..values.checked import PAUSE, checked
from ..values.names import DELAY_SECONDS
from .declared import single
from .module import A, B, Call, Module
from .sequential import Sequential

_X = Parameter("x", Parameter.POSITIONAL_ONLY)


class _Delay(Module[Any, Any]):
    """What the two delays share."""

    if TYPE_CHECKING:  # what goes in comes out, in the middle of a chain and at its head

        async def __call__(self, x: A, /) -> A: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        def __rshift__(self, other: Call[A, B]) -> Sequential[A, B]: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, seconds: float) -> None:
        self.seconds: float = checked(type(self).__name__, "seconds", seconds, PAUSE)
        self._mai_signature = single(type(self).__name__, _X, Any)
        self._mai_facts = {DELAY_SECONDS: self.seconds}

    async def forward(self, x: A, /) -> A:
        """Pause."""
        await current_run().sleep(current().path, self.seconds)
        return x


class BlockingDelay(_Delay):
    """Pauses inside its task and keeps its place under a ``limit``; siblings go on.

    The pause counts against every deadline around it.

    Args:
        seconds: How long [s], from 0.

    Raises:
        ConfigError: If *seconds* is negative or not a finite number.

    Example:
        >>> from mai import BlockingDelay, module
        >>> @module
        ... async def fetch(url: str) -> str:
        ...     return f"<{url}>"
        >>> (fetch >> BlockingDelay(0.01) >> fetch).run("x")
        '<<x>>'
    """

    _mai_kind = "blocking_delay"


class NonBlockingDelay(_Delay):
    """Pauses without holding the nearest enclosing place under a ``limit``: others run meanwhile.

    After the pause it takes a place again, in arrival order, before it goes on. The pause counts against every
    deadline around it.

    Args:
        seconds: How long [s], from 0.

    Raises:
        ConfigError: If *seconds* is negative or not a finite number.

    Example:
        >>> from mai import NonBlockingDelay, Parallel, module
        >>> @module
        ... async def poll(job: str) -> str:
        ...     return f"{job}: done"
        >>> later = NonBlockingDelay(0.01) >> poll
        >>> Parallel(later, later, limit=1).run("a")
        ('a: done', 'a: done')
    """

    _mai_kind = "non_blocking_delay"

    async def forward(self, x: A, /) -> A:
        """Pause without a place, then take one again."""
        slot = held_slot()
        if slot is None:
            return await super().forward(x)
        slot.leave()
        try:
            await current_run().sleep(current().path, self.seconds)
        except BaseException:
            slot.join()
            raise
        await slot.enter()
        return x
