"""Carrying a run on in this process: from its input to what came of it, with what takes back its steps in between."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mai.core.call import begin
from mai.core.clock import clock
from mai.core.drive import outcome
from mai.core.frame import ROOT, Env, Frame, Scope, scoped, set_current
from mai.core.recorded import Suspended
from mai.core.trace import TraceHandle, open_handle
from mai.durable.code import Code
from mai.durable.ending import status_of, take_back, uncancel
from mai.durable.records import Status
from mai.durable.restate.run import RestateRun
from mai.durable.restate.segment import RestateSegment
from mai.durable.restate.turns import Commands, Mismatch, Turns
from mai.durable.segments import begun_anew
from mai.errors import ReplayMismatch
from mai.values.casts import written

if TYPE_CHECKING:
    from mai.durable.restate.engine import RestateEngine

__all__ = ["ABOUT", "Carried", "Ended", "digest"]

ABOUT = "about"  # the state in which others see the run
_NAMES = re.compile(r"^ *name: (.*) != (.*)$", re.MULTILINE)


def digest(data: bytes) -> str:
    """Return what two inputs have in common that are the same JSON."""
    return blake2b(written(json.loads(data), sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        output: The value as JSON, if it gave one.
        facts: The failure as data, if it failed.
        message: The failure in words.
    """

    status: Status
    output: bytes = b""
    facts: bytes = b""
    message: str = ""


class Carried:
    """One attempt to carry a run on.

    Args:
        engine: The engine of this process.
        code: The module.
        run_id: The run.
        data: Its input, a JSON object.
        headers: What it was begun with: ``x-mai-metadata``, ``x-mai-timeout``, ``traceparent``.
        seen: The environment and the handle of whoever started it in this process and looks on, if somebody does.
    """

    def __init__(
        self, engine: "RestateEngine", code: Code, run_id: str, data: bytes, headers: Mapping[str, str],
        seen: tuple[Env, TraceHandle[Any]] | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._code, self._run_id, self._data = engine, code, run_id, data
        self._headers, self._seen = headers, seen

    async def out(self, commands: Commands) -> Ended:
        """Return how the run ended.

        Raises:
            ReplayMismatch: If its code no longer does what the journal says.
            BaseException: Whatever *commands* raise when it cannot be carried on here.
        """
        self._turns = turns = Turns(commands)
        self._segment = RestateSegment(self._handle(), is_flow=self._code.module._mai_spec.flow)
        self._run = RestateRun(self._engine, self._run_id, turns, self._tell, self._segment)
        self._status: Status = "running"
        try:
            return await turns.drive(self._main())  # type: ignore[no-any-return]
        except Mismatch as error:
            raise _explained(self._run_id, str(error)) from error

    def _tell(self) -> None:
        """Let others see what is known of the run."""
        facts = {
            "target": self._code.target, "fingerprint": self._code.fingerprint, "input": digest(self._data),
            "status": self._status, "questions": self._run.questions,
        }  # fmt: skip
        if self._turns.stopped is None:
            try:
                self._turns.commands.set(ABOUT, written(facts).encode())
            except Mismatch as error:
                raise self._turns.stop(error) from error

    async def _main(self) -> Ended:
        """Run the code, on the loop of the flow."""
        scope = self._scope()
        set_current(scope)
        otel.attach(TraceContextTextMapPropagator().extract(dict(self._headers)))
        self._tell()
        try:
            value = await self._attempted(scope)
            ended = Ended("ok", self._code.dump(value))
        except (Exception, asyncio.CancelledError) as error:  # becomes the outcome of the run
            if self._turns.stopped is not None:
                raise Suspended from error
            uncancel()
            await take_back(self._run, scope, error)
            ended = self._failed(error)
        self._status = ended.status
        self._tell()
        return ended

    def _scope(self) -> Scope:
        env, scope = ROOT.env if self._seen is None else self._seen[0], scoped(ROOT)
        metadata = {**json.loads(self._headers.get("x-mai-metadata", "{}")), **env.metadata}
        scope.env = env._replace(
            engine=self._engine, metadata=MappingProxyType(metadata), auth=env.auth or self._engine.auth
        )
        with suppress(KeyError):
            scope.deadline = clock.now() + float(self._headers["x-mai-timeout"])
        scope.armed = None
        scope.run = self._run
        return scope

    def _handle(self) -> TraceHandle[Any]:
        """Return the handle of whoever looks on; where nobody here does, spans and subscribers still do."""
        if self._seen is not None:
            return self._seen[1]
        shell, module = Frame(), self._code.module
        shell.key, shell.n, shell.parent = f"/{self._code.target}", 0, ROOT
        return open_handle(shell, None, module._mai_spec or module._mai_compile())

    async def _attempted(self, scope: Scope) -> Any:
        module, handle = self._code.module, self._segment.handle
        spec = module._mai_spec or module._mai_compile()
        facts = self._segment.attributes
        begun_anew(handle, {**spec.facts, **facts})
        args, kwargs = spec.signature.load(self._data)
        return await outcome(begin(module, scope, f"/{self._code.target}", 0, args, kwargs, facts or None, handle))

    def _failed(self, error: BaseException) -> Ended:
        facts, raised = self._engine.failures.crossed(error, self._code.modules)
        return Ended(
            status_of(raised), facts=facts, message=f"{type(raised).__qualname__}: {raised}".removesuffix(": ")
        )


def _explained(run_id: str, text: str) -> ReplayMismatch:
    """Return the error of a journal that has something else than the code asks for; *text* is what the SDK says."""
    names = _NAMES.search(text)
    recorded, found = ("", text) if names is None else names.groups()
    what = f"at {recorded!r}\n  recorded: {recorded}\n  now:      {found}" if names is not None else f": {text}"
    message = f"Run {run_id!r} no longer does what it did {what}"
    return ReplayMismatch(message, run_id=run_id, step_id=recorded, recorded=recorded, found=found)
