"""The commands and options of `mai`, declared with typer."""

from collections.abc import Sequence
from typing import Annotated

import typer

import mai
from mai.cli.plan import FORMATS, plan_target
from mai.cli.run import Options, run_target
from mai.cli.runs import runs_app
from mai.cli.trace import FORMATS as TRACE_FORMATS
from mai.cli.trace import show_trace

__all__ = ["app", "options_first"]

app: typer.Typer = typer.Typer(name="mai", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(runs_app)

_RUN_HELP = (
    "Run a Module and print its result.\n\n"
    "mai run TARGET --help shows the parameters of the target itself. A parameter that is called like one of the "
    "options below is given as JSON. Words after -- are input even if they begin with a dash.\n\n"
    "Exit codes: 0 ok, 1 the run failed, 2 bad usage, 130 interrupted."
)
_FLAGS = ("--trace", "--json", "--traceback")
_VALUED = ("--timeout", "--answer", "--durable", "--restate", "--run-id", "--otlp", "--trace-html", "--trace-json")


def options_first(words: Sequence[str]) -> list[str]:
    """Return the words after ``run`` with mai's own options in front, as typer wants them; the target's stay in order.

    They are options wherever they stand, up to a ``--``; all else after the target belongs to the target.

    Example:
        >>> options_first(["flow.py:rag", "hello", "--timeout", "5", "--k", "3", "--trace"])
        ['--timeout', '5', '--trace', 'flow.py:rag', 'hello', '--k', '3']
    """
    own: list[str] = []
    others: list[str] = []
    rest = list(reversed(words))
    while rest and rest[-1] != "--":
        word = rest.pop()
        if word in _VALUED and rest:
            own += [word, rest.pop()]
        elif word.partition("=")[0] in (*_VALUED, *_FLAGS):
            own.append(word)
        else:
            others.append(word)
    return own + others + rest[::-1]


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"mai {mai.__version__}")
        raise typer.Exit


@app.callback()
def _mai(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run and inspect mai modules."""
    del version


@app.command("run", help=_RUN_HELP, context_settings={"allow_interspersed_args": False})
def _run(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The Module to run: file.py:name or package.module:name.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Plain words, JSON, @file, - for standard input, or --NAME VALUE for each parameter of the target.",
        ),
    ] = None,
    *,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Cancel the run after so many seconds.")
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE", help="Answer the first question with this, the second with the next --answer."),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send the spans of the run to this backend, say http://127.0.0.1:6006."),
    ] = None,
    durable: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Record the run in this journal, so that it can go on after a kill."),
    ] = None,
    restate: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Run it on the Restate cluster whose ingress this is; mai worker serves it."),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The id of a durable run: begin it, or go on with it.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print the trace tree to standard error after the run.")
    ] = False,
    trace_html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the trace to a page that any browser shows.")
    ] = None,
    trace_json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Store the trace; mai trace FILE shows it again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the whole Python traceback if the run fails.")
    ] = False,
) -> None:
    options = Options(
        timeout=timeout,
        otlp=otlp,
        trace=trace,
        trace_html=trace_html,
        trace_json=trace_json,
        as_json=as_json,
        traceback=traceback,
        answers=tuple(answer or ()),
        durable=durable,
        restate=restate,
        run_id=run_id,
    )
    raise typer.Exit(run_target(target, words or [], options))


@app.command("plan")
def _plan(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The Module to look at: file.py:name or package.module:name.")
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help=f"How to print it: {', '.join(FORMATS)}.")
    ] = "text",
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the whole Python traceback if the target cannot be imported.")
    ] = False,
) -> None:
    """Print what a Module will do: its steps, what feeds them, and their types. Nothing is run."""
    raise typer.Exit(plan_target(target, form, with_traceback=traceback))


@app.command("worker")
def _worker(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="Modules whose runs to serve: file.py:name or package.module:name."),
    ],
    *,
    db: Annotated[
        str | None, typer.Option(metavar="FILE", help="The journal, if it is a file.", show_default=False)
    ] = None,
    ttl: Annotated[
        float, typer.Option(metavar="SECONDS", help="After how long without a sign of it another may take over a run.")
    ] = 30.0,
    max_runs: Annotated[
        int, typer.Option(metavar="N", help="How many runs of that journal are carried on at once.")
    ] = 1000,
    restate: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The admin API of a Restate server, if that has the journal.", show_default=False
        ),
    ] = None,
    ingress: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The ingress of that server; the default is port 8080 of the same machine."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen for that server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="The port; 0: any that is free.")] = 9080,
    advertised: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where that server reaches this worker, if it is another address."),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.0, help="How long to go on asking while that server does not answer."),
    ] = 30.0,
) -> None:
    """Carry on the durable runs of Modules, until SIGTERM or Ctrl-C; then let what runs end, or come to a wait."""
    from mai.cli.durable import Restate, serve_runs  # noqa: PLC0415 (no other command needs the engine)

    server = None if restate is None else Restate(restate, ingress, host, port, advertised, patience)
    raise typer.Exit(serve_runs(targets, db, server, ttl=ttl, max_runs=max_runs))


@app.command("serve-mcp")
def _serve_mcp(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="The Modules to offer: file.py:name or package.module:name."),
    ],
    *,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Listen for streamable HTTP there; without it, use stdio.")
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with the token that HTTP requests must have."),
    ] = None,
) -> None:
    """Offer Modules as the tools of an MCP server, until the client leaves or Ctrl-C."""
    from mai.cli.serve import serve_targets  # noqa: PLC0415 (no other command needs the tools)

    raise typer.Exit(serve_targets(targets, http, token_env))


@app.command("trace")
def _trace(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="What mai run --trace-json FILE wrote; - for standard input.")
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help=f"How to print it: {', '.join(TRACE_FORMATS)}.")
    ] = "tree",
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write it to a page that any browser shows, and print nothing.")
    ] = None,
) -> None:
    """Show a stored trace: which steps ran when, for how long, and what came of them."""
    raise typer.Exit(show_trace(file, form, html))
