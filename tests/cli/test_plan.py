"""`mai plan` in this process: what it prints, and the exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mai import WorkflowPlan
from tests.cli.support import Done

Mai = Callable[..., Done]

GRAPH = """\
from mai import Graph, graph, module


@module
async def shout(text: str) -> str:
    raise RuntimeError("nothing is run")


@graph
async def twice(text: str) -> str:
    return await shout(await shout(text))


unfinished = Graph("unfinished")
broken = 3
"""


@pytest.fixture(autouse=True)
def graph_file(here: Path) -> None:
    (here / "graphs.py").write_text(GRAPH, encoding="utf-8")


def test_a_plan_is_printed_as_text(mai: Mai) -> None:
    done = mai("plan", "graphs.py:twice")
    text = "twice(text: str) -> str\n  shout(text=text) -> str\n  shout~2(text=shout) -> str\n  = shout~2\n"
    assert [*done] == [0, text, ""]


def test_a_plan_is_printed_in_each_format(mai: Mai) -> None:
    assert mai("plan", "graphs.py:twice", "--format", "mermaid").out.startswith("flowchart TD\n")
    assert mai("plan", "--format", "dot", "graphs.py:twice").out.startswith('digraph "twice" {\n')
    out = mai("plan", "graphs.py:twice", "--format=json").out
    assert json.loads(out)["format"] == "mai.plan/1"
    assert WorkflowPlan.model_validate_json(out).chains() == [["shout", "shout~2"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["graphs.py:twice", "--format", "merm"],
            "mai plan: --format merm: there is no such format; did you mean mermaid?\n",
        ),
        (
            ["graphs.py:twice", "--format", "x"],
            "mai plan: --format x: there is no such format; give one of text, mermaid, dot, json\n",
        ),
        (
            ["graphs.py:unfinished"],
            "mai plan: unfinished has no output yet: say what it gives with g.output(...)\n",
        ),
    ],
)
def test_bad_usage_says_what_to_do(mai: Mai, words: list[str], message: str) -> None:
    assert [*mai("plan", *words)] == [2, "", message]


def test_a_target_that_cannot_be_loaded_is_bad_usage(mai: Mai, here: Path) -> None:
    done = mai("plan", "graphs.py:twise")
    assert (done.code, "did you mean 'twice'" in done.err) == (2, True)
    (here / "odd.py").write_text("1 / 0", encoding="utf-8")
    assert "ZeroDivisionError" in mai("plan", "odd.py:x", "--traceback").err
