"""What ``import mai`` loads, what the kernel may import, and that it does not go through the front door itself.

The order of the rooms is import-linter's business; its contracts are in pyproject.toml.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shape.test_line_budget import kernel

HEAVY = ("opentelemetry.sdk", "opentelemetry.exporter", "rich", "typer", "click", "pytest", "hypothesis")
OPENTELEMETRY = {"trace", "context", "propagate"}
# typing_extensions is a hard dependency of pydantic; it has what typing lacks in 3.11.
THIRD_PARTY = {"anyio", "pydantic", "pydantic_core", "typing_extensions", "mai"}

PROBE = """
import json, sys, threading, importlib
threads = threading.active_count()
importlib.import_module(sys.argv[1])
print(json.dumps({"modules": sorted(sys.modules), "threads": threading.active_count() - threads}))
"""


def loaded(module: str, path: Path) -> tuple[set[str], int]:
    """Return which of the heavy packages a fresh Python has after importing *module*, and how many threads it has."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    environment.pop("COVERAGE_PROCESS_START", None)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    return {heavy for heavy in HEAVY if heavy in seen["modules"]}, seen["threads"]


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of everything that the file *path* of *package* imports, at its top or later."""
    place = ["mai", *path.relative_to(package).parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = place[: len(place) - node.level] if node.level else []
            start = ".".join([*near, node.module] if node.module else near)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def foreign(package: Path) -> list[str]:
    """Return each import of the kernel that is neither the standard library's nor on the list of what it may use."""
    found: list[str] = []
    for path in kernel(package):
        for line, name in imported(path, package):
            top, _, rest = name.partition(".")
            allowed = top in sys.stdlib_module_names or top in THIRD_PARTY
            allowed = allowed or (top == "opentelemetry" and rest.partition(".")[0] in OPENTELEMETRY)
            if not allowed:
                found.append(f"{path.relative_to(package).as_posix()}:{line}: {name}")
    return found


def through_the_front_door(package: Path) -> list[str]:
    """Return each import of the face, ``from mai import Module``, inside the kernel: it would go in a circle."""
    rooms = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    found: list[str] = []
    for path in kernel(package):
        for line, name in imported(path, package):
            top, _, rest = name.partition(".")
            if top == "mai" and rest.partition(".")[0] not in rooms and rest != "__version__":
                found.append(f"{path.relative_to(package).as_posix()}:{line}: {name}")
    return found


def test_importing_mai_loads_no_sdk_and_no_extra_and_starts_no_thread(package: Path) -> None:
    assert loaded("mai", package.parent) == (set(), 0)


@pytest.mark.parametrize("name", ["opentelemetry.sdk.trace", "rich.tree"])
def test_a_planted_heavy_import_is_seen(tmp_path: Path, name: str) -> None:
    (tmp_path / "planted.py").write_text(
        f"import {name}, threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        encoding="utf-8",
    )
    heavy, threads = loaded("planted", tmp_path)
    assert any(name.startswith(package) for package in heavy)
    assert threads == 1


def test_the_kernel_imports_only_what_it_may(package: Path) -> None:
    assert foreign(package) == []


def test_the_kernel_does_not_import_the_face(package: Path) -> None:
    assert through_the_front_door(package) == []


def test_planted_imports_are_seen(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "layers").mkdir()
    (tmp_path / "core" / "call.py").write_text(
        "import asyncio, httpx\nfrom opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "import mai\nfrom mai import Module, core\nfrom mai.layers import Module as M\n"
        "from .. import Context, core\nfrom ..layers import Module as N\n"
        "from . import frame\nfrom .frame import Frame\n",
        encoding="utf-8",
    )
    assert foreign(tmp_path) == ["core/call.py:1: httpx", "core/call.py:3: opentelemetry.sdk.trace.TracerProvider"]
    assert through_the_front_door(tmp_path) == [
        "core/call.py:4: mai",
        "core/call.py:5: mai.Module",
        "core/call.py:7: mai.Context",
    ]


MECHANISM = ("asyncio", "contextvars", "random", "threading", "time")


def mechanical(package: Path) -> list[str]:
    """Return each import in ``layers`` of what belongs to ``core`` alone."""
    return [
        f"{path.relative_to(package).as_posix()}:{line} imports {name}"
        for path in sorted((package / "layers").glob("*.py"))
        for line, name in imported(path, package)
        if name.partition(".")[0] in MECHANISM
    ]


def test_composites_hold_no_mechanism(package: Path) -> None:
    assert mechanical(package) == []


def test_planted_mechanism_is_seen(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "x.py").write_text("import asyncio\nfrom contextvars import copy_context\n")
    assert mechanical(tmp_path) == [
        "layers/x.py:1 imports asyncio",
        "layers/x.py:2 imports contextvars.copy_context",
    ]
