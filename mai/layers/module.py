"""Module: the one thing that runs. Steps and composites, and later models, tools and agents, are subclasses of it.

Size: the overloads of its calls and operators, and the words of its settings, belong with the one class that has them.
"""

import copy
import inspect
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

from opentelemetry.trace import SpanKind
from pydantic import BaseModel

from ..core.call import call, started
from ..core.engine import run_sync
from ..core.frame import current, restore, scoped, set_current
from ..core.retry import Retry
from ..core.spec import Spec
from ..core.trace import TraceHandle
from ..errors import CastError, ConfigError, WiringError
from ..types import Payload
from ..values.checked import UNSET
from ..values.signature import Signature
from . import checks
from .checks import Around, Fallback, Keywords, MapKeywords, name_of, signature_of
from .compile import spec_of
from .declared import colour_of, declared
from .schema import model_of
from .settings import SETTINGS, Settings

if TYPE_CHECKING:
    from typing import TypeVarTuple

    from typing_extensions import TypeVar as _TypeVar  # with default=; at run time Python 3.11's own is enough

    from ..types import WorkflowPlan
    from .map import Map
    from .parallel import Parallel
    from .sequential import Sequential

    Ts = TypeVarTuple("Ts")
    In = _TypeVar("In", contravariant=True, default=Any)
    Out = _TypeVar("Out", covariant=True, default=Any)
else:
    In, Out = TypeVar("In", contravariant=True), TypeVar("Out", covariant=True)


P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
X = TypeVar("X")
Y = TypeVar("Y")
X_contra = TypeVar("X_contra", contravariant=True)
Y_co = TypeVar("Y_co", covariant=True)
_Stream = AsyncIterator[R] | Iterator[R]
_Value = Coroutine[Any, Any, R]


class _Has(Protocol[Y_co]):
    @property
    def forward(self) -> Y_co: ...


class _Runs(Protocol[X_contra, Y_co]):
    def run(self, x: X_contra, /) -> Y_co: ...


Call = Callable[[A], Awaitable[B]]
Step = _Runs[A, B] | Call[A, B]  # several in one call are inferred exactly, by pyright too, only by their run


class _Derived(Generic[Y_co]):
    """An attribute computed from the class or the instance; an assignment on an instance wins (no data descriptor)."""

    def __init__(self, compute: "Callable[[Any], Y_co]") -> None:
        self.__doc__, self._compute = compute.__doc__, compute

    def __get__(self, instance: object, owner: type) -> Y_co:
        return self._compute(owner if instance is None else instance)


