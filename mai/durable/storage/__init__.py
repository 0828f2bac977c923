"""The journal in one SQLite file; the only place that touches SQLite."""

from .journal import SQLiteJournal
from .tables import Tables

__all__ = ["SQLiteJournal", "Tables"]
