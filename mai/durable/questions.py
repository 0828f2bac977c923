"""Questions of a durable run: what is kept of them for whoever answers, and what becomes of answers that do not fit."""

from collections.abc import Iterable
from typing import Any

from mai.durable.records import Journal, Lease
from mai.errors import AskError, PayloadError
from mai.types import Question
from mai.values.casts import caster

__all__ = ["about", "about_path", "chosen", "is_asked", "over", "refuse", "refused_path"]


def is_asked(path: str, question: Question) -> bool:
    """Say whether a person was asked: the name of the answer is the path then; a signal has a name of its own."""
    return question.id == path


def about_path(path: str) -> str:
    """Return where it is kept what the question at *path* asks."""
    return f"{path}!asked"


def refused_path(path: str, number: int) -> str:
    """Return where the answer is kept that did not fit, the *number*-th one from 1."""
    return f"{path}!refused[{number}]"


def about(question: Question) -> Any:
    """Return what whoever answers has to know, as plain data."""
    return {"prompt": question.prompt, "expected": question.expected}


def chosen(value: object, question: str | None, open_ones: Iterable[str], run_id: str) -> str:
    """Return the id of the question that *value* answers: *question*, or the only one of *open_ones*.

    Raises:
        AskError: If there is not exactly one.
    """
    names = [*dict.fromkeys(open_ones)]
    if question is None and len(names) != 1:
        hint = "; say which with question=" if names else ""
        raise AskError(f"answer({value!r}) belongs to no single open question of {run_id!r}; open: {names}{hint}")
    return names[0] if question is None else question


def over(value: object, run_id: str) -> AskError:
    """Return the error of an answer that comes too late."""
    return AskError(f"answer({value!r}): run {run_id!r} has ended")


async def refuse(journal: Journal, lease: Lease, path: str, question: Question, number: int, started: float) -> int:
    """Put the answers that wait and do not fit aside, up to one that fits; return the number of the next one."""
    for signal in await journal.signals(lease.run_id):
        if signal.path is not None or signal.name != question.id:
            continue
        try:
            caster(question.type).load(signal.data)
        except PayloadError:
            await journal.take(lease, refused_path(path, number), question.id, started)
            number += 1
        else:
            break
    return number
