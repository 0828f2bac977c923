"""One `mai run`: load the target, read the input, run, show what came of it, and give the exit code."""

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO

from pydantic import BaseModel

from mai import capture, telemetry
from mai.cli.about import about
from mai.cli.files import check_file, keep
from mai.cli.inputs import arguments, call_arguments, input_model
from mai.cli.interrupt import Interrupt, handling_sigint
from mai.cli.output import failure_text, result_text, say, write_result
from mai.cli.progress import Display, live
from mai.cli.questions import Terminal, answering
from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage
from mai.core.ids import new_id
from mai.errors import AskError, ConfigError, DeadlineExceeded, PayloadError
from mai.layers import Module
from mai.types import Context
from mai.views.coloured import print_trees

__all__ = ["BAD_USAGE", "FAILED", "INTERRUPTED", "OK", "Options", "run_target"]

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `mai run` itself.

    Attributes:
        timeout: Deadline of the run [s]; ``None`` means none.
        otlp: Send the spans of the run to this OTLP/HTTP backend; ``None``: to where OTEL_* variables say.
        trace: Print the trace tree to standard error after the run.
        trace_html: The file to write the trace to as a page; ``None`` means none.
        trace_json: The file to store the trace in; ``None`` means none.
        as_json: Print the result as JSON.
        traceback: Print Python's whole traceback where the run fails or the target cannot be imported.
        answers: The answers to the first questions of the run, in their order.
        durable: The journal that makes the run durable; ``None`` means none.
        restate: The ingress of the Restate cluster that the run is to be on; ``None``: it runs here.
        run_id: The id of a durable run; ``None``: a fresh one.
    """

    timeout: float | None = None
    otlp: str | None = None
    trace: bool = False
    trace_html: str | None = None
    trace_json: str | None = None
    as_json: bool = False
    traceback: bool = False
    answers: tuple[str, ...] = ()
    durable: str | None = None
    restate: str | None = None
    run_id: str | None = None


def run_target(written: str, tokens: Sequence[str], options: Options) -> int:
    """Run the target *written* with the input *tokens* and return the exit code."""
    try:
        if options.timeout is not None and not 0 < options.timeout < math.inf:
            raise BadUsage(f"--timeout {options.timeout:g}: give a positive number of seconds")
        check_file(options.trace_html, "--trace-html")
        check_file(options.trace_json, "--trace-json")
        _check_place(options)
        _send_spans(options.otlp)
        with import_paths(written):
            module = load(written)
            if _asks_for_help(tokens):
                say_about(module, written)
                return OK
            return _run(module, tokens, options)
    except BadUsage as problem:
        say(f"mai run: {problem}")
        if options.traceback and problem.__cause__ is not None:
            say(failure_text(problem.__cause__, with_traceback=True))
        return BAD_USAGE
    except KeyboardInterrupt:
        say("mai run: interrupted")
        return INTERRUPTED


def _check_place(options: Options) -> None:
    """Raise BadUsage unless it is clear where the run is kept."""
    if options.durable is not None and options.restate is not None:
        raise BadUsage("--durable and --restate: a run has one journal; give one of them")
    if options.run_id == "":
        raise BadUsage("--run-id: it is empty; the same id is the same run, so give one that stays")
    if options.run_id is not None and options.durable is None and options.restate is None:
        raise BadUsage("--run-id: only a durable run has one; give --durable FILE or --restate URL as well")
    if options.restate is not None and not options.restate.startswith(("http://", "https://")):
        raise BadUsage(f"--restate {options.restate}: give the address of an ingress, such as http://127.0.0.1:8080")


def _send_spans(endpoint: str | None) -> None:
    """Set up telemetry if a backend was named, here or by the environment."""
    if endpoint is None and not any(key.startswith(("OTEL_EXPORTER_", "OTEL_TRACES_EXPORTER")) for key in os.environ):
        return
    try:
        telemetry.configure(endpoint)
    except ConfigError as error:
        raise BadUsage(str(error)) from error


def _asks_for_help(tokens: Sequence[str]) -> bool:
    before = tokens[: tokens.index("--")] if "--" in tokens else tokens
    return "--help" in before


def say_about(module: Module[Any, Any], written: str) -> None:
    """Print the target's own help to standard output."""
    write_result(about(module, written))


def _run(module: Module[Any, Any], tokens: Sequence[str], options: Options) -> int:
    given = arguments(input_model(module), tokens, _read_stdin)
    interrupt, run_id = Interrupt(), options.run_id or new_id()
    with capture() as traced:
        display = live(traced.runs, str(module.settings.name)) if sys.stderr.isatty() else nullcontext()
        try:
            with display as shown, handling_sigint(interrupt), _answering(options, shown, interrupt):
                value = asyncio.run(interrupt.drive(_call(module, given, run_id, options)))
            code = _show(value, module.Out, options)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except SystemExit as error:
            code = _failed(RuntimeError(f"a step called sys.exit({error.code!r})"), options)
        except asyncio.CancelledError:
            code = INTERRUPTED if interrupt.heard else _failed(RuntimeError("a step cancelled the run"), options)
        except Exception as error:  # noqa: BLE001 - the boundary where a failure becomes an exit code
            code = _failed(error, options)
    if code == INTERRUPTED and (options.durable or options.restate) is not None:
        say(f"mai run: the run is kept; the same command with --run-id {run_id} goes on with it")
    if options.trace:
        print_trees(traced.runs, sys.stderr)
    kept = keep(traced.runs, html=options.trace_html, data=options.trace_json)
    return code if kept else code or FAILED


def _answering(options: Options, display: Display | None, interrupt: Interrupt) -> AbstractContextManager[None]:
    """Let the person at the terminal answer, if input and live display are on one."""
    terminal = None
    if display is not None and _is_terminal(sys.stdin):
        terminal = Terminal(display.paused, interrupt)
    return answering(options.answers, terminal)


async def _call(module: Module[Any, Any], given: BaseModel, run_id: str, options: Options) -> Any:
    if options.durable is not None:
        from mai.cli.durable import carry  # noqa: PLC0415 (other runs need no journal)

        return await carry(module, given, options.durable, run_id, options.timeout)
    if options.restate is not None:
        from mai.cli.restate import carry as attend  # noqa: PLC0415 (other runs need no cluster)

        return await attend(module, given, options.restate, run_id, options.timeout)
    args, kwargs = call_arguments(module, given)
    with Context.scope(timeout=options.timeout) if options.timeout is not None else nullcontext():
        return await module(*args, **kwargs)


def _show(value: object, out: Any, options: Options) -> int:
    try:
        write_result(result_text(value, out, as_json=options.as_json))
    except PayloadError as error:
        return _failed(error, options)
    return OK


def _failed(error: BaseException, options: Options) -> int:
    say(failure_text(error, with_traceback=options.traceback))
    if options.timeout is not None and isinstance(error, DeadlineExceeded) and error.timeout is None:
        say(f"  (the deadline is that of --timeout {options.timeout:g})")

    if isinstance(error, AskError) and "nobody can answer" in str(error):
        say("  (answer at a terminal, or with --answer VALUE for each question, in the order in which they come)")
    return FAILED


def _read_stdin() -> bytes | None:
    """Return all of standard input, or ``None`` if it is a terminal or closed."""
    stdin = sys.stdin
    try:
        return None if stdin is None or stdin.isatty() else stdin.buffer.read()
    except (OSError, ValueError):
        return None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False
