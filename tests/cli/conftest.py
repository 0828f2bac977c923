"""Fixtures of the command line's tests: a directory with a file to run, and ways to run `mai` in it."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mai.cli import main
from tests.cli.support import FLOW, Done, command, environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with ``flow.py`` in it; what was imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    (tmp_path / "flow.py").write_text(FLOW, encoding="utf-8")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def mai(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run the `mai` command in this process, with *stdin* as piped standard input."""

    def call(*words: str, stdin: bytes | None = None) -> Done:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(list(words))
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture
def process(here: Path) -> Callable[..., Done]:
    """Run the `mai` command in a process of its own."""

    def call(*words: str, stdin: bytes = b"") -> Done:
        done = subprocess.run(
            command(*words), input=stdin, capture_output=True, env=environment(), timeout=60, check=False
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call
