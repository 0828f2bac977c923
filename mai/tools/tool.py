"""Tool: a module or a typed function that a model may call."""

import copy
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from mai.core.engine import current_run
from mai.core.frame import current
from mai.core.trace import noted
from mai.errors import AskError, ConfigError
from mai.layers import Module
from mai.layers.ask import ask
from mai.layers.checks import name_of, signature_of
from mai.layers.module import lift
from mai.middleware.redact import Redactor
from mai.values import names
from mai.values.checked import COUNT, checked
from mai.values.signature import Signature

from .bare import with_input
from .describe import described
from .errors import ApprovalRefused, ArgumentsRefused
from .written import Unreadable, as_text, call_id_of, parsed_arguments, told

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
Y_co = TypeVar("Y_co", covariant=True)
Approve = bool | Callable[[Mapping[str, Any]], bool | Awaitable[bool]]
OnError = Literal["return", "raise"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN = 2000  # characters of one argument that a person is shown


class _Has(Protocol[Y_co]):
    @property
    def forward(self) -> Y_co: ...


class ToolPolicy(TypedDict, total=False):
    """Who approves a `Tool`, and what a model is told; see there."""

    approve: Approve
    on_error: OnError
    max_chars: int
    redact: Redactor | None


class ToolOptions(ToolPolicy, total=False):
    """All that `Tool` takes beside the module; see there."""

    name: str | None
    description: str | None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a tool that a model called.

    Attributes:
        name: The name of the tool.
        value: What it gave; None if it failed.
        text: What the model is told: the value as text or JSON, or what went wrong; never longer than ``max_chars``.
        error: What it failed with, or None.
    """

    name: str
    value: Any  # of whatever type the tool gives
    text: str
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the tool gave its value."""
        return self.error is None


class Tool(Module[Any, Any], Generic[P, R]):
    """A module or function as a tool: with a name, a description and a schema that a model is told.

    It is a Module with the signature of *inner*: ``await tool(query="x")`` checks the arguments, calls *inner* and
    raises what goes wrong. ``await tool.use(arguments)`` is for what a model wrote: it takes a dict or JSON text, and
    its `ToolResult` says what the model is to be told. Settings that concern the work (``timeout``, ``retry``) belong
    to *inner*: on the Tool they would include the time that a person takes to approve.

    Args:
        inner: A Module, or a function, plain or async; a function may have no parameters.
        name: What the model calls it: 1 to 64 letters, digits, ``_`` and ``-``; None: the name of *inner*.
        description: When to use it; None: the docstring up to its first section. The docstring's ``Args`` (or
            ``:param x:``) describe the parameters.
        approve: Whether a person is asked (`mai.ask`) before it runs: always, never, or a function, plain or async,
            which says so of the arguments by name.
        on_error: Whether `use` tells the model of an error or raises it.
        max_chars: Longest text for the model, from 1; what is longer is cut off and says so.
        redact: What must not reach the model, nor the person who is asked.

    Raises:
        ConfigError: If there is no usable name or description, or a parameter has no JSON schema.
        WiringError: If *inner* is neither a Module nor a function.

    Example:
        >>> from mai.tools import Tool
        >>> def add(a: int, b: int = 1) -> int:
        ...     '''Add two numbers.
        ...
        ...     Args:
        ...         a: The first one.
        ...     '''
        ...     return a + b
        >>> tool = Tool(add)
        >>> tool.name, tool.description, tool.schema()["properties"]["a"]
        ('add', 'Add two numbers.', {'description': 'The first one.', 'type': 'integer'})
        >>> tool.run(2, b=3)
        5
        >>> (await tool.use('{"a": 2, "c": 3}')).text
        "error: ConfigError: add has no parameter 'c'; it has 'a', 'b'"
    """

    _mai_kind = "tool"
    _mai_operation = "execute_tool"
    inner: Module[Any, Any]
    description: str
    approve: Approve
    on_error: OnError
    max_chars: int
    redact: Redactor | None

    @overload
    def __init__(
        self: "Tool[Q, str]",
        inner: _Has[Callable[Q, AsyncIterator[str] | Iterator[str]]],
        **options: Unpack[ToolOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: "Tool[Q, S]", inner: _Has[Callable[Q, Awaitable[S]]], **options: Unpack[ToolOptions]
    ) -> None: ...
    @overload
    def __init__(self: "Tool[Q, S]", inner: _Has[Callable[Q, S]], **options: Unpack[ToolOptions]) -> None: ...
    @overload
    def __init__(
        self: "Tool[Q, str]", inner: Callable[Q, AsyncIterator[str] | Iterator[str]], **options: Unpack[ToolOptions]
    ) -> None: ...
    @overload
    def __init__(self: "Tool[Q, S]", inner: Callable[Q, Awaitable[S]], **options: Unpack[ToolOptions]) -> None: ...
    @overload
    def __init__(self: "Tool[Q, S]", inner: Callable[Q, S], **options: Unpack[ToolOptions]) -> None: ...
    def __init__(
        self: Any,
        inner: Any,
        *,
        name: str | None = None,
        description: str | None = None,
        approve: Approve = False,
        on_error: OnError = "return",
        max_chars: int = 100_000,
        redact: Redactor | None = None,
    ) -> None:
        self.inner = lift(with_input(inner), "Tool")
        label = _valid_name(name_of(self.inner) if name is None else name)
        said, self._parameters = described(self.inner)
        self.description = said if description is None else description
        if not self.description:
            raise ConfigError(f"Tool {label!r} has no description; write a docstring, or give description=")
        if not isinstance(approve, bool) and not callable(approve):
            raise ConfigError(f"Tool {label!r}: approve={approve!r} is neither a bool nor a function of the arguments")
        if on_error not in ("return", "raise"):
            raise ConfigError(f"Tool {label!r}: on_error={on_error!r} cannot be used; give 'return' or 'raise'")
        self.approve, self.on_error, self.redact = approve, on_error, redact
        self.max_chars = checked(f"Tool {label!r}", "max_chars", max_chars, COUNT)
        try:
            signature = signature_of(self.inner)
        except NameError as error:
            raise ConfigError(f"Tool {label!r}: it names an unknown type: {error}") from error
        self._mai_signature = Signature(label, list(signature.params.values()), signature.returns)
        self._mai_settings = self._mai_settings.merged(label, {"name": label}, self.inner._mai_settings.params)
        try:
            self.schema()
        except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
            text = str(error).partition("\n")[0]
            raise ConfigError(f"Tool {label!r}: a model can write no argument of such a type: {text}") from error

    @property
    def name(self) -> str:
        """What the model calls it; ``with_(name=...)`` gives a copy with another one."""
        return _valid_name(name_of(self))

    @property
    def _mai_facts(self) -> Mapping[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """What its spans and handles say of it."""
        kind = names.OPENINFERENCE_KIND
        return {names.TOOL_NAME: self.name, names.TOOL_TYPE: "function", kind: "TOOL"}

    def schema(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the JSON schema of the arguments, with what the docstring says of each.

        A module that has an ``input_schema`` of its own, as one from another program has, is described by that.
        """
        if (given := getattr(self.inner, "input_schema", None)) is not None:
            return copy.deepcopy(cast("dict[str, Any]", given))  # a JSON schema
        made = _untitled(self.In.model_json_schema())
        for key, text in self._parameters.items():
            if key in (fields := made["properties"]):
                fields[key] = {"description": text, **fields[key]}
        return made

    async def forward(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask for approval where it is needed, then call the module."""
        if call_id := call_id_of.get():
            noted(current(), {names.TOOL_CALL_ID: call_id})
        if self.approve is not False:
            await self._approved(args, kwargs)
        inner: Any = self.inner  # P and R were taken from its type
        return await inner(*args, **kwargs)  # type: ignore[no-any-return]

    async def _approved(self, args: Any, kwargs: Any) -> None:
        """Return if the call may go on.

        Raises:
            ApprovalRefused: If a person says no.
            AskError: If there is nobody to ask.
        """
        given = _by_name(signature_of(self), args, kwargs)
        if callable(self.approve):
            needed = self.approve(MappingProxyType(given))
            found = bool(await needed if inspect.isawaitable(needed) else needed)
            # In a durable run the first word stands: what ran without being asked for is not asked for afterwards.
            if not await current_run().value(f"{current().path}/approve", lambda: found):
                noted(current(), {names.APPROVAL: "not needed"})
                return
        listed = ", ".join(f"{key}={_shown(value)}" for key, value in given.items())
        agreed = await ask(self._redacted(f"Run {self.name}({listed})?"), bool)
        noted(current(), {names.APPROVAL: "given" if agreed else "refused"})
        if not agreed:
            raise ApprovalRefused(f"{self.name} was not run: a person refused it", tool=self.name)

    async def use(self, arguments: Mapping[str, object] | str, *, call_id: str = "") -> ToolResult:
        """Call the tool with what a model wrote, and return what the model is to be told.

        Args:
            arguments: By name; or as the text of a JSON object.
            call_id: What the model calls this call; it stands in the trace.

        Raises:
            AskError: If approval is needed and there is nobody to ask, whatever ``on_error`` says.
            Exception: Whatever goes wrong, if ``on_error`` is ``"raise"``.
        """
        token, this, value = call_id_of.set(call_id), cast("Any", self), cast("Any", None)  # of whatever type it gives
        try:
            args, kwargs = self._sorted(await self._parsed(arguments))
            value = await this(*args, **kwargs)
        except AskError:
            raise
        except Exception as error:  # the policy says whether it is data
            if self.on_error == "raise":
                raise
            return ToolResult(self.name, None, self._cut(f"error: {told(error)}"), error)
        finally:
            call_id_of.reset(token)
        return ToolResult(self.name, value, self._cut(as_text(value)))

    async def _parsed(self, arguments: Mapping[str, object] | str) -> dict[str, Any]:
        """Return *arguments* by name; if they are none, the trace has a call that failed."""
        try:
            return parsed_arguments(self.name, arguments)
        except ArgumentsRefused:
            return await Unreadable(self.name, self._mai_facts)(arguments)

    def _sorted(self, left: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments by position, as far as they can be given only so, and the others by name."""
        places = list[Any]()
        params = list(signature_of(self).params.values())
        rest = next((p for p in params if p.kind is p.VAR_POSITIONAL and left.get(p.name)), None)
        for p in params:
            alone = p.kind is p.POSITIONAL_ONLY or (rest is not None and p.kind is p.POSITIONAL_OR_KEYWORD)
            if alone and p.name in left:
                places.append(left.pop(p.name))
        if rest is not None:
            places += _listed(left.pop(rest.name))
        return places, left

    def _cut(self, text: str) -> str:
        """Return *text* without secrets, and no longer than it may be."""
        text = self._redacted(text).encode("utf-8", "replace").decode()  # a lone surrogate cannot be sent
        if len(text) <= self.max_chars:
            return text
        note = f"\n[cut off: {len(text)} characters]"
        return (text[: max(0, self.max_chars - len(note))] + note)[: self.max_chars]

    def _redacted(self, text: str) -> str:
        return text if self.redact is None else self.redact.text(text)


def as_tools(*things: Any) -> tuple[Tool[..., Any], ...]:
    """Return *things*, each a Tool, a Module, a function, or a list or tuple of such, as Tools.

    Raises:
        ConfigError: If two have the same name.
        WiringError: If something cannot be a tool.

    Example:
        >>> from mai.tools import as_tools
        >>> def now(zone: str) -> str:
        ...     '''Return the time in a zone.'''
        ...     return "noon"
        >>> [tool.name for tool in as_tools(now)]
        ['now']
    """
    found = list[Tool[..., Any]]()
    for thing in things:
        if isinstance(thing, list | tuple):
            found += as_tools(*cast("list[Any]", thing))  # of whatever it holds
        else:
            made: Any = thing if isinstance(thing, Tool) else Tool(thing)  # pyright: ignore[reportUnknownVariableType]
            found.append(made)
    for tool in found:
        if sum(other.name == tool.name for other in found) > 1:
            raise ConfigError(f"two tools are called {tool.name!r}; give one of them another name with name=")
    return tuple(found)


def _valid_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"Tool: {name!r} is no name for a tool; give name= of 1 to 64 letters, digits, '_' and '-'")
    return name


def _by_name(signature: Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by the names of the parameters."""
    found = dict(zip((p.name for p in signature.positional), args, strict=False))
    rest = args[len(signature.positional) :]
    return {**found, **({signature.rest[0]: rest} if rest else {}), **kwargs}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]


def _shown(value: object) -> str:
    text = repr(value)  # which escapes what a terminal would act upon
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """Return *schema* without the titles that pydantic makes of names: a model pays for each word."""
    fields = {key: {k: v for k, v in field.items() if k != "title"} for key, field in schema["properties"].items()}
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": fields}
