"""Reviews a directory of Python source: its size, complexity, import cycles and gaps, and its riskiest functions.

    mai run docs/examples/review.py:review DIR
    mai run docs/examples/review.py:review DIR --full true --top 10
    mai run docs/examples/review.py:review DIR --model http://localhost:8000/v1
    mai run docs/examples/review.py:review DIR --model http://localhost:8000/v1 --approve true

What is measured is plain Python (`review_facts.py`, `review_files.py`, `review_imports.py`, `review_measures.py`).
Here it becomes a pipeline:

    find the files >> parse each, a few at a time >> size & complexity & cycles & gaps & risks
    >> review the riskiest >> write a short or a full report

The verdicts come from rules that need no model (`review_rules.py`). With `--model` any OpenAI-compatible endpoint gives
them (`review_chat.py`): a throttled question is tried again when the server wants it, and where the model fails, the
rules are the fallback, and the report says so. With `--approve` you are asked before anything is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mai import BlockingDelay, Call, Conditional, DeadlineExceeded, Module, Retry, ask, module
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
from review_messages import Message, ModelError, Reply, Throttled, Unusable, Verdict
from review_report import Findings, Opinion, Report, Reviewed, full_report, short_report
from review_rules import RuleModel

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


class ParseFiles(Module):
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


@dataclass
class Failures:
    """A middleware around the model's reviews: it notes why one failed, and asks no more when no more will succeed."""

    reasons: list[str] = field(default_factory=list[str])
    final: Exception | None = None

    async def __call__(self, call: Call, next: Callable[[Call], Awaitable[Verdict]]) -> Verdict:  # noqa: A002
        if self.final is not None:
            raise self.final
        try:
            return await next(call)
        except (ModelError, DeadlineExceeded) as error:
            self.reasons.append(str(error))
            self.final = None if isinstance(error, Unusable) else error
            raise


class ByModel(Module):
    """Says of a verdict that the model gave it."""

    async def forward(self, verdict: Verdict) -> tuple[Verdict, By]:
        return verdict, "model"


class ByRules(Module):
    """Gives the verdict of the rules, and says so."""

    def __init__(self, rules: Reviewer) -> None:
        self.rules = rules

    async def forward(self, risk: Risk) -> tuple[Verdict, By]:
        return await self.rules(risk), "rules"


class ReviewRisk(Module):
    """Asks for a verdict on one risk: the model if there is one, and the rules where it gives none."""

    def __init__(self, chat: Reviewer | None, rules: Reviewer) -> None:
        by_rules = ByRules(rules)
        self.review = by_rules if chat is None else (chat >> ByModel()).with_(name="AskModel", fallback=by_rules)

    async def forward(self, risk: Risk) -> Opinion:
        verdict, by = await self.review(risk)
        return Opinion(function=risk.function, risk=risk.risk, verdict=verdict, by=by)


class ReviewRisks(Module):
    """Asks for a verdict on each risk, one after the other.

    Args:
        tree: What the reviewer's tools may look at.
        model: The model to ask, or None for the rules alone.
        where: Where the model is, for the report and for the question whether to send anything there.
        approve: Whether to ask a person first.
    """

    def __init__(
        self, tree: Tree, model: Module[list[Message], Reply] | None, where: str, *, approve: bool = False
    ) -> None:
        self.tools = ReadSource(tree), FindCallers(tree)
        self.model, self.where, self.approve = model, where, approve

    async def forward(self, risks: list[Risk]) -> Reviewed:
        failures, chat, refused = Failures(), None, False
        if self.model is not None and risks:
            refused = self.approve and not await ask(
                f"Send the source of {len(risks)} functions to {self.where}?", bool
            )
            if not refused:
                chat = Reviewer(self.model, *self.tools).with_(middleware=failures)
        review = ReviewRisk(chat, Reviewer(RuleModel(), *self.tools))
        opinions = await review.map(concurrency=1, progress=True).with_(name="risks")(risks)
        reviewer = self._reviewer(opinions, failures.reasons)
        if refused:
            reviewer = f"reviewed by rules, nobody approved that anything is sent to {self.where}"
        return Reviewed(opinions=tuple(opinions), reviewer=reviewer)

    def _reviewer(self, opinions: list[Opinion], failures: list[str]) -> str:
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


def connect(url: str, *, name: str, pause: float, patience: float) -> Module[list[Message], Reply]:
    """Return the model at *url*, left alone for *pause* [s] after each answer.

    *patience* bounds each attempt [s]. A throttled question is tried twice more, after the wait that the server wants,
    unless that is longer than *patience*.
    """

    def is_worth_waiting(error: Exception) -> bool:
        return isinstance(error, Throttled) and error.retry_after <= patience

    chat = ChatModel(url, name=name, tools=tool_specs(), patience=patience)
    return chat.with_(timeout=patience, retry=Retry(3, on=is_worth_waiting)) >> BlockingDelay(pause)


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
        approve: Whether to ask a person before anything is sent to the model.

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
        reviewed = await ReviewRisks(tree, polite, where, approve=approve)(risks)
        findings = Findings(str(directory), tree, size, complexity, cycles, gaps, reviewed, full)
        return await self.write(findings)


review = Review()
