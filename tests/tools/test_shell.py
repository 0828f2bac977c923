"""Programs as tools: which run, with which arguments, in which environment, and that nothing is left of them."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import ConfigError, DeadlineExceeded
from mai.tools import AccessRefused, CommandResult, Tool, ToolError, shell
from tests.support import refused, refused_value

PYTHON = os.path.basename(sys.executable)


def python(cwd: Path, **how: Any) -> Tool[..., CommandResult]:
    return shell(sys.executable, cwd=cwd, **how)


async def test_a_program_runs_and_what_it_writes_comes_back(tmp_path: Path) -> None:
    tool = python(tmp_path)
    code = "import sys; print(sys.stdin.read()); print('oh', file=sys.stderr); sys.exit(3)"
    assert await tool(PYTHON, ["-c", code], stdin="grüß") == CommandResult(3, "grüß\n", "oh\n")
    assert tool.name == "run_command"


async def test_it_sees_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234")
    monkeypatch.setenv("PATH", f"/gone:{os.environ['PATH']}")
    code = "import os; print(sorted(os.environ), os.environ['HOME'], os.environ['MINE'])"
    result = await python(tmp_path, env={"MINE": "x"})(PYTHON, ["-I", "-c", code])
    assert "sk-1234" not in result.stdout
    assert set(result.stdout.split("]")[0].strip("[").replace("'", "").split(", ")) <= {
        *("HOME", "LANG", "MINE", "PATH", "LC_CTYPE"),
    }
    assert result.stdout.endswith(f"] {tmp_path.resolve()} x\n")
    path = (await python(tmp_path)(PYTHON, ["-c", "import os; print(os.environ['PATH'])"])).stdout.strip()
    assert path == os.pathsep.join([os.path.dirname(sys.executable), os.defpath])


@pytest.mark.parametrize(
    "argument",
    [
        "; echo hacked",
        "$(echo hacked)",
        "`echo hacked`",
        "| cat",
        "&& ls",
        "> file",
        "*",
        "$HOME",
        "\n",
        "'\"",
        "~",
        "%s",
    ],
)
async def test_no_argument_means_anything_to_a_shell(tmp_path: Path, argument: str) -> None:
    (tmp_path / "a").touch()
    result = await python(tmp_path)(PYTHON, ["-c", "import sys; print(ascii(sys.argv[1:]))", argument, "b"])
    assert result.stdout == f"{[argument, 'b']!a}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


INJECTED = [
    *("--output=/etc/passwd", "-c", "--exec=sh", "-o", "--upload-pack=touch x", "log\n--exec", "log ", " log", "LOG"),
    *("log\0", "", "log;ls", "-", "--", "status --porcelain", "-C", "/", "--git-dir=/x", "logs", "\nlog", "log\n"),
]  # fmt: skip


@pytest.mark.parametrize("argument", INJECTED, ids=ascii)
async def test_an_argument_that_does_not_fit_its_pattern_is_refused(tmp_path: Path, argument: str) -> None:
    tool = python(tmp_path, arguments={PYTHON: ("log|status", "--oneline")})
    result = await tool.use({"program": PYTHON, "arguments": ["log", argument]})
    assert isinstance(result.error, AccessRefused)


LETTERS: Any = python(Path("/"), arguments={PYTHON: "[a-z]{1,3}"}).inner


@given(st.text())
def test_only_a_full_match_fits(text: str) -> None:
    fits = 1 <= len(text) <= 3 and all("a" <= char <= "z" for char in text)
    try:
        LETTERS._check(PYTHON, [text], "")
    except AccessRefused:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(
    "program",
    ["sh", "/bin/sh", "../bin/sh", "", f"./{PYTHON}", f"{PYTHON} -c", sys.executable, f"{PYTHON}\0", "PYTHON"],
)
async def test_a_program_that_is_not_named_does_not_run(tmp_path: Path, program: str) -> None:
    (tmp_path / PYTHON).symlink_to("/bin/sh")
    result = await python(tmp_path).use({"program": program, "arguments": ["-c", "0"]})
    assert isinstance(result.error, AccessRefused)
    assert "may not be run; there are" in result.text


async def test_it_runs_in_its_directory_or_one_below(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    tool, where = python(root), ["-c", "import os; print(os.getcwd())"]
    assert (await tool(PYTHON, where)).stdout == f"{root.resolve()}\n"
    assert (await tool(PYTHON, where, directory="sub")).stdout == f"{root.resolve()}/sub\n"
    for directory in ("..", "out", "/", "sub/../..", "gone"):
        assert not (await tool.use({"program": PYTHON, "arguments": where, "directory": directory})).ok


async def test_output_beyond_the_limit_is_dropped_and_the_program_goes_on(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * 1000000); sys.stderr.write('done')"
    result = await python(tmp_path, max_bytes=100)(PYTHON, ["-c", code])
    assert (result.code, result.stdout, result.stderr, result.complete) == (0, "x" * 100, "done", False)


async def test_a_program_that_reads_nothing_does_not_disturb(tmp_path: Path) -> None:
    assert (await python(tmp_path)(PYTHON, ["-c", "0"], stdin="x" * 1_000_000)).code == 0


async def test_too_much_is_refused(tmp_path: Path) -> None:
    tool = python(tmp_path)
    for arguments, stdin in ((["x" * 60_000] * 2, ""), ([], "x" * 10_000_001)):
        result = await tool.use({"program": PYTHON, "arguments": arguments, "stdin": stdin})
        assert isinstance(result.error, ToolError)
        assert "too much" in result.text


CHILDREN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), child.pid, flush=True)
open("ready", "w").write(f"{os.getpid()} {child.pid}")
if len(sys.argv) < 2:
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def gone(*pids: int) -> None:
    while any(map(alive, pids)):
        await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "cancel", "end"])
async def test_nothing_is_left_of_it_and_its_children(tmp_path: Path, how: str) -> None:
    ready = tmp_path / "ready"
    tool = python(tmp_path, timeout=10.0 if how == "timeout" else 60.0)
    handle = tool.start(PYTHON, ["-c", CHILDREN, *(["end"] if how == "end" else [])])
    while handle.outcome == "running" and not (ready.exists() and ready.read_text()):
        await asyncio.sleep(0.01)
    if how == "cancel":
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
    elif how == "timeout":
        with pytest.raises(DeadlineExceeded):
            await handle
    else:
        result = await handle
        assert (result.code, result.complete) == (0, True)
    await asyncio.wait_for(gone(*map(int, ready.read_text().split())), 5)


@pytest.mark.slow
async def test_a_child_that_leaves_the_group_cannot_hold_the_call(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid)"
    )
    result = await asyncio.wait_for(python(tmp_path)(PYTHON, ["-c", code]), 30)
    assert (result.code, result.complete) == (0, False)
    os.kill(int(result.stdout), 9)


def test_what_cannot_be_used_is_refused_when_the_tool_is_made(tmp_path: Path) -> None:
    with refused(ConfigError, "shell: name the programs that may be run"):
        shell(cwd=tmp_path)
    with refused(ConfigError, "shell: there is no program 'no-such-program' in PATH"):
        shell("no-such-program", cwd=tmp_path)
    with refused(ConfigError, "shell: arguments of 'rm' are given, but it is not among the programs"):
        shell("ls", cwd=tmp_path, arguments={"rm": "x"})
    with pytest.raises(ConfigError, match="is no regular expression"):
        shell("ls", cwd=tmp_path, arguments={"ls": "("})
    with pytest.raises(ConfigError, match="is no directory"):
        shell("ls", cwd=tmp_path / "gone")
    with refused_value("shell", "timeout", -1):
        shell("ls", cwd=tmp_path, timeout=-1)
