"""What the kernel knows of this room: one object that turns a trace into figures, data, text and pictures."""

from typing import Any, TextIO, cast

from mai.types import TraceHandle
from mai.viewed import Viewed
from mai.views import coloured, figures, gantt, stored, waterfall
from mai.views.tree import tree

__all__ = ["TraceView"]


class TraceView:
    """A trace, to be looked at; the view methods of a `TraceHandle` hand on to it."""

    def __init__(self, handle: Viewed) -> None:
        self._handle = cast("TraceHandle[Any]", handle)  # the only class whose view methods these are

    def self_time(self) -> float | None:
        """Return how long the call ran while none inside it did [s]."""
        return figures.self_time(self._handle)

    def queue_time(self) -> float | None:
        """Return how long the call was ready and had to wait [s]."""
        return figures.queue_time(self._handle)

    def critical_path(self) -> list[TraceHandle[Any]]:
        """Return the calls that the duration was spent in."""
        return figures.critical_path(self._handle)

    def total(self, key: str) -> float:
        """Return the sum of an attribute or a figure over the tree."""
        return figures.total(self._handle, key)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain data."""
        return stored.to_dict(self._handle)

    def to_json(self, indent: int | None) -> str:
        """Return the tree as JSON."""
        return stored.to_json(self._handle, indent)

    def to_otlp(self) -> bytes:
        """Return the tree as a request of OTLP."""
        from mai.telemetry.convert import as_otlp  # noqa: PLC0415 (an arrow upwards)

        return as_otlp(self._handle)

    @staticmethod
    def load(data: object) -> TraceHandle[Any]:
        """Return the tree that plain data stand for."""
        return stored.from_dict(data)

    def print(self, file: TextIO | None) -> None:
        """Print the tree in colour, where there is any."""
        coloured.print_trees([self._handle], file)

    def mermaid(self) -> str:
        """Return a Gantt chart."""
        return gantt.gantt(self._handle)

    def html(self) -> str:
        """Return a page of HTML."""
        return waterfall.page([self._handle])

    def embedded_html(self) -> str:
        """Return the page as a notebook shows it."""
        return waterfall.embedded([self._handle])

    def tree(self) -> str:
        """Return the text tree."""
        return tree(self._handle)
