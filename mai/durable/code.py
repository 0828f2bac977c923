"""The code of runs: which module a process has for a run, found by its name, and what has changed since the run began.

Code is handed to an engine; nothing is ever imported by a name that a journal holds.
"""

from collections.abc import Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mai.durable.failures import named_by
from mai.durable.records import Record, RunInfo
from mai.errors import PlanChanged, ReplayMismatch
from mai.layers import Graph, Module
from mai.types import WorkflowPlan
from mai.values.casts import caster

__all__ = ["Code", "Codes"]


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """A module that runs are begun and carried on with.

    Attributes:
        module: The module.
        target: Its name.
        plan: Its plan, as JSON.
        fingerprint: Of the plan.
        moved: New paths of records, by the old ones.
        modules: The module, and those that it calls.
    """

    module: Any
    target: str
    plan: bytes
    fingerprint: str
    moved: Mapping[str, str]
    modules: tuple[Any, ...]

    def dump(self, value: Any) -> bytes:
        """Return a value of the module as JSON."""
        return caster(self.module._mai_spec.signature.returns).dump(value)

    def load(self, data: bytes | None) -> Any:
        """Return the value that `dump` wrote."""
        return caster(self.module._mai_spec.signature.returns).load(data or b"null")

    def past(self, records: list[Record]) -> list[Record]:
        """Return the records under the paths that this code has for them."""
        return [replace(one, path=self._moved(one.path)) for one in records] if self.moved else records

    def _moved(self, path: str) -> str:
        for old, new in self.moved.items():
            if path == old or (path.startswith(old) and path[len(old)] in "/[~!#"):
                return new + path[len(old) :]
        return path

    def explained(self, error: ReplayMismatch, info: RunInfo, plan: bytes | None) -> ReplayMismatch:
        """Return *error*, or what says how the plan has changed since the run was begun."""
        if info.fingerprint == self.fingerprint or plan is None:
            return error
        changes = WorkflowPlan.model_validate_json(plan).diff(WorkflowPlan.model_validate_json(self.plan))
        ways = (
            "serve the old module as well, fork the run from a step that still stands, or serve(..., moved={old: new})"
        )
        text = "\n  ".join(
            [f"{error}", f"the plan of {self.target!r} has changed since:", *changes, f"ways out: {ways}"]
        )
        made = PlanChanged(text, run_id=error.run_id, step_id=error.step_id, recorded=error.recorded, found=error.found)
        made.diff = tuple(changes)
        return made


def modules_in(module: Any) -> Iterator[Any]:
    """Yield *module* and those that it calls, as far as its attributes, or the names in a flow's code, tell."""
    seen = set[int]()
    todo: list[Any] = [module]
    while todo:
        one = todo.pop()
        if _is_module(one) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += _held_by(one)


def _held_by(module: Module[Any, Any]) -> list[Any]:
    values: list[Any] = [*vars(module).values(), module._mai_settings.fallback, module._mai_settings.undo]
    held = [inner for value in values for inner in _each(value)]
    if isinstance(module, Graph):
        held += [shape.module for shape in module._wiring.shapes]
    elif module._mai_kind == "module" and (module._mai_spec or module._mai_compile()).flow:
        held += named_by(module.forward)
    return held


def _is_module(value: Any) -> bool:
    return isinstance(value, Module)


def _each(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, list | tuple) else (value,)  # pyright: ignore[reportUnknownVariableType]


class Codes:
    """The modules that a process serves."""

    def __init__(self) -> None:
        self._known: dict[str, list[Code]] = {}
        self.targets: KeysView[str] = self._known.keys()  # those that there are at the time of looking

    def add(self, module: Any, moved: Mapping[str, str] | None = None, *, served: bool = True) -> Code:
        """Return the code of *module*, added if it is not there; what is served later wins."""
        name: str = (module._mai_spec or module._mai_compile()).what[0]
        known = self._known.setdefault(name, [])
        for code in known:
            if code.module is module and moved is None:
                return code
        plan: WorkflowPlan = module.plan()
        code = Code(
            module, name, plan.model_dump_json().encode(), plan.fingerprint, dict(moved or {}), (*modules_in(module),)
        )
        if served or not known:
            known.insert(0, code)
        elif all(other.fingerprint != code.fingerprint for other in known):  # else each ``with_`` would stay for ever
            known.append(code)
        return code

    def find(self, info: RunInfo) -> Code | None:
        """Return the code for a run: of the very plan that it was begun with, else the one served last."""
        known = self._known.get(info.target, [])
        same = [code for code in known if code.fingerprint == info.fingerprint]
        return same[0] if same else known[0] if known else None
