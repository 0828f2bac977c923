"""Redaction by value: a secret that is known is taken out of every text, in whatever form it stands there.

Names of fields say little about where a key turns up: in a message, in a URL, in a header that a server repeats, in the
base64 of a login. Its value is what can be searched for.
"""

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from mai.errors import ConfigError

_SHORTEST = 4  # characters; a shorter secret would be found everywhere
_CORE = 8  # characters of base64 or hexadecimal digits that are no accident


class Redactor:
    """Takes known secrets out of texts and values.

    A secret is found as it is, and in base64 (plain and for URLs, also in the middle of what was encoded), in
    hexadecimal digits, and as URLs, JSON, HTML and ``repr`` escape it.

    Args:
        secrets: What must not be seen, each of at least 4 characters.
        mask: What stands in its place.

    Raises:
        ConfigError: If a secret is no text or too short, or *mask* contains one.

    Example:
        >>> from mai.middleware import Redactor
        >>> redactor = Redactor("sk-12/34")
        >>> redactor.text("GET /?key=sk-12%2F34 with 'sk-12/34' failed")
        "GET /?key=[redacted] with '[redacted]' failed"
        >>> redactor.value({"headers": ["Basic c2stMTIvMzQ="]})
        {'headers': ['Basic [redacted]']}
    """

    def __init__(self, *secrets: str | SecretStr, mask: str = "[redacted]") -> None:
        values: list[Any] = [one.get_secret_value() if isinstance(one, SecretStr) else one for one in secrets]
        for value in values:
            if not isinstance(value, str) or len(value) < _SHORTEST:
                what = f"a text of {len(value)}" if isinstance(value, str) else f"a {type(value).__name__}"
                raise ConfigError(f"Redactor: {what} is no secret; give texts of at least {_SHORTEST} characters")
        self.mask: str = mask
        self._forms: list[str] = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self._pattern: re.Pattern[str] | None = re.compile("|".join(map(re.escape, self._forms))) if values else None
        self._longest: int = len(self._forms[0]) if values else 0
        if self.text(mask) != mask:
            raise ConfigError("Redactor: the mask contains a secret; choose another one")

    def text(self, text: str) -> str:
        """Return *text* with the mask in the place of each secret."""
        return text if self._pattern is None else self._pattern.sub(lambda _: self.mask, text)

    def value(self, value: Any) -> Any:
        """Return *value* with the texts in it redacted: str, bytes, and the dicts, lists and tuples of them.

        Other objects stay as they are.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if isinstance(value, Mapping):
            return {self.value(key): self.value(one) for key, one in _pairs(value)}
        if type(value) in (list, tuple):
            return type(value)(self.value(one) for one in value)
        return value

    def stream(self) -> "RedactedStream":
        """Return what redacts a text that comes in chunks, between which a secret may be split."""
        return RedactedStream(self)

    def _held(self, text: str) -> int:
        """Return how many characters at the end of *text* may be the beginning of a secret."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            tail = text[start:]
            if any(form.startswith(tail) and form != tail for form in self._forms):
                return len(tail)
        return 0

    def _found(self, text: str) -> Iterator[re.Match[str]]:
        """Yield where secrets stand in *text*."""
        return iter(()) if self._pattern is None else self._pattern.finditer(text)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._forms)} forms>"


class RedactedStream:
    """A text in chunks, redacted: what may be the beginning of a secret is held back until more has come.

    Args:
        redactor: What knows the secrets.

    Example:
        >>> from mai.middleware import Redactor
        >>> stream = Redactor("sk-1234").stream()
        >>> stream.feed("the key is sk-"), stream.feed("1234, or sk"), stream.close()
        ('the key is ', '[redacted], or ', 'sk')
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest = ""

    def feed(self, chunk: str) -> str:
        """Take the next chunk; return as much of the text as is sure."""
        text, out, at = self._rest + chunk, list[str](), 0
        sure = len(text) - self._redactor._held(text)
        for match in self._redactor._found(text):
            if match.start() >= sure:
                break
            out += [text[at : match.start()], self._redactor.mask]
            at = match.end()
            if at > sure:  # what is held back was the end of a whole one
                sure = len(text) - self._redactor._held(text[at:])
        self._rest = text[max(at, sure) :]
        return "".join([*out, text[at:sure]])

    def close(self) -> str:
        """Return the rest; there are no more chunks."""
        rest, self._rest = self._rest, ""
        return self._redactor.text(rest)


def _forms(secret: str) -> Iterator[str]:
    """Yield the texts as which *secret* may be found."""
    data = secret.encode("utf-8", "surrogatepass")
    yield secret
    escaped = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]]
    yield from escaped
    yield from (json.dumps(one)[1:-1] for one in escaped)  # JSON within JSON
    yield escaped[0].replace("/", "\\/")
    yield html.escape(secret)
    for url in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield from (url, re.sub("%..", lambda found: found[0].lower(), url))
    if len(data) * 2 >= _CORE:
        yield from (data.hex(), data.hex().upper())
    for one in _base64(data):
        yield from (one, one.replace("+", "-").replace("/", "_"))


def _base64(data: bytes) -> Iterator[str]:
    """Yield *data* in base64, and what is left of it where other data stands before and after it."""
    whole = base64.b64encode(data).decode()
    yield whole
    yield whole.rstrip("=")
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        first = (before * 8 + 5) // 6  # the first character of which no bit is foreign
        core = text[first : (before + len(data)) * 8 // 6]
        if len(core) >= _CORE:
            yield core


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return the items of a mapping, of whatever types."""
    return list(value.items())
