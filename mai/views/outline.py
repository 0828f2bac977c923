"""The nodes of a plan in the order of a drawing: what is inside a composite stands between its two ends."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from mai.types import PlanNode, WorkflowPlan
from mai.values.names import DELAY_SECONDS
from mai.views.overlay import Mark, Overlay

__all__ = ["Line", "drawn", "outline", "sequences"]


class Line(NamedTuple):
    """A step, or the beginning or end of a composite with something inside."""

    node: PlanNode
    depth: int
    part: Literal["step", "opens", "closes"]


def outline(plan: WorkflowPlan) -> Iterator[Line]:
    """Yield the lines of *plan*."""
    inside: dict[str, list[PlanNode]] = {}
    for node in plan.nodes:
        inside.setdefault(node.within, []).append(node)
    stack = [Line(node, 0, "step") for node in reversed(inside.get("", []))]
    while stack:
        line = stack.pop()
        node, depth, part = line
        if part == "closes" or node.id not in inside:
            yield line
            continue
        yield Line(node, depth, "opens")
        stack.append(Line(node, depth, "closes"))
        stack += [Line(inner, depth + 1, "step") for inner in reversed(inside[node.id])]


def drawn(
    plan: WorkflowPlan, overlay: Overlay, write: Callable[[PlanNode, str, Mark | None, str], Iterable[str]]
) -> Iterator[str]:
    """Yield what *write* makes of each line, its label and its mark, indented by its depth."""
    for node, depth, part in outline(plan):
        mark = overlay.of(node.id, node.kind)
        for line in write(node, _label_of(node) + (f"\n{mark}" if mark else ""), mark, part):
            yield f"{'  ' * (depth + 1)}{line}"


def _label_of(node: PlanNode) -> str:
    """Return what is written on a node: the last part of its id, or what it casts to."""
    if node.kind == "cast":
        return f"to {node.gives.text}"
    own = node.id[len(node.within) :].removeprefix("/")
    return own + (f" {node.settings[DELAY_SECONDS]} s" if DELAY_SECONDS in node.settings else "")


def sequences(plan: WorkflowPlan) -> Iterator[tuple[str, str]]:
    """Yield the neighbours in each Sequential."""
    kinds, last = {node.id: node.kind for node in plan.nodes}, dict[str, str]()
    for node in plan.nodes:
        if kinds.get(node.within) == "sequential":
            if node.within in last:
                yield last[node.within], node.id
            last[node.within] = node.id
