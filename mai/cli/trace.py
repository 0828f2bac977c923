"""`mai trace`: show a trace that was stored."""

import json
import sys
from pathlib import Path
from typing import Any

from mai.cli.files import check_file, write_file
from mai.cli.output import say, write_result
from mai.cli.run import BAD_USAGE, FAILED, OK
from mai.cli.usage import BadUsage, check_format
from mai.errors import PayloadError
from mai.types import TraceHandle
from mai.views.coloured import print_trees
from mai.views.waterfall import page

__all__ = ["FORMATS", "show_trace"]

FORMATS = ("tree", "mermaid", "json")


def show_trace(written: str, form: str, html: str | None) -> int:
    """Print the trace in the file *written*, or write it as a page to the file *html*; return the exit code.

    Args:
        written: A file that ``mai run --trace-json`` wrote, or ``-`` for standard input.
        form: One of `FORMATS`.
        html: Where to write a page to; None: nowhere, print it.
    """
    try:
        check_format(form, FORMATS)
        check_file(html, "--html")
        handle = _load(written)
    except BadUsage as problem:
        say(f"mai trace: {problem}")
        return BAD_USAGE
    if html is not None:
        return OK if write_file(html, page([handle])) else FAILED
    if form == "tree":
        print_trees([handle], sys.stdout)
    else:
        write_result(handle.mermaid() if form == "mermaid" else handle.to_json(indent=2))
    return OK


def _load(written: str) -> TraceHandle[Any]:
    try:
        data = sys.stdin.buffer.read() if written == "-" else Path(written).read_bytes()
        return TraceHandle.from_dict(json.loads(data))
    except (OSError, AttributeError) as error:
        raise BadUsage(f"{written}: {getattr(error, 'strerror', None) or 'standard input is closed'}") from error
    except PayloadError as error:
        raise BadUsage(f"{written}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{written}: this is no JSON ({error}); mai run --trace-json FILE writes such a file") from error
