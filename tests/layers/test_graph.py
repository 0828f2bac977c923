"""Graph: wiring by hand and by tracing, what is refused, how it runs, and what is too large for others."""

import asyncio
import gc
import logging
import pickle
import weakref
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypeAliasType

from mai import (
    BlockingDelay,
    CastError,
    Conditional,
    ConfigError,
    Context,
    DeadlineExceeded,
    Graph,
    Module,
    NonBlockingDelay,
    PartialFailure,
    Ref,
    TracingError,
    WiringError,
    WorkflowPlan,
    capture,
    graph,
    module,
)
from tests.support import loop_of, refused, simulated


class Doc(BaseModel):
    """A document."""

    title: str
    words: list[str] = []

    @property
    def size(self) -> int:
        """How long it is."""
        return len(self.title)

    def shout(self) -> str:
        """Be loud."""
        return self.title.upper()


@dataclass
class Pair:
    """Two values."""

    text: str
    n: int


class Both(NamedTuple):
    """Two values."""

    text: str
    n: int


class Row(TypedDict):
    """A row."""

    text: str
    n: int


class Answer(BaseModel):
    """An answer."""

    text: str
    n: int


@module
async def read(text: str) -> Doc:
    return Doc(title=text, words=text.split())


@module
async def length(text: str) -> int:
    return len(text)


@module
async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


@module
async def combine(text: str, n: int) -> str:
    return f"{text}/{n}"


@module
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@module
async def both(text: str) -> tuple[str, int]:
    return text, len(text)


@module
async def half(n: int) -> float:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n / 2


# ---------------------------------------------------------------- by hand


def test_a_graph_wired_by_hand_is_a_module() -> None:
    g = Graph("rag")
    text = g.input("text", str)
    made = g.output(g.add(combine, g.add(shout, text, mark="?"), g.add(length, text)))
    assert made is g
    assert repr(made) == "<rag(text: str) -> str>"
    assert made.run("hey") == "HEY?/3"
    assert made.run(text="hey") == "HEY?/3"
    assert (made >> length).run("hey") == 6
    assert made.with_(name="other", timeout=3).run("hey") == "HEY?/3"


def test_inputs_may_have_defaults_and_are_cast() -> None:
    g = Graph("g")
    text, n = g.input("text", str), g.input("n", int, 7)
    made = g.output(g.add(combine, text, n))
    assert [made.run("a"), made.run("a", 2), made.run("a", n=3)] == ["a/7", "a/2", "a/3"]
    assert made.run("a", "4") == "a/4"
    assert made.with_(n=5).run("a") == "a/5"
    with pytest.raises(CastError, match="'n' must be int"):
        made.run("a", "x")
    with pytest.raises(ConfigError, match="missing its argument 'text'"):
        made.run()
    one = Graph("one")
    assert one.output(one.add(length, one.input("text", str))).run("abc") == 3
    with pytest.raises(CastError, match="'text' must be str"):
        one.run(object())


def test_an_input_may_be_the_output_and_a_node_may_have_only_constants() -> None:
    g = Graph("g")
    x = g.input("x", int)
    assert g.output((x, g.add(length, "abc"), x)).run(1) == (1, 3, 1)
    echo = Graph("echo")
    assert echo.output(echo.input("x", int)).run(1) == 1


def test_names_are_numbered_and_may_be_given_once() -> None:
    g = Graph("g")
    text = g.input("text", str)
    assert repr(g.add(shout, text)) == "<Ref shout: str>"
    assert repr(g.add(shout, text)) == "<Ref shout~2: str>"
    assert repr(g.add(shout, text, name="loud")) == "<Ref loud: str>"
    assert repr(g.add(str.upper, text)) == "<Ref upper: Any>"
    with refused(WiringError, "g: two steps are named 'loud'; names in one graph must differ"):
        g.add(shout, text, name="loud")
    with refused(WiringError, "g: a step cannot be named '$x': $ marks inputs"):
        g.add(shout, text, name="$x")


def test_a_graph_is_finished_once() -> None:
    g = Graph("g")
    text = g.input("text", str)
    assert repr(g) == "<g, a graph without output>"
    for use in (g.plan, lambda: g.schema, lambda: g.run("x"), lambda: g >> length):
        with refused(WiringError, "g has no output yet: say what it gives with g.output(...)"):
            use()
    with refused(WiringError, "g has no output yet: say what it gives with g.output(...)"):
        asyncio.run(g.forward("x"))
    with refused(WiringError, "g: the output must be or contain a value of the graph, not 'x'"):
        g.output("x")
    out = g.add(shout, text)
    g.output(out)
    for late in (lambda: g.add(shout, text), lambda: g.input("more", str), lambda: g.output(out), lambda: out[0]):
        with refused(WiringError, "g has its output already; wire a new graph"):
            late()


