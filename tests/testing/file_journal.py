"""A journal as somebody may write it: lines in one file, on a simulated disk."""

import json
from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any
from zlib import crc32

from mai.durable import MemoryJournal, Record, RunInfo
from mai.durable.records import Signal
from mai.testing import SimulatedDisk


class FileJournal(MemoryJournal):
    """A journal of lines in one file: each has a checksum, tells all that one write has changed, and is synced.

    It keeps what runs, steps and signals need; what a transaction writes into tables is lost with the process.

    Args:
        disk: Where the file is.
        flaw: What it forgets: to sync the file or the folder, or to cut off what is torn.
    """

    def __init__(self, disk: SimulatedDisk, flaw: str = "") -> None:
        super().__init__()
        self.disk, self.flaw = disk, flaw
        self.file: Any = None

    async def open(self) -> None:
        known = self.disk.names()
        self.file = self.disk.open("log", "a+b")
        if not known and self.flaw != "folder":
            self.disk.fsync_folder()
        self.file.seek(0)
        good = 0
        for line in self.file.read().splitlines(keepends=True):
            crc, _, data = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or crc != b"%08x" % crc32(data):
                break
            self._redo(json.loads(data))
            good += len(line)
        if self.flaw != "tail":
            self.file.truncate(good)

    def _redo(self, entry: dict[str, Any]) -> None:
        info = RunInfo(**_bytes(entry["run"]))
        self._records.setdefault(info.run_id, {})
        self._runs[info.run_id] = info
        self._signals[info.run_id] = [Signal(**_bytes(one)) for one in entry["signals"]]
        if "record" in entry:
            record = Record(**_bytes(entry["record"]))
            self._records[info.run_id][record.path] = record
        if entry["plan"]:
            self._blobs[info.plan] = b64decode(entry["plan"])

    def _log(self, run_id: str, path: str | None = None) -> None:
        info = self._runs[run_id]
        plan = b64encode(self._blobs.get(info.plan, b"")).decode()
        signals = [_text(asdict(one)) for one in self._signals[run_id]]
        entry: dict[str, Any] = {"run": _text(asdict(info)), "plan": plan, "signals": signals}
        if path is not None:
            entry["record"] = _text(asdict(self._records[run_id][path]))
        data = json.dumps(entry).encode()
        self.file.write(b"%08x %s\n" % (crc32(data), data))
        self.file.flush()
        if self.flaw != "sync":
            self.disk.fsync(self.file)

    async def create(self, run_id: str, **facts: Any) -> Any:
        made = await super().create(run_id, **facts)
        self._log(run_id)
        return made

    async def claim(self, run_id: str, owner: str, ttl: float = 30.0) -> Any:
        claimed = await super().claim(run_id, owner, ttl)
        self._log(run_id)
        return claimed

    async def append(self, lease: Any, record: Any) -> int:
        number = await super().append(lease, record)
        self._log(lease.run_id, record.path)
        return number

    async def take(self, lease: Any, path: str, name: str, started: float) -> bytes | None:
        taken = await super().take(lease, path, name, started)
        if taken is not None:
            self._log(lease.run_id, path)
        return taken

    async def signal(self, run_id: str, name: str, data: bytes, *, id: str | None = None) -> bool:  # noqa: A002
        stored = await super().signal(run_id, name, data, id=id)
        self._log(run_id)
        return stored

    async def release(self, lease: Any, **facts: Any) -> None:
        await super().release(lease, **facts)
        self._log(lease.run_id)

    async def finish(self, lease: Any, status: Any, **facts: Any) -> None:
        await super().finish(lease, status, **facts)
        self._log(lease.run_id)


def _text(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {"b64": b64encode(value).decode()} if isinstance(value, bytes) else value for key, value in facts.items()
    }


def _bytes(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        key: b64decode(value["b64"]) if isinstance(value, dict) and "b64" in value else value
        for key, value in facts.items()
    }
