"""A plan as text for Graphviz."""

from collections.abc import Iterator

from mai.types import WorkflowPlan
from mai.views.outline import label_of, outline, sequences
from mai.views.overlay import Overlay

__all__ = ["dot"]

_COLOURS = {
    "error": "#ffe3e3", "timeout": "#fff3bf", "cancelled": "#f1f3f5", "skipped": "#ffffff", "running": "#e7f5ff",
    "ok": "#ebfbee", "abandoned": "#f1f3f5", "replayed": "#e3fafc", "cached": "#e3fafc",
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
    lines += _clusters(plan, overlay, ids)
    for edge in plan.edges:
        if edge.source in ids:
            lines.append(f"  {ids[edge.source]} -> {ids[edge.target]} [label={_quoted(edge.parameter)}];")
    lines += [f"  {ids[a]} -> {ids[b]};" for a, b in sequences(plan)]
    lines += [f"  out [label={_quoted(plan.gives.text)}, shape=oval];", f"  {ids[plan.output]} -> out;", "}"]
    return "\n".join(lines)


def _clusters(plan: WorkflowPlan, overlay: Overlay, ids: dict[str, str]) -> Iterator[str]:
    for node, depth, part in outline(plan):
        pad = "  " * (depth + 1)
        if part == "closes":
            yield f"{pad}}}"
            continue
        mark = overlay.of(node.id, node.kind)
        label = _quoted(label_of(node) + (f"\n{mark}" if mark else ""))
        looks = f"label={label}, shape={_SHAPES.get(node.kind, 'box')}"
        looks += f', fillcolor="{_COLOURS[mark.outcome]}"' if mark else ""
        if part == "opens":  # the composite itself stands in its cluster, so that edges have where to end
            yield f"{pad}subgraph cluster_{ids[node.id]} {{"
            yield f"{pad}  {ids[node.id]} [{looks}];"
        else:
            yield f"{pad}{ids[node.id]} [{looks}];"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
