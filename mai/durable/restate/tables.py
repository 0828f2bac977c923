"""What the tables of a server say of runs: how they stand, what they ask, and what is in their journals.

They are read by the admin API, so no worker is needed for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from mai.durable.records import ENDED, Record, Status
from mai.durable.restate.client import RestateClient, sql_text
from mai.durable.restate.history import records_of
from mai.errors import UnknownRun

__all__ = ["NO_FORK", "Journaled", "RemoteInfo", "about_of", "find_row", "info_of", "journal_of", "list_runs", "row_of"]

NO_FORK: Final = "a Restate server cannot begin a workflow with the journal of another one; start a new run"
Row = Mapping[str, Any]

_STATUSES: Final[Mapping[str, Status]] = {
    "pending": "pending", "scheduled": "pending", "ready": "pending", "inboxed": "pending", "running": "running",
    "backing-off": "running", "suspended": "waiting", "paused": "needs_attention",
}  # fmt: skip
_RUNS = """
select i.id, i.status, i.target_service_name, i.target_service_key, i.created_at, i.modified_at, i.retry_count,
    i.last_failure, i.completion_result, i.completion_failure, s.value_utf8 as about,
    p.completion_success_value_utf8 as why
from sys_invocation i
left join state s
    on s.service_name = i.target_service_name and s.service_key = i.target_service_key and s.key = 'about'
left join sys_promise p
    on p.service_name = i.target_service_name and p.service_key = i.target_service_key and p.key = 'end'
where i.target_service_ty = 'workflow' and i.target_handler_name = 'run'
"""


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """What is known of a run from outside.

    Attributes:
        status: As of `mai.durable.RunInfo`. ``waiting``: it is in no worker's memory; ``needs_attention``: the server
            has paused it, after as many failed attempts to carry it on as it was allowed.
        questions: The prompts of the questions that wait for an answer, by their ids.
        retries: How many attempts to carry it on have failed, since it last got a step further.
        failure: What the last of these failed of; ``""`` if none did. It is no failure of the run.
        invocation_id: The name that the server has for it, in its tables and its user interface.
        run_id: Its id.
        target: Name of its module.
        created: When it was made [s].
        updated: When this last changed [s].
    """

    status: Status
    questions: Mapping[str, str] = field(default_factory=dict[str, str])
    retries: int = 0
    failure: str = ""
    invocation_id: str = ""
    run_id: str = ""
    target: str = ""
    created: float = 0.0
    updated: float = 0.0


class Journaled(NamedTuple):
    """What a journal of the server has.

    Attributes:
        records: What was completed, in that order.
        input: The JSON of the arguments.
        output: The JSON of the value, of a run that gave one.
    """

    records: Sequence[Record]
    input: bytes
    output: bytes | None


async def row_of(client: RestateClient, service: str, run_id: str) -> Row | None:
    """Return what the tables have of a run; None if there is none of that id."""
    where = f"and i.target_service_name = {sql_text(service)} and i.target_service_key = {sql_text(run_id)}"
    rows = await client.query(_RUNS + where)
    return rows[0] if rows else None


async def find_row(client: RestateClient, prefix: str, run_id: str) -> Row:
    """Return what the tables have of the run of that id, whichever module it is of; of several the newest.

    Raises:
        UnknownRun: If there is none.
    """
    where = f"and i.target_service_key = {sql_text(run_id)}{_ours(prefix)} order by i.created_at desc"
    rows = await client.query(_RUNS + where)
    if not rows:
        raise UnknownRun(f"There is no run {run_id!r}", run_id=run_id)
    return rows[0]


async def list_runs(
    client: RestateClient, prefix: str, status: Status | None, limit: int, after: str | None
) -> Sequence[RemoteInfo]:
    """Return what is known of runs, newest first; *after* is the last one of the page before.

    Raises:
        UnknownRun: If there is no run *after*.
    """
    where = _ours(prefix)
    if status is not None:
        names = [name for name, one in _STATUSES.items() if one == status]
        where += f" and i.status in ({', '.join(sql_text(name) for name in names or ['completed'])})"
    if after is not None:
        last = await find_row(client, prefix, after)
        made, own = sql_text(last["created_at"]), sql_text(last["id"])
        where += f" and (i.created_at < {made} or (i.created_at = {made} and i.id < {own}))"
    how_many = "" if status in ENDED else f" limit {limit}"  # how a run ended the run itself has said
    rows = await client.query(f"{_RUNS}{where} order by i.created_at desc, i.id desc{how_many}")
    found = [info_of(row, prefix) for row in rows]
    return [one for one in found if status in (None, one.status)][:limit]


async def journal_of(client: RestateClient, invocation_id: str) -> Journaled:
    """Return what the journal of a run has."""
    sql = f"select index, appended_at, entry_json from sys_journal where id = {sql_text(invocation_id)} order by index"
    entries = [(json.loads(row["entry_json"]), _time(row.get("appended_at"))) for row in await client.query(sql)]
    commands = [entry["Command"] for entry, _ in entries if "Command" in entry]
    given = [one["Input"]["payload"] for one in commands if "Input" in one]
    ends = [one["Output"]["result"] for one in commands if "Output" in one]
    output = ends[-1].get("Success") if ends else None
    return Journaled(records_of(entries), bytes(given[0]) if given else b"", None if output is None else bytes(output))


def about_of(row: Row | None) -> Any:
    """Return what the run has said of itself, and why it could not go on; nothing before it began."""
    if row is None:
        return {}
    about: dict[str, Any] = json.loads(row.get("about") or "{}")
    return about if row.get("why") is None else {**about, "status": "error", "error": json.loads(row["why"])}


def info_of(row: Row, prefix: str) -> RemoteInfo:
    """Return what a row says of its run."""
    about, status = about_of(row), _status(row)
    asked: Mapping[str, Any] = about.get("questions") or {}
    tries = row["status"] in ("backing-off", "paused")
    return RemoteInfo(
        status=status,
        questions={} if status in ENDED else {key: one["prompt"] for key, one in asked.items()},
        retries=max(0, (row.get("retry_count") or 0) - 1) if tries else 0,
        failure=(row.get("last_failure") or "") if tries else "",
        invocation_id=row["id"],
        run_id=row["target_service_key"],
        target=row["target_service_name"].removeprefix(prefix),
        created=_time(row.get("created_at")),
        updated=_time(row.get("modified_at")),
    )


def _status(row: Row) -> Status:
    """Return how a run stands; what ended before it began, or was killed, has not said so itself."""
    if row["status"] != "completed":
        return _STATUSES.get(row["status"], "running")
    if row.get("completion_result") == "success":
        return "ok"
    said: Status = about_of(row).get("status", "running")
    if said in ENDED and said != "ok":
        return said
    return "cancelled" if "cancel" in (row.get("completion_failure") or "") else "error"


def _ours(prefix: str) -> str:
    return f" and starts_with(i.target_service_name, {sql_text(prefix)})" if prefix else ""


def _time(text: str | None) -> float:
    return 0.0 if text is None else datetime.fromisoformat(text).timestamp()
