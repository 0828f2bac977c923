"""`mai runs --restate`: what can be seen of runs on a Restate server, and what they can be told."""

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

from mai.cli.history import line, lines
from mai.cli.output import write_result
from mai.cli.restate import ingress_of
from mai.cli.runs import question_of
from mai.core.clock import clock
from mai.durable import Record, RunInfo
from mai.durable.questions import about_path
from mai.durable.records import Status
from mai.durable.restate import RemoteInfo, RestateRunner
from mai.durable.restate.tables import about_of, find_row, info_of, journal_of
from mai.values.casts import written

__all__ = ["answer", "listed", "on_server", "shown"]


async def on_server(admin: str, ingress: str | None, work: Callable[[RestateRunner], Awaitable[None]]) -> None:
    """Do *work* with what asks the server."""
    async with RestateRunner(ingress_of(admin, ingress), admin=admin, patience=5.0) as runner:
        await work(runner)


async def listed(runner: RestateRunner, status: Status | None, limit: int, *, as_json: bool) -> None:
    """Print a line for each run, the newest first."""
    found = await runner.runs(status, limit=limit)
    if as_json:
        write_result(json.dumps([dataclasses.asdict(info) for info in found], ensure_ascii=False, indent=2))
    else:
        write_result("\n".join(_line(info) for info in found) or "no runs")


async def shown(runner: RestateRunner, run_id: str, *, as_json: bool) -> None:
    """Print what a run has done, and what it waits for."""
    row = await find_row(runner._client, runner._prefix, run_id)
    info, journal = info_of(row, runner._prefix), await journal_of(runner._client, row["id"])
    if as_json:
        facts: dict[str, Any] = {"input": _plain(journal.input), "output": _plain(journal.output)}
        records = [{name: _plain(fact) for name, fact in dataclasses.asdict(one).items()} for one in journal.records]
        facts |= dataclasses.asdict(info) | {"records": records}
        write_result(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    about = about_of(row)
    asked: dict[str, Any] = about.get("questions", {}) if info.questions else {}
    prompts = [Record(about_path(path), "value", output=written(facts).encode()) for path, facts in asked.items()]
    error = written(about["error"]).encode() if "error" in about else (row.get("completion_failure") or "").encode()
    whole = dataclasses.replace(_known(info), input=journal.input, output=journal.output, error=error or None)
    write_result("\n".join([*lines(whole, [*journal.records, *prompts], (), clock.wall()), *_troubles(info)]))


async def answer(
    runner: RestateRunner, run_id: str, text: str, question: str | None, load: Callable[[str], bytes]
) -> str:
    """Answer a question of a run, and return which; *load* makes JSON of *text* where no text is asked for."""
    row = await find_row(runner._client, runner._prefix, run_id)
    asked: dict[str, Any] = about_of(row).get("questions") or {}
    name = question_of(run_id, [*info_of(row, runner._prefix).questions], question)
    is_text = asked.get(name, {}).get("expected") == "str"
    run = await runner.find(run_id)
    await run.answer(text if is_text else json.loads(load(text)), question=name)
    return name


def _line(info: RemoteInfo) -> str:
    return "  ".join([line(_known(info), clock.wall()), *_troubles(info)])


def _known(info: RemoteInfo) -> RunInfo:
    """Return the same as what a journal of ours would say."""
    waits = {name: name for name in info.questions}
    return RunInfo(
        info.run_id, info.target, "", "", b"", status=info.status, waits=waits, created=info.created,
        updated=info.updated,
    )  # fmt: skip


def _troubles(info: RemoteInfo) -> list[str]:
    return [f"{info.retries} attempts failed, the last one of: {info.failure}"] if info.failure else []


def _plain(fact: Any) -> Any:
    """Return bytes as the JSON that they are."""
    return json.loads(fact) if isinstance(fact, bytes) and fact else fact or None
