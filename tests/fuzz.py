"""Damaged data: ``python -m tests.fuzz [--inputs N] [--target NAME] [--seed N] [--processes N]``.

Each target reads what others may have written: payloads, plans, traces, journals, command lines. Valid examples are
damaged (bytes flipped, parts cut, repeated, moved, replaced by what is odd, nested deeply), and read. Only the errors
that the target declares may come, and none may take more than a second of the processor. What breaks that is printed
with the input; the exit code is 1 then. The same seed does the same damage, on however many processes. Hypothesis
searches the same targets in ``tests/laws/test_fuzz.py``, and ``tests/fuzz_guided.py`` does guided by coverage.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import typer.main
from pydantic import BaseModel, ValidationError

from mai import Conditional, Graph, Loop, MaiError, NonBlockingDelay, Payload, Switch, WorkflowPlan, module, views
from mai.cli import main as mai
from tests.fuzz_stored import MEMORY, journals, place, read_journal, read_records, read_trace, records, traces

LIMIT = 1.0  # seconds for one input, of the processor
WAITS = 5.0  # seconds for one input, of the clock
TRIES = 5  # where a machine is busy, one that takes long each time is slow
HANG = 60.0  # seconds after which an input is given up
MOST = 10_000  # characters of a command line
CHUNK = 250  # inputs that one process reads in a row


class Doc(BaseModel):
    """A value with fields of several types."""

    text: str
    stars: int = 0
    parts: dict[str, list[float]] = {}
    inner: "Doc | None" = None


@module
async def shout(text: str) -> str:
    """Return it in capitals."""
    return text.upper()


@module
async def length(text: str) -> int:
    """Return how long it is."""
    return len(text)


@module
async def both(text: str, n: int, mark: str = "!") -> str:
    """Return text and number."""
    return f"{text}{n}{mark}"


TYPES: tuple[Any, ...] = (int, float, str, bytes, bool, list[int], dict[str, Any], Doc, tuple[int, str], set[str], Any)
VALUES: tuple[Any, ...] = (5, 0.5, "a", b"ab", True, [1, 2], {"a": [None]}, Doc(text="x"), (1, "a"), {"a"}, None)
MODULES = {"shout": shout, "length": length, "both": both}
FLOW = """
from mai import module
@module
async def shout(text: str, k: int = 3, full: bool = False, tags: list[str] = []) -> str:
    return text.upper() * k
