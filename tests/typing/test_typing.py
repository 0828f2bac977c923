"""Both checkers infer what `ok.py` says, which is true at run time too, and refuse what `refused.py` holds."""

import asyncio
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mai import Map, Module, Parallel, Payload, Sequential, TraceHandle, module

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EACH_CHECKER = pytest.mark.parametrize("checker", ["mypy", "pyright"])


def complaints(checker: str, *paths: Path) -> dict[str, set[int]]:
    """Return the lines of *paths*, by file name, that *checker* objects to under the project's own settings."""
    pytest.importorskip(checker)
    found: dict[str, set[int]] = {path.name: set() for path in paths}
    if checker == "mypy":
        command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, paths)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        for name, line in re.findall(r"^(?:.*/)?([^/\n]+\.py):(\d+): error:", done.stdout, re.MULTILINE):
            found.setdefault(name, set()).add(int(line))
        return found
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(paths)
    for problem in report["generalDiagnostics"]:
        found.setdefault(Path(problem["file"]).name, set()).add(problem["range"]["start"]["line"] + 1)
    return found


@pytest.mark.slow
@EACH_CHECKER
def test_the_types_of_calls_and_compositions_are_inferred_exactly_and_mistakes_are_refused(checker: str) -> None:
    assert complaints(checker, HERE / "ok.py", HERE / "refused.py") == {"ok.py": set(), "refused.py": set()}


@pytest.mark.slow
@EACH_CHECKER
def test_a_mistake_that_is_not_ignored_and_an_ignore_without_a_mistake_are_reported(
    checker: str, tmp_path: Path
) -> None:
    lines = (HERE / "refused.py").read_text(encoding="utf-8").splitlines()
    mistake = lines.index(next(line for line in lines if line.startswith("    _ = search >> length  #")))
    lines[mistake] = "    _ = search >> length"
    right = lines.index("search, summarise = Search(), Summarise()")
    lines[right] += "  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]"
    (tmp_path / "planted.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    wrong = (tmp_path / "ok.py", "from typing import assert_type\n\nassert_type(len('x'), str)\n")
    wrong[0].write_text(wrong[1], encoding="utf-8")
    reported = complaints(checker, tmp_path / "planted.py", tmp_path / "ok.py")
    assert reported == {"planted.py": {mistake + 1, right + 1}, "ok.py": {3}}


@pytest.mark.slow
def test_every_public_type_is_known() -> None:
    pytest.importorskip("pyright")
    command = [sys.executable, "-m", "pyright", "--verifytypes", "mai", "--ignoreexternal", "--outputjson"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)["typeCompleteness"]
    vague = [name["name"] for name in report["symbols"] if not name["isTypeKnown"] or name["isTypeAmbiguous"]]
    assert (report["completenessScore"], vague) == (1, [])
    assert report["exportedSymbolCounts"]["withKnownType"] > 400


def test_each_refused_line_is_refused_by_both_checkers() -> None:
    lines = (HERE / "refused.py").read_text(encoding="utf-8").splitlines()
    by_mypy = {line for line in lines if "# type: ignore[" in line}
    by_pyright = {line for line in lines if "# pyright: ignore[" in line}
    assert len(by_mypy) > 80
    assert [line.strip() for line in by_mypy ^ by_pyright if "pyright leaves this to mai" not in line] == []


def holds(value: Any, tp: Any) -> Any:
    """Stand in for ``assert_type``: return *value* if it is of the type *tp*, as far as values can tell."""
    origin, args = typing.get_origin(tp) or tp, typing.get_args(tp)
    if isinstance(origin, type) and issubclass(origin, Module):
        assert type(value) is origin
        alike = issubclass(origin, Parallel) and typing.get_origin(value.Out) is typing.get_origin(args[-1])
        gives = None if not args else list.__class_getitem__(args[1]) if issubclass(origin, Map) else args[-1]
        assert not args or value.Out in (Any, gives) or alike
    elif origin in (Payload, TraceHandle):
        assert isinstance(value, origin)
    elif origin is type:
        assert isinstance(value, type)
        assert issubclass(value, args[0])
    else:
        TypeAdapter(tp, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=True)
    return typing.cast(Any, value)  # what it was narrowed to is of no use


def load() -> types.ModuleType:
    """Import ``ok.py``, with an ``assert_type`` that looks at values."""
    spec = importlib.util.spec_from_file_location("typing_ok", HERE / "ok.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # where annotations are looked up
    spec.loader.exec_module(loaded)
    vars(loaded)["assert_type"] = holds
    return loaded


OK = load()


@pytest.mark.parametrize("name", [name for name in vars(OK) if name.startswith("infers_")])
def test_what_is_inferred_is_true_at_run_time(name: str) -> None:
    infers: Callable[[], Any] = getattr(OK, name)
    made = infers()
    if inspect.iscoroutine(made):
        asyncio.run(made)


def test_a_wrong_claim_about_a_value_is_seen() -> None:
    @module
    def length(text: str) -> int:
        return len(text)

    values: list[tuple[Any, Any]] = [(3, str), ([1], list[str]), ((1, "a"), tuple[int, int]), (None, int)]
    for value, tp in values:
        with pytest.raises(ValidationError):
            holds(value, tp)
    modules: list[tuple[Any, Any]] = [
        (length, Parallel[str, int]), (length & length, Parallel[str, list[int]]), (length >> str, Sequential[str, int])
    ]  # fmt: skip
    for value, tp in modules:
        with pytest.raises(AssertionError):
            holds(value, tp)
