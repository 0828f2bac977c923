"""Time, chance and threads have one file each that touches them; simulation and replay stand on that."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Seam:
    """What only *file* (or folder) may use: whole modules, names of modules, methods of any object called bare."""

    file: str
    modules: frozenset[str]
    names: frozenset[str]
    bare_methods: frozenset[str] = frozenset()
    also: str = ""  # one more file that may


CLOCK = Seam(
    "core/clock.py",
    modules=frozenset({"time"}),
    names=frozenset(
        {
            "datetime.date.today",
            "datetime.datetime.now",
            "datetime.datetime.today",
            "datetime.datetime.utcnow",
            "anyio.current_time",
            "os.times",
        }
    ),
    bare_methods=frozenset({"time"}),  # loop.time()
)
IDS = Seam(
    "core/ids.py",
    modules=frozenset({"random", "secrets", "uuid"}),
    names=frozenset({"os.getrandom", "os.urandom"}),
    also="testing/seeds.py",  # numbers that can be had again: an interleaving is a function of its seed
)
THREADS = Seam(
    "core/threads.py",
    modules=frozenset({"_thread", "concurrent", "multiprocessing"}),
    names=frozenset(
        {
            "anyio.from_thread.start_blocking_portal",
            "anyio.to_interpreter",
            "anyio.to_process",
            "anyio.to_thread",
            "asyncio.to_thread",
            "threading.Thread",
            "threading.Timer",
            "threading.local",  # what a call knows is in contextvars
        }
    ),
    bare_methods=frozenset({"run_in_executor"}),
)
STORAGE = Seam("durable/storage/", modules=frozenset({"sqlite3"}), names=frozenset())
SEAMS = (CLOCK, IDS, THREADS, STORAGE)


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the full dotted name of whatever *source* imports or reaches through what it imported."""
    tree = ast.parse(source)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                if alias.asname:
                    known[alias.asname] = alias.name
                else:
                    top = alias.name.partition(".")[0]
                    known[top] = top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            top, dot, rest = name.partition(".")
            if top in known:
                yield node.lineno, known[top] + dot + rest


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def bare_calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each method that is called, whatever its object is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, node.func.attr


def violations(package: Path) -> list[str]:
    """Return each use of a seam's subject outside of its file, as ``file:line: name``."""
    found: set[str] = set()
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        source = path.read_text(encoding="utf-8")
        for seam in (seam for seam in SEAMS if not (file == seam.also or file.startswith(seam.file))):
            for line, name in uses(source):
                parts = name.split(".")
                prefixes = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
                if parts[0] in seam.modules or prefixes & seam.names:
                    found.add(f"{file}:{line}: {name} belongs in {seam.file}")
            for line, name in bare_calls(source):
                if name in seam.bare_methods:
                    found.add(f"{file}:{line}: .{name}() belongs in {seam.file}")
    return sorted(found)


def test_only_the_seams_touch_time_chance_and_threads(package: Path) -> None:
    assert violations(package) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time\nx = time.time()", "time.time"),
        ("import time as t\nx = t.monotonic", "time.monotonic"),
        ("from time import perf_counter", "time.perf_counter"),
        ("import datetime\nx = datetime.datetime.now(datetime.UTC)", "datetime.datetime.now"),
        ("from datetime import datetime as dt\nx = dt.utcnow()", "datetime.datetime.utcnow"),
        ("def f(loop):\n    return loop.time()", ".time()"),
        ("import random", "random"),
        ("from uuid import uuid4", "uuid.uuid4"),
        ("def f():\n    import secrets", "secrets"),
        ("import os\nx = os.urandom(4)", "os.urandom"),
        ("import threading\nthreading.Thread(target=print)", "threading.Thread"),
        ("from threading import Timer", "threading.Timer"),
        ("import threading\nhere = threading.local()", "threading.local"),
        ("from concurrent.futures import ThreadPoolExecutor", "concurrent.futures.ThreadPoolExecutor"),
        ("import asyncio\nx = asyncio.to_thread(print)", "asyncio.to_thread"),
        ("import anyio.to_thread\nx = anyio.to_thread.run_sync", "anyio.to_thread.run_sync"),
        ("def f(loop):\n    return loop.run_in_executor(None, print)", ".run_in_executor()"),
        ("import sqlite3\nx = sqlite3.connect", "sqlite3.connect"),
    ],
)
def test_a_planted_use_is_seen(tmp_path: Path, source: str, name: str) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "engine.py").write_text(source, encoding="utf-8")
    assert any(f": {name} belongs in " in violation for violation in violations(tmp_path))


def test_the_seams_themselves_and_harmless_uses_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "clock.py").write_text("import time\nx = time.monotonic()", encoding="utf-8")
    (tmp_path / "core" / "ids.py").write_text("import random, uuid", encoding="utf-8")
    (tmp_path / "core" / "threads.py").write_text("import threading\nx = threading.Thread", encoding="utf-8")
    harmless = "import threading\nfrom datetime import datetime, timedelta\nx = threading.Lock()\ny = datetime(1, 2, 3)"
    (tmp_path / "core" / "engine.py").write_text(harmless, encoding="utf-8")
    assert violations(tmp_path) == []
