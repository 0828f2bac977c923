"""The law of arguments: a call binds exactly as Python would, and refuses exactly what Python would refuse."""

import inspect
from inspect import Parameter
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from mai import ConfigError
from mai.values.signature import Signature

KINDS = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@st.composite
def signatures(draw: st.DrawFn) -> list[Parameter]:
    """Return parameters as a function may have them, at least one."""
    parts: list[list[Parameter]] = []
    names = iter("abcdef")
    optional = False
    for kind in KINDS:
        part = []
        for _ in range(draw(st.integers(0, 2))):
            has_default = draw(st.booleans())
            if kind is not Parameter.KEYWORD_ONLY:
                optional = has_default = optional or has_default
            name = next(names)
            part.append(Parameter(name, kind, default=f"default {name}" if has_default else Parameter.empty))
        parts.append(part)
    rest = [Parameter("rest", Parameter.VAR_POSITIONAL)] if draw(st.booleans()) else []
    more = [Parameter("more", Parameter.VAR_KEYWORD)] if draw(st.booleans()) else []
    found = [*parts[0], *parts[1], *rest, *parts[2], *more]
    return found or [Parameter("a", Parameter.POSITIONAL_OR_KEYWORD)]


ARGS = st.lists(st.integers(0, 9), max_size=6).map(tuple)
KWARGS = st.dictionaries(st.sampled_from([*"abcdef", "rest", "more", "x"]), st.integers(0, 9), max_size=5)


def as_python_does(params: list[Parameter], args: tuple[int, ...], kwargs: dict[str, int]) -> Any:
    """Return ``(args, kwargs)`` as a real function gets them, None if it refuses the call."""
    given_by = {p.name: p.default for p in params if p.default is not p.empty}
    text = str(inspect.Signature([p.replace(default="_") if p.name in given_by else p for p in params]))
    for name in given_by:
        text = text.replace(f"{name}='_'", f"{name}=given_by[{name!r}]")
    scope: dict[str, Any] = {"given_by": given_by}
    exec(f"def f{text}: return locals()", scope)
    try:
        got = scope["f"](*args, **kwargs)
    except TypeError:
        return None
    placed = tuple(got[p.name] for p in params if p.kind in KINDS[:2])
    named = {p.name: got[p.name] for p in params if p.kind is Parameter.KEYWORD_ONLY}
    return (*placed, *got.get("rest", ())), {**named, **got.get("more", {})}


def as_mai_does(params: list[Parameter], args: Any, kwargs: Any, defaults: Any) -> Any:
    """Return the same of our own binding."""
    try:
        return Signature("step", params, Parameter.empty).bind(args, kwargs, defaults, None)
    except ConfigError as error:
        return None if str(error).startswith("step") else error


@given(signatures(), ARGS, KWARGS)
def test_a_call_binds_and_is_refused_as_in_python(
    params: list[Parameter], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    assert as_mai_does(params, args, kwargs, {}) == as_python_does(params, args, kwargs)


@given(signatures(), ARGS, KWARGS, st.dictionaries(st.sampled_from("abcdef"), st.integers(10, 19)))
def test_defaults_of_with_stand_in_for_what_is_not_given(
    params: list[Parameter], args: tuple[int, ...], kwargs: dict[str, int], defaults: dict[str, int]
) -> None:
    defaults = {key: value for key, value in defaults.items() if key in {p.name for p in params}}
    optional = [p.replace(default=defaults.get(p.name, p.default)) for p in params]
    places = [p.default is not p.empty for p in optional if p.kind in KINDS[:2]]
    assume(places == sorted(places))  # Python wants those with a default behind those without one
    assert as_mai_does(params, args, kwargs, defaults) == as_python_does(optional, args, kwargs)
