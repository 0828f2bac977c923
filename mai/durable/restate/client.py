"""What a Restate server can be asked over HTTP: its ingress, where runs are begun, and its admin API.

Nothing here knows what the bytes of an input or a result mean. With several addresses, one for each node of a cluster,
the next one is asked where one does not answer.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from mai.core.clock import clock
from mai.core.ids import new_id
from mai.errors import ConfigError, JournalError, UnknownRun

if TYPE_CHECKING:
    import httpx2

__all__ = ["End", "RestateClient", "addresses", "sql_text"]

_BUSY = 470  # the ingress says so of a run that has not ended
_PAUSE, _LONGEST = 0.05, 2.0  # [s] between two rounds of asking all nodes


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended.

    Attributes:
        data: The JSON of the value; None if it has none.
        code: As in HTTP; 409 is what the server gives for a run that was cancelled or killed.
        message: What a failure says, for people.
        metadata: What was sent with a failure.
    """

    data: bytes | None
    code: int = 200
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


class RestateClient:
    """Asks a server, or the nodes of a cluster.

    Size: one method for each thing that a server is asked.

    Args:
        ingress: The address of the ingress, or one for each node.
        admin: The address of the admin API, or one for each node.
        headers: What each request has, such as the key of a proxy in front.
        patience: How long it goes on asking while no node answers [s].

    Raises:
        ConfigError: If an address is not one, or the extra ``restate`` is not installed.
    """

    def __init__(
        self, ingress: str | Sequence[str], admin: str | Sequence[str], *, headers: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> None:  # fmt: skip
        self._ingress, self._admin = addresses(ingress, "ingress"), addresses(admin, "admin")
        self._patience = patience
        self._http: httpx2.AsyncClient = _opened(headers or {}, [*self._ingress, *self._admin])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # ---------------------------------------------------------------- runs

    async def submit(
        self, service: str, run_id: str, data: bytes, *, delay: float = 0.0, headers: Mapping[str, str] | None = None
    ) -> tuple[str, bool]:
        """Begin a run, or find it; return the id of its invocation, and whether it is new.

        A second run of that id is not begun, whatever its input.

        Raises:
            ConfigError: If no such service is registered.
            JournalError: If no node answers, or one refuses.
        """
        path = f"{_path(service, run_id)}/run/send" + (f"?delay={round(delay * 1000)}ms" if delay > 0 else "")
        answer = await self._ask("POST", self._ingress, path, data, headers)
        if answer.status_code >= 400:
            raise await self._refused(answer, service)
        facts = answer.json()
        return facts["invocationId"], facts["status"] == "Accepted"

    async def attach(self, service: str, run_id: str) -> End:
        """Wait for the end of a run.

        Raises:
            UnknownRun: If there is none of that id.
            JournalError: If no node answers, or one refuses.
        """
        path = f"/restate/workflow{_path(service, run_id)}/attach"
        answer = await self._ask("GET", self._ingress, path, read=60.0, again=True)
        return await self._end(answer, service, run_id)

    async def output(self, service: str, run_id: str) -> End | None:
        """Return how a run ended; None if it has not.

        Raises:
            UnknownRun: If there is none of that id.
            JournalError: If no node answers, or one refuses.
        """
        answer = await self._ask("GET", self._ingress, f"/restate/workflow{_path(service, run_id)}/output")
        return None if answer.status_code == _BUSY else await self._end(answer, service, run_id)

    async def tell(self, service: str, run_id: str, handler: str, data: bytes, *, once: bool = True) -> bytes:
        """Call another handler of a run, and return what it gives.

        Args:
            service: The service.
            run_id: The run.
            handler: The handler.
            data: What it is called with.
            once: Whether the server is to see that it is called once only, where an answer gets lost.

        Raises:
            ConfigError: If no such service is registered.
            JournalError: If no node answers, or one refuses.
        """
        head = {"idempotency-key": new_id()} if once else None
        answer = await self._ask("POST", self._ingress, f"{_path(service, run_id)}/{handler}", data, head)
        if answer.status_code >= 400:
            raise await self._refused(answer, service)
        return answer.content

    async def send(self, service: str, run_id: str, handler: str, data: bytes) -> str:
        """Let the server call another handler of a run as soon as a worker serves it; return the id of that call.

        However often the request has to be made, it is one call.

        Raises:
            ConfigError: If no such service is registered.
            JournalError: If no node answers, or one refuses.
        """
        path, head = f"{_path(service, run_id)}/{handler}/send", {"idempotency-key": new_id()}
        answer = await self._ask("POST", self._ingress, path, data, head)
        if answer.status_code >= 400:
            raise await self._refused(answer, service)
        return str(answer.json()["invocationId"])

    async def sent(self, call_id: str, within: float) -> bytes | None:
        """Return what a call gives that `send` made; None if it has given nothing *within* so many seconds.

        Raises:
            JournalError: If somebody has ended the call in the server.
        """
        path = f"/restate/invocation/{quote(call_id, safe='')}/attach"
        try:
            async with asyncio.timeout(within):
                answer = await self._ask("GET", self._ingress, path)
        except OSError:  # a timeout, or no node that answers now
            return None
        if answer.status_code >= 400:
            raise JournalError(f"The server ended the call {call_id}: {_message(answer)}")
        return answer.content

    async def _end(self, answer: "httpx2.Response", service: str, run_id: str) -> End:
        if answer.status_code < 400:
            return End(answer.content)
        text, of_run = _message(answer), answer.headers.get("x-restate-error-source") == "invocation"
        if of_run and (answer.status_code, text) != (404, "not found"):  # what attaching to an unknown run says
            return End(None, answer.status_code, text, answer.json().get("metadata") or {})
        if answer.status_code == 404:
            raise UnknownRun(f"There is no run {run_id!r} of {service!r}", run_id=run_id)
        raise await self._refused(answer, service)

    # ---------------------------------------------------------------- the admin API

    async def cancel(self, invocation_id: str) -> bool:
        """Ask for the end of an invocation; False: it has ended already.

        Raises:
            JournalError: If no node answers, or one refuses.
        """
        return await self._change(invocation_id, "cancel")

    async def kill(self, invocation_id: str) -> bool:
        """End an invocation without letting its code do anything more; False: it has ended already.

        Raises:
            JournalError: If no node answers, or one refuses.
        """
        return await self._change(invocation_id, "kill")

    async def resume(self, invocation_id: str) -> bool:
        """Let an invocation go on that is paused, or that waits to be tried again; False: it does neither.

        Raises:
            JournalError: If no node answers, or one refuses.
        """
        return await self._change(invocation_id, "resume")

    async def register(self, uri: str, *, force: bool = False) -> Mapping[str, Any]:
        """Tell the server of a worker at *uri*; the runs that begin from now on go there.

        Args:
            uri: Where the worker listens.
            force: Whether another deployment at the same address may be replaced, with the runs that it has.

        Raises:
            JournalError: If no node answers, or one cannot reach the worker.
        """
        data = json.dumps({"uri": uri, "force": force}).encode()
        answer = await self._ask("POST", self._admin, "/deployments", data, read=60.0)
        if answer.status_code >= 400:
            raise JournalError(f"The server does not take the worker at {uri}: {_message(answer)}")
        return dict(answer.json())

    async def query(self, sql: str, *, patience: float | None = None) -> list[dict[str, Any]]:
        """Return the rows that *sql* selects of the server's tables, such as ``sys_invocation``.

        Args:
            sql: The query.
            patience: How long to go on asking while no node answers [s]; None: as usual.

        Raises:
            JournalError: If no node answers, or one refuses.
        """
        data, head = json.dumps({"query": sql}).encode(), {"accept": "application/json"}
        answer = await self._ask("POST", self._admin, "/query", data, head, patience=patience)
        if answer.status_code >= 400:
            raise JournalError(f"The server does not answer {sql!r}: {_message(answer)}")
        return list(answer.json()["rows"])

    async def _change(self, invocation_id: str, verb: str) -> bool:
        path = f"/invocations/{quote(invocation_id, safe='')}/{verb}"
        answer = await self._ask("PATCH", self._admin, path)
        if answer.status_code == 409:
            return False
        if answer.status_code >= 400:
            raise JournalError(f"The server does not {verb} {invocation_id}: {_message(answer)}")
        return True

    async def _refused(self, answer: "httpx2.Response", service: str) -> Exception:
        """Return the error for an answer that is neither a value nor how a run ended."""
        text = _message(answer)
        if answer.status_code != 404 or service not in text:
            return JournalError(f"The server refuses ({answer.status_code}): {text}")
        with suppress(JournalError):
            names = sorted(row["name"] for row in await self.query("select name from sys_service", patience=0.0))
            text = f"No worker has registered {service!r} with the server; it knows {', '.join(names) or 'none'}"
        return ConfigError(text)

    # ---------------------------------------------------------------- one request

    async def _ask(
        self, method: str, bases: list[str], path: str, data: bytes | None = None,
        headers: Mapping[str, str] | None = None, *, read: float = 30.0, again: bool = False,
        patience: float | None = None,
    ) -> "httpx2.Response":  # fmt: skip
        """Return the first answer of a node; *again*: a node that says nothing for so long is asked once more."""
        import httpx2  # noqa: PLC0415 (an extra)

        head = {**({} if data is None else {"content-type": "application/json"}), **(headers or {})}
        limit = httpx2.Timeout(10.0, read=read)
        until, pause = clock.now() + (self._patience if patience is None else patience), _PAUSE
        while True:
            failure: object = None
            for base in list(bases):
                try:
                    answer = await self._http.request(method, base + path, content=data, headers=head, timeout=limit)
                except httpx2.ReadTimeout as error:
                    failure, until = error, until if not again else clock.now() + self._patience
                except httpx2.TransportError as error:
                    failure = error
                else:
                    if not _is_transient(answer):
                        return answer
                    failure = f"{answer.status_code} {_message(answer)}"
                if bases[0] == base:  # whoever asks next begins with one that may live
                    bases.append(bases.pop(0))
            if clock.now() > until:
                cause = failure if isinstance(failure, Exception) else None
                text = f"No server answers at {', '.join(bases)}: {failure!r}; or no worker serves the run"
                raise JournalError(text) from cause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)


