"""Durable runs: what is recorded survives the process."""

from .records import Lease, Record, RunInfo, Signal
from .storage import SQLiteJournal, Tables

__all__ = ["Lease", "Record", "RunInfo", "SQLiteJournal", "Signal", "Tables"]
