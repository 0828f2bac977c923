"""``Any`` stands in a public annotation only where a value is truly opaque; then it is listed here with its reason."""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator

import pytest

ROOMS = (
    "mai",
    "mai.agents",
    "mai.errors",
    "mai.layers",
    "mai.middleware",
    "mai.models",
    "mai.tools",
    "mai.types",
)
OPAQUE = "a value of the user's, which is only handed on"
ANY_MODULE = "modules of all types stand side by side"
ANY_CALL = "the handles of calls of all types stand side by side"
NO_TYPE_FORM = "any type expression (`int | None`, `list[int]`), for which typing has no type before TypeForm"
MADE_FROM_FORWARD = "made from forward, when the program runs"
ANY_TOOL = "tools of all types stand side by side"
REASONS = {
    "AlreadyRecorded.record": "a `mai.durable.Record`, of a room above",
    "Agent.__init__(returning)": NO_TYPE_FORM,
    "Agent.__init__(self)": "the type of its answer follows from *returning*, which is " + NO_TYPE_FORM,
    "Agent.__init__(tools)": "whatever can be a tool: modules and functions of all types",
    "Agent.as_tool ->": "the types of a tool's arguments are in its inner module",
    "Agent.as_tool(**options)": "those of Tool",
    "Agent.tools": "tools of all types stand side by side",
    "Budget.__call__ ->": "the value of any call",
    "Budget.__call__(next)": "a middleware around any call",
    "Call.args": "the arguments of any forward",
    "Call.kwargs": "the arguments of any forward",
    "Conditional.otherwise": ANY_MODULE,
    "Conditional.test": "a function or a module, of any input",
    "Conditional.then": ANY_MODULE,
    "Context.auth": OPAQUE,
    "Context.metadata": OPAQUE,
    "Context.scope(auth)": OPAQUE,
    "Context.set(auth)": OPAQUE,
    "FunctionModule(base)": "its parameters are in P and its value in R; Module has no place for both",
    "Loop.body": ANY_MODULE,
    "Loop.until": "a function or a module, of any input",
    "LoopExhausted.__init__(state)": OPAQUE,
    "LoopExhausted.state": OPAQUE,
    "Map.step": ANY_MODULE,
    "LocalEngine.subscribe(fn)": ANY_CALL,
    "LocalEngine.tell(handle)": ANY_CALL,
    "Graph(base)": "its parameters are in P and its value in R; Module has no place for both",
    "Graph.__init__(self)": "the value is known when the output is wired",
    "Graph.from_plan ->": "follows from data",
    "Graph.from_plan(modules)": ANY_MODULE,
    "Graph.from_plan(types)": NO_TYPE_FORM,
    "InvalidOutput.__init__(**facts)": "those of ModelError",
    "BudgetExhausted.__init__(**facts)": "those of ModelError",
    "Model.returning ->": "follows from *type*, which is " + NO_TYPE_FORM,
    "Model.returning(type)": NO_TYPE_FORM,
    "Module.Out ->": NO_TYPE_FORM,
    "Module.draw(trace)": ANY_CALL,
    "Module.forward(*args)": "forward of a subclass may take more",
    "Module.forward(**kwargs)": "forward of a subclass may take more",
    "Module.schema ->": "a JSON schema",
    "Parallel.branches": ANY_MODULE,
    "PartialFailure.derive ->": "typeshed gives it a type of its own, by what it is given",
    "PartialFailure.derive(excs)": "typeshed gives it a type of its own, by what it is given",
    "Payload.load ->": "follows from *tp*, which is " + NO_TYPE_FORM,
    "Payload.load(tp)": NO_TYPE_FORM,
    "Payload.of(tp)": NO_TYPE_FORM,
    "Payload.tp": NO_TYPE_FORM,
    "Race.steps": ANY_MODULE,
    "Question.schema ->": "a JSON schema",
    "wait_for ->": "follows from *type*",
    "wait_for(type)": NO_TYPE_FORM,
    "Question.type": NO_TYPE_FORM,
    "Ref.__getattr__ ->": "the type of an attribute is known when it is wired",
    "Ref.__getitem__ ->": "the type of an item is known when it is wired",
    "Ref.__init__(tp)": NO_TYPE_FORM,
    "Ref.__init__(wiring)": "mai's own",
    "Ref.__iter__ ->": "the types of a tuple's parts are known when it is wired",
    "Sequential.__init__(*more)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(a)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(b)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(c)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(d)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(e)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(f)": "from six steps on, types are checked when the sequence is made",
    "Sequential.__init__(self)": "from six steps on, the type of the value is left open",
    "Sequential.steps": ANY_MODULE,
    "Settings.fallback": ANY_MODULE,
    "Settings.merged(given)": "values that are still to be checked",
    "Settings.middleware": "functions around calls of any type",
    "Settings.undo": "a module of the step's value",
    "Settings.params": OPAQUE,
    "Switch.cases": ANY_MODULE,
    "Switch.otherwise": ANY_MODULE,
    "Switch.selector": "a function or a module, of any input",
    "TraceEvent.attributes": "whatever OpenTelemetry takes as an attribute",
    "TraceHandle.attributes": "facts of several types that steps recorded",
    "TraceHandle.children": ANY_CALL,
    "TraceHandle.parent": ANY_CALL,
    "Request.output": "a JSON schema",
    "Returning.__init__(type)": NO_TYPE_FORM,
    "ToolDefinition.parameters": "a JSON schema",
    "UnknownCase.__init__(cases)": OPAQUE,
    "UnknownCase.__init__(key)": OPAQUE,
    "UnknownCase.cases": OPAQUE,
    "UnknownCase.key": OPAQUE,
    "ask ->": "follows from *type*, which is " + NO_TYPE_FORM,
    "ask(type)": NO_TYPE_FORM,
    "capture.runs": ANY_CALL,
    "MCPTools.__iter__ ->": ANY_TOOL,
    "MCPTools.tools": ANY_TOOL,
    "Redactor.value ->": "of the type that it is given",
    "Redactor.value(value)": "any value; what is no text stays",
    "Tool(base)": "its parameters are in P and its value in R; Module has no place for both",
    "Tool.inner": ANY_MODULE,
    "Tool.schema ->": "a JSON schema",
    "ToolResult.value": OPAQUE,
    "as_tools ->": ANY_TOOL,
    "as_tools(*things)": "modules, functions, and lists of such",
    "files ->": ANY_TOOL,
    "mcp_server ->": "a type of the SDK, for which lifespan it is open",
    "mcp_server(*things)": "modules, functions, and lists of such",
    "serve_mcp(*things)": "modules, functions, and lists of such",
    "spent(*traces)": ANY_CALL,
}


