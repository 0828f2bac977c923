"""What the main job measures: facts of one file, the files of a directory, import cycles, risk."""

import ast
import doctest
import importlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review_facts import FileFacts, Function, parse, parse_facts
from review_files import LARGEST_BYTES, Problem, find_files, read_facts
from review_imports import find_cycles, import_graph, package_of, shortest_cycle
from review_measures import Tree, measure_complexity, measure_cycles, measure_gaps, measure_risks, measure_size, risk_of
from review_text import printable


def facts_of(source: str, path: str = "a.py") -> FileFacts:
    return parse_facts(path, source.encode())


def only(source: str) -> Function:
    [function] = facts_of(source).functions
    return function


def tree_of(directory: Path) -> Tree:
    """Read a directory as the pipeline does, without the pipeline."""
    paths, problems = find_files(directory)
    results = [read_facts(directory, path) for path in paths]
    return Tree(
        root=directory,
        package=package_of(directory),
        files=tuple(result for result in results if isinstance(result, FileFacts)),
        problems=(*problems, *(result for result in results if isinstance(result, Problem))),
    )


# How complex and how deep a function is


@pytest.mark.parametrize(
    ("body", "complexity", "depth"),
    [
        ("pass", 1, 0),
        ("if a: pass", 2, 1),
        ("if a: pass\n    else: pass", 2, 1),
        ("if a: pass\n    elif b: pass\n    elif c: pass\n    else: pass", 4, 1),
        ("if a:\n        pass\n    else:\n        if b: pass", 3, 2),
        ("for a in b: pass\n    else: pass", 2, 1),
        ("while a: pass", 2, 1),
        ("try: pass\n    except A: pass\n    except B: pass\n    else: pass\n    finally: pass", 3, 1),
        ("try: pass\n    finally: pass", 1, 1),
        ("try: pass\n    except* A: pass", 2, 1),
        ("with a: pass", 1, 1),
        ("with a if b else c: pass", 2, 1),
        ("assert a", 1, 0),
        ("return a and b and c", 3, 0),
        ("return a and b or c", 3, 0),
        ("return not a", 1, 0),
        ("return a if b else c", 2, 0),
        ("return [a for a in b]", 2, 0),
        ("return [a for a in b if a if c for d in a]", 5, 0),
        ("return {a: b for a in b}", 2, 0),
        ("return (a for a in b)", 2, 0),
        ("return lambda: a or b", 2, 0),
        ("match a:\n        case 1: pass\n        case _: pass", 2, 1),
        ("match a:\n        case 1 | 2: pass\n        case b if b: pass\n        case c: pass", 3, 1),
        ("while a:\n        if b:\n            try: pass\n            except C:\n                if d: pass", 5, 4),
        ("def g():\n        if a: pass", 1, 0),
        ("class C:\n        x = 1 if a else 2", 1, 0),
    ],
)
def test_complexity_counts_decisions_and_depth_counts_levels(body: str, complexity: int, depth: int) -> None:
    functions = {function.name: function for function in facts_of(f"def f():\n    {body}\n").functions}
    assert (functions["f"].complexity, functions["f"].depth) == (complexity, depth)


def test_a_nested_function_counts_on_its_own_and_its_default_where_it_stands() -> None:
    source = "def f():\n    @d(1 if a else 2)\n    async def g(x=b or c) -> (A if D else E):\n        if x: pass\n"
    outer, inner = facts_of(source).functions
    assert (outer.name, outer.complexity) == ("f", 4)
    assert (inner.name, inner.complexity, inner.line, inner.first) == ("f.g", 2, 3, 2)


@given(st.integers(0, 60), st.booleans())
def test_a_function_with_n_ifs_has_complexity_n_plus_1(n: int, nested: bool) -> None:
    lines = [f"{'    ' * (1 + (depth if nested else 0))}if a:" for depth in range(n)]
    body = [line if nested else f"{line} pass" for line in lines]
    end = "    " * (n + 1 if nested else 1) + "pass"
    function = only("\n".join(["def f():", *body, end]))
    assert function.complexity == n + 1
    assert function.depth == (n if nested else min(n, 1))


