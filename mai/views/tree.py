"""The text tree of a trace: which step ran when, for how long, on how much, and what went wrong."""

import shutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mai.types import TraceHandle
from mai.values.names import BRANCH_KEY, DECISION, LOOP_TURNS, MAP_ITEMS
from mai.views.outcomes import glyph, name_of
from mai.views.text import bytes_text, cells, cut, pad, safe, seconds_text

__all__ = ["Piece", "pieces", "runs", "tree"]

_NARROWEST = 40
_NO_TERMINAL = (100, 24)
_WIDTH_WITH_SIZES = 70
_LONGEST_BAR = 40
_GAP = "  "


class Piece(NamedTuple):
    """A part of a line: its text, and what it is, which says how it looks in colour.

    Attributes:
        text: The text.
        role: ``"lines"`` (of the tree), ``"name"``, ``"facts"``, ``"error"`` or the outcome of the call.
    """

    text: str
    role: str


class _Row(NamedTuple):
    """One line of the tree before its columns are known; a row without a handle has no columns."""

    lead: str
    title: str  # with the mark of the outcome
    handle: TraceHandle[Any] | None
    below: str  # the prefix of a line that belongs to this one


class _Columns(NamedTuple):
    """The widths [columns] that all lines of one tree share, and the time that its bars span [ns]."""

    label: int
    duration: int
    size: int
    bar: int
    start_ns: int
    end_ns: int


def tree(handle: TraceHandle[Any], width: int | None = None) -> str:
    """Return the trace below *handle* as a text tree, a line for each call and one more for each error where it arose.

    A line holds the outcome, the name, the sizes of input and output as far as known, the duration, and a bar that
    shows when the call began and how long it took, relative to the root. What does not fit is shortened; indentation
    stops growing at a third of the width, from where on the depth is given as a number. A call that still runs has no
    duration and a dotted bar.

    Args:
        handle: The root of the tree to show.
        width: Columns to use, at least 40; ``None`` asks the terminal (100 where there is none).

    Example:
        >>> from mai import capture, module
        >>> @module(inline=True)
        ... def shout(text: str) -> str:
        ...     return text.upper()
        >>> with capture() as traced:
        ...     shout.run("hi")
        'HI'
        >>> tree(traced.runs[0]).split()[:2]
        ['✓', 'shout']
    """
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in pieces(handle, width))