def says_any(annotation: ast.expr | None) -> bool:
    """Whether ``Any`` stands in an annotation, quoted or not."""
    if annotation is None:
        return False
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if says_any(ast.parse(node.value, mode="eval").body):
                return True
        elif isinstance(node, ast.Name) and node.id == "Any":
            return True
    return False


def is_public(name: str) -> bool:
    """Whether a name is for users; special methods are."""
    return not name.startswith("_") or name.endswith("__")


def is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is one of several signatures."""
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in function.decorator_list)


def in_function(function: ast.FunctionDef | ast.AsyncFunctionDef, where: str) -> Iterator[str]:
    """Yield the parameters of a function that are ``Any``, and its value; a bare ``self: Any`` types nothing."""
    given = function.args
    for stars, group in (
        ("", [*given.posonlyargs, *given.args, *given.kwonlyargs]), ("*", [given.vararg]), ("**", [given.kwarg]),
    ):  # fmt: skip
        for arg in group:
            bare = arg is not None and arg.arg == "self" and isinstance(arg.annotation, ast.Name)
            if arg is not None and not bare and says_any(arg.annotation):
                yield f"{where}({stars}{arg.arg})"
    if says_any(function.returns):
        yield f"{where} ->"


def in_class(tree: ast.ClassDef) -> Iterator[str]:
    """Yield where ``Any`` stands in the public part of a class: bases, attributes, methods as callers see them."""
    if any(says_any(base) for base in tree.bases):
        yield f"{tree.name}(base)"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    overloaded = {function.name for function in functions if is_overload(function)}
    members = {id(node) for part in ast.walk(tree) if not isinstance(part, FUNCTION) for node in own_statements(part)}
    for function in functions:
        shown = function.name not in overloaded or is_overload(function)
        if id(function) in members and is_public(function.name) and shown:
            yield from in_function(function, f"{tree.name}.{function.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and says_any(node.annotation):
            target = node.target
            name = target.attr if isinstance(target, ast.Attribute) else None
            if isinstance(target, ast.Name) and id(node) in members:
                name = target.id
            if name is not None and is_public(name):
                yield f"{tree.name}.{name}"


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def own_statements(part: ast.AST) -> list[ast.stmt]:
    """Return the statements directly in a class or in an ``if`` of it that checkers read."""
    if isinstance(part, ast.If) and "not TYPE_CHECKING" in ast.unparse(part.test):
        return list(part.orelse)
    return [*getattr(part, "body", []), *getattr(part, "orelse", [])] if isinstance(part, ast.ClassDef | ast.If) else []


def public_anys(room: str) -> Iterator[str]:
    """Yield where ``Any`` stands in what *room* lists in its ``__all__``."""
    module = importlib.import_module(room)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from in_source(inspect.getsource(value))
        elif inspect.isroutine(value):
            yield from in_source(textwrap.dedent(inspect.getsource(importlib.import_module(value.__module__))), name)


def in_source(source: str, name: str | None = None) -> Iterator[str]:
    """Yield where ``Any`` stands in the class of a source, or in the functions called *name*."""
    body = ast.parse(textwrap.dedent(source)).body
    found = [node for node in body if not name or getattr(node, "name", None) == name]
    overloaded = any(is_overload(node) for node in found if isinstance(node, ast.FunctionDef))
    for node in found:
        if isinstance(node, ast.ClassDef):
            yield from in_class(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (not overloaded or is_overload(node)):
            yield from in_function(node, node.name)


def test_each_public_any_has_a_reason_and_each_reason_an_any() -> None:
    found = {where for room in ROOMS for where in public_anys(room)}
    assert found - REASONS.keys() == set()
    assert REASONS.keys() - found == set()


PLANTED = """
class C(Base[Any]):
    x: "list[Any]"
    _hidden: Any
    plain: int
    if TYPE_CHECKING:
        seen: Any
    if not TYPE_CHECKING:
        unseen: Any
    def __init__(self: Any, a: int) -> None:
        self.kept: Any = a
        local: Any = a
        def inner(b: Any) -> None: ...
    @overload
    def f(self: "C[Any]", a: int) -> int: ...
    def f(self, a: Any) -> Any: ...
    async def g(self, *args: Any, k: dict[str, Any], **kw: Any) -> None: ...
    def _h(self, a: Any) -> None: ...
    @property
    def p(self) -> Any: ...
"""


def test_planted_anys_are_seen_where_users_meet_them() -> None:
    assert sorted(in_source(PLANTED)) == [
        "C(base)", "C.f(self)", "C.g(**kw)", "C.g(*args)", "C.g(k)", "C.kept", "C.p ->", "C.seen", "C.x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a: Any) -> int: ...", ["f(a)"]),
        ("@overload\ndef f(a: int) -> int: ...\ndef f(a: Any) -> Any: ...", []),
    ],
)
def test_planted_anys_of_functions_are_seen(source: str, found: list[str]) -> None:
    assert list(in_source(source, "f")) == found
