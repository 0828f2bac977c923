"""From words on a command line, a file or standard input to the arguments of one call, cast through its ``In``.

The words have been sorted by their form in `words`; here it is decided which parameter each text is for and whether it
is JSON or plain text, and pydantic casts the whole. Every value travels as JSON, so what a strict model allows in JSON
(a date as a string) works here too.
"""

import copy
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from mai.cli.usage import BadUsage, short
from mai.cli.words import Given, parse
from mai.layers import Module
from mai.layers.checks import signature_of
from mai.values.casts import is_open, show
from mai.values.checked import near

__all__ = ["arguments", "call_arguments", "fields_of", "input_model"]

# What a parameter takes is known only to the target's own types, so values are Any until In has cast them.
_Values = dict[str, Any]
_JSON: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))
_MOST_ERRORS = 5
_P = inspect.Parameter


def arguments(model: type[BaseModel], tokens: Sequence[str], read_stdin: Callable[[], bytes | None]) -> BaseModel:
    """Return an instance of *model*, with what *tokens* give for its parameters, cast.

    Parameters that are not given are not set in it, so that the defaults of ``forward`` hold.

    Args:
        model: ``In`` of the module to call: a field for each parameter.
        tokens: What stands on the command line after the target, without the options of mai itself.
        read_stdin: Gives the bytes of standard input, ``None`` if it is a terminal or closed; called at most once.

    Raises:
        BadUsage: If something is unknown, missing, given twice, or does not fit; it names the parameter.

    Example:
        >>> from pydantic import create_model
        >>> model = create_model("In", query=(str, ...), k=(int, 3))
        >>> arguments(model, ["hello", "world", "--k", "5"], lambda: None)
        In(query='hello world', k=5)
    """
    fields = fields_of(model)
    given = parse(tokens, fields, open_ended=model.model_config.get("extra") == "allow")
    _check_text(tokens)
    values = {name: _flag_value(model, name, raws) for name, raws in given.named.items()}
    reader = _Reader(model, fields, values)
    missing = [name for name, field in fields.items() if field.is_required() and name not in values]
    if given.words:
        reader.take_words(given, read_stdin)
    elif missing and (data := read_stdin()):
        reader.take_data(data, "standard input")
    return _cast(model, reader.values)


def input_model(module: Module[Any, Any]) -> type[BaseModel]:
    """Return ``In`` of *module*, a parameter that ``with_`` gave a default being optional in it."""
    model = module.In
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        name = field.alias or key
        if name in module.settings.params:
            optional = copy.copy(field)
            optional.default = module.settings.params[name]
            fields[key] = (field.annotation, optional)
    return create_model(model.__name__, __base__=model, **fields) if fields else model


def call_arguments(module: Module[Any, Any], given: BaseModel) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments of a call of *module* from an instance of its input model.

    What was not given is left out where the call allows it, so that the defaults of ``forward`` hold.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = dict(given.model_extra or {})
    fields = [(field.alias or key, key) for key, field in type(given).model_fields.items()]
    kinds = {name: signature_of(module).params[name].kind for name, _ in fields}
    spread = any(kinds[name] is _P.VAR_POSITIONAL and getattr(given, key) for name, key in fields)
    for name, key in fields:
        if kinds[name] is _P.VAR_POSITIONAL:
            args += getattr(given, key)
        elif kinds[name] is _P.POSITIONAL_ONLY or (spread and kinds[name] is _P.POSITIONAL_OR_KEYWORD):
            args.append(getattr(given, key))
        elif key in given.model_fields_set:
            kwargs[name] = getattr(given, key)
    return args, kwargs


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of *model* by the name a caller uses: the alias where there is one."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _check_text(tokens: Iterable[str]) -> None:
    """Refuse bytes that are not text in the terminal's encoding, which JSON could not carry."""
    for token in tokens:
        if not token.isascii() and any("\ud800" <= char <= "\udfff" for char in token):
            raise BadUsage(f"{token!r} on the command line is not valid {sys.getfilesystemencoding()} text")


