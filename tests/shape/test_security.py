"""What turns data into code is not in the package: no pickle, no eval, no shell, no import by a name from data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "code",
    "codeop",
    "runpy",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_NAMES = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "subprocess.getoutput", "tempfile.mktemp"}
IMPORTERS = {
    "importlib.import_module",
    "importlib.util.spec_from_file_location",
    "pydoc.locate",
    "pkgutil.resolve_name",
}
MAY_IMPORT = {"cli/target.py"}  # the TARGET that a user types at the command line is code that the user wants to run


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def violations(file: str, source: str) -> Iterator[str]:
    """Yield what *source* must not have, as ``file:line: what``."""
    for node in ast.walk(ast.parse(source)):
        where = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{where}: {name}" for name in names if name.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FORBIDDEN_CALLS | FORBIDDEN_NAMES or (name in IMPORTERS and file not in MAY_IMPORT):
                yield f"{where}: {name}"
            for keyword in node.keywords:
                plain = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                if keyword.arg == "shell" and not plain:
                    yield f"{where}: shell="


def test_nothing_in_the_package_turns_data_into_code(package: Path) -> None:
    found = [
        violation
        for path in sorted(package.rglob("*.py"))
        for violation in violations(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "x = eval('1')",
        "exec(text)",
        "__import__(name)",
        "import importlib\nimportlib.import_module(name)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "import yaml\nyaml.load(text)",
    ],
)
def test_a_planted_one_is_seen(source: str) -> None:
    assert len(list(violations("models/x.py", source))) == 1


def test_what_is_harmless_is_not_reported() -> None:
    harmless = "import re\nx = re.compile('a')\nimport subprocess\nsubprocess.run(['ls'], shell=False)\nmodel.eval()"
    assert list(violations("models/x.py", harmless)) == []
