"""`mai runs`: look at the durable runs in a journal, and tell them things; their code is not needed for it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, cast, get_args

import typer

from mai.cli.history import line, lines
from mai.cli.output import say, write_result
from mai.cli.usage import BadUsage
from mai.core.clock import clock
from mai.durable import SQLiteJournal
from mai.durable.questions import about_path
from mai.durable.records import Status
from mai.errors import MaiError, UnknownRun

__all__ = ["runs_app"]

runs_app: typer.Typer = typer.Typer(
    name="runs", no_args_is_help=True, help="Look at durable runs in a journal, and tell them things."
)

Db = Annotated[Path, typer.Option("--db", metavar="FILE", help="The journal.", show_default=False)]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _on(db: Path, work: Callable[[SQLiteJournal], Awaitable[None]]) -> None:
    """Do *work* with the journal, and end the command with its exit code."""

    async def main() -> None:
        async with SQLiteJournal(db, create=False) as journal:
            await work(journal)

    try:
        asyncio.run(main())
    except BadUsage as error:
        say(f"mai runs: {error}")
        raise typer.Exit(2) from None
    except MaiError as error:
        say(f"mai runs: {type(error).__name__}: {error}")
        raise typer.Exit(1) from None


def _json(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2)


def _data(text: str | None) -> bytes:
    """Return the JSON of a value as it was written: JSON if it is some, else a text."""
    if text is None:
        return b"null"
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(text, ensure_ascii=False).encode()


def _did(done: bool, run_id: str, what: str, otherwise: str) -> None:  # noqa: FBT001 (what a method gave)
    if not done:
        raise BadUsage(f"the run {run_id!r} {otherwise}")
    write_result(f"{run_id}: {what}")


def _status(text: str) -> Status:
    if text not in get_args(Status):
        raise BadUsage(f"there is no status {text!r}; there are {', '.join(get_args(Status))}")
    return cast("Status", text)  # it was just looked up


def _age(text: str) -> float:
    """Return how long a duration such as ``30d`` is [s]."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise BadUsage(f"--older-than {text!r}: write a number and a unit, as in 90s, 30m, 12h, 30d or 8w")
    return float(match[1]) * _UNITS[match[2]]


@runs_app.command("list")
def _list(
    db: Db,
    *,
    status: Annotated[str | None, typer.Option(help="Only runs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""

    async def work(journal: SQLiteJournal) -> None:
        found = await journal.runs(None if status is None else _status(status), limit=limit)
        if as_json:
            facts = ("run_id", "target", "status", "owner", "epoch", "claims", "created", "updated", "due", "cancelled")
            write_result(_json([{name: getattr(info, name) for name in facts} for info in found]))
        else:
            write_result("\n".join(line(info, clock.wall()) for info in found) or "no runs")

    _on(db, work)


@runs_app.command("show")
def _show(run_id: RunId, db: Db, *, as_json: AsJson = False) -> None:
    """Show what a run has done, as a tree, and what it waits for."""

    async def work(journal: SQLiteJournal) -> None:
        info = await journal.run(run_id)
        if info is None:
            raise UnknownRun(f"{journal.path!r} has no run {run_id!r}", run_id=run_id)
        if as_json:
            write_result(_json(await journal.export(run_id)))
            return
        history, signals = await journal.history(run_id), await journal.signals(run_id)
        write_result("\n".join(lines(info, history, signals, clock.wall())))

    _on(db, work)


@runs_app.command("resume")
def _resume(run_id: RunId, db: Db) -> None:
    """Let a run that waits or needs attention go on now; a worker that has its code takes it up."""

    async def work(journal: SQLiteJournal) -> None:
        _did(await journal.resume(run_id), run_id, "goes on", "does not stand still: it runs or has ended")

    _on(db, work)


@runs_app.command("cancel")
def _cancel(run_id: RunId, db: Db) -> None:
    """Ask for the end of a run."""

    async def work(journal: SQLiteJournal) -> None:
        _did(await journal.cancel(run_id), run_id, "is asked to end", "has ended already")

    _on(db, work)


@runs_app.command("signal")
def _signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="What the run waits for.")],
    db: Db,
    value: Annotated[str | None, typer.Argument(help="JSON, or a text; null if it is left out.")] = None,
    *,
    key: Annotated[str | None, typer.Option("--id", help="The same id is stored once.")] = None,
) -> None:
    """Send a signal to a run; it is kept until the run asks for it."""

    async def work(journal: SQLiteJournal) -> None:
        stored = await journal.signal(run_id, name, _data(value), id=key)
        _did(stored, run_id, f"has the signal {name!r}", "has ended")

    _on(db, work)


