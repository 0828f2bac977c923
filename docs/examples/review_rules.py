"""A model that needs no network: it uses the tools and decides by rules from what is measured and what they say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from mai.models import Model, Request, ScriptedModel, ToolCall, ToolReturn
from review_facts import BLOCKS, Function, blocks, is_elif, parse, weigh
from review_measures import Risk
from review_messages import Callers, Source, Verdict
from review_text import counted

MANY_DECISIONS = 10
"""Above this complexity a function is hard to test; McCabe's own limit (1976)."""
MANY_LEVELS = 4
MANY_PARAMETERS = 7
MANY_CALLS = 5


def rule_model() -> Model:
    """Return a model that reads the source, looks for the callers, and then says what it found.

    It says the same words for the same facts.
    """
    return ScriptedModel(by_rules, repeat=True).with_(name="RuleModel")


def by_rules(request: Request) -> ToolCall | str:
    """Return what the rules answer to *request*: a wish for a tool, or the verdict as JSON."""
    risk = Risk.model_validate_json(next(message.text for message in request.messages if message.role == "user"))
    parts = (part for message in request.messages for part in message.parts)
    answers = {part.name: part.content for part in parts if isinstance(part, ToolReturn)}
    if "read_source" not in answers:
        return ToolCall.of("read_source", path=risk.function.path, line=risk.function.line)
    if "find_callers" not in answers:
        return ToolCall.of("find_callers", name=risk.function.name)
    verdict = judge(risk.function, _source(answers["read_source"]), _callers(answers["find_callers"]))
    return verdict.model_dump_json()


@dataclass(frozen=True, slots=True)
class Block:
    """A statement with a body: its kind as it is written, its lines, and how many decisions it holds."""

    kind: str
    first: int
    last: int
    decisions: int


@dataclass(frozen=True, slots=True)
class Signs:
    """What the source of a function shows beyond what is measured.

    Attributes:
        deepest: The line where the nesting is deepest, 0 if there is none.
        swallowing: Lines where every exception is caught and dropped.
        shared: Parameters whose default is one list, dict or set for all calls.
        heaviest: The largest part that can be lifted out, if it holds at least a fifth of the decisions.
    """

    deepest: int = 0
    swallowing: tuple[int, ...] = ()
    shared: tuple[str, ...] = ()
    heaviest: Block | None = None


def judge(function: Function, source: Source | None, callers: Callers | None) -> Verdict:
    """Return the verdict that the rules come to.

    Args:
        function: What is measured.
        source: What `read_source` gave, None if nothing of use.
        callers: What `find_callers` gave, None if nothing of use.
    """
    signs = read_signs(source) if source is not None and source.complete else None
    points = _points(function, signs or Signs(), callers)
    severity = "high" if points >= 4 else "medium" if points >= 2 else "low"
    return Verdict.model_validate(
        {
            "severity": severity,
            "reason": "; ".join(_reasons(function, signs, callers)),
            "advice": "; ".join(_advice(function, signs or Signs(), callers)) or "leave it as it is",
        }
    )


def read_signs(source: Source) -> Signs | None:
    """Return what the text of a function shows, or None if it cannot be parsed on its own."""
    indented = source.text[:1].isspace()
    try:  # a method is indented, and dedenting would change its strings
        tree = parse(f"if True:\n{source.text}" if indented else source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    ast.increment_lineno(tree, source.first - 1 - indented)
    found = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None)
    if found is None:
        return None
    inside = list(_nested(found))
    return Signs(
        deepest=max(inside, key=lambda item: (item[1], -item[0].lineno))[0].lineno if inside else 0,
        swallowing=tuple(sorted(line for node, _ in inside for line in _swallowing(node))),
        shared=tuple(_shared_defaults(found.args)),
        heaviest=_heaviest(found, inside),
    )


def _points(function: Function, signs: Signs, callers: Callers | None) -> int:
    return sum(
        (
            function.complexity > MANY_DECISIONS,
            function.complexity > 2 * MANY_DECISIONS,
            function.depth > MANY_LEVELS,
            bool(signs.swallowing),
            bool(signs.shared),
            not function.documented,
            callers is not None and callers.total > MANY_CALLS,
        )
    )


