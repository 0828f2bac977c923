"""The main job from end to end: the pipeline on the small tree, its rules, its report, and what it refuses."""

import asyncio
import email
import functools
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import review
from mai import CastError, ConfigError, DeadlineExceeded, capture
from mai.models import Message, ToolReturn
from review_agent import FindCallers, ReadSource
from review_facts import FileFacts, Function
from review_files import read_facts
from review_measures import Risk, Tree
from review_messages import Callers, Source
from review_report import WIDTH, Report
from review_rules import judge, read_signs, rule_model

HERE = Path(__file__).parent
RULES = "reviewed by rules, no model was asked"


def tree_of(directory: Path, *paths: str) -> Tree:
    results = [read_facts(directory, path) for path in paths]
    return Tree(directory, (), tuple(found for found in results if isinstance(found, FileFacts)), ())


# The pipeline


async def test_the_small_tree_gives_the_known_report() -> None:
    report = await review.review(HERE / "tree")
    assert report.reviewer == RULES
    assert [(found.function.path, found.function.line, found.verdict.severity) for found in report.riskiest] == [
        ("shop/orders.py", 8, "high"),
        ("shop/orders.py", 34, "low"),
        ("_draft.py", 4, "low"),
        ("shop/orders.py", 50, "low"),
        ("shop/pricing.py", 13, "low"),
    ]
    assert {found.by for found in report.riskiest} == {"rules"}
    assert report.riskiest[0].verdict.reason == (
        "14 ways through 16 lines; 5 levels of nesting at line 18; every exception is dropped at line 21; "
        "all calls share one default of seen; nothing here calls it by name"
    )
    assert report.riskiest[0].verdict.advice == (
        "make lines 9-22 ('for', 10 of 13 decisions) a function; name the exceptions that are expected at line 21; "
        "let seen default to None; write down what it promises; annotate 6 of 6 parameters and results"
    )
    assert [str(cycle) for cycle in report.cycles] == ["shop/cart.py:3 -> shop/pricing.py:7 -> shop/cart.py"]
    assert (report.size.files, report.problems, report.details) == (6, (), None)


def test_two_reviews_of_the_same_tree_are_equal_and_json_keeps_all() -> None:
    first, second = (review.review.run(HERE / "tree", full=True) for _ in range(2))
    assert first == second
    assert Report.model_validate_json(first.model_dump_json()) == first


async def test_a_file_that_cannot_be_parsed_or_read_is_in_the_report_and_ends_nothing(tree: Path) -> None:
    (tree / "broken.py").write_text("def f(:\n")
    (tree / "shop" / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tree / "gone.py").symlink_to("nowhere.py")
    report = await review.review(tree)
    assert [(problem.path, problem.line) for problem in report.problems] == [
        ("broken.py", 1),
        ("gone.py", 0),
        ("shop/latin.py", 1),
    ]
    assert report.size.files == 6
    assert "broken.py:1  SyntaxError: invalid syntax" in str(report)


async def test_a_tree_where_nothing_can_be_parsed_has_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("(")
    report = await review.review(tmp_path, full=True)
    assert (report.riskiest, report.size.files, len(report.problems)) == ((), 0, 1)
    assert "broken.py:1" in str(report)


async def test_the_caller_chooses_how_many_and_how_much(tree: Path) -> None:
    with capture() as short:
        assert len((await review.review(tree, top=2)).riskiest) == 2
    with capture() as full:
        details = (await review.review(tree, full=True, top=100)).details
    assert details is not None
    assert [row.path for row in details.files] == sorted(row.path for row in details.files)
    assert [function.name for function in details.complex_functions] == ["settle"]
    assert [place.name for place in details.undocumented] == ["Cart.add", "(module)", "settle", "refund"]
    assert short.runs[0].find(name="short_report")
    assert not short.runs[0].find(name="full_report")
    assert full.runs[0].find(name="full_report")


async def test_the_trace_shows_every_step(tree: Path) -> None:
    with capture() as tr:
        await review.review(tree, top=1)
    [run] = tr.runs
    assert run.outcome == "ok"
    names = [handle.name for handle in run.walk()]
    assert names.count("ParseFile") == 6
    for name in ("FindFiles", "measure_size", "measure_complexity", "measure_cycles", "measure_gaps", "measure_risks"):
        assert names.count(name) == 1
    assert names.count("RuleModel") == 3
    assert names.count("ReadSource") == names.count("FindCallers") == names.count("Conditional") == 1


