"""The facts that one Python source gives: one walk over its syntax tree.

Nothing here knows mai. `review_files.py` reads the files, `review_measures.py` sums the facts up, and `review.py` makes
modules of it all.
"""

from __future__ import annotations

import ast
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypeAlias

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Import:
    """One import that runs when its file is imported.

    Attributes:
        line: Its line.
        level: Number of leading dots, 0 for an absolute import.
        module: The dotted name after `from` or `import`, empty in `from . import x`.
        names: What `from` asks for; empty for a plain `import`.
    """

    line: int
    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """What is measured of one function or method.

    Attributes:
        path: Its file, relative to the reviewed directory.
        name: Its qualified name, as in `Class.method`.
        line: The line of its `def`.
        first: Its first line, decorators included.
        last: Its last line.
        complexity: McCabe's cyclomatic number, from 1. What is defined inside it counts on its own.
        depth: The deepest nesting of compound statements in its body, 0 for a flat one.
        places: How many of its parameters and its result can be annotated.
        annotated: How many of them are.
        public: Whether users of its module are meant to call it: no name on the way to it starts with `_`.
        documented: Whether it has a docstring or needs none (an overload, a property's setter).
    """

    path: str
    name: str
    line: int
    first: int
    last: int
    complexity: int
    depth: int
    places: int
    annotated: int
    public: bool
    documented: bool

    @property
    def lines(self) -> int:
        """Its length in lines, decorators included."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Place:
    """Something with a name at a line of a file."""

    path: str
    line: int
    name: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What one file says about itself.

    Attributes:
        path: The file, relative to the reviewed directory.
        lines: All its lines.
        code_lines: Those that are neither blank nor comment nor docstring (in a long string, too, a line that starts
            with `#` counts as comment).
        imports: The imports that run when it is imported: not those in functions, under `TYPE_CHECKING` or `__main__`.
        functions: Its functions and methods, nested ones too, by line.
        classes: How many classes it defines.
        documentable: How many public modules, classes and functions in it should have a docstring.
        undocumented: Those that have none, by line.
        calls: The lines on which a name is called, by the last part of the name.
    """

    path: str
    lines: int
    code_lines: int
    imports: tuple[Import, ...]
    functions: tuple[Function, ...]
    classes: int
    documentable: int
    undocumented: tuple[Place, ...]
    calls: dict[str, tuple[int, ...]]


def parse_facts(path: str, source: bytes) -> FileFacts:
    r"""Return the facts that *source*, the content of the file *path*, gives.

    Args:
        path: Where the facts say they come from.
        source: Python source in the encoding that it declares.

    Raises:
        SyntaxError: If it is not Python as this interpreter knows it, or not in its encoding.
        ValueError: If it holds null bytes (in some versions of Python a SyntaxError).
        RecursionError: If it is nested too deeply for the parser (or MemoryError).

    Example:
        >>> facts = parse_facts("a.py", b"def sign(x):\n    return 1 if x > 0 else -1\n")
        >>> [(function.name, function.complexity) for function in facts.functions]
        [('sign', 2)]
    """
    walk = _Walk(path)
    walk.run(parse(source))
    lines = [line.strip() for line in source.splitlines()]
    docstrings = {number for first, last in walk.docstrings for number in range(first, last + 1)}
    code = sum(
        1 for number, line in enumerate(lines, 1) if line and not line.startswith(b"#") and number not in docstrings
    )
    return FileFacts(
        path=path,
        lines=len(lines),
        code_lines=code,
        imports=tuple(sorted(walk.imports, key=lambda found: found.line)),
        functions=tuple(sorted(walk.functions, key=lambda function: (function.line, function.name))),
        classes=walk.classes,
        documentable=walk.documentable,
        undocumented=tuple(sorted(walk.undocumented, key=lambda place: (place.line, place.name))),
        calls={name: tuple(sorted(numbers)) for name, numbers in walk.calls.items()},
    )


_PARSING = threading.Lock()


def parse(source: bytes | str) -> ast.Module:
    """Return the syntax tree of *source*, without the parser's warnings about its style.

    The filters of `warnings` belong to the whole process, hence the lock. It costs nothing: the parser holds the
    interpreter's own lock anyway.
    """
    with _PARSING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=SyntaxWarning)
        warnings.filterwarnings("ignore", message="invalid ", category=DeprecationWarning)
        return ast.parse(source)


