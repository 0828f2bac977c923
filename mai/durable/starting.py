"""How a run is started, whichever engine carries it on: by an id of the user's, or by a call outside of a run."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Annotated, Any, TypeVar, overload

from pydantic import Field, TypeAdapter

from mai.core.drive import DONE, framed
from mai.core.engine import LocalEngine
from mai.core.frame import Frame
from mai.core.ids import new_id
from mai.core.trace import TraceHandle
from mai.errors import MaiError
from mai.types import Payload
from mai.values.checked import PAUSE, checked

__all__ = ["RecordingEngine", "bound_value", "chosen_id"]

A = TypeVar("A")
R = TypeVar("R")
_ID: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(min_length=1, strict=True)])


class RecordingEngine(LocalEngine):
    """What durable engines share: each call outside of a run becomes one."""

    durable = True

    def __init__(self, *, max_threads: int, max_abandoned: int) -> None:
        super().__init__(max_threads=max_threads, max_abandoned=max_abandoned)
        self._work = set[asyncio.Task[Any]]()  # of the engine itself, in its loop

    @overload
    def start(
        self, module: Callable[[A], Awaitable[R]], value: A, /, *, run_id: str | None = ..., delay: float = ...
    ) -> TraceHandle[R]: ...
    @overload
    def start(
        self, module: Callable[..., Awaitable[R]], value: Payload[Any], /, *,
        run_id: str | None = ..., delay: float = ...,
    ) -> TraceHandle[R]: ...  # fmt: skip
    def start(self, module: Any, value: Any, /, *, run_id: str | None = None, delay: float = 0.0) -> TraceHandle[Any]:
        """Start a run, or attach to the one that has this id, and return its handle.

        A cancelled ``await`` of the handle does not cancel the run; ``handle.cancel()`` does.

        Args:
            module: The module.
            value: The one value that it is called with, or a Payload of ``module.payload(...)``.
            run_id: The id; None: a fresh one. On a server it belongs to the module, in a journal to all.
            delay: When it is to begin [s from now]; so long it is in no process.

        Raises:
            RunExists: By the handle, if the run of that id has another input, or, in a journal, another module.
            CastError: If the value does not fit.
            PayloadError: If the value cannot be written as JSON.
            ConfigError: If it is called outside of ``async with``, or *run_id* or *delay* cannot be used.
        """
        return self._start(module, bound_value(module, value), run_id, checked("start", "delay", delay, PAUSE))

    def submit(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TraceHandle[Any]:
        """Start a run for a call that is made outside of one."""
        spec = module._mai_spec or module._mai_compile()
        return self._start(module, spec.signature.bind(args, kwargs, spec.params, None, spec.settings), None, 0.0)

    def called(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Frame:
        """Make a call that is made outside of a run; a detached one gives its handle."""
        handle = self.submit(module, args, kwargs)
        if not module._mai_spec.detached:
            return framed(_awaited(handle))
        f = Frame()
        f.handle, f.y, f.out = None, DONE, handle
        return f

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do *work* in this loop; what it fails of is told in the log."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            known = isinstance(error, MaiError)
            logging.getLogger("mai").warning("%s: %s", type(self).__name__, error, exc_info=None if known else error)

    @abstractmethod
    def _start(self, module: Any, bound: Any, run_id: str | None, delay: float) -> TraceHandle[Any]: ...


def chosen_id(owner: str, key: str, given: str | None) -> str:
    """Return the id that was *given* for a new run, or a fresh one.

    Raises:
        ConfigError: If it is no text, or an empty one: whoever computes an id wants the same run each time.
    """
    return new_id() if given is None else str(checked(owner, key, given, _ID))


def bound_value(module: Any, value: Any) -> Any:
    """Return the arguments of *module* for the one *value* that it is called with, or for a Payload of its input."""
    spec = module._mai_spec or module._mai_compile()
    payload: Any = value
    args, kwargs = _given(spec.signature, payload.value) if isinstance(value, Payload) else ((value,), {})
    return spec.signature.bind(args, kwargs, spec.params, None)


def _given(signature: Any, model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that the input *model* of a module stands for."""
    fields: Any = model.__pydantic_fields__
    given: dict[str, Any] = {info.alias or name: getattr(model, name) for name, info in fields.items()} | (
        model.model_extra or {}
    )
    args = [given.pop(p.name) for p in signature.positional]
    return (*args, *(given.pop(signature.rest[0]) if signature.rest else ())), given


async def _awaited(run: TraceHandle[Any]) -> Any:
    """Return the value of *run*, which is cancelled with who waits for it."""
    try:
        return await run
    except asyncio.CancelledError:
        control = run._started()
        if not control.has_ended():
            run.cancel()
            while not control.has_ended():
                with suppress(asyncio.CancelledError):
                    await control.over.heard(control.has_ended)
        raise
