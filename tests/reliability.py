"""How reliable is it? The table of figures beside their targets: ``python -m tests.reliability``.

It prints the newest record of each row, and says so where there is none. ``--measure`` measures first: all rows, or
those of the producers that are named; ``--long`` as much as for a release, which takes hours. The records are lines in
``benchmarks/records``.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from benchmarks.harness import append

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
KERNEL = "mai/__init__.py,mai/errors.py,mai/types.py,mai/core/*,mai/layers/*,mai/values/*"
SCALES = ("tiny", "short", "long")
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What it is about.
        target: What is wanted, as text.
        told: Says the figures.
        met: Whether they are as wanted.
    """

    name: str
    target: str
    told: str
    met: Callable[[Figures], bool]


@dataclass(frozen=True)
class Producer:
    """What measures some rows: commands for each scale, and how their output is read.

    Attributes:
        commands: For each of `SCALES` the arguments of Python, several commands after another.
        read: Finds the figures in all that they print; None: they are not there.
        rows: The lines of the table.
    """

    commands: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    read: Callable[[str], Figures | None]
    rows: tuple[Row, ...]


def finder(pattern: str) -> Callable[[str], Figures | None]:
    """Return what reads the named groups of *pattern* out of a text as numbers."""

    def read(text: str) -> Figures | None:
        found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
        return None if found is None else {name: float(number or 0) for name, number in found.groupdict().items()}

    return read


def read_mutants(text: str) -> Figures | None:
    """Count the mutants, and the hazards of which each mutant was caught."""
    figures = finder(r"^(?P<caught>\d+) of (?P<mutants>\d+) mutants were caught")(text)
    pairs = re.findall(r"^hazard +\w+: (\d+) of (\d+) caught$", text, re.MULTILINE)
    whole = sum(caught == planted for caught, planted in pairs)
    return None if figures is None else {**figures, "hazards": len(pairs), "whole": whole}


def read_search(text: str) -> Figures | None:
    """Add up the columns of the search."""
    lines = re.findall(r"^\w+" + r" +(\d+)" * 8 + r" +[\d.]+  ", text, re.MULTILINE)
    failures = finder(r"(?P<failures>\d+) failures in")(text)
    if not lines or failures is None:
        return None
    names = ("order", "cancel", "fail", "crash", "write", "disk", "file", "different")
    sums = {name: float(sum(int(line[i]) for line in lines)) for i, name in enumerate(names)}
    return {**sums, **failures, "shapes": len(lines)}


def read_fuzz(text: str) -> Figures | None:
    """Add up the inputs of all targets."""
    lines = re.findall(r"^(\w+) +(\d+) inputs, (\d+) wrong, ", text, re.MULTILINE)
    if not lines:
        return None
    inputs, wrong = sum(int(n) for _, n, _ in lines), sum(int(n) for *_, n in lines)
    return {"inputs": inputs, "wrong": wrong, "targets": len({name for name, *_ in lines})}


def read_soak(text: str) -> Figures | None:
    """Find the slope, and what is open at the end against after a minute."""
    figures = finder(r"^calls +(?P<calls>\d+):.*^memory +(?P<slope>[-+.\d]+) MB .* error (?P<error>[.\d]+)")(text)
    if figures is None:
        return None
    opened = re.findall(r"^(threads|files|tasks) +(\d+) after a minute, (\d+) at the end", text, re.MULTILINE)
    more = sum(int(end) > int(early) for _, early, end in opened)
    return {**figures, "grown": more, "wrong": text.count("WRONG")}


def read_latency(text: str) -> Figures | None:
    """Find the figures that have a target, in the order of the table."""
    found = re.findall(r"^ *R8  (.+?) {2,}([\d.]+) {2,}([\d.e+]+) .*? ms +(?:NOT )?met$", text, re.MULTILINE)
    by = {next((key for key in LATENCIES if key in what), what): float(figure) for what, _, figure in found}
    return by if set(LATENCIES) <= set(by) else None


def read_types(text: str) -> Figures | None:
    """Count the errors of both checkers, and the mistakes that tests plant and both report."""
    ours = finder(r"Found (?P<mypy>\d+) error")(text) or {"mypy": 0.0 if "Success: no issues" in text else -1.0}
    theirs = finder(r"(?P<pyright>\d+) errors?, \d+ warning")(text)
    planted = (ROOT / "tests" / "typing" / "refused.py").read_text(encoding="utf-8").count("# type: ignore[")
    passed = finder(r"(?P<passed>\d+) passed")(text)
    if theirs is None or ours["mypy"] < 0:
        return None
    return {**ours, **theirs, "planted": planted, "reported": planted if passed and " failed" not in text else 0}


LATENCIES = ("99th percentile", "caller in the loop", "caller in sync code", "Ctrl-C")
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not live")
FUZZ = "-m", "tests.fuzz", "--inputs"
MORE = *FUZZ, "430000", "--seed", "1"  # of what is read quickly
MYPY, PYRIGHT = ("-m", "mypy"), ("-m", "pyright", "--pythonpath", sys.executable)
AND = "&&"  # parts one command from the next


