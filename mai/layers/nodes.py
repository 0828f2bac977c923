"""Nodes: the nodes of one call of a graph, as work for the branch runner. A node begins once its inputs exist."""

from collections import deque
from collections.abc import Callable
from typing import Any

from ..core.call import DONE, begin, launch, outcome
from ..core.clock import clock
from ..core.drive import breathe
from ..core.frame import Frame, scoped
from ..core.gather import Slot
from ..core.trace import open_handle
from ..errors import PartialFailure
from .wiring import Binding, Wiring

_NOTHING = -1, None, None  # nothing ended that has not been settled already
_BATCH = 16  # nodes that run one after the other before the runner is asked again, which looks at the clock
_MISSING: Any = object()


class Nodes:
    """The nodes of one call of a graph.

    The value of a node goes into the argument lists of its consumers and nowhere else, so that it is dropped as soon
    as the last of them has it. Nodes that never wait run in batches, one after the other as the steps of a Sequential
    do, so that a chain of them costs what a Sequential costs.
    """

    feed: Any = None

    def __init__(self, wiring: Wiring, parent: Frame, *, collect: bool) -> None:
        self._wiring, self._parent, self._collect = wiring, parent, collect
        self._need = wiring.need[:]  # for each node the number of arguments that are still to come
        self._args: list[Any] = [None] * len(wiring.need)  # for each node its arguments, from the first one that comes
        self._ready: deque[int] = deque(wiring.ready)
        self._errors: dict[int, BaseException] = {}
        self.settle: Callable[[int, Any], None] = _settler(wiring, self._need, self._args, self._ready)

    def more(self) -> int:
        """Return how many nodes can begin."""
        return len(self._ready)

    async def lead(self) -> None:
        """Run the nodes in this task as long as there is only one that can run, as in a chain: that needs no runner."""
        steady, mark = getattr(self._parent.run, "records", False), clock.ticks()
        while len(self._ready) == 1:
            i, f, error = self._batch(self._parent, 1)
            value = None
            if f is not None:
                try:
                    value = await outcome(f)
                except Exception as failure:  # noqa: BLE001 (becomes the outcome of the node)
                    error = failure
            elif steady or clock.ticks() - mark > 1_000_000:  # others have their turn, in a replay where they had it
                await breathe()
                mark = clock.ticks()
            self.done(i, value, error)  # where it failed nothing is ready

    def take(self, slot: Slot | None) -> tuple[int, Frame | None, BaseException | None]:
        """Run the next nodes, until one waits or fails, or none is ready."""
        return self._batch(self._parent if slot is None else scoped(self._parent, slot=slot), len(self._need))

    def _batch(self, p: Frame, most: int) -> tuple[int, Frame | None, BaseException | None]:
        """Run the next nodes in *p*, until one waits or fails, or none is ready, or more than *most* are."""
        wiring, ready, waiting, need, settle = self._wiring, self._ready, self._args, self._need, self.settle
        of, rank, heads, special, lines = wiring.of, wiring.rank, wiring.heads, wiring.special, wiring.lines
        left = _BATCH
        while True:
            i = ready.popleft()
            args, waiting[i] = waiting[i], None
            m, key = heads[of[i]]
            try:
                if special and i in special:
                    f = begin(m, p, key, rank[i], *_bound(special[i], args))
                else:
                    f = launch(m, p, key, args[0], rank[i], None, args if len(args) > 1 else ())
                if lines and i in lines and f.y is DONE:  # a chain: the next node takes the value at once
                    line = lines[i]
                    left -= len(line)
                    for i, m, key, n in line:
                        need[i] = 0
                        f = launch(m, p, key, f.out, n, None, ())
                        if f.y is not DONE:
                            break
            except BaseException as error:  # noqa: BLE001 (becomes the outcome of the node)
                return i, None, error
            if f.y is not DONE:
                return i, f, None
            settle(i, f.out)
            left -= 1
            if left <= 0 or not 0 < len(ready) <= most:
                return _NOTHING

    def done(self, key: int, value: Any, error: BaseException | None) -> bool:
        """Take the outcome of a node; False on a failure that ends the others."""
        if error is None:
            if key >= 0:
                self.settle(key, value)
            return True
        self._errors[key] = error
        return self._collect and isinstance(error, Exception)

    def result(self) -> Any:
        """Return the value of the output, or raise what failed: one error itself, several as a group."""
        wiring, errors = self._wiring, self._errors
        failed = {wiring.id_of(i): error for i, error in sorted(errors.items()) if isinstance(error, Exception)}
        if len(failed) < len(errors):
            raise next(error for error in errors.values() if not isinstance(error, Exception))
        name = self._parent.path or wiring.owner
        if failed and self._collect:
            left = [i for i, needed in enumerate(self._need[:-1]) if needed]
            self._skip(left)
            message = f"{len(failed)} steps of {name} failed, {len(left)} could not begin"
            skips = [wiring.id_of(i) for i in left]
            raise PartialFailure(message, [*failed.values()], failed, self._outputs(), skips)
        if len(failed) > 1:
            raise ExceptionGroup(f"{len(failed)} steps of {name} failed", [*failed.values()])
        for error in failed.values():
            raise error
        return self._args[-1][0]

    def _skip(self, nodes: list[int]) -> None:
        """Let the trace tell of the *nodes* that could not begin."""
        wiring, handle, call = self._wiring, self._parent.handle, Frame()
        for i in nodes if handle is not None else ():
            shape = wiring.shapes[wiring.of[i]]
            call.key, call.n, spec = shape.key, wiring.rank[i], shape.module._mai_spec or shape.module._mai_compile()
            open_handle(call, handle, spec).outcome = "skipped"

    def _outputs(self) -> dict[str, Any]:
        """Return the outputs that there are, by the id of the node that gave them."""
        wiring = self._wiring
        ids, last = wiring.outputs(), wiring.output
        assert last is not None
        values: Any = self._args[-1 if ids == [last] else last]
        pairs = zip(ids, values or (), strict=False)
        return {wiring.id_of(i): value for i, value in pairs if value is not _MISSING}


def _settler(wiring: Wiring, need: Any, waiting: list[Any], ready: deque[int]) -> Callable[[int, Any], None]:
    """Return what hands the value of a node to those that need it, and makes ready what waited only for it."""
    targets, places, offsets, push = wiring.targets, wiring.places, wiring.offsets, ready.append

    def settle(i: int, value: Any) -> None:
        for at in range(offsets[i], offsets[i + 1]):
            k = targets[at]
            args, left = waiting[k], need[k]
            if args is None:
                args = waiting[k] = [_MISSING] * left
            args[places[at]] = value
            need[k] = left - 1
            if left == 1:
                push(k)

    return settle


def _bound(binding: Binding, values: list[Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a node, of which *values* came from other nodes."""
    came = iter(values or ())
    args = [slot.value if slot.source is None else next(came) for slot in binding.args]
    return tuple(args), {slot.parameter: slot.value if slot.source is None else next(came) for slot in binding.kwargs}
