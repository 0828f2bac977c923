"""MCP, the Model Context Protocol: the tools of a server as modules, and modules as the tools of a server."""

from .client import MCPProgress, MCPTools

__all__ = ["MCPProgress", "MCPTools"]
