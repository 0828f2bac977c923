"""The words of a command line, sorted by their form: values given by name, and plain words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from pydantic.fields import FieldInfo

from mai.cli.usage import BadUsage
from mai.values.checked import near

__all__ = ["Given", "parse"]


class Given(NamedTuple):
    """The words of one command line, sorted by form; nothing is cast yet."""

    named: dict[str, list[str]]
    words: list[str]
    literal: bool  # the words stand after "--": "@x" and "-" are text


def parse(tokens: Sequence[str], fields: Mapping[str, FieldInfo], *, open_ended: bool = False) -> Given:
    """Sort *tokens* into named values and plain words.

    Args:
        tokens: The words of the command line.
        fields: The parameters that may be named.
        open_ended: Whether names that are not in *fields* are allowed, as for a forward with ``**kwargs``.

    Raises:
        BadUsage: If an option is unknown or lacks its value.
    """
    named: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(reversed(tokens))
    while rest:
        token = rest.pop()
        if token == "--":  # nosec B105
            return Given(named, words + rest[::-1], literal=True)
        if token.startswith("--"):
            name, value = _option(token, rest, fields, open_ended=open_ended)
            named.setdefault(name, []).append(value)
        elif token[0:1] == "-" and token[1:2].isalpha():
            raise BadUsage(f"No such option: {token}; put -- before words that begin with a dash")
        else:
            words.append(token)
    return Given(named, words, literal=False)


def _option(token: str, rest: list[str], fields: Mapping[str, FieldInfo], *, open_ended: bool) -> tuple[str, str]:
    """Return name and text of one ``--name``; its value, if it stands in a word of its own, is taken off *rest*."""
    written, sign, value = token[2:].partition("=")
    name = _match(written, fields)
    if name is None and written.startswith("no-") and not sign:
        denied = _match(written.removeprefix("no-"), fields)
        if denied is not None and _is_bool(fields[denied]):
            return denied, "false"
    if name is None and not open_ended:
        _unknown_option(written, fields)
    if sign:
        return name or written, value
    if name is not None and _is_bool(fields[name]):
        return name, rest.pop() if rest and rest[-1].lower() in ("true", "false") else "true"
    if not rest or rest[-1].startswith("--"):
        raise BadUsage(f"--{written} needs a value: --{written} VALUE, or --{written}=VALUE if it begins with a dash")
    return name or written, rest.pop()


def _match(written: str, fields: Mapping[str, FieldInfo]) -> str | None:
    """Return the parameter that ``--written`` means, dashes standing for underscores."""
    return next((name for name in (written, written.replace("-", "_")) if name in fields), None)


def _unknown_option(written: str, fields: Mapping[str, FieldInfo]) -> NoReturn:
    raise BadUsage(f"No such option or parameter: --{written}{near(written, fields)}")


def _is_bool(field: FieldInfo) -> bool:
    """Return whether the parameter is a switch: ``bool``, or ``bool`` or ``None``."""
    return field.annotation is bool or field.annotation == bool | None
