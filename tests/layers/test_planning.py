"""WorkflowPlan: what it says of each kind of module, what it refuses, and how a graph is wired from it."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from mai import (
    BlockingDelay,
    Conditional,
    CycleError,
    Graph,
    Module,
    Parallel,
    WiringError,
    WorkflowPlan,
    graph,
    module,
)
from mai.types import PlanEdge, PlanNode, PlanType
from mai.views import draw
from tests.support import refused

STR = PlanType(text="str", schema_id="s")


@module
async def length(text: str) -> int:
    return len(text)


@module(version="2", timeout=3.0, retry=2, tags=("a",))
async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@module
async def spell(n: int) -> str:
    return str(n)


async def count(text: str) -> int:
    return 0


@module
async def keyed(text: str, **more: str) -> str:
    return text


class Opaque:
    """No type that pydantic knows."""


@module
async def wrap(text: str, way: Any = None) -> Opaque:
    return Opaque()


def plan_with(nodes: list[str], edges: list[tuple[str | None, str]], output: str = "a") -> WorkflowPlan:
    made = tuple(PlanNode(id=one, name=one, kind="module", module="m", gives=STR) for one in nodes)
    wired = tuple(PlanEdge(source=a, target=b, parameter=f"p{k}") for k, (a, b) in enumerate(edges))
    return WorkflowPlan(name="p", kind="graph", inputs=(), nodes=made, edges=wired, output=output, gives=STR)


def ids(plan: WorkflowPlan) -> list[str]:
    return [node.id for node in plan.nodes]


def test_a_single_step_has_a_plan() -> None:
    plan = shout.plan()
    node = plan.nodes[0]
    assert (plan.name, plan.kind, ids(plan), plan.output) == ("shout", "module", ["shout"], "shout")
    assert [(one.name, one.type.text, one.required, one.default) for one in plan.inputs] == [
        ("text", "str", True, None), ("mark", "str", False, '"!"'),
    ]  # fmt: skip
    assert (node.kind, node.version, node.gives.text) == ("module", "2", "str")
    assert node.module.endswith(".shout")
    assert node.settings == {"timeout": 3.0, "retry": {"attempts": 2, "base": 0.1, "limit": 30.0}, "tags": ["a"]}
    plan.validate()


def test_settings_are_told_as_far_as_they_have_json() -> None:
    async def loud(call: Any, go_on: Any) -> Any:
        return await go_on(call)

    step = length.with_(fallback=length.with_(name="spare"), middleware=loud)
    assert step.plan().nodes[0].settings == {"fallback": ["spare"], "middleware": [loud.__qualname__]}
    assert shout.with_(mark="?").plan().nodes[0].settings["params"] == {"mark": "?"}


def test_a_type_that_cannot_be_hashed_has_its_place() -> None:
    @module
    async def step(n: Annotated[int, Field(ge=1), ["odd"]]) -> int:
        return n

    plan = step.plan()
    assert plan.nodes[0].takes["n"] == plan.inputs[0].type
    assert "ge=1" in plan.inputs[0].type.text


def test_a_difference_of_types_is_told() -> None:
    one = length.plan()
    other = total.with_(name="length").plan()
    was, now = one.inputs[0].type.schema_id, other.inputs[0].type.schema_id
    assert one.diff(other) == [
        "input numbers is new", "input text is gone",
        f"step length: module is '{__name__}.total', was '{__name__}.length'",
        f"step length: takes is (numbers: list[int] [{now}]), was (text: str [{was}])",
        "length.numbers is fed by numbers", "length.text is no longer fed (was text)",
    ]  # fmt: skip


def test_composites_show_what_is_inside() -> None:
    class Agent(Module):
        def __init__(self) -> None:
            self.model = length
            self.tools = {"shout": shout, "spell": spell}

        async def forward(self, text: str) -> str:
            return text

    named = Parallel(a=length, b=shout)
    whole = Agent() >> Conditional(length, then=shout, otherwise=named >> str) >> BlockingDelay(2)
    assert ids(whole.plan()) == [
        "Sequential", "Sequential/Agent", "Sequential/Conditional", "Sequential/BlockingDelay",
        "Sequential/Agent/length", "Sequential/Agent/shout", "Sequential/Agent/spell",
        "Sequential/Conditional/length", "Sequential/Conditional/shout", "Sequential/Conditional/Sequential",
        "Sequential/Conditional/Sequential/Parallel", "Sequential/Conditional/Sequential/str",
        "Sequential/Conditional/Sequential/Parallel[a]/length", "Sequential/Conditional/Sequential/Parallel[b]/shout",
    ]  # fmt: skip
    assert whole.plan().nodes[3].settings == {"mai.delay.seconds": 2.0}
    assert ids((length & length).plan()) == ["Parallel", "Parallel[0]/length", "Parallel[1]/length"]
    assert ids((length >> spell >> length).plan())[1:] == [
        "Sequential/length", "Sequential/spell", "Sequential/length~2"
    ]  # fmt: skip


def test_the_plan_of_a_graph_has_its_casts_constants_and_sub_graphs() -> None:
    @graph
    async def inner(text: str) -> int:
        return await length(await shout(text))

    @graph(limit=3, on_error="collect")
    async def outer(n: int) -> str:
        return await shout(await spell(await inner(await shout(await spell(n), "?"))), mark="x")

    plan = outer.plan()
    assert ids(plan) == [
        "spell", "shout", "inner", "spell~2", "shout~2", "inner/shout", "inner/length",
    ]  # fmt: skip
    assert plan.settings == {"limit": 3, "on_error": "collect"}
    assert [(edge.source, edge.target, edge.parameter, edge.constant) for edge in plan.edges] == [
        ("$n", "spell", "n", None), ("spell", "shout", "text", None), (None, "shout", "mark", '"?"'),
        ("shout", "inner", "text", None), ("inner", "spell~2", "n", None), ("spell~2", "shout~2", "text", None),
        (None, "shout~2", "mark", '"x"'), ("inner/$text", "inner/shout", "text", None),
        ("inner/shout", "inner/length", "text", None),
    ]  # fmt: skip
    plan.validate()
    assert plan.nodes[5].within == "inner"
    assert plan.chains() == [["spell", "shout", "inner", "spell~2", "shout~2"]]

    g = Graph("g")
    cast = g.output(g.add(length, g.input("text", str)))
    h = Graph("h")
    plan = h.output(h.add(spell, h.add(str, h.input("n", int)))).plan()
    assert ids(plan) == ["str", "cast[spell.n]", "spell"]
    assert plan.nodes[1].gives.text == "int"
    assert plan.stages() == [["str"], ["spell"]]
    assert plan.chains() == [["str", "spell"]]
    assert plan.critical_path() == ["str", "spell"]
    assert Graph.from_plan(plan, {"str": module(str), "spell": spell}).plan() == plan
    assert cast.plan().critical_path() == ["length"]


def test_the_json_of_a_plan_can_be_had_piece_by_piece() -> None:
    g = Graph("same")
    same = g.output(g.input("text", str))
    h = Graph('odd "names" \\')
    odd = h.output(h.add(keyed, h.input("text", str), **{'a "b"\n': "c"}))
    k = Graph("casts")
    text = k.input("n", int)
    casts = k.output([k.add(length.with_(name=f"n{i}"), k.add(spell, k.add(str, text))) for i in range(1200)])
    params = shout.with_(mark='"nodes":[],"edges":[]')
    for made in (shout, params, same, odd, casts, (length & shout) >> len):
        assert "".join(made.plan_json()) == made.plan().model_dump_json()
    with pytest.raises(WiringError, match="has no output yet"):
        next(Graph("open").plan_json())


def test_a_plan_cannot_be_changed_and_reads_only_its_format() -> None:
    plan = length.plan()
    with pytest.raises(ValidationError):
        plan.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        WorkflowPlan.model_validate_json("{}")


def test_the_fingerprint_ignores_settings_and_text() -> None:
    def made(version: str | None, doc: str, timeout: float | None, field: str = "n") -> WorkflowPlan:
        fields = {"__doc__": doc, "__annotations__": {field: int}, "__module__": __name__}
        model: Any = type("Model", (BaseModel,), fields)

        async def step(given: model) -> int:
            return 1

        @graph
        async def g(given: model) -> int:
            return await module(step).with_(version=version, timeout=timeout)(given)

        return g.plan()

    first = made("1", "One.", None).fingerprint
    assert made("1", "Two.", 3.0).fingerprint == first
    assert made("2", "One.", None).fingerprint != first
    assert made("1", "One.", None, "m").fingerprint != first
    assert made("1", "", None).diff(made("2", "", None)) == ["step step: version is '2', was '1'"]


def test_the_order_of_arguments_by_name_makes_no_difference_to_a_plan() -> None:
    @module
    async def noted(text: str, mark: str = "!", **more: str) -> str:
        return f"{text}{mark}{more}"

    @graph
    async def first(text: str) -> str:
        return await noted(text=text, mark="?", b="1", a="2")

    by_hand = Graph("first")
    text = by_hand.input("text", str)
    second = by_hand.output(by_hand.add(noted, b="1", mark="?", text=text, a="2"))
    again = Graph.from_plan(second.plan(), {"noted": noted})
    assert first.plan() == second.plan() == again.plan()
    assert first.run("x") == second.run("x") == again.run("x") == "x?{'b': '1', 'a': '2'}"  # this order is the caller's


def test_a_difference_is_told_in_words() -> None:
    @graph
    async def g(text: str) -> int:
        return await length(await shout(text))

    one = g.plan()

    with pytest.warns(RuntimeWarning, match="input k"):

        @graph
        async def g(text: str, k: int = 1) -> str:  # type: ignore[no-redef]
            return await shout(await spell(await length(text)), mark="?")

    two = g.plan()
    with pytest.warns(RuntimeWarning, match="input k"):

        @graph
        async def named(text: str, k: int) -> int:
            return await length(await shout(text))

    assert one.diff(two) == [
        "input k is new", "step spell is new", "length.text is fed by text, was shout",
        "shout.mark is fed by the constant \"?\"", "shout.text is fed by spell, was text", "spell.n is fed by length",
        "the output is shout, was length",
        f"the whole gives str [{two.gives.schema_id}], was int [{one.gives.schema_id}]",
    ]  # fmt: skip
    assert two.diff(one)[:3] == ["input k is gone", "step spell is gone", "length.text is fed by shout, was text"]
    assert 'shout.mark is no longer fed (was the constant "?")' in two.diff(one)
    assert one.diff(named.plan()) == ["the name is 'named', was 'g'", "input k is new"]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (["a", "a"], [], "plan 'p': there are 2 steps named 'a'"),
        (["a", "bob"], [("a", "bop")], "plan 'p': there is no step 'bop'; did you mean 'bob'?"),
        (["a"], [("$x", "a")], "plan 'p': there is no step '$x'; it has 'a'"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(nodes: Any, edges: Any, message: str) -> None:
    with refused(WiringError, message):
        plan_with(nodes, edges).validate()


def test_a_step_of_another_graph_feeds_none_of_this_one() -> None:
    plan = plan_with(["a", "b"], [("b", "a")])
    away = {one.id: one for one in plan.nodes}["b"].model_copy(update={"within": "a"})
    moved = plan.model_copy(update={"nodes": tuple(away if one.id == "b" else one for one in plan.nodes)})
    with refused(WiringError, "plan 'p': 'b' and 'a' are not in one graph"):
        moved.validate()
    with refused(WiringError, "plan 'p': 'b' and 'a' are not in one graph"):
        moved.stages()
    lost = plan.model_copy(update={"nodes": tuple(one.model_copy(update={"within": "x"}) for one in plan.nodes)})
    with refused(WiringError, "plan 'p': there is no step 'x'; it has 'a', 'b'"):
        lost.validate()
    for form in ("text", "mermaid", "dot"):
        with refused(WiringError, "plan 'p': there is no step 'x'; it has 'a', 'b'"):
            draw(lost, form)


def test_a_parameter_is_fed_once() -> None:
    plan = plan_with(["a", "b"], [("b", "a")])
    with refused(WiringError, "plan 'p': there are 2 edges to 'a.p0'"):
        plan.model_copy(update={"edges": plan.edges * 2}).validate()


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        ([("a", "a")], ("a", "a")),
        ([("a", "b"), ("b", "c"), ("c", "b")], ("b", "c", "b")),
        ([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e"), ("e", "c")], ("c", "d", "e", "c")),
    ],
)
def test_a_cycle_is_named(edges: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(CycleError) as caught:
        plan_with([*"abcde"], edges).validate()
    around = caught.value.path
    assert around[0] == around[-1]
    turns = [(*around[k:-1], *around[: k + 1]) for k in range(len(around) - 1)]
    assert path in turns
    with pytest.raises(CycleError):
        Graph.from_plan(plan_with([*"abcde"], edges), {})


def test_a_diamond_is_no_cycle() -> None:
    plan_with([*"abcd"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]).validate()


# ---------------------------------------------------------------- from a plan


@graph
async def rag(text: str, k: int = 3) -> dict[str, Any]:
    loud = await shout(text, "?")
    return {"first": loud[0], "n": await total([k, await length(text), 5])}


def test_a_graph_is_wired_from_a_plan_by_names_ids_and_qualified_names() -> None:
    plan = WorkflowPlan.model_validate_json(rag.plan().model_dump_json())
    modules: dict[str, Any] = {"shout": shout, "length": length, total.plan().nodes[0].module: total}
    again = Graph.from_plan(plan, modules)
    assert again.plan() == plan
    assert again.run("abc") == rag.run("abc") == {"first": "A", "n": 11}
    other = Graph.from_plan(plan, {**modules, "length": module(count)})
    assert ids(other.plan()) == ids(plan)
    assert other.plan().diff(plan) == [f"step length: module is '{__name__}.length', was '{__name__}.count'"]


def test_a_parameter_that_was_left_to_its_default_stays_so() -> None:
    @graph
    async def g(text: str) -> str:
        return await shout(await shout(text))

    again = Graph.from_plan(g.plan(), {"shout": shout})
    assert (again.plan(), again.run("a")) == (g.plan(), "A!!")


def test_the_order_of_the_nodes_in_the_data_does_not_matter() -> None:
    plan = rag.plan()
    mixed = plan.model_copy(update={"nodes": plan.nodes[::-1], "edges": plan.edges[::-1]})
    again = Graph.from_plan(mixed, {"shout": shout, "length": length, "total": total})
    assert again.run("abc")["first"] == "A"


def test_what_a_plan_needs_and_is_not_given_is_told() -> None:
    plan = rag.plan()
    with refused(WiringError, "plan 'rag': no module is given for step 'length'; did you mean 'length_'?"):
        Graph.from_plan(plan, {"shout": shout, "length_": length, "total": total})
    with refused(WiringError, "plan 'shout' is that of a module, not of a graph"):
        Graph.from_plan(shout.plan(), {})


def test_a_type_that_no_module_speaks_of_is_given() -> None:
    @module
    async def take(value: Any) -> int:
        return 1

    class Doc(BaseModel):
        text: str

    @graph
    async def g(doc: Doc) -> int:
        return await take(doc)

    with refused(WiringError, "plan 'g': 'doc' is a Doc, which no module speaks of; give it in types="):
        Graph.from_plan(g.plan(), {"take": take})
    assert Graph.from_plan(g.plan(), {"take": take}, types={"doc": Doc}).plan() == g.plan()


def test_a_constant_that_has_no_json_is_told() -> None:
    @graph
    async def g(text: str) -> Opaque:
        return await wrap(text, way=Opaque())

    plan = g.plan()
    assert [edge.constant for edge in plan.edges] == [None, None]
    with refused(WiringError, "plan 'g': the constant wrap.way could not be written"):
        Graph.from_plan(plan, {"wrap": wrap})
