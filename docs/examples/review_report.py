"""The report: what a review gives, as data and as text that is readable at 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from review_facts import FileFacts, Function, Place
from review_files import Problem
from review_measures import Complexity, Cycle, Gaps, Result, Size, Tree, count_unannotated
from review_messages import Verdict
from review_text import counted, printable

WIDTH = 100
SHOWN = 10
"""How many problems and cycles the short report prints; it holds all of them."""
COMPLEX = 10
"""A function above this complexity is listed in the full report."""


class Opinion(Result):
    """What the reviewer thinks of one function, and who the reviewer was."""

    function: Function
    risk: float
    verdict: Verdict
    by: Literal["rules", "model"]


class Reviewed(Result):
    """The verdicts on the riskiest functions.

    Attributes:
        opinions: One for each function, the riskiest first.
        reviewer: Who gave them, as a sentence; if a model failed, with its reason.
    """

    opinions: tuple[Opinion, ...]
    reviewer: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report can be written from, and whether it shall be a full one."""

    directory: str
    tree: Tree
    size: Size
    complexity: Complexity
    cycles: list[Cycle]
    gaps: Gaps
    reviewed: Reviewed
    full: bool


class FileRow(Result):
    """One file in a full report."""

    path: str
    lines: int
    functions: int
    highest: int
    undocumented: int
    unannotated: int


class Details(Result):
    """What only a full report holds.

    Attributes:
        files: The files by path.
        complex_functions: The functions above a complexity of 10, the most complex first.
        undocumented: The public names without a docstring, by file and line.
    """

    files: tuple[FileRow, ...]
    complex_functions: tuple[Function, ...]
    undocumented: tuple[Place, ...]


class Report(Result):
    """What was found in a directory of Python source. Its `str()` is a page to read.

    Attributes:
        directory: The directory as it was given; every path is relative to it.
        reviewer: Who reviewed the riskiest functions; if a model was asked and failed, why.
        riskiest: The riskiest functions with the verdicts on them.
        size: How much there is.
        complexity: How complex the functions are.
        cycles: Files that import each other in a circle.
        gaps: What lacks docstrings and annotations.
        problems: What could not be read or parsed.
        details: Every file and name, in a full report.
    """

    directory: str
    reviewer: str
    riskiest: tuple[Opinion, ...]
    size: Size
    complexity: Complexity
    cycles: tuple[Cycle, ...]
    gaps: Gaps
    problems: tuple[Problem, ...]
    details: Details | None = None

    def __str__(self) -> str:
        """Return the page."""
        return "\n".join(printable(line) for line in _page(self))


def short_report(findings: Findings) -> Report:
    """Return the report for somebody in a hurry."""
    return _report(findings, None)


def full_report(findings: Findings) -> Report:
    """Return the report with all details."""
    hard = [function for function in findings.tree.functions() if function.complexity > COMPLEX]
    hard.sort(key=lambda function: (-function.complexity, function.path, function.line))
    details = Details(
        files=tuple(_row(facts) for facts in findings.tree.files),
        complex_functions=tuple(hard),
        undocumented=tuple(place for facts in findings.tree.files for place in facts.undocumented),
    )
    return _report(findings, details)


def _report(findings: Findings, details: Details | None) -> Report:
    return Report(
        directory=findings.directory,
        reviewer=findings.reviewed.reviewer,
        riskiest=findings.reviewed.opinions,
        size=findings.size,
        complexity=findings.complexity,
        cycles=tuple(findings.cycles),
        gaps=findings.gaps,
        problems=findings.tree.problems,
        details=details,
    )


def _row(facts: FileFacts) -> FileRow:
    return FileRow(
        path=facts.path,
        lines=facts.lines,
        functions=len(facts.functions),
        highest=max((function.complexity for function in facts.functions), default=0),
        undocumented=len(facts.undocumented),
        unannotated=count_unannotated(facts.functions),
    )


def _page(report: Report) -> Iterator[str]:
    shown = SHOWN if report.details is None else None
    yield f"Review of {report.directory}"
    for name, text in _summary(report).items():
        yield from _field(name, text, indent=2)
    yield ""
    yield "Riskiest functions"
    yield from _wrapped(report.reviewer, indent=2)
    for number, opinion in enumerate(report.riskiest, 1):
        yield from _opinion(number, opinion)
    yield from _section("Import cycles", map(_cycle, report.cycles), shown)
    yield from _section("Not reviewed", (f"{_at(found)}  {found.reason}" for found in report.problems), shown)
    if report.details is not None:
        yield from _details(report.details)


