"""Live progress of a run on a terminal: what runs, how many calls are done, how long it takes.

The display polls the handles that ``capture()`` fills while the run goes on. A refresh looks at a bounded number of
them, however many there are: the census remembers where it was, counts what has ended, and keeps only what still runs.
"""

import heapq
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mai.core.clock import clock
from mai.types import TraceHandle
from mai.values.names import LOOP_LIMIT, LOOP_TURNS, MAP_ITEMS, PARALLEL_LIMIT, PARALLEL_WIDTH, RETRY_COUNT, RETRY_MAX
from mai.views.text import safe, seconds_text

__all__ = ["Census", "Display", "live", "picture"]

_PER_REFRESH = 2_000
_PER_SECOND = 8
_MOST_STEPS = 8
_MOST_FANS = 4
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class _Open:
    """A call that still runs, or whose children have not all been looked at."""

    __slots__ = ("children_done", "children_seen", "handle", "parent")

    def __init__(self, handle: TraceHandle[Any], parent: "_Open | None") -> None:
        self.handle = handle
        self.parent = parent
        self.children_seen = 0
        self.children_done = 0


class Census:
    """Counts the calls of a run while they begin and end.

    Args:
        runs: The handles of the outermost calls; more may come while the census is taken.
        budget: Number of handles to look at in one :meth:`update`, at least 1.

    Attributes:
        done: Number of calls that have ended, as far as they were looked at.
        steps: The calls seen running in the last update, without those that wait for a call inside; the 8 oldest.
        running: How many such calls the last update saw.
        complete: Whether the last update looked at all that there was.
    """

    def __init__(self, runs: Sequence[TraceHandle[Any]], budget: int = _PER_REFRESH) -> None:
        self.done: int = 0
        self.running: int = 0
        self.complete: bool = True
        self.steps: list[TraceHandle[Any]] = []
        self._runs = runs
        self._budget = budget
        self._runs_seen = 0
        self._open: deque[_Open] = deque()

    def update(self) -> None:
        """Look at what runs, and at what came since the last update, in turn and within the budget."""
        new = self._runs[self._runs_seen :]
        self._runs_seen += len(new)
        self._open.extendleft(_Open(handle, None) for handle in new)
        ahead = len(self._open)
        room = self._budget
        steps: list[TraceHandle[Any]] = []
        while ahead and room > 0:
            entry = self._open.popleft()
            children = self._look(entry, room)
            ahead += children - 1
            room -= children + 1
            if entry.handle.outcome == "running" and entry.children_done == entry.children_seen:
                steps.append(entry.handle)
        self.complete = not ahead
        self.running = len(steps)
        self.steps = heapq.nsmallest(_MOST_STEPS, steps, key=_start)

    def fans(self) -> list[tuple[str, int, int | None]]:
        """Return name, what is done and all there is to do of running calls that know one of them, the oldest few.

        That is branches or items, for a Loop turns. Children that were dropped from the trace count as done. A Map of
        an iterable without a length does not know how much there is to do.
        """
        known = (entry for entry in islice(self._open, self._budget) if _counts(entry))
        oldest = heapq.nsmallest(_MOST_FANS, known, key=lambda entry: _start(entry.handle))
        return [(_fan_name(entry.handle), _done(entry), _width(entry.handle)) for entry in oldest]

    def _look(self, entry: _Open, room: int) -> int:
        """Look at one call; put at most *room* of its new children in front of the queue and return how many."""
        ended = entry.handle.outcome != "running"  # asked first: a call that has ended gets no more children
        new = entry.handle.children[entry.children_seen : entry.children_seen + room]
        entry.children_seen += len(new)
        if ended and entry.children_seen == len(entry.handle.children):
            self.done += (entry.handle.kind != _ATTEMPT) + entry.handle.dropped
            if entry.parent is not None:
                entry.parent.children_done += 1
        else:
            self._open.append(entry)
        self._open.extendleft(_Open(child, entry) for child in new)
        return len(new)


_ATTEMPT = "attempt"
_COUNTS = frozenset((PARALLEL_WIDTH, PARALLEL_LIMIT, LOOP_LIMIT, LOOP_TURNS, MAP_ITEMS))


def _counts(entry: _Open) -> bool:
    """Return whether a call repeats something; where it has attempts, they do and it does not."""
    children = entry.handle.children
    return not (children and children[0].kind == _ATTEMPT) and not _COUNTS.isdisjoint(_facts(entry.handle))


def _call_of(handle: TraceHandle[Any]) -> TraceHandle[Any]:
    """Return the call that *handle* is an attempt of, else itself."""
    return handle.parent if handle.kind == _ATTEMPT and handle.parent is not None else handle