def test_wiring_is_checked_as_it_is_written() -> None:
    g, other = Graph("g"), Graph("other")
    text, n, far = g.input("text", str), g.input("n", int), other.input("x", str)
    cases: list[tuple[str, Any]] = [
        ("g: combine(text: str, n: int) -> str needs 'n'", lambda: g.add(combine, text)),
        ("g: combine has no parameter 'm'; it has 'n', 'text'", lambda: g.add(combine, text, m=n)),
        ("g: length(text: str) -> int takes 1 by position, not 2", lambda: g.add(length, text, n)),
        ("g: combine gets 'text' by position and by name", lambda: g.add(combine, text, n, text=text)),
        ("g: length: 'text' must be str, not int 3 (Input should be a valid string)", lambda: g.add(length, 3)),
        ("g: <Ref x: str> belongs to another graph, other", lambda: g.add(length, far)),
        ("g: 3 is neither a Module nor a function", lambda: g.add(3, text)),
        ("g: upper(self: str, /) takes 'self' by position only", lambda: g.add(str.upper, self=text)),
        ("g: an input cannot be named 'n': give another name, an identifier", lambda: g.input("n", int)),
        ("g: an input cannot be named 'a b': give another name, an identifier", lambda: g.input("a b", int)),
        (
            "\n".join(
                [
                    "cannot connect n -> total",
                    "  n returns int",
                    "  total(numbers) expects list[int]",
                    "  hint: put a step between them that turns int into list[int]",
                ]
            ),
            lambda: g.add(total, n),
        ),
    ]
    for message, use in cases:
        with refused(WiringError, message):
            use()
    g.input("last", int, 3)
    with refused(WiringError, "g: input 'more' has no default; inputs with one come last"):
        g.input("more", str)
    empty = Graph("empty")
    with refused(WiringError, "empty has no input; a step needs at least one"):
        empty.output(empty.add(length, "abc"))


def test_the_second_node_of_a_module_is_checked_as_the_first() -> None:
    g, other = Graph("g"), Graph("other")
    text, n = g.input("text", str), g.input("n", int)
    for _ in range(2):
        assert g.add(combine, text, n)._type is str
    for args in ((n, text), (text, g.add(read, text)), (text, other.input("n", int)), (text, "x"), (text, n, n), ()):
        with pytest.raises(WiringError):
            g.add(combine, *args)
    with pytest.warns(RuntimeWarning, match="combine, combine~2, read"):
        plan = g.output([g.add(combine, text, "3"), g.add(combine, g.add(str.upper, text), n)]).plan()
    assert [node.id for node in plan.nodes if node.kind == "cast"] == ["cast[combine~4.text]"]


@pytest.mark.parametrize("rules", [{"limit": 0}, {"limit": "x"}, {"on_error": "ignore"}])
def test_rules_are_checked_at_once(rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Graph: "):
        Graph("g", **rules)
    with pytest.raises(ConfigError, match="Graph: "):
        graph(**rules)
    g = Graph("g")
    made = g.output(g.add(length, g.input("text", str)))
    with pytest.raises(ConfigError, match="g: "):
        made.with_(**rules)
    assert made.with_(limit=2, on_error="collect").limit == 2
    with pytest.raises(ConfigError, match="did you mean 'limit'"):
        made.with_(limti=2)
    with pytest.raises(ConfigError, match="has no setting 'limti'"):
        graph(limti=2)


def test_what_nobody_uses_is_told() -> None:
    g = Graph("g")
    text, _ = g.input("text", str), g.input("n", int)
    g.add(shout, text)
    with pytest.warns(RuntimeWarning, match="^g: nobody uses the value of input n, shout$") as caught:
        g.output(g.add(length, text))
    assert caught[0].filename == __file__


def test_a_step_that_gives_none_may_end_nowhere() -> None:
    seen = []

    @module
    async def note(text: str) -> None:
        seen.append(text)

    @graph
    async def g(text: str) -> int:
        await note(text)
        return await length(text)

    assert (g.run("abc"), seen) == (3, ["abc"])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (lambda a, b: (a, b), ("X!", 1)),
        (lambda a, b: [a, b], ["X!", 1]),
        (lambda a, b: {"a": a, "b": b, "c": 3}, {"a": "X!", "b": 1, "c": 3}),
        (lambda a, b: Pair(a, b), Pair("X!", 1)),
        (lambda a, b: Both(a, b), Both("X!", 1)),
        (lambda a, b: Answer.model_construct(text=a, n=b), Answer(text="X!", n=1)),
        (lambda a, b: (a, [b, {"c": (b, a)}]), ("X!", [1, {"c": (1, "X!")}])),
    ],
)
def test_several_values_are_given_as_they_are_wired(value: Any, wanted: Any) -> None:
    g = Graph("g")
    text = g.input("text", str)
    made = g.output(value(g.add(shout, text), g.add(length, text)))
    assert made.run("x") == wanted

    @graph
    async def traced(text: str) -> Any:
        return value(await shout(text), await length(text))

    assert traced.run("x") == wanted