Block = tuple[list[str], int, int]
"""Lines of source, how many decisions they hold, how deep they are."""


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def one_after_the_other(blocks: list[Block]) -> Block:
    lines = [line for block in blocks for line in block[0]] or ["pass"]
    return lines, sum(block[1] for block in blocks), max([block[2] for block in blocks], default=0)


def under(head: str, decisions: int, tail: tuple[str, int] = ("", 0)) -> "st.SearchStrategy[tuple[str, int, str, int]]":
    return st.just((head, decisions, *tail))


HEADS = st.one_of(
    under("if a:", 1),
    under("for a in b and c:", 2),
    under("while a or b or c:", 3),
    under("with a:", 0),
    under("try:", 0, ("except A:", 1)),
    under("try:", 0, ("finally:", 0)),
    under("if [x for x in y if x]:", 3, ("else:", 0)),
)
SIMPLE: st.SearchStrategy[Block] = st.sampled_from(
    [(["x = 1"], 0, 0), (["return a if b else c"], 1, 0), (["f(a)"], 0, 0)]
)


def nested(inner: "st.SearchStrategy[Block]") -> "st.SearchStrategy[Block]":
    def build(head: tuple[str, int, str, int], first: list[Block], second: list[Block]) -> Block:
        start, decisions, tail, more = head
        body, rest = one_after_the_other(first), one_after_the_other(second)
        lines = [start, *indented(body[0])]
        if not tail:
            return lines, decisions + body[1], 1 + body[2]
        return [*lines, tail, *indented(rest[0])], decisions + more + body[1] + rest[1], 1 + max(body[2], rest[2])

    return st.builds(build, HEADS, st.lists(inner, max_size=3), st.lists(inner, max_size=2))


@given(st.lists(st.recursive(SIMPLE, nested, max_leaves=8), max_size=4))
def test_complexity_and_depth_of_any_body_are_those_it_was_built_with(blocks: list[Block]) -> None:
    lines, decisions, depth = one_after_the_other(blocks)
    function = only("\n".join(["def f():", *indented(lines)]))
    assert (function.complexity, function.depth) == (decisions + 1, depth)
    assert function.lines == len(lines) + 1


def test_a_deep_source_is_no_problem_for_the_walk() -> None:
    chain = "x = " + "a." * 5_000 + "b\n"  # too deep for a recursive visitor
    elifs = "def f(x):\n    if x == 0: pass\n" + "".join(f"    elif x == {n}: pass\n" for n in range(1, 300))
    try:
        parse(chain)
    except (RecursionError, MemoryError):  # this Python's parser gives up first
        chain = ""
    assert facts_of(chain + elifs).functions[0].complexity == 301


# What is said of the lines, the names and the calls


def test_public_names_without_docstring_are_found_with_their_lines() -> None:
    facts = facts_of(
        "from typing import overload\n"
        "class A:\n"
        "    '''Text.'''\n"
        "    def b(self): pass\n"
        "    def _c(self): pass\n"
        "    def __repr__(self): pass\n"
        "    @property\n"
        "    def d(self): '''Text.'''\n"
        "    @d.setter\n"
        "    def d(self, value): pass\n"
        "class _E:\n"
        "    def f(self): pass\n"
        "@overload\n"
        "def g(x: int) -> int: ...\n"
        "def h():\n"
        "    def inner(): pass\n"
    )
    assert [(place.line, place.name) for place in facts.undocumented] == [(1, "(module)"), (4, "A.b"), (15, "h")]
    assert facts.documentable == 7
    assert facts.classes == 2


@pytest.mark.parametrize(
    ("path", "source", "documentable"),
    [("a.py", "", 0), ("a.py", "x = 1", 1), ("_a.py", "x = 1", 0), ("_a/b.py", "x = 1", 0), ("a/__init__.py", "x", 1)],
)
def test_a_private_or_empty_module_needs_no_docstring(path: str, source: str, documentable: int) -> None:
    assert facts_of(source, path).documentable == documentable


