"""mai.tools: what a model may call.

`Tool` makes one of any Module or typed function.
"""

from .errors import AccessRefused, ApprovalRefused, ArgumentsRefused, ToolError
from .tool import Tool, ToolOptions, ToolResult, as_tools

__all__ = [
    "AccessRefused", "ApprovalRefused", "ArgumentsRefused", "Tool", "ToolError", "ToolOptions", "ToolResult",
    "as_tools",
]  # fmt: skip
