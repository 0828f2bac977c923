"""How many of the planted bugs the search finds by itself: ``python -m tests.search.mutants [WORD]``.

Each mutant of ``tests/mutants`` is applied to a copy of the repository, in which a short search then runs. That it ends
with a failure, or does not end, counts. What it is not expected to see stands in ``docs/explanation/search.rst``, with
the reason; the exit code is 1 if it does not see something else.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS
from tests.mutants.run import SKIPPED, apply

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "search.rst"
PATIENCE = 600.0  # seconds, ten times what the search takes
SEEDS, EVERY = 110, 2


def unseen(text: str) -> dict[str, str]:
    """Return the promises in the table of the page, each with the reason why the search does not see it broken."""
    table = re.findall(r"^   \* - (.+?)^     - (.+?)(?=^   \* - |\Z)", text, re.MULTILINE | re.DOTALL)
    cells = [(" ".join(promise.replace("``", "").split()), " ".join(reason.split())) for promise, reason in table]
    return {promise: reason for promise, reason in cells if promise != "Promise"}


def verdict(mutant: Mutant, command: tuple[str, ...]) -> str:
    """Return how the search ended on *mutant*."""
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(shutil.copytree(ROOT, Path(folder) / "repo", ignore=SKIPPED))
        if apply(mutant, repo):
            return "does not apply"
        env = {**os.environ, "PYTHONPATH": str(repo), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "found: it does not end"
        if process.returncode == 0:
            return "not found"
        lines = output.decode().splitlines()
        told = next((line for line in lines if "Error" in line or "Leak" in line or "lock" in line), lines[-1])
        return f"found: {told[:110]}"


def main(word: str = "") -> int:
    """Try all; print what was found and how many."""
    chosen = [mutant for mutant in MUTANTS if word in mutant.promise or word in mutant.file]
    if not chosen:
        print(f"no mutant has {word!r} in its promise or the name of its file")
        return 2
    command = (sys.executable, "-m", "tests.search", "--seeds", str(SEEDS), "--every", str(EVERY), "--first")
    found, missed, known = 0, 0, unseen(PAGE.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = pool.map(lambda mutant: verdict(mutant, command), chosen)
        for mutant, said in zip(chosen, verdicts, strict=True):
            found += said.startswith("found")
            missed += not said.startswith("found") and mutant.promise not in known
            print(f"{said}\n        {mutant.promise} ({mutant.file})", flush=True)
    others = len(chosen) - found - missed
    print(f"the search alone finds {found} of {len(chosen)} mutants; {others} are explained, {missed} are not")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