@pytest.mark.parametrize(
    ("source", "annotated", "places"),
    [
        ("def f(): pass", 0, 1),
        ("def f() -> int: pass", 1, 1),
        ("def f(a, /, b: int, *c, d, **e: int) -> int: pass", 3, 6),
        ("class A:\n    def f(self, a): pass", 0, 2),
        ("class A:\n    def __init__(self, a: int): pass", 1, 1),
        ("class A:\n    def __init__(self): pass", 0, 0),
        ("class A:\n    @classmethod\n    def f(cls) -> int: pass", 1, 1),
        ("class A:\n    @staticmethod\n    def f(a: int) -> int: pass", 2, 2),
        ("class A:\n    def f(*args): pass", 0, 2),
    ],
)
def test_what_can_be_annotated_is_counted_without_self(source: str, annotated: int, places: int) -> None:
    function = only(source)
    assert (function.annotated, function.places) == (annotated, places)


def test_code_lines_are_neither_blank_nor_comment_nor_docstring() -> None:
    facts = facts_of('"""A\n\nb."""\n\n# comment\nx = 1  # code\r\n\ndef f():\n    "doc"\n    return "not doc"\n')
    assert (facts.lines, facts.code_lines) == (10, 3)


def test_calls_are_kept_by_the_last_part_of_the_name() -> None:
    facts = facts_of("f(g(1))\na.b.f(2)\n(lambda: 1)()\n@g\ndef h(x=g()):\n    (a\n     .f())\n")
    assert facts.calls == {"f": (1, 2, 7), "g": (1, 5)}


# Which files there are, and which cannot be read


def test_the_files_are_found_and_what_is_no_source_of_the_tree_is_left_out(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", ".git/x.py", "__pycache__/x.py", "env/x.py", "lib/site-packages/x.py", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a_link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    assert find_files(tmp_path) == (["a.py", os.path.join("b", "c.py")], [])


def test_a_link_to_a_file_elsewhere_counts_and_one_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("x = 1\n")
    directory = tmp_path / "tree"
    directory.mkdir()
    (directory / "a.py").symlink_to(tmp_path / "elsewhere.txt")
    (directory / "b.py").symlink_to("nowhere.py")
    (directory / "c.py").symlink_to("c.py")
    tree = tree_of(directory)
    assert [facts.path for facts in tree.files] == ["a.py"]
    assert [(found.path, found.reason.partition(":")[0]) for found in tree.problems] == [
        ("b.py", "FileNotFoundError"),
        ("c.py", "OSError"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"x = 1\nif x:\n", 2, "IndentationError: "),
        (b"print 'a'\n", 1, "SyntaxError: Missing parentheses"),
        (b"# coding: nothing-like-it\n", 0, "SyntaxError: unknown encoding"),
        (b"x = '\xff'\n", 1, "SyntaxError: (unicode error) 'utf-8'"),
        (b"x = 1\0\n", None, "Error: source code string cannot contain null bytes"),
        (b"x = " + b"(" * 10_000, None, "Error: "),
        (b"x = " + b"-" * 200_000 + b"1\n", None, "Error"),
    ],
    ids=["syntax", "python 2", "unknown encoding", "wrong encoding", "null bytes", "brackets", "deep"],
)
def test_a_file_that_cannot_be_parsed_is_a_problem(
    tmp_path: Path, content: bytes, line: int | None, reason: str
) -> None:
    (tmp_path / "a.py").write_bytes(content)
    found = read_facts(tmp_path, "a.py")
    assert isinstance(found, Problem)
    assert reason in found.reason
    assert line is None or found.line == line
    assert str(tmp_path) not in found.reason


def test_a_file_that_is_too_large_is_a_problem_and_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.py").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    assert read_facts(tmp_path, "a.py") == Problem(
        "a.py", 0, "it has 10000001 bytes, more than the 10000000 that are parsed"
    )


def test_a_name_that_cannot_be_printed_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2J.py").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.py")).touch()
    files, problems = find_files(tmp_path)
    assert files == []
    assert [problem.path for problem in problems] == ["a\\x1b[2J.py", "b\\udcff.py"]


