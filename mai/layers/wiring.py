"""Wiring: the steps of a graph and what feeds them, in arrays of integers, checked edge by edge as they are wired.

A node is a small integer. Most nodes take the values of other nodes, by position and of the right types already: for
them a graph keeps some integers and nothing else. A node that needs more (a constant, an argument by name, a cast) has
a `Binding` beside that.
"""

from array import array
from collections.abc import Mapping
from inspect import Parameter
from itertools import accumulate
from operator import sub
from typing import Any, NamedTuple

from ..errors import CastError, WiringError
from ..values.casts import bare_type, caster, show
from ..values.checked import near
from ..values.signature import Signature
from .checks import name_of, signature_of
from .edges import fits, wire
from .module import Module, lift
from .ref import Pack, Part, Ref, fields_of

_INPUT = -1  # in the place of a module
_LINE = 63  # nodes behind the first one of a chain that are run without a look at anything else


class Input(NamedTuple):
    """One input of a graph."""

    parameter: Parameter
    cast: Any


class Slot(NamedTuple):
    """What goes into one parameter of a node: the value of another node, or a constant."""

    parameter: str
    source: int | None
    value: Any = None
    cast: bool = False  # on the way; else the value is of the right type


class Binding(NamedTuple):
    """The arguments of a node that needs more than the values of other nodes."""

    args: tuple[Slot, ...]
    kwargs: tuple[Slot, ...]


