"""A plan as text for Graphviz."""

from mai.types import PlanNode, WorkflowPlan
from mai.views.outline import drawn, sequences
from mai.views.overlay import Mark, Overlay

__all__ = ["dot"]

_COLOURS = {
    "error": "#ffe3e3", "timeout": "#fff3bf", "cancelled": "#f1f3f5", "skipped": "#ffffff", "running": "#e7f5ff",
    "ok": "#ebfbee", "abandoned": "#f1f3f5", "suspended": "#e7f5ff", "replayed": "#e3fafc", "cached": "#e3fafc",
}  # fmt: skip
_SHAPES = {
    "cast": "hexagon",
    "part": "parallelogram",
    "pack": "parallelogram",
    "conditional": "diamond",
    "switch": "diamond",
}


def dot(plan: WorkflowPlan, overlay: Overlay) -> str:
    """Return the text of a digraph; composites with something inside are clusters."""
    ids = {f"${one.name}": f"i{k}" for k, one in enumerate(plan.inputs)}
    ids |= {node.id: f"n{k}" for k, node in enumerate(plan.nodes)}
    lines = [f"digraph {_quoted(plan.name)} {{", '  node [shape=box, style="rounded,filled", fillcolor=white];']
    lines += [
        f"  {ids[f'${one.name}']} [label={_quoted(f'{one.name}: {one.type.text}')}, shape=oval];" for one in plan.inputs
    ]

    def write(node: PlanNode, label: str, mark: Mark | None, part: str) -> list[str]:
        if part == "closes":
            return ["}"]
        looks = f"label={_quoted(label)}, shape={_SHAPES.get(node.kind, 'box')}"
        looks += f', fillcolor="{_COLOURS[mark.outcome]}"' if mark else ""
        own = f"{ids[node.id]} [{looks}];"  # a composite stands in its cluster, so that edges have where to end
        return [f"subgraph cluster_{ids[node.id]} {{", f"  {own}"] if part == "opens" else [own]

    lines += drawn(plan, overlay, write)
    for edge in plan.edges:
        if edge.source in ids:
            lines.append(f"  {ids[edge.source]} -> {ids[edge.target]} [label={_quoted(edge.parameter)}];")
    lines += [f"  {ids[a]} -> {ids[b]};" for a, b in sequences(plan)]
    lines += [f"  out [label={_quoted(plan.gives.text)}, shape=oval];", f"  {ids[plan.output]} -> out;", "}"]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
