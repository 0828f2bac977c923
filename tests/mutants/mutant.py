"""What a mutant is."""

from dataclasses import dataclass

LAWS = "tests/laws/"
CORE = "tests/core/"
LAYERS = "tests/layers/"


@dataclass(frozen=True)
class Mutant:
    """One broken promise: in *file*, *old* (which occurs exactly once) becomes *new*.

    Attributes:
        tests: Files or single tests that should notice; they run first.
        hazards: The numbers of the page ``docs/explanation/hazards.rst`` that it breaks.
        patience: How long the tests may take [s]; a mutant that makes them hang is caught as well.
    """

    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    hazards: tuple[int | str, ...] = ()
    patience: float = 90.0
