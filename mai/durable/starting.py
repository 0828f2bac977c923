"""What starting a run needs of a module, whichever engine carries the run on: its arguments, and a call that waits."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from mai.core.drive import DONE, framed
from mai.core.frame import Frame
from mai.core.ids import new_id
from mai.core.trace import TraceHandle
from mai.types import Payload
from mai.values.checked import checked

__all__ = ["bound_call", "bound_value", "call_of", "chosen_id"]

_ID: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(min_length=1, strict=True)])


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


def bound_call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the arguments of *module* for a call of it, with what its settings give."""
    spec = module._mai_spec or module._mai_compile()
    return spec.signature.bind(args, kwargs, spec.params, None, spec.settings)


def call_of(module: Any, handle: TraceHandle[Any]) -> Frame:
    """Return the call that gives the value of the run *handle*; that of a detached module gives the handle."""
    if not module._mai_spec.detached:
        return framed(_awaited(handle))
    f = Frame()
    f.handle, f.y, f.out = None, DONE, handle
    return f


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
