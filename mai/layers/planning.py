"""Planning: from a module to its WorkflowPlan, and from a plan to a Graph."""

import functools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from inspect import Parameter
from itertools import repeat
from typing import Any

from pydantic import JsonValue
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from ..core.retry import Retry
from ..errors import PayloadError, WiringError
from ..types import Payload, PlanEdge, PlanInput, PlanNode, PlanType, WorkflowPlan
from ..values.casts import show
from ..values.checked import near
from .checks import name_of, signature_of
from .conditional import Conditional
from .edges import fits
from .graph import Graph
from .module import Module
from .ref import Pack, Part, Ref
from .switch import Switch
from .wiring import Slot, Wiring

_MODULE = Module[Any, Any]
_Part = tuple[PlanNode, str, Iterable[tuple[str | None, str, str | None]]]
_PLAIN = (str, int, float, bool, bytes, list, dict, list[str], list[int], list[float], dict[str, str], dict[str, Any])


def plan_of(module: _MODULE) -> WorkflowPlan:
    """Return the plan of *module*; of a graph its nodes, of any other the one step that it is, with what is inside."""
    head, nodes, edges = head_of(module), list[PlanNode](), list[PlanEdge]()
    for node, ident, feeds in parts_of(module):
        nodes.append(node.model_copy(update={"id": ident}))
        edges += [PlanEdge(source=a, target=ident, parameter=key, constant=text) for a, key, text in feeds]
    return head.model_copy(update={"nodes": tuple(nodes), "edges": tuple(edges)})


def head_of(module: _MODULE) -> WorkflowPlan:
    """Return the plan without its steps."""
    signature, output = signature_of(module), name_of(module)
    if isinstance(module, Graph):
        last, wiring = module._wiring.output, module._wiring
        assert last is not None
        output = "cast[return]" if _casts(wiring, last, module._cast.tp) else wiring.id_of(last)
    return WorkflowPlan(
        name=name_of(module), kind=module._mai_kind, settings=_settings(module),
        inputs=tuple(map(_input, signature.params.values())), nodes=(), edges=(), output=output,
        gives=plan_type(signature.returns),
    )  # fmt: skip


def parts_of(module: _MODULE) -> Iterator[_Part]:
    """Yield each step: a PlanNode, which may be that of others too, the step's own id, and what feeds it."""
    todo = deque([("", module)])
    if not isinstance(module, Graph):
        name = name_of(module)
        yield _node("", module), name, [(f"${key}", key, None) for key in signature_of(module).params]
        todo = deque([(name, module)])
    while todo:
        ident, one = todo.popleft()
        if isinstance(one, Graph):
            yield from _expand(one._wiring, one._cast.tp, ident, todo)
            continue
        for key, part in _inside(one):
            yield _node(ident, part), f"{ident}{key}", ()
            todo.append((f"{ident}{key}", part))


def _expand(wiring: Wiring, declared: Any, within: str, todo: "deque[tuple[str, _MODULE]]") -> Iterator[_Part]:
    """Yield the steps of a graph, each after the casts on the way to it."""
    prefix = f"{within}/" if within else ""
    of, rank, first, sources, shapes = wiring.of, wiring.rank, wiring.first, wiring.sources, wiring.shapes
    heads = [prefix + one.key[1:] for one in shapes]

    def path(k: int) -> str:
        return f"{heads[of[k]]}~{rank[k]}" if rank[k] > 1 else prefix + wiring.id_of(k)

    facts = [(_node(within, one.module), [p.name for p in signature_of(one.module).positional]) for one in shapes]
    nones = repeat(None)
    deep = {one.index for one in shapes if isinstance(one.module, Graph) or any(_inside(one.module))}
    for i, index in enumerate(of):
        if index < 0:
            continue
        node, names = facts[index]
        feeds: Any = []
        if i in wiring.special:
            binding = wiring.special[i]
            for slot in (*binding.args, *binding.kwargs):
                yield from _feed(wiring, within, i, slot, feeds)
        else:
            feeds = zip(map(path, sources[first[i] : first[i + 1]]), names, nones, strict=False)
        yield node, path(i), feeds
        if index in deep:
            todo.append((path(i), shapes[index].module))
    last = wiring.output
    assert last is not None
    if _casts(wiring, last, declared):
        yield _cast(prefix + wiring.id_of(last), within, "return", declared)


def _feed(wiring: Wiring, within: str, i: int, slot: Slot, feeds: list[Any]) -> Iterator[_Part]:
    """Add what feeds one parameter of a node to *feeds*, and yield the cast on the way."""
    p = signature_of(wiring.module_of(i)).parameter(slot.parameter.partition("[")[0])
    takes: Any = Any if p is None else p.annotation
    source = None if slot.source is None else f"{within}/{wiring.id_of(slot.source)}".removeprefix("/")
    if slot.source is not None and slot.cast and _casts(wiring, slot.source, takes):
        cast = _cast(source, within, f"{wiring.id_of(i)}.{slot.parameter}", takes)
        yield cast
        source = cast[1]
    feeds.append((source, slot.parameter, _json(slot.value, takes) if source is None else None))


