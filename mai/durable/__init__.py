"""Durable runs: what is recorded survives the process."""

from mai.durable.engine import DurableEngine
from mai.durable.memory import MemoryJournal

__all__ = ["DurableEngine", "MemoryJournal"]
