"""Durable runs: what is recorded survives the process."""

from .engine import DurableEngine
from .marks import replay_safe
from .memory import MemoryJournal
from .records import Journal, Lease, Record, RunInfo, Signal
from .sqlite import SQLiteEngine
from .storage import SQLiteJournal, Tables
from .transactions import transaction

__all__ = [
    "DurableEngine", "Journal", "Lease", "MemoryJournal", "Record", "RunInfo", "SQLiteEngine", "SQLiteJournal",
    "Signal", "Tables", "replay_safe", "transaction",
]  # fmt: skip
