"""Real Restate servers on loopback, one or the nodes of a cluster, for tests and for the driver that kills them.

The server is not a part of mai: npm's ``@restatedev/restate-server`` brings it. It is found by the environment variable
``RESTATE_SERVER``, else on ``PATH``.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["Node", "Servers", "find_server", "free_port"]


def find_server() -> Path | None:
    """Return the program of the server, or None if there is none on this machine.

    What npm calls ``restate-server`` is a script that starts the program as its child: killing the script would leave
    the server alive, so the program itself is looked up.
    """
    found = os.environ.get("RESTATE_SERVER") or shutil.which("restate-server")
    if found is None:
        return None
    path = Path(found).resolve()
    if path.suffix != ".js":
        return path
    return next(iter(sorted(path.parents[2].glob("restate-server-*/bin/restate-server"))), None)


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Node:
    """One server; `start` it, `kill` it, and start it again on what it had on disk."""

    def __init__(self, program: Path, folder: Path, name: str, settings: dict[str, str]) -> None:
        self.name = name
        self.port, ingress, admin = free_port(), free_port(), free_port()
        self.ingress, self.admin = f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}"
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [str(program), "--no-logo", "--node-name", name, "--base-dir", str(folder / name)]
        self._settings = {
            "DO_NOT_TRACK": "1",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_IP": "127.0.0.1",
            "RESTATE_ADVERTISED_HOST": "127.0.0.1",
            "RESTATE_BIND_PORT": str(self.port),
            "RESTATE_INGRESS__BIND_PORT": str(ingress),
            "RESTATE_ADMIN__BIND_PORT": str(admin),
            "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
            "RESTATE_DEFAULT_NUM_PARTITIONS": "4",
            "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE": "256MB",
        } | settings

    def start(self, **more: str) -> None:
        """Start the program, with what it left on disk if it ran before."""
        with self.log.open("ab") as log:
            env = {**os.environ, **self._settings, **more}
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=env)

    def is_healthy(self) -> bool:
        """Say whether it answers, and may be given work."""
        return all(answers(url) for url in (f"{self.admin}/health", f"{self.ingress}/restate/health"))

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Servers:
    """A server, or a cluster of several nodes, in *folder*; in a ``with`` block it runs.

    Every record is on two nodes if there are three, so that any one of them may be killed.
    """

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        program = find_server()
        if program is None:
            raise FileNotFoundError("No restate-server: npm install @restatedev/restate-server, or set RESTATE_SERVER")
        shared = {
            "RESTATE_CLUSTER_NAME": "mai-tests",
            "RESTATE_DEFAULT_REPLICATION": "2" if nodes > 2 else "1",
            "RESTATE_WORKER__DURABILITY_MODE": "none",  # keep the whole log: there is no object store for snapshots
        }
        self.nodes = [Node(program, folder, f"n{i}", dict(shared)) for i in range(1, nodes + 1)]
        for i, node in enumerate(self.nodes):
            node._settings |= {
                "RESTATE_AUTO_PROVISION": "false" if i else "true",  # else each would be a cluster of its own
                "RESTATE_METADATA_CLIENT__ADDRESSES": json.dumps([one.address for one in self.nodes]),
            }

    @property
    def ingress(self) -> list[str]:
        """Where calls go, one URL for each node."""
        return [node.ingress for node in self.nodes]

    @property
    def admin(self) -> list[str]:
        """Where deployments are registered, one URL for each node."""
        return [node.admin for node in self.nodes]

    def wait_healthy(self, timeout: float = 60.0) -> None:
        """Wait until every node answers, and every partition is somewhere."""
        waited(lambda: all(node.is_healthy() for node in self.nodes), timeout, "the servers are not healthy")
        self.query("select count(*) as n from sys_invocation", timeout)

    def query(self, sql: str, timeout: float = 30.0) -> list[dict[str, Any]]:
        """Return what a node's tables say; they say nothing while a partition has no leader."""
        until = time.monotonic() + timeout
        while True:
            for admin in self.admin:
                with suppress(OSError):
                    return _rows(admin, sql)
            if time.monotonic() > until:
                raise TimeoutError(f"No node answers {sql!r}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        try:
            self.wait_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()


def _rows(admin: str, sql: str) -> list[dict[str, Any]]:
    head = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(f"{admin}/query", json.dumps({"query": sql}).encode(), head)
    with urllib.request.urlopen(request, timeout=20.0) as answer:
        return list(json.load(answer)["rows"])


def answers(url: str) -> bool:
    """Say whether *url* gives a 200."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def waited(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until *condition* holds."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"After {timeout:g} s {what}")
        time.sleep(0.1)
