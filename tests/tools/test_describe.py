"""What a docstring says of a tool and of its parameters."""

from functools import partial

import pytest

from mai import Loop, Module, module
from mai.tools.describe import described, parsed

GOOGLE = """Search the index.

    Two paragraphs belong to it: this one, too.

    Args:
        query: What to look for;
            several words may be given.
        k (int, optional): How many.
        *more: Further ones.
        not an entry
            and what hangs below it

    Returns:
        The documents.

    Raises:
        query: No parameter.
    """
FIELDS = """Search the index.

    :param query: What to look for;
        several words.
    :param int k: How many.
    :returns: The documents.
    :raises ValueError: Never.
    """


def test_google_sections_are_understood() -> None:
    assert parsed(GOOGLE) == (
        "Search the index.\n\nTwo paragraphs belong to it: this one, too.",
        {"query": "What to look for; several words may be given.", "k": "How many.", "more": "Further ones."},
    )


def test_field_lists_are_understood() -> None:
    assert parsed(FIELDS) == (
        "Search the index.",
        {"query": "What to look for; several words.", "k": "How many."},
    )


@pytest.mark.parametrize("text", ["", "   ", "Args:\n    x: One."])
def test_a_docstring_without_words_describes_nothing(text: str) -> None:
    assert parsed(text)[0] == ""


class Search(Module):
    """Search the index.

    Args (of a call):
        query: What to look for.
        k: How many.
    """

    async def forward(self, query: str, k: int = 3) -> str:
        """Do it.

        Args:
            query: The words.
        """
        return query * k


class Silent(Search):
    async def forward(self, query: str, k: int = 3) -> str:
        return query * k


class Named(Search):
    description = "What the instance says."


def test_forward_comes_before_its_class() -> None:
    assert described(Search()) == ("Do it.", {"query": "The words.", "k": "How many."})


def test_a_class_inherits_the_words_of_its_base() -> None:
    assert described(Silent()) == ("Search the index.", {"query": "What to look for.", "k": "How many."})


def test_a_description_of_its_own_comes_first() -> None:
    assert described(Named())[0] == "What the instance says."


def test_a_composite_has_no_words_of_its_own_and_a_partial_those_of_its_function() -> None:
    def add(a: int, b: int) -> int:
        """Add them."""
        return a + b

    assert described(Loop(module(str.upper), max_iters=1)) == ("", {})
    assert described(module(partial(add, 1)))[0] == "Add them."