def test_an_argument_may_hold_values() -> None:
    @graph
    async def g(text: str) -> int:
        return await total([await length(text), 10, await length("abc")])

    assert g.run("x") == 14
    with refused(
        WiringError,
        "cannot connect list -> total\n  list returns list[Doc]\n  total(numbers) expects list[int]\n"
        "  hint: put a step between them that turns list[Doc] into list[int]",
    ):

        @graph
        async def wrong(text: str) -> int:
            return await total([await read(text)])


# ---------------------------------------------------------------- parts


def test_attributes_and_items_are_nodes_of_their_own() -> None:
    @graph
    async def g(text: str) -> tuple[str, int, str, str]:
        doc = await read(text)
        word, n = await both(doc.title)
        return doc.words[0], n, word, doc.title

    assert g.run("to be") == ("to", 5, "to be", "to be")
    assert [node.id for node in g.plan().nodes if node.kind == "part"] == [".title", ".0", ".1", ".words", ".0~2"]


def test_the_types_of_parts_are_known() -> None:
    @module
    async def everything(text: str) -> dict[str, list[tuple[int, ...]]]:
        return {text: [(1, 2)]}

    @module
    async def row(text: str) -> Row:
        return {"text": text, "n": 1}

    @module
    async def odd(text: str) -> type[Doc]:
        return Doc

    class Bag:
        """Has items, and attributes that nobody declared."""

        weight = 3

        def __getitem__(self, key: str) -> float:
            return 1.5

    @module
    async def fill(text: str) -> Bag:
        return Bag()

    g = Graph("g")
    text = g.input("text", str)
    bag = g.add(fill, text)
    doc, found, line = g.add(read, text), g.add(everything, text), g.add(row, text)
    parts: list[tuple[Ref[Any], str]] = [
        (doc.title, "str"), (doc.words, "list[str]"), (doc.words[0][0], "str"), (doc.size, "int"), (line["n"], "int"),
        (found["a"], "list[tuple[int, ...]]"), (found["a"][1], "tuple[int, ...]"), (found["a"][1][2], "int"),
        (text[0], "str"), (bag["x"], "float"), (bag.weight, "Any"),
    ]  # fmt: skip
    for part, kind in parts:
        assert repr(part).endswith(f": {kind}>")
    assert doc.title is doc.title
    for use, message in (
        (lambda: doc.name, "Doc has no attribute 'name'; it has title, words"),
        (lambda: doc.words["a"], "list[str] has no item 'a'"),
        (lambda: doc.words[1:], "list[str] has no item slice(1, None, None)"),
        (lambda: doc[0], "Doc has no item 0"),
        (lambda: line["m"], "Row has no item 'm'; it has text, n"),
        (lambda: g.add(both, text)[2], "tuple[str, int] has no item 2: it has 2"),
    ):
        with refused(WiringError, message):
            use()
    for use, message in (
        (lambda: doc.shout(), "Doc.shout is a method: call it as a step, such as module(Doc.shout)"),
        (lambda: doc.words.append, "list.append is a method: call it as a step, such as module(list.append)"),
    ):
        with refused(TracingError, message):
            use()


def test_a_part_of_what_is_not_known_is_refused() -> None:
    @module
    async def unknown(text: str) -> Any:
        return text

    @module
    async def perhaps(text: str) -> Doc | None:
        return None

    g = Graph("g")
    text = g.input("text", str)
    with refused(TracingError, ".title of a value of unknown type: annotate what the step before it returns"):
        g.add(unknown, text).title  # noqa: B018
    what = ".title of a Doc | None may fail: look it up in a step that says what else to do"
    with refused(TracingError, what):
        g.add(perhaps, text).title  # noqa: B018
    with pytest.raises(AttributeError):
        text._private  # noqa: B018


# ---------------------------------------------------------------- tracing


