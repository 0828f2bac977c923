"""Restate at the command line: where a server is, and `mai run --restate`, whose questions are answered from here."""

import asyncio
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from mai.cli.output import say
from mai.cli.usage import BadUsage
from mai.core.clock import clock
from mai.core.drive import apart, outcome
from mai.core.frame import current
from mai.durable.restate import RemoteRun, RestateRunner
from mai.errors import CastError
from mai.layers import Module
from mai.types import Context, Payload, Question

__all__ = ["carry", "ingress_of"]

_LOOK, _SELDOM = 0.25, 2.0  # [s] between two looks for open questions, at first and later
_DOUBT = 5.0  # [s] after which a question that is still open is taken for one whose answer did not fit


def ingress_of(admin: str, ingress: str | None) -> str:
    """Return the address of the ingress: *ingress*, or port 8080 of the machine that has the admin API *admin*.

    Raises:
        BadUsage: If *admin* is no address.
    """
    if not admin.startswith(("http://", "https://")):
        raise BadUsage(f"--restate {admin}: give the address of an admin API, such as http://127.0.0.1:9070")
    parts = urlsplit(admin)
    place = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return ingress or f"{parts.scheme}://{place}:8080"


async def carry(module: Module[Any, Any], given: BaseModel, url: str, run_id: str, timeout: float | None) -> Any:
    """Start the run *run_id*, or attach to it, and return its value; answer what it asks if somebody here can."""
    async with RestateRunner(url) as runner:
        with Context.scope(timeout=timeout) if timeout is not None else nullcontext():
            run = await runner.start(module, Payload.of(given, type(given)), run_id=run_id)
        result, talk = asyncio.ensure_future(run.result()), asyncio.ensure_future(_talk(run))
        try:
            await asyncio.wait([result, talk], return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                await talk
            return await result
        finally:
            for task in (result, talk):
                task.cancel()
            await asyncio.wait([result, talk])


async def _talk(run: RemoteRun[Any]) -> None:
    """Answer the questions of *run*, or tell of them, for as long as it goes on."""
    answers, pause, done = current().env.answers, _LOOK, dict[str, float]()
    while True:
        await asyncio.sleep(pause)
        pause = min(2 * pause, _SELDOM)
        for key, prompt in (await run.questions()).items():
            if clock.now() < done.get(key, 0.0):
                continue
            if answers is None:
                how = f"the same command with --run-id {run.run_id} --answer VALUE does"
                say(f"mai run: {prompt} (nobody is here to answer: {how})")
                done[key] = float("inf")
            else:
                answer = await outcome(apart(answers, Question(key, prompt, key, Any)))
                try:
                    await run.answer(answer, question=key)
                except CastError as error:  # the question stays open
                    say(f"mai run: {error}")
                else:
                    done[key] = clock.now() + _DOUBT
                pause = _LOOK
