"""The text tree: what it shows, that it fits, and that no trace can break it."""

import sys
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from mai import capture, module
from mai.types import ErrorInfo
from mai.views import runs, tree
from mai.views.text import bytes_text, cells, cut, safe, seconds_text

MS = 1_000_000


@dataclass
class Handle:
    """The public fields of a TraceHandle that a view reads."""

    name: str = "step"
    kind: str = "module"
    outcome: str = "ok"
    start_ns: int | None = 0
    end_ns: int | None = 0
    children: list[Any] = field(default_factory=list)
    error: ErrorInfo | None = None
    input_size: int | None = None
    output_size: int | None = None
    items: int | None = None
    dropped: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1

    @property
    def duration(self) -> float | None:
        return None if self.start_ns is None or self.end_ns is None else (self.end_ns - self.start_ns) / 1e9


def call(name: str, start_ms: float, end_ms: float, *children: Handle, **more: Any) -> Handle:
    return Handle(name, start_ns=int(start_ms * MS), end_ns=int(end_ms * MS), children=list(children), **more)


def show(handle: Any, width: int = 80) -> list[str]:
    return tree(handle, width).split("\n")


NO_HOST = ErrorInfo("ConnectionError", "builtins", "no such host")


def test_a_line_has_outcome_name_sizes_duration_and_a_bar_relative_to_the_root() -> None:
    root = call(
        "rag",
        0,
        100,
        call("Search", 0, 50, input_size=12, items=20),
        call("Parallel", 50, 100, call("Summarise", 50, 75), call("count", 75, 100, output_size=1_234)),
    )
    assert show(root) == [
        "✓ rag                               100 ms  ████████████████████████████████████",
        "├─ ✓ Search        12 B → 20 items   50 ms  ██████████████████",
        "└─ ✓ Parallel                        50 ms                    ██████████████████",
        "   ├─ ✓ Summarise                    25 ms                    █████████",
        "   └─ ✓ count      → 1.23 kB         25 ms                             █████████",
    ]


def test_sizes_give_way_on_a_narrow_terminal() -> None:
    root = call("rag", 0, 100, call("Search", 0, 50, input_size=12, items=20))
    assert show(root, 40) == [
        "✓ rag        100 ms  ███████████████████",
        "└─ ✓ Search   50 ms  ██████████",
    ]


def test_an_error_is_told_once_where_it_arose() -> None:
    failing = call("Summarise", 0, 100, outcome="error", error=NO_HOST)
    root = call("rag", 0, 100, failing, call("count", 0, 9, outcome="cancelled"), outcome="error", error=NO_HOST)
    assert show(root) == [
        "✗ rag           100 ms  ████████████████████████████████████████",
        "├─ ✗ Summarise  100 ms  ████████████████████████████████████████",
        "│     ConnectionError: no such host",
        "└─ ⊘ count        9 ms  ████",
    ]


def test_a_composite_shows_the_error_that_it_raised_itself() -> None:
    root = call("rag", 0, 2, call("a", 0, 1), outcome="timeout", error=ErrorInfo("DeadlineExceeded", "mai.errors", ""))
    lines = show(root)
    assert lines[0].startswith("◷ rag")
    assert lines[1] == "│  DeadlineExceeded"


def test_an_error_message_is_shortened_to_the_width() -> None:
    error = ErrorInfo("ValueError", "builtins", "word " * 1_000)
    lines = show(call("a", 0, 1, outcome="error", error=error), 60)
    assert cells(lines[1]) == 60
    assert lines[1].startswith("   ValueError: word word")
    assert lines[1].endswith("…")


def test_a_running_call_has_a_dotted_bar_and_no_duration() -> None:
    running = call("slow", 50, 0, outcome="running")
    running.end_ns = None
    root = call("rag", 0, 0, call("quick", 0, 100), running, outcome="running")
    root.end_ns = None
    assert [line.split() for line in show(root, 40)] == [
        ["•", "rag", "░" * 20],
        ["├─", "✓", "quick", "100", "ms", "█" * 20],
        ["└─", "•", "slow", "░" * 10],
    ]


def test_a_call_whose_beginning_nobody_saw_has_neither_time_nor_bar() -> None:
    handle = Handle("late", outcome="error", start_ns=None, end_ns=None, error=NO_HOST)
    assert show(handle) == ["✗ late", "   ConnectionError: no such host"]