@given(st.text())
def test_printable_text_is_printable_and_stays_as_it_is_if_it_was(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode()
    assert (printable(text) == text) == text.isprintable()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_facts_or_a_problem(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.getbasetemp()
    (directory / "a.py").write_bytes(content)
    assert isinstance(read_facts(directory, "a.py"), FileFacts | Problem)


def test_the_parser_warns_of_nothing_that_others_wrote() -> None:
    parse("x = '\\d' is 1\n")  # pytest makes an error of every warning


# Which file imports which, and where that goes round


def graph_of(sources: Mapping[str, str], package: tuple[str, ...] = ()) -> dict[str, list[str]]:
    graph = import_graph([facts_of(source, path) for path, source in sources.items()], package)
    return {path: sorted(targets) for path, targets in graph.items() if targets}


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("import p.b", ["p/b.py"]),
        ("import p.b.nothing", ["p/b.py"]),
        ("import p.nothing", ["p/__init__.py"]),
        ("import p, top", ["p/__init__.py", "top.py"]),
        ("from p import b", ["p/b.py"]),
        ("from p import b, other", ["p/__init__.py", "p/b.py"]),
        ("from p.b import *", ["p/b.py"]),
        ("from . import b", ["p/b.py"]),
        ("from . import other", ["p/__init__.py"]),
        ("from .b import x", ["p/b.py"]),
        ("from .q import c", ["p/q/c.py"]),
        ("from ..top import x", ["top.py"]),
        ("from ...top import x", []),
        ("import os, b", []),
        ("try:\n    import top\nexcept ImportError: pass", ["top.py"]),
        ("class A:\n    import top", ["top.py"]),
        ("def f():\n    import top", []),
        ("if 0:\n    import top", []),
        ("if __name__ == '__main__':\n    import top", []),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import top\nelse:\n    import p.b", ["p/b.py"]),
        ("import p.a", []),
    ],
)
def test_an_import_leads_to_the_file_that_it_means(source: str, targets: list[str]) -> None:
    others = dict.fromkeys(["p/__init__.py", "p/b.py", "p/q/__init__.py", "p/q/c.py", "top.py"], "")
    assert graph_of({"p/a.py": source, **others}).get("p/a.py", []) == targets


def test_imports_work_in_a_package_that_is_the_tree_itself_and_beside_src() -> None:
    assert graph_of({"a.py": "import json\nfrom q.p import b", "b.py": "", "json.py": ""}, ("q", "p")) == {
        "a.py": ["b.py"]
    }
    assert graph_of({"src/p/__init__.py": "", "src/p/a.py": "import p", "tests/t.py": "import p.a"}) == {
        "src/p/a.py": ["src/p/__init__.py"],
        "tests/t.py": ["src/p/a.py"],
    }


def test_of_several_files_with_one_name_the_nearest_is_meant_or_none() -> None:
    sources = {"x/util.py": "", "x/a.py": "import util", "y/util.py": "", "z/b.py": "import util"}
    assert graph_of(sources) == {"x/a.py": ["x/util.py"]}
    twice = {"v1/p/__init__.py": "", "v2/p/__init__.py": "", "v2/q/a.py": "import p", "b.py": "import p"}
    assert graph_of(twice) == {"v2/q/a.py": ["v2/p/__init__.py"]}


def test_the_name_of_a_directory_is_that_of_its_package(tmp_path: Path) -> None:
    (tmp_path / "p" / "q").mkdir(parents=True)
    (tmp_path / "p" / "__init__.py").touch()
    (tmp_path / "p" / "q" / "__init__.py").touch()
    assert package_of(tmp_path / "p" / "q") == ("p", "q")
    assert package_of(tmp_path) == ()


GRAPHS = st.dictionaries(st.sampled_from("abcdefgh"), st.sets(st.sampled_from("abcdefgh")), max_size=8)


