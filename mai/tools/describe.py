"""What a model is told of a tool: the words of its docstring, taken apart.

Google sections and the field lists of reStructuredText are understood; anything else is description.
"""

import inspect
import re
from typing import Any

from mai.layers import Module

_SECTION = re.compile(
    r"(?P<name>Args|Arguments|Parameters|Params|Returns?|Yields?|Raises|Examples?|Notes?|Attributes|Source|Warns"
    r"|Warnings?|See Also|Todo|References)(?: \(of a call\))?:\s*$"
)
_ENTRY = re.compile(r"(?P<stars>\*{0,2})(?P<name>\w+)(?:\s*\([^)]*\))?\s*:\s*(?P<text>.*)$")
_FIELD = re.compile(r":(?:param|parameter|arg|argument)(?: [^:]*?)? (?P<name>\w+):\s*(?P<text>.*)$")
_ARGUMENTS = ("Args", "Arguments", "Parameters", "Params")


def described(module: Module[Any, Any]) -> tuple[str, dict[str, str]]:
    """Return the description of *module*, and that of each parameter that its docstrings tell of."""
    texts = [parsed(text) for text in _docstrings(module)]
    own = getattr(module, "description", "")  # what a Tool has, or an agent
    description = own if own and isinstance(own, str) else next((text for text, _ in texts if text), "")
    parameters: dict[str, str] = {}
    for _, told in reversed(texts):
        parameters |= told
    return description, parameters


def parsed(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the description in *docstring*, up to its first section, and those of parameters."""
    said, parameters, section, entry = list[str](), dict[str, str](), "", ""
    level: int | None = None  # how deep the entries of the section stand
    for line in inspect.cleandoc(docstring).splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        heading = _SECTION.match(line)
        field = _FIELD.match(line)
        if heading or field or text.startswith((":return", ":rais", ":rtype", ":type")):
            section, entry, level = heading["name"] if heading else "fields", "", None
            if field:
                entry = field["name"]
                parameters[entry] = field["text"]
        elif not section:
            said.append(line)
        elif section in _ARGUMENTS and text and (level is None or indent <= level):
            found = _ENTRY.match(text)
            level, entry = indent, found["name"] if found else ""
            if found:
                parameters[entry] = found["text"]
        elif entry and text:
            parameters[entry] = f"{parameters[entry]} {text}".strip()
    return "\n".join(said).strip(), parameters


def _docstrings(module: Module[Any, Any]) -> list[str]:
    """Return the docstrings that tell of a call of *module*, the nearest one first."""
    wrapped = getattr(module, "__wrapped__", None)
    if wrapped is not None:
        called = getattr(wrapped, "func", wrapped)  # a partial is called like its function
        return [inspect.getdoc(called) or ""]
    line: tuple[type, ...] = type(module).__mro__
    own = [vars(cls) for cls in line if hasattr(cls, "forward") and not cls.__dict__.get("_mai_root")]
    composite = type(module).__module__.startswith("mai.layers.")  # its docstring is about composites
    texts = [type(module).forward.__doc__, *(names.get("__doc__") for names in own)]
    return [] if composite else [text for text in texts if text]
