"""A trace laid over a plan: what became of each step."""

import re
from typing import Any, NamedTuple

from mai.types import TraceHandle, WorkflowPlan
from mai.views.outcomes import glyph
from mai.views.text import seconds_text

__all__ = ["Mark", "Overlay"]

_WORST = ("error", "timeout", "cancelled", "abandoned", "running", "suspended", "ok", "cached", "replayed", "skipped")


class Mark(NamedTuple):
    """What became of a step: its outcome, the sum of its times [s], and how often it was called."""

    outcome: str
    seconds: float | None
    calls: int

    def __str__(self) -> str:
        time = "" if self.seconds is None else f" {seconds_text(self.seconds)}"
        return f"{glyph(self.outcome)}{time}{f' x{self.calls}' if self.calls > 1 else ''}"


class Overlay:
    """The marks of all steps of a plan; none where there is no trace.

    The steps at the top of a graph stand below its handle, the one step of any other plan is the handle itself.
    Handles of the items of a Map and the turns of a Loop are summed up in the one step that stands for them.
    """

    def __init__(self, plan: WorkflowPlan, trace: TraceHandle[Any] | None) -> None:
        self._trace = trace
        self._marks: dict[str, Mark] = {}
        if trace is None:
            return
        root = trace.step_id
        known = {node.id for node in plan.nodes}
        for handle in trace.walk():
            ident = handle.step_id[len(root) + 1 :] if plan.kind == "graph" else plan.name + handle.step_id[len(root) :]
            if ident not in known:
                ident = re.sub(r"\[\d+\]", "[*]", ident)
            if ident in known:
                self._add(ident, handle)

    def _add(self, ident: str, handle: TraceHandle[Any]) -> None:
        had = self._marks.get(ident, Mark(handle.outcome, None, 0))
        outcome = min(had.outcome, handle.outcome, key=_WORST.index)
        both = [seconds for seconds in (had.seconds, handle.duration) if seconds is not None]
        self._marks[ident] = Mark(outcome, sum(both) if both else None, had.calls + 1)

    def of(self, ident: str, kind: str = "module") -> Mark | None:
        """Return the mark of a step, None where nothing is known of it; a cast leaves no trace."""
        if self._trace is None or kind == "cast":
            return None
        return self._marks.get(ident) or (None if self._trace.dropped else Mark("skipped", None, 0))
