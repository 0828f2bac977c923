"""Configuration of Sphinx: `sphinx-build -W -n -b html docs docs/_build/html`."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that this file is in, installed or not

from pydantic import BaseModel
from sphinx.util.inspect import stringify_signature

import mai

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "mai"
author = "the mai contributors"
copyright = "2026, the mai contributors"  # noqa: A001 - the name that Sphinx reads
release = mai.__version__
version = release

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "changes", "examples"]
html_theme = "furo"
html_title = f"mai {release}"

# A `::` block is plain text: only a block that says it is Python is highlighted as such, and those the tests run.
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

nitpicky = True
# `type` is a builtin and the name of a fact of questions and of inputs of plans.
suppress_warnings = ["ref.python"]
nitpick_ignore_regex = [
    (r"py:class", r"(func|return_type|when_used)=.*"),  # what pydantic adds to the types of a Context
    # Other libraries: links to them need their inventories from the network, and the build must work without one.
    (
        r"py:.*",
        r"(annotated_types|anyio|asyncio|collections|contextlib|contextvars|datetime|enum|inspect|pathlib|types)\..*",
    ),
    (r"py:.*", r"(opentelemetry|pydantic|pydantic_core|typing|typing_extensions)\..*"),
    (r"py:.*", r"(os|ssl)\.\w+"),
    (r"py:class", r"Server"),  # that of the MCP SDK
    (r"py:class", r"Sampler|SpanExporter"),  # those of the OpenTelemetry SDK
    (r"py:class", r"(FieldInfo|NoneType|Strict|Ge|Gt|Le|AllowInfNan|[a-z_]+=.*)"),  # limits, as pydantic shows them
    (r"py:class", r"(_PydanticGeneralMetadata|pattern=.*|[~^\\+$].*|str \| ~collections.*)"),  # and parts of such
    (r"py:.*", r"(sqlite3|pathlib|_asyncio)\..*"),
    (r"py:class", r"SearchStrategy"),  # that of Hypothesis
    # Shown in signatures, not documented: what is private, the mark of a keyword not given, type variables alone, and
    # the keywords of a class and of the decorator, which are those of `Module.with_`.
    (r"py:.*", r"mai\.[\w.]*\._\w+"),
    (r"py:class", r"mai\.core\.settings\.Unset"),
    (r"py:class", r"mai\.layers\.(checks\.(Map)?Keywords|graph\.Rules)"),
    (r"py:class", r"[ABP]|Ts"),
    (r"py:class", r"mai\.layers\.(ask\.T|capture\.capture)"),
    (r"py:class", r"mai\.core\.(events\.(Bus|Bell)|frame\.Frame)"),  # users do not make them
    (r"py:class", r"mai\.durable\.code\.Code"),
]

PUBLIC = ("mai.errors", "mai.types", "mai.layers", "mai.models", "mai.agents", "mai")


def documented_name(target: str) -> str | None:
    """Return the reference's name for *target*, ``Module.run`` or ``mai.core.module.Module.run``, if it has one."""
    parts = target.split(".")
    for room in PUBLIC:
        for at, part in enumerate(parts):
            if part in importlib.import_module(room).__all__:
                return ".".join([room, *parts[at:]])
    return None


def is_plain_name(target: str) -> bool:
    """Whether *target* is a type variable or an alias, which a signature names and the reference need not list."""
    module, _, name = target.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return value is not None and not isinstance(value, type)


def resolve_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Link what a signature names by the module that defines it, or by its bare name, to where the reference has it."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    name = documented_name(target)
    if name is not None and name != target:
        return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)
    return contnode if target.startswith("mai.") and is_plain_name(target) else None


def keep_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon in a property's first line as its type."""
    if what in {"attribute", "property"}:
        lines[:0] = ["..", ""]


def plain_types(model: type[BaseModel]) -> dict[str, object]:
    """Return the types of the fields of *model*, without what pydantic adds to them."""
    try:
        return get_type_hints(model)
    except NameError:  # of a name that pydantic imports for type checkers alone
        return {key: field.annotation for key, field in model.model_fields.items()}


def readable_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show what a reader would write.

    A field of a pydantic model has its plain type, without the constraints and validators in ``Annotated``: those are
    no types, and the description says them in words. A composite is shown with its ``__init__``, not with the
    ``__new__`` of Module. A default that is no Python when printed, and would spoil the signature, is ``...``.
    """
    found: inspect.Signature | None = None
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        obj.model_rebuild(force=True)  # a model may be deferred, and has no signature before
        found, types = inspect.signature(obj), plain_types(obj)
        plain = [p.replace(annotation=types.get(key, p.annotation)) for key, p in found.parameters.items()]
        found = found.replace(parameters=plain)
    elif isinstance(obj, type) and issubclass(obj, mai.Module):
        written = list(inspect.signature(obj.__init__).parameters.values())[1:]
        found = inspect.Signature([] if obj.__init__ is object.__init__ else written)
    if found is not None:
        signature = stringify_signature(found, show_return_annotation=False, unqualified_typehints=True)
    for unprintable in ("<factory>", "<object object>"):
        signature = signature and signature.replace(unprintable, "...")
    return signature, returns


def skip_default(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:  # noqa: FBT001
    """Skip what the docstring of its owner has: a default that is a class, a field of a named tuple."""
    is_class = isinstance(obj, type) and obj.__module__ == "builtins"
    return True if is_class or type(obj).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", keep_colon, priority=400)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("autodoc-skip-member", skip_default)
    app.connect("missing-reference", resolve_public)
