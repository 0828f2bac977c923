"""`mai trace`, and what `mai run` keeps of a run."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mai import TraceHandle
from mai.cli import main
from tests.cli.support import Done

Mai = Callable[..., Done]


def handle_of(file: Path) -> TraceHandle[Any]:
    return TraceHandle.from_dict(json.loads(file.read_text(encoding="utf-8")))


def test_a_run_stores_its_trace_in_a_file_and_as_a_page(mai: Mai, here: Path) -> None:
    done = mai("run", "flow.py:fast", "x", "--trace-json", "run.json", "--trace-html=run.html")
    assert [*done] == [0, "9\n", ""]
    assert [h.name for h in handle_of(here / "run.json").walk()] == ["Sequential", "Search", "<lambda>", "Scale"]
    assert (here / "run.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_run_that_failed_stores_its_trace_too(mai: Mai, here: Path) -> None:
    done = mai("run", "--trace-json", "run.json", "flow.py:fail", "this")
    assert (done.code, handle_of(here / "run.json").outcome) == (1, "error")


def test_a_run_that_never_began_stores_nothing(mai: Mai, here: Path) -> None:
    assert mai("run", "flow.py:add", "1", "--trace-json", "run.json").code == 2
    assert not (here / "run.json").exists()


@pytest.mark.parametrize("option", ["--trace-html", "--trace-json"])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(mai: Mai, here: Path, option: str) -> None:
    done = mai("run", "flow.py:fast", "x", option, "nowhere/run.json")
    what = "there is no directory 'nowhere'; give the name of a file"
    assert [*done] == [2, "", f"mai run: {option} nowhere/run.json: {what}\n"]
    (here / "folder").mkdir()
    what = "it is a directory; give the name of a file"
    assert mai("run", "flow.py:fast", "x", option, "folder").err == f"mai run: {option} folder: {what}\n"


def test_a_file_that_cannot_be_written_after_the_run_makes_it_fail(mai: Mai, here: Path) -> None:
    done = mai("run", "flow.py:fast", "x", "--trace-json", "x" * 300)
    assert (done.code, done.out) == (1, "9\n")
    assert done.err.endswith("File name too long\n")


@pytest.fixture
def stored(mai: Mai, here: Path) -> Path:
    assert mai("run", "flow.py:fast", "x", "--trace-json", "run.json").code == 0
    return here / "run.json"


def test_a_stored_trace_is_shown_as_a_tree(mai: Mai, stored: Path) -> None:
    done = mai("trace", "run.json")
    assert [*done] == [0, f"{handle_of(stored)}\n", ""]
    assert done.out.startswith("✓ Sequential ")


def test_a_stored_trace_is_shown_in_each_format(mai: Mai, stored: Path) -> None:
    assert mai("trace", "run.json", "--format", "mermaid").out == f"{handle_of(stored).mermaid()}\n"
    assert json.loads(mai("trace", "--format=json", "run.json").out) == handle_of(stored).to_dict()


def test_a_stored_trace_comes_from_standard_input_too(
    mai: Mai, stored: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert mai("trace", "-", stdin=stored.read_bytes()).out == f"{handle_of(stored)}\n"
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["trace", "-"]) == 2
    assert capfd.readouterr().err == "mai trace: -: standard input is closed\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))
    assert main(["trace", "-"]) == 2


def test_a_stored_trace_is_written_as_a_page(mai: Mai, stored: Path, here: Path) -> None:
    assert [*mai("trace", "run.json", "--html", "page.html")] == [0, "", ""]
    assert (here / "page.html").read_text(encoding="utf-8") == handle_of(stored).html()
    assert mai("trace", "run.json", "--html", "x" * 300).code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.json"], "none.json: No such file or directory"),
        (["."], ".: Is a directory"),
        (
            ["flow.py"],
            "flow.py: this is no JSON (Extra data: line 1 column 3 (char 2)); mai run --trace-json FILE",
        ),
        (["deep.json"], "deep.json: this is no JSON (maximum recursion depth exceeded"),
        (["plan.json"], "plan.json: Cannot read a trace: data.schema is 'mai.plan/1', not 'mai.trace/1'"),
        (["run.json", "--format", "merm"], "--format merm: there is no such format; did you mean mermaid?"),
        (["run.json", "--format", "x"], "--format x: there is no such format; give one of tree, mermaid, json"),
        (["run.json", "--html", "a/b.html"], "--html a/b.html: there is no directory 'a'; give the name of a file"),
    ],
)
def test_bad_usage_says_what_to_do(mai: Mai, stored: Path, here: Path, words: list[str], message: str) -> None:
    (here / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (here / "plan.json").write_text('{"schema": "mai.plan/1"}', encoding="utf-8")
    done = mai("trace", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"mai trace: {message}")
