"""The parts of the search: one shape under many seeds, and what may meet it at every step."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mai import capture
from mai.testing import Trial, explore

from .durable import JOURNALS, killed
from .shapes import SHAPES, Shape
from .world import CALLER, MARK, World, check, check_cancel, loop_of

EVENTS = ("cancel", "fail", "crash")  # what meets a shape at every step
PARTS = ("order", *EVENTS, *JOURNALS)
NAMED = {shape.name: shape for shape in SHAPES}


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of the search in a shape: some have a journal, too, at every write of which they are killed."""
    return tuple(part for part in PARTS if name in JOURNALS.get(part, NAMED))


@dataclass(frozen=True)
class Found:
    """What a part of the search has seen; *failure* says how to see it again."""

    shape: str
    part: str
    runs: int
    interleavings: int
    seconds: float
    failure: str = ""


def program(shape: Shape, world: World) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Return what makes the program of one run; its modules are built once."""
    run = shape.build(world)

    async def main() -> Any:
        world.clear()
        world.caller = "main"
        CALLER.set(world.caller)
        task = asyncio.current_task()
        assert task is not None
        with capture() as trace:
            try:
                return await run()
            except shape.errors as error:
                return error
            finally:
                world.handles = trace.runs
                world.after = {
                    "tasks": len(loop_of().unfinished()),
                    "busy": loop_of().crew.busy(),
                    "threads": len(loop_of().crew.carriers) > 0,
                    "mark": MARK.get(),
                    "cancelled": task.cancelling() > 0,
                    "lost": dict(world.begun - world.ended),
                    "begun": sum(world.begun.values()),
                }

    return main


@contextmanager
def quiet(silent: bool) -> Generator[None]:
    """Say nothing of runs of which nobody asks how they ended: they died."""
    logger = logging.getLogger("mai")
    before, logger.disabled = logger.disabled, silent
    try:
        yield
    finally:
        logger.disabled = before


def search(name: str, part: str, seeds: Iterable[int]) -> Found:
    """Search one part of a shape; a failure ends it."""
    shape, started = NAMED[name], time.monotonic()
    world = World()
    main = program(shape, world)

    def watched(trial: Trial[Any]) -> None:
        check(world, trial, shape)
        if part == "cancel":
            check_cancel(world, trial)
        world.clear()  # for a next run that is cancelled before it begins

    event: Any = part if part in EVENTS else None
    try:
        if part in JOURNALS:
            return Found(name, part, killed(name, part, seeds), 0, time.monotonic() - started)
        with quiet(part == "crash"):
            seen = explore(main, seeds=seeds, at_every_step=event, check=watched, max_threads=shape.max_threads)
            gc.collect()  # what died is gone before anybody listens
    except BaseException as error:  # noqa: BLE001 (told in the table)
        notes = "\n".join(getattr(error, "__notes__", []))
        return Found(name, part, 0, 0, time.monotonic() - started, f"{type(error).__name__}: {error}\n{notes}")
    return Found(name, part, seen.runs, seen.interleavings, time.monotonic() - started)
