"""Finding the target: files, packages, names, and what is said where there is none."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mai.cli.target import import_paths, load
from mai.cli.usage import BadUsage
from mai.layers import Module
from tests.cli.support import Done

Mai = Callable[..., Done]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


STEP = """\
from mai import module

@module
async def step(text: str) -> str:
    return text + " " + __name__
"""


def test_a_file_is_imported_under_its_own_name(mai: Mai, here: Path) -> None:
    write(here, "plan_one.py", STEP)
    assert mai("run", "plan_one.py:step", "is").out == "is plan_one\n"
    assert "plan_one" in sys.modules


def test_a_file_whose_name_is_taken_gets_another(mai: Mai, here: Path) -> None:
    write(here, "json.py", STEP)
    write(here, "two words.py", STEP)
    assert mai("run", "json.py:step", "is").out == "is mai_target_json\n"
    assert mai("run", "json.py:step", "is").out == "is mai_target_json_\n"
    assert mai("run", "two words.py:step", "is").out == "is mai_target_two_words\n"


def test_a_file_elsewhere_can_import_its_neighbours(mai: Mai, here: Path) -> None:
    write(here, "sub/near_it.py", "mark = '+'\n")
    write(here, "sub/uses_near.py", STEP + "    \nimport near_it\nplus = step.with_(name=f'step{near_it.mark}')\n")
    assert mai("run", "sub/uses_near.py:plus", "is").out == "is uses_near\n"
    absolute = str(write(here, "sub/uses_near_too.py", (here / "sub" / "uses_near.py").read_text(encoding="utf-8")))
    assert mai("run", f"{absolute}:plus", "is").out == "is uses_near_too\n"


def test_a_file_in_a_package_can_import_relatively(mai: Mai, here: Path) -> None:
    write(here, "src/pack_a/__init__.py", "")
    write(here, "src/pack_a/words.py", "mark = '+'\n")
    write(here, "src/pack_a/flow.py", "from .words import mark\n" + STEP)
    assert mai("run", "src/pack_a/flow.py:step", "is").out == "is pack_a.flow\n"


def test_a_module_is_found_from_the_working_directory(mai: Mai, here: Path) -> None:
    write(here, "pack_b/__init__.py", "")
    write(here, "pack_b/flow.py", STEP + "\n\nclass group:\n    inner = step\n")
    assert mai("run", "pack_b.flow:step", "is").out == "is pack_b.flow\n"
    assert mai("run", "pack_b.flow:group.inner", "is").out == "is pack_b.flow\n"


def test_only_the_first_names_are_listed(mai: Mai, here: Path) -> None:
    write(here, "wide.py", STEP + "".join(f"step{n} = step\n" for n in range(20)))
    done = mai("run", "wide.py:zzz")
    assert "(Modules there: step, step0, step1, " in done.err
    assert "step10, … and 9 more)" in done.err


def test_a_class_of_modules_is_constructed(mai: Mai) -> None:
    assert "x False []" in mai("run", "flow.py:Search", "x").out
    done = mai("run", "flow.py:Scale", "2")
    assert done.code == 2
    assert "Scale() fails (TypeError: " in done.err
    assert "make one in the file and name that: step = Scale(...)" in done.err


MODULES = "(Modules there: Search, Scale, search, one, triple, shout, "


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flow.py:searches", "flow.py has no 'searches'; did you mean 'search'? " + MODULES),
        ("flow.py:zzz", "flow.py has no 'zzz' " + MODULES),
        ("flow.py:search.zzz", "flow.py has no 'search.zzz'"),
        ("flow.py", "'flow.py' does not say which Module to run: write flow.py:NAME " + MODULES),
        ("flow:", "'flow:' does not say which Module to run: write flow:NAME"),
        ("flow", "'flow' does not say which Module to run"),
        ("flow.py:plain", "flow.py:plain is a function, not a Module; put @mai.module above it " + MODULES),
        ("flow.py:number", "flow.py:number is 42, of type int, not a Module " + MODULES),
        ("flow.py:Report", "flow.py:Report is a class that does not derive from mai.Module " + MODULES),
        ("flow.py:sys", "flow.py:sys is a Python module, not a mai.Module"),
        ("json:dumps", "json:dumps is a function, not a Module; put @mai.module above it (there are no Modules in it)"),
        ("flaw.py:search", "No such file: flaw.py; did you mean flow.py?"),
        ("nowhere/x.py:search", "No such file: nowhere/x.py"),
        ("folder/:search", "folder is a directory; TARGET is file.py:name or package.module:name"),
        ("folder/data.txt:search", "folder/data.txt is not a Python file"),
        ("folder.flow:search", "No module named 'folder.flow'; looked in "),
        ("zzz.flow:search", "No module named 'zzz'; looked in "),
        ("not-a-name:search", "'not-a-name' is neither a file nor the name of a module"),
        (":search", "':search' names no file or module; TARGET is file.py:name or package.module:name"),
    ],
)
def test_a_target_that_is_none_is_explained(mai: Mai, here: Path, target: str, said: str) -> None:
    write(here, "folder/data.txt", "")
    code, out, err = mai("run", target, "x")
    assert (code, out) == (2, "")
    assert err.startswith(f"mai run: {said}")


BROKEN = """\
from mai import module

