"""mai.agents: models that call tools until they have an answer.

`Agent` is a Module: it takes a task and gives an answer. What it stands on is in `mai.models` and `mai.tools`.
"""

from .agent import Agent, AgentOptions, Talk, Talking, Task
from .errors import TurnsExhausted
from .events import ToolAnswered, ToolCalled

__all__ = ["Agent", "AgentOptions", "Talk", "Talking", "Task", "ToolAnswered", "ToolCalled", "TurnsExhausted"]