"""


@cache
def plans() -> tuple[str, ...]:
    """Return plans of several kinds, as JSON."""
    wired: Graph[Any, Any] = Graph("wired")
    text = wired.input("text", str)
    wired.output(wired.add(both, wired.add(shout, text), wired.add(length, text), mark="?"))
    line = shout >> NonBlockingDelay(1) >> Conditional(str.isupper, then=shout) >> length
    turns = Loop(shout, until=str.isupper, max_iters=3)
    modules: tuple[Any, ...] = (
        wired,
        line,
        shout & length,
        Switch(len, {1: shout}, otherwise=shout),
        turns,
        shout.map(),
    )
    return tuple(one.plan().model_dump_json() for one in modules)


@dataclass(frozen=True)
class Target:
    """Something that reads data of others.

    Attributes:
        examples: Makes valid data.
        read: Reads data, and does with it what a program would.
        errors: What it may raise.
    """

    examples: Callable[[], tuple[bytes, ...]]
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]


def read_payload(data: bytes) -> None:
    """Read *data* as each type; what was read can be written, sized and read again."""
    for tp in TYPES:
        with contextlib.suppress(MaiError):
            payload = Payload.load(tp, data)
            assert Payload.load(tp, payload.json()).digest == payload.digest
            assert payload.size >= 0


def read_plan(data: bytes) -> None:
    """Read a plan, and ask it everything."""
    plan = WorkflowPlan.model_validate_json(data)
    assert WorkflowPlan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.fingerprint
    for form in ("text", "mermaid", "dot"):
        views.draw(plan, form)
    plan.diff(WorkflowPlan.model_validate_json(plans()[0]))
    plan.validate()
    plan.stages()
    plan.critical_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nobody uses a value is no error, unless warnings are
        Graph.from_plan(plan, MODULES).run("x")


def read_command(data: bytes) -> None:
    """Run ``mai`` with the words of *data* in a folder with a module, a trace and a journal.

    The exit codes are the documented ones.
    """
    words = data.decode("utf-8", "replace").replace("\0", " ").split(" ")
    if len(data) > MOST or any(word.startswith(("-", "@", "/")) and word.lstrip("-@/")[:1] == "" for word in words):
        return  # longer than anybody types, standard input, or all of a folder
    folder = furnished()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        before = set(sys.modules)
        try:
            code = mai(words)
        finally:
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                    del sys.modules[name]
    assert code in (0, 1, 2)


def furnished() -> str:
    """Return the path of a folder with what a command line may name; what earlier ones did to it is undone."""
    folder = place() / "command"
    folder.mkdir(exist_ok=True)
    files = {"flow.py": FLOW.encode(), "trace.json": traces()[0], "runs.db": journals()[1]}
    for entry in folder.iterdir():
        if entry.name not in files and entry.name != "__pycache__":
            entry.unlink() if entry.is_file() else shutil.rmtree(entry)
    for name, content in files.items():
        file = folder / name
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
    return str(folder)


TARGETS = {
    "payload": Target(lambda: tuple(Payload.of(value, type(value)).json() for value in VALUES), read_payload, ()),
    "plan": Target(lambda: tuple(map(str.encode, plans())), read_plan, (MaiError, ValidationError)),
    "trace": Target(traces, read_trace, (MaiError,)),
    "journal": Target(journals, read_journal, (MaiError,)),
    "records": Target(records, read_records, (MaiError,)),
    "command": Target(
        lambda: (
            b"run flow.py:shout hello --k 3",
            b'run flow.py:shout {"text":"a","tags":["b"]} --full --timeout 5 --json',
            b"plan flow.py:shout --format mermaid",
            b"run flow.py:shout --help",
            b"run flow.py:shout hello --trace --trace-json out.json --durable own.db --run-id r",
            b"trace trace.json --format tree",
            b"runs list --db runs.db --status ok --json",
            b"runs show run-1 --db runs.db",
            b'runs signal run-1 paid {"a":1} --db runs.db',
            b"runs prune --db runs.db --older-than 30d",
            b"--version",
        ),
        read_command,
        (),
    ),
}
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1e308, -0.0, "", "\x00", "\ud800", "é" * 50, "a/b[0]~2#1!x", "../../etc",
    [], {}, [[]], {"": {}}, "__class__", "os:system", "\u202e", "9" * 5000,
)  # fmt: skip


def deep(depth: int) -> bytes:
    """Return a list in a list in a list, and so on."""
    return b"[" * depth + b"]" * depth


def damaged(data: bytes, luck: random.Random) -> bytes:
    """Return *data* with something wrong."""
    ways: tuple[Callable[[bytes, random.Random], bytes], ...] = (_bytes, _flip, _json, _json, _json, _junk)
    for _ in range(luck.choice((1, 1, 2, 4))):
        data = luck.choice(ways)(data, luck)
    return data


def _bytes(data: bytes, luck: random.Random) -> bytes:
    at, to = sorted((luck.randrange(len(data) + 1), luck.randrange(len(data) + 1)))
    part = luck.choice((b"", luck.randbytes(3), data[at:to] * 2, b" --", b"--x=1 ", b"{", b'"', b"\xff"))
    return data[:at] + part + data[luck.choice((at, to)) :]


def _flip(data: bytes, luck: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(luck.choice((1, 1, 3))):
        if changed:
            changed[luck.randrange(len(changed))] = luck.choice((0, 255, luck.randrange(256)))
    return bytes(changed)


def _junk(data: bytes, luck: random.Random) -> bytes:
    return luck.choice(
        (deep(luck.choice((10, 1_000, 100_000))), luck.randbytes(30), data * 3, b"", b"NaN", b"1" * 6_000)
    )


def _json(data: bytes, luck: random.Random) -> bytes:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, luck)
    spots = list(_spots(plain)) or [None]
    spot = luck.choice(spots)
    other = luck.choice(spots)
    value = luck.choice(ODD) if other is None or luck.random() < 0.6 else other[0][other[1]]
    if spot is None:
        plain = value
    elif luck.random() < 0.2:
        del spot[0][spot[1]]
    elif isinstance(spot[0], list) and luck.random() < 0.3:
        spot[0].append(value)
    else:
        spot[0][spot[1]] = value
    try:
        return json.dumps(plain).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # it holds itself by now
        return data


def _spots(plain: Any) -> Iterator[tuple[Any, Any]]:
    stack = [plain]
    while stack:
        one = stack.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            yield one, key
            stack.append(one[key])


class Hang(BaseException):
    """An input was not read after `HANG` seconds."""


@contextlib.contextmanager
def watched() -> Generator[None]:
    """Raise `Hang` in the main thread if the block does not end."""

    def end(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(target: Target, data: bytes) -> str:
    """Read *data*; return what was wrong with that, "" if nothing was.

    Slow is what takes `LIMIT` seconds of the processor twice, or `WAITS` seconds of the clock `TRIES` times: where
    others work, a thread that is called waits for the processor, and an input that calls many may take a second.
    """
    took, worked = 0.0, list[float]()
    for _ in range(TRIES):
        started, before = time.perf_counter(), time.process_time()
        try:
            with watched():
                target.read(data)
        except target.errors:
            pass
        except Hang:
            return f"it hangs: not read after {HANG:.0f} s"
        except Exception as error:  # noqa: BLE001 (it is what is looked for)
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__module__}.{type(error).__name__} in {where.name}: {str(error)[:200]}"
        took = time.perf_counter() - started
        worked.append(time.process_time() - before)
        if worked[-1] < LIMIT and took < WAITS:
            return ""
        if sum(one >= LIMIT for one in worked) > 1:
            break
    return f"it took {took:.1f} s, of which it worked {worked[-1]:.1f} s"


@dataclass(frozen=True)
class Job:
    """Inputs that are read in a row: what is drawn for them depends on these facts and on nothing else."""

    name: str
    seed: int
    number: int
    inputs: int


@dataclass(frozen=True)
class Found:
    """What a job has found: problems with their inputs, and how long it took [s]."""

    problems: list[tuple[str, bytes]]
    seconds: float


def fuzzed(job: Job) -> Found:
    """Read the inputs of a job."""
    luck, target, started = random.Random(f"{job.name} {job.seed} {job.number}"), TARGETS[job.name], time.monotonic()
    examples, problems = target.examples(), list[tuple[str, bytes]]()
    for _ in range(job.inputs):
        data = damaged(luck.choice(examples), luck)
        if problem := tried(target, data):
            problems.append((problem, data[:300]))
    return Found(problems, time.monotonic() - started)


def prepared(folder: str) -> None:
    """Begin a process: its files are in *folder*, and the parser of command lines is built once, not for each."""
    tempfile.tempdir = tempfile.mkdtemp(dir=folder)
    typer.main.get_command = cache(typer.main.get_command)


def main() -> int:
    """Fuzz; return the exit code."""
    parser = argparse.ArgumentParser(description="Damaged data")
    parser.add_argument("--inputs", type=int, default=2_000, help="for each target (default: 2000)")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that read at once")
    given = parser.parse_args()
    wrong = 0
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        multiprocessing.Pool(given.processes, prepared, (folder,)) as pool,
    ):
        for name in [given.target] if given.target else TARGETS:
            sizes = [min(CHUNK, given.inputs - start) for start in range(0, given.inputs, CHUNK)]
            jobs = [Job(name, given.seed, number, size) for number, size in enumerate(sizes)]
            wrong += told(name, given.inputs, pool.imap_unordered(fuzzed, jobs))
    return int(wrong > 0)


def told(name: str, inputs: int, found: Iterator[Found]) -> int:
    """Print what was found in one target; return how many inputs were wrong."""
    kinds, seconds = Counter[str](), 0.0
    for one in found:
        seconds += one.seconds
        for problem, data in one.problems:
            kind = problem.partition(":")[0]
            kinds[kind] += 1
            if kinds[kind] <= 3:
                print(f"{name}: {problem}\n    {data!r}", flush=True)
    rate = inputs / max(seconds, 1e-9)
    print(f"{name:10} {inputs} inputs, {kinds.total()} wrong, {seconds:.0f} s, {rate:.0f} a second", flush=True)
    return kinds.total()


if __name__ == "__main__":
    sys.exit(main())
