"""Map: one step for each item of an iterable, many at once."""

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sized
from typing import Any, Generic, Literal, Union, Unpack, overload

from ..core.call import current, current_run, launch
from ..core.drive import enclosed
from ..core.events import post
from ..core.frame import Frame, scoped
from ..core.gather import Slot
from ..core.trace import noted
from ..errors import CastError, ConfigError
from ..values import names
from ..values.casts import is_open
from ..values.checked import COUNT, checked, near
from ..values.events import Progress
from .checks import MapKeywords, check_branches, name_of, signature_of
from .declared import single
from .edges import many
from .module import A, B, Module, Step, X, Y, lift
from .parallel import Branches

_END: Any = object()


class Map(Module[Iterable[X] | AsyncIterable[X], list[Y]], Generic[X, Y]):
    """Calls a step with each item of an iterable, and gives the list of the values, in the order of the items.

    ``step.map(...)`` writes the same. The iterable may be sync or async, and endless in size if not in number: an item
    is taken when there is a place for it, and only what is in flight and the values are held. A sync one is read on the
    event loop. A generator is closed, an async iterator too, however the call ends. A str or bytes is refused.

    On the first failure the items in flight are cancelled *and joined* before the error is raised: one failure raises
    itself, several an ExceptionGroup. An iterable that itself fails does the same, whatever *on_error* says.

    Args:
        step: A Module or a function of one value.
        concurrency: Most items at once, from 1. The default is as many as there are worker threads for plain functions.
        on_error: ``"cancel"``, or ``"collect"``: every item is worked on, and one that failed leaves its exception in
            the place of its value.
        progress: Tell a started run of each item that has ended, as a `Progress` event.

    Raises:
        ConfigError: If *concurrency*, *on_error* or *progress* is something else, or another keyword is given.
        WiringError: If *step* is no module or function, or needs more than one value.
        CastError: In a call with something that is no iterable, or a text.
        ConfigError: In a call with a generator that has ended, or a second attempt with an iterator: it is used up.

    Example:
        >>> from mai import Map, module
        >>> @module
        ... async def length(text: str) -> int:
        ...     return len(text)
        >>> Map(length).run(["a", "bc"]), length.map(concurrency=2).run(c * 3 for c in "ab")
        ([1, 2], [3, 3])
    """

    _mai_kind = "map"

    @overload
    def __init__(
        self: "Map[A, B]", step: Step[A, B], *, on_error: Literal["cancel"] = ..., **how: Unpack[MapKeywords]
    ) -> None: ...
    @overload
    def __init__(
        self: "Map[A, B | Exception]", step: Step[A, B], *, on_error: Literal["collect"], **how: Unpack[MapKeywords]
    ) -> None: ...
    def __init__(
        self: Any, step: Any, *, on_error: str = "cancel", concurrency: int = 64, progress: Any = False, **unknown: Any
    ) -> None:
        for key in unknown:
            raise ConfigError(f"Map has no setting {key!r}{near(key, ('concurrency', 'on_error', 'progress'))}")
        if on_error not in ("cancel", "collect"):
            raise ConfigError(f"Map: on_error={on_error!r} is not known; give 'cancel' or 'collect'")
        if not isinstance(progress, bool):
            raise ConfigError(f"Map: progress={progress!r} cannot be used: give True or False")
        self.step: Module[Any, Any] = lift(step, "Map")
        self.concurrency: int = checked("Map", "concurrency", concurrency, COUNT)
        self.on_error = on_error
        self.progress: bool = progress
        check_branches("Map", [self.step])
        self._name = name_of(self.step)
        self._mai_facts = {names.PARALLEL_LIMIT: self.concurrency}
        signature = signature_of(self.step)
        gives = signature.returns
        value: Any = Any if is_open(gives) else Union[gives, Exception] if on_error == "collect" else gives  # noqa: UP007
        items = signature.first.replace(name="items", annotation=many(signature.takes))
        self._mai_signature = single("Map", items, list.__class_getitem__(value))

    async def forward(self, items: Iterable[X] | AsyncIterable[X], /) -> list[Y]:
        """Work on the items."""
        p = current()
        work = _Items(self, p, items)
        try:
            await current_run().gather(p.path, work, limit=self.concurrency)
        finally:
            work.close()
            noted(p, {names.MAP_ITEMS: work.ended})
        return work.results()


