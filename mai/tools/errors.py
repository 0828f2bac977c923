"""What goes wrong with tools, as errors: each is a `ToolError` and the builtin that fits."""

from mai.errors import MaiError


class ToolError(MaiError, RuntimeError):
    """A tool could not do what it was called for.

    Attributes:
        tool: The name of the tool, ``""`` where none was involved yet.
        retryable: Whether the same call may succeed another time; of what was refused it will not.
    """

    retryable: bool = True

    def __init__(self, message: str, *, tool: str = "") -> None:
        super().__init__(message)
        self.tool: str = tool


class ArgumentsRefused(ToolError, ValueError):
    """What a model wrote as the arguments of a tool is no JSON object, or names what the tool does not take."""

    retryable = False


class ApprovalRefused(ToolError, PermissionError):
    """A person was asked whether the tool may run, and said no."""

    retryable = False


class AccessRefused(ToolError, PermissionError):
    """The arguments would lead a tool out of the bounds that it was given: a path, an address, a program."""

    retryable = False


class ServerGone(ToolError, ConnectionError):
    """An MCP server cannot be reached, has ended, or its block was left."""


class ToolChanged(ToolError):
    """An MCP server says other things of a tool than were approved, so it is not called."""

    retryable = False
