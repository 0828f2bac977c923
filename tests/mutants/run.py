"""Break the kernel on purpose, one promise at a time, and see some test fail: ``python tests/mutants/run.py [WORD]``.

Each mutant is applied to a copy of the repository. It prints which test failed; a mutant that no test notices, or whose
text is no longer in the kernel, ends the run with exit code 1. WORD chooses the mutants whose promise or file has it,
or that break the promise of that number in ``docs/explanation/hazards.rst``. At the end it lists them by these numbers.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutants.mutant import Mutant  # noqa: E402 (the path comes first)
from tests.mutants.mutants import MUTANTS  # noqa: E402

AT_ONCE = 2
WHOLE_TIMEOUT = 240.0  # seconds
SKIPPED = shutil.ignore_patterns(".git", ".hypothesis", "__pycache__", ".*_cache", "_build", "dist", "build", ".venv")


def copied(folder: str) -> Path:
    """Copy the repository into *folder*."""
    return Path(shutil.copytree(ROOT, Path(folder) / "repo", ignore=SKIPPED))


def tests(repo: Path, chosen: tuple[str, ...], timeout: float) -> tuple[int | None, str]:
    """Run tests until one fails; return the exit code (None: they hang) and the output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *chosen]
    if chosen and all("::" in test for test in chosen):  # who names single tests wants them, be they slow
        command += ["-m", "not live"]
    env = {**os.environ, "HYPOTHESIS_PROFILE": "mutants", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(repo)}
    process = subprocess.Popen(
        command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


def apply(mutant: Mutant, repo: Path) -> str:
    """Apply the edit; return what is wrong with it, if anything."""
    path = repo / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        return f"its text occurs {source.count(mutant.old)} times in {mutant.file}: bring it up to date"
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    return ""


def verdict(mutant: Mutant) -> tuple[bool, str]:
    """Say whether the mutant was caught, and by what."""
    with tempfile.TemporaryDirectory() as folder:
        repo = copied(folder)
        if problem := apply(mutant, repo):
            return False, f"NOT APPLICABLE: {problem}"
        for chosen, timeout in ((mutant.tests, mutant.patience), ((), WHOLE_TIMEOUT)):
            code, output = tests(repo, chosen, timeout)
            if code is None or "Timeout (0:" in output:  # the second is how faulthandler says it
                return bool(chosen), f"{' '.join(chosen) or 'NOT CAUGHT: the suite'} does not come to an end"
            if failed := re.search(r"^FAILED (\S+)", output, re.MULTILINE):
                return not broken_anyway(failed[1], chosen), f"caught by {failed[1]}"
            if code:
                last = "\n".join(output.splitlines()[-12:])
                return False, f"BROKEN: the tests did not run\n{last}"
        return False, "NOT CAUGHT by any test"


def broken_anyway(test: str, chosen: tuple[str, ...]) -> bool:
    """Say whether *test* fails on the kernel as it is; that of the *chosen* ones none does was seen before."""
    if chosen:
        return False
    with tempfile.TemporaryDirectory() as folder:
        return tests(copied(folder), (test,), WHOLE_TIMEOUT)[0] != 0


def baseline(chosen: list[Mutant]) -> str:
    """Run the tests of all mutants on the kernel as it is: they prove nothing unless they pass there."""
    files = tuple(sorted({file for mutant in chosen for file in mutant.tests}))
    missing = [file for file in files if not (ROOT / file.partition("::")[0]).exists()]
    if missing:
        return f"no such tests: {', '.join(missing)}"
    single = tuple(test for test in files if "::" in test)
    for part in (single, tuple(file for file in files if file not in single)):
        with tempfile.TemporaryDirectory() as folder:
            code, output = tests(copied(folder), part, WHOLE_TIMEOUT) if part else (0, "")
        if code != 0:
            return f"the tests fail on the kernel as it is\n{output[-3000:]}"
    return ""


def is_chosen(mutant: Mutant, word: str) -> bool:
    """Say whether *word* chooses *mutant*."""
    return word in mutant.promise or word in mutant.file or word in map(str, mutant.hazards)


def main(word: str = "") -> int:
    """Run all mutants; return the exit code."""
    started = time.monotonic()
    chosen = [mutant for mutant in MUTANTS if is_chosen(mutant, word)]
    if problem := baseline(chosen):
        print(problem)
        return 1
    bad, caught_by = 0, dict[str, list[bool]]()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, (caught, how) in zip(chosen, pool.map(verdict, chosen), strict=True):
            bad += not caught
            for number in mutant.hazards:
                caught_by.setdefault(str(number), []).append(caught)
            print(f"{'ok  ' if caught else 'FAIL'}  {mutant.promise} ({mutant.file})\n        {how}", flush=True)
    for number in sorted(caught_by, key=lambda number: (number.isalpha(), number.rjust(2))):
        print(f"hazard {number:>2}: {sum(caught_by[number])} of {len(caught_by[number])} caught")
    print(f"{len(chosen) - bad} of {len(chosen)} mutants were caught in {time.monotonic() - started:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
