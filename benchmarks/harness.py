"""The harness: interleaved rounds in one process, ratios within a round, medians and quartiles, a table and a record.

How a figure comes about. All rows of a run are measured once in every round, in a new random order each time. For a
row, first A is timed (one bare ``await coro()``), then ours and its peers, back to back and with the garbage collector
off (it runs between the rows); each for less than a time slice of the scheduler where its N allows, and after one run
that is not timed, so that none finds the caches colder than the others. The row's figure is computed from these
neighbours, so that a change of the machine's speed cancels out; the run's figure is the median over the rounds. The
first round is thrown away.
"""

import argparse
import asyncio
import gc
import importlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any, Protocol

from .promises import BrokenPromise

__all__ = [
    "ALL",
    "FULL",
    "QUICK",
    "Peak",
    "Result",
    "Row",
    "Scale",
    "Timed",
    "Times",
    "append",
    "main",
    "measure",
    "ratio",
    "run",
    "table",
]

ALL = (
    "agents",
    "calls",
    "composites",
    "deadlines",
    "graph",
    "journal",
    "latency",
    "telemetry",
    "threads",
    "import",
)
HERE = Path(__file__).resolve().parent
Times = Mapping[str, float]
_NONE: "Mapping[str, BrokenPromise]" = MappingProxyType({})


@dataclass(frozen=True)
class Scale:
    """How much is measured: numbers of rounds, and the N of each kind of sample."""

    rounds: int = 61
    heavy_rounds: int = 21  # for samples that take longer than a slice of the scheduler
    bare: int = 2000  # awaits for one A
    calls: int = 300
    chain: int = 100
    branches: int = 10_000
    jobs: int = 100
    depth: int = 20


FULL = Scale()
QUICK = Scale(rounds=2, heavy_rounds=1, bare=10, calls=4, chain=5, branches=20, jobs=5, depth=4)


class Sample(Protocol):
    """Something that can be measured once."""

    async def take(self) -> float:
        """Return the measured value."""
        ...


@dataclass(frozen=True)
class Timed:
    """A coroutine function that does *n* things; the sample is the time of one [ns]."""

    work: Callable[[], Awaitable[Any]]
    n: int

    async def take(self) -> float:
        """Run it once to warm the caches, then time it once."""
        work = self.work
        await work()
        start = perf_counter_ns()
        await work()
        return (perf_counter_ns() - start) / self.n


@dataclass(frozen=True)
class Peak:
    """A coroutine function; the sample is the most memory that it had allocated at once [bytes]."""

    work: Callable[[], Awaitable[Any]]
    n: int = 1

    async def take(self) -> float:
        """Run it once under tracemalloc."""
        tracemalloc.start()
        try:
            await self.work()
            return tracemalloc.get_traced_memory()[1] / self.n
        finally:
            tracemalloc.stop()


@dataclass(frozen=True)
class Row:
    """One line of the table: what is compared, how the figure follows from the samples, and what we want it to be."""

    row: str  # number in the table of targets
    what: str
    target: float | None  # None: shown for comparison only
    unit: str
    samples: Mapping[str, Sample]  # taken in this order, after A
    figure: Callable[[Times], float]
    rounds: int
    n: int


@dataclass(frozen=True)
class Result:
    """What came out for a row."""

    row: str
    what: str
    target: float | None
    unit: str
    figure: float
    q1: float
    q3: float
    n: int
    rounds: int
    medians: dict[str, float] = field(default_factory=dict)  # of each sample by itself [ns or bytes]

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        return None if self.target is None else self.figure <= self.target


async def _bare(x: int) -> int:
    return x


def bare(n: int) -> Timed:
    """Return the sample A: one bare ``await coro()``, the loop around it included as everywhere."""

    async def work() -> None:
        for _ in range(n):
            await _bare(1)

    return Timed(work, n)


async def measure(rows: Sequence[Row], scale: Scale, *, seed: int = 1) -> list[Result]:
    """Measure all *rows*, interleaved.

    Args:
        rows: What to measure; a row takes part in its first ``rounds`` rounds only.
        scale: Gives the N of A.
        seed: Of the order within the rounds.
    """
    a, order = bare(scale.bare), random.Random(seed)
    taken: list[list[dict[str, float]]] = [[] for _ in rows]
    gc.collect()
    gc.freeze()  # so that a collection looks at what the benchmarks left behind, and at nothing else
    for number in range(max(row.rounds for row in rows) + 1):
        todo = [i for i, row in enumerate(rows) if number <= row.rounds]
        order.shuffle(todo)
        for i in todo:
            gc.collect()
            gc.disable()
            try:
                times = {"A": await a.take()}
                for name, sample in rows[i].samples.items():
                    times[name] = await sample.take()
            finally:
                gc.enable()
            if number:
                taken[i].append(times)
    gc.unfreeze()
    return [_result(row, times) for row, times in zip(rows, taken, strict=True)]


