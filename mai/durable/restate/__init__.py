"""Durable runs on a Restate server or cluster."""

from .engine import RestateEngine

__all__ = ["RestateEngine"]
