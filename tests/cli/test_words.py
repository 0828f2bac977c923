"""Sorting the words of a command line."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from mai.cli.usage import BadUsage
from mai.cli.words import Given, parse


@given(st.lists(st.sampled_from(["--a", "--a=1", "--no-a", "--b", "--c-d", "--c_d=", "true", "x", "-", "-5", "--"])))
def test_parsing_loses_no_word(tokens: list[str]) -> None:
    fields = create_model("In", a=(bool, ...), b=(str, ...), c_d=(str, ...)).model_fields
    try:
        given_words = parse(tokens, fields)
    except BadUsage:
        return
    end = tokens.index("--") if "--" in tokens else len(tokens)
    assert given_words.words[len(given_words.words) - len(tokens[end + 1 :]) :] == tokens[end + 1 :]
    assert set(given_words.named) <= {"a", "b", "c_d"}
    count = len(given_words.words) + sum(map(len, given_words.named.values()))
    assert count <= len(tokens) <= 2 * count + 1


def test_a_name_is_written_with_dashes_or_underscores() -> None:
    fields = create_model("In", max_items=(int, 3), no_cache=(bool, False), cache=(bool, True)).model_fields
    parsed = parse(["--max-items", "4", "--max_items=5", "--no-cache"], fields)
    assert parsed == Given({"max_items": ["4", "5"], "no_cache": ["true"]}, [], literal=False)