def _summary(report: Report) -> dict[str, str]:
    size, complexity, gaps = report.size, report.complexity, report.gaps
    return {
        "files": f"{size.files:,} parsed, {len(report.problems):,} not reviewed",
        "size": f"{size.lines:,} lines, {size.code_lines:,} of code",
        "definitions": f"{counted(size.functions, 'function')}, {counted(size.classes, 'class', 'classes')}",
        "complexity": f"mean {complexity.mean:.2f}, median {complexity.median:g}, highest {complexity.highest}",
        "": "functions by complexity: " + ", ".join(f"{band}: {band.functions:,}" for band in complexity.bands),
        "imports": counted(len(report.cycles), "cycle") if report.cycles else "no cycle",
        "docstrings": f"{_share(gaps.undocumented, gaps.documentable)} public names have none",
        "annotations": f"{_share(gaps.unannotated, gaps.functions)} functions lack some",
    }


def _opinion(number: int, opinion: Opinion) -> Iterator[str]:
    function, verdict = opinion.function, opinion.verdict
    yield ""
    yield f"  {number}. {_at(function)}  {function.name}"
    measured = (
        f"risk {opinion.risk:g}, complexity {function.complexity}, {function.lines} lines, depth {function.depth}"
    )
    yield from _field(verdict.severity, measured, indent=5)
    yield from _field("because", verdict.reason, indent=5)
    yield from _field("so", verdict.advice, indent=5)


def _details(details: Details) -> Iterator[str]:
    hard = (f"{function.complexity:>4}  {_at(function)}  {function.name}" for function in details.complex_functions)
    yield from _section(f"Functions with a complexity above {COMPLEX}", hard, None)
    yield from _section("Files", _table(details.files), None)
    by_file = groupby(details.undocumented, key=lambda place: place.path)
    names = (f"{path}: {', '.join(f'{place.name} ({place.line})' for place in places)}" for path, places in by_file)
    yield from _section("Without a docstring (line)", names, None)


def _table(rows: Sequence[FileRow]) -> Iterator[str]:
    widest = max((len(row.path) for row in rows), default=0)
    width = max(len("path"), min(widest, WIDTH - 54))
    yield f"{'path':<{width}}  {'lines':>7} {'functions':>9} {'highest':>7} {'undocumented':>12} {'unannotated':>11}"
    for row in rows:
        numbers = f"{row.lines:>7} {row.functions:>9} {row.highest:>7} {row.undocumented:>12} {row.unannotated:>11}"
        if len(row.path) > width:
            yield row.path
        yield f"{row.path if len(row.path) <= width else '':<{width}}  {numbers}"


def _cycle(cycle: Cycle) -> str:
    more = len(cycle.files) - len(cycle.hops)
    return f"{cycle}  ({len(cycle.files)} files reach each other)" if more else str(cycle)


def _section(title: str, lines: Iterable[str], shown: int | None) -> Iterator[str]:
    """A title and its lines, but for those beyond *shown* only how many there are; nothing if there is no line."""
    every = list(lines)
    if not every:
        return
    yield ""
    yield title
    for line in every[:shown]:
        yield from _wrapped(line, indent=2) if len(line) + 2 > WIDTH else [f"  {line}"]
    if shown is not None and len(every) > shown:
        yield f"  and {len(every) - shown:,} more: ask for the full report"


def _field(name: str, text: str, *, indent: int) -> list[str]:
    start = f"{'':{indent}}{name:<12} "
    return _fill(text, start, " " * len(start)) or [start.rstrip()]


def _wrapped(text: str, *, indent: int) -> list[str]:
    return _fill(text, " " * indent, " " * (indent + 2))


def _fill(text: str, first: str, others: str) -> list[str]:
    """The lines of *text*; a path that is too long for one is not cut."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _at(place: Function | Problem) -> str:
    return f"{place.path}:{place.line}" if place.line else place.path


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.0f} %)" if whole else "")