def test_a_very_short_call_is_one_thin_mark_also_where_two_columns_meet() -> None:
    root = call("rag", 0, 100, call("quick", 49.9, 50.1), call("instant", 50, 50))
    assert [line.split()[-1] for line in show(root, 60)[1:]] == ["▏", "▏"]


def test_where_sizes_take_nearly_all_the_width_the_lines_of_the_tree_give_way() -> None:
    late = call("late", 0, 359_999_970_000, items=10**19)
    root = call("root", 0, 359_999_970_000, call("a", 0, 1, call("b", 0, 1, late)))
    assert max(map(cells, show(root, 70))) <= 70


def test_an_attempt_has_its_number() -> None:
    first, second = call("attempt", 0, 1, kind="attempt"), call("attempt", 1, 2, kind="attempt", attempt=2)
    lines = show(call("search", 0, 2, first, second))
    assert [line.split()[2:4] for line in lines[1:]] == [["attempt", "1"], ["attempt", "2"]]


def test_children_that_were_not_kept_are_counted() -> None:
    root = call("rag", 0, 1, call("a", 0, 1), dropped=12_345)
    assert [line.split("  ")[0] for line in show(root)] == ["✓ rag", "├─ ✓ a", "└─ … and 12,345 more"]


def test_the_way_that_a_condition_took_stands_behind_its_name() -> None:
    assert show(call("long?", 0, 1, attributes={"mai.decision": "then"}))[0].startswith("✓ long? → then ")


def test_how_often_a_loop_or_a_map_called_its_step_stands_behind_its_name() -> None:
    assert show(call("Map", 0, 1, attributes={"mai.map.items": 12_345}))[0].startswith("✓ Map x12,345 ")
    loop = call("Loop", 0, 1, attributes={"mai.loop.turns": 3, "mai.decision": "until"})
    assert show(loop)[0].startswith("✓ Loop x3 → until ")


def test_the_key_of_a_named_branch_stands_before_its_name() -> None:
    root = call("Parallel", 0, 1, call("count", 0, 1, attributes={"mai.branch.key": "words"}))
    assert show(root)[1].startswith("└─ ✓ words: count ")


def test_an_outcome_that_is_not_known_yet_has_a_mark_too() -> None:
    assert show(call("a", 0, 1, outcome="rewound"))[0].startswith("? a")


def test_a_name_or_message_cannot_move_the_cursor_or_break_the_line() -> None:
    error = ErrorInfo("E\x1b]0;t\x07", "m", "one\ntwo\r\n\tthree \u202egnihton\u2066 a\u200bb \udc80")
    lines = show(call("red \x1b[31m\n\x00alert", 0, 1, outcome="error", error=error), 120)
    assert lines[0].startswith(r"✗ red \x1b[31m \x00alert")
    assert lines[1] == r"   E\x1b]0;t\x07: one two three \u202egnihton\u2066 a\u200bb \udc80"


def test_a_variation_selector_cannot_change_a_width() -> None:
    assert safe("❤\ufe0f on") == "❤ on"


def test_wide_characters_are_counted_by_their_columns() -> None:
    lines = show(call("日本語のステップ", 0, 1, call("e\u0301tape", 0, 1)), 40)
    assert [cell_len(line.partition("1 ms")[0]) for line in lines] == [20, 20]


def test_deep_indentation_is_capped_and_the_depth_given_as_a_number() -> None:
    root = handle = call("0", 0, 1)
    for depth in range(1, 10):
        handle.children.append(call(str(depth), 0, 1))
        handle = handle.children[0]
    labels = [line.split("  1 ms")[0].rstrip() for line in show(root, 48)]
    assert labels[3:] == [
        "      └─ ✓ 3",
        "         └─ ✓ 4",
        "            ⋮5 ✓ 5",
        "            ⋮6 ✓ 6",
        "            ⋮7 ✓ 7",
        "            ⋮8 ✓ 8",
        "            ⋮9 ✓ 9",
    ]


def chain(length: int) -> Handle:
    root = handle = call("0", 0, 1)
    for depth in range(1, length):
        handle.children.append(call(str(depth), 0, 1))
        handle = handle.children[0]
    return root


