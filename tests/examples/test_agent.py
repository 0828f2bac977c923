from pathlib import Path

import pytest

import agent
from mai import answers, capture
from mai.models import Model, no_requests, spent


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of two notes."""
    (tmp_path / "deadlines.md").write_text("Deadlines\n\nA deadline is inherited by\nall calls inside.\n\nOther.\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "cats.txt").write_text("Cats sleep a lot.\n")
    (tmp_path / "picture.png").write_bytes(b"deadline")
    return tmp_path


async def test_the_agent_answers_from_the_notes_without_a_model(notes: Path) -> None:
    with no_requests(), capture() as trace:
        report = await agent.research("Are deadlines inherited?", folder=notes)
    assert report == agent.Report(answer="A deadline is inherited by all calls inside.", pages=["deadlines.md"])
    (researcher,) = trace.runs[0].children
    assert [child.name for child in researcher.children] == [
        "ScriptedModel", "Search", "ScriptedModel", "ReadPage", "ScriptedModel",
    ]  # fmt: skip
    assert spent(trace).calls == 3


async def test_notes_that_say_nothing_are_said_to(notes: Path) -> None:
    report = await agent.research("Quantum chromodynamics?", folder=notes)
    assert (report.answer, report.pages) == ("The notes say nothing about that.", [])


@pytest.mark.parametrize(("agreed", "there"), [(True, True), (False, False)])
async def test_a_report_is_saved_only_if_a_person_agrees(notes: Path, agreed: bool, there: bool) -> None:
    target = notes / "report.md"
    with answers(lambda question: agreed):
        await agent.research("Are deadlines inherited?", folder=notes, save=target)
    assert target.exists() is there


async def test_the_tools_see_nothing_but_the_notes(notes: Path) -> None:
    assert [found.page for found in await agent.Search(notes)("cats sleep")] == ["deep/cats.txt"]
    assert await agent.ReadPage(notes)("deep/cats.txt") == "Cats sleep a lot.\n"
    for page in ("../secret.txt", "/etc/passwd", "nothing.md"):
        with pytest.raises(LookupError, match="there is no page"):
            await agent.ReadPage(notes)(page)


async def test_any_model_may_take_the_scripts_place(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-01234567")
    with no_requests(), pytest.raises(Exception, match=r"openai:gpt-5 would be asked inside no_requests\(\)"):
        await agent.research("Who?", folder=notes, model="openai:gpt-5")
    assert isinstance(agent.scripted(), Model)