def pieces(handle: TraceHandle[Any], width: int | None = None) -> Iterator[list[Piece]]:
    """Yield the lines of :func:`tree`, each in pieces that say what they are."""
    columns_wanted = shutil.get_terminal_size(_NO_TERMINAL).columns if width is None else width
    width = max(_NARROWEST, columns_wanted)
    rows = list(_rows(handle, deepest=(width // 2 - 12) // 3))
    columns = _fit(handle, rows, width)
    for row in rows:
        yield from _lines(row, columns, width)


def runs(handles: Iterable[TraceHandle[Any]], width: int | None = None) -> str:
    """Return the trees of several runs, such as ``capture().runs``, an empty line between them.

    Args:
        handles: The roots, in the order to show them.
        width: Columns to use, as for :func:`tree`.

    Example:
        >>> runs([])
        ''
    """
    return "\n\n".join(tree(handle, width) for handle in handles)


def _rows(root: TraceHandle[Any], deepest: int) -> Iterator[_Row]:
    """Yield the rows in the order shown; a stack of our own, because a trace may be deeper than Python's."""
    stack: list[tuple[TraceHandle[Any] | int, int, str, str]] = [(root, 0, "", "")]
    while stack:
        item, depth, lead, below = stack.pop()
        if isinstance(item, int):
            yield _Row(lead, f"… and {item:,} more", None, below)
            continue
        children: list[TraceHandle[Any] | int] = list(item.children)
        yield _Row(lead, f"{glyph(item.outcome)} {_title(item)}", item, below + ("│  " if children else "   "))
        if item.dropped:
            children.append(item.dropped)
        for index, child in enumerate(reversed(children)):
            stack.append((child, depth + 1, *_prefixes(below, depth, deepest, last=index == 0)))


def _prefixes(below: str, depth: int, deepest: int, *, last: bool) -> tuple[str, str]:
    """Return what stands before a child, and before the lines under it, given the parent's ``below`` and depth."""
    if depth >= deepest:
        return f"{below}⋮{depth + 1} ", below
    return (f"{below}└─ ", f"{below}   ") if last else (f"{below}├─ ", f"{below}│  ")


def _title(handle: TraceHandle[Any]) -> str:
    """Return the name; with a named branch's key, the turns or items of a call that repeats, the way that one chose."""
    key, decision = handle.attributes.get(BRANCH_KEY), handle.attributes.get(DECISION)
    name = name_of(handle) if key is None else f"{key}: {name_of(handle)}"
    times = handle.attributes.get(MAP_ITEMS, handle.attributes.get(LOOP_TURNS))
    name = name if times is None else f"{name} x{times:,}"
    return safe(name if decision is None else f"{name} → {decision}")


def _fit(root: TraceHandle[Any], rows: list[_Row], width: int) -> _Columns:
    """Share out *width*: durations and sizes what they need, labels what leaves a useful bar, the bar the rest."""
    handles = [row.handle for row in rows if row.handle is not None]
    duration = max(cells(_duration(handle)) for handle in handles)
    size = max(cells(_size(handle)) for handle in handles) if width >= _WIDTH_WITH_SIZES else 0
    taken = sum(column + len(_GAP) for column in (duration, size) if column)
    room = width - taken - len(_GAP) - max(8, width // 6)
    label = min(room, max(cells(row.lead) + cells(row.title) for row in rows))
    bar = min(_LONGEST_BAR, width - taken - len(_GAP) - label)
    end_ns = root.end_ns or max(max(handle.start_ns or 0, handle.end_ns or 0) for handle in handles)
    return _Columns(label, duration, size, bar, root.start_ns or 0, end_ns)


def _lines(row: _Row, columns: _Columns, width: int) -> Iterator[list[Piece]]:
    """Yield the line of one row, and the line of the error that arose there."""
    if row.handle is None:
        yield [Piece(cut(row.lead, width), "lines"), Piece(cut(row.title, width - cells(row.lead)), "facts")]
        return
    lead = cut(row.lead, columns.label)
    title = cut(row.title, columns.label - cells(row.lead))
    parts = [Piece(lead, "lines"), Piece(title[:1], row.handle.outcome), Piece(title[1:], "name")]
    parts.append(Piece(" " * (columns.label - cells(lead) - cells(title)), "lines"))
    facts = [pad(_size(row.handle), columns.size)] if columns.size else []
    facts += [_duration(row.handle).rjust(columns.duration)] if columns.duration else []
    parts += [Piece(_GAP + fact, "facts") for fact in facts]
    yield [*parts, Piece(_GAP + _bar(row.handle, columns), row.handle.outcome)]
    error = _own_error(row.handle)
    if error:
        yield [Piece(cut(row.below, width), "lines"), Piece(cut(error, width - cells(row.below)), "error")]


def _own_error(handle: TraceHandle[Any]) -> str:
    """Return type and message of the error that arose in this very call; its callers show only their mark."""
    error = handle.error
    if error is None or any(_same_error(child, handle) for child in handle.children):
        return ""
    message = safe(error.message)
    return f"{safe(error.type)}: {message}" if message else safe(error.type)


def _same_error(child: TraceHandle[Any], handle: TraceHandle[Any]) -> bool:
    """Return whether the error of *handle* is told by *child* already."""
    mine, its = handle.error, child.error
    return mine is not None and its is not None and (mine.type, mine.message) == (its.type, its.message)


def _duration(handle: TraceHandle[Any]) -> str:
    """Return the duration in the unit that fits it, with three digits; nothing if it is not known."""
    seconds = None if handle.end_ns is None else handle.duration
    return "" if seconds is None else seconds_text(seconds)


def _size(handle: TraceHandle[Any]) -> str:
    """Return the sizes of input and output, or the number of items of an output that was not measured."""
    sent = "" if handle.input_size is None else f"{bytes_text(handle.input_size)} "
    if handle.output_size is not None:
        return f"{sent}→ {bytes_text(handle.output_size)}"
    if handle.items is not None:
        return f"{sent}→ {handle.items:,} {'item' if handle.items == 1 else 'items'}"
    return f"{sent}→" if sent else ""


def _bar(handle: TraceHandle[Any], columns: _Columns) -> str:
    """Return the bar: where it begins and ends are the call's times relative to the root, cut at the root's own."""
    total = columns.end_ns - columns.start_ns
    running = handle.end_ns is None
    if handle.start_ns is None or total <= 0 or (running and handle.outcome != "running"):
        return ""
    end_ns = columns.end_ns if handle.end_ns is None else handle.end_ns
    first = min(columns.bar - 1, max(0, (handle.start_ns - columns.start_ns) * columns.bar // total))
    last = min(columns.bar, max(first + 1, -((columns.start_ns - end_ns) * columns.bar // total)))
    if not running and (end_ns - handle.start_ns) * columns.bar * 8 < total:
        return " " * first + "▏"
    return " " * first + ("░" if running else "█") * (last - first)
