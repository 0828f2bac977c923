"""The exceptions of mai: one tree, each error also the builtin that fits.

::

    MaiError
    ├── ConfigError        (TypeError)     a setting, an argument or a class definition that cannot be used
    ├── WiringError        (TypeError)     modules composed that cannot fit together
    ├── CastError          (ValueError)    a value that does not fit the declared type of a step
    ├── PayloadError       (ValueError)    a value that cannot be written to or read from JSON without loss
    ├── DeadlineExceeded   (TimeoutError)  a call that ran past its timeout or its inherited deadline
    ├── TooManyAbandoned   (RuntimeError)  so many threads hang after a timeout that no step gets another one
    ├── UnknownCase        (LookupError)   a Switch whose selector gave a key that has no case
    ├── LoopExhausted      (RuntimeError)  a Loop whose ``until`` was not met in ``max_iters`` turns
    ├── AskError           (RuntimeError)  a question that nobody can answer, an answer that no open question waits for
    └── WouldDeadlock      (RuntimeError)  ``run`` where the event loop would wait for itself

A user's own exception is never wrapped in one of these: it keeps its type and identity and gains one note that names
the step. All of them can be pickled and keep their facts as attributes.
"""

from typing import Any

__all__ = [
    "AskError", "CastError", "ConfigError", "DeadlineExceeded", "LoopExhausted", "MaiError", "PayloadError",
    "TooManyAbandoned", "UnknownCase", "WiringError", "WouldDeadlock",
]  # fmt: skip


class MaiError(Exception):
    """Base of every error that mai raises by itself.

    Example:
        >>> from mai import ConfigError, MaiError
        >>> issubclass(ConfigError, MaiError) and issubclass(ConfigError, TypeError)
        True
    """


class ConfigError(MaiError, TypeError):
    """A setting, an argument or a class definition cannot be used; raised as early as it can be seen.

    Example:
        >>> from mai import ConfigError, module
        >>> @module
        ... async def shout(text: str) -> str:
        ...     return text.upper()
        >>> try:
        ...     shout.with_(tiemout=2)
        ... except ConfigError as error:
        ...     print(error)
        shout has no setting 'tiemout'; did you mean 'timeout'?
    """


class WiringError(MaiError, TypeError):
    """Modules were composed that cannot fit together; raised when they are wired, never when they run.

    Example:
        >>> from mai import WiringError, module
        >>> @module
        ... async def count(text: str) -> int:
        ...     return len(text)
        >>> @module
        ... async def total(values: list[int]) -> int:
        ...     return sum(values)
        >>> try:
        ...     count >> total
        ... except WiringError as error:
        ...     print(str(error).splitlines()[0])
        cannot connect count -> total
    """


class AskError(MaiError, RuntimeError):
    """A step asks where nobody can answer, or an answer belongs to no single open question.

    Example:
        >>> from mai import AskError, ask, module
        >>> @module
        ... async def send(text: str) -> bool:
        ...     return await ask("Send this?", bool)
        >>> try:
        ...     send.run("hello")
        ... except AskError as error:
        ...     print(error)
        ask('Send this?') in 'send': nobody can answer; start() the run, or call it in 'with answers(fn):'
    """


class CastError(MaiError, ValueError):
    """A value does not fit the type that a step declares, and pydantic's lax mode cannot convert it.

    Attributes:
        step_id: Lexical path of the step, ``""`` where there was no call yet.
        where: What was cast: the name of a parameter, or ``"return"``.
        expected: The declared type, as text.
    """

    def __init__(self, message: str, *, step_id: str = "", where: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.where: str = where
        self.expected: str = expected


class PayloadError(MaiError, ValueError):
    """A value cannot be written to, or read from, the JSON of its declared type without loss.

    Attributes:
        expected: The declared type, as text.
    """

    def __init__(self, message: str, *, expected: str = "") -> None:
        super().__init__(message)
        self.expected = expected


class DeadlineExceeded(MaiError, TimeoutError):
    """A call ran past its ``timeout``, its ``total_timeout`` or the deadline that it inherited.

    It is a TimeoutError and therefore, as in Python, an OSError.

    Attributes:
        step_id: Lexical path of the step whose deadline passed.
        timeout: The timeout that the step itself had [s], None where the deadline was inherited.
    """

    def __init__(self, message: str, *, step_id: str = "", timeout: float | None = None) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.timeout: float | None = timeout


class TooManyAbandoned(MaiError, RuntimeError):
    """A plain step was refused a thread, because too many hang whose callers were freed by a timeout or a cancel.

    Such a thread cannot be stopped; it counts until its work returns. Give what hangs a timeout of its own, or raise
    ``max_abandoned`` of the `LocalEngine`.

    Attributes:
        count: Threads that hang abandoned.
        limit: The engine's ``max_abandoned``.
    """

    def __init__(self, message: str, *, count: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.count: int = count
        self.limit: int = limit


class UnknownCase(MaiError, LookupError):
    """The selector of a Switch gave a key that has no case, and there is no ``otherwise``.

    Attributes:
        step_id: Lexical path of the Switch.
        key: The key.
        cases: The keys that have a case.
    """

    def __init__(self, message: str, *, step_id: str = "", key: Any = None, cases: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.key: Any = key
        self.cases: tuple[Any, ...] = cases


class LoopExhausted(MaiError, RuntimeError):
    """The ``until`` of a Loop was still not met after ``max_iters`` turns.

    Attributes:
        step_id: Lexical path of the Loop.
        iterations: How many turns it made.
        state: What the last turn gave, so that nothing is lost.
    """

    def __init__(self, message: str, *, step_id: str = "", iterations: int = 0, state: Any = None) -> None:
        super().__init__(message)
        self.step_id: str = step_id
        self.iterations: int = iterations
        self.state: Any = state


class WouldDeadlock(MaiError, RuntimeError):
    """``run`` was called in the thread of a running event loop, which would then wait for itself; use ``await``."""
