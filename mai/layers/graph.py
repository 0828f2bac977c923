"""Graph: a directed acyclic graph of modules, itself a Module; wired by hand here, or traced by `graph`."""

import warnings
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import Parameter
from typing import Annotated, Any, Generic, Literal, NoReturn, overload

from pydantic import Field

from ..core.call import current, current_run
from ..core.trace import noted
from ..errors import ConfigError, WiringError
from ..types import WorkflowPlan
from ..values.casts import Caster, caster, is_open
from ..values.checked import COUNT, UNSET, checked
from ..values.names import PARALLEL_LIMIT
from ..values.signature import Signature
from .checks import Keywords, name_of
from .edges import wire
from .module import A, B, C, D, Module, P, R, X, Y, lift
from .nodes import Nodes
from .ref import Ref
from .settings import NAME
from .wiring import Wiring

OnError = Literal["cancel", "collect"]


class Rules(Keywords, total=False):
    """What `graph` takes as keywords: how the nodes run together, and the settings of a module."""

    limit: int | None
    on_error: OnError


class Graph(Module[Any, Any], Generic[P, R]):
    """Modules wired into a directed acyclic graph; each begins at the moment its inputs exist.

    ``input`` and ``add`` give a `Ref`, which stands for the value in the wiring; ``output`` says which values the graph
    gives, and finishes it. Then it is a module like any other. Wrong wiring is refused when it is wired: types that
    cannot fit, missing and unknown arguments, equal names. `graph` wires one from a function.

    Args:
        name: Name of the graph.
        limit: Most nodes at once, from 1; None: all.
        on_error: ``"cancel"``: the first failure ends the other nodes, which are joined, and is raised (several as an
            ExceptionGroup). ``"collect"``: all that does not depend on a failed node runs; then PartialFailure is
            raised, with the errors and the outputs that there are.

    Raises:
        ConfigError: If *name*, *limit* or *on_error* cannot be used.

    Example:
        >>> from mai import Graph, module
        >>> @module
        ... async def words(text: str) -> list[str]:
        ...     return text.split()
        >>> @module
        ... async def report(words: list[str], text: str) -> str:
        ...     return f"{len(words)} words, {len(text)} signs"
        >>> g = Graph("count")
        >>> text = g.input("text", str)
        >>> count = g.output(g.add(report, g.add(words, text), text))
        >>> count.run("to be or not")
        '4 words, 12 signs'
    """

    _mai_kind = "graph"
    _mai_operation = "invoke_workflow"
    limit: Annotated[int, Field(ge=1)] | None = None
    on_error: OnError = "cancel"

    def __init__(
        self: "Graph[..., Any]", name: str, /, *, limit: int | None = None, on_error: OnError = "cancel"
    ) -> None:
        label, self.on_error = checked("Graph", "name", name, NAME), on_error
        if self.on_error not in ("cancel", "collect"):
            raise ConfigError(f"Graph: on_error={self.on_error!r} is not known; give 'cancel' or 'collect'")
        self.limit = None if limit is None else checked("Graph", "limit", limit, COUNT)
        self._mai_label = label
        self._mai_sign = partial(_unfinished, label)  # type: ignore[method-assign]
        self._mai_signature = None
        self._wiring = Wiring(label)
        self._cast: Caster = caster(Any)

    # ---------------------------------------------------------------- wiring

    @overload
    def input(self, name: str, tp: type[A], /) -> Ref[A]: ...
    @overload
    def input(self, name: str, tp: type[A], /, default: A) -> Ref[A]: ...
    def input(self, name: str, tp: Any, /, default: Any = UNSET) -> Any:
        """Add an input.

        Args:
            name: Its name, an identifier; the graph is called with it.
            tp: Its type; what is given is cast to it.
            default: Its value where none is given; without one it must be given.

        Raises:
            WiringError: If there is an input of that name, or one with a default before one without, or the graph is
                finished.
        """
        wiring = self._wiring
        wiring.check_open()
        taken = [one.parameter for one in wiring.inputs.values()]
        if not name.isidentifier() or name in (p.name for p in taken):
            raise WiringError(f"{wiring.owner}: an input cannot be named {name!r}: give another name, an identifier")
        if default is UNSET and any(p.default is not p.empty for p in taken):
            raise WiringError(f"{wiring.owner}: input {name!r} has no default; inputs with one come last")
        given = Parameter.empty if default is UNSET else caster(tp)(default, name)
        return wiring.add_input(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=given, annotation=tp))

    @overload
    def add(
        self, m: Callable[[A], Awaitable[Y]], a: Ref[A] | A, /, *,
        name: str | None = ..., **named: object,
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(
        self, m: Callable[[A, B], Awaitable[Y]], a: Ref[A] | A, b: Ref[B] | B, /, *,
        name: str | None = ..., **named: object,
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(
        self, m: Callable[[A, B, C], Awaitable[Y]], a: Ref[A] | A, b: Ref[B] | B, c: Ref[C] | C, /, *,
        name: str | None = ..., **named: object,
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(
        self, m: Callable[[A, B, C, D], Awaitable[Y]], a: Ref[A] | A, b: Ref[B] | B, c: Ref[C] | C, d: Ref[D] | D, /, *,
        name: str | None = ..., **named: object,
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(self, m: Callable[..., Awaitable[Y]], /, *, name: str | None = ..., **named: object) -> Ref[Y]: ...
    @overload
    def add(
        self, m: Callable[..., Awaitable[Y]], a: object, b: object, c: object, d: object, e: object, /,
        *more: object, name: str | None = ..., **named: object,
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(
        self, m: Callable[[A], Y], a: Ref[A] | A, /, *, name: str | None = ..., **named: object
    ) -> Ref[Y]: ...  # fmt: skip
    @overload
    def add(
        self, m: Callable[[A, B], Y], a: Ref[A] | A, b: Ref[B] | B, /, *, name: str | None = ..., **named: object
    ) -> Ref[Y]: ...  # fmt: skip
    def add(self, m: Any, /, *args: Any, name: str | None = None, **named: Any) -> Any:
        """Add a node.

        Args:
            m: The Module or function.
            args: What it is called with: Refs, constants, and tuples, lists, dicts and records of them.
            name: Name of the node; the default is the module's name, numbered where it is there already.
            named: Arguments by name.

        Raises:
            WiringError: If an argument is missing or unknown or cannot fit, the name was given twice, or the graph is
                finished.
        """
        wiring = self._wiring
        if wiring.output is not None:
            wiring.check_open()
        if name is not None:
            m = lift(m, wiring.owner).with_(name=name)
        shape = wiring.known.get(id(m))
        if shape is None or named or not shape.least <= len(args) <= shape.most or not args:
            return wiring.connect(m, args, named)
        for ref, fit in zip(args, shape.accepts, strict=False):
            if type(ref) is not Ref or ref._wiring is not wiring or id(ref._type) not in fit:
                return wiring.connect(m, args, named)
        wiring.of.append(shape.index)
        wiring.rank.append(wiring.next_rank(shape))
        sources = wiring.sources
        for ref in args:
            sources.append(ref._index)
        wiring.first.append(len(sources))
        made: Ref[Any] = Ref(wiring, len(wiring.of) - 1, shape.returns)
        return made

    @overload
    def output(self, value: Ref[A], /) -> "Graph[..., A]": ...
    @overload
    def output(self, value: tuple[Ref[A], Ref[B]], /) -> "Graph[..., tuple[A, B]]": ...
    @overload
    def output(self, value: tuple[Ref[A], Ref[B], Ref[C]], /) -> "Graph[..., tuple[A, B, C]]": ...
    @overload
    def output(self, value: tuple[Ref[A], Ref[B], Ref[C], Ref[D]], /) -> "Graph[..., tuple[A, B, C, D]]": ...
    @overload
    def output(self, value: list[Ref[A]], /) -> "Graph[..., list[A]]": ...
    @overload
    def output(self, value: Mapping[str, Ref[A]], /) -> "Graph[..., dict[str, A]]": ...
    @overload
    def output(self, value: X, /) -> "Graph[..., X]": ...
    def output(self, value: Any, /) -> Any:
        """Say what the graph gives, and finish it.

        Args:
            value: A Ref, or a tuple, list, dict, dataclass or pydantic model with Refs in it.

        Returns:
            The graph itself, its value known to type checkers.

        Raises:
            WiringError: If *value* has no Ref of this graph in it, the graph has no input, or has an output already.

        Warns:
            RuntimeWarning: If there are inputs or nodes whose value nobody uses.
        """
        self._finish(value, Parameter.empty, 3)
        return self

    def _finish(self, value: Any, declared: Any, level: int) -> None:
        """Wire the output, and make the graph a module."""
        wiring = self._wiring
        wiring.check_open()
        ref = wiring.ref_of(value)
        if ref is None:
            raise WiringError(f"{wiring.owner}: the output must be or contain a value of the graph, not {value!r}")
        if not wiring.inputs:
            raise WiringError(f"{wiring.owner} has no input; a step needs at least one")
        if not is_open(declared):
            wire(wiring.id_of(ref._index).removeprefix("$"), ref._type, wiring.owner, "return", declared)
            self._cast = caster(declared)
        wiring.finish(ref._index)
        gives = ref._type if declared is Parameter.empty else declared
        self._mai_signature = Signature(wiring.owner, [one.parameter for one in wiring.inputs.values()], gives)
        if unused := wiring.unused():
            names = ", ".join(unused[:5]).replace("$", "input ") + (", ..." if len(unused) > 5 else "")
            warnings.warn(f"{wiring.owner}: nobody uses the value of {names}", RuntimeWarning, stacklevel=level)

    @staticmethod
    def from_plan(
        plan: WorkflowPlan, modules: Mapping[str, Module[Any, Any]], *, types: Mapping[str, Any] | None = None
    ) -> "Graph[..., Any]":
        """Return a graph wired as a plan says, of modules that are given; nothing is imported by a name in the data.

        Args:
            plan: The plan of a graph.
            modules: The modules of the steps at the top: by id, name or qualified name of the step.
            types: The types of those inputs which no module takes or gives.

        Raises:
            WiringError: If the plan is not consistent, or not that of a graph, a module is missing, the types of an
                edge cannot fit, or a constant could not be written into the plan.
            CycleError: If steps wait for each other in a circle.

        Example:
            >>> from mai import Graph, WorkflowPlan, graph, module
            >>> @module
            ... async def shout(text: str) -> str:
            ...     return text.upper()
            >>> @graph
            ... async def twice(text: str) -> str:
            ...     return await shout(await shout(text))
            >>> data = twice.plan().model_dump_json()
            >>> again = Graph.from_plan(WorkflowPlan.model_validate_json(data), {"shout": shout})
            >>> again.run("hey"), again.plan() == twice.plan()
            ('HEY', True)
        """
        from .planning import graph_of  # noqa: PLC0415 (planning is about graphs)

        return graph_of(plan, modules, types or {})

    # ---------------------------------------------------------------- running

    async def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the nodes."""
        p, wiring = current(), self._wiring
        if wiring.output is None:
            _unfinished(wiring.owner)
        if self.limit is not None:
            noted(p, {PARALLEL_LIMIT: self.limit})
        nodes = Nodes(wiring, p, collect=self.on_error == "collect")
        given = {**dict(zip((one.parameter.name for one in wiring.inputs.values()), args, strict=False)), **kwargs}
        for i, (parameter, cast) in wiring.inputs.items():
            nodes.settle(i, cast(given.get(parameter.name, parameter.default), parameter.name, p))
        if self.limit is None:
            await nodes.lead()
        if nodes.more():
            await current_run().gather(p.path, nodes, limit=self.limit)
        return self._cast(nodes.result(), "return", p)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return super().__repr__() if self._wiring.output is not None else f"<{name_of(self)}, a graph without output>"


def _unfinished(owner: str) -> NoReturn:
    raise WiringError(f"{owner} has no output yet: say what it gives with g.output(...)")