def inner():
    import not_there_at_all

inner()
"""


def test_an_error_in_the_file_is_shown_with_its_line(mai: Mai, here: Path) -> None:
    write(here, "broken.py", BROKEN)
    code, out, err = mai("run", "broken.py:step", "x")
    assert (code, out) == (2, "")
    marks = set(" ~^")  # newer Pythons mark the place in a line of its own
    assert [line for line in err.splitlines() if not set(line) <= marks] == [
        "mai run: Cannot import broken.py:",
        f'  File "{here}/broken.py", line 6, in <module>',
        "    inner()",
        f'  File "{here}/broken.py", line 4, in inner',
        "    import not_there_at_all",
        "ModuleNotFoundError: No module named 'not_there_at_all'",
    ]
    assert "broken" not in sys.modules


def test_an_error_in_an_imported_module_is_that_modules(mai: Mai, here: Path) -> None:
    write(here, "pack_c/__init__.py", "")
    write(here, "pack_c/broken.py", BROKEN)
    done = mai("run", "pack_c.broken:step", "x")
    assert done.code == 2
    assert done.err.startswith("mai run: Cannot import pack_c.broken:\n")
    assert "line 4, in inner" in done.err


def test_a_long_traceback_of_an_import_is_cut_in_its_middle(mai: Mai, here: Path) -> None:
    write(here, "looped.py", "def f(n):\n    return f(n - 1) if n else 1 / 0\n\nf(50)\n")
    done = mai("run", "looped.py:step", "x")
    assert done.err.splitlines()[1:3] == [f'  File "{here}/looped.py", line 4, in <module>', "    f(50)"]
    assert "  … 50 more frames" in done.err
    assert done.err.endswith("ZeroDivisionError: division by zero\n")
    assert mai("run", "--traceback", "looped.py:step", "x").err.count("in f\n") > 3


def test_a_syntax_error_is_shown_with_its_place(mai: Mai, here: Path) -> None:
    write(here, "wrong.py", "x = = 1\n")
    done = mai("run", "wrong.py:step", "x")
    assert done.code == 2
    assert 'wrong.py", line 1' in done.err
    assert "    x = = 1\n        ^\nSyntaxError: invalid syntax\n" in done.err


def test_a_script_that_exits_is_told_how_not_to(mai: Mai, here: Path) -> None:
    write(here, "script.py", "import sys\nsys.exit(0)\n")
    done = mai("run", "script.py:step", "x")
    assert done.code == 2
    assert (
        "script.py calls sys.exit(0) when it is imported; put what it does as a script under: if __name__" in done.err
    )


def test_types_of_the_file_are_found_by_name(mai: Mai, here: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n" + STEP
    text += "@dataclasses.dataclass\nclass Late:\n    n: int\n    next: Late | None = None\n"
    text += "@module\nasync def late(x: Late) -> int:\n    return x.next.n if x.next else x.n\n"
    write(here, "late_types.py", text)
    assert mai("run", "late_types.py:late", '{"n": 1, "next": {"n": 2}}').out == "2\n"


def test_the_file_is_loaded_only_while_its_directory_is_on_the_path(here: Path) -> None:
    write(here, "sub/neighbour.py", "value = 1\n")
    write(here, "sub/needs_it.py", "import neighbour\n" + STEP)
    with pytest.raises(BadUsage, match="No module named 'neighbour'"):
        load("sub/needs_it.py:step")
    with import_paths("sub/needs_it.py:step"):
        assert sys.path[:2] == [str(here / "sub"), str(here)]
        assert isinstance(load("sub/needs_it.py:step"), Module)
    assert str(here) not in sys.path
    with import_paths("flow.py:search"):
        while str(here) in sys.path:
            sys.path.remove(str(here))
    assert str(here) not in sys.path
