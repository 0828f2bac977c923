"""Durable runs on a Restate server or cluster."""

from .engine import RestateEngine
from .runner import RemoteInfo, RemoteRun, RestateRunner

__all__ = ["RemoteInfo", "RemoteRun", "RestateEngine", "RestateRunner"]
