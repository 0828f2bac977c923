"""Mutants made by a machine: ``python -m tests.mutants.sample [--count N] [--seed N] [--module mai/core/call.py]``.

cosmic-ray (which is not among the tools of the project: install it for this) lists what can be changed in ``mai/core``.
A seeded sample of it is applied, one change at a time, to copies of the repository, and the tests run until one fails:
first those of the changed file, then all of the kernel, then, for what survives these, the laws. The survivors are
printed with their diffs; each is either explained in ``EXPLAINED`` below or wants a test. Left out are changes of type
annotations, of which no running code knows, and ``is`` replaced by ``==``, which is the same for every object that
defines no equality of its own. All changes: ``--count 0``.
"""

import argparse
import difflib
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db

from tests.mutants.run import ROOT, copied, tests

TARGET = 0.90  # of the sample
OWN = 120.0  # seconds that the tests of the changed file may take
TIERS = (  # with the seconds that each may take: three times what it takes on the kernel as it is
    (("tests/core", "tests/values", "tests/layers"), 150.0),
    (("tests/laws", "tests/search", "tests/durable", "tests/test_types.py", "tests/examples"), 450.0),
)
POINTLESS = re.compile("_BitOr_|ComparisonOperator_Is_|ComparisonOperator_IsNot_")
WORTH = ("Is_IsNot", "IsNot_Is")
EXPLAINED: dict[tuple[str, str], str] = {  # (file, the changed line without its indent): why no test can tell
    ("mai/core/gather.py", "return error is None"): "a group of one branch has no others to stop",
    (
        "mai/core/gather.py",
        "if not count & 3 and clock.ticks() - self.since > self.stint:",
    ): "the clock is read at 3 of 4 times, and the pauses are about the same",
    (
        "mai/core/gather.py",
        "if not self.coming and (ready := self.work.more()):",
    ): "a worker too many finds nothing to do, or no place, and ends",
    ("mai/core/control.py", 'R_co = TypeVar("R_co", covariant=True)'): "only type checkers look",
    (
        "mai/core/control.py",
        "if self._at == bus.count or not self._at & 7:  # not each time: it wakes all that wait",
    ): "who waits for room is rung for all the while that this reader is behind",
    (
        "mai/core/trace.py",
        'h.outcome, h.children, h.dropped, h._base, h._span = "running", (), 0, "", (0, 0, 0)',
    ): "nobody looks at the flags of a span that there is not",
}


class Change(NamedTuple):
    """One change of one file."""

    name: str
    file: str
    source: str
    diff: str


def changes(module: str) -> list[Any]:
    """Return all changes of *module* that are worth a run, as cosmic-ray lists them."""
    path = ROOT / module
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    with tempfile.TemporaryDirectory() as folder, use_db(str(Path(folder) / "session"), WorkDB.Mode.create) as session:
        init(files, session, {})
        found = [mutation for item in session.work_items for mutation in item.mutations]
    return [one for one in found if one.operator_name.endswith(WORTH) or not POINTLESS.search(one.operator_name)]


def one_a_place(every: list[Any], choose: random.Random) -> list[Any]:
    """Return one change of a kind for each place: a plus has eleven others to become, and all are easily seen."""
    places: dict[object, list[Any]] = {}
    for one in every:
        places.setdefault((str(one.module_path), one.start_pos, one.operator_name.partition("_")[0]), []).append(one)
    return [choose.choice(several) for several in places.values()]


def made(mutation: Any) -> Change:
    """Return what *mutation* makes of its file."""
    path = Path(mutation.module_path)
    before, operator = path.read_text(encoding="utf-8"), get_operator(mutation.operator_name)
    after = mutate_code(before, operator(**mutation.operator_args), mutation.occurrence)
    assert after is not None, f"{mutation} changes nothing"
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[3:]
    name = f"{path.relative_to(ROOT)}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
    return Change(name, path.relative_to(ROOT).as_posix(), after, "\n".join(diff))


def tiers(file: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield which tests to run on a change of *file*, one tier after the other, and how long each may take."""
    path = Path(file)
    own = Path("tests", *path.parts[1:-1], f"test_{path.name}")
    if (ROOT / own).exists():
        yield (own.as_posix(),), OWN
    yield from TIERS


def caught(change: Change) -> str:
    """Run the tests on a copy with *change*; return what noticed it, "" if nothing did."""
    with tempfile.TemporaryDirectory() as folder:
        repo = copied(folder)
        (repo / change.file).write_text(change.source, encoding="utf-8")
        for tier, patience in tiers(change.file):
            code, output = tests(repo, tier, patience)
            if code is None or "Timeout (0:" in output:
                return "a test that does not come to an end"
            if code:
                failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
                return failed[1] if failed else "an import that fails"
    return ""


def main() -> int:
    """Run the sample; return the exit code."""
    parser = argparse.ArgumentParser(description="Mutants made by a machine")
    parser.add_argument("--count", type=int, default=150, help="size of the sample; 0: all (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--module", default="mai/core", help="file or folder (default: mai/core)")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (default: 2)")
    given = parser.parse_args()
    started, choose = time.monotonic(), random.Random(given.seed)
    every = one_a_place(changes(given.module), choose)
    chosen = choose.sample(every, given.count) if 0 < given.count < len(every) else every
    survivors, explained = 0, 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for change, by in zip(sample := [made(one) for one in chosen], pool.map(caught, sample), strict=True):
            lines = [line[1:].strip() for line in change.diff.splitlines() if line.startswith("-")]
            why = next((EXPLAINED[change.file, line] for line in lines if (change.file, line) in EXPLAINED), "")
            survivors += not by
            explained += not by and bool(why)
            verdict = f"ok    {change.name}: {by}" if by else f"{'same' if why else 'LEFT'}  {change.name}: {why}"
            print(verdict if by else f"{verdict}\n{change.diff}", flush=True)
    found = len(sample) - survivors
    rate = found / max(1, len(sample) - explained)
    print(
        f"{found} of {len(sample)} mutants (of {len(every)}) were caught, {explained} of the others change nothing that"
        f" can be told: {rate:.1%} (target {TARGET:.0%}), in {time.monotonic() - started:.0f} s"
    )
    return int(rate < TARGET)


if __name__ == "__main__":
    sys.exit(main())
