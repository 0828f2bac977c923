"""The values that users give: of which type they must be, and what is said of one that is not."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import ConfigError

UNSET: Any = object()  # tells "not given" from None
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_LATER = ConfigDict(defer_build=True)  # the first schema that pydantic builds costs more than all the rest of an import
SECONDS: TypeAdapter[float] = TypeAdapter(Seconds, config=_LATER)
PAUSE: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)], config=_LATER)
COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, strict=True)], config=_LATER)


def checked(owner: str, key: str, value: object, tp: TypeAdapter[Any]) -> Any:
    """Return *value* as a setting of type *tp*, called *key* unless it is a mapping of several.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return tp.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        name = key or first["loc"][0]
        raise ConfigError(f"{owner}: {name}={first['input']!r} cannot be used: {first['msg']}") from error


def near(name: str, known: Iterable[str]) -> str:
    """Return the hint that ends an "unknown name" error: a near miss if there is one, else the names that exist."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(map(repr, names))}"