@pytest.mark.parametrize("package", [asyncio, email], ids=["asyncio", "email"])
def test_the_standard_librarys_packages_are_reviewed_and_every_place_exists(package: object) -> None:
    directory = Path(os.path.dirname(getattr(package, "__file__", "")))
    report = review.review.run(directory)
    assert report.problems == ()
    assert len(report.riskiest) == 5
    for found in report.riskiest:
        line = (directory / found.function.path).read_text(encoding="utf-8").splitlines()[found.function.line - 1]
        assert re.search(rf"def {found.function.name.rpartition('.')[2]}\(", line)
        assert f"{found.function.path}:{found.function.line}  {found.function.name}" in str(report)


# What it refuses


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "there is no such directory"),
        ("file.py", NotADirectoryError, "it is not a directory"),
        ("empty", ValueError, "there is no Python file in it"),
    ],
)
async def test_a_directory_without_source_is_refused(
    tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "file.py").touch()
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    (tmp_path / "empty" / ".hidden" / "a.py").touch()
    with pytest.raises(error, match=f"^Cannot review .*{message}") as raised:
        await review.review(tmp_path / name)
    assert raised.value.__notes__[0].startswith("mai: in Review/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "localhost:8000",
        "http://",
        "http://ann:secret@host/v1",
        "http://host/v1?key=secret",
        "http://hö/",
    ],
)
async def test_a_wrong_address_of_a_model_is_refused_before_any_work(tree: Path, url: str) -> None:
    with capture() as tr, pytest.raises(ValueError, match="Cannot ask a model at") as raised:
        await review.review(tree, model=url)
    assert "secret" not in str(raised.value)
    assert not tr.runs[0].children


async def test_top_must_be_a_number_from_1(tree: Path) -> None:
    with pytest.raises(ValueError, match="top must be 1 or more"):
        await review.review(tree, top=0)
    with pytest.raises(CastError):
        await review.review(tree, top="many")  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["pause", "patience"])
async def test_a_wait_that_is_no_time_is_refused_before_any_work(tree: Path, option: str) -> None:
    with capture() as tr, pytest.raises(ConfigError):
        await review.review(tree, model="http://127.0.0.1:9", **{option: -1.0})  # type: ignore[arg-type]
    assert not tr.runs[0].children


async def test_one_module_reviews_many_trees_at_once(tree: Path) -> None:
    both = await asyncio.gather(review.review(tree, top=1), review.review(HERE / "tree", full=True))
    assert [len(report.riskiest) for report in both] == [1, 5]
    assert [report.details is None for report in both] == [True, False]


# The tools


async def test_the_source_is_read_with_its_decorators_in_the_files_own_encoding(tmp_path: Path) -> None:
    source = "# coding: latin-1\nclass A:\n    @property\n    def é(self):\n        return '\f'\n"
    (tmp_path / "a.py").write_bytes(source.replace("\n", "\r\n").encode("latin-1"))
    found = await ReadSource(tree_of(tmp_path, "a.py"))("a.py", 4)
    assert (found.first, found.complete) == (3, True)
    assert found.text == "    @property\n    def é(self):\n        return '\f'\n"


@pytest.mark.parametrize(("path", "line"), [("secret.txt", 1), ("../a.py", 1), ("a.py", 2), ("/etc/passwd", 1)])
async def test_only_functions_of_the_tree_are_read(tmp_path: Path, path: str, line: int) -> None:
    (tmp_path / "a.py").write_text("def f(): pass\n")
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(LookupError):
        await ReadSource(tree_of(tmp_path, "a.py"))(path, line)


async def test_callers_are_found_with_the_functions_that_they_are_in(tree: Path) -> None:
    (tree / "calls.py").write_text("class A:\n    def m(self):\n        def n(): Cart([]).total()\nCart()\n")
    find = FindCallers(tree_of(tree, "calls.py", "_draft.py", "shop/cart.py"))
    total = await find("Cart.total")
    assert [(place.path, place.line, place.function) for place in total.places] == [
        ("calls.py", 3, "A.m.n"),
        ("_draft.py", 5, "sketch"),
    ]
    made = await find("Cart.__init__")
    assert (made.name, made.total, made.files) == ("Cart", 3, 2)
    assert made.places[1].function == ""


# The rules


def function(**changes: object) -> Function:
    facts = {"path": "a.py", "name": "f", "line": 1, "first": 1, "last": 9, "complexity": 1, "depth": 0, "places": 0}
    return Function(**{**facts, "annotated": 0, "public": True, "documented": True, **changes})  # type: ignore[arg-type]


def callers(total: int) -> Callers:
    return Callers(name="f", total=total, files=min(total, 2), places=())