@runs_app.command("answer")
def _answer(
    run_id: RunId,
    value: Annotated[str, typer.Argument(help="JSON, or a text.")],
    db: Db,
    *,
    question: Annotated[str | None, typer.Option(help="Which question, where several are open.")] = None,
) -> None:
    """Answer the question that a run waits with."""

    async def work(journal: SQLiteJournal) -> None:
        info = await journal.run(run_id)
        if info is None:
            raise UnknownRun(f"{journal.path!r} has no run {run_id!r}", run_id=run_id)
        names = [question] if question is not None else sorted(set(info.waits.values()))
        if len(names) != 1:
            hint = (
                f"name one with --question: {', '.join(names)}" if names else "none is known: name it with --question"
            )
            raise BadUsage(f"the run {run_id!r} has no single open question; {hint}")
        about = next((one for one in await journal.history(run_id) if one.path == about_path(names[0])), None)
        is_text = about is not None and json.loads(about.output or b"{}").get("expected") == "str"
        data = json.dumps(value).encode() if is_text else _data(value)
        stored = await journal.signal(run_id, names[0], data)
        _did(stored, run_id, f"has the answer to {names[0]!r}", "has ended")

    _on(db, work)


@runs_app.command("fork")
def _fork(
    run_id: RunId,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the new run.")],
    db: Db,
    *,
    at: Annotated[str | None, typer.Option(metavar="PATH", help="The first step that is done again.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Another output for a recorded step.")
    ] = None,
) -> None:
    """Make a new run that begins with what another one has done."""

    async def work(journal: SQLiteJournal) -> None:
        changes: dict[str, bytes] = {}
        for text in override or ():
            path, sign, value = text.partition("=")
            if not sign:
                raise BadUsage(f"--set {text!r}: write PATH=VALUE")
            changes[path] = _data(value)
        info = await journal.fork(run_id, new_id, at=at, override=changes)
        write_result(f"{new_id}: begins with {info.records} records of {run_id}")

    _on(db, work)


@runs_app.command("export")
def _export(run_id: RunId, db: Db) -> None:
    """Print all that is known of a run as JSON."""

    async def work(journal: SQLiteJournal) -> None:
        write_result(_json(await journal.export(run_id)))

    _on(db, work)


@runs_app.command("prune")
def _prune(
    db: Db,
    *,
    older: Annotated[str, typer.Option("--older-than", metavar="AGE", help="As 12h, 30d or 8w.")] = "30d",
    status: Annotated[
        list[str] | None, typer.Option(help="Which ended runs; without it those that are ok or cancelled.")
    ] = None,
) -> None:
    """Delete runs that ended long ago."""

    async def work(journal: SQLiteJournal) -> None:
        statuses: list[Status] = [_status(name) for name in status or ("ok", "cancelled")]
        count = await journal.prune(clock.wall() - _age(older), statuses)
        write_result(f"{count} runs deleted")

    _on(db, work)


@runs_app.command("check")
def _check(db: Db) -> None:
    """Read the whole journal and say what is wrong with it; exit code 1 if anything is."""

    async def work(journal: SQLiteJournal) -> None:
        problems = await journal.check()
        write_result("\n".join(problems) or "all is well")
        if problems:
            raise typer.Exit(1)

    _on(db, work)


@runs_app.command("backup")
def _backup(target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new file.")], db: Db) -> None:
    """Copy the journal into one new file, while others use it."""

    async def work(journal: SQLiteJournal) -> None:
        await journal.backup(target)
        write_result(f"{target}: is a copy of {db}")

    _on(db, work)
