"""What a model wrote as the arguments of a tool, and what it is told of what came of it."""

import json
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter

from mai.core.frame import current
from mai.core.trace import noted
from mai.layers import Module
from mai.values import names

from .errors import ArgumentsRefused

_JSON: TypeAdapter[Any] = TypeAdapter(
    Any, config=ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", defer_build=True)
)
call_id_of: ContextVar[str] = ContextVar("mai.tool.call_id", default="")  # what the model calls the call under way


class Unreadable(Module[Any, Any]):
    """A call of a tool with arguments that are no JSON object: it fails, under the name of the tool."""

    _mai_kind = "tool"
    _mai_operation = "execute_tool"

    def __init__(self, tool: str, facts: Mapping[str, Any]) -> None:
        self._tool = tool
        self._mai_settings = self._mai_settings.merged(tool, {"name": tool})
        self._mai_facts = facts

    async def forward(self, arguments: Any) -> dict[str, Any]:
        """Raise ArgumentsRefused."""
        if call_id := call_id_of.get():
            noted(current(), {names.TOOL_CALL_ID: call_id})
        return parsed_arguments(self._tool, arguments)


def parsed_arguments(tool: str, arguments: Any) -> dict[str, Any]:
    """Return what a model wrote as the arguments of *tool* as a dict of its own.

    Raises:
        ArgumentsRefused: If it is no JSON object.
    """
    given = arguments
    if isinstance(given, str):
        try:
            given = json.loads(given or "{}")  # models write nothing at all for no arguments
        except (ValueError, RecursionError) as error:
            raise ArgumentsRefused(f"the arguments of {tool} are no JSON: {error}", tool=tool) from error
    if not isinstance(given, Mapping):
        raise ArgumentsRefused(f"the arguments of {tool} must be a JSON object, not {given!r:.60}", tool=tool)
    return {str(key): value for key, value in cast("Mapping[object, Any]", given).items()}  # of JSON nothing is known


def as_text(value: object) -> str:
    """Return *value* as a model is told of it: a str as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return _JSON.dump_json(value, fallback=str).decode()
    except ValueError:  # it contains itself, or text that is no Unicode
        return repr(value)


def told(error: Exception) -> str:
    """Return what a model is told of *error*."""
    if isinstance(error, ExceptionGroup):
        inner = "; ".join(told(one) for one in cast("ExceptionGroup[Exception]", error).exceptions)  # not known which
        return f"{error.message}: {inner}"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