def _covered(*tests: str) -> tuple[str, ...]:
    run = ("-m", "coverage", "run", "-m", *PYTEST[1:], *tests)
    return (*run, AND, "-m", "coverage", "report", f"--include={KERNEL}", "--format=total")


PRODUCERS: dict[str, Producer] = {
    "mutants": Producer(
        (("tests/mutants/run.py", "so many abandoned"), ("tests/mutants/run.py",), ("tests/mutants/run.py",)),
        read_mutants,
        (
            Row(
                "hazards with a test that fails", "all 45", "{whole:.0f} of {hazards:.0f}",
                lambda f: f["whole"] == f["hazards"] >= 45,
            ),
            Row(
                "planted mutants caught", "95 % of 60", "{caught:.0f} of {mutants:.0f}",
                lambda f: f["caught"] >= 0.95 * f["mutants"] and f["mutants"] >= 60,
            ),
        ),
    ),
    "sample": Producer(
        (
            ("-m", "tests.mutants.sample", "--count", "1", "--module", "mai/core/clock.py"),
            ("-m", "tests.mutants.sample", "--count", "20"),
            ("-m", "tests.mutants.sample", "--count", "0"),
        ),
        finder(
            r"^(?P<caught>\d+) of (?P<sample>\d+) mutants \(of (?P<all>\d+)\) .*caught, (?P<same>\d+) of the others"
        ),
        (
            Row(
                "mutants made by a machine", "90 %", "{caught:.0f} of {sample:.0f}, {same:.0f} that change nothing",
                lambda f: f["caught"] >= 0.9 * (f["sample"] - f["same"]),
            ),
        ),
    ),
    "search": Producer(
        (
            ("-m", "tests.search", "--seeds", "2", "--shape", "signalled"),
            ("-m", "tests.search", "--seeds", "10000"),
            ("-m", "tests.search", "--seeds", "2000", "--long"),
        ),
        read_search,
        (
            Row(
                "interleavings, 12 or more shapes", "10,000, 0 fail", "{order:.0f}, {failures:.0f} fail",
                lambda f: f["order"] >= 10_000 and not f["failures"] and f["shapes"] >= 12,
            ),
            Row(
                "cancel, and exception, at every step", "0 lost", "{cancel:.0f} and {fail:.0f}, {failures:.0f} lost",
                lambda f: not f["failures"] and f["shapes"] >= 12,
            ),
            Row(
                "simulated crashes: at every step; journal write", "10,000, 0 lost",
                "{crash:.0f}; {write:.0f} in memory, {disk:.0f} on a disk, {file:.0f} in a file; {failures:.0f} lost",
                lambda f: f["crash"] + f["write"] + f["disk"] + f["file"] >= 10_000 and not f["failures"],
            ),
        ),
    ),
    "kills": Producer(
        (
            ("tests/durable/kill.py", "--kills", "1", "--runs", "2"),
            ("tests/durable/kill.py", "--kills", "100"),
            ("tests/durable/kill.py", "--kills", "500", "--runs", "1000"),
        ),
        finder(r"(?P<kills>\d+) kills \((?P<busy>\d+) .*; (?P<lost>\d+) lost, (?P<twice>\d+) recorded twice"),
        (
            Row(
                "real kills", "500, 0 lost, 0 twice", "{kills:.0f}, {lost:.0f} lost, {twice:.0f} twice",
                lambda f: f["kills"] >= 500 and not f["lost"] + f["twice"],
            ),
        ),
    ),
    "fuzz": Producer(
        (
            ("-m", "tests.fuzz", "--inputs", "3"),
            ("-m", "tests.fuzz", "--inputs", "2000"),
            (*FUZZ, "30000", AND, *MORE, "--target", "payload", AND, *MORE, "--target", "plan"),
        ),
        read_fuzz,
        (
            Row(
                "damaged inputs", "1,000,000, 0 wrong", "{inputs:.0f} of {targets:.0f} kinds, {wrong:.0f} wrong",
                lambda f: f["inputs"] >= 1_000_000 and not f["wrong"],
            ),
        ),
    ),
    "soak": Producer(
        (
            ("-m", "tests.soak", "--minutes", "0.1", "--quiet"),
            ("-m", "tests.soak", "--minutes", "10", "--quiet"),
            ("-m", "tests.soak", "--hours", "24", "--quiet"),
        ),
        read_soak,
        (
            Row(
                "soak: slope of the memory", "< 1 MB/h",
                "{slope:+.2f} (error {error:.2f}) MB/h, {calls:.0f} calls",
                lambda f: f["slope"] - 2 * f["error"] < 1.0 and not f["wrong"],
            ),
            Row("soak: more threads, files or tasks", "none", "{grown:.0f}", lambda f: not f["grown"]),
        ),
    ),
    "latency": Producer(
        (
            ("-m", "benchmarks", "latency", "--quick"),
            ("-m", "benchmarks", "latency", "--rounds", "6"),
            ("-m", "benchmarks", "latency"),
        ),
        read_latency,
        (
            Row("cancel, p99 of 1,000 calls", "< 5 ms", "{99th percentile:.3g} ms", lambda f: f[LATENCIES[0]] < 5),
            Row(
                "caller of a blocked thread is free", "< 50 ms", "{caller in the loop:.3g} ms",
                lambda f: f[LATENCIES[1]] < 50,
            ),
            Row("the same in sync code", "< 50 ms", "{caller in sync code:.3g} ms", lambda f: f[LATENCIES[2]] < 50),
            Row("Ctrl-C, 32 blocked threads", "< 1000 ms", "{Ctrl-C:.3g} ms", lambda f: f[LATENCIES[3]] < 1000),
        ),
    ),
    "coverage": Producer(
        (_covered("tests/core/test_clock.py"), _covered(), _covered()),
        finder(r"^(?P<passed>\d+) passed.*^(?P<percent>\d+)$"),
        (
            Row(
                "branches of the kernel covered", "100 %", "{percent:.0f} % by {passed:.0f} tests",
                lambda f: f["percent"] == 100,
            ),
        ),
    ),
    "examples": Producer(
        ((*PYTEST, "tests/docs/test_hazards.py"), (*PYTEST, "tests/docs"), (*PYTEST, "tests/docs")),
        finder(r"^(?:(?P<failed>\d+) failed, )?(?P<passed>\d+) passed"),
        (Row("examples and pages that run", "all", "{passed:.0f}, {failed:.0f} fail", lambda f: not f["failed"]),),
    ),
    "types": Producer(
        (
            (*MYPY, "tests/typing/ok.py", AND, *PYRIGHT, "tests/typing/ok.py"),
            (*MYPY, AND, *PYRIGHT, AND, *PYTEST, "tests/typing"),
            (*MYPY, AND, *PYRIGHT, AND, *PYTEST, "tests/typing"),
        ),
        read_types,
        (
            Row(
                "mypy --strict, pyright strict", "0 errors", "{mypy:.0f} and {pyright:.0f}",
                lambda f: not f["mypy"] + f["pyright"],
            ),
            Row(
                "planted mistakes reported by both", "26 of 27", "{reported:.0f} of {planted:.0f}",
                lambda f: f["reported"] >= 26,
            ),
        ),
    ),
}  # fmt: skip