def _reasons(function: Function, signs: Signs | None, callers: Callers | None) -> Iterator[str]:
    yield f"{counted(function.complexity, 'way')} through {counted(function.lines, 'line')}"
    if signs is None:
        yield "its source could not be read as a whole"
    elif function.depth and signs.deepest:
        yield f"{counted(function.depth, 'level')} of nesting at line {signs.deepest}"
    if signs is not None and signs.swallowing:
        yield f"every exception is dropped at {_lines(signs.swallowing)}"
    if signs is not None and signs.shared:
        yield f"all calls share one default of {', '.join(signs.shared)}"
    if function.places > MANY_PARAMETERS:
        yield f"{function.places - 1} parameters"
    if callers is not None:
        where = f"called as {callers.name!r} at {counted(callers.total, 'place')} in {counted(callers.files, 'file')}"
        yield where if callers.total else "nothing here calls it by name"


def _advice(function: Function, signs: Signs, callers: Callers | None) -> Iterator[str]:
    if signs.heaviest is not None:
        block = signs.heaviest
        share = f"{block.decisions} of {function.complexity - 1} decisions"
        yield f"make lines {block.first}-{block.last} ({block.kind!r}, {share}) a function"
    if signs.swallowing:
        yield f"name the exceptions that are expected at {_lines(signs.swallowing)}"
    if signs.shared:
        yield f"let {', '.join(signs.shared)} default to None"
    if not function.documented:
        rely = (
            f"what {counted(callers.total, 'call')} rely on"
            if callers is not None and callers.total > 1
            else "what it promises"
        )
        yield f"write down {rely}"
    if function.annotated < function.places:
        yield f"annotate {function.places - function.annotated} of {function.places} parameters and results"


def _nested(function: ast.AST) -> Iterator[tuple[ast.stmt | ast.ExceptHandler, int]]:
    """What stands in the blocks of a function, each with its depth from 1; nothing of what is defined inside."""
    todo: list[tuple[ast.AST, int]] = [(child, 0) for child in getattr(function, "body", ())]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.stmt | ast.ExceptHandler) and (depth or type(node) in BLOCKS):
            yield node, depth
        todo += blocks(node, depth)


def _swallowing(node: ast.AST) -> Iterator[int]:
    if not isinstance(node, ast.ExceptHandler):
        return
    broad = node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"}
    if broad and all(isinstance(child, ast.Pass | ast.Continue) or _is_ellipsis(child) for child in node.body):
        yield node.lineno


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def _shared_defaults(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)][::-1]
    pairs += [
        (name, value)
        for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if value is not None
    ]
    for name, value in pairs:
        if isinstance(value, ast.List | ast.Dict | ast.Set):
            yield name.arg


def _heaviest(function: ast.AST, inside: list[tuple[ast.stmt | ast.ExceptHandler, int]]) -> Block | None:
    """The block with the most decisions that is no more than four fifths of the function; the first of equal ones."""
    whole = _decisions(function)
    halves = {id(child) for node, _ in inside for child, _ in blocks(node) if is_elif(node, child)}
    whole_ones = (
        node for node, _ in inside if isinstance(node, ast.stmt) and type(node) in BLOCKS and id(node) not in halves
    )
    candidates = [
        Block(_kind(node), node.lineno, node.end_lineno or node.lineno, _decisions(node)) for node in whole_ones
    ]
    usable = [block for block in candidates if 0.2 * whole <= block.decisions <= 0.8 * whole and block.decisions > 1]
    return max(usable, key=lambda block: (block.decisions, -block.first), default=None)


def _kind(node: ast.AST) -> str:
    return type(node).__name__.lower().replace("async", "async ").replace("trystar", "try")


def _decisions(top: ast.AST) -> int:
    """The decisions in *top*, itself included, but not those of what is defined inside it."""
    total, todo = 0, [top]
    while todo:
        node = todo.pop()
        total += weigh(node)
        children = ast.iter_child_nodes(node)
        todo += [
            child for child in children if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
    return total


def _source(text: str) -> Source | None:
    try:
        return Source.model_validate_json(text)
    except ValidationError:  # the tool said what went wrong instead
        return None


def _callers(text: str) -> Callers | None:
    try:
        return Callers.model_validate_json(text)
    except ValidationError:
        return None


def _lines(numbers: tuple[int, ...]) -> str:
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
