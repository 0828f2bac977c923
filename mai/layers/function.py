"""Functions as modules: the ``@module`` decorator."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

from ..errors import ConfigError
from .checks import Keywords, check_fallback
from .declared import declared
from .module import Module, P, R, lifted


class FunctionModule(Module[Any, Any], Generic[P, R]):
    """A function as a Module, with the function's own signature; `module` makes it."""

    def __init__(self, fn: Callable[P, R], **settings: Unpack[Keywords]) -> None:
        inner = getattr(fn, "func", fn)  # a partial is called like its function
        self._mai_label = str(getattr(inner, "__name__", type(inner).__name__))
        self._mai_settings = self._mai_settings.merged(self._mai_label, lifted(self._mai_label, settings))
        self.__wrapped__: Callable[P, R] = fn
        self.__doc__, self.__module__ = fn.__doc__, getattr(fn, "__module__", None) or "builtins"
        self._mai_sign = partial(declared, fn, self._mai_label)  # type: ignore[method-assign]
        self._mai_signature = None
        if not TYPE_CHECKING:
            self.forward = fn
        with suppress(NameError):  # an annotation of something that is defined later: looked at again when first used
            self._mai_signature = self._mai_sign()
            check_fallback(self)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; each instance has its own function in this place."""
        return self.__wrapped__(*args, **kwargs)


@overload
def module(fn: Callable[P, R], /) -> FunctionModule[P, R]: ...
@overload
def module(**settings: Unpack[Keywords]) -> Callable[[Callable[P, R]], FunctionModule[P, R]]: ...
def module(fn: Any = None, /, **settings: Any) -> Any:
    """Make a function a Module that keeps the function's exact signature.

    Use it bare (``@module``) or with settings (``@module(timeout=1.0)``), which are those of `Module.with_`. The
    function may be a coroutine function, a plain function (runs in a worker thread; builtins and types run inline) or
    a generator.

    Raises:
        ConfigError: If the function takes nothing, or a setting is unknown or wrong.

    Example:
        >>> from mai import module
        >>> @module(timeout=1.0)
        ... async def shout(text: str, mark: str = "!") -> str:
        ...     return text.upper() + mark
        >>> shout.run("hello", mark="?")
        'HELLO?'
    """
    if fn is None:
        Module._mai_settings.merged("@module", lifted("@module", settings))  # before there is a function
        return partial(FunctionModule, **settings)
    if isinstance(fn, Module):
        return fn  # pyright: ignore[reportUnknownVariableType]
    if not callable(fn):
        raise ConfigError(f"module: {fn!r} is not a function; settings are keywords: @module(timeout=1.0)")
    return FunctionModule(fn)
