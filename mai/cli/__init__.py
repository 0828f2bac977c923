"""The `mai` command: runs modules from a shell.

It needs the extra ``cli``. The parts: `app` declares the commands, `run` does one run, `plan` shows a plan, `trace` a
trace that was stored, `serve` offers modules over MCP; `target` finds the Module, `words` and `inputs` read what it is
called with, `interrupt` is Ctrl-C, `progress` shows a run on a terminal, `questions` answers what it asks, `output`
prints results and failures, `files` keeps traces, `about` is the target's help, `usage` says what was wrong with a
command line.
"""

import os
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the `mai` command and return its exit code: 0 ok, 1 the run failed, 2 bad usage, 130 interrupted.

    Args:
        argv: The words after ``mai``; ``None`` takes those of the process.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        mai ...
        0
    """
    words = sys.argv[1:] if argv is None else argv
    _open_streams()
    try:
        from mai.cli.app import app, options_first  # noqa: PLC0415 (typer and rich are an extra)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("rich", "typer"):
            raise
        sys.stderr.write(
            f"mai: the command line needs {library}, which is not installed: pip install 'mai-kernel[cli]'\n"
        )
        return 2
    if words[:1] == ["run"]:
        words = ["run", *options_first(words[1:])]
    code: object = 0
    try:
        app(words, prog_name="mai")
    except SystemExit as end:  # how typer gives the exit code
        code = end.code
    return code if isinstance(code, int) else 0


def _open_streams() -> None:
    """Open what the shell has closed (``>&-``) to nowhere, so that no file that is opened later gets its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (to the end)
