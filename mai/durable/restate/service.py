"""What a worker registers for a module: one Restate workflow, whose key is the id of the run, and its mailbox.

The handlers of the workflow are ``run``, and those that others may call while it runs: ``signal`` keeps one, ``about``
tells what is known, ``end`` takes down why it could not go on. The mailbox is a virtual object, of which the server
calls one handler at a time for each key: so signals that wait for a worker come in the order in which they were sent.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mai.durable.code import Code
from mai.durable.records import ENDED
from mai.durable.restate.carry import ABOUT, Carried, Ended
from mai.durable.restate.commands import ContextCommands, needed
from mai.durable.restate.mail import letter, mailbox_of, opened, promise_of
from mai.errors import PayloadError, ReplayMismatch
from mai.types import Question
from mai.values.casts import caster, written

if TYPE_CHECKING:
    from mai.durable.restate.engine import RestateEngine

__all__ = ["FACTS", "SHAPE", "Limits", "services_of"]

SHAPE: Final = 2  # of the services below, for a server that knows those of an earlier release
FACTS = "mai"  # where a failed run's TerminalError has the failure as data
_CODES = {"cancelled": 409, "timeout": 408}
_AGAIN = timedelta(seconds=30)
_END = "end"  # promise of why a run could not go on
# A signal waits for a worker as long as it takes; who asks about a run is told at once that nobody is there to say it.
_KEPT: Final = {"max_interval": timedelta(seconds=10), "max_attempts": 1_000_000_000}
_ONCE: Final = {"initial_interval": timedelta(milliseconds=50), "max_attempts": 2, "on_max_attempts": "kill"}
_Handler = Callable[[Any, bytes], Awaitable[bytes]]


class Limits(NamedTuple):
    """How long what may take.

    Attributes:
        inactivity: How long a run may wait before it leaves memory [s]; None: as the server has it.
        longest: How long a step may go on then [s].
        retention: How long what came of a run is kept [s].
    """

    inactivity: float | None
    longest: float
    retention: float


def services_of(engine: "RestateEngine", code: Code, name: str, limits: Limits) -> list[Any]:
    """Return the `restate.Workflow` of a module, and the `restate.VirtualObject` through which its runs get signals.

    Args:
        engine: The engine that carries its runs on.
        code: The module.
        name: The name of the service.
        limits: How long what may take.
    """
    waits = None if limits.inactivity is None else timedelta(seconds=limits.inactivity)
    times = {"abort_timeout": timedelta(seconds=limits.longest), "inactivity_timeout": waits}
    title = (code.module.__doc__ or "").strip().partition("\n")[0]
    workflow = needed("restate").Workflow(name, description=title or None, **times)
    data: dict[str, Any] = {
        "input_serde": needed("restate.serde").BytesSerde(),
        "output_serde": needed("restate.serde").BytesSerde(),
    }

    async def run(context: Any, given: bytes) -> bytes:
        return await _run(engine, code, name, context, given)

    stays = timedelta(seconds=limits.retention)
    workflow.main("run", workflow_retention=stays, journal_retention=stays, **data)(_bare(run))
    data["journal_retention"] = timedelta(0)
    kept, once = (needed("restate").InvocationRetryPolicy(**how) for how in (_KEPT, _ONCE))
    workflow.handler("signal", invocation_retry_policy=kept, **data)(_bare(partial(_signal, engine)))
    workflow.handler("about", invocation_retry_policy=once, **data)(_bare(_about))
    workflow.handler("end", **data)(_bare(_end))
    mailbox = needed("restate").VirtualObject(mailbox_of(name), description=f"Signals for {name}, in their order")
    data["idempotency_retention"] = timedelta(hours=1)  # so long who sent one may ask what became of it
    mailbox.handler("signal", invocation_retry_policy=kept, **data)(_bare(partial(_passed_on, name)))
    return [workflow, mailbox]


async def _passed_on(name: str, context: Any, given: bytes) -> bytes:
    """Hand a signal to the run; the next one waits meanwhile."""
    return bytes(await context.generic_call(name, "signal", given, key=context.key()))


def _bare(handler: _Handler) -> _Handler:
    """Return *handler* without the annotations from which the SDK would make JSON schemas."""

    async def called(context: Any, given: Any) -> Any:
        return await handler(context, given)

    called.__annotations__ = {}
    return called


async def _run(engine: "RestateEngine", code: Code, name: str, context: Any, given: bytes) -> bytes:
    """Carry a run on, and give or raise what came of it."""
    run_id, request = context.key(), context.request()
    carried = Carried(engine, code, run_id, given or b"{}", request.headers, engine.onlooker(run_id))
    with engine.active(run_id):
        try:
            ended = await carried.out(engine.commands(context))
        except ReplayMismatch as error:
            logging.getLogger("mai").error("%s", error)
            await engine.give_up(name, run_id, request.id, error)
            again = needed("restate.exceptions").RetryableError  # what is told if it could not be ended
            raise again(str(error), retry_after=_AGAIN) from error
    if ended.status == "ok":
        return ended.output
    raise _terminal(ended)


def _terminal(ended: Ended) -> Exception:
    metadata = {FACTS: ended.facts.decode()}
    code = _CODES.get(ended.status, 500)
    return needed("restate").TerminalError(ended.message, code, metadata)  # type: ignore[no-any-return]


async def _signal(engine: "RestateEngine", context: Any, given: bytes) -> bytes:
    """Keep the first promise of that name that is open.

    Return whether the run may still take it, or, of an answer that does not fit, what is wrong with it: whoever sent
    that may have gone, so the run gets it all the same and puts it aside.
    """
    facts, commands = json.loads(given), ContextCommands(context)
    about = await _state(context)
    if about is not None and about["status"] in ENDED:
        return b"false"
    key, number, failed = facts.get("id"), 0, needed("restate").TerminalError
    kept = False
    while not kept:
        promise = context.promise(promise_of(facts["name"], number), serde=commands.bytes)
        if (known := await promise.peek()) is None:
            with suppress(failed):  # somebody else was first
                await promise.resolve(letter(facts.get("value"), key))
                kept = True
        elif key is not None and opened(known)[1] == key:
            return b"true"
        number += 1
    question = engine.asked.get(context.key(), facts["name"]) if facts.get("answers") else None
    return b"true" if question is None else _looked_at(question, facts["value"])


def _looked_at(question: Question, value: Any) -> bytes:
    """Return true for an answer that fits, else what is wrong with it; both as JSON."""
    try:
        caster(question.type).load(written(value).encode())
    except PayloadError as error:
        text = f"The answer {value!r} does not fit the question {question.prompt!r}: {error}"
        return written({"refused": text, "expected": question.expected}).encode()
    return b"true"


async def _about(context: Any, given: bytes) -> bytes:
    """Return what is known of the run."""
    about: Any = await _state(context)
    why = await context.promise(_END, serde=ContextCommands(context).bytes).peek()
    if why is not None:
        about = dict(about or {}, status="error", error=json.loads(why))
    return written(about).encode()


async def _end(context: Any, given: bytes) -> bytes:
    """Take down why a run could not go on."""
    with suppress(needed("restate").TerminalError):  # that is known
        await context.promise(_END, serde=ContextCommands(context).bytes).resolve(given)
    return b"true"


async def _state(context: Any) -> Any:
    data = await context.get(ABOUT, serde=ContextCommands(context).bytes)
    return None if data is None else json.loads(data)
