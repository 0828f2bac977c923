"""Journals against a model of dictionaries: two workers, crashes, clocks that jump, in any order."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mai.core.clock import clock
from mai.durable import MemoryJournal
from mai.durable.records import ENDED, Lease, Record
from mai.durable.storage import SQLiteJournal
from mai.errors import AlreadyRecorded, ConfigError, Fenced, RunExists, UnknownRun
from tests.durable.storage.support import MEMORY

T = TypeVar("T")
DAY = 86_400.0
RUNS = st.sampled_from(["r1", "r2", "fork of r1"])
PATHS = st.sampled_from(["a", "a/b", "a/b~2", "c[0]", "ü\0 \U0001f600"])
NAMES = st.sampled_from(["go", "stop"])
PAYLOADS = [b"", b"1", b'"x"', b"\xff\x00", b"y" * (1 << 20), b"z" * ((1 << 20) + 1)]
DATA = st.integers(0, len(PAYLOADS) - 1).map(lambda number: PAYLOADS[number])  # else each draw would write them all out
WHO = st.sampled_from([0, 1])


@dataclass
class Run:
    """What the model knows of a run."""

    target: str
    input: bytes
    status: str = "pending"
    owner: str | None = None
    epoch: int = 0
    claims: int = 0
    before: int = 0  # records, when it was last claimed or given back
    cancelled: bool = False
    waits: dict[str, str] = field(default_factory=dict)
    ready: bool = True  # to be claimed, once it is as late as it was then
    records: list[tuple[str, str, bytes | None]] = field(default_factory=list)  # path, kind, output
    signals: list[list[Any]] = field(default_factory=list)  # name, id, data, path
    value: bytes | None = None
    updated: float = 0.0

    def output(self, path: str) -> bytes | None:
        """Return what is recorded at *path*."""
        return next(output for at, _, output in self.records if at == path)


class JournalAgainstModel(RuleBasedStateMachine):
    """Each rule does one thing to the journal and to the model, and compares what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.before = dict(vars(clock))
        self.now, self.wall = 1000.0, 1e9
        vars(clock).update(now=lambda: self.now, wall=lambda: self.wall)
        self.root = Path(tempfile.mkdtemp(dir=MEMORY))
        self.generation = 0
        self.runs: dict[str, Run] = {}
        self.leases: list[Lease] = []
        self.journals: list[Any] = []

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @property
    def file(self) -> Path:
        return self.root / f"{self.generation}.db"

    @initialize()
    def start(self) -> None:
        self.journals = [self.do(SQLiteJournal(self.file, durability="process").open()) for _ in range(2)]

    def teardown(self) -> None:
        for journal in self.journals:
            self.do(journal.close())
        left = sorted(path.name for path in self.root.glob(f"{self.generation}.db*"))
        self.loop.close()
        vars(clock).clear()
        vars(clock).update(self.before)
        shutil.rmtree(self.root)
        assert left == [f"{self.generation}.db"]  # whoever closes last leaves one plain file

    def owner(self, who: int) -> str:
        return f"owner {who} of {self.generation}"

    @rule(crash=st.booleans())
    def start_again(self, crash: bool) -> None:
        """All processes end, by a crash or in order, and new ones begin on what is on disk."""
        old, self.generation = self.file, self.generation + 1
        if not crash:
            for journal in self.journals:
                self.do(journal.close())
        for end in ("", "-wal"):
            if (found := Path(f"{old}{end}")).exists():
                shutil.copy(found, f"{self.file}{end}")
        if crash:
            for journal in self.journals:
                self.do(journal.close())
            self.now += DAY  # nobody renews a lease any more
        self.start()

    @rule(by=st.sampled_from([-DAY, -1.0, 0.5, DAY]))
    def the_wall_clock_jumps(self, by: float) -> None:
        self.wall += by

    @rule(who=WHO, run_id=RUNS, module=st.sampled_from(["t", "u"]), data=DATA, claims=st.booleans())
    def create(self, who: int, run_id: str, module: str, data: bytes, claims: bool) -> None:
        owner = self.owner(who) if claims else None
        work = self.journals[who].create(
            run_id, target=module, plan=b"plan of " + module.encode(), fingerprint="f", input=data, owner=owner
        )
        run = self.runs.get(run_id)
        if run is not None and (run.target, run.input) != (module, data):
            with pytest.raises(RunExists):
                self.do(work)
            return
        info, made = self.do(work)
        assert made is (run is None)
        if made:
            self.runs[run_id] = run = Run(module, data)
            if owner is not None:
                run.status, run.owner, run.epoch, run.claims, run.ready = "running", owner, 1, 1, False
                self.leases.append(Lease(run_id, owner, info.epoch))
            run.updated = self.wall

    @precondition(lambda self: self.runs)
    @rule(who=WHO, run_id=RUNS)
    def claim(self, who: int, run_id: str) -> None:
        work = self.journals[who].claim(run_id, self.owner(who))
        run = self.runs.get(run_id)
        if run is None:
            with pytest.raises(UnknownRun):
                self.do(work)
            return
        claimed = self.do(work)
        lives = run.owner in (self.owner(0), self.owner(1)) and run.owner != self.owner(who)
        assert (claimed is None) is (lives or run.status in ENDED or run.status == "needs_attention")
        if claimed is not None:
            lease, info, records = claimed
            run.status, run.owner, run.waits, run.ready = "running", self.owner(who), {}, False
            run.claims = run.claims + 1 if len(run.records) == run.before else 1
            run.epoch, run.updated, run.before = run.epoch + 1, self.wall, len(run.records)
            assert (info.claims, lease) == (run.claims, Lease(run_id, self.owner(who), run.epoch))
            assert [(record.path, record.kind, record.output) for record in records] == run.records
            self.leases.append(lease)

    def holds(self, lease: Lease) -> bool:
        run = self.runs.get(lease.run_id)
        return run is not None and (run.owner, run.epoch) == (lease.owner, lease.epoch)

    def fenced(self, lease: Lease, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether *lease* is stale; then *work* must be refused."""
        if self.holds(lease):
            return False
        with pytest.raises(Fenced if lease.run_id in self.runs else UnknownRun):
            self.do(work)
        return True

    @precondition(lambda self: self.leases)
    @rule(who=WHO, index=st.integers(0, 99), path=PATHS, data=st.none() | DATA)
    def append(self, who: int, index: int, path: str, data: bytes | None) -> None:
        lease = self.leases[index % len(self.leases)]
        work = self.journals[who].append(lease, Record(path, "step", output=data, started=1, ended=2.5))
        if self.fenced(lease, work):
            return
        run = self.runs[lease.run_id]
        if path in [at for at, _, _ in run.records]:
            with pytest.raises(AlreadyRecorded) as caught:
                self.do(work)
            assert caught.value.record.output == run.output(path)
            return
        run.records.append((path, "step", data))
        assert self.do(work) == len(run.records)

    @precondition(lambda self: self.leases)
    @rule(who=WHO, index=st.integers(0, 99), path=PATHS, name=NAMES)
    def take(self, who: int, index: int, path: str, name: str) -> None:
        lease = self.leases[index % len(self.leases)]
        work = self.journals[who].take(lease, path, name, 1.0)
        if self.fenced(lease, work):
            return
        run = self.runs[lease.run_id]
        if path in [at for at, _, _ in run.records]:
            with pytest.raises(AlreadyRecorded):
                self.do(work)
            return
        waiting = [signal for signal in run.signals if signal[0] == name and signal[3] is None]
        assert self.do(work) == (waiting[0][2] if waiting else None)
        if waiting:
            waiting[0][3] = path
            run.records.append((path, "wait", waiting[0][2]))

    @precondition(lambda self: self.leases)
    @rule(who=WHO, index=st.integers(0, 99), waits=st.dictionaries(PATHS, NAMES, max_size=2), stuck=st.booleans())
    def release(self, who: int, index: int, waits: dict[str, str], stuck: bool) -> None:
        lease = self.leases[index % len(self.leases)]
        status: Any = "needs_attention" if stuck else "waiting"
        work = self.journals[who].release(lease, status=status, waits=waits)
        if self.fenced(lease, work):
            return
        self.do(work)
        run = self.runs[lease.run_id]
        here = any(name in waits.values() and path is None for name, _, _, path in run.signals)
        run.status, run.owner, run.waits, run.updated = status, None, waits, self.wall
        run.ready = not stuck and (here or run.cancelled)
        run.claims = run.claims if stuck else 0
        run.before = len(run.records)

    @precondition(lambda self: self.leases)
    @rule(who=WHO, index=st.integers(0, 99), status=st.sampled_from(sorted(ENDED)), data=DATA)
    def finish(self, who: int, index: int, status: Any, data: bytes) -> None:
        lease = self.leases[index % len(self.leases)]
        work = self.journals[who].finish(lease, status, output=data)
        if self.fenced(lease, work):
            return
        self.do(work)
        run = self.runs[lease.run_id]
        run.status, run.owner, run.value, run.ready, run.updated = status, None, data, False, self.wall

    @precondition(lambda self: self.runs)
    @rule(who=WHO, run_id=RUNS, name=NAMES, data=DATA, key=st.none() | st.sampled_from(["i", "j"]))
    def signal(self, who: int, run_id: str, name: str, data: bytes, key: str | None) -> None:
        run = self.runs.get(run_id)
        work = self.journals[who].signal(run_id, name, data, id=key)
        if run is None:
            with pytest.raises(UnknownRun):
                self.do(work)
            return
        assert self.do(work) is (run.status not in ENDED)
        if run.status in ENDED or (key is not None and key in [other for _, other, _, _ in run.signals]):
            return
        run.signals.append([name, key, data, None])
        if run.status == "waiting" and name in run.waits.values():
            run.ready, run.updated = True, self.wall

    @precondition(lambda self: self.runs)
    @rule(who=WHO, run_id=RUNS)
    def cancel(self, who: int, run_id: str) -> None:
        run = self.runs.get(run_id)
        if run is None:
            return
        assert self.do(self.journals[who].cancel(run_id)) is (run.status not in ENDED)
        if run.status not in ENDED and not run.cancelled:
            run.cancelled, run.ready, run.updated = True, run.owner is None, self.wall
            run.status = "waiting" if run.status == "needs_attention" else run.status

    @precondition(lambda self: self.runs)
    @rule(who=WHO, run_id=RUNS)
    def resume(self, who: int, run_id: str) -> None:
        run = self.runs.get(run_id)
        if run is None:
            return
        stands = run.owner is None and run.status not in ENDED
        assert self.do(self.journals[who].resume(run_id)) is stands
        if stands:
            run.claims, run.ready, run.updated = 0, True, self.wall
            run.status = "waiting" if run.status == "needs_attention" else run.status

    @precondition(lambda self: self.runs)
    @rule(who=WHO, run_id=RUNS, at=st.none() | PATHS, path=PATHS, data=st.none() | DATA)
    def fork(self, who: int, run_id: str, at: str | None, path: str, data: bytes | None) -> None:
        run, new_id = self.runs.get(run_id), "fork of r1" if run_id == "r1" else "fork"
        if run is None:
            return
        override = {} if data is None else {path: data}
        work = self.journals[who].fork(run_id, new_id, at=at, override=override)
        if new_id in self.runs:
            with pytest.raises(RunExists):
                self.do(work)
            return
        paths = [at for at, _, _ in run.records]
        kept = paths if at is None or at not in paths else paths[: paths.index(at)]
        if (at is not None and at not in paths) or not set(override) <= set(kept):
            with pytest.raises(ConfigError):
                self.do(work)
            return
        self.do(work)
        records = [(at, kind, override.get(at, output)) for at, kind, output in run.records[: len(kept)]]
        self.runs[new_id] = Run(run.target, run.input, records=records, before=len(records), updated=self.wall)

    @rule(who=WHO)
    def prune(self, who: int) -> None:
        old = [run_id for run_id, run in self.runs.items() if run.status in ENDED and run.updated < self.wall]
        assert self.do(self.journals[who].prune(self.wall, sorted(ENDED))) == len(old)  # type: ignore[arg-type]
        for run_id in old:
            del self.runs[run_id]

    async def look(self) -> Any:
        """Ask for everything at once."""
        journal, known = self.journals[0], list(self.runs)
        return await asyncio.gather(
            journal.due(),
            *(journal.runs() for journal in self.journals),
            *(journal.run(run_id) for run_id in known),
            *(journal.history(run_id) for run_id in known),
            *(journal.signals(run_id) for run_id in known),
        )

    @invariant()
    def the_journal_says_what_the_model_says(self) -> None:
        if not self.journals:
            return
        count = len(self.runs)
        due, one, other, *rest = self.do(self.look())
        assert {info.run_id for info in one} == {info.run_id for info in other} == set(self.runs)
        ready = {run_id for run_id, run in self.runs.items() if run.ready and run.updated <= self.wall}
        orphans = {
            run_id for run_id, run in self.runs.items()
            if run.owner is not None and run.owner not in (self.owner(0), self.owner(1))
        }  # fmt: skip
        assert set(due) == ready | orphans
        for at, run in enumerate(self.runs.values()):
            info, records, signals = rest[at], rest[count + at], rest[2 * count + at]
            facts = (info.target, info.input, info.status, info.owner, info.epoch, info.claims, info.cancelled)
            own = (run.target, run.input, run.status, run.owner, run.epoch, run.claims, run.cancelled)
            assert facts == own
            assert (info.output, info.updated) == (run.value, run.updated)
            assert [(record.path, record.kind, record.output) for record in records] == run.records
            assert [record.seq for record in records] == list(range(1, len(records) + 1))
            assert [[signal.name, signal.data, signal.path] for signal in signals] == [
                [name, data, path] for name, _, data, path in run.signals
            ]


SLOW_MACHINE = [HealthCheck.too_slow]


class MemoryAgainstModel(JournalAgainstModel):
    """The journal in memory, which both workers share, and which outlives them."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = MemoryJournal()

    @initialize()
    def start(self) -> None:
        self.journals = [self.shared] * 2

    def teardown(self) -> None:
        self.file.touch()
        super().teardown()

    @rule()
    def start_again(self) -> None:
        for who in (0, 1):
            self.shared.lose(self.owner(who))
        self.generation += 1


TestMemory = MemoryAgainstModel.TestCase
TestMemory.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=SLOW_MACHINE
)
TestJournal = JournalAgainstModel.TestCase
TestJournal.settings = settings(
    max_examples=5, stateful_step_count=15, deadline=None, suppress_health_check=SLOW_MACHINE
)


@pytest.mark.slow
class TestMemoryForLong(MemoryAgainstModel.TestCase):
    """The same with many more examples."""

    settings = settings(max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=SLOW_MACHINE)


@pytest.mark.slow
class TestJournalForLong(JournalAgainstModel.TestCase):
    """The same with many more examples."""

    settings = settings(max_examples=6, stateful_step_count=25, deadline=None, suppress_health_check=SLOW_MACHINE)
