"""The question-answering example runs over the project's own docs and over the standard library's docstrings."""

from pathlib import Path

import pytest

import answer
from mai import Graph, WorkflowPlan, capture

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ("how many branches may run at once", "howto/parallel.rst"),
        ("what is a decision record", "adr/index.rst"),
        ("a test double belongs to a module and its copies", "adr/0014-test-doubles.rst"),
    ],
)
def test_the_page_that_answers_is_among_the_first(question: str, place: str) -> None:
    with capture() as trace:
        found = answer.ask.run(question, DOCS)
    assert place in [hit.place for hit in found.hits]
    assert found.searched > 300
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    inner = {"ask/search/build_index", "ask/search/keywords", "ask/search/rank"}
    assert inner < {handle.step_id for handle in trace.runs[0].walk()}


def test_a_docstring_of_the_standard_library_answers() -> None:
    found = answer.ask_library.run("serialize an object to text", ["json"], k=1)
    assert found.hits[0].place.startswith("json/__init__.py:dump")


def test_both_share_the_search() -> None:
    for made in (answer.ask, answer.ask_library):
        plan = made.plan()
        assert {node.id for node in plan.nodes if node.within == "search"} == {
            "search/build_index", "search/keywords", "search/rank"
        }  # fmt: skip
        assert WorkflowPlan.model_validate_json(plan.model_dump_json()) == plan


def test_the_graph_can_be_wired_from_its_plan(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Cats sleep.\n\nDogs bark at cats.\n", encoding="utf-8")
    modules = {
        "ReadPages": answer.read_pages,
        "search": answer.search,
        "len": answer.count,
        "Answer": answer.make_answer,
    }
    again = Graph.from_plan(answer.ask.plan(), modules, types={"folder": Path})
    assert again.run("dogs", tmp_path) == answer.ask.run("dogs", tmp_path)
    assert again.run("dogs", tmp_path).hits[0].text == "Dogs bark at cats."
