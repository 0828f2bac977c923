"""`mai serve-mcp` with a command line that cannot be used."""

from pathlib import Path

import pytest

from mai.cli import main

SOURCE = """
from mai import module

@module
async def silent(x: int) -> int:
    return x
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.py:x"], "No such file: gone.py"),
        (["steps.py:silent"], "Tool 'silent' has no description"),
        (["steps.py:silent", "--http", "8000"], "--http 8000: give HOST:PORT"),
        (["steps.py:silent", "--http", "localhost:x"], "give HOST:PORT"),
        (["steps.py:silent", "--http", "localhost:0"], "give HOST:PORT"),
        (["steps.py:silent", "--token-env", "NOT_THERE"], "there is no such environment variable"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "steps.py").write_text(SOURCE)
    assert main(["serve-mcp", *words]) == 2
    assert message in capsys.readouterr().err