class Shape:
    """What all nodes of one module have in common.

    Attributes:
        accepts: For each parameter that can be given by position the ids of the types known to fit as they are.
        least: How many arguments there must be.
        most: How many there can be by position.
        count: How many nodes have this name by now; shared by all modules of the name.
    """

    __slots__ = ("accepts", "count", "given", "index", "key", "least", "module", "most", "returns", "single")

    def __init__(self, index: int, given: Any, module: Module[Any, Any], count: list[int]) -> None:
        signature = signature_of(module)
        params, settled = signature.params.values(), module._mai_settings.params
        self.index: int = index
        self.given: Any = given
        self.module: Module[Any, Any] = module
        self.count: list[int] = count
        self.key: str = f"/{name_of(module)}"
        self.single: bool = module._mai_settings.name is not None
        self.returns: Any = Any if signature.returns is Parameter.empty else signature.returns
        self.accepts: tuple[set[int], ...] = tuple(set[int]() for _ in signature.positional)
        needed = [p for p in params if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.least: int = len(needed)
        self.most: int = len(self.accepts)
        if settled or any(p.kind is p.KEYWORD_ONLY for p in needed):
            self.least = self.most + 1  # no node of it is plain


_Next = tuple[int, Module[Any, Any], str, int]  # a node: its module, its key, and which one of its name it is


class Wiring:
    """The nodes of one graph.

    Size: the arrays have one owner; half of its methods check an edge, the others only look.
    """

    def __init__(self, owner: str) -> None:
        self.owner: str = owner
        self.shapes: list[Shape] = []
        self.known: dict[int, Shape] = {}  # by the id of what was added, which the shape keeps alive
        self.inputs: dict[int, Input] = {}
        self.special: dict[int, Binding] = {}
        self.parts: dict[tuple[int, str, bool], Ref[Any]] = {}
        self.counts: dict[str, list[int]] = {}
        self.of: list[int] = []  # for each node: its shape,
        self.rank: list[int] = []  # and which one of its name it is
        self.first: array[int] = array("q", [0])  # the sources of i are sources[first[i] : first[i + 1]]
        self.sources: array[int] = array("i")
        self.records: set[int] = set()
        self.output: int | None = None

    # ---------------------------------------------------------------- adding

    def add_input(self, parameter: Parameter) -> Ref[Any]:
        """Add an input."""
        tp: Any = Any if parameter.annotation is Parameter.empty else parameter.annotation
        i = self._append(_INPUT, 0, ())
        self.inputs[i] = Input(parameter.replace(annotation=tp), caster(tp))
        return Ref(self, i, tp)

    def shape_of(self, given: Any) -> Shape:
        """Return the shape of what *given* is as a module.

        Raises:
            WiringError: If it is neither a Module nor a function, or is a graph that is not finished.
        """
        module = lift(given, self.owner)
        name = name_of(module)
        if name.startswith("$"):
            raise WiringError(f"{self.owner}: a step cannot be named {name!r}: $ marks inputs")
        shape = Shape(len(self.shapes), given, module, self.counts.setdefault(name, [0]))
        self.shapes.append(shape)
        self.known[id(given)] = shape
        return shape

    def connect(self, given: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ref[Any]:
        """Add a node of *given* with any arguments, and check each of them.

        Raises:
            WiringError: If an argument is missing, unknown, given twice or cannot fit.
        """
        shape = self.known.get(id(given)) or self.shape_of(given)
        signature, name = signature_of(shape.module), shape.key[1:]
        places = signature.positional[: len(args)]
        rest = [p for p in signature.params.values() if p.kind is p.VAR_POSITIONAL] * (len(args) - len(places))
        if len(places) + len(rest) < len(args):
            raise WiringError(f"{self.owner}: {name}{signature} takes {len(places)} by position, not {len(args)}")
        if given_twice := [p.name for p in places if p.name in kwargs]:
            raise WiringError(f"{self.owner}: {name} gets {given_twice[0]!r} by position and by name")
        by_place = tuple(
            self._slot(shape, p, p.name if k < len(places) else f"{p.name}[{k - len(places)}]", value)
            for k, (p, value) in enumerate(zip((*places, *rest), args, strict=True))
        )
        order = sorted(kwargs, key=[*signature.params, *kwargs].index)  # that of the call makes no difference
        by_name = tuple(self._named(shape, signature, key, kwargs[key]) for key in order)
        for p in signature.params.values():
            have = p in places or p.name in kwargs or p.name in shape.module._mai_settings.params
            if not have and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise WiringError(f"{self.owner}: {name}{signature} needs {p.name!r}")
        sources = [slot.source for slot in (*by_place, *by_name) if slot.source is not None]
        plain = sources and not by_name and all(slot.source is not None and not slot.cast for slot in by_place)
        i = self._append(shape.index, self.next_rank(shape), sources)
        if not plain or rest:
            self.special[i] = Binding(by_place, by_name)
        return Ref(self, i, shape.returns)

    def next_rank(self, shape: Shape) -> int:
        """Return which one of its name the next node of *shape* is.

        Raises:
            WiringError: If the name was given explicitly and there is one.
        """
        shape.count[0] += 1
        if shape.single and shape.count[0] > 1:
            name = shape.key[1:]
            raise WiringError(f"{self.owner}: two steps are named {name!r}; names in one graph must differ")
        return shape.count[0]

    def _append(self, shape: int, rank: int, sources: Any) -> int:
        self.of.append(shape)
        self.rank.append(rank)
        self.sources.extend(sources)
        self.first.append(len(self.sources))
        return len(self.of) - 1

    def _named(self, shape: Shape, signature: Signature, key: str, value: Any) -> Slot:
        p, name = signature.parameter(key), shape.key[1:]
        if p is None:
            raise WiringError(f"{self.owner}: {name} has no parameter {key!r}{near(key, signature.params)}")
        if p.kind is p.POSITIONAL_ONLY:
            raise WiringError(f"{self.owner}: {name}{signature} takes {key!r} by position only")
        return self._slot(shape, p, key, value)

    def _slot(self, shape: Shape, p: Parameter, key: str, value: Any) -> Slot:
        """Check what goes into the parameter *p*."""
        ref, name = self.ref_of(value), shape.key[1:]
        if ref is None:
            try:
                return Slot(key, None, caster(p.annotation)(value, key))
            except CastError as error:
                raise WiringError(f"{self.owner}: {name}: {error}") from error
        source = self.id_of(ref._index).removeprefix("$")
        wire(source, ref._type, name, key, p.annotation)
        asks = "Annotated[" in show(bare_type(p.annotation)) and ref._type != p.annotation  # for more than the type
        same = fits(ref._type, p.annotation) == "same" and not (asks or caster(p.annotation)._always)
        if same and p in signature_of(shape.module).positional and not isinstance(shape.module, Pack):
            shape.accepts[signature_of(shape.module).positional.index(p)].add(id(ref._type))
        return Slot(key, ref._index, cast=not same)

    def ref_of(self, value: Any) -> Ref[Any] | None:
        """Return *value* as a Ref if it is one, or a tuple, list, dict or record with one in it; else None.

        Raises:
            WiringError: If it is a Ref of another graph.
        """
        given: Any = value
        if type(value) is Ref:
            if given._wiring is not self:
                raise WiringError(f"{self.owner}: {value!r} belongs to another graph, {given._wiring.owner}")
            return given  # type: ignore[no-any-return]
        if not _has_ref(value):
            return None
        record: dict[str, Any] | None = fields_of(value)
        if record is not None:
            made = self.connect(type(value), (), record)
            self.records.add(made._index)
            return made
        members: list[Any] = [*(given.values() if isinstance(value, dict) else given)]
        kind = "dict" if isinstance(value, dict) else "tuple" if isinstance(value, tuple) else "list"
        gives: list[Any] = [one._type if type(one) is Ref else type(one) for one in members]
        return self.connect(Pack(kind, [*given] if kind == "dict" else (), gives), tuple(members), {})

    def part(self, ref: Ref[Any], key: Any, *, attribute: bool) -> Ref[Any]:
        """Return the node that looks up an attribute or an item of *ref*: one node, however often it is asked for."""
        found = self.parts.get((ref._index, repr(key), attribute))  # a slice has no hash, and 1 is equal to True
        if found is None:
            self.check_open()
            found = self.connect(Part(key, ref._type, attribute=attribute), (ref,), {})
            self.parts[ref._index, repr(key), attribute] = found
        return found

    # ---------------------------------------------------------------- finishing

    def check_open(self) -> None:
        """Raise WiringError if the graph is finished."""
        if self.output is not None:
            raise WiringError(f"{self.owner} has its output already; wire a new graph")

    def finish(self, output: int) -> None:
        """Give every node its consumers, and find those that can begin at once."""
        self.output = output
        n, sources, first = len(self.of), self.sources, self.first
        sources.append(output)  # the caller is the last node: never ready
        uses = array("i", bytes(4 * n))
        for source in sources:
            uses[source] += 1
        self.offsets: array[int] = array("q", accumulate(uses, initial=0))
        place = self.offsets[:]
        self.targets: array[int] = array("i", bytes(4 * len(sources)))
        self.places: list[int] = [0] * len(sources)
        self.need: list[int] = [*map(sub, first[1:], first)]
        for i, count in enumerate(self.need):
            start = first[i]
            for k in range(count):
                source = sources[start + k]
                at = place[source]
                self.targets[at], self.places[at] = i, k
                place[source] = at + 1
        self.targets[place[output]] = n
        self.need.append(2)
        self.lines: dict[int, list[_Next]] = {}  # by the first node of a chain: those that follow
        last: dict[int, list[_Next]] = {}  # by the last one so far
        for i in range(n):
            at = self.offsets[i]
            k = self.targets[at] if self.offsets[i + 1] - at == 1 and self.of[i] != _INPUT else n
            if self.need[k] == 1 and k not in self.special:
                line, shape = last.pop(i, None) or self.lines.setdefault(i, []), self.shapes[self.of[k]]
                if len(line) < _LINE:
                    line.append((k, shape.module, shape.key, self.rank[k]))
                    last[k] = line
        self.heads: list[tuple[Module[Any, Any], str]] = [(shape.module, shape.key) for shape in self.shapes]
        self.ready: array[int] = array(
            "i", [i for i, count in enumerate(self.need) if not count and self.of[i] != _INPUT]
        )

    # ---------------------------------------------------------------- looking

    def id_of(self, i: int) -> str:
        """Return the id of a node: its path in the graph; that of an input begins with ``$``."""
        if self.of[i] == _INPUT:
            return f"${self.inputs[i].parameter.name}"
        name = self.shapes[self.of[i]].key[1:]
        return name if self.rank[i] == 1 else f"{name}~{self.rank[i]}"

    def module_of(self, i: int) -> Module[Any, Any]:
        """Return the module of a node."""
        return self.shapes[self.of[i]].module

    def outputs(self) -> list[int]:
        """Return the nodes that give the output: one, or those that are packed into one value for the caller."""
        last = self.output
        assert last is not None
        packed = self.of[last] != _INPUT and (isinstance(self.module_of(last), Pack) or last in self.records)
        return [*self.sources[self.first[last] : self.first[last + 1]]] if packed else [last]

    def unused(self) -> list[str]:
        """Return the ids of the nodes and inputs that nobody needs; a step that gives None is not meant to be."""
        silent = {shape.index for shape in self.shapes if shape.returns in (None, type(None))}
        idle = (i for i in range(len(self.of)) if self.offsets[i] == self.offsets[i + 1])
        return [self.id_of(i) for i in idle if self.of[i] not in silent]


def _has_ref(value: Any) -> bool:
    """Say whether there is a Ref somewhere in a constant's lists, tuples, dicts and records."""
    stack, seen = [value], set[int]()
    while stack:
        one = stack.pop()
        if type(one) is Ref:
            return True
        fields: Any = fields_of(one) or one
        if isinstance(fields, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            stack += fields.values() if isinstance(fields, dict) else fields
    return False