class _Identity:
    """What an instance and all its copies have in common, deep ones too."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Module(Generic[In, Out]):
    """Everything that runs. Subclass it and write ``forward``; input and output types come from there.

    ``forward`` may be a coroutine function, a plain function (runs in a worker thread; ``inline=True`` for quick ones)
    or a generator, async or not (its value is the joined str or bytes, else the list). ``Module[In, Out]`` brackets
    are optional and then checked; class keywords are default settings. ``super().__init__()`` need not be called. A
    module holds no per-call state: one instance may run in many tasks, threads and loops at once.

    Size: what a module can be asked is one list, half of it attributes that are made from ``forward``.

    ``await m(x)`` gives the value, ``m.run(x)`` does so in sync code, ``m.with_(...)`` is a configured copy, and
    ``a >> b`` and ``a & b`` compose.

    Raises:
        ConfigError: When the class is made: a ``forward`` that takes nothing, an unknown or wrong class setting.
        WiringError: When the class is made: brackets that contradict ``forward``.

    Example:
        >>> from mai import Module
        >>> class Repeat(Module, timeout=5.0):
        ...     async def forward(self, text: str, times: int = 2) -> str:
        ...         return text * times
        >>> Repeat().run("ha"), Repeat().with_(times=3).run("ha")
        ('haha', 'hahaha')
    """

    _mai_root: ClassVar[bool] = True
    _mai_kind: ClassVar[str] = "module"
    _mai_operation: ClassVar[str] = ""  # `gen_ai.operation.name`, if it is one; its spans are called after it
    _mai_span: Any = ""  # the name of its spans; "": after its operation and its own name
    _mai_span_kind: ClassVar[SpanKind] = SpanKind.INTERNAL
    _mai_flow: ClassVar[bool | None] = None  # whether it is one unless its settings say; None: if of another kind
    _mai_names: ClassVar[Mapping[str, Any] | None] = None  # what annotations of forward may name besides globals
    _mai_signature: Signature | None = None
    _mai_settings: Settings = Settings.model_construct()
    _mai_spec: Spec | None = None
    _mai_identity: object = None  # of an instance and all its copies
    _mai_facts: Mapping[str, Any] = {}  # attributes that every span and handle of the module has

    def __init_subclass__(cls, **settings: Unpack[Keywords]) -> None:
        super().__init_subclass__()
        cls._mai_root = False
        cls._mai_settings = cls._mai_settings.merged(cls.__name__, lifted(cls.__name__, settings))
        if len(cls.__bases__) > 1:  # forward may be that of any of them
            cls._mai_signature = None
        if "forward" in vars(cls):
            cls._mai_signature, cls._mai_names = None, dict(sys._getframe(1).f_locals)
            with suppress(NameError):  # an annotation of something that is defined later is looked at again when used
                checks.check_brackets(cls, signature_of(cls))
                cls._mai_names = None
        if cls._mai_settings.fallback:
            with suppress(NameError):
                checks.check_fallback(cls)

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Refuse a class that has no forward."""
            if cls.forward is Module.forward:
                raise ConfigError(f"{cls.__name__} has no forward; write one, it is what a module does")
            if (args or kwargs) and cls.__init__ is object.__init__:
                given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
                raise TypeError(f"{cls.__name__}({given}) takes no arguments: it has no __init__")
            made = super().__new__(cls)
            object.__setattr__(made, "_mai_identity", _Identity())
            return made

    def forward(self, x: In, /, *args: Any, **kwargs: Any) -> Out | Awaitable[Out]:
        """Do the work of this step; to be written by the subclass. Called directly it is untraced and unisolated."""
        raise ConfigError(f"{type(self).__name__} has no forward; write one, it is what a module does")

    # ---------------------------------------------------------------- calling

    @overload
    def __call__(self: _Has[Callable[P, Awaitable[R]]], *args: P.args, **kwargs: P.kwargs) -> _Value[R]: ...
    @overload
    def __call__(self: _Has[Callable[P, _Stream[str]]], *args: P.args, **kwargs: P.kwargs) -> _Value[str]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self: _Has[Callable[P, _Stream[bytes]]], *args: P.args, **kwargs: P.kwargs) -> _Value[bytes]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self: _Has[Callable[P, _Stream[R]]], *args: P.args, **kwargs: P.kwargs) -> _Value[list[R]]: ...
    @overload  # Module's own forward: no other takes any further objects
    def __call__(self: _Has[Callable[[A, object, object], Awaitable[R] | R]], x: A, /) -> _Value[R]: ...
    @overload
    def __call__(self: _Has[Callable[P, R]], *args: P.args, **kwargs: P.kwargs) -> _Value[R]: ...
    async def __call__(self: Any, value: Any = UNSET, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # pyright: ignore[reportInconsistentOverload]
        """Call the module: ``await m(x)`` gives its value."""

    if not TYPE_CHECKING:
        __call__ = call

    def run(self: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the module from sync code and return its value.

        It works where no event loop runs in this thread, and in worker threads, as often as needed: the calls of a
        process share one loop, so a client that is bound to a loop stays usable.

        Raises:
            WouldDeadlock: In the thread of a running event loop; write ``await m(x)`` there.
        """
        return run_sync(lambda: self(*args, **kwargs))  # type: ignore[no-any-return]

    def start(self: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> TraceHandle[R]:
        """Start the call as a run and return its handle at once.

        It runs as a task of the loop that runs in this thread; in a worker thread, of the loop that waits for that
        thread; elsewhere, of the one loop that serves the sync code of the process. It sees the context variables and
        the Context of its caller, with the deadline. A call joins the runs that were started in it, as a task group
        does: it waits for them before it gives its value, and cancels them when it fails or is cancelled.

        Example:
            >>> from mai import module
            >>> @module
            ... async def shout(text: str) -> str:
            ...     return text.upper()
            >>> handle = shout.start("hello")
            >>> await handle
            'HELLO'
        """
        return started(self, args, kwargs)

    # ---------------------------------------------------------------- configuring

    def with_(
        self,
        *,
        name: str | None = UNSET,
        timeout: float | None = UNSET,
        total_timeout: float | None = UNSET,
        retry: int | Retry | None = UNSET,
        fallback: Fallback = UNSET,
        middleware: Around = UNSET,
        inline: bool | None = UNSET,
        isolate: bool = UNSET,
        detached: bool | Literal["link"] = UNSET,
        flow: bool | None = UNSET,
        undo: Callable[..., object] | None = UNSET,
        version: str | None = UNSET,
        tags: tuple[str, ...] = UNSET,
        **params: object,
    ) -> Self:
        """Return a configured copy; the module itself never changes.

        Args:
            name: Name of the step in paths, traces and errors; None: the class's or function's name.
            timeout: Limit of each attempt [s], above 0; None: none.
            total_timeout: Limit of the whole call [s], above 0; None: none.
            retry: Attempts in all, at least 1, or a `Retry`; None: one attempt.
            fallback: A module or function, or several in order, to ask after the last failure; each gets the call's
                own arguments and a fresh *timeout*.
            middleware: An ``async (call, next) -> value``, or several, the first one outermost; see `Call`.
            inline: Run a plain ``forward`` on the event loop instead of in a worker thread.
            isolate: Give the call (a composite: each branch too; each attempt) a deep copy of its input.
            detached: The call returns its TraceHandle at once, and its work goes on; see :doc:`/howto/detach`. With
                ``"link"`` its spans are a trace of their own, which is linked to this one.
            flow: Under a durable engine ``forward`` is repeated, and the modules that it calls are the recorded steps;
                None: so it is with composites and graphs, and not with a ``forward`` of yours.
            undo: A module or function of the step's value that takes it back; called by a durable engine when the run
                fails or is cancelled later; see :doc:`/howto/durable-runs`.
            version: What the behaviour of this step is called; a change of it changes the `fingerprint` of plans.
            tags: Labels for traces.
            params: Defaults for parameters of ``forward`` or for attributes declared on the class.

        Raises:
            ConfigError: If a name is unknown, could mean two things, or a value does not fit.
            WiringError: If a fallback does not fit the types of ``forward``.
        """
        given = {key: value for key, value in locals().items() if key in SETTINGS and value is not UNSET}
        owner = name_of(self)
        for key in given:
            if key in signature_of(self).params:
                raise ConfigError(f"{owner}: {key!r} is a setting and a parameter of forward; give it at the call")
        defaults, attributes = checks.sort_params(self, params)
        settings = self._mai_settings.merged(owner, lifted(owner, given), defaults)
        clone = copy.copy(self)
        for key, value in {**attributes, "_mai_settings": settings, "_mai_spec": None}.items():
            object.__setattr__(clone, key, value)
        if "fallback" in given:
            checks.check_fallback(clone)
        if "undo" in given:
            checks.check_undo(clone)
        if checks.is_thrown_away(sys._getframe(1)):
            warnings.warn(f"{owner}.with_() returns a copy, which is thrown away here", RuntimeWarning, stacklevel=2)
        return clone

    @contextmanager
    def override(self: Callable[P, Awaitable[R]], double: "Callable[P, R | Awaitable[R]]") -> Generator[None]:
        """Let *double* stand in for ``forward``, for this module and all its copies, until the block ends.

        Settings, traces and casts stay as they are, so that a test sees the module as it is used. Only the calls made
        inside the block are concerned, wherever in a pipeline they happen; calls that run elsewhere at the same time
        are not.

        Args:
            double: A function, async function or module that can be called like ``forward``; a plain function runs on
                the event loop.

        Raises:
            ConfigError: If its signature is another one.

        Example:
            >>> from mai import module
            >>> @module
            ... async def ask_server(question: str) -> str:
            ...     raise ConnectionError("no network in tests")
            >>> with ask_server.override(lambda question: question.upper()):
            ...     ask_server.run("who?")
            'WHO?'
        """
        checks.check_double(self, double)
        stands_in = double, colour_of(double).replace("plain", "inline")
        doubles = {**current().env.doubles, getattr(self, "_mai_identity", None): stands_in}
        token = set_current(scoped(current(), doubles=doubles))
        try:
            yield
        finally:
            restore(token)

    # ---------------------------------------------------------------- composing

    @overload
    def __rshift__(self: Call[A, B], other: Call[B, C]) -> "Sequential[A, C]": ...
    @overload
    def __rshift__(self: "Call[A, tuple[*Ts]]", other: "Callable[[*Ts], Awaitable[C]]") -> "Sequential[A, C]": ...
    @overload
    def __rshift__(self: Call[A, B], other: Callable[[B], C]) -> "Sequential[A, C]": ...
    @overload
    def __rshift__(self: "Call[A, tuple[*Ts]]", other: "Callable[[*Ts], C]") -> "Sequential[A, C]": ...
    def __rshift__(self, other: Any) -> Any:
        """Compose a Sequential: the value of this module goes into *other*."""
        from .sequential import Sequential  # noqa: PLC0415 (a Sequential is a Module)

        return Sequential(self, other)

    def __and__(self: Call[A, B], other: Call[A, C]) -> "Parallel[A, tuple[B, C]]":
        """Compose a Parallel: this module and *other* get the same input."""
        from .parallel import Parallel  # noqa: PLC0415 (a Parallel is a Module)

        return Parallel(self, other)

    @overload
    def map(self: Call[A, B], *, on_error: Literal["cancel"] = ..., **how: Unpack[MapKeywords]) -> "Map[A, B]": ...
    @overload
    def map(
        self: Call[A, B], *, on_error: Literal["collect"], **how: Unpack[MapKeywords]
    ) -> "Map[A, B | Exception]": ...
    def map(self: Any, **how: Any) -> Any:
        """Return a Module that calls this one with each item of an iterable, many at once: a `Map`, same arguments."""
        from .map import Map  # noqa: PLC0415 (a Map is a Module)

        return Map(self, **how)

    if not TYPE_CHECKING:  # for a type checker there is no | at all

        def __or__(self, other):
            raise WiringError("modules have no |: write a >> b for a sequence and a & b for branches in parallel")

        __ror__ = __or__

    # ---------------------------------------------------------------- looking

    @_Derived
    def settings(self: Any) -> Settings:
        """The settings, with the name filled in."""
        return self._mai_settings.model_copy(update={"name": name_of(self)})  # type: ignore[no-any-return]

    @_Derived
    def In(self: Any) -> type[BaseModel]:
        """The input as a pydantic model with a field for each parameter of ``forward``; made from it."""
        return model_of(signature_of(self), self._mai_settings.params)

    @_Derived
    def Out(self: Any) -> Any:
        """The type of the value."""
        returns = signature_of(self).returns
        return Any if returns is inspect.Parameter.empty else returns

    @_Derived
    def schema(self: Any) -> Callable[[], dict[str, Any]]:
        """``schema()`` returns the JSON schema of the input."""
        return self.In.model_json_schema  # type: ignore[no-any-return]

    @_Derived
    def payload(self: Any) -> "Callable[..., Payload[BaseModel]]":
        """``payload(**fields)`` returns the input as a checked Payload; CastError says which field does not fit."""

        def make(**fields: Any) -> Payload[BaseModel]:
            model, name = self.In, name_of(self)
            try:
                return Payload.of(model(**fields), model)
            except ValueError as error:
                raise CastError(f"{name}: {error}", where="payload", expected=f"{name}.In") from error

        return make

    def plan(self) -> "WorkflowPlan":
        """Return what the module will do, as data: its steps, what feeds them, their types and settings."""
        from .planning import plan_of  # noqa: PLC0415 (planning is about modules)

        return plan_of(self)

    def plan_json(self) -> Iterator[str]:
        """Yield the JSON of the plan piece by piece, so that a million steps can be written without being held.

        ``file.writelines(m.plan_json())`` writes what ``m.plan().model_dump_json()`` gives.
        """
        from mai.views.plan import plan_json  # noqa: PLC0415 (a view method)

        return plan_json(self)

    def draw(self, format: str = "mermaid", *, trace: "TraceHandle[Any] | None" = None) -> str:  # noqa: A002
        """Return a drawing of the plan, as text.

        Args:
            format: ``"mermaid"``, ``"dot"`` (Graphviz) or ``"text"``.
            trace: A call of this module, to be laid over the drawing: times, failures, and what was skipped.

        Raises:
            ConfigError: If *format* is another one.
        """
        from mai.views.plan import draw  # noqa: PLC0415 (a view method)

        return draw(self.plan(), format, trace)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return what a notebook shows."""
        return {"text/plain": repr(self), "text/vnd.mermaid": self.draw()}

    def __repr__(self) -> str:
        return f"<{name_of(self)}{signature_of(self)}>"

    def _mai_compile(self) -> Spec:
        """Make what a call needs to know, once for each configured copy."""
        spec = spec_of(self)
        object.__setattr__(self, "_mai_spec", spec)
        return spec

    @classmethod
    def _mai_sign(cls) -> Signature:
        """Read the signature of the class; composites and functions have one of their own in each instance."""
        method = not isinstance(inspect.getattr_static(cls, "forward"), staticmethod | classmethod)
        cls._mai_signature = declared(cls.forward, cls.__name__, method=method, names=cls._mai_names)
        return cls._mai_signature


def lifted(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings *given* with each fallback and what undoes as a Module."""
    made = dict(given)
    if (listed := made.get("fallback")) is not None:
        several: Any = listed if isinstance(listed, list | tuple) else (listed,)  # pyright: ignore[reportUnknownVariableType]
        made["fallback"] = tuple(lift(one, f"{owner}: fallback") for one in several)
    if callable(made.get("undo")):
        made["undo"] = lift(made["undo"], f"{owner}: undo")
    return made


def lift(value: Any, where: str) -> "Module[Any, Any]":
    """Return *value* as a Module: itself, or a function made one.

    Raises:
        WiringError: If it is neither a Module nor a function.
    """
    if isinstance(value, Module):
        return value  # pyright: ignore[reportUnknownVariableType]
    if inspect.isclass(value) and issubclass(value, Module):
        raise WiringError(f"{where}: {value.__name__} is a class; write {value.__name__}() to make a step of it")
    if not callable(value):
        raise WiringError(f"{where}: {value!r} is neither a Module nor a function")
    from .function import FunctionModule  # noqa: PLC0415 (a function module is a Module)

    return FunctionModule(value)
