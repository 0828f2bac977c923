"""A plan as a Mermaid flowchart."""

from mai.types import PlanNode, WorkflowPlan
from mai.views.outline import drawn, sequences
from mai.views.overlay import Mark, Overlay

__all__ = ["mermaid"]

_STYLES = {
    "error": "fill:#ffe3e3,stroke:#c92a2a", "timeout": "fill:#fff3bf,stroke:#e67700",
    "cancelled": "fill:#f1f3f5,stroke:#868e96", "skipped": "fill:#ffffff,stroke:#ced4da,stroke-dasharray:4",
    "running": "fill:#e7f5ff,stroke:#1971c2", "ok": "fill:#ebfbee,stroke:#2f9e44",
    "abandoned": "fill:#f1f3f5,stroke:#868e96", "replayed": "fill:#e3fafc,stroke:#0c8599",
    "cached": "fill:#e3fafc,stroke:#0c8599", "suspended": "fill:#e7f5ff,stroke:#1971c2",
}  # fmt: skip
_SHAPES = {"cast": "{{{{{}}}}}", "part": "[/{}/]", "pack": "[/{}/]", "conditional": "{{{}}}", "switch": "{{{}}}"}


def mermaid(plan: WorkflowPlan, overlay: Overlay) -> str:
    """Return the text of a flowchart; composites with something inside are frames."""
    ids = {f"${one.name}": f"i{k}" for k, one in enumerate(plan.inputs)}
    ids |= {node.id: f"n{k}" for k, node in enumerate(plan.nodes)}
    lines = ["flowchart TD"]
    lines += [f"  {ids[f'${one.name}']}([{_quoted(f'{one.name}: {one.type.text}')}])" for one in plan.inputs]

    def write(node: PlanNode, label: str, mark: Mark | None, part: str) -> list[str]:
        if part == "closes":
            return ["end"]
        text = _quoted(label)
        shape = f"[{text}]" if part == "opens" else _SHAPES.get(node.kind, "[{}]").format(text)
        return [f"{'subgraph ' if part == 'opens' else ''}{ids[node.id]}{shape}"]

    lines += drawn(plan, overlay, write)
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


def _quoted(text: str) -> str:
    safe = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return '"' + safe.replace("\n", "<br/>") + '"'
