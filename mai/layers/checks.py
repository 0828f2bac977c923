"""What is checked when a module is made, configured or wired: names, attributes, brackets, thrown away copies.

Works on modules without importing their class, so that `mai.layers.module` can use it.
"""

import dis
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, Literal, TypedDict

from ..core.middleware import Middleware
from ..core.retry import Retry
from ..core.trace import TraceHandle
from ..errors import CastError, ConfigError, WiringError
from ..values.casts import caster, is_open, show
from ..values.checked import near
from ..values.signature import Signature
from .edges import fits, wire
from .settings import SETTINGS

Fallback = Callable[..., object] | Sequence[Callable[..., object]] | None  # a module can be called, too
Around = Middleware | Sequence[Middleware] | None


class Keywords(TypedDict, total=False):
    """The settings that a class and `module` take as keywords."""

    name: str | None
    timeout: float | None
    total_timeout: float | None
    retry: int | Retry | None
    fallback: Fallback
    middleware: Around
    inline: bool | None
    isolate: bool
    detached: bool | Literal["link"]
    flow: bool | None
    undo: Callable[..., object] | None
    version: str | None
    tags: tuple[str, ...]


class MapKeywords(TypedDict, total=False):
    """What `Map` and `Module.map` take beside ``on_error``."""

    concurrency: int
    progress: bool


def name_of(module: Any) -> str:
    """Return the name of a module (or module class): given, or that of its class or function."""
    label = module.__name__ if isinstance(module, type) else getattr(module, "_mai_label", type(module).__name__)
    return module._mai_settings.name or str(label)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def signature_of(module: Any) -> Signature:
    """Return the signature of a module or a module class, read once."""
    found: Signature = module._mai_signature or module._mai_sign()
    return Signature(found.owner, list(found.params.values()), TraceHandle) if module._mai_settings.detached else found


def needed(module: Any) -> list[inspect.Parameter]:
    """Return the positional parameters that a call of *module* must give.

    Raises:
        WiringError: If none, or one that must be given, can be given by position: no composite gives one by name.
    """
    found, signature = list[inspect.Parameter](), signature_of(module)
    first, owner = signature.first, name_of(module)
    if first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise WiringError(f"{owner} takes {first.name!r} only by name: a composite gives its value by position")
    for p in signature.params.values():
        if p.default is p.empty and p.name not in module._mai_settings.params:
            if p.kind is p.KEYWORD_ONLY:
                raise WiringError(f"{owner} needs {p.name!r} by name: set it with .with_({p.name}=...)")
            found += [p] if p in signature.positional else []
    return found


def check_one(owner: str, module: Any) -> None:
    """Raise WiringError unless *module* can be called with one value."""
    wants, first = needed(module), signature_of(module).first.name
    if len(wants) > 1:
        names = ", ".join(p.name for p in wants)
        raise WiringError(f"{owner}: {name_of(module)} needs {len(wants)} values ({names}), but gets one")
    for p in wants:
        if p.name != first:
            hint = f"which goes to {first!r}; set {p.name!r} with .with_({p.name}=...) instead"
            raise WiringError(f"{owner}: {name_of(module)} needs {p.name!r}, but gets one value, {hint}")


def check_branches(owner: str, modules: Iterable[Any]) -> None:
    """Raise WiringError unless one value can go into each of *modules*."""
    last: Any = Any
    for module in modules:
        check_one(owner, module)
        takes = signature_of(module).takes
        if fits(last, takes) is None and fits(takes, last) is None:
            raise WiringError(f"{owner}: {name_of(module)} takes {show(takes)}, another branch {show(last)}")
        last = takes


def check_fallback(module: Any) -> None:
    """Raise WiringError if a fallback cannot take the input of *module* (or module class), or give its output."""
    owner, signature = name_of(module), signature_of(module)
    for other in module._mai_settings.fallback:
        have = signature_of(other)
        if len(wants := needed(other)) > len(signature.positional):
            names = ", ".join(p.name for p in wants)
            raise WiringError(f"{owner}: its fallback {name_of(other)} needs {len(wants)} values ({names})")
        takes, gets = have.takes, signature.takes
        if fits(gets, takes) is None:
            raise WiringError(f"{owner} takes {show(gets)}, but its fallback {name_of(other)} takes {show(takes)}")
        if fits(have.returns, signature.returns) is None:
            gives = f"its fallback {name_of(other)} returns {show(have.returns)}"
            raise WiringError(f"{owner} returns {show(signature.returns)}, but {gives}")


def check_undo(module: Any) -> None:
    """Raise WiringError if what undoes *module* cannot take its value."""
    undo = module._mai_settings.undo
    if undo is not None:
        check_one(f"{name_of(module)}: undo", undo)
        takes = signature_of(undo).first
        wire(name_of(module), signature_of(module).returns, name_of(undo), takes.name, takes.annotation)


