"""A server that speaks the part of Restate's ingress and admin API that mai uses, as release 1.7.12 was seen to do.

It carries nothing on: a test says how a run stands and how it ends.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_TROUBLES: dict[str, tuple[int, bytes]] = {
    "text": (400, b"no JSON here"),
    "unreachable": (500, b'{"message": "Datafusion error: External error: connect throttled"}'),
}

__all__ = ["FakeRestate", "FakeRun", "serving", "serving_apart"]

Answer = tuple[int, dict[str, str], Any]


@dataclass
class FakeRun:
    """One run.

    Attributes:
        about: What it has said of itself.
        why: Why it could not go on, as data.
        signals: What was sent to it.
        end: Status and JSON of how it ended; None: it goes on.
    """

    service: str
    key: str
    input: bytes
    headers: dict[str, str]
    delay: str | None = None
    status: str = "running"
    about: Any = None
    why: Any = None
    signals: list[Any] = field(default_factory=list[Any])
    end: tuple[int, Any] | None = None
    row: dict[str, Any] = field(default_factory=dict[str, Any])
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """Name of its invocation."""
        return f"inv_{self.service}_{self.key}"

    def finish(self, status: int, what: Any) -> None:
        """End it: with 200 and a value, or another status and what the failure says."""
        self.end, self.status = (status, what), "completed"
        self.row["completion_result"] = "success" if status == 200 else "failure"
        self.over.set()


class FakeRestate:
    """The server.

    Attributes:
        services: What workers have registered.
        runs: By service and key.
        asked: All requests: method and path.
        troubles: What the next requests get in the place of an answer: a status, ``"cut"`` for no answer at
            all, ``"text"`` for an error without JSON, ``"unreachable"`` for a query that another node did not answer.
        begun: What happens to a run that was begun.
        told: What happens to a run that was sent a signal.
        is_served: Whether a worker is there for the handlers of runs.
        refuses: What a worker says of the next signal, in the place of true.
    """

    begun: Callable[[FakeRun], object] = staticmethod(lambda run: None)
    told: Callable[[FakeRun], object] = staticmethod(lambda run: None)

    def __init__(self, *services: str) -> None:
        self.services = set(services)
        self.runs: dict[tuple[str, str], FakeRun] = {}
        self.asked: list[str] = []
        self.keys: list[str] = []
        self.troubles: list[int | str] = []
        self.is_served = True
        self.refuses: Any = None
        self.done: dict[int, Any] = {}
        self.journal: list[dict[str, Any]] = []
        self.calls: list[tuple[FakeRun | None, Any]] = []

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Return status, headers and JSON."""
        self.asked.append(f"{method} {target}")
        parts = urlsplit(target)
        path = [unquote(one) for one in parts.path.split("/")[1:]]
        match method, path:
            case "POST", ["query"]:
                return 200, {}, {"rows": self._rows(json.loads(body)["query"])}
            case "POST", ["deployments"]:
                return self._registered(json.loads(body))
            case "PATCH", ["invocations", name, verb]:
                return self._changed(name, verb)
            case "GET", ["restate", *what]:
                return await self._attached(*what)
            case "POST", [service, *_] if service.removesuffix(".mail") not in self.services:
                return self._ingress(404, f"service '{service}' not found, make sure to register the service")
            case "POST", [service, key, "run", "send"]:
                delay = parse_qs(parts.query).get("delay", [None])[0]
                return self._submitted(FakeRun(service, key, body, headers, delay))
            case "POST", [service, key, "signal", "send"]:
                return self._sent(self.runs.get((service.removesuffix(".mail"), key)), headers, json.loads(body))
            case "POST", [service, key, handler]:
                self.keys.append(headers.get("idempotency-key", ""))
                if not self.is_served:
                    return 500, {"x-restate-error-source": "invocation"}, {"code": 500, "message": "no connection"}
                return 200, {}, self._told(self.runs.get((service, key)), handler, json.loads(body))
        return 405, {}, {"message": f"{method} {target}"}

    def _ingress(self, status: int, message: str) -> Answer:
        return status, {"x-restate-error-source": "ingress"}, {"code": status, "message": message, "source": "ingress"}

    def _submitted(self, run: FakeRun) -> Answer:
        known = self.runs.setdefault((run.service, run.key), run)
        if known is run:
            self.begun(run)
        return 202, {}, {"invocationId": known.id, "status": "Accepted" if known is run else "PreviouslyAccepted"}

    async def _attached(self, kind: str, *names: str) -> Answer:
        if kind == "workflow":
            return await self._ended(*names)
        number = int(names[0].removeprefix("inv_call_"))
        return await self._called(number, *self.calls[number])

    async def _ended(self, service: str, key: str, how: str) -> Answer:
        run = self.runs.get((service, key))
        if run is None and how == "attach":  # it says so as if the run did
            return 404, {"x-restate-error-source": "invocation"}, {"code": 404, "message": "not found"}
        if run is None:
            return self._ingress(404, "invocation not found")
        if how == "attach":
            await run.over.wait()
        if run.end is None:
            return self._ingress(470, "the invocation exists but has not completed yet")
        status, what = run.end
        return status, {} if status == 200 else {"x-restate-error-source": "invocation"}, what

    def _told(self, run: FakeRun | None, handler: str, given: Any) -> Any:
        if handler == "about":
            return None if run is None else run.about
        if run is not None and run.end is None:
            run.signals.append(given)
            self.told(run)
            return True
        return False

    def _sent(self, run: FakeRun | None, headers: dict[str, str], given: Any) -> Answer:
        """Take a call that is handed over when somebody serves it; one key is one call."""
        key = headers["idempotency-key"]
        if key not in self.keys:
            self.keys.append(key)
            self.calls.append((run, given))
        return 202, {}, {"invocationId": f"inv_call_{len(self.calls) - 1}", "status": "Accepted"}

    async def _called(self, number: int, run: FakeRun | None, given: Any) -> Answer:
        while not self.is_served:
            await asyncio.sleep(0.01)
        if self.refuses == "killed":
            return 409, {"x-restate-error-source": "invocation"}, {"code": 409, "message": "killed"}
        if number not in self.done:
            self.done[number] = self._told(run, "signal", given)
        return 200, {}, self.done[number] if self.refuses is None else self.refuses

    def _rows(self, sql: str) -> list[Any]:
        if "sys_service" in sql:
            return [{"name": name} for name in self.services]
        if "sys_journal" in sql:
            return self.journal
        found = [self._row(run, i) for i, run in enumerate(self.runs.values()) if self._meant(run, sql)]
        return found[::-1][: int(sql.rpartition(" limit ")[2])] if " limit " in sql else found[::-1]

    @staticmethod
    def _row(run: FakeRun, number: int) -> dict[str, Any]:
        facts = {"about": run.about, "why": run.why}
        said = {name: None if fact is None else json.dumps(fact) for name, fact in facts.items()}
        at = f"2026-11-21T20:00:{number:02}.000Z"
        names = {"target_service_name": run.service, "target_service_key": run.key}
        return {"id": run.id, "status": run.status, "created_at": at, "modified_at": at, **names, **said, **run.row}

    @staticmethod
    def _meant(run: FakeRun, sql: str) -> bool:
        """Read the few conditions that are asked for."""
        service, key = (one.replace("'", "''") for one in (run.service, run.key))
        for column, value in (("target_service_name", service), ("target_service_key", key), ("status", run.status)):
            is_said = f"i.{column} = '" in sql or f"i.{column} in (" in sql
            if is_said and f"i.{column} = '{value}'" not in sql and f"'{value}'" not in sql.partition(" in (")[2]:
                return False
        match = re.search(r"starts_with\(i\.target_service_name, '(.*?)'\)", sql)
        return match is None or run.service.startswith(match[1])

    def _changed(self, name: str, verb: str) -> Answer:
        for run in self.runs.values():
            if run.id == name and run.end is None:
                if verb in ("cancel", "kill"):
                    run.finish(409, {"code": 409, "message": f"{verb}ed"})
                return 202, {}, {}
            if run.id == name:
                return 409, {}, {"message": f"The invocation '{name}' was already completed."}
        return 404, {}, {"message": f"The requested invocation '{name}' does not exist"}

    def _registered(self, given: Any) -> Answer:
        if given["uri"].endswith("/nobody"):
            return 400, {}, {"message": "cannot discover it", "restate_code": "META0003"}
        return 201, {}, {"id": "dp_1", "services": []}

    async def _answered(
        self, trouble: int | str | None, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if isinstance(trouble, str):
            status, data = _TROUBLES[trouble]
            return status, {}, data
        if trouble is not None:
            return trouble, {}, b'{"message": "later"}'
        status, more, what = await self.answer(method, target, headers, body)
        return status, more, json.dumps(what).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            trouble = self.troubles.pop(0) if self.troubles else None
            if trouble == "cut":
                return
            method, target, _ = head[0].split(" ")
            status, more, data = await self._answered(trouble, method, target, headers, body)
            lines = {
                "content-type": "application/json",
                "content-length": str(len(data)),
                "connection": "close",
                **more,
            }
            text = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
            writer.write(f"HTTP/1.1 {status} -\r\n{text}\r\n".encode() + data)
            await writer.drain()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(fake: FakeRestate) -> AsyncIterator[str]:
    """Serve it on loopback, and give its address."""
    tasks = set[asyncio.Task[None]]()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError):
            await fake.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextmanager
def serving_apart(fake: FakeRestate) -> Iterator[str]:
    """Serve it in a thread, for a test that blocks, and give its address."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), list[str]()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(fake) as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
