"""One turn's tools: those that the model wants are called, and it is told what they gave."""

from collections.abc import Sequence
from typing import Any

from mai.core.events import emit
from mai.layers import Map, Module
from mai.models import ToolCall, ToolReturn
from mai.tools import Tool

from .events import ToolAnswered, ToolCalled

Tools = Sequence[Tool[..., Any]]


async def use_tools(tools: Tools, calls: Sequence[ToolCall], turn: int, parallel: int) -> list[ToolReturn]:
    """Call what the model wants, at most *parallel* at a time, and return the answers in the order of the calls."""
    use = UseTool(tools, turn)
    if len(calls) == 1 or parallel == 1:
        return [await use.forward(call) for call in calls]
    return await Map(use, concurrency=parallel).with_(name="tools")(list(calls))


class UseTool(Module[ToolCall, ToolReturn]):
    """Calls one tool of several."""

    _mai_flow = True

    def __init__(self, tools: Tools, turn: int) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._turn = turn

    async def forward(self, call: ToolCall) -> ToolReturn:
        """Return what the tool gave, or what went wrong, for the model to read."""
        emit(ToolCalled(self._turn, call))
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            answer = ToolReturn(
                id=call.id, name=call.name, content=f"error: no such tool; there are: {known}", is_error=True
            )
        else:
            result = await tool.use(call.arguments, call_id=call.id)
            answer = ToolReturn(id=call.id, name=call.name, content=result.text, is_error=not result.ok)
        emit(ToolAnswered(self._turn, answer))
        return answer