class _Reader:
    """Gives texts to the parameters that have no value yet."""

    def __init__(self, model: type[BaseModel], fields: Mapping[str, FieldInfo], values: _Values) -> None:
        self.values = values
        self._model = model
        self._fields = fields

    def take_words(self, given: Given, read_stdin: Callable[[], bytes | None]) -> None:
        """Read the plain words: a file, standard input, JSON, or text for one or several parameters."""
        words = given.words
        if len(words) > 1:
            self._take_several(words)
        elif given.literal or not (words[0] == "-" or words[0].startswith("@")):
            self._take_text(words[0], inline=True)
        elif words[0] == "-":
            self.take_data(read_stdin() or b"", "standard input")
        else:
            self.take_data(_file_data(words[0]), words[0][1:])

    def take_data(self, data: bytes, source: str) -> None:
        """Read the content of a file or of standard input, less one line end at its end; bytes stay as they are."""
        target = self._target()
        if target is not None and self._fields[target].annotation is bytes:
            self.values[target] = data
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadUsage(f"{source} is not UTF-8 text: {error.reason} at byte {error.start}") from error
        self._take_text(text.removesuffix("\n").removesuffix("\r"), inline=False)

    def _take_several(self, words: list[str]) -> None:
        """Give several words: as JSON that the shell took apart, one to each required parameter, joined, or as a list.

        Only text is joined: a path or a number is one word, since a space in it would be a surprise.
        """
        joined = " ".join(words)
        required = self._open(required=True)
        target = self._target()
        if isinstance(_decoded(joined), dict | list):
            self._take_text(joined, inline=True)
        elif target is None:
            self._no_room(joined)
        elif len(required) > 1:
            self._take_each(words, required)
        elif _is_text(self._model, target, joined):
            self.values[target] = joined
        elif not _refused(self._model, target, words):
            self.values[target] = words
        else:
            listed = ", ".join(map(repr, words))
            raise BadUsage(
                f"{target} takes one word, but {len(words)} are given: {listed}; quote it, or use --name VALUE"
            )

    def _take_each(self, words: list[str], names: list[str]) -> None:
        if len(words) > len(names):
            raise BadUsage(
                f"{len(words)} words for {len(names)} parameters ({', '.join(names)}); quote each, or use --name VALUE"
            )
        for name, word in zip(names, words, strict=False):
            self.values[name] = _text_value(self._model, name, word, self._fields[name].annotation)

    def _take_text(self, text: str, *, inline: bool) -> None:
        """Read one text: a JSON object of parameters, or the value of the parameter that is to be filled first."""
        data = _object(text)
        target = self._target()
        if data is not None and self._are_parameters(data, target, inline=inline):
            self._take_parameters(data)
        elif target is None:
            self._no_room(text)
        else:
            self.values[target] = _text_value(self._model, target, text, self._fields[target].annotation)

    def _are_parameters(self, data: Mapping[str, object], target: str | None, *, inline: bool) -> bool:
        """Return whether a JSON object names parameters, rather than being the value of one.

        It is a value where it fits, or fails to in its parts only. An object that nearly names parameters is taken for
        a slip, not for the text of a ``str``; on the command line itself, any other object that does not fit is too.
        """
        if target is None or (data and all(key in self._fields for key in data)):
            return True
        misfits = _misfits_of(self._model, target, data)
        if not misfits:
            return False
        if any(key in self._fields or difflib.get_close_matches(key, self._fields, cutoff=0.7) for key in data):
            return True
        return inline and not any(
            len(where) > 1 and (missing or any(part in data for part in where[1:])) for where, missing in misfits
        )

    def _take_parameters(self, data: Mapping[str, object]) -> None:
        open_ended = self._model.model_config.get("extra") == "allow"
        for name, value in data.items():
            if name not in self._fields and not open_ended:
                raise BadUsage(f"No such parameter: {name!r}{near(name, self._fields)}")
            if name in self.values:
                raise BadUsage(f"{name} is given twice: by --{name} and in the JSON input")
            self.values[name] = value

    def _open(self, *, required: bool) -> list[str]:
        """Return the parameters without a value, all or only those that need one."""
        return [
            name
            for name, field in self._fields.items()
            if name not in self.values and (not required or field.is_required())
        ]

    def _target(self) -> str | None:
        """Return the parameter that a text is for: the first that needs a value, else the first without one."""
        return next(iter(self._open(required=True) or self._open(required=False)), None)

    def _no_room(self, text: str) -> NoReturn:
        if not self._fields:
            raise BadUsage(f"{short(text)} is given, but the target takes values by name only: --NAME VALUE")
        raise BadUsage(f"No parameter is left for {short(text)}: {', '.join(self._fields)} have a value already")


