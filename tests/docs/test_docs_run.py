"""Every page's code runs and shows what the page says; so do the examples in docstrings."""

import doctest
import importlib
import importlib.util
import pkgutil
import types
from pathlib import Path

import pytest

from tests.docs import pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.rst", *sorted(path for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts)]
TAUGHT = {"tutorial", "howto", "explanation"}


def needs_code(path: Path) -> bool:
    """Whether a page has to have a Python block: those that teach, but not the lists of them."""
    return path.name == "README.rst" or (path.parent.name in TAUGHT and path.name != "index.rst")


def check_page(path: Path) -> None:
    """Run a page; raise if it fails, or if it should have a Python block and has none."""
    if pages.run_page(path) == 0 and needs_code(path):
        raise pages.PageError(f"{path}: no Python block on this page")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_and_show_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    check_page(path)


def _modules() -> list[str]:
    package = importlib.util.find_spec("mai")
    assert package is not None
    found = pkgutil.walk_packages(package.submodule_search_locations, "mai.")
    return ["mai", *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", _modules())
def test_the_examples_in_docstrings_show_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    assert check_docstrings(module) >= 0


def check_docstrings(module: types.ModuleType) -> int:
    """Run the examples in all docstrings of *module*, each docstring on its own, and return how many there are."""
    ran = 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        if test.examples and test.docstring:
            with pages.Session.opened(test.name, f"docstring_of_{test.name}") as session:
                session.module.__dict__.update(test.globs, __name__=session.module.__name__)
                ran += session.run_examples(pages.Block("python", test.docstring, 1))
    return ran


# The mechanism itself: it has to see what is wrong.

GOOD = """\
Title
=====

.. code-block:: python
   :caption: greet.py

   from __future__ import annotations

   import asyncio

   def double(x: int) -> int:
       return 2 * x

Text, and then:

.. code-block:: python

   await asyncio.sleep(0)
   four = double(2)

>>> four
4
>>> await asyncio.sleep(0, "slept")
'slept'
>>> {}["a"]
Traceback (most recent call last):
    ...
KeyError: 'a'

.. note::

   .. code-block:: pycon

      >>> import json
      >>> json.loads("{")
      Traceback (most recent call last):
      ...
      JSONDecodeError: ...

.. code-block:: text

   this is not Python (
"""


def _page(folder: Path, text: str) -> Path:
    path = folder / "howto" / "page.rst"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_right_page_runs_all_its_blocks_in_one_namespace(here: Path) -> None:
    assert pages.run_page(_page(here, GOOD)) == 4
    assert (here / "greet.py").read_text(encoding="utf-8").startswith("from __future__")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("return 2 * x", "return 3 * x", r"page.rst:21: four"),
        ("four = double(2)", "four = dubble(2)", r"page.rst:18: the block fails(?s:.)*line 19(?s:.)*dubble"),
        ('"slept"', '"woke"', r"page.rst:23: await"),
        ("KeyError: 'a'", "KeyError: 'b'", r"page.rst:25: "),
        ('{}["a"]', "None", r"raises nothing"),
        ('loads("{")', "loads(1)", r"TypeError"),
        (":caption: greet.py", ":caption: ../greet.py", r"outside"),
    ],
)
def test_a_wrong_page_fails_with_its_line(here: Path, right: str, wrong: str, message: str) -> None:
    assert right in GOOD
    with pytest.raises(pages.PageError, match=message):
        check_page(_page(here, GOOD.replace(right, wrong)))


def test_a_page_that_teaches_without_a_python_block_fails(here: Path) -> None:
    text = "Title\n=====\n\n.. code-block:: text\n\n   print()\n\n::\n\n   print()\n"
    with pytest.raises(pages.PageError, match="no Python block"):
        check_page(_page(here, text))


COMMAND = """\
.. code-block:: python
   :caption: greet.py

   from mai import module

   @module
   def greet(name: str) -> str:
       return "hello, " + name

.. code-block:: console

   $ echo this is for the reader
   this is not
   $ mai run greet.py:greet ann
   hello, ann
"""


@pytest.mark.slow
def test_a_command_on_a_page_runs_and_shows_what_the_page_says(here: Path) -> None:
    assert pages.run_page(_page(here, COMMAND)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("\n   hello, ann", "\n   hello, bob", r"page.rst:14: (?s:.)*hello, ann"),
        ("ann\n   hello, ann", "", r"exits with 2"),
    ],
)
def test_a_wrong_command_on_a_page_fails(here: Path, right: str, wrong: str, message: str) -> None:
    assert right in COMMAND
    with pytest.raises(pages.PageError, match=message):
        check_page(_page(here, COMMAND.replace(right, wrong)))


def test_a_wrong_example_in_a_docstring_fails() -> None:
    module = types.ModuleType("planted")
    source = "def f(x):\n    '''Say.\n\n    Example:\n        >>> f(1)\n        2\n    '''\n    return x + 1\n"
    exec(source, module.__dict__)
    assert check_docstrings(module) == 1
    module.f.__doc__ = module.f.__doc__.replace("2", "3")
    with pytest.raises(pages.PageError, match=r"f\(1\)"):
        check_docstrings(module)


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    commands = [block.text for block in pages.blocks(text) if block.language == "console"]
    assert len(commands) == 2
    assert all(command.startswith("$ ") and command.count("\n") == 1 for command in commands)
