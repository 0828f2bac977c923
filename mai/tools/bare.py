"""Functions that take nothing: a step needs an input, a tool does not."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter

from mai.layers import FunctionModule, Module
from mai.layers.checks import signature_of
from mai.layers.declared import colour_of
from mai.values.signature import Signature


def _refuse(value: object) -> None:
    raise ValueError("no arguments are taken")


class Nothing:
    """The type of an argument that is refused, whatever it is."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        return TypeAdapter(Annotated[Any, PlainValidator(_refuse)]).core_schema


def with_input(given: Any) -> Any:
    """Return *given*, and a function without parameters as a Module that can be called with none and refuses any."""
    if isinstance(given, Module) or not callable(given) or _takes_something(given):
        return given  # pyright: ignore[reportUnknownVariableType]
    fn: Callable[[], Any] = given
    called = getattr(fn, "func", fn)  # a partial is called like its function

    @functools.wraps(fn)
    def plain(**_: Any) -> Any:
        return fn()

    @functools.wraps(fn)
    async def coroutine(**_: Any) -> Any:
        return await fn()

    made: Any = coroutine if colour_of(fn) == "coroutine" else plain
    made.__name__ = getattr(called, "__name__", type(called).__name__)
    taken = inspect.Parameter("nothing", inspect.Parameter.VAR_KEYWORD, annotation=Nothing)
    made.__signature__ = inspect.Signature([taken])
    module: Any = FunctionModule(made)
    found = signature_of(module)
    module._mai_signature = Signature(found.owner, [taken], found.returns, colour_of(made))
    module.input_schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return module


def _takes_something(fn: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # it tells nothing
        return True
