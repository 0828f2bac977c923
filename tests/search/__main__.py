"""Search all shapes and print what was seen: ``python -m tests.search [--seeds N] [--shape NAME] [--long]``.

N seeds are shared out among the shapes; beside that each shape is cancelled, failed and killed at every step, and at
every write of its journal, under a few seeds. ``--long`` takes N for each shape, and four times as many seeds for
what happens at every step. The exit code is 1 if anything failed; the failure says how to see it again.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from .parts import NAMED, PARTS, Found, parts_of, search

CHUNK = 50  # seeds in one job of a process
EVERY = 8  # seeds of what happens at every step
LONGER = 4  # so many times as many for a release


def jobs(seeds: int, names: list[str], *, every: int, long: bool) -> Iterator[tuple[str, str, range]]:
    """Yield the jobs: shape, part, seeds."""
    for i, name in enumerate(names):
        own = seeds if long else seeds // len(names) + (i < seeds % len(names))
        for part in parts_of(name):
            most = own if part == "order" else min(own, every)
            size = CHUNK if part == "order" else 1
            for start in range(0, most, size):
                yield name, part, range(start, min(most, start + size))


def until_a_failure(listed: Iterable[tuple[str, str, range]]) -> list[Found]:
    """Do jobs one after the other until one fails: one seed of everything first, and what takes long at the end."""
    found: list[Found] = []
    for job in sorted(listed, key=lambda job: (job[2].start, PARTS.index(job[1]))):
        found.append(search(*job))
        if found[-1].failure:
            break
    return found


def added(found: list[Found]) -> Found:
    """Return what several jobs of one part have seen together."""
    first = found[0]
    seen = [sum(getattr(one, name) for one in found) for name in ("runs", "interleavings", "seconds")]
    return Found(first.shape, first.part, *seen, failure=next((one.failure for one in found if one.failure), ""))


def table(names: list[str], found: list[Found]) -> str:
    """Return a line for each shape: how many runs of each part, and how long they took."""
    head = f"{'shape':11}" + "".join(f"{part:>9}" for part in PARTS) + f"{'different':>11}{'seconds':>9}  failed"
    lines = [head]
    for name in names:
        parts = {part: [one for one in found if (one.shape, one.part) == (name, part)] for part in PARTS}
        sums = [added(parts[part]) for part in PARTS if parts[part]]
        counts = {one.part: one.runs for one in sums}
        failed = " ".join(one.part for one in sums if one.failure) or "-"
        different, seconds = sum(one.interleavings for one in sums), sum(one.seconds for one in sums)
        cells = "".join(f"{counts.get(part, 0):>9}" for part in PARTS)
        lines.append(f"{name:11}{cells}{different:>11}{seconds:>9.1f}  {failed}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the search; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many interleavings, all shapes together")
    parser.add_argument("--shape", choices=sorted(NAMED), action="append", help="only that one; may be repeated")
    parser.add_argument(
        "--every", type=int, default=EVERY, help="how many of cancels, faults and crashes at every step"
    )
    parser.add_argument(
        "--long", action="store_true", help="so many for each shape, and four times as many at every step"
    )
    parser.add_argument("--first", action="store_true", help="stop at the first failure, in one process")
    given = parser.parse_args(arguments)
    names, started = given.shape or list(NAMED), time.monotonic()
    listed = jobs(given.seeds, names, every=given.every * (LONGER if given.long else 1), long=given.long)
    if given.first:
        found = until_a_failure(listed)
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            running = [pool.submit(search, *job) for job in listed]
            found = [done.result() for done in as_completed(running)]
    print(table(names, found))
    failures = [one for one in found if one.failure]
    for one in failures[:10]:
        print(f"\n{one.shape}, {one.part}: {one.failure}")
    runs, orders = sum(one.runs for one in found), sum(one.runs for one in found if one.part == "order")
    took = time.monotonic() - started
    print(f"\n{orders} seeds, {runs} runs, {len(failures)} failures in {took:.0f} s on {os.cpu_count()} processes")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