def test_a_trace_deeper_than_the_stack_is_shown() -> None:
    lines = show(chain(5_000))
    assert len(lines) == 5_000
    assert "⋮4999 ✓ 4999" in lines[-1]


@pytest.mark.slow
def test_a_chain_of_a_hundred_thousand_calls_is_shown() -> None:
    assert len(show(chain(100_000))) == 100_000


def test_the_width_is_the_terminals_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    root: Any = call("rag " * 99, 0, 1)
    monkeypatch.setenv("COLUMNS", "64")
    assert cells(tree(root)) == 64
    monkeypatch.setenv("COLUMNS", "3")
    assert tree(root) == tree(root, 40) == tree(root, 1)


def test_runs_are_shown_one_below_the_other() -> None:
    first: Any = call("a", 0, 1)
    second: Any = call("b", 0, 1)
    assert runs([first, second], 50) == f"{tree(first, 50)}\n\n{tree(second, 50)}"


times = st.none() | st.integers(-(2**70), 2**70)
outcomes = st.sampled_from(["running", "ok", "error", "timeout", "cancelled", "?"])
errors = st.none() | st.builds(ErrorInfo, st.text(), st.text(), st.text())
sizes = st.none() | st.integers(0, 2**70)


def handles(children: st.SearchStrategy[list[Handle]]) -> st.SearchStrategy[Handle]:
    return st.builds(
        Handle,
        st.text(),
        st.text(),
        outcomes,
        times,
        times,
        children,
        errors,
        sizes,
        sizes,
        sizes,
        st.integers(0, 2**40),
        st.just({}) | st.fixed_dictionaries({"mai.decision": st.text() | st.booleans()}),
    )


trees = st.recursive(handles(st.just([])), lambda inner: handles(st.lists(inner, max_size=4)), max_leaves=12)


@given(trees, st.integers(-5, 250))
def test_any_tree_is_shown_within_the_width_a_line_for_each_call(root: Any, width: int) -> None:
    lines = show(root, width)
    # rich's tables judge ours: they were made from another source.
    assert all(cell_len(line) <= max(40, width) for line in lines)
    assert not any(unicodedata.category(char).startswith("C") for line in lines for char in line)
    count, told, stack = 0, 0, [root]
    while stack:
        handle = stack.pop()
        count += 1 + bool(handle.dropped)
        told += handle.error is not None
        stack += handle.children
    assert count <= len(lines) <= count + told


@given(st.text(), st.integers(0, 50))
def test_a_cut_text_fits_and_is_the_beginning_of_the_whole(text: str, width: int) -> None:
    line = safe(text)
    short = cut(line, width)
    assert cells(short) <= width
    assert short == line or (width == 0 and not short) or line.startswith(short.removesuffix("…"))


@pytest.mark.slow
def test_no_character_takes_more_columns_than_counted() -> None:
    """The tables of rich are newer than those of Python; where they say less, a line ends early, which harms nobody."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if safe(chr(code)) == chr(code)]
    assert [character for character in characters if cell_len(character) > cells(character)] == []
    assert cells("\U0001d300") == cells("䷀") == 2


@given(st.text())
@example("\U0001d300")
def test_safe_text_stays_safe(text: str) -> None:
    assert safe(safe(text)) == safe(text)
    assert cells(safe(text)) >= cell_len(safe(text))


@given(st.integers(0, 10**18))
def test_a_duration_is_short_and_says_about_how_long_it_was(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    text = seconds_text(seconds)
    units = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    words = text.replace(",", "").split()
    told = sum(float(value) * units[unit] for value, unit in zip(words[::2], words[1::2], strict=True))
    assert told == pytest.approx(seconds, rel=0.01, abs=1e-9)
    assert seconds >= 3.6e5 or len(text) <= 9


@given(st.integers(0, 10**18))
def test_a_size_is_short_and_says_about_how_much_it_was(size: int) -> None:
    value, unit = bytes_text(size).replace(",", "").split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(value) * factor == pytest.approx(size, rel=0.01)


def test_the_text_of_a_handle_is_its_tree() -> None:
    @module(inline=True)
    def shout(text: str) -> str:
        return text.upper()

    with capture() as traced:
        assert (shout >> str.title).run("hello") == "Hello"
    text = str(traced.runs[0])
    assert [line.split()[0:3] for line in text.split("\n")][1] == ["├─", "✓", "shout"]
    assert "5 B → 5 B" in text