def reachable(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Every pair of nodes with a way from the one to the other, by trying until nothing is added."""
    pairs = {(one, other) for one, others in graph.items() for other in others}
    while True:
        more = {(a, d) for (a, b), (c, d) in itertools.product(pairs, pairs) if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


@given(GRAPHS)
def test_cycles_are_the_groups_of_nodes_that_reach_each_other(graph: dict[str, set[str]]) -> None:
    pairs = reachable(graph)
    groups = {tuple(sorted(b for b in "abcdefgh" if {(a, b), (b, a)} <= pairs)) for a in "abcdefgh" if (a, a) in pairs}
    assert find_cycles(graph) == sorted(map(list, groups))


@given(GRAPHS)
def test_the_way_round_a_cycle_exists_and_none_is_shorter(graph: dict[str, set[str]]) -> None:
    for group in find_cycles(graph):
        way = shortest_cycle(graph, group)
        assert way[0] == way[-1]
        assert all(there in graph[here] for here, there in itertools.pairwise(way))
        starts = [(node,) for node in group]
        while not (closed := [walk for walk in starts if walk[0] in graph.get(walk[-1], ())]):
            starts = [(*walk, after) for walk in starts for after in graph.get(walk[-1], ())]
        assert len(way) - 1 == len(closed[0])


def test_a_long_chain_of_imports_is_searched_without_recursion() -> None:
    chain = {str(number): [str(number + 1)] for number in range(5_000)} | {"5000": ["0"]}
    assert [len(group) for group in find_cycles(chain)] == [5_001]


# What the small tree gives


def test_the_small_tree_has_the_known_measures() -> None:
    tree = tree_of(Path(__file__).parent / "tree")
    size = measure_size(tree)
    assert (size.files, size.functions, size.classes) == (6, 15, 1)
    assert (size.lines, size.code_lines) == (123, 74)
    complexity = measure_complexity(tree)
    assert (complexity.mean, complexity.median, complexity.highest) == (2.53, 2.0, 14)
    assert [str(band) for band in complexity.bands] == ["1-5", "6-10", "11-20", "21-50", "51+"]
    assert [band.functions for band in complexity.bands] == [14, 0, 1, 0, 0]
    gaps = measure_gaps(tree)
    assert (gaps.undocumented, gaps.documentable) == (4, 17)
    assert (gaps.unannotated, gaps.functions) == (7, 15)
    assert [str(cycle) for cycle in measure_cycles(tree)] == ["shop/cart.py:3 -> shop/pricing.py:7 -> shop/cart.py"]


def test_the_riskiest_functions_of_the_small_tree_are_known() -> None:
    risks = measure_risks(tree_of(Path(__file__).parent / "tree"), 3)
    assert [(risk.function.path, risk.function.line, risk.function.name) for risk in risks] == [
        ("shop/orders.py", 8, "settle"),
        ("shop/orders.py", 34, "kind"),
        ("_draft.py", 4, "sketch"),
    ]
    settle = risks[0].function
    assert (settle.complexity, settle.depth, settle.lines) == (14, 5, 16)
    assert risks[0].risk == round(14 * 1.16 * 1.5 * 1.5, 1)


def test_each_part_of_the_risk_raises_it() -> None:
    base = Function("a.py", "f", 1, 1, 10, 5, 1, 2, 2, True, True)
    changes = {"complexity": 6, "last": 20, "depth": 2, "annotated": 1, "documented": False}
    for name, value in changes.items():
        changed = Function(**{slot: getattr(base, slot) for slot in Function.__slots__} | {name: value})
        assert risk_of(changed) > risk_of(base), name


def test_an_empty_tree_measures_nothing() -> None:
    tree = Tree(Path(), (), (), ())
    assert measure_size(tree).lines == measure_complexity(tree).highest == measure_gaps(tree).functions == 0
    assert measure_cycles(tree) == []
    assert measure_risks(tree, 5) == []


def test_the_facts_agree_with_the_standard_librarys_own_walk() -> None:
    for path in sorted(Path(ast.__file__).parent.glob("a*.py")):
        tree = parse(path.read_bytes())
        found = parse_facts(path.name, path.read_bytes())
        defined = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert [function.line for function in found.functions] == sorted(defined)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = [node for node in calls if isinstance(node.func, ast.Name | ast.Attribute)]
        assert sum(map(len, found.calls.values())) == len(named)


@pytest.mark.parametrize("name", ["review_facts", "review_imports", "review_model", "review_text"])
def test_the_examples_in_docstrings_show_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
