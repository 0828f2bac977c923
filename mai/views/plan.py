"""What a plan says, in words: its steps line by line, its stages, its longest way, and what differs in another."""

from collections import Counter
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring
from typing import Any

from mai.errors import ConfigError
from mai.layers.module import Module
from mai.layers.planning import head_of, parts_of
from mai.types import PlanEdge, PlanNode, TraceHandle, WorkflowPlan, decisive
from mai.views.dot import dot
from mai.views.mermaid import mermaid
from mai.views.outline import outline
from mai.views.overlay import Overlay
from mai.views.text import safe

__all__ = ["chains", "critical_path", "diff", "draw", "plan_json", "stages", "text"]


def draw(plan: WorkflowPlan, format: str = "mermaid", trace: TraceHandle[Any] | None = None) -> str:  # noqa: A002
    """Return a drawing of *plan*, with *trace* laid over it.

    Args:
        plan: The plan.
        format: ``"mermaid"``, ``"dot"`` or ``"text"``.
        trace: A call of the module whose plan it is.

    Raises:
        ConfigError: If *format* is another one.
        WiringError: If the plan, which may have been read from a file, is not consistent.
    """
    plan.validate()
    drawings: dict[str, Callable[[WorkflowPlan, Overlay], str]] = {"mermaid": mermaid, "dot": dot, "text": text}
    if format not in drawings:
        raise ConfigError(f"draw: format={format!r} is not known; give {', '.join(map(repr, drawings))}")
    return drawings[format](plan, Overlay(plan, trace))


def plan_json(module: Module[Any, Any]) -> Iterator[str]:
    """Yield the JSON of the plan of *module*, as ``model_dump_json`` writes it, piece by piece.

    Nothing is held but the composites, which are gone through later: a million steps take no memory.
    """
    start, _, end = head_of(module).model_dump_json().rpartition('[],"edges":[]')
    texts, ends, comma = dict[int, tuple[PlanNode, str]](), dict[str, str](), ""
    yield f"{start}["
    for node, ident, _ in parts_of(module):
        found = texts.get(id(node))
        if found is None:
            if len(texts) == 1000:
                texts.clear()
            found = texts[id(node)] = node, node.model_dump_json().partition(",")[2]
        yield f'{comma}{{"id":{encode_basestring(ident)},{found[1]}'
        comma = ","
    yield '],"edges":['
    comma = ""
    for _, ident, feeds in parts_of(module):
        target = f',"target":{encode_basestring(ident)},"parameter":'
        written = ""
        for a, key, text in feeds:
            source = "null" if a is None else encode_basestring(a)
            end_of = (
                ends.get(key) if text is None else f'{encode_basestring(key)},"constant":{encode_basestring(text)}}}'
            )
            if end_of is None:
                end_of = ends[key] = f'{encode_basestring(key)},"constant":null}}'
            written += f'{comma}{{"source":{source}{target}{end_of}'
            comma = ","
        if written:
            yield written
    yield f"]{end}"


def text(plan: WorkflowPlan, overlay: Overlay | None = None) -> str:
    """Return *plan* as text, a line for each step: its id, where its parameters come from, and its type."""
    marks = overlay or Overlay(plan, None)
    feeds: dict[str, list[str]] = {}
    for edge in plan.edges:
        given = edge.constant or "..." if edge.source is None else edge.source
        feeds.setdefault(edge.target, []).append(f"{edge.parameter}={given.removeprefix('$')}")
    needs = ", ".join(f"{one.name}: {one.type.text}" + ("" if one.required else " = ...") for one in plan.inputs)
    lines = [f"{plan.name}({needs}) -> {plan.gives.text}"]
    for node, depth, part in outline(plan):
        if part == "closes":
            continue
        own = node.id[len(node.within) :].removeprefix("/")
        taken = f"({', '.join(feeds[node.id])})" if node.id in feeds else ""
        mark = f"  {marks.of(node.id)}" if marks.of(node.id) else ""
        lines.append(f"{'  ' * (depth + 1)}{safe(own)}{taken} -> {node.gives.text}{mark}")
    lines.append(f"  = {plan.output.removeprefix('$')}")
    return "\n".join(lines)


def _top(plan: WorkflowPlan) -> tuple[dict[str, PlanNode], list[PlanEdge]]:
    """Return the nodes at the top, and the edges between them.

    Raises:
        WiringError: If the plan, which may have been read from a file, is not consistent.
    """
    plan.validate()
    nodes = {node.id: node for node in plan.nodes if not node.within}
    return nodes, [edge for edge in plan.edges if edge.target in nodes and edge.source in nodes]


