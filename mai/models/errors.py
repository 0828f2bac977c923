"""What can go wrong with a call of a model: one tree, each error saying whether another attempt makes sense.

::

    ModelError                (MaiError)
    ├── RateLimited           (RuntimeError)     too many requests; try again after ``retry_after``
    ├── Overloaded            (RuntimeError)     the vendor's servers fail or have no room; try again
    ├── Unreachable           (ConnectionError)  no answer came, or it broke off; try again
    ├── InvalidReply          (RuntimeError)     the vendor's answer is none; try again
    ├── AuthError             (RuntimeError)     the key is missing, wrong or has no right to this
    ├── QuotaExceeded         (RuntimeError)     the account has nothing left
    ├── BadRequest            (ValueError)       the vendor does not take the request
    │   ├── ContextTooLong                       it is longer than the model can read
    │   └── UnknownModel                         there is no such model
    ├── ContentFiltered       (RuntimeError)     a filter withheld the question or the answer
    ├── Refused               (RuntimeError)     the model declined to answer
    ├── InvalidOutput         (ValueError)       no answer fits the type that was asked for
    ├── BudgetExhausted       (RuntimeError)     the next call would cost more than what is left
    ├── NoRequests            (RuntimeError)     a model would leave the process inside ``no_requests()``
    └── NotScripted           (LookupError)      a scripted or replayed model has no answer to this
"""

from typing import Any, ClassVar

from mai.errors import MaiError


class ModelError(MaiError):
    """A call of a model failed.

    Attributes:
        model: The model that was asked.
        status: The HTTP status of the vendor's answer, None where there was none.
        code: What the vendor calls the error, ``""`` where it does not say.
        retry_after: When the vendor wants to be asked again [s from now]; None where it does not say. `mai.Retry`
            waits that long.
        retryable: Whether the same request may succeed later.

    Example:
        >>> from mai.models import AuthError, ModelError, RateLimited
        >>> RateLimited("slow down", retry_after=2.0).retryable, AuthError("wrong key").retryable
        (True, False)
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.model: str = model
        self.status: int | None = status
        self.code: str = code
        self.retry_after: float | None = retry_after


class RateLimited(ModelError, RuntimeError):
    """Too many requests or tokens in a short time; ``retry_after`` says when to ask again, if the vendor does."""

    retryable = True


class Overloaded(ModelError, RuntimeError):
    """The vendor's servers have no room, or fail."""

    retryable = True


class Unreachable(ModelError, ConnectionError):
    """No answer came: no connection, none in time, or the stream broke off."""

    retryable = True


class InvalidReply(ModelError, RuntimeError):
    """The vendor's answer cannot be read as one, or breaks its own protocol."""

    retryable = True


class AuthError(ModelError, RuntimeError):
    """The key is missing, wrong, or has no right to this model."""


class QuotaExceeded(ModelError, RuntimeError):
    """The account's credit or quota is used up; waiting does not help."""


class BadRequest(ModelError, ValueError):
    """The vendor does not take the request as it stands."""


class ContextTooLong(BadRequest):
    """The request is longer than the model can read; shorten it, or take a model with a longer context."""


class UnknownModel(BadRequest):
    """The vendor has no model of this name, or none for this key."""


class ContentFiltered(ModelError, RuntimeError):
    """A filter of the vendor withheld the question or the answer."""


class Refused(ModelError, RuntimeError):
    """The model declined to give an answer of the type that was asked for."""


class InvalidOutput(ModelError, ValueError):
    """None of the answers fits the type that was asked for.

    Attributes:
        text: The last answer.
        problem: Why it does not fit.
    """

    def __init__(self, message: str, *, text: str = "", problem: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.text: str = text
        self.problem: str = problem


class BudgetExhausted(ModelError, RuntimeError):
    """The next call would cost more than what is left of a `Budget`; it was not made.

    Attributes:
        limit: What the budget allows.
        spent: What was spent, and is held for calls under way.
        needed: What the call would need at least.
        unit: ``"usd"`` or ``"tokens"``.
    """

    def __init__(
        self, message: str, *, limit: float = 0, spent: float = 0, needed: float = 0, unit: str = "", **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.limit: float = limit
        self.spent: float = spent
        self.needed: float = needed
        self.unit: str = unit


class NoRequests(ModelError, RuntimeError):
    """A model would have asked its vendor inside a ``no_requests()`` block."""


class NotScripted(ModelError, LookupError):
    """A ScriptedModel has no answer left, or a ReplayModel none to this request."""


def transient(error: Exception) -> bool:
    """Say whether another attempt makes sense after *error*: for ``Retry(on=transient)``.

    An error that does not say (that has no attribute ``retryable``) is taken for one that passes.

    Args:
        error: What failed.

    Example:
        >>> from mai import Retry
        >>> from mai.models import AuthError, Overloaded, transient
        >>> transient(Overloaded("busy")), transient(AuthError("wrong key"))
        (True, False)
        >>> policy = Retry(4, on=transient)
    """
    return bool(getattr(error, "retryable", True))
