"""A plan as a Mermaid flowchart."""

from collections.abc import Iterator

from mai.types import WorkflowPlan
from mai.views.outline import label_of, outline, sequences
from mai.views.overlay import Overlay

__all__ = ["mermaid"]

_STYLES = {
    "error": "fill:#ffe3e3,stroke:#c92a2a", "timeout": "fill:#fff3bf,stroke:#e67700",
    "cancelled": "fill:#f1f3f5,stroke:#868e96", "skipped": "fill:#ffffff,stroke:#ced4da,stroke-dasharray:4",
    "running": "fill:#e7f5ff,stroke:#1971c2", "ok": "fill:#ebfbee,stroke:#2f9e44",
    "abandoned": "fill:#f1f3f5,stroke:#868e96", "replayed": "fill:#e3fafc,stroke:#0c8599",
    "cached": "fill:#e3fafc,stroke:#0c8599",
}  # fmt: skip
_SHAPES = {"cast": "{{{{{}}}}}", "part": "[/{}/]", "pack": "[/{}/]", "conditional": "{{{}}}", "switch": "{{{}}}"}


def mermaid(plan: WorkflowPlan, overlay: Overlay) -> str:
    """Return the text of a flowchart; composites with something inside are frames."""
    ids = {f"${one.name}": f"i{k}" for k, one in enumerate(plan.inputs)}
    ids |= {node.id: f"n{k}" for k, node in enumerate(plan.nodes)}
    lines = ["flowchart TD"]
    lines += [f"  {ids[f'${one.name}']}([{_quoted(f'{one.name}: {one.type.text}')}])" for one in plan.inputs]
    lines += _frames(plan, overlay, ids)
    for edge in plan.edges:
        if edge.source in ids:
            lines.append(f"  {ids[edge.source]} -->|{_quoted(edge.parameter)}| {ids[edge.target]}")
    lines += [f"  {ids[a]} --> {ids[b]}" for a, b in sequences(plan)]
    lines += [f"  out([{_quoted(plan.gives.text)}])", f"  {ids[plan.output]} --> out"]
    used = dict[str, list[str]]()
    for node in plan.nodes:
        mark = overlay.of(node.id, node.kind)
        if mark is not None:
            used.setdefault(mark.outcome, []).append(ids[node.id])
    for outcome, marked in used.items():
        lines += [f"  classDef {outcome} {_STYLES[outcome]}", f"  class {','.join(marked)} {outcome}"]
    return "\n".join(lines)


def _frames(plan: WorkflowPlan, overlay: Overlay, ids: dict[str, str]) -> Iterator[str]:
    for node, depth, part in outline(plan):
        pad = "  " * (depth + 1)
        if part == "closes":
            yield f"{pad}end"
            continue
        mark = overlay.of(node.id, node.kind)
        label = _quoted(label_of(node) + (f"\n{mark}" if mark else ""))
        if part == "opens":
            yield f"{pad}subgraph {ids[node.id]}[{label}]"
        else:
            yield f"{pad}{ids[node.id]}{_SHAPES.get(node.kind, '[{}]').format(label)}"


def _quoted(text: str) -> str:
    safe = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return '"' + safe.replace("\n", "<br/>") + '"'
