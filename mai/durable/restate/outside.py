"""Signals and answers on their way to a run: a call that the server keeps until a worker serves the code of the run."""

import json
from typing import Final

from mai.durable.records import ENDED
from mai.durable.restate.client import RestateClient
from mai.durable.restate.mail import mailbox_of
from mai.durable.restate.tables import info_of, row_of
from mai.errors import CastError
from mai.types import Payload
from mai.values.casts import caster, written

__all__ = ["SOON", "data_of", "send_signal"]

SOON: Final = 2.0  # [s] so long it is waited for what a worker says of a signal


def data_of(value: object) -> bytes:
    """Return the JSON that a signal carries for *value*, which may be a Payload.

    Raises:
        PayloadError: If it cannot be written as JSON.
    """
    return value.json() if isinstance(value, Payload) else caster(type(value)).dump(value)


async def send_signal(
    client: RestateClient, service: str, run_id: str, name: str, data: bytes, *, key: str | None = None,
    answers: bool = False,
) -> bool:  # fmt: skip
    """Send a signal to a run that is known; False if that has ended.

    Where no worker says soon what becomes of it, the server has it, and hands it over as soon as one does.

    Args:
        client: What the server is asked with.
        service: The service of the run.
        run_id: The run.
        name: Name of the signal.
        data: The JSON that it carries.
        key: By which a second sending of the same signal is known.
        answers: Whether it answers a question; a worker that knows that one says whether it fits.

    Raises:
        CastError: If it is an answer that does not fit, and a worker said so.
        JournalError: If no server answers.
    """
    letter = {"name": name, "value": json.loads(data), "id": key, "answers": answers}
    said = await client.sent(await client.send(mailbox_of(service), run_id, "signal", written(letter).encode()), SOON)
    if said is None:
        row = await row_of(client, service, run_id)
        return row is None or info_of(row, "").status not in ENDED
    found = json.loads(said)
    if isinstance(found, bool):
        return found
    raise CastError(found["refused"], step_id=name, where="answer", expected=found["expected"])