def weigh(node: ast.AST) -> int:
    """Return how many decisions *node* takes itself, without its children.

    `if` and `elif`, `for`, `while`, `except`, each `case` that may not match, each further operand of `and` and `or`,
    a conditional expression, and in a comprehension each `for` and each `if` are one each. `else`, `finally`, `with`
    and `assert` are none.

    Source:
        Thomas J. McCabe, "A Complexity Measure", IEEE Transactions on Software Engineering, 1976: decisions plus one,
        where a compound condition counts by its parts.
    """
    if type(node) in _ONE_DECISION:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return int(
            node.guard is not None or not isinstance(node.pattern, ast.MatchAs) or node.pattern.pattern is not None
        )
    return 0


def blocks(node: ast.AST, depth: int = 0) -> list[tuple[ast.AST, int]]:
    """Return what stands in the blocks of a compound statement at *depth*, each with its own depth.

    A statement inside is one deeper, but for an `elif`, which is as deep as its `if`. A handler or a case has the depth
    of its body. In any other node there are no blocks.
    """
    deeper = depth if isinstance(node, ast.ExceptHandler | ast.match_case) else depth + 1
    children = (child for name in BLOCKS.get(type(node), ()) for child in getattr(node, name))
    return [(child, depth if is_elif(node, child) else deeper) for child in children]


BLOCKS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.If: ("body", "orelse"),
    ast.For: ("body", "orelse"),
    ast.AsyncFor: ("body", "orelse"),
    ast.While: ("body", "orelse"),
    ast.With: ("body",),
    ast.AsyncWith: ("body",),
    ast.Try: ("body", "handlers", "orelse", "finalbody"),
    ast.TryStar: ("body", "handlers", "orelse", "finalbody"),
    ast.Match: ("cases",),
    ast.ExceptHandler: ("body",),
    ast.match_case: ("body",),
}
"""The fields of each compound statement (and of a handler and a case) that hold statements."""

_ONE_DECISION = frozenset({ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp})
_WEIGHED = _ONE_DECISION | {ast.BoolOp, ast.comprehension, ast.match_case}
_LEAVES = frozenset(
    "arg asname attr conversion ctx id is_async kind level module name names op ops simple type_comment".split()
)
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: tuple(name for name in kind._fields if name not in _LEAVES and name not in BLOCKS.get(kind, ()))
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
} | {ast.Constant: ()}


def is_elif(node: ast.AST, child: ast.AST) -> bool:
    """Return whether *child* is the `elif` of the `if` that *node* is."""
    if not isinstance(node, ast.If) or not isinstance(child, ast.If):
        return False
    return node.orelse == [child] and child.col_offset == node.col_offset


@dataclass(slots=True)
class _Scope:
    """A body to be walked, what is known of where it stands, and what is counted in it."""

    node: ast.Module | Definition
    name: str
    public: bool
    eager: bool
    method: bool = False
    complexity: int = 1
    depth: int = 0