def test_a_traced_function_keeps_its_signature_and_its_name() -> None:
    @graph
    async def rag(question: str, /, k: int = 2, *, mark: str = "?") -> str:
        """Answer."""
        return await combine(await shout(question, mark), k)

    assert repr(rag) == "<rag(question: str, /, k: int = 2, *, mark: str = '?') -> str>"
    assert rag.__doc__ == "Answer."
    assert [rag.run("a"), rag.run("a", 3, mark="."), rag.with_(mark="-").run("a")] == ["A?/2", "A./3", "A-/2"]
    assert rag.plan().nodes[0].module.endswith(".shout")


def test_awaits_do_not_serialise_and_helpers_may_be_called() -> None:
    async def helper(text: Any) -> Any:
        return await shout(await shout(text))

    @graph
    async def g(text: str) -> tuple[str, list[str]]:
        later = length(text)
        loud = await helper(text)
        return await combine(loud, await later), [await shout(text) for _ in range(2)]

    assert g.run("a") == ("A!!/1", ["A!", "A!"])
    assert g.plan().stages()[0] == ["shout", "length", "shout~3", "shout~4"]


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        (lambda x: 1 if x else 2, "use Conditional or Switch instead of if, and, or, not"),
        (lambda x: not x, "use Conditional or Switch instead of if, and, or, not"),
        (lambda x: [1 for _ in x], "use Map instead of for, and Loop instead of while"),
        (len, "use Map instead of for, and Loop instead of while"),
        (lambda x: 3 in x, "use Map instead of for, and Loop instead of while"),
        (lambda x: x + 1, "compute in a step, such as module(operator.add), and call that"),
        (lambda x: 1 - x, "compute in a step, such as module(operator.add), and call that"),
        (lambda x: -x, "compute in a step, such as module(operator.add), and call that"),
        (int, "compute in a step, such as module(operator.add), and call that"),
        (lambda x: f"{x}", "make text in a step (repr() shows the Ref itself)"),
        (str, "make text in a step (repr() shows the Ref itself)"),
        (lambda x: x == 3, "compare in a step, or decide with Conditional or Switch"),
        (lambda x: x > 3, "compare in a step, or decide with Conditional or Switch"),
        (lambda x: x(3), "call a function of it as a step, such as module(str.upper)"),
    ],
)
def test_what_needs_a_value_names_what_to_use(use: Any, hint: str) -> None:
    with refused(TracingError, f"<Ref x: int> has no value while the graph is traced: {hint}"):

        @graph
        async def g(x: int) -> Any:
            return use(x)


def test_a_second_await_is_refused() -> None:
    text = "<Ref shout: str> has no value while the graph is traced: it is the value already and needs no further await"
    with refused(TracingError, text):

        @graph
        async def g(x: str) -> str:
            value: Any = await shout(x)
            return await value  # type: ignore[no-any-return]


def test_a_ref_may_be_a_key_and_has_no_odd_attributes() -> None:
    g = Graph("g")
    x = g.input("x", int)
    assert {x: 1}[x] == 1
    assert not hasattr(x, "__wrapped__")


async def pausing(x: str) -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


@pytest.mark.parametrize("wait", [lambda x: asyncio.sleep(0), lambda x: asyncio.sleep(1), pausing])
def test_only_modules_can_be_awaited(wait: Any) -> None:
    with refused(
        TracingError,
        "g: only modules can be awaited while a graph is traced; steps that do not need each other's values run "
        "concurrently anyway",
    ):

        @graph
        async def g(x: str) -> str:
            await wait(x)
            return await shout(x)


def test_an_error_of_the_function_itself_is_raised_as_it_is() -> None:
    error = RuntimeError("of my own")
    with pytest.raises(RuntimeError) as caught:

        @graph
        async def g(x: str) -> str:
            raise error

    assert caught.value is error


def test_a_scope_inside_the_function_is_refused() -> None:
    with refused(TracingError, "g: a scope around a step is over when the graph runs; use with_()"):

        @graph
        async def g(x: str) -> str:
            with Context.scope(timeout=3):
                return await shout(x)


def test_a_model_that_checks_values_is_to_be_made_by_a_step() -> None:
    hint = "make it by a step, await module(Answer)(...)"
    with refused(TracingError, f"g: Answer(...) checks values that are not there yet: {hint}"):

        @graph
        async def g(x: str) -> Answer:
            return Answer(text=await shout(x), n=3)

    with pytest.raises(ValueError, match="valid integer"):

        @graph
        async def other(x: str) -> Answer:
            return Answer(text="x", n="x")  # type: ignore[arg-type]

    @graph
    async def right(x: str) -> Answer:
        return await module(Answer)(text=await shout(x), n=3)

    assert right.run("a") == Answer(text="A!", n=3)


