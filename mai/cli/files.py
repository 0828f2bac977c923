"""The files that the command line writes a trace to."""

from collections.abc import Sequence
from os.path import isdir  # which a name that no file can have does not make fail
from pathlib import Path
from typing import Any

from mai.cli.output import say
from mai.cli.usage import BadUsage
from mai.types import TraceHandle
from mai.views.waterfall import page

__all__ = ["check_file", "keep", "write_file"]


def check_file(written: str | None, option: str) -> None:
    """Accept the name of a file that can be written, as far as that shows before it is.

    Raises:
        BadUsage: If it is a directory, or in none.
    """
    if written is None:
        return
    parent, is_folder = str(Path(written).parent), isdir(written)
    if is_folder or not isdir(parent):
        what = "it is a directory" if is_folder else f"there is no directory {parent!r}"
        raise BadUsage(f"{option} {written}: {what}; give the name of a file")


def keep(runs: Sequence[TraceHandle[Any]], *, html: str | None, data: str | None) -> bool:
    """Write the trace of a run to the files that were asked for, and say whether that could be done."""
    done = True
    if runs and html is not None:
        done = write_file(html, page(runs))
    if runs and data is not None:
        done = write_file(data, runs[0].to_json() + "\n") and done
    return done


def write_file(written: str, text: str) -> bool:
    """Write *text* to a file, and say whether that could be done."""
    try:
        Path(written).write_text(text, encoding="utf-8")
    except OSError as error:
        say(f"mai: {written}: {error.strerror or error}")
        return False
    return True