class _Items(Branches):
    """The items of one call of a Map, as work for the branch runner; the key of an item is its index."""

    def __init__(self, owner: Map[Any, Any], parent: Frame, items: Any) -> None:
        super().__init__(parent, items, (), collect=owner.on_error == "collect", copies=False)
        ended = getattr(items, "gi_frame", getattr(items, "ag_frame", 0)) is None  # a generator that was read or closed
        if ended or (parent.n < -1 and isinstance(items, Iterator | AsyncIterator)):  # it would seem to be empty
            hint = "retry the step, or map a list"
            raise ConfigError(f"{parent.path}: an iterator is used up by an earlier call or attempt; {hint}")
        self._step, self._name, self._inside = owner.step, owner._name, enclosed().run
        self._source: Any = None
        self._total = len(items) if isinstance(items, Sized) else None
        self._progress, self.ended, self._fetched = owner.progress, 0, list[Any]()
        if isinstance(items, AsyncIterable):
            self.feed, self._open = self._fetch, False
        else:
            self._source, self._open = self._iterator(items), True
        if self._total is not None:
            noted(parent, {names.PARALLEL_WIDTH: self._total})

    def _iterator(self, items: Any) -> Any:
        try:
            if isinstance(items, str | bytes | bytearray):
                raise TypeError("it is one item: put it into a list, or give list(...) of it for its parts")
            return self._inside(iter, items)
        except TypeError as error:
            text, path = repr(items), self._parent.path
            what = f"{type(items).__name__} {text if len(text) <= 60 else text[:59] + '…'}"
            message = f"{path}: a Map takes an iterable of items, sync or async, not {what} ({error})"
            raise CastError(message, step_id=path, where="items", expected="Iterable | AsyncIterable") from error

    def more(self) -> int:
        """Return how many items there may be to take: of a sync iterable only taking tells."""
        return len(self._fetched) or self._open

    def take(self, slot: Slot | None) -> tuple[Any, Frame | None, BaseException | None]:
        """Start the next item, or find that there is none."""
        key, i = None, self._last + 1
        try:
            x = self._inside(next, self._source, _END) if self.feed is None else self._fetched.pop()
            if x is _END:
                self._open = False
                return None, None, None
            key = self._last = i
            self._values.append(None)
            p = scoped(self._parent, slot=slot)
            return i, launch(self._step, p, f"[{i}]/{self._name}", x, 0, {names.BRANCH_INDEX: i}), None
        except BaseException as error:  # noqa: BLE001 (becomes the outcome of the item, or of the source)
            return key, None, error

    def done(self, key: Any, value: Any, error: BaseException | None) -> bool:
        """Keep the outcome of an item; False on a failure that ends the others: where there is no key, the source's."""
        if key is None:
            self._errors += [] if error is None else [error]
            return error is None
        self.ended += 1
        if self._progress:
            noted(self._parent, {names.MAP_ITEMS: self.ended})
            post(Progress, self.ended, self._total, frame=self._parent)
        return super().done(key, value, error)

    async def _fetch(self, room: Callable[[], Awaitable[bool]]) -> bool:
        """Take the items of an async iterable, all in one task, whenever there is a place for one."""
        try:
            source = aiter(self._x)
            try:
                while await room():
                    self._fetched.append(await anext(source))
            finally:
                if hasattr(source, "aclose"):
                    await source.aclose()
        except StopAsyncIteration:
            return True
        except Exception as error:  # noqa: BLE001 (fails the Map, once the items in flight have ended)
            return self.done(None, None, error)
        return True

    def close(self) -> None:
        """Close a generator that was not read to its end."""
        if inspect.isgenerator(self._source):
            try:
                self._inside(self._source.close)
            except Exception as error:  # noqa: BLE001 (fails the Map, unless something else has)
                self.done(None, None, error)
