"""mai.tools: what a model may call.

`Tool` makes one of any Module or typed function; `files`, `http` and `shell` return tools that are confined; `MCPTools`
has those of an MCP server, and `serve_mcp` offers modules as one.
"""

from .errors import AccessRefused, ApprovalRefused, ArgumentsRefused, ServerGone, ToolChanged, ToolError
from .files import FileEntry, Found, Line, Listing, files
from .http import HttpResponse, http
from .mcp import MCPProgress, MCPTools, mcp_server, serve_mcp
from .shell import CommandResult, shell
from .tool import Tool, ToolOptions, ToolPolicy, ToolResult, as_tools

__all__ = [
    "AccessRefused", "ApprovalRefused", "ArgumentsRefused", "CommandResult", "FileEntry", "Found", "HttpResponse",
    "Line", "Listing", "MCPProgress", "MCPTools", "ServerGone", "Tool", "ToolChanged", "ToolError", "ToolOptions",
    "ToolPolicy", "ToolResult", "as_tools", "files", "http", "mcp_server", "serve_mcp", "shell",
]  # fmt: skip
