"""A trace as a page of HTML: a waterfall of its calls, with all that the page needs in the one file.

It opens from disk, asks for nothing from any network, and runs no script and no style but its own: a Content Security
Policy with their hashes says so to the browser. What a trace says reaches the page as data, and is shown as text.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from mai.types import TraceHandle
from mai.views.figures import critical_path
from mai.views.outcomes import GLYPHS
from mai.views.stored import flattened
from mai.views.text import safe
from mai.views.tree import runs

__all__ = ["embedded", "page"]

_MOST = 50_000  # calls in a page; a browser holds many more, a mail does not
_MOST_EMBEDDED = 5_000
_MOST_AS_TEXT = 200  # lines for a browser without scripts
_ROW, _AROUND, _TALLEST = 26, 170, 620  # pixels of a row, of what is above and below the rows, of a notebook's cell


def page(handles: Sequence[TraceHandle[Any]], most: int = _MOST) -> str:
    """Return a page that shows the waterfall of the runs *handles*.

    Args:
        handles: The roots, in the order to show them.
        most: How many calls to show of each at most, those near the root first.

    Example:
        >>> from mai import capture, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> with capture() as trace:
        ...     shout.run("hello")
        'HELLO'
        >>> page(trace.runs).startswith("<!doctype html>")
        True
    """
    data = json.dumps({"glyphs": dict(GLYPHS), "runs": _runs(handles, most)}, separators=(",", ":"))
    style, script = _part("waterfall.css"), _part("waterfall.js")
    lines = runs(handles, 100).split("\n")
    text = "\n".join([*lines[:_MOST_AS_TEXT], *(["…"] if len(lines) > _MOST_AS_TEXT else [])])
    return Template(_part("waterfall.html")).substitute(
        title=html.escape(_title(handles)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        text=html.escape(text),
        data=data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    )


def embedded(handles: Sequence[TraceHandle[Any]]) -> str:
    """Return the page as a notebook can show it between others: in a frame that can reach nothing around it."""
    if not handles:
        return "<p>no runs</p>"
    inner = html.escape(page(handles, _MOST_EMBEDDED))
    calls = sum(1 for handle in handles for _ in handle.walk())
    height = min(_TALLEST, _AROUND + _ROW * max(6, calls))
    title = html.escape(_title(handles))
    return (
        f'<iframe srcdoc="{inner}" sandbox="allow-scripts" title="{title}" width="100%" height="{height}" '
        'frameborder="0"></iframe>'
    )


def _title(handles: Sequence[TraceHandle[Any]]) -> str:
    return safe(handles[0].name, 200) + (f" and {len(handles) - 1} more" if len(handles) > 1 else "") if handles else ""


def _runs(handles: Sequence[TraceHandle[Any]], most: int) -> list[dict[str, Any]]:
    """Return the runs as the script of the page takes them, the figures of each call beside its stored form."""
    began = next((handle.started_at for handle in handles if handle.started_at is not None), 0.0)
    found: list[dict[str, Any]] = []
    for handle in handles:
        stored, kept = flattened(handle, most)
        numbers = {id(call): i for i, call in enumerate(kept)}
        later = 0.0 if handle.started_at is None else handle.started_at - began
        found.append(
            {
                "trace": stored,
                "shift_ns": round(later * 1e9),
                "critical": [numbers[id(call)] for call in critical_path(handle) if id(call) in numbers],
                "self_ns": [_nanoseconds(call.self_time) for call in kept],
                "queue_ns": [_nanoseconds(call.queue_time) for call in kept],
            }
        )
    return found


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


@cache
def _part(name: str) -> str:
    return files("mai.views").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a Content Security Policy knows *text* by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