def test_an_error_of_the_function_is_its_own() -> None:
    with pytest.raises(KeyError):

        @graph
        async def g(x: str) -> Any:
            await shout(x)
            return {}["a"]


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no async function"):
        graph(len)  # type: ignore[arg-type]
    with refused(WiringError, "g: a graph has a fixed number of inputs; write them out instead of *more"):

        @graph
        async def g(*more: str) -> str:
            return await shout(more[0])

    with pytest.raises(WiringError, match=r"^cannot connect shout -> h\n"):

        @graph
        async def h(x: str) -> list[int]:
            return await shout(x)  # type: ignore[return-value]


def test_a_validator_of_a_parameter_sees_every_value() -> None:
    @module
    async def step(n: Annotated[int, AfterValidator(lambda n: n + 1)]) -> int:
        return n

    @graph
    async def g(n: int) -> int:
        return await step(await combined(n, 1))

    assert g.run(1) == 3


def test_the_declared_value_is_cast() -> None:
    @graph
    async def g(x: str) -> float:
        return await length(x)

    assert repr(g.run("abc")) == "3.0"
    assert g.plan().output == "cast[return]"
    again = Graph.from_plan(g.plan(), {"length": length})
    assert (again.plan(), repr(again.run("abc"))) == (g.plan(), "3.0")


@pytest.mark.parametrize(
    "natural",
    [Annotated[int, Field(ge=0)], TypeAliasType("Natural", Annotated[int, Field(ge=0)])],
    ids=["type", "alias"],
)
def test_a_type_that_asks_for_more_than_another_one_is_looked_at_as_in_a_sequence(natural: Any) -> None:
    @module
    async def negative(n: int) -> int:
        return -n

    @module
    async def root(n: natural) -> float:
        return float(n**0.5)

    @graph
    async def g(n: int) -> float:
        return await root(await negative(n))

    assert g.run(-4) == (negative >> root).run(-4) == 2.0
    for m in (g, negative >> root):
        with pytest.raises(CastError, match="greater than or equal to 0"):
            m.run(4)


def test_calls_in_a_run_are_no_nodes() -> None:
    """Tracing ends with the function: a module called by a step of the graph runs."""

    class Outer(Module):
        async def forward(self, text: str) -> str:
            return await shout(text)

    @graph
    async def g(text: str) -> str:
        return await Outer()(text)

    assert g.run("a") == "A!"


# ---------------------------------------------------------------- running


@simulated
async def test_a_node_begins_at_the_moment_its_inputs_exist() -> None:
    began: dict[str, float] = {}

    def step(name: str, seconds: float) -> Any:
        @module(name=name)
        async def wait(*values: float) -> float:
            began[name] = loop_of().now
            await asyncio.sleep(seconds)
            return loop_of().now

        return wait

    start = loop_of().now
    g = Graph("g")
    x = g.input("x", float)
    a, b = g.add(step("a", 1.0), x), g.add(step("b", 3.0), x)
    c = g.add(step("c", 1.0), a)
    d = g.add(step("d", 1.0), b, c)
    await g.output((d, c))(0.0)
    assert {name: at - start for name, at in began.items()} == {"a": 0.0, "b": 0.0, "c": 1.0, "d": 3.0}


@simulated
async def test_a_limit_bounds_what_runs_and_a_non_blocking_delay_gives_its_place_back() -> None:
    live, most = 0, 0

    @module
    async def work(x: int) -> int:
        nonlocal live, most
        live += 1
        most = max(most, live)
        await asyncio.sleep(1.0)
        live -= 1
        return x

    def made(delay: Module[Any, Any], limit: int) -> Graph[..., Any]:
        g = Graph("g", limit=limit)
        x = g.input("x", int)
        return g.output([g.add(work, g.add(delay, x)) for _ in range(4)])

    for delay, limit, took in (
        (NonBlockingDelay(10.0), 4, 11.0), (NonBlockingDelay(10.0), 2, 12.0), (BlockingDelay(10.0), 2, 22.0),
    ):  # fmt: skip
        start, most = loop_of().now, 0
        assert await made(delay, limit)(1) == [1] * 4
        assert (loop_of().now - start, most) == (took, limit)


