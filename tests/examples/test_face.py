"""The page that shows all of the face runs, and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import face
from mai import capture

FACE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "face.py"
SAYS = {
    "sync door": "a, b",
    "call": "[Doc(text='x 0'), Doc(text='x 1')]",
    "copy": "[Doc(text='x 0')] of <Search(query: str, k: int = 3) -> list[Doc]>",
    "sequence": "HELLO 0, HELLO 1, HELLO 2",
    "branches": "(3, 'MAI!', 'On mai.') {'plain': 'On mai.', 'loud': 'MAI!'}",
    "spread": "3 MAI! On mai.",
    "condition": "3 HELLO!",
    "switch": "4 HEY!",
    "race": "On mai.",
    "loop": "HEY!!!!",
    "map": "TO!, BE!, OR!",
    "context": "hello ann, in time: whoami",
    "polite": "x 0, x 1, x 2",
    "trace": str([
        "Sequential", "Sequential/Search", "Sequential/BlockingDelay", "Sequential/Summarise",
        "Sequential/NonBlockingDelay",
    ]),
    "fallback": "hello Ann ANN!",
    "chunks": "['On ', 'mai', '.'] On mai.",
    "progress": "['1/2', '2/2']",
    "events": "['Started', 'looking for Ann', 'Finished']",
    "answered": "sent",
    "cancelled": "cancelled",
    "override": "DOUBLE OF X [Doc(text='double of y')]",
    "asked": "sent",
    "payload": """b'[{"text":"a"}]' 14 True""",
    "types": """['query'] <class 'str'> b'{"query":"x","k":3}'""",
}  # fmt: skip


@pytest.mark.slow
def test_the_page_runs_as_a_script_and_prints_what_came_of_it() -> None:
    done = subprocess.run([sys.executable, str(FACE)], cwd=FACE.parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.partition(": ")[0] in SAYS)
    assert said == SAYS
    assert "─ ✓ BlockingDelay" in done.stdout
    assert any(line.startswith("✓ Write ") for line in done.stdout.splitlines())


async def test_its_modules_can_be_imported_and_called() -> None:
    assert [doc.text for doc in await face.search("mai", k=2)] == ["mai 0", "mai 1"]
    with capture() as trace:
        assert await face.spread("ok") == "2 OK! On ok."
    assert trace.runs[0].ok
    assert {handle.name for handle in trace.runs[0].walk()} >= {"Parallel", "length", "shout", "Write", "report"}
