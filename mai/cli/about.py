"""The help page of a target: what it does, its parameters with types and defaults, what it gives."""

import inspect
import textwrap
from pathlib import PurePath
from typing import Any

from pydantic.fields import FieldInfo

from mai.cli.inputs import fields_of, input_model
from mai.cli.usage import short
from mai.layers import Module
from mai.values.casts import show

__all__ = ["OPTION_NAMES", "about"]

OPTION_NAMES = frozenset({"answer", "timeout", "trace", "trace_html", "trace_json", "json", "traceback", "help"})


def about(module: Module[Any, Any], written: str) -> str:
    """Return the help page of *module*, which the command line calls *written*."""
    fields = fields_of(input_model(module))
    parts = [f"Usage: mai run {written} [INPUT]... [--NAME VALUE]..."]
    if doc := _doc(module):
        parts.append(textwrap.indent(doc, "  "))
    parts.append("\n".join(["Parameters:", *_table(fields)]))
    parts.append(f"Result: {show(module.Out)}")
    parts.append("INPUT is plain words, JSON, @file, or - for standard input; options of mai itself: mai run --help")
    return "\n\n".join(parts)


def _doc(module: Module[Any, Any]) -> str:
    """Return the docstring of the function, the class or its ``forward``; not that of a base class of mai."""
    made = type(module)
    of_class = None if made.__module__.startswith("mai.") else made.__doc__ or made.forward.__doc__
    doc = vars(module).get("__doc__") or of_class
    return inspect.cleandoc(doc) if doc else ""


def _table(fields: dict[str, FieldInfo]) -> list[str]:
    """Return a line for each parameter: how to give it, its type, its default, what its author says of it."""
    rows = [(_written(name, field), show(field.annotation), _rest(field)) for name, field in fields.items()]
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows)
    return [f"  {row[0]:{first}}  {row[1]:{second}}  {row[2]}".rstrip() for row in rows]


def _written(name: str, field: FieldInfo) -> str:
    if name in OPTION_NAMES:
        return f"{name} (by JSON)"
    return f"--{name} | --no-{name}" if field.annotation is bool else f"--{name}"


def _rest(field: FieldInfo) -> str:
    default = field.default
    shown = str(default) if isinstance(default, PurePath) else short(default)
    said = "required" if field.is_required() else f"default {shown}"
    return f"{said}; {field.description}" if field.description else said
