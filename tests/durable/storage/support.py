"""What the tests of the journal share: a claimed run, a picture of what is stored, and programs of their own."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mai
from mai.durable import Lease, Record, SQLiteJournal

T = TypeVar("T")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # for tests in which no disk takes part
GOOD = {"target": "t", "plan": b'{"name": "t"}', "fingerprint": "f", "input": b"1"}


def done(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in an event loop of its own."""
    return asyncio.run(work)


def step(n: int, **facts: Any) -> Record:
    """Return the n-th record of a run."""
    return Record(f"Sequential/Step~{n}", "step", **{"output": b"%d" % n, "started": 1.0, "ended": 2.5, **facts})


async def begun(journal: SQLiteJournal, run_id: str = "r", owner: str = "me", **facts: Any) -> Lease:
    """Make a run and return the lease on it."""
    info, made = await journal.create(run_id, **{**GOOD, "owner": owner, **facts})
    assert made
    return Lease(run_id, owner, info.epoch)


async def filled(path: Path, runs: int = 3, steps: int = 20) -> dict[str, list[Record]]:
    """Make a journal with some runs, the last of which goes on, and return what it has."""
    async with SQLiteJournal(path, durability="process") as journal:
        for number in range(runs):
            lease = await begun(journal, f"run-{number}")
            for n in range(steps):
                await journal.append(lease, step(n, input=b"x" * 40 * n))
            if number < runs - 1:
                await journal.finish(lease, "ok", output=b'"end"')
        return {f"run-{number}": await journal.history(f"run-{number}") for number in range(runs)}


def crashed(path: Path, name: str = "crashed") -> Path:
    """Copy a journal that is open as a crash would leave it, into a folder of its own."""
    folder = path.parent / name
    folder.mkdir()
    for end in ("", "-wal"):
        if (source := Path(f"{path}{end}")).exists():
            shutil.copy(source, folder / f"{path.name}{end}")
    return folder / path.name


def program(code: str, *args: object, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a program in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(mai.__file__).resolve().parents[1],
        env={**os.environ, **(env or {})},
    )


def finished(process: "subprocess.Popen[str]", timeout: float = 60.0) -> str:
    """Wait for a program, and return what it printed; it must not fail."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out.strip()