def _facts(handle: TraceHandle[Any]) -> dict[str, Any]:
    return {**_call_of(handle).attributes, **handle.attributes}


def _fan_name(handle: TraceHandle[Any]) -> str:
    """Return what is counted: the name that the call was given; for a Map that was given none, that of its step."""
    call = _call_of(handle)
    step = handle.children[0].name if call.kind == "map" and handle.children else ""
    return step if step and call.name == "Map" else call.name


def _done(entry: _Open) -> int:
    facts = _facts(entry.handle)
    if LOOP_LIMIT in facts:
        return int(facts.get(LOOP_TURNS, 0))
    return int(facts.get(MAP_ITEMS, entry.children_done + entry.handle.dropped))


def _width(handle: TraceHandle[Any]) -> int | None:
    facts = _facts(handle)
    known = [facts[key] for key in (LOOP_LIMIT, PARALLEL_WIDTH) if key in facts]
    return int(known[0]) if known else None


def _step_name(handle: TraceHandle[Any]) -> str:
    """Return the name of a step that runs, and which attempt it is, or how many have failed, if one has."""
    call = _call_of(handle)
    tries = f"of {call.attributes[RETRY_MAX]}" if RETRY_MAX in call.attributes else ""
    if handle is not call:
        return call.name + (f", attempt {handle.attempt} {tries}" if handle.attempt > 1 else "")
    failed = handle.attributes.get(RETRY_COUNT)
    return handle.name + ("" if failed is None else f", {failed} {tries} failed, waits to try again")


def _start(handle: TraceHandle[Any]) -> int:
    return handle.start_ns or 0


class Display:
    """What stands on the terminal while a block runs: *render* says what, several times a second."""

    def __init__(self, console: Console, render: Callable[[], Text]) -> None:
        self._console = console
        self._render = render
        self._live = self._started()

    def _started(self) -> Live:
        live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start()
        return live

    def stop(self) -> None:
        """Take it away."""
        self._live.stop()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Take it away for a block, in which others write and read."""
        self._live.stop()
        try:
            yield
        finally:
            self._live = self._started()  # a new one: the old one would overwrite what was written meanwhile


@contextmanager
def live(runs: Sequence[TraceHandle[Any]], name: str) -> Generator[Display]:
    """Show the progress of *runs* on standard error until the block ends, then one line that sums it up.

    What the run itself prints appears above the display.

    Args:
        runs: The handles of the outermost calls, as in ``capture().runs``; filled while the block runs.
        name: What to call the run.
    """
    console = Console(stderr=True)
    census = Census(runs)
    began = clock.ticks()

    def render() -> Text:
        census.update()
        return picture(census, safe(name), (clock.ticks() - began) / 1e9)

    display = Display(console, render)
    try:
        yield display
    finally:
        display.stop()
    console.print(_summary(runs, census, safe(name), (clock.ticks() - began) / 1e9))


def picture(census: Census, name: str, elapsed: float) -> Text:
    """Return the display: a line for the run, one for each fan-out, one for each of the steps that run longest."""
    more = "" if census.complete else "+"
    spinner = _SPINNER[int(elapsed * _PER_SECOND) % len(_SPINNER)]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{spinner} {name}", style="bold")
    text.append(f"  {census.done:,} done, {census.running:,}{more} running, {_elapsed(elapsed)}")
    for fan, done, width in census.fans():
        text.append(f"\n  {done:,}" + ("" if width is None else f"/{width:,}") + f" {safe(fan)}")
    now = clock.ticks()
    for handle in census.steps:
        if handle.parent is not None:
            text.append(f"\n  • {safe(_step_name(handle))}", style="cyan")
            text.append(f"  {_elapsed((now - _start(handle)) / 1e9)}", style="dim")
    if census.running > len(census.steps):
        text.append(f"\n  … and {census.running - len(census.steps):,}{more} more", style="dim")
    return text


def _elapsed(seconds: float) -> str:
    """Return a time that is still running, in a unit that does not change from moment to moment."""
    return f"{seconds:.1f} s" if seconds < 60 else seconds_text(seconds)


def _summary(runs: Sequence[TraceHandle[Any]], census: Census, name: str, elapsed: float) -> Text:
    """Return the line that stays: how it ended, how long it took, how many calls it was."""
    census.update()
    while not census.complete:
        census.update()
    ok = all(handle.ok for handle in runs)
    calls = "1 call" if census.done == 1 else f"{census.done:,} calls"
    return Text(f"{'✓' if ok else '✗'} {name}  {seconds_text(elapsed)}, {calls}", style="green" if ok else "red")
