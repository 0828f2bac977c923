"""The HTTP/2 server of a worker, in the loop of the process."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from mai.durable.restate.commands import needed
from mai.errors import ConfigError

__all__ = ["Server", "hear"]


_LOOK = 0.05  # [s]


class Server:
    """Serves Restate workflows; they may change while it does.

    Args:
        host: Where to listen.
        port: The port; 0: any that is free.

    Raises:
        ConfigError: If the extra is not installed, or the port is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port: int = _free(host, port)
        self._app: Any = _nothing
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[Any]] = set()

    @property
    def uri(self) -> str:
        """Where it can be reached."""
        return f"http://{self.host}:{self.port}"

    def offer(self, services: Iterable[Any]) -> None:
        """Serve these from now on."""
        self._app = needed("restate").app([*services])

    async def open(self) -> None:
        """Listen."""
        embed, constants = needed("granian.server.embed"), needed("granian.constants")
        self._server = embed.Server(
            self._answer, address=self.host, port=self.port, interface=constants.Interfaces.ASGINL,
            http=constants.HTTPModes.http2, log_enabled=False, websockets=False,
        )  # fmt: skip
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        while True:
            if self._task.done():
                self._task.result()
                raise ConfigError(f"RestateEngine: the server at {self.uri} has ended at once")
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    def refuse(self) -> None:
        """Let what comes from now on go to another worker."""
        self._app = _nothing

    async def close(self) -> None:
        """Listen no more, and break off what goes on."""
        while self._answers:  # what has a result waits for the server to take it, and must be told twice
            for task in self._answers:
                task.cancel()
            await asyncio.wait(self._answers, timeout=_LOOK)
        if self._server is not None and self._task is not None:
            self._server.stop()
            await asyncio.wait([self._task])
            self._server = self._task = None
            await asyncio.sleep(_LOOK)  # in which granian's threads end

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answers.add(task)
        line = _Line(receive, send)
        try:
            await self._app(scope, line.receive, line.send)
        finally:
            line.close()
            self._answers.discard(task)


class _Line:
    """What one request is answered by, until it is.

    The SDK keeps it in a reference cycle. What granian gives would keep a thread of granian's there, and one that is
    still there when the interpreter ends aborts the process.
    """

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive: Any = receive
        self._send: Any = send

    async def receive(self) -> Any:
        """Return the next message of the request."""
        return await self._receive()

    async def send(self, message: Any) -> None:
        """Send a message of the answer."""
        await self._send(message)

    def close(self) -> None:
        """Let go of the request."""
        self._receive = self._send = None


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answer where nothing is served: the server asks again, here or elsewhere."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def hear(signum: int, hook: Callable[[], object]) -> None:
    """Call *hook* when the process gets the signal *signum*, which the SDK hears of as well."""
    needed("restate.server").install_shutdown_hook(asyncio.get_running_loop(), hook, signum)


def _free(host: str, port: int) -> int:
    """Return a port that can be listened at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if hasattr(socket, "SO_REUSEPORT"):  # as the server will
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"RestateEngine: cannot listen at {host}:{port}: {error.strerror}") from error
        found: int = probe.getsockname()[1]
    return found