@simulated
async def test_a_value_is_dropped_as_soon_as_the_last_consumer_has_it() -> None:
    class Big:
        pass

    alive: list[weakref.ref[Big]] = []

    @module
    async def make(x: int) -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        return big

    @module
    async def use(big: Big) -> int:
        return 1

    @module
    async def look(n: int) -> int:
        await asyncio.sleep(0)
        gc.collect()
        return sum(ref() is not None for ref in alive)

    @graph
    async def g(x: int) -> list[int]:
        big = await make(x)
        one, two = await use(big), await use(big)
        return [await look(one), await look(await combined(one, two))]

    assert (await g(1))[1] == 0


@module
async def combined(a: int, b: int) -> int:
    return a + b


@simulated
async def test_a_deadline_reaches_the_nodes_and_nothing_begins_after_it() -> None:
    began = []

    @module
    async def slow(x: int) -> int:
        began.append(x)
        await asyncio.sleep(2.0)
        return x + 1

    @graph
    async def g(x: int) -> int:
        return await slow(await slow(await slow(x)))

    with pytest.raises(DeadlineExceeded):
        await g.with_(timeout=3.0)(1)
    assert began == [1, 2]
    with Context.scope(timeout=60):
        assert await g(1) == 4
    quick = slow.with_(timeout=1.0)
    h = Graph("h")
    with pytest.raises(DeadlineExceeded, match="h/slow"):
        await h.output(h.add(quick, h.input("x", int)))(1)


@simulated
async def test_a_late_deadline_starts_no_node() -> None:
    began = []

    @module
    async def step(x: int) -> int:
        began.append(x)
        loop_of().now += 2.0
        return x + 1

    @graph
    async def g(x: int) -> int:
        return await step(await step(x))

    with pytest.raises(DeadlineExceeded):
        await g.with_(timeout=1.0)(1)
    assert began == [1]


@simulated
async def test_an_error_has_one_note_and_leads_from_the_top_to_the_step() -> None:
    @graph
    async def inner(n: int) -> float:
        return await half(n)

    @graph
    async def outer(n: int) -> float:
        return await inner(n)

    with pytest.raises(ValueError, match="3 is odd") as caught:
        await outer(3)
    assert caught.value.__notes__ == ["mai: in outer/inner/half"]
    top = caught.value.__mai_trace__  # type: ignore[attr-defined]
    assert [handle.step_id for handle in top.walk()] == ["outer", "outer/inner", "outer/inner/half"]


@simulated
async def test_collecting_gives_errors_results_and_what_was_skipped() -> None:
    @graph(on_error="collect")
    async def g(a: int, b: int) -> dict[str, Any]:
        return {"a": await half(a), "b": await half(b), "c": await half(await length("abcd"))}

    assert await g(2, 4) == {"a": 1.0, "b": 2.0, "c": 2.0}
    with pytest.raises(PartialFailure) as caught:
        await g(1, 4)
    failure = caught.value
    assert str(failure) == "1 steps of g failed, 1 could not begin (1 sub-exception)"
    assert list(failure.errors) == ["half"]
    assert failure.exceptions == (failure.errors["half"],)
    assert failure.results == {"half~2": 2.0, "half~3": 2.0}
    assert failure.skipped == ("dict",)
    again = pickle.loads(pickle.dumps(failure))
    assert (again.results, again.skipped, list(again.errors)) == (failure.results, failure.skipped, ["half"])
    part = failure.subgroup(ValueError)
    assert isinstance(part, PartialFailure)
    assert part.results == failure.results


@simulated
async def test_steps_that_could_not_begin_are_in_the_trace_as_skipped() -> None:
    @graph(on_error="collect")
    async def g(a: int, b: int) -> tuple[float, float]:
        return await half(await module(int)(await half(a))), await half(b)

    with capture() as trace, pytest.raises(PartialFailure) as caught:
        await g(1, 4)
    root = trace.runs[0]
    skipped = root.find(outcome="skipped")
    assert [h.step_id.removeprefix("g/") for h in skipped] == list(caught.value.skipped)
    assert [(h.ok, h.start_ns, h.end_ns, h.duration, h.queue_time) for h in skipped] == [(False, *[None] * 4)] * len(
        skipped
    )
    assert [h.name for h in root.find(outcome="error")] == ["g", "half"]