def _casts(wiring: Wiring, source: int, takes: Any) -> bool:
    have = wiring.inputs[source].cast.tp if source in wiring.inputs else wiring.shapes[wiring.of[source]].returns
    return fits(have, takes) == "cast"


def _cast(source: str | None, within: str, where: str, tp: Any) -> _Part:
    """Return a cast of the value of *source* as a step."""
    node = PlanNode(id="", within=within, name="cast", kind="cast", module="mai.cast", gives=plan_type(tp))
    return node, f"{within}/cast[{where}]".removeprefix("/"), [(source, "value", None)]


def _node(within: str, module: _MODULE) -> PlanNode:
    signature, spec = signature_of(module), module._mai_spec or module._mai_compile()
    return PlanNode(
        id="", within=within, name=name_of(module), kind=module._mai_kind, module=spec.what[2],
        version=module._mai_settings.version, settings=_settings(module),
        takes={p.name: plan_type(p.annotation) for p in signature.params.values()},
        gives=plan_type(signature.returns),
    )  # fmt: skip


def _input(p: Parameter) -> PlanInput:
    default = None if p.default is p.empty else _json(p.default, p.annotation)
    return PlanInput(name=p.name, type=plan_type(p.annotation), required=p.default is p.empty, default=default)


def _json(value: Any, tp: Any) -> str | None:
    try:
        return Payload.of(value, Any if tp is Parameter.empty else tp).json().decode()
    except PayloadError:
        return None


def _settings(module: Any) -> dict[str, JsonValue]:
    """Return what was set, as far as it can be told."""
    given, extra = dict(module._mai_settings), dict(module._mai_facts)
    if module._mai_kind != "module":
        named = {"limit": "limit", "on_error": "on_error", "_label": "decides"}
        extra |= {key: getattr(module, name) for name, key in named.items() if hasattr(module, name)}
    if isinstance(module, Switch):
        extra["cases"] = [[key, path[1:]] for key, (_, path) in module._line.items()]
    if isinstance(module, Conditional | Switch) and module.otherwise is not None:
        extra["otherwise"] = name_of(module.otherwise)
    if isinstance(module, Part):
        extra |= {"attribute" if module.attribute else "item": module.key}
    if isinstance(module, Pack):
        extra |= {"keys": [*module.keys]}
    told = {key: value for key, value in given.items() if key not in ("name", "version")} | extra
    unset = [key for key, value in told.items() if value is None or value is False or value in ((), {}, "", "cancel")]
    return {key: _told(value) for key, value in told.items() if key not in unset}


def _told(value: Any) -> JsonValue:
    """Return *value* as JSON; of what has none, its name."""
    if isinstance(value, Retry):
        return {"attempts": value.attempts, "base": value.base, "limit": value.limit}
    if isinstance(value, Mapping):
        return {str(key): _told(one) for key, one in value.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Enum | bytes):
        return repr(value)
    if isinstance(value, str | int | float | None):
        return value
    return name_of(value) if isinstance(value, Module) else getattr(value, "__qualname__", type(value).__qualname__)


def _inside(module: _MODULE) -> Iterator[tuple[str, _MODULE]]:
    """Yield the modules that *module* has, with the last part of their path."""
    found = list[tuple[str, _MODULE]]()
    for name, value in vars(module).items():
        many: Any = value
        listed = enumerate(many) if isinstance(value, list | tuple) else ()
        pairs: Any = many.items() if isinstance(value, Mapping) else listed
        if not name.startswith("_"):
            found += [(name, value)] if isinstance(value, Module) else []
            found += [(str(key), one) for key, one in pairs if isinstance(one, Module)]
    marks = {"parallel": "[{}]", "race": "[{}]", "map": "[*]", "loop": "[*]"}
    mark, keys = marks.get(module._mai_kind, ""), getattr(module, "names", None)
    seen: dict[str, int] = {}
    for label, one in found:
        name = name_of(one)
        count = seen[name] = seen.get(name, 0) + 1
        repeat = f"~{count}" if count > 1 and not mark else ""
        yield f"{mark.format(keys[int(label)] if keys else label)}/{name}{repeat}", one


@functools.lru_cache(maxsize=4096)
def _plan_type(tp: Any, text: str) -> PlanType:
    try:
        return PlanType(text=text, schema_id=Payload(None, tp).schema_id)
    except (PayloadError, PydanticInvalidForJsonSchema, PydanticUserError):  # no JSON of it: its name has to do
        return PlanType(text=text, schema_id=blake2b(text.encode(), digest_size=8).hexdigest())


def plan_type(tp: Any) -> PlanType:
    """Return *tp* as it stands in a plan."""
    text = show(tp)
    try:
        return _plan_type(tp, text)
    except TypeError:  # it cannot be hashed
        return _plan_type.__wrapped__(tp, text)


# ---------------------------------------------------------------- from a plan


