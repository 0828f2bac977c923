"""Durable runs: what is recorded survives the process."""
