"""MCP, the Model Context Protocol: the tools of a server as modules, and modules as the tools of a server."""

from .client import MCPProgress, MCPTools
from .server import mcp_server, serve_mcp

__all__ = ["MCPProgress", "MCPTools", "mcp_server", "serve_mcp"]