def parts(command: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the commands of which *command* is made."""
    ends = [i for i, word in enumerate(command) if word == AND]
    return [command[start:end] for start, end in zip([0, *(i + 1 for i in ends)], [*ends, len(command)], strict=True)]


def measured(name: str, scale: str) -> dict[str, Any]:
    """Run a producer; return what a record of it says."""
    producer, output, started = PRODUCERS[name], "", time.monotonic()
    for words in parts(producer.commands[SCALES.index(scale)]):
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        output += done.stdout
    figures = producer.read(output)
    facts = {"producer": name, "scale": scale, "seconds": round(time.monotonic() - started), "figures": figures}
    return facts if figures is not None else {**facts, "said": output[-2000:]}


def newest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the newest record of each producer."""
    found: dict[str, dict[str, Any]] = {}
    for file in folder.glob("*-reliability.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["when"] >= found.get(entry["producer"], entry)["when"]:
                found[entry["producer"]] = entry
    return found


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as text."""
    lines = [("what", "target", "figure", "", "measured")]
    for name, producer in PRODUCERS.items():
        entry = records.get(name)
        lines += [(row.name, row.target, *_cells(row, entry)) for row in producer.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    met = [line[3] for line in lines[1:]]
    counts = f"{met.count('met')} of {len(met)} met, {met.count('')} not measured"
    return "\n".join([*text, "", counts])


def _cells(row: Row, entry: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if entry is None:
        return "not measured", "", ""
    when = f"{entry['when'][:10]} {entry['commit'][:12]} {entry['scale']}, {entry['seconds']} s"
    if entry["figures"] is None:
        return "the measurement failed", "NOT met", when
    if not {name for _, name, _, _ in Formatter().parse(row.told) if name} <= entry["figures"].keys():
        return "not measured", "", ""  # by a producer that had not all of its figures yet
    return row.told.format(**entry["figures"]), "met" if row.met(entry["figures"]) else "NOT met", when


def main(argv: list[str] | None = None, folder: Path = RECORDS) -> int:
    """Measure, if it is asked for, and print the table; return 0 if all that was measured is as wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument(
        "--measure", nargs="*", choices=[[], *PRODUCERS], metavar="NAME", help=f"measure: {', '.join(PRODUCERS)}"
    )
    parser.add_argument("--long", action="store_true", help="measure as much as for a release")
    given = parser.parse_args(argv)
    if given.measure is not None:
        for name in given.measure or PRODUCERS:
            append("reliability", measured(name, "long" if given.long else "short"), folder)
            print(f"{name} measured", file=sys.stderr, flush=True)
    text = table(newest(folder))
    print(text)
    return int("NOT met" in text)


if __name__ == "__main__":
    sys.exit(main())
