"""Sequential: feeding values on, spreading tuples, and what cannot be wired."""

from typing import Any

import pytest
from pydantic import BaseModel

from mai import CastError, Module, Parallel, Sequential, WiringError, capture, module
from tests.support import refused, simulated


class Doc(BaseModel):
    text: str


@module
async def split(text: str) -> list[str]:
    return text.split()


@module
async def count(words: list[str]) -> int:
    return len(words)


@module
async def pair(n: int) -> tuple[int, int]:
    return n, n + 1


@module
async def add(a: int, b: int) -> int:
    return a + b


@module
async def add_more(a: int, b: int, c: int = 100) -> int:
    return a + b + c


@module
async def triple(n: int) -> tuple[int, int, int]:
    return n, n, n


@simulated
async def test_each_value_goes_to_the_next_step() -> None:
    assert await Sequential(split, count, str)("to be or") == "3"
    assert await Sequential(split)("to be") == ["to", "be"]
    assert await (split >> count >> (lambda n: n + 1) >> str)("a b") == "3"


@simulated
async def test_a_sequence_in_a_sequence_is_one_sequence_unless_it_is_configured() -> None:
    assert len((split >> count >> str).steps) == len(Sequential(split, Sequential(count, str)).steps) == 3
    named = (split >> count).with_(name="inner")
    whole = named >> str
    assert len(whole.steps) == 2
    with capture() as trace:
        await whole("a b")
    assert [h.step_id for h in trace.runs[0].walk()] == [
        "Sequential", "Sequential/inner", "Sequential/inner/split", "Sequential/inner/count", "Sequential/str"
    ]  # fmt: skip


@simulated
async def test_a_subclass_of_sequential_stays_a_step_of_its_own() -> None:
    class Mine(Sequential[Any, Any], timeout=5):
        pass

    with capture() as trace:
        await (Mine(split, count) >> str)("a b")
    assert [h.name for h in trace.runs[0].children] == ["Mine", "str"]


@simulated
async def test_a_tuple_is_spread_iff_the_next_step_needs_two_values_or_more() -> None:
    assert await (pair >> add)(1) == 3
    assert await (pair >> add_more)(1) == 103
    assert await (triple >> add_more)(1) == 3
    assert await (pair >> (lambda both: sum(both)))(1) == 3


@simulated
async def test_a_parallel_spreads_into_the_next_step() -> None:
    @module
    async def say(words: list[str], text: str) -> str:
        return f"{text}={len(words)}"

    assert await ((split & str) >> say)("a b") == "a b=2"
    assert await (Parallel(split, lambda text: text) >> say)("a b") == "a b=2"


@simulated
async def test_what_with_sets_needs_no_value_from_the_step_before() -> None:
    assert await (count >> add.with_(b=10))(["a"]) == 11

    class Scale(Module):
        async def forward(self, n: int, *, by: int) -> int:
            return n * by

    assert await (count >> Scale().with_(by=3))(["a"]) == 3


@simulated
async def test_values_are_cast_between_steps() -> None:
    @module
    async def raw(text: str) -> dict[str, Any]:
        return {"text": text}

    @module
    async def read(doc: Doc) -> str:
        return doc.text

    assert await (raw >> read)("a") == "a"
    assert await (module(str) >> int >> pair >> add)(1) == 3
    with pytest.raises(CastError) as caught:
        await (split >> (lambda words: 5) >> read)("a")
    assert caught.value.step_id == "Sequential/read"


@simulated
async def test_the_input_is_that_of_the_first_step_and_the_output_that_of_the_last() -> None:
    line = split >> count
    assert list(line.In.model_fields) == ["text"]
    assert line.Out is int
    assert await line.with_(timeout=5)("a b") == 2
    assert line.payload(text="a").value.model_dump() == {"text": "a"}


def test_no_steps_are_refused() -> None:
    with refused(WiringError, "Sequential has no steps; give it at least one"):
        Sequential()