def addresses(given: str | Sequence[str], name: str) -> list[str]:
    """Return the addresses that were given, without a slash at their ends."""
    found: list[Any] = [given] if isinstance(given, str) else list(given)  # what users give may be anything
    for one in found:
        if not isinstance(one, str) or not _is_address(one):
            raise ConfigError(f"{name}={given!r}: give an address, such as 'http://127.0.0.1:8080', or a list of them")
    if not found:
        raise ConfigError(f"{name}={given!r}: give at least one address")
    return [one.rstrip("/") for one in found]


def _is_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _opened(headers: Mapping[str, str], urls: list[str]) -> "httpx2.AsyncClient":
    try:
        import httpx2  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError("Restate needs the extra restate: pip install 'mai-kernel[restate]'") from error
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)  # each run that is waited for has one
    secure = any(url.startswith("https:") for url in urls)
    trusted = True if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read all authorities takes 0.1 s
    return httpx2.AsyncClient(headers=dict(headers), limits=limits, verify=trusted)


def _path(service: str, run_id: str) -> str:
    return f"/{quote(service, safe='')}/{quote(run_id, safe='')}"


def sql_text(value: str) -> str:
    """Return *value* as SQL has it."""
    return "'" + value.replace("'", "''") + "'"


def _is_transient(answer: "httpx2.Response") -> bool:
    """Say whether an answer tells of the state of the cluster, and of nothing else."""
    if answer.headers.get("x-restate-error-source") == "invocation":
        return False
    if answer.status_code == 500 and "External error" in answer.text:  # a query, and a node that cannot be reached
        return True
    return answer.status_code in (429, 502, 503, 504)


def _message(answer: "httpx2.Response") -> str:
    """Return what an error says."""
    with suppress(ValueError, TypeError, KeyError):
        return str(answer.json()["message"])
    return answer.text[:500]
