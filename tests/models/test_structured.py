import json
from dataclasses import dataclass
from typing import Any, Literal, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mai import ConfigError, capture
from mai.models import ContentFiltered, InvalidOutput, Message, Refused, Reply, ScriptedModel
from mai.models.structured import Output
from tests.support import refused_value


class City(BaseModel):
    name: str
    people: int = 0


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


@dataclass
class Point:
    x: int
    y: int


BERN = '{"name": "Bern", "people": 134000}'
values: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (list[str], st.lists(st.text())),
    (dict[str, int], st.dictionaries(st.text(), st.integers())),
    (bool | None, st.booleans() | st.none()),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (City, st.builds(City, name=st.text(), people=st.integers())),
    (list[City], st.lists(st.builds(City, name=st.text(), people=st.integers()), max_size=2)),
    (Point, st.builds(Point, x=st.integers(), y=st.integers())),
]


@given(st.sampled_from(values).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1])), st.booleans(), st.booleans())
def test_a_value_of_each_type_comes_back_from_what_the_schema_asks_for(
    case: tuple[Any, Any], fenced: bool, bare: bool
) -> None:
    tp, value = case
    output = Output(tp)
    plain = output.adapter.dump_python(value, mode="json")
    text = json.dumps({"value": plain} if output.wrapped and not bare else plain)
    assert output.read(f"```json\n{text}\n```" if fenced else text) == value


@pytest.mark.parametrize(
    "text",
    [
        "So: {}.",
        "Here it is:\n```json\n{}\n```\nDo you want more?",
        "```\n{}\n```",
        "  {}\n",
        "I thought of {{a set}}.\n```json\n{}\n```",
    ],
)
def test_words_around_an_answer_do_no_harm(text: str) -> None:
    assert Output(City).read(text.format(BERN)) == City(name="Bern", people=134000)


def test_a_text_that_is_json_itself_is_the_answer() -> None:
    text = json.dumps({"value": "```json\n{}\n``` and {braces}"})
    assert Output(str).read(text) == "```json\n{}\n``` and {braces}"
    with pytest.raises(ValidationError, match="Field required"):
        Output(City).read('{"text": "{\\"name\\": \\"Bern\\"}"}')


def test_a_schema_is_always_that_of_an_object() -> None:
    for tp, _ in values:
        assert Output(tp).schema["type"] == "object"
    wrapped = Output(list[City]).schema
    assert wrapped["required"] == ["value"]
    assert "City" in wrapped["$defs"]
    assert Output(City).name == "City"
    assert Output(list[City] | None).name == "list_City_None"


def test_a_type_that_refers_to_itself_can_be_asked_for() -> None:
    tree = Tree(name="a", children=[Tree(name="b")])
    assert Output(Tree).read(tree.model_dump_json()) == tree


async def test_a_model_gives_a_value_of_the_type() -> None:
    model = ScriptedModel(BERN)
    assert await model.returning(City)("The capital?") == City(name="Bern", people=134000)
    (request,) = model.requests
    assert request.output == City.model_json_schema()
    assert request.output_name == "City"


async def test_an_answer_that_does_not_fit_is_shown_with_what_is_wrong() -> None:
    model = ScriptedModel('{"name": 1, "people": "many"}', "Bern!", BERN)
    with capture() as trace:
        assert (await model.returning(City)("The capital?")).name == "Bern"
    assert [len(request.messages) for request in model.requests] == [1, 3, 5]
    mend = model.requests[1].messages[-1].text
    assert mend.startswith("That does not fit: name: Input should be a valid string; people: ")
    assert model.requests[1].messages[-2] == Message.assistant('{"name": 1, "people": "many"}')
    assert trace.runs[0].attributes["mai.output.attempts"] == 3
    assert [child.name for child in trace.runs[0].children] == ["ScriptedModel"] * 3


async def test_when_no_answer_fits_the_error_has_the_last_one() -> None:
    with pytest.raises(InvalidOutput) as caught:
        await ScriptedModel("no", repeat=True).returning(City, attempts=2)("The capital?")
    assert str(caught.value).startswith("scripted:model: no answer in 2 fits City; the last: the answer: Invalid JSON")
    assert (caught.value.text, caught.value.model) == ("no", "scripted:model")
    assert caught.value.problem.startswith("the answer: Invalid JSON")


async def test_a_model_that_was_cut_off_is_told_so() -> None:
    cut = Reply(message=Message.assistant('{"name": "Be'), finish="length")
    model = ScriptedModel(cut, BERN)
    await model.returning(City)("The capital?")
    assert "it was cut off; answer more shortly" in model.requests[1].messages[-1].text


@pytest.mark.parametrize(("finish", "kind"), [("refused", Refused), ("filtered", ContentFiltered)])
async def test_a_model_that_declines_is_not_asked_again(finish: Any, kind: type[Exception]) -> None:
    model = ScriptedModel(Reply(message=Message.assistant("I will not"), finish=finish), repeat=True)
    with pytest.raises(kind):
        await model.returning(City)("The capital?")
    assert len(model.requests) == 1


def test_the_type_of_the_value_is_known_when_steps_are_joined() -> None:
    asking = ScriptedModel(BERN).returning(City)
    assert asking.Out is City
    assert (asking >> (lambda city: city.name)).run("x") == "Bern"
    assert asking.with_(name="capital", retry=2).run.__self__.settings.name == "capital"  # type: ignore[attr-defined]


def test_what_cannot_be_asked_for_is_refused_when_it_is_made() -> None:
    class Odd:
        pass

    with pytest.raises(ConfigError, match=r"returning\(Odd\): there is no JSON schema of it"):
        ScriptedModel("x").returning(Odd)
    with refused_value("returning", "attempts", 0):
        ScriptedModel("x").returning(City, attempts=0)
    with refused_value("returning", "attempts", 1.5):
        ScriptedModel("x").returning(City, attempts=1.5)  # type: ignore[call-overload]


def test_a_name_for_a_type_is_a_type() -> None:
    name = NewType("name", str)
    assert ScriptedModel('{"value": "x"}').returning(name).run("?") == "x"
