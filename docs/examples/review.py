"""Reviews a directory of Python source: its size, complexity, import cycles and gaps, and its riskiest functions.

    mai run docs/examples/review.py:review DIR
    mai run docs/examples/review.py:review DIR --full true --top 10
    mai run docs/examples/review.py:review DIR --model http://localhost:8000/v1

What is measured is plain Python (`review_facts.py`, `review_files.py`, `review_imports.py`, `review_measures.py`).
Here it becomes a pipeline:

    find the files >> parse each, a few at a time >> size & complexity & cycles & gaps & risks
    >> review the riskiest >> write a short or a full report

The verdicts come from rules that need no model (`review_rules.py`). With `--model` any OpenAI-compatible endpoint gives
them (`review_chat.py`); where it fails, the rules step in, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mai import BlockingDelay, Conditional, DeadlineExceeded, Module, Parallel, module
from review_agent import FindCallers, ReadSource, Reviewer, tool_specs
from review_chat import ChatModel, endpoint
from review_facts import FileFacts
from review_files import Problem, find_files, read_facts
from review_imports import package_of
from review_measures import (
    Risk,
    Tree,
    measure_complexity,
    measure_cycles,
    measure_gaps,
    measure_risks,
    measure_size,
)
from review_messages import Message, Reply, Unavailable, Unusable, Verdict
from review_report import Findings, Opinion, Report, Reviewed, full_report, short_report
from review_rules import RuleModel


@dataclass(frozen=True, slots=True)
class Found:
    """The Python files of a directory, and what could not be looked into."""

    directory: Path
    paths: tuple[str, ...]
    problems: tuple[Problem, ...]


class FindFiles(Module):
    """Lists the Python files of a directory."""

    def forward(self, directory: Path) -> Found:
        paths, problems = find_files(directory)
        if not paths and not problems:
            raise ValueError(f"Cannot review {str(directory)!r}: there is no Python file in it")
        return Found(directory, tuple(paths), tuple(problems))


class ParseFile(Module):
    """Gives the facts of the file *path*. A plain `forward`: it runs in a worker thread."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, found: Found) -> FileFacts | Problem:
        return read_facts(found.directory, self.path)


class ParseFiles(Module):
    """Parses all files, at most *limit* at a time."""

    def __init__(self, limit: int = 4) -> None:
        super().__init__()
        self.limit = limit

    async def forward(self, found: Found) -> Tree:
        results: tuple[FileFacts | Problem, ...] = ()
        if found.paths:
            results = await Parallel(*map(ParseFile, found.paths), limit=self.limit)(found)
        problems = [*found.problems, *(result for result in results if isinstance(result, Problem))]
        return Tree(
            root=found.directory,
            package=package_of(found.directory),
            files=tuple(result for result in results if isinstance(result, FileFacts)),
            problems=tuple(sorted(problems, key=lambda problem: problem.path)),
        )


class ReviewRisks(Module):
    """Asks for a verdict on each risk: the model if there is one, and the rules where it gives none.

    Args:
        tree: What the reviewer's tools may look at.
        model: The model to ask, or None for the rules alone.
        where: Where the model is, for the report.
        patience: The longest wait that the model may ask for [s].
    """

    def __init__(self, tree: Tree, model: Module[list[Message], Reply] | None, where: str, patience: float) -> None:
        super().__init__()
        read_source, find_callers = ReadSource(tree), FindCallers(tree)
        self.where = where
        self.rules = Reviewer(RuleModel(), read_source, find_callers)
        self.chat = None if model is None else Reviewer(model, read_source, find_callers, patience=patience)

    async def forward(self, risks: list[Risk]) -> Reviewed:
        chat = self.chat
        opinions: list[Opinion] = []
        failures: list[str] = []
        for risk in risks:
            verdict: Verdict | None = None
            if chat is not None:
                try:
                    verdict = await chat(risk)
                except Unusable as error:
                    failures.append(str(error))
                except (Unavailable, DeadlineExceeded) as error:
                    failures.append(str(error))
                    chat = None  # it would fail at the next function, too
            by: Literal["model", "rules"] = "rules" if verdict is None else "model"
            verdict = verdict or await self.rules(risk)
            opinions.append(Opinion(function=risk.function, risk=risk.risk, verdict=verdict, by=by))
        return Reviewed(opinions=tuple(opinions), reviewer=self._reviewer(opinions, failures))

    def _reviewer(self, opinions: list[Opinion], failures: list[str]) -> str:
        """Who gave the verdicts, as a sentence."""
        if self.chat is None:
            return "reviewed by rules, no model was asked"
        by_model = sum(opinion.by == "model" for opinion in opinions)
        why = "; ".join(dict.fromkeys(failures))
        if not opinions:
            return "there was nothing to review"
        if not by_model:
            return f"reviewed by rules, the model at {self.where} failed: {why}"
        if by_model == len(opinions):
            return f"reviewed by the model at {self.where}"
        share = f"{by_model} of {len(opinions)} reviewed by the model at {self.where}"
        return f"{share}, the others by rules because it failed: {why}"


def connect(url: str, *, name: str, pause: float, patience: float) -> Module[list[Message], Reply]:
    """Return the model at *url*, left alone for *pause* [s] after each answer; *patience* bounds each call [s]."""
    chat = ChatModel(url, name=name, tools=tool_specs(), patience=patience)
    return chat.with_(timeout=patience) >> BlockingDelay(pause)


def wants_details(findings: Findings) -> bool:
    """Return whether the report shall be a full one."""
    return findings.full


class Review(Module):
    """Reviews the Python source in a directory.

    Args (of a call):
        directory: Where the source is.
        model: The address of an OpenAI-compatible endpoint, as in `http://localhost:8000/v1`; without it nothing is
            sent anywhere. The key, if it needs one, is read from `OPENAI_API_KEY` when it is asked.
        full: Whether to report every file and name.
        top: How many of the riskiest functions to review, from 1.
        model_name: What the endpoint calls its model.
        pause: The time that the model is left alone after each answer [s].
        patience: The longest time to wait for one answer of the model [s].

    Raises:
        FileNotFoundError: If there is no such directory.
        NotADirectoryError: If it is something else.
        ValueError: If there is no Python file in it, *top* is less than 1, or *model* is no http or https address.
        ConfigError: If *pause* or *patience* is no number of seconds.
    """

    read = FindFiles() >> ParseFiles()
    write = Conditional(wants_details, then=module(full_report), otherwise=module(short_report))

    async def forward(
        self,
        directory: Path,
        model: str | None = None,
        full: bool = False,
        top: int = 5,
        model_name: str = "default",
        pause: float = 0.05,
        patience: float = 30.0,
    ) -> Report:
        if top < 1:
            raise ValueError(f"Cannot review the {top} riskiest functions: top must be 1 or more")
        polite = None if model is None else connect(model, name=model_name, pause=pause, patience=patience)
        tree = await self.read(directory)
        size, complexity, cycles, gaps, risks = await (
            module(measure_size)
            & module(measure_complexity)
            & module(measure_cycles)
            & module(measure_gaps)
            & module(measure_risks).with_(top=top)
        )(tree)
        where = "" if model is None else endpoint(model).partition("?")[0]
        reviewed = await ReviewRisks(tree, polite, where, patience)(risks)
        findings = Findings(str(directory), tree, size, complexity, cycles, gaps, reviewed, full)
        return await self.write(findings)


review = Review()
