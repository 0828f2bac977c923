"""What holds in every journal: which values it takes, what a fork takes over, and how a run is exported."""

import base64
import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from ..errors import ConfigError
from ..values.checked import SECONDS, checked
from .records import Record, RunInfo, Signal, Status

__all__ = ["INSIDE", "chosen", "exported", "later", "lease_time", "seconds", "taken_over"]

INSIDE = "!transaction"  # begins what a step records of its own inside


class _At(Protocol):
    @property
    def path(self) -> str: ...


R = TypeVar("R", bound=_At)


def lease_time(value: float) -> float:
    """Return the time for which a lease is given [s], checked."""
    return float(checked("Journal", "ttl", value, SECONDS))


def chosen(name: str, value: Status, allowed: Collection[Status]) -> None:
    """Raise ConfigError if *value* is none of *allowed*."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} cannot be used: give one of {', '.join(map(repr, sorted(allowed)))}")


def seconds(name: str, value: float | None) -> float | None:
    """Return a time as it is kept.

    Raises:
        ConfigError: If it is not finite; SQLite would make NULL of NaN.
    """
    if value is None:
        return None
    if not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} cannot be recorded: give seconds since the epoch, or None")
    return float(value)


def later(metadata: bytes, by: float) -> bytes:
    """Return the metadata of a run whose time begins *by* seconds later, and with it that of its deadline."""
    facts: dict[str, Any] = json.loads(metadata)
    if "deadline" not in facts:
        return metadata
    return json.dumps(facts | {"deadline": facts["deadline"] + by}).encode()


def taken_over(run_id: str, records: Sequence[R], at: str | None, override: Collection[str]) -> list[R]:
    """Return the records that a fork takes over: those before the one at *at*, without what it did inside.

    Raises:
        ConfigError: If *at* or a path in *override* has no record (that is taken over).
    """
    paths = [record.path for record in records]
    if at is not None and at not in paths:
        raise ConfigError(f"fork: at={at!r} cannot be used: the run {run_id!r} has no record there")
    kept = list(records if at is None else records[: paths.index(at)])
    if at is not None:
        kept = [one for one in kept if not one.path.startswith((f"{at}{INSIDE}", f"{at}/"))]
    unknown = sorted(set(override) - {record.path for record in kept})
    if unknown:
        raise ConfigError(f"fork: override={unknown!r} cannot be used: the new run has no such records")
    return kept


def exported(info: RunInfo, plan: bytes | None, records: Iterable[Record], signals: Iterable[Signal]) -> dict[str, Any]:
    """Return all of a run, each payload as the JSON that it is; what is none is given as base64."""
    facts = _facts(info) | {"waits": dict(info.waits), "plan": None if plan is None else json.loads(plan)}
    return {"run": facts, "records": [*map(_facts, records)], "signals": [*map(_facts, signals)]}


def _facts(value: Any) -> dict[str, Any]:
    facts = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: _json(fact) if isinstance(fact, bytes) else fact for name, fact in facts.items()}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return {"base64": base64.b64encode(data).decode()}
