"""Runs the code blocks of a page of documentation: which of them there are, and what running them shows."""

import ast
import asyncio
import contextvars
import doctest
import importlib.util
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

DIRECTIVE = re.compile(r"^(?P<indent> *)\.\. (?:code-block|code|sourcecode):: *(?P<language>\S+) *$")
OPTION = re.compile(r"^ +:(?P<name>[\w-]+): *(?P<value>.*)$")
DOCTEST_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
COMMAND_TIMEOUT = 60.0


class PageError(AssertionError):
    """A block of a page did not run, or did not show what the page says."""


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its text, the line where the text starts (from 1), and the directive's options."""

    language: str
    text: str
    line: int
    options: dict[str, str] = field(default_factory=dict)

    @property
    def shows_output(self) -> bool:
        return self.text.lstrip().startswith(">>>")


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of *text* in their order: code directives, and doctest paragraphs outside of them."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        match = DIRECTIVE.match(lines[at])
        if match:
            start, end, options = _directive(lines, at, len(match["indent"]))
            yield Block(match["language"].lower(), _dedent(lines[start:end]), start + 1, options)
            at = end
        elif lines[at].lstrip().startswith(">>>"):
            end = next((n for n in range(at, len(lines)) if not lines[n].strip()), len(lines))
            yield Block("python", _dedent(lines[at:end]), at + 1)
            at = end
        else:
            at += 1


def _directive(lines: list[str], at: int, indent: int) -> tuple[int, int, dict[str, str]]:
    """Return where the directive's text starts and ends (as indices), and its options."""
    options: dict[str, str] = {}
    start = at + 1
    while start < len(lines) and (match := OPTION.match(lines[start])):
        options[match["name"]] = match["value"]
        start += 1
    while start < len(lines) and not lines[start].strip():
        start += 1
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    return start, end, options


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _dedent(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines)).rstrip() + "\n"


class Session:
    """One namespace in which blocks run one after the other, with one event loop for those that await."""

    def __init__(self, filename: str, module: types.ModuleType) -> None:
        self.filename = filename
        self.module = module
        self._runner = asyncio.Runner(debug=True)

    @classmethod
    @contextmanager
    def opened(cls, filename: str, name: str) -> "Iterator[Session]":
        """Enter a session in a module called *name*; that it can be found by its name is what annotations need."""
        session = cls(filename, types.ModuleType(name))
        sys.modules[name] = session.module
        try:
            with session._runner:
                yield session
        finally:
            del sys.modules[name]

    def execute(self, source: str, line: int, mode: str = "exec") -> None:
        """Run *source*, which stands at *line* of the page; it may await at top level."""
        padded = "\n" * (line - 1) + source
        code = compile(padded, self.filename, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, self.module.__dict__)
        if code.co_flags & inspect.CO_COROUTINE:
            self._runner.run(result, context=contextvars.copy_context())

    def run_code(self, block: Block) -> None:
        """Run a block that shows no output."""
        try:
            with redirect_stdout(io.StringIO()):
                self.execute(block.text, block.line)
        except Exception as error:
            raise PageError(f"{self.filename}:{block.line}: the block fails\n{traceback.format_exc()}") from error

    def run_examples(self, block: Block) -> int:
        """Run a block of ``>>>`` examples, compare what they print, and return how many there are."""
        examples = doctest.DocTestParser().get_examples(block.text, self.filename)
        for example in examples:
            line = block.line + example.lineno
            got = self._output(example, line)
            flags = DOCTEST_FLAGS
            for flag, on in example.options.items():
                flags = flags | flag if on else flags & ~flag
            checker = doctest.OutputChecker()
            want = example.exc_msg if example.exc_msg is not None else example.want
            if not checker.check_output(want, got, flags):
                difference = checker.output_difference(doctest.Example(example.source, want), got, flags)
                raise PageError(f"{self.filename}:{line}: {example.source.strip()}\n{difference}")
        return len(examples)

    def _output(self, example: doctest.Example, line: int) -> str:
        """Return what *example* prints; where it should raise, the last lines of its traceback."""
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                self.execute(example.source, line, "single")
        except Exception as error:
            if example.exc_msg is None:
                raise PageError(
                    f"{self.filename}:{line}: {example.source.strip()}\n{traceback.format_exc()}"
                ) from error
            # Without notes, as doctest has it; `SyntaxError`s are not shown in pages.
            message = traceback.format_exception_only(type(error), error)[0]
            return _unqualified(message) if "." not in example.exc_msg.partition(":")[0] else message
        if example.exc_msg is not None:
            raise PageError(f"{self.filename}:{line}: {example.source.strip()} raises nothing")
        return printed.getvalue()


def _unqualified(message: str) -> str:
    """Return a traceback's last line without the module of the exception."""
    name, colon, rest = message.partition(":")
    return name.rpartition(".")[2] + colon + rest


def run_commands(block: Block, filename: str) -> None:
    """Run the ``$ mai ...`` lines of a console block in the current directory, and compare their output, if shown."""
    for line, command, want in _commands(block):
        done = subprocess.run(
            [sys.executable, "-m", "mai.cli", *shlex.split(command)[1:]],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        got = done.stdout + done.stderr
        if want and not doctest.OutputChecker().check_output(want, got, DOCTEST_FLAGS):
            raise PageError(f"{filename}:{line}: $ {command}\nexpected:\n{want}\ngot:\n{got}")
        if not want and done.returncode != 0:
            raise PageError(f"{filename}:{line}: $ {command}\nexits with {done.returncode}:\n{got}")


def _commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Yield line, command and expected output of each ``$ mai ...``; other commands are the reader's to run."""
    lines = block.text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command = lines[start][2:]
        if command.split()[0] == "mai":
            want = "\n".join(lines[start + 1 : end]).strip()
            yield block.line + start, command, want + "\n" if want else ""


def environment() -> dict[str, str]:
    """Return an environment in which ``python -m mai.cli`` is of the same package as this process's ``import mai``."""
    package = importlib.util.find_spec("mai")
    assert package is not None
    assert package.submodule_search_locations
    parent = str(Path(package.submodule_search_locations[0]).parent)
    return {**os.environ, "PYTHONPATH": parent, "COLUMNS": "120"}


def run_page(path: Path) -> int:
    """Run all blocks of the page at *path* in the current directory and return how many Python blocks ran.

    Raises:
        PageError: If a block fails or shows something else than the page says.
    """
    ran = 0
    name = f"page_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}"
    with Session.opened(str(path), name) as session:
        for block in blocks(path.read_text(encoding="utf-8")):
            if block.language in {"python", "py", "python3", "pycon"}:
                ran += 1
                if "caption" in block.options:
                    _write(block)
                if block.shows_output:
                    session.run_examples(block)
                else:
                    session.run_code(block)
            elif block.language in {"console", "shell-session"}:
                run_commands(block, str(path))
    return ran


def _write(block: Block) -> None:
    """Write a block to the file that its caption names, below the current directory."""
    target = Path(block.options["caption"])
    if target.is_absolute() or ".." in target.parts:
        raise PageError(f"the caption {str(target)!r} names a file outside of the page's own directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(block.text, encoding="utf-8")
