"""Asking: a step pauses until somebody outside of it has answered."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from ..core.engine import current_run
from ..core.events import happened
from ..core.frame import current, repeat, restore, scoped, set_current
from ..core.ids import new_id
from ..errors import AskError, ConfigError
from ..types import Payload
from ..values.checked import SECONDS, checked
from ..values.events import Question
from ..values.names import ANSWERED, ASKED

T = TypeVar("T")


@overload
async def ask(prompt: str, *, timeout: float | None = None) -> str: ...
@overload
async def ask(prompt: str, type: type[T], *, timeout: float | None = None) -> T: ...
@overload
async def ask(prompt: str, type: Any, *, timeout: float | None = None) -> Any: ...
async def ask(prompt: str, type: Any = str, *, timeout: float | None = None) -> Any:  # noqa: A002 (clear at the call)
    """Pause until somebody has answered, and return the answer.

    Who answers is the function of `answers` around, else whoever holds the handle of the started run
    (``handle.answer(value)``). Every deadline around goes on while a person thinks.

    Args:
        prompt: The text to show.
        type: The type of the answer: any that pydantic can read from JSON.
        timeout: How long to wait at most [s]; None: as long as the call may last.

    Raises:
        AskError: At once, if there is nobody to answer.
        DeadlineExceeded: If there is no answer after *timeout*.
        CastError: If what the function of `answers` returns does not fit.
        PayloadError: If an answer of that type cannot cross as JSON.
        ConfigError: If *prompt* or *timeout* cannot be used.

    Example:
        >>> from mai import ask, module
        >>> @module
        ... async def send(text: str) -> str:
        ...     return f"sent {text}" if await ask(f"Send {text!r}?", bool) else "kept"
        >>> handle = send.start("hello")
        >>> async for event in handle:
        ...     if handle.questions:
        ...         handle.answer("yes")
        >>> await handle
        'sent hello'
    """
    if not isinstance(prompt, str):
        raise ConfigError(f"ask: prompt={prompt!r} is not a text")
    limit = None if timeout is None else checked("ask", "timeout", timeout, SECONDS)
    p = current()
    run = current_run()
    if p.env.bus is None and p.env.answers is None and not run.durable:
        where = f"in {p.path!r}" if p.path else "outside of a call"
        hint = "start() the run, or call it in 'with answers(fn):'"
        raise AskError(f"ask({prompt!r}) {where}: nobody can answer; {hint}")
    n = repeat(p, "/ask")
    path = f"{p.path}/ask~{n}" if n > 1 else f"{p.path}/ask"
    question = Question(path if run.records else new_id(), prompt, p.path, type)
    question.schema  # noqa: B018 (raises if no JSON can be an answer)
    happened(p, ASKED)
    data = await run.wait(path, question, limit)
    happened(p, ANSWERED)
    return Payload.load(type, data).value


@contextmanager
def answers(fn: Callable[[Question], object]) -> Generator[None]:
    """Let *fn* answer what the calls inside a ``with`` block ask.

    Args:
        fn: Gets the `Question` and returns the answer, or an awaitable of it.

    Raises:
        ConfigError: If *fn* is not a function.

    Example:
        >>> from mai import answers, ask, module
        >>> @module
        ... async def age(name: str) -> int:
        ...     return await ask(f"How old is {name}?", int)
        >>> with answers(lambda question: "41"):
        ...     age.run("Ann")
        41
    """
    if not callable(fn):
        raise ConfigError(f"answers: {fn!r} is not a function of a question")
    token = set_current(scoped(current(), answers=fn))
    try:
        yield
    finally:
        restore(token)
