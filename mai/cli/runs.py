"""`mai runs`: look at durable runs in a journal or on a Restate server, and tell them things, without their code.

Size: each command has its options, and what it does with either.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast, get_args

import typer

from mai.cli.history import line, lines
from mai.cli.output import say, write_result
from mai.cli.usage import BadUsage
from mai.core.clock import clock
from mai.durable import SQLiteJournal
from mai.durable.questions import about_path
from mai.durable.records import Status
from mai.errors import MaiError, UnknownRun

__all__ = ["question_of", "runs_app"]

runs_app: typer.Typer = typer.Typer(
    name="runs",
    no_args_is_help=True,
    help="Look at durable runs in a journal or on a Restate server, and tell them things.",
)

Db = Annotated[
    Path | None, typer.Option("--db", metavar="FILE", help="The journal, if it is a file.", show_default=False)
]
Admin = Annotated[
    str | None,
    typer.Option("--restate", metavar="URL", help="The admin API of a Restate server, if that has the journal."),
]
Ingress = Annotated[
    str | None,
    typer.Option(
        "--ingress", metavar="URL", help="The ingress of that server; default: port 8080 of the same machine."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class _Place(NamedTuple):
    """Where the runs are: in a file, or on a server."""

    db: Path | None
    admin: str | None = None
    ingress: str | None = None


def _on(
    place: _Place, work: Callable[[SQLiteJournal], Awaitable[None]], remote: Callable[[Any], Awaitable[None]]
) -> None:
    """Do *work* with the journal, or *remote* with the runner of a server, and end the command with its exit code."""

    async def main() -> None:
        if (place.db is None) is (place.admin is None):
            raise BadUsage("give either --db FILE or --restate URL, where the runs are kept")
        if place.db is not None:
            async with SQLiteJournal(place.db, create=False) as journal:
                await work(journal)
        else:
            from mai.cli.remote import on_server  # noqa: PLC0415 (an extra)

            await on_server(place.admin or "", place.ingress, remote)

    try:
        asyncio.run(main())
    except BadUsage as error:
        say(f"mai runs: {error}")
        raise typer.Exit(2) from None
    except MaiError as error:
        say(f"mai runs: {type(error).__name__}: {error}")
        raise typer.Exit(1) from None


def _not(what: str) -> Callable[[Any], Awaitable[None]]:
    """Return what says that a server does not give that."""

    async def refuse(_: Any) -> None:
        raise BadUsage(f"not with --restate: {what}")

    return refuse


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


def question_of(run_id: str, names: list[str], question: str | None) -> str:
    """Return the question that is meant: *question*, or the only one that is known.

    Raises:
        BadUsage: If there is not exactly one.
    """
    found = names if question is None else [question]
    if len(found) != 1:
        hint = f"name one with --question: {', '.join(names)}" if names else "none is known: name it with --question"
        raise BadUsage(f"the run {run_id!r} has no single open question; {hint}")
    return found[0]


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
    *,
    db: Db = None,
    restate: Admin = None,
    ingress: Ingress = None,
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

    async def remote(runner: Any) -> None:
        from mai.cli.remote import listed  # noqa: PLC0415 (an extra)

        await listed(runner, None if status is None else _status(status), limit, as_json=as_json)

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("show")
def _show(
    run_id: RunId, *, db: Db = None, restate: Admin = None, ingress: Ingress = None, as_json: AsJson = False
) -> None:
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

    async def remote(runner: Any) -> None:
        from mai.cli.remote import shown  # noqa: PLC0415 (an extra)

        await shown(runner, run_id, as_json=as_json)

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("resume")
def _resume(run_id: RunId, *, db: Db = None, restate: Admin = None, ingress: Ingress = None) -> None:
    """Let a run that waits or needs attention go on now; a worker that has its code takes it up."""

    async def work(journal: SQLiteJournal) -> None:
        did(await journal.resume(run_id))

    async def remote(runner: Any) -> None:
        did(await (await runner.find(run_id)).resume())

    def did(done: bool) -> None:  # noqa: FBT001 (what a method gave)
        _did(done, run_id, "goes on", "does not stand still: it runs or has ended")

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("cancel")
def _cancel(run_id: RunId, *, db: Db = None, restate: Admin = None, ingress: Ingress = None) -> None:
    """Ask for the end of a run."""

    async def work(journal: SQLiteJournal) -> None:
        _did(await journal.cancel(run_id), run_id, "is asked to end", "has ended already")

    async def remote(runner: Any) -> None:
        _did(await (await runner.find(run_id)).cancel(), run_id, "is asked to end", "has ended already")

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("signal")
def _signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="What the run waits for.")],
    value: Annotated[str | None, typer.Argument(help="JSON, or a text; null if it is left out.")] = None,
    *,
    db: Db = None,
    restate: Admin = None,
    ingress: Ingress = None,
    key: Annotated[str | None, typer.Option("--id", help="The same id is stored once.")] = None,
) -> None:
    """Send a signal to a run; it is kept until the run asks for it."""

    async def work(journal: SQLiteJournal) -> None:
        stored = await journal.signal(run_id, name, _data(value), id=key)
        _did(stored, run_id, f"has the signal {name!r}", "has ended")

    async def remote(runner: Any) -> None:
        stored = await (await runner.find(run_id)).signal(name, json.loads(_data(value)), id=key)
        _did(stored, run_id, f"has the signal {name!r}", "has ended")

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("answer")
def _answer(
    run_id: RunId,
    value: Annotated[str, typer.Argument(help="JSON, or a text.")],
    *,
    db: Db = None,
    restate: Admin = None,
    ingress: Ingress = None,
    question: Annotated[str | None, typer.Option(help="Which question, where several are open.")] = None,
) -> None:
    """Answer the question that a run waits with."""

    async def work(journal: SQLiteJournal) -> None:
        info = await journal.run(run_id)
        if info is None:
            raise UnknownRun(f"{journal.path!r} has no run {run_id!r}", run_id=run_id)
        name = question_of(run_id, sorted(set(info.waits.values())), question)
        about = next((one for one in await journal.history(run_id) if one.path == about_path(name)), None)
        is_text = about is not None and json.loads(about.output or b"{}").get("expected") == "str"
        data = json.dumps(value).encode() if is_text else _data(value)
        stored = await journal.signal(run_id, name, data)
        _did(stored, run_id, f"has the answer to {name!r}", "has ended")

    async def remote(runner: Any) -> None:
        from mai.cli.remote import answer  # noqa: PLC0415 (an extra)

        name = await answer(runner, run_id, value, question, _data)
        write_result(f"{run_id}: has the answer to {name!r}")

    _on(_Place(db, restate, ingress), work, remote)


@runs_app.command("fork")
def _fork(
    run_id: RunId,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the new run.")],
    *,
    db: Db = None,
    restate: Admin = None,
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

    _on(_Place(db, restate), work, _not("a server begins no workflow with the journal of another one; start a new run"))


@runs_app.command("export")
def _export(run_id: RunId, *, db: Db = None, restate: Admin = None) -> None:
    """Print all that is known of a run as JSON."""

    async def work(journal: SQLiteJournal) -> None:
        write_result(_json(await journal.export(run_id)))

    _on(_Place(db, restate), work, _not("mai runs show --json prints what the server knows of a run"))


@runs_app.command("prune")
def _prune(
    *,
    db: Db = None,
    restate: Admin = None,
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

    _on(_Place(db, restate), work, _not("the server forgets a run by itself, some time after its end"))


@runs_app.command("check")
def _check(*, db: Db = None, restate: Admin = None) -> None:
    """Read the whole journal and say what is wrong with it; exit code 1 if anything is."""

    async def work(journal: SQLiteJournal) -> None:
        problems = await journal.check()
        write_result("\n".join(problems) or "all is well")
        if problems:
            raise typer.Exit(1)

    _on(_Place(db, restate), work, _not("a server watches over its own storage"))


@runs_app.command("backup")
def _backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new file.")],
    *,
    db: Db = None,
    restate: Admin = None,
) -> None:
    """Copy the journal into one new file, while others use it."""

    async def work(journal: SQLiteJournal) -> None:
        await journal.backup(target)
        write_result(f"{target}: is a copy of {db}")

    _on(_Place(db, restate), work, _not("a server is backed up with its own tools"))