def _depths(plan: WorkflowPlan) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many steps must come before each one at the top, and which was the last of those."""
    nodes, edges = _top(plan)
    waits, after = dict.fromkeys(nodes, 0), dict[str, list[str]]()
    for edge in edges:
        waits[edge.target] += 1
        after.setdefault(edge.source or "", []).append(edge.target)
    depth, last, ready = dict.fromkeys(nodes, 0), dict[str, str](), [ident for ident, n in waits.items() if not n]
    for ident in ready:  # it grows meanwhile
        own = depth[ident] + (nodes[ident].kind != "cast")
        for target in after.get(ident, ()):
            if own > depth[target] or target not in last:
                depth[target], last[target] = max(own, depth[target]), ident
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    return depth, last


def stages(plan: WorkflowPlan) -> list[list[str]]:
    """Return the ids of the steps at the top by the number of steps that must come before."""
    depth, _ = _depths(plan)
    found: list[list[str]] = []
    for node in plan.nodes:
        if not node.within and node.kind != "cast":
            found += [[] for _ in range(depth[node.id] + 1 - len(found))]
            found[depth[node.id]].append(node.id)
    return found


def critical_path(plan: WorkflowPlan) -> list[str]:
    """Return the ids of the steps on a longest way to the output."""
    _, last = _depths(plan)
    kinds = {node.id: node.kind for node in plan.nodes}
    way, ident = list[str](), plan.output if plan.output in kinds else None
    while ident is not None:
        way += [ident] if kinds[ident] != "cast" else []
        ident = last.get(ident)
    return way[::-1]


def chains(plan: WorkflowPlan) -> list[list[str]]:
    """Return the chains of steps, two or more, that run as one; casts are done on the way."""
    nodes, edges = _top(plan)
    through = {edge.target: edge.source or "" for edge in edges if nodes[edge.target].kind == "cast"}
    feeds, after = Counter[str](), dict[str, list[str]]()
    for edge in plan.edges:
        if edge.target in nodes and edge.target not in through and edge.source is not None:
            feeds[edge.target] += 1
            after.setdefault(through.get(edge.source, edge.source), []).append(edge.target)
    last = through.get(plan.output, plan.output)
    fused = {a: ends[0] for a, ends in after.items() if a in nodes and len(ends) == feeds[ends[0]] == 1 and a != last}
    found, inner = list[list[str]](), {*fused.values()}
    for first in fused:
        if first not in inner:
            chain = [first]
            while chain[-1] in fused:
                chain.append(fused[chain[-1]])
            found.append(chain)
    return found


def diff(plan: WorkflowPlan, other: WorkflowPlan) -> list[str]:
    """Return in words what is different in *other*, as far as the fingerprint covers it."""
    lines = [] if plan.name == other.name else [f"the name is {other.name!r}, was {plan.name!r}"]
    lines += _changes("input", {one.name: one for one in plan.inputs}, {one.name: one for one in other.inputs})
    lines += _changes("step", {one.id: one for one in plan.nodes}, {one.id: one for one in other.nodes})
    old, new = decisive(plan.settings), decisive(other.settings)
    lines += [] if old == new else [f"the settings are {_shown(new)}, were {_shown(old)}"]
    ours, theirs = ({f"{e.target}.{e.parameter}": _source(e) for e in one.edges} for one in (plan, other))
    for end in sorted(ours.keys() | theirs.keys()):
        was, now = ours.get(end), theirs.get(end)
        if was != now:
            change = (
                f"is no longer fed (was {was})" if now is None else f"is fed by {now}" + (f", was {was}" if was else "")
            )
            lines.append(f"{end} {change}")
    if plan.output != other.output:
        lines.append(f"the output is {other.output}, was {plan.output}")
    if plan.gives != other.gives:
        lines.append(f"the whole gives {_shown(other.gives)}, was {_shown(plan.gives)}")
    return lines


def _source(edge: PlanEdge) -> str:
    return f"the constant {edge.constant}" if edge.source is None else edge.source.removeprefix("$")


def _changes(what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    lines = [f"{what} {name} is gone" for name in ours if name not in theirs]
    lines += [f"{what} {name} is new" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        was, now = _facts(ours[name]), _facts(theirs[name])
        for key in was:
            if was[key] != now[key]:
                lines.append(f"{what} {name}: {key} is {_shown(now[key])}, was {_shown(was[key])}")
    return sorted(lines)


def _facts(one: Any) -> dict[str, Any]:
    """Return what counts of a step or an input."""
    return {key: decisive(value) if key == "settings" else value for key, value in one}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + ")"  # pyright: ignore[reportUnknownVariableType]
    return f"{value.text} [{value.schema_id}]" if hasattr(value, "schema_id") else repr(value)
