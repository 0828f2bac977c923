"""What a simulation finds, and what it throws: errors of the test kit."""

from typing import Any

from ..errors import MaiError


class SimulationError(MaiError, AssertionError):
    """A simulated run broke a rule that every run has to keep; the subclasses say which.

    Attributes:
        step: How many steps the loop had taken.
        time: Simulated seconds since the run began.
        schedule: The last steps as text, where they were recorded.

    Example:
        >>> import asyncio
        >>> from mai.testing import Leak, SimulationError, simulate
        >>> async def main() -> None:
        ...     asyncio.get_running_loop().create_task(asyncio.sleep(60))
        >>> try:
        ...     simulate(main)
        ... except Leak as error:
        ...     print(isinstance(error, SimulationError), error.time)
        True 0.0
    """

    def __init__(self, message: str, *, step: int = 0, time: float = 0.0) -> None:
        super().__init__(message)
        self.step: int = step
        self.time: float = time
        self.schedule: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),), {"step": self.step, "time": self.time, "schedule": self.schedule}


class Deadlock(SimulationError):
    """Nothing is ready and no timer is set: the run could never end."""


class Livelock(SimulationError):
    """The run has taken more steps than it may: it goes round in circles."""


class Leak(SimulationError):
    """Something was left behind: a task, an async generator, a thread, an error that nobody saw."""


class DurabilityError(SimulationError):
    """A run that was interrupted did not come to the same end as one that was not, or lost what was recorded."""


class SimulatedFault(MaiError, RuntimeError):
    """The failure that a simulation puts where an awaited pause ends; see `Simulation`."""


class Crash(BaseException):
    """The simulated death of the process: nothing of the program should run after it.

    It is a BaseException, so that no retry, fallback or ``except Exception`` takes it for a failure.
    """
