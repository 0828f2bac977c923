"""What a flow may ask of its run: the time, chance, a signal, and which code an old run is to take.

In a run that is recorded each answer is given once and repeated from then on; elsewhere it is just given.
"""

from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from ..core.clock import clock
from ..core.engine import current_run
from ..core.frame import current, repeat
from ..core.ids import chance, new_id
from ..errors import AskError, ConfigError
from ..types import Payload
from ..values.checked import SECONDS, checked
from ..values.events import Question

T = TypeVar("T")


def _path(name: str) -> str:
    """Return the path of the next use of a verb in the current call."""
    p = current()
    n = repeat(p, f"/{name}")
    return f"{p.path}/{name}~{n}" if n > 1 else f"{p.path}/{name}"


async def _value(name: str, make: Any) -> Any:
    return await current_run().value(_path(name), make)


async def now() -> datetime:
    """Return the time, in UTC; in a durable run the one that it was when a flow first asked.

    Example:
        >>> import mai
        >>> (await mai.now()).tzinfo
        datetime.timezone.utc
    """
    return datetime.fromtimestamp(await _value("now", clock.wall), UTC)


async def random() -> float:
    """Return a random number, at least 0 and below 1; in a durable run the one that a flow first got.

    Example:
        >>> import mai
        >>> 0 <= await mai.random() < 1
        True
    """
    return float(await _value("random", chance.draw))


async def uuid() -> str:
    """Return a fresh random UUID, as text; in a durable run the one that a flow first got.

    Example:
        >>> import mai
        >>> len(await mai.uuid())
        36
    """
    digits = str(await _value("uuid", new_id))
    kind = f"4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}"  # version 4, variant 1
    return f"{digits[:8]}-{digits[8:12]}-{kind}-{digits[20:]}"


async def patched(name: str) -> bool:
    """Say whether new code is to run, which branches the code of a flow inside of old runs.

    True everywhere but in a durable run whose recorded past reaches beyond this point without knowing *name*: that one
    goes on with the old code, and keeps to it.

    Args:
        name: Name of the change, one for each.

    Raises:
        ConfigError: If *name* is empty, or it is asked inside of a step, which has no past.

    Example:
        >>> import mai
        >>> from mai import module
        >>> @module(flow=True)
        ... async def greet(name: str) -> str:
        ...     return f"hi {name}" if await mai.patched("informal") else f"good day, {name}"
        >>> greet.run("Ann")
        'hi Ann'
    """
    run = current_run()
    if not name:
        raise ConfigError(f"patched: name={name!r} is empty")
    if run.durable and not run.records:
        raise ConfigError(f"patched({name!r}) in {current().path!r}: a step has no past; ask in a flow (flow=True)")
    new = not run.replaying
    return bool(await run.value(f"!patched/{name}", lambda: new))


@overload
async def wait_for(signal: str, *, timeout: float | None = None) -> str: ...
@overload
async def wait_for(signal: str, type: type[T], *, timeout: float | None = None) -> T: ...
@overload
async def wait_for(signal: str, type: Any, *, timeout: float | None = None) -> Any: ...
async def wait_for(signal: str, type: Any = str, *, timeout: float | None = None) -> Any:  # noqa: A002 (as in `ask`)
    """Pause until *signal* was sent to the run, and return what it carries.

    In a durable run ``engine.signal(run_id, name, value)`` sends it, also before it is waited for, and the run may
    leave memory meanwhile. In a run that was started in memory ``handle.answer(value)`` does.

    Args:
        signal: Name of the signal.
        type: The type of what it carries: any that pydantic can read from JSON.
        timeout: How long to wait at most [s]; None: as long as the call may last.

    Raises:
        AskError: At once, if nobody can send one.
        DeadlineExceeded: If there is none after *timeout*.
        PayloadError: If what was sent is not of that type.
        ConfigError: If *signal* or *timeout* cannot be used, or inside of a step of a durable run.

    Example:
        >>> from mai import module, wait_for
        >>> @module(flow=True)
        ... async def ship(order: int) -> str:
        ...     return f"{order}: paid {await wait_for('paid', float)}"
        >>> handle = ship.start(42)
        >>> async for event in handle:
        ...     if handle.questions:
        ...         handle.answer(9.5)
        >>> await handle
        '42: paid 9.5'
    """
    if not signal:
        raise ConfigError(f"wait_for: signal={signal!r} is empty")
    limit = None if timeout is None else checked("wait_for", "timeout", timeout, SECONDS)
    p, run = current(), current_run()
    if p.env.bus is None and p.env.answers is None and not run.durable:
        raise AskError(f"wait_for({signal!r}) in {p.path!r}: nobody can send it; start() the run")
    question = Question(signal, f"signal {signal}", p.path, type)
    return Payload.load(type, await run.wait(_path("wait_for"), question, limit)).value