def graph_of(plan: WorkflowPlan, modules: Mapping[str, _MODULE], types: Mapping[str, Any]) -> Graph[..., Any]:
    """Return a graph wired as *plan* says."""
    plan.validate()
    if plan.kind != "graph":
        raise WiringError(f"plan {plan.name!r} is that of a {plan.kind}, not of a graph")
    limit: Any = plan.settings.get("limit")
    on_error: Any = plan.settings.get("on_error", "cancel")
    made, nodes = Graph(plan.name, limit=limit, on_error=on_error), {node.id: node for node in plan.nodes}
    edges: dict[str, list[PlanEdge]] = {}
    for edge in plan.edges:
        edges.setdefault(edge.target, []).append(edge)
    given = [node for node in plan.nodes if not node.within and node.kind not in ("cast", "part", "pack")]
    found = {node.id: _module_of(plan, node, modules) for node in given}
    refs: dict[str, Ref[Any]] = {}
    for one in plan.inputs:
        tp = types[one.name] if one.name in types else _type_of(plan, one.name, one.type, found.values())
        default = Parameter.empty if one.required else Payload.load(tp, one.default or "null").value
        kind = Parameter.POSITIONAL_OR_KEYWORD
        refs[f"${one.name}"] = made._wiring.add_input(Parameter(one.name, kind, default=default, annotation=tp))
    for ident in _in_order(plan, edges):
        refs[ident] = _rewired(made, nodes[ident], edges.get(ident, []), found.get(ident), refs)
    last, declared = refs[plan.output], Parameter.empty
    if plan_type(last._type) != plan.gives:
        declared = _type_of(plan, "return", plan.gives, found.values())
    made._finish(last, declared, 4)
    return made


def _module_of(plan: WorkflowPlan, node: PlanNode, modules: Mapping[str, _MODULE]) -> _MODULE:
    for key in (node.id, node.name, node.module):
        if key in modules:
            module = modules[key]
            return module if name_of(module) == node.name else module.with_(name=node.name)
    raise WiringError(f"plan {plan.name!r}: no module is given for step {node.id!r}{near(node.name, modules)}")


def _type_of(plan: WorkflowPlan, where: str, wanted: PlanType, modules: Any) -> Any:
    """Return the type that *wanted* describes, out of those that the modules speak of."""
    spoken = [tp for m in modules for p in signature_of(m).params.values() for tp in (p.annotation,)]
    for tp in (*_PLAIN, Any, *spoken, *(signature_of(m).returns for m in modules)):
        if plan_type(tp) == wanted:
            return tp
    raise WiringError(f"plan {plan.name!r}: {where!r} is a {wanted.text}, which no module speaks of; give it in types=")


def _in_order(plan: WorkflowPlan, edges: Mapping[str, list[PlanEdge]]) -> Iterator[str]:
    """Yield the ids of the steps at the top so that each comes after what feeds it, else as they stand in the plan."""
    top = [node.id for node in plan.nodes if not node.within]
    waits = {ident: {edge.source for edge in edges.get(ident, ()) if edge.source} for ident in top}
    done = {f"${one.name}" for one in plan.inputs}
    stack = top[::-1]
    while stack:
        ident = stack[-1]
        left = [source for source in waits[ident] if source not in done]
        if left and ident not in done:
            stack += sorted(left, key=top.index, reverse=True)
            continue
        stack.pop()
        if ident not in done:
            done.add(ident)
            yield ident


def _rewired(
    made: Graph[..., Any], node: PlanNode, edges: list[PlanEdge], module: _MODULE | None, refs: Mapping[str, Ref[Any]]
) -> Ref[Any]:
    """Add one node of a plan."""
    wiring = made._wiring
    if node.kind == "cast":
        return refs[edges[0].source or ""]
    if node.kind == "part":
        key = node.settings.get("attribute", node.settings.get("item"))
        return wiring.part(refs[edges[0].source or ""], key, attribute="attribute" in node.settings)
    given: dict[str, Any] = {}
    for edge in edges:
        p = None if module is None else signature_of(module).parameter(re.sub(r"\[\d+\]$", "", edge.parameter))
        if edge.source is None and edge.constant is None:
            constant = f"{edge.target}.{edge.parameter}"
            raise WiringError(f"plan {wiring.owner!r}: the constant {constant} could not be written")
        tp: Any = Any if p is None or p.annotation is p.empty else p.annotation
        given[edge.parameter] = refs[edge.source] if edge.source else Payload.load(tp, edge.constant or "").value
    rest = sorted((key for key in given if key.endswith("]")), key=lambda key: int(key.split("[")[1][:-1]))
    many = [given.pop(key) for key in rest]
    if module is None:
        keys: Any = node.settings.get("keys", ())
        module = Pack(node.name, keys, [one._type if isinstance(one, Ref) else type(one) for one in many])
    args = list[Any]()
    for p in signature_of(module).positional:
        if p.name not in given:
            break
        args.append(given.pop(p.name))
    return wiring.connect(module, (*args, *many), given)