def _result(row: Row, times: list[dict[str, float]]) -> Result:
    figures = [row.figure(each) for each in times]
    q1, median, q3 = statistics.quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else figures * 3
    medians = {name: round(statistics.median(each[name] for each in times), 1) for name in times[0]}
    return Result(row.row, row.what, row.target, row.unit, median, q1, q3, row.n, len(figures), medians)


def ratio(ours: str = "mai", other: str = "A") -> Callable[[Times], float]:
    """Return the figure that says how many *other* one of *ours* costs."""
    return lambda times: times[ours] / times[other]


# ---------------------------------------------------------------- running and telling


def run(names: Sequence[str], scale: Scale) -> tuple[list[Result], dict[str, BrokenPromise]]:
    """Run the named benchmarks: each asserts its promises, then all of its rows are measured.

    Returns:
        The results, and for each benchmark that was left out the promise that is broken.
    """
    results: list[Result] = []
    broken: dict[str, BrokenPromise] = {}
    for name in names:
        try:
            results += asyncio.run(_one(name, scale))
        except BrokenPromise as error:
            broken[name] = error
    return sorted(results, key=lambda result: (not result.row.isdigit(), result.row.zfill(2))), broken


async def _one(name: str, scale: Scale) -> list[Result]:
    bench = importlib.import_module(f"benchmarks.bench_{name}")
    return await measure(await bench.rows(scale), scale)


def table(results: Sequence[Result]) -> str:
    """Return the table as text."""
    lines = [("row", "what", "target", "figure", "quartiles", "", "")]
    for r in results:
        met = {True: "met", False: "NOT met", None: ""}[r.met]
        target = "" if r.target is None else f"{r.target:g}"
        lines.append((r.row, r.what, target, f"{r.figure:.3g}", f"{r.q1:.3g} to {r.q3:.3g}", r.unit, met))
    widths = [max(len(line[i]) for line in lines) for i in range(7)]
    right = {0, 2, 3}
    text = []
    for line in lines:
        cells = enumerate(zip(line, widths, strict=True))
        text.append("  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in cells).rstrip())
    wanted = [r.met for r in results if r.met is not None]
    return "\n".join([*text, "", f"{sum(wanted)} of {len(wanted)} targets met"])


def record(
    name: str, results: Sequence[Result], scale: Scale, folder: Path, broken: Mapping[str, BrokenPromise] = _NONE
) -> Path:
    """Append a record of a run to ``<folder>/<date>-<name>.jsonl`` and return the file."""
    entry = {
        "scale": asdict(scale),
        "not timed": {bench: str(error) for bench, error in broken.items()},
        "rows": [{**asdict(result), "met": result.met} for result in results],
    }
    return append(name, entry, folder)


def append(name: str, facts: Mapping[str, Any], folder: Path) -> Path:
    """Append *facts* to ``<folder>/<date>-<name>.jsonl``, with when and in which circumstances they were found."""
    now = datetime.now(UTC)
    entry = {
        "when": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {"mai": _own_version(), **{name: version(dist) for name, dist in _DISTRIBUTIONS.items()}},
        "machine": {"platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()},
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{now.date()}-{name}.jsonl"
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(entry, default=str) + "\n")
    return file


_DISTRIBUTIONS = {"anyio": "anyio", "pydantic": "pydantic", "opentelemetry": "opentelemetry-api"}


def _own_version() -> str:
    return str(importlib.import_module("mai").__version__)


def _commit() -> str:
    """Return the commit, marked if the kernel differs from it; "uncommitted" where there is none."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=HERE.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit} with changes" if git("status", "--porcelain", "--", "mai") else commit
    except (OSError, subprocess.CalledProcessError):
        return "uncommitted"


def main(names: Sequence[str] = ALL, argv: Sequence[str] | None = None) -> int:
    """Run benchmarks from the command line; the door of ``python -m benchmarks`` and of each ``bench_*.py``.

    Returns:
        0, whether the targets are met or not (a loaded machine is no error); 1 if a promise is broken.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure mai against its targets.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run (default: {' '.join(names)})")
    parser.add_argument("--quick", action="store_true", help="tiny N: shows that all works; the figures mean nothing")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--no-record", action="store_true", help="do not write to benchmarks/records")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(ALL))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    chosen, scale = args.names or list(names), QUICK if args.quick else FULL
    if args.rounds:
        scale = replace(scale, rounds=args.rounds, heavy_rounds=max(1, args.rounds // 3))
    results, broken = run(chosen, scale)
    print(table(results))
    for name, error in broken.items():
        print(f"{name}: not timed, a promise is broken: {error}", file=sys.stderr)
    if results and not (args.no_record or args.quick):
        name = "all" if len(chosen) > 1 else chosen[0]
        file = record(name, results, scale, HERE / "records", broken)
        print(f"recorded in {file.relative_to(HERE.parent)}", file=sys.stderr)
    return 1 if broken else 0
