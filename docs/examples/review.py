"""Reviews a directory of Python source: its size, complexity, import cycles and gaps, and its riskiest functions.

    mai run docs/examples/review.py:review DIR
    mai run docs/examples/review.py:review DIR --full true --top 10
    mai run docs/examples/review.py:review DIR --model http://localhost:8000/v1
    mai run docs/examples/review.py:review DIR --model http://localhost:8000/v1 --approve true
    mai run docs/examples/review.py:review DIR --model ... --approve true --durable runs.db

What is measured is plain Python (`review_facts.py`, `review_files.py`, `review_imports.py`, `review_measures.py`).
Here it becomes a pipeline:

    find the files >> parse each, a few at a time >> size & complexity & cycles & gaps & risks
    >> review the riskiest >> write a short or a full report

Each review is done by an agent with two tools (`review_agent.py`). Its model plays by rules and asks nobody
(`review_rules.py`). With `--model` it is whatever answers at an OpenAI-compatible address (`review_model.py`): a
throttled question is tried again when the server wants it, and where the model fails, the rules are the fallback, and
the report says so. With `--approve` you are asked before anything is sent. With `--durable` each answer is recorded:
a review that was killed goes on without asking for it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mai import BlockingDelay, Conditional, Module, ask, module
from mai.agents import Agent
from mai.models import Model
from review_agent import reviewer
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
from review_messages import Verdict
from review_model import Failures, address, connect
from review_report import Findings, Opinion, Report, Reviewed, full_report, short_report
from review_rules import rule_model

By = Literal["model", "rules"]


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


@dataclass(frozen=True, slots=True)
class Place:
    """A file to parse."""

    directory: Path
    path: str


class ParseFile(Module):
    """Gives the facts of a file. A plain `forward`: it runs in a worker thread."""

    def forward(self, place: Place) -> FileFacts | Problem:
        return read_facts(place.directory, place.path)


class ParseFiles(Module, flow=True):
    """Parses all files, at most *limit* at a time."""

    def __init__(self, limit: int = 4) -> None:
        self.parse = ParseFile().map(concurrency=limit, progress=True).with_(name="files")

    async def forward(self, found: Found) -> Tree:
        results = await self.parse([Place(found.directory, path) for path in found.paths])
        problems = [*found.problems, *(result for result in results if isinstance(result, Problem))]
        return Tree(
            root=found.directory,
            package=package_of(found.directory),
            files=tuple(result for result in results if isinstance(result, FileFacts)),
            problems=tuple(sorted(problems, key=lambda problem: problem.path)),
        )


class ByModel(Module):
    """Says of a verdict that the model gave it."""

    async def forward(self, verdict: Verdict) -> tuple[Verdict, By]:
        return verdict, "model"


class ByRules(Module):
    """Says of a verdict that the rules gave it."""

    async def forward(self, verdict: Verdict) -> tuple[Verdict, By]:
        return verdict, "rules"


class ReviewRisk(Module, flow=True):
    """Asks for a verdict on one risk: the model if there is one, and the rules where it gives none.

    The model is left alone for *pause* [s] after each verdict.
    """

    def __init__(self, rules: Agent[Verdict], model: Agent[Verdict] | None, pause: BlockingDelay) -> None:
        by_rules = rules >> ByRules()
        asked = by_rules if model is None else model >> pause >> ByModel()
        self.review = by_rules if model is None else asked.with_(name="AskModel", fallback=by_rules)

    async def forward(self, risk: Risk) -> Opinion:
        verdict, by = await self.review(risk.model_dump_json())
        return Opinion(function=risk.function, risk=risk.risk, verdict=verdict, by=by)


class ReviewRisks(Module, flow=True):
    """Asks for a verdict on each risk, one after the other.

    Args:
        tree: What the reviewer's tools may look at.
        model: The model to ask, or None for the rules alone.
        where: Where the model is, for the report and for the question whether to send anything there.
        pause: How the model is left alone after each verdict.
        approve: Whether to ask a person first.
    """

    def __init__(
        self, tree: Tree, model: Model | None, where: str, pause: BlockingDelay, *, approve: bool = False
    ) -> None:
        self.tree, self.model, self.where, self.pause, self.approve = tree, model, where, pause, approve

    async def forward(self, risks: list[Risk]) -> Reviewed:
        failures, by_model, refused = Failures(), None, False
        if self.model is not None and risks:
            refused = self.approve and not await ask(
                f"Send the source of {len(risks)} functions to {self.where}?", bool
            )
            if not refused:
                by_model = reviewer(self.model, self.tree).with_(middleware=failures)
        review = ReviewRisk(reviewer(rule_model(), self.tree), by_model, self.pause)
        opinions = await review.map(concurrency=1, progress=True).with_(name="risks")(risks)
        who = self._who(opinions, failures.reasons)
        if refused:
            who = f"reviewed by rules, nobody approved that anything is sent to {self.where}"
        return Reviewed(opinions=tuple(opinions), reviewer=who)

    def _who(self, opinions: list[Opinion], failures: list[str]) -> str:
        """Who gave the verdicts, as a sentence."""
        if self.model is None:
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


def wants_details(findings: Findings) -> bool:
    """Return whether the report shall be a full one."""
    return findings.full


class Review(Module, flow=True):
    """Reviews the Python source in a directory.

    Args (of a call):
        directory: Where the source is.
        model: The address of an OpenAI-compatible endpoint, as in `http://localhost:8000/v1`; without it nothing is
            sent anywhere.
        full: Whether to report every file and name.
        top: How many of the riskiest functions to review, from 1.
        model_name: What the endpoint calls its model.
        pause: The time that the model is left alone after each verdict [s].
        patience: The longest time to wait for one answer of the model [s].
        approve: Whether to ask a person before anything is sent to the model.
        key_from: The variable that holds the key for the endpoint, if it needs one. It is read when the model is asked,
            and is sent nowhere else.

    Raises:
        AskError: If *approve* is set, and there is nobody to ask.
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
        approve: bool = False,
        key_from: str = "OPENAI_API_KEY",
    ) -> Report:
        if top < 1:
            raise ValueError(f"Cannot review the {top} riskiest functions: top must be 1 or more")
        asked = None if model is None else connect(model, name=model_name, patience=patience, key_from=key_from)
        alone = BlockingDelay(pause)
        tree = await self.read(directory)
        size, complexity, cycles, gaps, risks = await (
            module(measure_size)
            & module(measure_complexity)
            & module(measure_cycles)
            & module(measure_gaps)
            & module(measure_risks).with_(top=top)
        )(tree)
        where = "" if model is None else address(model)
        try:
            reviewed = await ReviewRisks(tree, asked, where, alone, approve=approve)(risks)
        finally:
            if asked is not None:
                await asked.aclose()
        findings = Findings(str(directory), tree, size, complexity, cycles, gaps, reviewed, full)
        return await self.write(findings)


review = Review()