@pytest.mark.parametrize(
    ("changes", "source", "calls", "severity", "reason", "advice"),
    [
        ({}, "def f(): pass", 0, "low", "nothing here calls it by name", "leave it as it is"),
        ({}, "def f(): pass", 9, "low", "called as 'f' at 9 places in 2 files", "leave it as it is"),
        ({"complexity": 21}, "def f(): pass", 0, "medium", "21 ways through 9 lines", "leave it as it is"),
        ({"documented": False}, "def f(): pass", 3, "low", "", "write down what 3 calls rely on"),
        ({"places": 9, "annotated": 8}, "def f(): pass", 0, "low", "8 parameters", "annotate 1 of 9"),
        ({}, "def f(a, b={}, *, c=[]): pass", 0, "low", "all calls share one default of b, c", "let b, c default"),
        ({}, "def f():\n  try: x\n  except: pass", 0, "low", "dropped at line 3", "name the exceptions"),
        ({}, "def f():\n  try: x\n  except Exception: ...", 0, "low", "dropped at line 3", "name the exceptions"),
        ({}, "def f():\n  try: x\n  except OSError: pass", 0, "low", "", "leave it as it is"),
        (
            {"complexity": 21, "depth": 5, "documented": False},
            "def f(): pass",
            6,
            "high",
            "21 ways",
            "6 calls rely on",
        ),
    ],
)
def test_the_rules_weigh_the_facts_and_what_the_tools_say(
    changes: dict[str, object], source: str, calls: int, severity: str, reason: str, advice: str
) -> None:
    verdict = judge(function(**changes), Source(path="a.py", first=1, text=source), callers(calls))
    assert verdict.severity == severity
    assert reason in verdict.reason
    assert advice in verdict.advice


def test_what_a_tool_could_not_say_is_missing_from_the_verdict_and_nothing_else() -> None:
    verdict = judge(function(complexity=30), None, None)
    assert verdict.reason == "30 ways through 9 lines; its source could not be read as a whole"
    part = Source(path="a.py", first=1, text="def f(", complete=False)
    assert judge(function(complexity=30), part, callers(0)).severity == "medium"


def test_lines_in_a_verdict_are_lines_of_the_file() -> None:
    text = "    @d\n    def f(self):\n        '''a\nb'''\n        try: x\n        except: pass\n"
    signs = read_signs(Source(path="a.py", first=101, text=text))
    assert signs is not None
    assert signs.swallowing == (106,)


def test_the_part_to_lift_out_is_no_elif_and_nothing_nested_in_another_function() -> None:
    text = (
        "def f():\n"
        "    def g():\n"
        "        if a and b and c: pass\n"
        "    if a: pass\n"
        "    elif b and c and d: pass\n"
        "    for e in f:\n"
        "        if g or h: pass\n"
    )
    signs = read_signs(Source(path="a.py", first=1, text=text))
    assert signs is not None
    assert signs.heaviest is not None
    assert (signs.heaviest.kind, signs.heaviest.first, signs.heaviest.decisions) == ("if", 4, 4)


async def test_the_rules_use_both_tools_before_they_decide() -> None:
    risk = Risk(function=function(), risk=1.0)
    messages = [Message.system("Be brief."), Message.user(risk.model_dump_json())]
    used: list[str] = []
    answers = {"read_source": Source(path="a.py", first=1, text="def f(): pass"), "find_callers": callers(2)}
    model = rule_model()
    reply = await model(messages)
    while reply.tool_calls:
        [wish] = reply.tool_calls
        used.append(wish.name)
        answer = ToolReturn(id=wish.id, name=wish.name, content=answers[wish.name].model_dump_json())
        messages = [*messages, reply.message, Message.tool(answer)]
        reply = await model(messages)
    assert used == ["read_source", "find_callers"]
    assert "called as 'f' at 2 places" in json.loads(reply.text)["reason"]


# The page


def test_the_page_fits_100_columns_and_names_file_and_line(tree: Path) -> None:
    deep = tree / "a_rather_long_directory_name" / "in_another_one_of_some_length"
    deep.mkdir(parents=True)
    for number in range(15):
        (deep / f"broken_{number}.py").write_text("(")
    for page in (str(review.review.run(tree)), str(review.review.run(tree, full=True))):
        assert "shop/orders.py:8  settle" in page
        assert max(len(line) for line in page.splitlines()[1:]) <= WIDTH
    assert "and 5 more: ask for the full report" in str(review.review.run(tree))


@functools.cache
def small_report() -> Report:
    return review.review.run(HERE / "tree", top=1)


@given(st.text(max_size=40))
def test_whatever_a_model_says_stays_on_its_lines_and_harms_no_terminal(text: str) -> None:
    report = small_report()
    [found] = report.riskiest
    said = found.model_copy(update={"verdict": found.verdict.model_copy(update={"reason": text})})
    page = str(report.model_copy(update={"riskiest": (said,)}))
    assert all(line.isprintable() for line in page.split("\n"))
    page.encode()


async def test_a_deadline_over_the_whole_review_is_kept(tree: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        await review.review.with_(timeout=1e-9)(tree)
