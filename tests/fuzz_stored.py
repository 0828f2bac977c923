"""What `tests.fuzz` reads of stored things: traces, files of journals, and records of durable runs."""

import asyncio
import atexit
import contextlib
import io
import json
import shutil
import tempfile
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from mai import MaiError, Parallel, Retry, TraceHandle, capture, module
from mai.cli import main as mai
from mai.durable import DurableEngine, MemoryJournal, Record, SQLiteJournal
from mai.durable.records import Lease
from mai.testing import SimulationError, simulate

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what a disk adds is only time
RUN = "r"


@cache
def place() -> Path:
    """Return a folder of this process."""
    folder = tempfile.mkdtemp(dir=MEMORY if tempfile.tempdir is None else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Refused(Exception):
    """The failure of a step."""


@module
async def split(text: str) -> list[str]:
    """Return the words."""
    return text.split()


@module(retry=Retry(2, base=0.01))
async def size(word: str) -> int:
    """Return the length of a word, unless it is odd."""
    if word == "odd":
        raise Refused(word)
    return len(word)


@module
async def sure(n: int) -> bool:
    """Return whether there is anything."""
    return n > 0


@module(flow=True)
async def flow(text: str) -> tuple[int, bool]:
    """Call steps of several kinds, one of which may fail."""
    total = 0
    for word in await split(text):
        try:
            total += await size(word)
        except Refused:
            total -= 1
    return total, (await Parallel(sure, sure)(total))[0]


# ---------------------------------------------------------------- traces


@cache
def traces() -> tuple[bytes, ...]:
    """Return traces, as JSON: of a success, of a failure, of what was started."""

    async def main() -> list[TraceHandle[Any]]:
        with capture() as seen:
            await flow("one two odd")
            with contextlib.suppress(Refused):
                await (split >> (lambda words: words[0]) >> size)("odd")
            await flow.start("three")
        return list(seen.runs)

    found = [handle.to_dict() for handle in simulate(main)]
    found[0]["calls"][1] |= {
        "events": [{"at_ns": 5, "name": "cache", "attributes": {"hit": True, "keys": ["a", 1, 0.5, None]}}],
        "links": [{"relation": "detached", "trace_id": "1" * 32, "span_id": "2" * 16}],
        "trace_id": "3" * 32,
        "span_id": "4" * 16,
        "trace_flags": 1,
        "dropped": 3,
        "queued_ns": 7,
    }
    return tuple(json.dumps(one).encode() for one in found)


def read_trace(data: bytes) -> None:
    """Read a trace, and show it in every way; what was read can be written and read again."""
    show_trace(data)
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return  # who parses it gets these from the parser
    handle = TraceHandle.from_dict(plain)
    again = handle.to_dict()
    assert TraceHandle.from_dict(again).to_dict() == again
    assert str(handle)
    assert repr(handle)
    handle.mermaid()
    handle.html()
    handle.to_otlp()


def show_trace(data: bytes) -> None:
    """Run ``mai trace`` on the file; the exit codes are the documented ones."""
    file = place() / "trace.json"
    file.write_bytes(data)
    form = ("tree", "mermaid", "json")[len(data) % 3]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = mai(["trace", str(file), "--format", form])
    assert code in (0, 2), code


# ---------------------------------------------------------------- files of journals


@cache
def journals() -> tuple[bytes, ...]:
    """Return the files of two journals: with runs that ended, and with one that goes on."""

    async def main(path: Path, *, ends: bool) -> None:
        async with SQLiteJournal(path, durability="process") as journal:
            for number in range(3):
                given: Any = {"target": "flow", "plan": b"{}", "fingerprint": "f", "input": b'["a b"]'}
                info, _ = await journal.create(f"run-{number}", owner="me", **given)
                lease = Lease(f"run-{number}", "me", info.epoch)
                for n in range(3):
                    await journal.append(lease, Record(f"flow/size~{n}", "step", output=b"1", started=1.0, ended=2.0))
                await journal.signal(f"run-{number}", "paid", b"5")
                if ends:
                    await journal.finish(lease, "ok", output=b"[3,true]")

    found = list[bytes]()
    for ends in (True, False):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            path = Path(folder) / "runs.db"
            asyncio.run(main(path, ends=ends))
            found.append(path.read_bytes())
    return tuple(found)


def read_journal(data: bytes) -> None:
    """Open a journal, read all of it, and write to it."""

    async def main(path: Path) -> None:
        async with SQLiteJournal(path, create=False, patience=0.02) as journal:  # for each thing that is asked
            for work in (journal.check, journal.runs, lambda: journal.due(1e12)):
                with contextlib.suppress(MaiError):
                    await work()  # type: ignore[operator]
            for number in range(3):
                await look(journal, f"run-{number}")

    async def look(journal: SQLiteJournal, run_id: str) -> None:
        for work in (journal.run, journal.history, journal.signals, journal.export, journal.cancel):
            with contextlib.suppress(MaiError):
                await work(run_id)  # type: ignore[operator]
        with contextlib.suppress(MaiError):
            claimed = await journal.claim(run_id, "another")
            if claimed is not None:
                await journal.append(claimed[0], Record("flow/more", "step", output=b"1"))
                await journal.finish(claimed[0], "ok", output=b"[1,true]")

    path = place() / "runs.db"
    try:
        path.write_bytes(data)
        asyncio.run(main(path))
    finally:
        for file in path.parent.glob("runs.db*"):
            file.unlink()


# ---------------------------------------------------------------- records


@cache
def records() -> tuple[bytes, ...]:
    """Return what runs were given and their records, as JSON: the bytes of payloads are texts."""

    async def main(text: str) -> list[Record]:
        async with DurableEngine(MemoryJournal()) as engine:
            await engine.start(flow, text, run_id=RUN)
            return list(await engine.journal.history(RUN))

    found = list[bytes]()
    for text in ("one two odd", "odd", ""):
        run = [asdict(record) for record in simulate(partial(main, text))]
        found.append(json.dumps({"text": text, "records": run}, default=bytes.decode).encode())
    return tuple(found)


def read_records(data: bytes) -> None:
    """Carry on a run with these records: it ends, or the engine says what is wrong with them."""
    text, listed = given(data)

    async def main() -> Any:
        journal = MemoryJournal()
        _, made = await journal.create(RUN, target="flow", plan=None, fingerprint="", input=written({"text": text}))
        claimed = await journal.claim(RUN, "before")
        assert made
        assert claimed is not None
        for record in listed:
            with contextlib.suppress(MaiError):  # two at one path: a journal has one
                await journal.append(claimed[0], record)
        journal.lose("before")
        async with DurableEngine(journal, modules=[flow]) as engine:
            with contextlib.suppress(Refused):
                await engine.start(flow, text, run_id=RUN)

    try:
        simulate(main)
    except SimulationError as error:  # a MaiError too, but no refusal: the run hangs, or leaves something behind
        raise AssertionError(str(error)) from error


def written(value: object) -> bytes:
    """Return *value* as a journal has it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def given(data: bytes) -> tuple[str, list[Record]]:
    """Return what a run was given, and the records in *data*, with the types that a journal keeps."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        plain = None
    facts: dict[str, Any] = plain if isinstance(plain, dict) else {}
    text, listed = facts.get("text"), facts.get("records")
    ones = [record_of(one) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return text if isinstance(text, str) else "", [one for one in ones if one is not None]


def record_of(one: dict[str, Any]) -> Record | None:
    """Return a record with what *one* has of the right type; a journal in SQLite gives nothing else back."""
    path, kind = one.get("path"), one.get("kind")
    if not isinstance(path, str) or not isinstance(kind, str):
        return None
    facts: dict[str, Any] = {}
    for key in ("input", "output", "error"):
        if isinstance(one.get(key), str):
            facts[key] = one[key].encode("utf-8", "surrogatepass")
    for key in ("due", "started", "ended"):
        if isinstance(one.get(key), int | float) and abs(one[key]) < 1e300:
            facts[key] = float(one[key])
    if isinstance(one.get("attempt"), int) and abs(one["attempt"]) < 2**63:
        facts["attempt"] = one["attempt"]
    if isinstance(one.get("version"), str):
        facts["version"] = one["version"]
    return Record(path, kind, **facts)  # type: ignore[arg-type]