@dataclass(slots=True)
class _Walk:
    """One walk over one tree, with stacks of its own: no source that parses is too deep for it."""

    path: str
    imports: list[Import] = field(default_factory=list[Import])
    functions: list[Function] = field(default_factory=list[Function])
    undocumented: list[Place] = field(default_factory=list[Place])
    calls: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    docstrings: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    scopes: list[_Scope] = field(default_factory=list[_Scope])
    classes: int = 0
    documentable: int = 0

    def run(self, tree: ast.Module) -> None:
        parts = PurePath(self.path).with_suffix("").parts
        public = not any(part.startswith("_") and part not in {"__init__", "__main__"} for part in parts)
        self.scopes.append(_Scope(tree, "", public and bool(tree.body), eager=True))
        while self.scopes:
            scope = self.scopes.pop()
            self._statements(scope)
            self._finish(scope)

    def _finish(self, scope: _Scope) -> None:
        node, documented = scope.node, self._has_docstring(scope.node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = documented or _needs_no_docstring(node)
            self.functions.append(self._measured(scope, node, documented))
        elif isinstance(node, ast.ClassDef):
            self.classes += 1
        self.documentable += scope.public
        if scope.public and not documented:
            self.undocumented.append(Place(self.path, getattr(node, "lineno", 1), scope.name or "(module)"))

    def _measured(self, scope: _Scope, node: ast.FunctionDef | ast.AsyncFunctionDef, documented: bool) -> Function:
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        marks = [argument.annotation is not None for argument in arguments[_is_bound(scope, node) :]]
        marks += [node.returns is not None] if node.name != "__init__" else []
        return Function(
            path=self.path,
            name=scope.name,
            line=node.lineno,
            first=min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]),
            last=node.end_lineno or node.lineno,
            complexity=scope.complexity,
            depth=scope.depth,
            places=len(marks),
            annotated=sum(marks),
            public=scope.public,
            documented=documented,
        )

    def _has_docstring(self, node: ast.Module | Definition) -> bool:
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as found, *_]:
                self.docstrings.append((found.lineno, found.end_lineno or found.lineno))
                return True
            case _:
                return False

    def _statements(self, scope: _Scope) -> None:
        todo: list[tuple[ast.AST, int, bool]] = [(child, 0, scope.eager) for child in scope.node.body]
        while todo:
            node, depth, eager = todo.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.scopes.append(_inner(scope, node, eager))
                self._definition(scope, node)
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports += _imports(node) if eager else []
                continue
            if type(node) in BLOCKS:
                inside = blocks(node, depth)
                scope.depth = max([scope.depth, *(deeper for _, deeper in inside)])
                late = _deferred(node)
                todo += [(child, deeper, eager and id(child) not in late) for child, deeper in inside]
            self._expressions(scope, [node])

    def _definition(self, scope: _Scope, node: Definition) -> None:
        """Walk what a definition evaluates where it stands: decorators, defaults, annotations, base classes."""
        outside: list[ast.AST] = [*node.decorator_list]
        if isinstance(node, ast.ClassDef):
            outside += [*node.bases, *node.keywords]
        else:
            outside += [node.args, *filter(None, [node.returns])]
        self._expressions(scope, outside)

    def _expressions(self, scope: _Scope, todo: list[ast.AST]) -> None:
        """Count the decisions and note the calls in *todo*, without going into the blocks of statements."""
        while todo:
            node = todo.pop()
            kind = type(node)
            if kind in _WEIGHED:
                scope.complexity += weigh(node)
            elif isinstance(node, ast.Call):
                self._call(node)
            for name in _FIELDS[kind]:
                value: ast.AST | list[ast.AST | None] | str | None = getattr(node, name)
                if isinstance(value, list):
                    todo += [child for child in value if isinstance(child, ast.AST)]
                elif isinstance(value, ast.AST):
                    todo.append(value)

    def _call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name is not None:
            self.calls.setdefault(name, []).append(node.func.end_lineno or node.lineno)


def _inner(scope: _Scope, node: Definition, eager: bool) -> _Scope:
    """The scope of a definition in *scope*: a function's body runs later, and what it defines is its own business."""
    in_function = isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef)
    name = f"{scope.name}.{node.name}" if scope.name else node.name
    public = scope.public and not in_function and not node.name.startswith("_")
    return _Scope(
        node, name, public, eager and isinstance(node, ast.ClassDef), method=isinstance(scope.node, ast.ClassDef)
    )


def _imports(node: ast.Import | ast.ImportFrom) -> list[Import]:
    if isinstance(node, ast.ImportFrom):
        return [Import(node.lineno, node.level, node.module or "", tuple(alias.name for alias in node.names))]
    return [Import(node.lineno, 0, alias.name) for alias in node.names]


def _deferred(node: ast.AST) -> set[int]:
    """The ids of the statements in *node* that do not run at import: under `TYPE_CHECKING`, `__main__` or `if 0`."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return {id(child) for child in node.body}
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()])):
            return {id(child) for child in node.body}
        case ast.If(test=ast.Constant(value=value)) if not value:
            return {id(child) for child in node.body}
        case _:
            return set()


def _is_bound(scope: _Scope, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the first parameter is `self` or `cls`, which needs no annotation."""
    return scope.method and "staticmethod" not in _decorators(node) and bool(node.args.posonlyargs or node.args.args)


def _needs_no_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return not {"overload", "setter", "deleter"}.isdisjoint(_decorators(node))


def _decorators(node: Definition) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
