"""What the tools of the reviewer tell it, and what it says in the end."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Verdict(_Value):
    """What the reviewer thinks of a function.

    Attributes:
        severity: How soon something should be done about it.
        reason: What makes it risky.
        advice: What to do.
    """

    severity: Literal["low", "medium", "high"]
    reason: str = Field(max_length=2_000)
    advice: str = Field(max_length=2_000)


class Source(_Value):
    """The text of a function, as `read_source` gives it.

    Attributes:
        path: Its file.
        first: The line that *text* starts with.
        text: The lines; not all of them if *complete* is false.
        complete: Whether it is the whole function.
    """

    path: str
    first: int
    text: str
    complete: bool = True


class Caller(_Value):
    """A call: on *line* of *path*, in *function* (empty at the top of a module)."""

    path: str
    line: int
    function: str


class Callers(_Value):
    """Where a name is called, as `find_callers` gives it.

    Attributes:
        name: The name that was looked for. Calls are found by name alone: another function of that name has the same
            callers.
        total: How many calls there are.
        files: In how many files.
        places: The first of them.
    """

    name: str
    total: int
    files: int
    places: tuple[Caller, ...]
