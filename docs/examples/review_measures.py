"""What the facts of all files add up to: size, complexity, import cycles, missing explanations, riskiest functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict

from review_facts import FileFacts, Function
from review_files import Problem
from review_imports import find_cycles, import_graph, shortest_cycle

BANDS = ((1, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Ranges of complexity that are counted apart, both ends included."""


@dataclass(frozen=True, slots=True)
class Tree:
    """All that is known of a directory of source.

    Attributes:
        root: The directory.
        package: Its dotted name in parts, if it is a package itself.
        files: The facts of the files that could be parsed, by path.
        problems: What could not be read or parsed.
    """

    root: Path
    package: tuple[str, ...]
    files: tuple[FileFacts, ...]
    problems: tuple[Problem, ...]

    def functions(self) -> list[Function]:
        """All functions and methods, by file and line."""
        return [function for facts in self.files for function in facts.functions]


class Result(BaseModel):
    """A part of the report: a value that does not change."""

    model_config = ConfigDict(frozen=True)


class Size(Result):
    """How much there is.

    Attributes:
        files: Files that were parsed.
        lines: Their lines.
        code_lines: Those that are neither blank nor comment nor docstring.
        functions: Functions and methods, nested ones too.
        classes: Classes.
    """

    files: int
    lines: int
    code_lines: int
    functions: int
    classes: int


class Band(Result):
    """How many functions have a complexity from *low* to *high* (None: any above)."""

    low: int
    high: int | None
    functions: int

    def __str__(self) -> str:
        """Return the range, as in `6-10` or `51+`."""
        return f"{self.low}+" if self.high is None else f"{self.low}-{self.high}"


class Complexity(Result):
    """How complex the functions are, by McCabe's number.

    Attributes:
        mean: Mean over all functions, 0 if there is none.
        median: Half of the functions are not above it.
        highest: The greatest of all.
        bands: How many functions are in each range.
    """

    mean: float
    median: float
    highest: int
    bands: tuple[Band, ...]


class Hop(Result):
    """One import on the way round a cycle: at *line* of *path* the next file is imported."""

    path: str
    line: int


class Cycle(Result):
    """Files that cannot be imported without each other.

    Attributes:
        files: All files of the group, by path.
        hops: A shortest way round.
    """

    files: tuple[str, ...]
    hops: tuple[Hop, ...]

    def __str__(self) -> str:
        """Return the way round, as in `a.py:3 -> b.py:1 -> a.py`."""
        return " -> ".join([*(f"{hop.path}:{hop.line}" for hop in self.hops), self.hops[0].path])


class Gaps(Result):
    """What users have to guess.

    Attributes:
        documentable: Public modules, classes and functions.
        undocumented: Those without a docstring.
        functions: All functions that have something to annotate.
        unannotated: Those of them where a parameter or the result has no annotation.
    """

    documentable: int
    undocumented: int
    functions: int
    unannotated: int


class Risk(Result):
    """A function and how risky it is to change it."""

    function: Function
    risk: float


def measure_size(tree: Tree) -> Size:
    """Return how much there is in *tree*."""
    return Size(
        files=len(tree.files),
        lines=sum(facts.lines for facts in tree.files),
        code_lines=sum(facts.code_lines for facts in tree.files),
        functions=sum(len(facts.functions) for facts in tree.files),
        classes=sum(facts.classes for facts in tree.files),
    )


def measure_complexity(tree: Tree) -> Complexity:
    """Return how complex the functions of *tree* are."""
    numbers = [function.complexity for function in tree.functions()]
    return Complexity(
        mean=round(fmean(numbers), 2) if numbers else 0.0,
        median=float(median(numbers)) if numbers else 0.0,
        highest=max(numbers, default=0),
        bands=tuple(Band(low=low, high=high, functions=_between(numbers, low, high)) for low, high in BANDS),
    )


def measure_cycles(tree: Tree) -> list[Cycle]:
    """Return the import cycles of *tree*, the largest group first."""
    graph = import_graph(tree.files, tree.package)
    cycles: list[Cycle] = []
    for group in find_cycles(graph):
        way = shortest_cycle(graph, group)
        hops = tuple(Hop(path=here, line=graph[here][there]) for here, there in pairwise(way))
        cycles.append(Cycle(files=tuple(group), hops=hops))
    return sorted(cycles, key=lambda cycle: (-len(cycle.files), cycle.files))


def measure_gaps(tree: Tree) -> Gaps:
    """Return what lacks docstrings and annotations in *tree*."""
    annotatable = [function for function in tree.functions() if function.places]
    return Gaps(
        documentable=sum(facts.documentable for facts in tree.files),
        undocumented=sum(len(facts.undocumented) for facts in tree.files),
        functions=len(annotatable),
        unannotated=count_unannotated(annotatable),
    )


def count_unannotated(functions: Iterable[Function]) -> int:
    """Return how many of *functions* lack an annotation."""
    return sum(function.annotated < function.places for function in functions)


def risk_of(function: Function) -> float:
    """Return how risky it is to change *function*, from 1.

    `complexity * (1 + lines / 100) * (1 + depth / 10) * (1 + unexplained / 2)`, where *unexplained* is the mean of two
    shares: 1 if there is no docstring (else 0), and the share of its parameters and result that have no annotation.

    The number of ways through a function comes first; a hundred lines double it, ten levels of nesting double it, and
    half is added if nothing says what goes in and out. The factors are a choice, not a finding: they order the
    functions of one tree and mean nothing across trees.
    """
    bare = 1 - function.annotated / function.places if function.places else 0.0
    unexplained = ((not function.documented) + bare) / 2
    return round(
        function.complexity * (1 + function.lines / 100) * (1 + function.depth / 10) * (1 + unexplained / 2), 1
    )


def measure_risks(tree: Tree, top: int = 5) -> list[Risk]:
    """Return the *top* riskiest functions of *tree*, the riskiest first; of equal ones the first by file and line."""
    risks = [Risk(function=function, risk=risk_of(function)) for function in tree.functions()]
    return sorted(risks, key=lambda risk: (-risk.risk, risk.function.path, risk.function.line))[:top]


def _between(numbers: Sequence[int], low: int, high: int | None) -> int:
    return sum(low <= number and (high is None or number <= high) for number in numbers)
