"""Durable runs on a Restate server or cluster."""

from .engine import RestateEngine
from .runner import RemoteRun, RestateRunner
from .tables import RemoteInfo

__all__ = ["RemoteInfo", "RemoteRun", "RestateEngine", "RestateRunner"]