def check_double(module: Any, double: Any) -> None:
    """Raise ConfigError if *double* cannot be called in each way in which ``forward`` of *module* can."""
    owner, signature = name_of(module), signature_of(module)
    if getattr(double, "_mai_identity", None) is module._mai_identity:
        raise ConfigError(f"{owner} cannot be overridden by itself or a copy of itself")
    own = inspect.signature(double.forward if hasattr(double, "_mai_settings") else double)
    params = [p for p in signature.params.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    few = [p for p in params if p.default is p.empty]
    for chosen in (params, few):
        named = {p.name: None for p in chosen if p.kind is p.KEYWORD_ONLY}
        keywords = {p.name: None for p in chosen if p.kind is not p.POSITIONAL_ONLY}
        places = [p for p in chosen if p.kind is not p.KEYWORD_ONLY]
        alone = [p for p in places if p.kind is p.POSITIONAL_ONLY]
        for args, kwargs in ((places, named), (alone, keywords)):
            try:
                own.bind(*args, **kwargs)
            except TypeError as error:
                why = f"{owner}{signature} cannot be overridden by one that takes {own}: {error}"
                raise ConfigError(why) from error


def check_brackets(cls: type, signature: Signature) -> None:
    """Raise WiringError if ``Module[In, Out]`` contradicts what forward says."""
    for base in getattr(cls, "__orig_bases__", ()):
        args = typing.get_args(base)
        if getattr(typing.get_origin(base), "_mai_root", False) and len(args) == 2:
            takes, gives = signature.takes, signature.returns
            declared = f"{cls.__name__} is declared Module[{show(args[0])}, {show(args[1])}], but forward"
            if fits(args[0], takes) != "same" and not is_open(args[0]):
                raise WiringError(f"{declared} takes {show(takes)}")
            if fits(gives, args[1]) != "same" and not is_open(gives):
                raise WiringError(f"{declared} returns {show(gives)}")


def sort_params(module: Any, params: dict[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell defaults for forward's parameters from declared attributes; check both.

    Raises:
        ConfigError: If a name is neither, or a value does not fit.
    """
    signature, owner, declared = signature_of(module), name_of(module), _declared(module.__class__)
    sorted_: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for key, value in params.items():
        param = signature.parameter(key)
        if param is None and key not in declared:
            raise ConfigError(f"{owner} has no setting {key!r}{near(key, [*SETTINGS, *signature.params, *declared])}")
        try:
            cast = caster(declared[key] if param is None else param.annotation)
            sorted_[param is None][key] = cast(value, key)
        except CastError as error:
            raise ConfigError(f"{owner}: {error}") from error
    return sorted_


def _declared(cls: type) -> dict[str, Any]:
    """Return the attributes that the user's classes declare, with their types."""
    base = next(base for base in cls.__mro__ if vars(base).get("_mai_root"))
    known = {key: getattr(cls, key, None) for key in dir(cls) if not hasattr(base, key)}
    plain = {key: Any for key, value in known.items() if not callable(value) and not hasattr(value, "__get__")}
    try:
        typed = typing.get_type_hints(cls, include_extras=True)
    except NameError:  # an annotation of something that is not defined yet: its values are not checked
        typed = {key: Any for one in cls.__mro__ for key in inspect.get_annotations(one)}
    typed = {key: Any if typing.get_origin(tp) is typing.ClassVar else tp for key, tp in typed.items()}
    return {key: tp for key, tp in {**plain, **typed}.items() if not key.startswith("_")}


def is_thrown_away(frame: FrameType) -> bool:
    """Say whether the next thing that *frame* does with the value of its call is to drop it."""
    code, at = frame.f_code.co_code, frame.f_lasti + 2
    while at < len(code) and code[at] == 0:  # the inline caches of the call
        at += 2
    return at < len(code) and code[at] == dis.opmap["POP_TOP"]


def keys_of(owner: str, modules: Iterable[Any]) -> list[str]:
    """Return the keys of modules that share one scope, repeats numbered.

    Raises:
        WiringError: If two of them were given the same name explicitly.
    """
    modules = list(modules)
    if twice := [name for name, n in Counter(m._mai_settings.name for m in modules).items() if name and n > 1]:
        raise WiringError(f"{owner}: two steps are named {twice[0]!r}; names in one scope must differ")
    seen, keys = Counter[str](), list[str]()
    for name in map(name_of, modules):
        seen[name] += 1
        keys.append(f"/{name}" if seen[name] == 1 else f"/{name}~{seen[name]}")
    return keys
