"""The journal of a Restate invocation, as the turns ask for it: the only file that knows the SDK's context."""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

from mai.durable.restate.turns import Cancelled, Commands, Durable, Mismatch
from mai.errors import ConfigError

__all__ = ["ContextCommands", "needed"]


def needed(name: str) -> Any:  # a module of an extra, which need not be there
    """Return the module *name*, which the extra brings.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"Restate needs {name!r}: pip install 'mai-kernel[restate]'") from error


class ContextCommands(Commands):
    """Gives the commands to a `restate.WorkflowContext`."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._restate, self._vm = needed("restate"), needed("restate.vm")
        self.bytes: Any = needed("restate.serde").BytesSerde()
        self._options = self._restate.RunOptions(serde=self.bytes)

    def run(self, name: str, action: Callable[[], Awaitable[bytes]]) -> Durable:
        """Give the command to run a closure."""
        with self._given():
            return self._context.run_typed(name, action, self._options)

    def sleep(self, name: str, seconds: float) -> Durable:
        """Give the command to wait, rounded up to whole milliseconds."""
        with self._given():
            return self._context.sleep(timedelta(milliseconds=math.ceil(seconds * 1000)), name=name)

    def promise(self, name: str) -> Durable:
        """Give the command to wait for a promise."""
        with self._given():
            return self._context.promise(name, serde=self.bytes).value()

    def set(self, key: str, data: bytes) -> None:
        """Give the command to keep a state."""
        with self._given():
            self._context.set(key, data, serde=self.bytes)

    def is_replaying(self) -> bool:
        """Say whether the next command is on record."""
        return bool(self._context.vm.is_replaying())

    async def wait(self, durables: Sequence[Durable]) -> list[tuple[Durable, bytes]]:
        """Wait for completions."""
        try:
            completed, _ = await self._restate.wait_completed(*durables)
        except self._restate.TerminalError as error:
            raise Cancelled from error
        except BaseException as error:
            if (cause := error.__cause__) is not None and isinstance(cause, self._vm.VMException):
                raise self._refused(cause) from error
            raise
        return [(one, await one) for one in completed]

    @contextmanager
    def _given(self) -> Any:
        """Tell a command that the journal does not have there."""
        try:
            yield
        except self._vm.VMException as error:
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> BaseException:
        """Return what an error of the SDK's state machine means: 570 is a journal that has something else."""
        return Mismatch(str(error)) if str(error).startswith("(570)") else error
