"""`capture`: collects the handles of the calls inside a block."""

from typing import Any, Self

from ..core.frame import current, restore, scoped, set_current
from ..core.trace import TraceHandle


class capture:  # noqa: N801 (used like a function, as those of contextlib)
    """Collect the TraceHandles of the outermost calls inside a ``with`` block, in ``runs``.

    Args:
        sizes: Measure the exact JSON size of inputs and outputs of every type, which serialises them once more;
            else only of str, bytes, numbers and None.

    Example:
        >>> from mai import capture, module
        >>> @module
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> with capture() as trace:
        ...     double.run(21)
        42
        >>> trace.runs[0].outcome, trace.runs[0].output_size
        ('ok', 2)
    """

    def __init__(self, *, sizes: bool = False) -> None:
        self.runs: list[TraceHandle[Any]] = []
        self.sizes: bool = sizes
        self._asked: bool = sizes
        self._tokens: list[Any] = []

    def __enter__(self) -> Self:
        inner = around = current().env.sink
        while around is not None and around is not self:
            around = around.outer
        if around is None:  # else it is inside its own block, and gets the runs already
            self.outer: capture | None = inner  # which gets the same runs
            self.sizes = self._asked or (inner is not None and inner.sizes)
            inner = self
        self._tokens.append(set_current(scoped(current(), sink=inner)))
        return self

    def __exit__(self, *exc: object) -> None:
        restore(self._tokens.pop())

    def _repr_html_(self) -> str:
        from mai.views import waterfall  # noqa: PLC0415 (a view method)

        return waterfall.embedded(self.runs)

    def __str__(self) -> str:
        return "\n".join(map(str, self.runs))
