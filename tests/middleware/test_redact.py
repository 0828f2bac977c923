"""Redaction by value: no form of a secret is left, whatever stands around it and wherever a chunk ends."""

import base64
import html
import json
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from mai import ConfigError
from mai.middleware import Redactor

KEY = 'sk-proj/4+7"é&key=='
secrets = st.text(min_size=8, max_size=40).filter(lambda text: text not in "[redacted]" and not text.isspace())


def split(text: str, places: list[int]) -> list[str]:
    cuts = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(cuts)]


@given(before=st.binary(max_size=9), after=st.binary(max_size=9), url=st.booleans())
def test_a_secret_in_the_middle_of_base64_is_found(before: bytes, after: bytes, url: bool) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    whole = encode(before + KEY.encode() + after).decode()
    left = Redactor(KEY).text(whole)
    assert "[redacted]" in left
    for part in left.split("[redacted]"):  # what is left over at the edges gives no more than a character away
        padded = part + "=" * (-len(part) % 4)
        assert len(padded) <= len(encode(before)) + len(encode(after)) + 4


FORMS = {
    "itself": str,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 without padding": lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "a login": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "URL": lambda key: quote(key, safe=""),
    "URL with slashes": quote,
    "URL in lower case": lambda key: quote(key, safe="").lower() if key == key.lower() else quote(key, safe=""),
    "form": lambda key: urlencode({"k": key}).removeprefix("k="),
    "plus": quote_plus,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON as it is": lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda key: json.dumps(json.dumps(key))[3:-3],
    "JSON with escaped slashes": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "repr": lambda key: repr(key)[1:-1],
    "HTML": html.escape,
    "hexadecimal": lambda key: key.encode().hex(),
    "HEXADECIMAL": lambda key: key.encode().hex().upper(),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_secret_is_found(form: str) -> None:
    text = Redactor(KEY).text(f"before {FORMS[form](KEY)} after")
    assert "[redacted]" in text
    assert len(text) < len("before dXNlcjp[redacted]Q== after") + 1
    assert KEY not in text


@given(keys=st.lists(secrets, min_size=1, max_size=3), data=st.data())
def test_chunks_are_redacted_as_the_whole_text_is(keys: list[str], data: st.DataObject) -> None:
    redactor = Redactor(*keys, mask="*")
    pieces = st.one_of(st.sampled_from([*keys, *(key[:4] for key in keys)]), st.text(max_size=5))
    text = "".join(data.draw(st.lists(pieces, max_size=8)))
    stream = redactor.stream()
    chunks = split(text, data.draw(st.lists(st.integers(0, 80), max_size=12)))
    assert "".join([*map(stream.feed, chunks), stream.close()]) == redactor.text(text)


@given(places=st.lists(st.integers(0, 60), max_size=20))
@example(places=list(range(60)))
def test_a_secret_that_begins_like_another_or_overlaps_it_is_found_in_chunks(places: list[int]) -> None:
    redactor = Redactor("abcd1234", "abcd1234efgh", "34efxy", mask="*")
    for text in ("-abcd1234efgh-", "-abcd1234ef-", "abcd1234efxy", "abcabcd1234", "abcd1234efg"):
        stream = redactor.stream()
        assert "".join([*map(stream.feed, split(text, places)), stream.close()]) == redactor.text(text)
    assert redactor.text("-abcd1234efgh-") == "-*-"


def test_what_cannot_be_a_secret_is_handed_on_at_once() -> None:
    stream = Redactor("sk-1234").stream()
    assert [stream.feed(chunk) for chunk in ("no key ", "s", "k", "y")] == ["no key ", "", "", "sky"]
    assert stream.close() == ""


def test_values_are_redacted_in_depth_and_others_left_alone() -> None:
    redactor, other = Redactor(SecretStr("sk-1234")), object()
    given = {"sk-1234": ["a sk-1234", ("sk-1234", b"x sk-1234 \xff")], "n": 3, "o": other}
    assert redactor.value(given) == {
        "[redacted]": ["a [redacted]", ("[redacted]", b"x [redacted] \xff")],
        "n": 3,
        "o": other,
    }


def test_the_middle_of_what_encodes_a_short_secret_is_left_alone_as_it_may_be_anything() -> None:
    redactor = Redactor("abcd")
    assert redactor.text("abcd YWJjZA== 61626364 eGFiY2R5") == "[redacted] [redacted] [redacted] eGFiY2R5"


def test_without_secrets_nothing_changes() -> None:
    redactor = Redactor()
    stream = redactor.stream()
    assert (redactor.text("x"), stream.feed("x"), stream.close()) == ("x", "x", "")


def test_it_does_not_show_what_it_knows() -> None:
    assert repr(Redactor("sk-1234")).startswith("<Redactor of ")
    assert "1234" not in repr(Redactor("sk-1234"))


@pytest.mark.parametrize("secret", ["", "abc", None, b"sk-1234", 5])
def test_what_is_no_secret_is_refused_and_not_shown(secret: Any) -> None:
    with pytest.raises(ConfigError, match="is no secret") as caught:
        Redactor(secret)
    assert "abc" not in str(caught.value)


def test_a_mask_with_a_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask"):
        Redactor("redacted")