def test_types_that_cannot_fit_are_refused_when_wired() -> None:
    with refused(
        WiringError,
        "cannot connect count -> split\n  count returns int\n  split(text) expects str\n"
        "  hint: put a step between them that turns int into str",
    ):
        Sequential(split, count, split)


def test_a_step_that_needs_more_values_than_it_gets_is_refused() -> None:
    for wrong in (lambda: count >> add, lambda: triple >> add, lambda: module(lambda n: (1, 2)) >> add):
        with pytest.raises(WiringError, match=r"^cannot connect .* -> add: add needs 2 values \(a, b\)"):
            wrong()


def test_a_tuple_of_open_length_is_not_spread() -> None:
    @module
    async def many(n: int) -> tuple[int, ...]:
        return (n,)

    with pytest.raises(WiringError, match=r"many .*no.* tuple of that length"):
        many >> add


def test_a_part_of_a_tuple_that_cannot_fit_is_named() -> None:
    @module
    async def mixed(n: int) -> tuple[int, list[int]]:
        return n, [n]

    with pytest.raises(WiringError, match=r"mixed returns list\[int\]\n  add\(b\) expects int"):
        mixed >> add


def test_a_keyword_only_parameter_without_a_default_is_refused() -> None:
    @module
    async def scale(n: int, *, by: int) -> int:
        return n * by

    with pytest.raises(WiringError, match=r"scale needs 'by' by name.*with_"):
        count >> scale


def test_a_value_cannot_go_where_with_has_set_the_first_parameter_only() -> None:
    hint = "which goes to 'a'; set 'b' with .with_(b=...) instead"
    with refused(WiringError, f"cannot connect count -> add: add needs 'b', but gets one value, {hint}"):
        count >> add.with_(a=1)
    with refused(WiringError, f"Parallel: add needs 'b', but gets one value, {hint}"):
        count & add.with_(a=1)
    with pytest.raises(WiringError, match=r"needs 2 values \(b, c\), but pair returns no tuple of that length"):
        pair >> add_three.with_(a=1)
    assert (triple >> add_three.with_(a=1)).run(1) == 3
    assert (pair >> add_three.with_(c=3)).run(1) == 6


@module
async def add_three(a: int, b: int, c: int) -> int:
    return a + b + c


def test_a_first_step_that_needs_two_values_is_refused() -> None:
    with refused(WiringError, "Sequential: add needs 2 values (a, b), but gets one"):
        add >> str


def test_a_first_parameter_that_can_be_given_only_by_name_is_refused() -> None:
    @module
    async def scale(*, by: int = 3) -> int:
        return by

    @module
    async def loose(**facts: int) -> int:
        return len(facts)

    for step, name in ((scale, "by"), (scale.with_(by=4), "by"), (loose, "facts")):
        who = step.settings.name
        with refused(WiringError, f"{who} takes {name!r} only by name: a composite gives its value by position"):
            count >> step
        with pytest.raises(WiringError, match="only by name"):
            Sequential(step)
        with pytest.raises(WiringError, match="only by name"):
            count & step
    assert scale.run(by=2) == 2


@simulated
async def test_a_step_that_takes_any_number_of_values_gets_the_one() -> None:
    @module
    async def total(*numbers: int) -> int:
        return sum(numbers)

    assert await (count >> total)(["a", "b"]) == 2


def test_equal_explicit_names_in_one_scope_are_refused() -> None:
    with refused(WiringError, "Sequential: two steps are named 'same'; names in one scope must differ"):
        split.with_(name="same") >> count.with_(name="same")
    assert len((split.with_(name="same") >> count).with_(name="same").steps) == 2


@simulated
async def test_equal_names_that_nobody_gave_are_numbered() -> None:
    with capture() as trace:
        await Sequential(str.upper, str.lower, str.upper)("a")
    assert [h.step_id for h in trace.runs[0].children] == ["Sequential/upper", "Sequential/lower", "Sequential/upper~2"]


@simulated
async def test_the_same_module_may_stand_twice() -> None:
    twice = pair >> add
    assert await (twice >> twice)(1) == 7