@simulated
async def test_collecting_tells_the_output_that_there_is() -> None:
    @module
    async def bad(values: list[int]) -> None:
        raise OSError

    @graph(on_error="collect")
    async def g(x: int) -> int:
        await bad([x])
        return await combined(x, x)

    with pytest.raises(PartialFailure) as caught:
        await g(1)
    assert (caught.value.results, list(caught.value.errors)) == ({"combined": 2}, ["bad"])

    @graph(on_error="collect")
    async def h(x: str) -> Answer:
        return await module(Answer)(text=x, n=await module(int)(x))

    @graph(on_error="collect")
    async def record(x: str) -> Pair:
        return Pair(x, await length(x))

    last = record._wiring.module_of(record._wiring.output or 0)
    with last.override(lambda text, n: 1 // 0), pytest.raises(PartialFailure) as caught:
        await record("a")
    assert (caught.value.results, list(caught.value.errors)) == ({}, ["Pair"])


@simulated
async def test_a_step_that_exits_is_no_failure_to_collect() -> None:
    @module
    async def leave(x: int) -> int:
        raise SystemExit(x)

    @graph(on_error="collect")
    async def g(x: int) -> int:
        return await leave(x)

    with pytest.raises(SystemExit):
        await g(3)


@simulated
async def test_settings_of_a_node_hold() -> None:
    tries = []

    @module(retry=3)
    async def flaky(x: int) -> int:
        tries.append(x)
        if len(tries) < 3:
            raise OSError
        return x

    def plain(x: int) -> int:
        return x + 1

    @graph
    async def g(x: int) -> int:
        return await module(plain).with_(inline=True)(await flaky(x))

    assert (await g(1), tries) == (2, [1, 1, 1])
    with flaky.override(lambda x: 10):
        assert await g(1) == 11


@simulated
async def test_composites_are_nodes_and_decide_in_the_trace() -> None:
    loud = Conditional(lambda text: len(text) > 2, then=shout)

    @graph
    async def g(text: str) -> tuple[str, int]:
        return await (loud >> BlockingDelay(1.0))(text), await (shout >> length)(text)

    with capture() as trace:
        assert await g("abc") == ("ABC!", 4)
    ids = sorted(handle.step_id for handle in trace.runs[0].walk())
    assert ids == [
        "g", "g/Sequential", "g/Sequential/BlockingDelay", "g/Sequential/Conditional", "g/Sequential/Conditional/shout",
        "g/Sequential~2", "g/Sequential~2/length", "g/Sequential~2/shout", "g/tuple",
    ]  # fmt: skip


# ---------------------------------------------------------------- large ones


@module
async def grown(n: int) -> int:
    return n + 1


@simulated
async def test_a_chain_of_very_many_nodes_is_ordinary() -> None:
    g = Graph("g")
    ref: Ref[Any] = g.input("x", int)
    for _ in range(20_000):
        ref = g.add(combined, ref, 1)
    made = g.output(ref)
    assert await made(0) == 20_000
    plan = made.plan()
    assert len(plan.critical_path()) == 20_000
    plan.validate()


@simulated
async def test_a_chain_runs_in_batches_and_each_node_once() -> None:
    seen: list[int] = []

    @module
    async def step(n: int) -> int:
        seen.append(n)
        return n + 1

    g = Graph("g")
    ref: Ref[Any] = g.input("n", int)
    for _ in range(50):
        ref = g.add(step, ref)
    made = g.output(ref)
    assert made.plan().chains() == [["step", *(f"step~{k}" for k in range(2, 51))]]
    assert (await made(0), seen) == (50, [*range(50)])
    wide = Graph("wide")
    n = wide.input("n", int)
    assert await wide.output([wide.add(step, n) for _ in range(50)])(7) == [8] * 50


@simulated
async def test_what_runs_alone_stays_in_the_callers_task_and_what_runs_together_does_not() -> None:
    tasks: list[Any] = []

    @module
    async def step(n: int) -> int:
        await asyncio.sleep(1)
        tasks.append(asyncio.current_task())
        return n + 1

    @graph
    async def g(n: int) -> list[int]:
        first = await step(await step(n))
        return [await step(first), await step(first)]

    assert await g(0) == [3, 3]
    own = asyncio.current_task()
    assert [task is own for task in tasks] == [True, True, False, False]
    tasks.clear()
    assert await g.with_(limit=1)(0) == [3, 3]
    assert own not in tasks


@simulated
async def test_what_a_node_that_never_waits_makes_ready_runs_at_the_same_time() -> None:
    @module
    async def naps(n: int) -> int:
        await asyncio.sleep(n)
        return n

    @graph
    async def g(n: int) -> list[int]:
        first = await grown(n)
        return [await naps(first), await naps(first)]

    began = loop_of().time()
    assert await g(9) == [10, 10]
    assert loop_of().time() - began == 10


@simulated
async def test_the_handle_of_a_node_tells_the_size_of_a_single_argument() -> None:
    @graph
    async def g(a: int, b: int) -> int:
        return await combined(await grown(a), await grown(b))

    with capture() as trace:
        await g(10, 200)
    sizes = [(one.name, one.input_size, one.output_size) for one in trace.runs[0].children]
    assert sizes == [("grown", 2, 2), ("grown", 3, 3), ("combined", None, 3)]


@simulated
async def test_a_long_chain_that_never_waits_lets_the_loop_run_now_and_then() -> None:
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    @module
    async def busy(n: int) -> int:
        loop_of().now += 0.0001  # a tenth of a millisecond of work
        return n

    g = Graph("g")
    ref: Ref[Any] = g.input("n", int)
    for _ in range(2_000):
        ref = g.add(busy, ref)
    made, other = g.output(ref), asyncio.create_task(others())
    await made(1)
    other.cancel()
    assert len(turns) > 3


@simulated
@pytest.mark.parametrize("collect", [False, True])
async def test_a_failure_of_a_node_that_runs_alone_ends_what_needs_it(collect: bool) -> None:
    @module
    async def fails(n: int) -> int:
        await asyncio.sleep(n)
        raise KeyError(n)

    @graph(on_error="collect" if collect else "cancel")
    async def g(n: int) -> tuple[float, float]:
        first = await fails(n)
        return await half(first), await half(n)

    @graph(on_error="collect" if collect else "cancel")
    async def line(n: int) -> float:
        return await half(await fails(n))

    for seconds in (0, 2):
        with pytest.raises(PartialFailure if collect else KeyError):
            await line(seconds)
        with pytest.raises(PartialFailure if collect else (KeyError, ExceptionGroup)):
            await g(seconds)


@simulated
async def test_a_cancel_reaches_a_node_that_runs_alone() -> None:
    @module
    async def naps(n: int) -> int:
        await asyncio.sleep(n)
        return n

    @graph
    async def line(n: int) -> int:
        return await naps(await naps(n))

    call = asyncio.create_task(line(10))
    await asyncio.sleep(15)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(DeadlineExceeded, match=r"^Step 'line' ran past its deadline"):
        await line.with_(timeout=15)(10)


@simulated
async def test_several_failures_at_once_are_all_told() -> None:
    @module
    async def late(n: int) -> int:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError(n)

    @graph
    async def g(n: int) -> list[float]:
        return [await late(n), await late(n), await half(n)]

    with pytest.raises(ExceptionGroup, match=r"^3 steps of g failed") as caught:
        await g(1)
    assert [type(error) for error in caught.value.exceptions] == [OSError, OSError, ValueError]


def nest(depth: int) -> Graph[..., Any]:
    made: Any = length
    for _ in range(depth):
        g = Graph("g")
        made = g.output(g.add(made, g.input("text", str)))
    return made  # type: ignore[no-any-return]


@simulated
async def test_deep_nests_of_graphs_are_ordinary() -> None:
    deep = nest(300)
    assert await deep("abc") == 3
    assert len(deep.plan().nodes) == 300


@pytest.mark.slow
def test_a_chain_of_a_hundred_thousand_nodes_is_wired_run_drawn_and_written() -> None:
    g = Graph("g")
    ref: Ref[Any] = g.input("n", int)
    for _ in range(100_000):
        ref = g.add(grown, ref)
    made = g.output(ref)
    with capture() as trace:
        assert made.run(0) == 100_000
    run = trace.runs[0]
    assert (len(run.children), run.dropped) == (1000, 99_000)
    assert len(str(run).splitlines()) > 1000
    plan = made.plan()
    plan.validate()
    assert [len(chain) for chain in plan.chains()] == [100_000]
    assert len(plan.critical_path()) == 100_000
    assert len(str(plan).splitlines()) == 100_002
    for form in ("mermaid", "dot"):
        assert made.draw(form, trace=run).count("grown~100000") == 1
    again = WorkflowPlan.model_validate_json("".join(made.plan_json()))
    assert again == plan
    assert Graph.from_plan(again, {"grown": grown}).run(1) == 100_001


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a debug loop tells of what takes long
def test_ten_thousand_graphs_in_each_other_are_wired_run_drawn_and_written() -> None:
    deep = nest(10_000)
    logging.disable(logging.WARNING)
    try:
        with capture() as trace:
            assert deep.run("abc") == 3
    finally:
        logging.disable(logging.NOTSET)
    run = trace.runs[0]
    assert sum(1 for _ in run.walk()) == 10_001
    assert len(str(run).splitlines()) == 10_001
    plan = deep.plan()
    assert len(plan.nodes) == 10_000
    plan.validate()
    assert deep.draw("mermaid").count("subgraph") == 9_999
    assert len(str(plan).splitlines()) == 10_002
    assert sum(map(len, deep.plan_json())) > 10_000**2
