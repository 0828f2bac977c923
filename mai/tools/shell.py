"""Programs as tools: a model may run the programs that are named, without a shell, in a clean environment."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Unpack

from mai.errors import ConfigError
from mai.layers import Module
from mai.values.checked import COUNT, SECONDS, checked

from .errors import AccessRefused, ToolError
from .rooted import Root
from .tool import Tool, ToolPolicy

_GRACE = 0.5  # seconds that the pipes have to close once the program has ended
_MOST = 100_000  # characters of all arguments
_STDIN = 10_000_000  # characters
_PROC = "/proc/self/fd"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a program did.

    Attributes:
        code: Its exit status; minus the number of the signal that ended it.
        stdout: What it wrote.
        stderr: What it complained of.
        complete: Whether that is all of both.
    """

    code: int
    stdout: str
    stderr: str
    complete: bool = True


class RunCommand(Module):
    """Runs one of the programs that are named, as a process group of its own."""

    def __init__(
        self, programs: Mapping[str, str], patterns: Mapping[str, tuple[re.Pattern[str], ...]], root: Root,
        environment: Mapping[str, str], max_bytes: int,
    ) -> None:  # fmt: skip
        self._programs, self._patterns, self._root = dict(programs), dict(patterns), root
        self._environment, self._max_bytes = dict(environment), max_bytes

    async def forward(
        self, program: str, arguments: list[str] | None = None, directory: str = ".", stdin: str = ""
    ) -> CommandResult:
        """Run a program. There is no shell: no pipes, no variables, no patterns of file names.

        Args:
            program: The name of the program.
            arguments: Its arguments, one by one.
            directory: Where to run it, relative to the root.
            stdin: What it reads from its standard input.
        """
        given = list(arguments or ())
        self._check(program, given, stdin)
        loop, program_of = asyncio.get_running_loop(), self._programs
        with self._root.directory(directory) as at:
            transport, process = await loop.subprocess_exec(
                lambda: _Process(self._max_bytes), program_of[program], *given,
                env=self._environment, cwd=self._place(at, directory), start_new_session=True,
            )  # fmt: skip
        try:
            process.feed(transport, stdin.encode("utf-8", "replace"))
            await asyncio.wait([process.exited])
            _kill_group(transport.get_pid())  # what it has left behind
            _, held = await asyncio.wait([process.closed], timeout=_GRACE)  # by who left the group
            code = transport.get_returncode()
        finally:
            _kill_group(transport.get_pid())
            await asyncio.wait([process.exited], timeout=_GRACE)
            transport.close()
        assert code is not None
        out, err = (bytes(process.kept[fd]).decode("utf-8", "replace") for fd in (1, 2))
        return CommandResult(code, out, err, process.complete and not held)

    def _check(self, program: str, arguments: list[str], stdin: str) -> None:
        """Return if *program* may run with *arguments*."""
        if program not in self._programs:
            raise AccessRefused(f"{program!r} may not be run; there are {', '.join(sorted(self._programs))}")
        if any("\0" in argument for argument in arguments):
            raise AccessRefused("an argument has a null character")
        if sum(map(len, arguments)) > _MOST or len(stdin) > _STDIN:
            raise ToolError(f"that is too much for {program!r}: {_MOST} characters of arguments, {_STDIN} of input")
        patterns = self._patterns.get(program)
        for argument in arguments:
            if patterns is not None and not any(pattern.fullmatch(argument) for pattern in patterns):
                raise AccessRefused(f"{program!r} may not be run with the argument {argument!r}")

    def _place(self, at: int, directory: str) -> str:
        """Return the open directory *at* as a path that nobody can exchange before the program begins in it."""
        if os.path.isdir(_PROC):
            return f"{_PROC}/{at}"
        if self._root.parts(directory):
            raise ToolError("this system cannot run a program in a directory below the root; leave it out")
        return str(self._root.path)


class _Process(asyncio.SubprocessProtocol):
    """What a program writes, up to *most* bytes of each stream, and when it has ended."""

    def __init__(self, most: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()  # all its pipes
        self.kept: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.complete = True
        self._most = most

    def feed(self, transport: asyncio.SubprocessTransport, data: bytes) -> None:
        """Give the program its input, and the end of it."""
        pipe = transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(data)
        pipe.write_eof()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self.kept[fd]
        room = self._most - len(kept)
        kept += data[:room]
        self.complete = self.complete and len(data) <= room

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


def shell(
    *programs: str,
    cwd: str | os.PathLike[str],
    arguments: Mapping[str, str | tuple[str, ...]] | None = None,
    env: Mapping[str, str] | None = None,
    max_bytes: int = 100_000,
    timeout: float = 60.0,
    **policy: Unpack[ToolPolicy],
) -> Tool[..., CommandResult]:
    """Return the tool ``run_command``, which runs *programs* without a shell.

    What a program may do is not confined: it runs with the rights of this process, reads what it can read and connects
    to whom it likes. Name programs that can do no harm with any arguments, or say with *arguments* which they may have,
    or let a person ``approve``.

    Args:
        programs: The names of the programs, found now in ``PATH``, or their absolute paths.
        cwd: The directory in which they run, or in one below it.
        arguments: For a program, the regular expression of which each single argument must be a full match, or
            several of them; a program that is not there may have any arguments.
        env: What is in their environment beside ``PATH`` (where the programs are, and the system's), ``HOME`` (which is
            *cwd*) and ``LANG``; nothing else is.
        max_bytes: Most bytes of each of its two outputs that are kept, from 1.
        timeout: How long a program may run [s]; then its whole process group is killed.
        policy: As of `Tool`.

    Raises:
        ConfigError: If a program is not there, or another argument cannot be used.

    Example:
        >>> from mai.tools import shell
        >>> tool = shell("echo", cwd=".", arguments={"echo": "[a-z]+"})
        >>> (await tool("echo", ["hello"])).stdout.strip()
        'hello'
        >>> (await tool.use({"program": "echo", "arguments": ["-e", "hello"]})).text
        "error: AccessRefused: 'echo' may not be run with the argument '-e'"
    """
    if not programs:
        raise ConfigError("shell: name the programs that may be run")
    found = {os.path.basename(program): shutil.which(program) for program in programs}
    for name, path in found.items():
        if path is None:
            raise ConfigError(f"shell: there is no program {name!r} in PATH")
    patterns: dict[str, tuple[re.Pattern[str], ...]] = {}
    for name, given in (arguments or {}).items():
        if name not in found:
            raise ConfigError(f"shell: arguments of {name!r} are given, but it is not among the programs")
        try:
            patterns[name] = tuple(re.compile(one) for one in ((given,) if isinstance(given, str) else given))
        except re.error as error:
            raise ConfigError(f"shell: arguments[{name!r}]={given!r} is no regular expression: {error}") from error
    root = Root(cwd)
    places = dict.fromkeys(os.path.dirname(os.path.abspath(path)) for path in found.values() if path)
    clean = {"PATH": os.pathsep.join([*places, os.defpath]), "HOME": str(root.path), "LANG": "C.UTF-8", **(env or {})}
    run = RunCommand(
        {name: os.path.abspath(path) for name, path in found.items() if path},
        patterns, root, clean, checked("shell", "max_bytes", max_bytes, COUNT),
    ).with_(timeout=checked("shell", "timeout", timeout, SECONDS))  # fmt: skip
    return Tool(run, name="run_command", **policy)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended; on macOS a zombie gives the second
        os.killpg(pid, signal.SIGKILL)