def _file_data(word: str) -> bytes:
    """Return the content of the file that ``@path`` names."""
    path = Path(word[1:])
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = f"; for the text {word!r} itself write: -- {word}"
        raise BadUsage(f"Cannot read the input file {str(path)!r}: {reason}{hint}") from error


def _decoded(text: str) -> Any:
    """Return the JSON value of *text*, or *text* itself if it is none."""
    try:
        return _JSON.validate_json(text)
    except ValueError:
        return text


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that *text* is, or ``None`` if it is none."""
    value = _decoded(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None  # the keys of JSON are always str


def _text_value(model: type[BaseModel], name: str, text: str, annotation: object) -> object:
    """Return *text* as JSON where the parameter takes that, else as text.

    A number is tried as text first, which is what a ``str`` wants and what keeps every digit of a ``Decimal``.
    """
    value = _decoded(text)
    if is_open(annotation):
        return value
    ordered = [text, value] if isinstance(value, int | float) and not isinstance(value, bool) else [value, text]
    return _first_fitting(model, name, [*ordered, [text]], annotation)


def _flag_value(model: type[BaseModel], name: str, raws: list[str]) -> object:
    """Return the value of ``--name``, given once or more: text if the parameter takes that, else JSON, else a list."""
    field = fields_of(model).get(name)
    decoded = [_decoded(raw) for raw in raws]
    several: list[object] = [raws, decoded]
    if field is None:  # one of **kwargs, whose type In does not know
        return raws if len(raws) > 1 else raws[0]
    annotation = field.annotation
    if len(raws) > 1:
        return _first_fitting(model, name, several, annotation)
    if is_open(annotation):
        return decoded[0]
    return _first_fitting(model, name, [raws[0], decoded[0], *several], annotation)


def _first_fitting(model: type[BaseModel], name: str, candidates: list[object], annotation: object) -> object:
    """Return the first candidate that the parameter takes, else the first of all, whose misfit is then reported."""
    if (
        get_origin(annotation) is Iterable or annotation is Iterable
    ):  # pydantic would iterate over the characters of a text
        candidates = [value for value in candidates if not isinstance(value, str)]
    return next((value for value in candidates if not _refused(model, name, value)), candidates[0])


def _refused(model: type[BaseModel], name: str, value: object) -> bool:
    return bool(_misfits_of(model, name, value))


def _misfits_of(model: type[BaseModel], name: str, value: object) -> list[tuple[tuple[int | str, ...], bool]]:
    """Return what *model* has against *value* as the parameter *name*: where, and whether something is missing."""
    try:
        model.model_validate_json(_JSON.dump_json({name: value}))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return [(detail["loc"], detail["type"] == "missing") for detail in details if detail["loc"][:1] == (name,)]
    return []


def _is_text(model: type[BaseModel], name: str, text: str) -> bool:
    """Return whether the parameter takes *text* and keeps it a ``str``."""
    annotation: Any = fields_of(model)[name].annotation
    if _refused(model, name, text):
        return False
    adapter: TypeAdapter[object] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    return isinstance(adapter.validate_json(_JSON.dump_json(text)), str)


def _cast(model: type[BaseModel], values: _Values) -> BaseModel:
    try:
        if any(isinstance(value, bytes) for value in values.values()):
            return model.model_validate(values)
        return model.model_validate_json(_JSON.dump_json(values))
    except ValidationError as error:
        raise BadUsage(_misfits(error, fields_of(model))) from error


def _misfits(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """Return a line for each misfit: the parameter, the value, the type it should have, and what pydantic says."""
    details = error.errors(include_url=False)
    lines = [
        _misfit(
            tuple(map(str, detail["loc"])), detail["input"], detail["msg"], fields, missing=detail["type"] == "missing"
        )
        for detail in details[:_MOST_ERRORS]
    ]
    if len(details) > _MOST_ERRORS:
        lines.append(f"… and {len(details) - _MOST_ERRORS} more")
    return "\n".join(lines)


def _misfit(
    where: tuple[str, ...], value: object, message: str, fields: Mapping[str, FieldInfo], *, missing: bool
) -> str:
    name = where[0] if where else "input"
    expected = f" {show(fields[name].annotation)}" if name in fields else ""
    if missing and len(where) == 1:
        return f"{name} is missing: give{expected} as plain words, as --{name} VALUE, or as JSON"
    if missing:
        return f"{name} does not fit{expected}: {'.'.join(where)} is missing in {short(value)}"
    return f"{'.'.join(where) or name} = {short(value)} does not fit{expected}: {message}"
