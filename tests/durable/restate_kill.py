"""Kills real workers and servers of a Restate cluster: ``python tests/durable/restate_kill.py --rounds 20``.

Three server nodes and two workers that share one address run on loopback. In each round runs of four shapes begin, and
at a random time in the middle of them a worker, or a node, or one of both, is killed with SIGKILL, and started again a
little later. Then every run must end with the value of a straight run in memory.

Each body of a step writes down when it began and for whom, in a file opened for appending. The journals say when the
result of each step was recorded. A body that began again after the kill, though its result was recorded before, did
what was done already: there may be none. A body that was under way in a killed worker has no result, and runs again:
these are counted, too.

Needs the extra ``restate`` and the server, as `tests/durable/restate_servers.py` says.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mai import BlockingDelay, Context, Loop, Map, Module, NonBlockingDelay, Parallel, module
from mai.durable.restate import RestateRunner
from tests.durable.restate_servers import Servers, free_port, waited

ROOT = Path(__file__).resolve().parents[2]
LOG = "RESTATE_KILL_LOG"  # the environment variable that names the file in which bodies say that they began
KINDS = ("worker", "node", "both")
PATIENCE = 120.0  # seconds after which a run counts as lost


def began() -> None:
    """Write down that a body began; a line is written whole or not at all."""
    if (name := os.environ.get(LOG)) is None:  # the straight run
        return
    context = Context.get()
    line = json.dumps([time.time(), context.run_id, context.step_id, os.getpid()])
    file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@module
async def work(n: int) -> int:
    began()
    await asyncio.sleep(0.05)
    return n + 1


@module
def slow(n: int) -> int:
    began()
    time.sleep(0.1)
    return n + 2


@module
async def spread(n: int) -> list[int]:
    began()
    return list(range(n, n + 5))


@module
async def total(numbers: list[int]) -> int:
    began()
    return sum(numbers) % 1000


parallel: Module[Any, Any] = (Parallel(work >> work, work, slow, work >> slow >> work) >> total).with_(name="parallel")
nested: Module[Any, Any] = (
    Parallel(
        work >> Parallel(work, slow >> work) >> total,
        spread >> Map(work >> slow, concurrency=2) >> total,
    )
    >> total
).with_(name="nested")
delayed: Module[Any, Any] = (
    work
    >> BlockingDelay(0.4)
    >> Parallel(NonBlockingDelay(0.6) >> work, work >> BlockingDelay(0.2) >> slow, limit=1)
    >> total
).with_(name="delayed")
looping: Module[Any, Any] = Loop(Parallel(work, slow) >> total, max_iters=8).with_(name="looping")
SHAPES = {"parallel": parallel, "nested": nested, "delayed": delayed, "looping": looping}


@dataclass
class Figures:
    """What came of the rounds of one kind."""

    kills: int = 0
    runs: int = 0
    in_flight: int = 0
    wrong: list[str] = field(default_factory=list)
    bodies: int = 0
    again: int = 0
    repeated: list[str] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        took = sorted(self.recovery) or [0.0]
        facts = (
            f"{self.kills} kills, {self.in_flight} of {self.runs} runs were under way; "
            f"{self.runs - len(self.wrong)} ended right, {len(self.wrong)} did not; "
            f"{self.bodies} bodies, {self.again} begun again, {len(self.repeated)} of them though recorded; "
            f"from the kill to the last end: median {statistics.median(took):.1f} s, most {took[-1]:.1f} s"
        )
        return "\n  ".join([facts, *self.wrong, *self.repeated])


class Worker:
    """A process of `mai worker`; killed and started again at the same address."""

    def __init__(self, folder: Path, number: int, port: int, log: Path) -> None:
        self.port, self.log = port, log
        self.said = folder / f"worker-{number}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, admin: str) -> None:
        targets = [f"{Path(__file__).resolve()}:{name}" for name in SHAPES]
        command = [sys.executable, "-m", "mai.cli", "worker", "--restate", admin, "--port", str(self.port), *targets]
        env = {**os.environ, LOG: str(self.log), "PYTHONPATH": str(ROOT)}
        before = self._served()
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, env=env, cwd=ROOT)
        waited(lambda: self._served() > before or self._gone(), 30.0, f"a worker does not serve; see {self.said}")
        assert not self._gone(), f"a worker ended by itself:\n{self.said.read_text(encoding='utf-8')}"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _served(self) -> int:
        return self.said.read_bytes().count(b"serving") if self.said.exists() else 0

    def _gone(self) -> bool:
        return self.process is None or self.process.poll() is not None


class Driver:
    """The servers, the workers, and what is done to them."""

    def __init__(self, folder: Path, servers: Servers, runs: int, workers: int, seed: int) -> None:
        self.log = folder / "bodies"
        self.log.touch()
        self.servers, self.runs, self.draw = servers, runs, random.Random(seed)
        port = free_port()
        self.workers = [Worker(folder, i, port, self.log) for i in range(workers)]
        self.figures: dict[str, Figures] = {}

    async def round(self, runner: RestateRunner, kind: str, number: int) -> None:
        """Begin runs, kill in the middle of them, and see what comes of them."""
        figures = self.figures.setdefault(kind, Figures())
        begun: dict[str, tuple[Module[Any, Any], int]] = {}
        tasks: dict[str, asyncio.Task[Any]] = {}
        for name, one in SHAPES.items():
            for k in range(self.runs):
                run_id, x = f"{kind}-{number}-{name}-{k}", self.draw.randrange(100)
                run = await runner.start(one, x, run_id=run_id)
                begun[run_id] = (one, x)
                tasks[run_id] = asyncio.ensure_future(_ended(run))
        await asyncio.sleep(self.draw.uniform(0.05, 1.0))
        figures.in_flight += sum(not task.done() for task in tasks.values())
        figures.kills += 1
        killed, at = time.monotonic(), time.time()
        restart = self._kill(kind, set(begun))
        await asyncio.sleep(self.draw.uniform(0.1, 1.5))
        await asyncio.get_running_loop().run_in_executor(None, restart)
        ends = await asyncio.gather(*tasks.values())
        figures.recovery.append(max(0.0, max(end for _, end in ends) - killed))
        for (run_id, (one, x)), (found, _) in zip(begun.items(), ends, strict=True):
            figures.runs += 1
            if found != (wanted := await one(x)):
                figures.wrong.append(f"{run_id} gave {found!r}, not {wanted!r}")
        self._count(figures, set(begun), at)

    def _kill(self, kind: str, begun: set[str]) -> Any:
        """Kill, and return how to start again what was killed."""
        worker = self._busiest(begun) if kind != "node" else None
        node = self.draw.choice(self.servers.nodes) if kind != "worker" else None
        if node is not None:
            node.kill()
        if worker is not None:
            worker.kill()

        def restart() -> None:
            if worker is not None:
                worker.start(next(one.admin for one in self.servers.nodes if one is not node))
            if node is not None:
                node.start()
                self.servers.wait_healthy()

        return restart

    def _busiest(self, begun: set[str]) -> Worker:
        """Return the worker that began the most bodies of these runs."""
        pids = Counter(pid for _, run_id, _, pid in self._lines() if run_id in begun)
        return max(self.workers, key=lambda one: pids[one.process.pid] if one.process is not None else -1)

    def _lines(self) -> Iterator[tuple[float, str, str, int]]:
        for line in self.log.read_text(encoding="utf-8").splitlines():
            at, run_id, step_id, pid = json.loads(line)
            yield at, run_id, step_id, pid

    def _count(self, figures: Figures, begun: set[str], killed: float) -> None:
        """Compare what bodies wrote down with what the journals say."""
        recorded = self._recorded(begun)
        seen: set[tuple[str, str]] = set()
        for at, run_id, step_id, _ in self._lines():
            if run_id not in begun:
                continue
            figures.bodies += 1
            step = run_id, step_id.strip("/")
            if step in seen:
                figures.again += 1
                if recorded[step] < killed < at:
                    figures.repeated.append(f"{run_id} {step_id} began {at - killed:.3f} s after the kill")
            seen.add(step)
        lost = {step for step in seen - recorded.keys() if not any(step[0] in text for text in figures.wrong)}
        assert not lost, f"bodies that no journal knows: {sorted(lost)[:3]} of {sorted(recorded)[:3]}"

    def _recorded(self, begun: set[str]) -> dict[tuple[str, str], float]:
        """Return when the result of each step was recorded, by run and path."""
        keys = ", ".join(f"'{run_id}'" for run_id in sorted(begun))
        rows = self.servers.query(
            "select i.target_service_key as run_id, j.entry_type, j.name, j.appended_at, j.entry_lite_json as entry "
            "from sys_journal j join sys_invocation i on i.id = j.id "
            f"where i.target_service_key in ({keys}) and i.target_handler_name = 'run' "
            "and j.entry_type in ('Command: Run', 'Notification: Run')"
        )
        paths: dict[tuple[str, int], str] = {}
        times: dict[tuple[str, int], float] = {}
        for row in rows:
            ((kind, entry),) = json.loads(row["entry"]).items()
            if kind == "Command":
                paths[row["run_id"], entry["Run"]["completion_id"]] = row["name"]
            else:
                at = datetime.fromisoformat(row["appended_at"]).timestamp()
                times[row["run_id"], entry["id"]["CompletionId"]] = at
        return {
            (run_id, path.strip("/")): times[run_id, n] for (run_id, n), path in paths.items() if (run_id, n) in times
        }


async def _ended(run: Any) -> tuple[Any, float]:
    """Return what came of a run, and when."""
    try:
        found = await asyncio.wait_for(run.result(), PATIENCE)
    except Exception as error:  # noqa: BLE001 (it is told as what the run gave)
        found = error
    return found, time.monotonic()


async def drive(driver: Driver, kinds: list[str], rounds: int) -> None:
    """Do the rounds, and print what came of them."""
    async with RestateRunner(driver.servers.ingress, admin=driver.servers.admin) as runner:
        for kind in kinds:
            for number in range(rounds):
                await driver.round(runner, kind, number)
            print(f"{kind}: {driver.figures[kind]}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the driver; 1 if a run did not end right, or a recorded step was done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="kills of each kind")
    parser.add_argument("--kind", choices=KINDS, action="append", help="what to kill; all three if not given")
    parser.add_argument("--runs", type=int, default=2, help="runs of each shape in a round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where logs and data are kept; else they are deleted")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        folder: Path = args.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        with Servers(folder, args.nodes) as servers:
            driver = Driver(folder, servers, args.runs, args.workers, args.seed)
            try:
                for worker in driver.workers:
                    worker.start(servers.admin[0])
                asyncio.run(drive(driver, args.kind or [*KINDS], args.rounds))
            finally:
                for worker in driver.workers:
                    worker.kill()
    return int(any(one.wrong or (kind == "worker" and one.repeated) for kind, one in driver.figures.items()))


if __name__ == "__main__":
    raise SystemExit(main())
