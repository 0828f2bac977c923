"""What mypy and pyright must refuse: mistakes of users, each on a line that both say is wrong.

The ignores are the assertions: one that is not needed is an error for both checkers, so each line proves its refusal.
`tests/typing/test_typing.py` checks the file; nothing here is ever run.
"""

from collections.abc import AsyncIterator

from pydantic import BaseModel

from mai import (
    BlockingDelay,
    Conditional,
    Context,
    Graph,
    Loop,
    Map,
    Module,
    Parallel,
    Race,
    Retry,
    Sequential,
    Switch,
    capture,
    graph,
    module,
)  # fmt: skip
from mai.durable import DurableEngine


class Doc(BaseModel):
    text: str


class Search(Module):
    def forward(self, query: str, k: int = 3) -> list[Doc]:
        return [Doc(text=query)] * k


class Summarise(Module[list[Doc], str], timeout=5.0):
    async def forward(self, docs: list[Doc]) -> str:
        return " ".join(doc.text for doc in docs)


class Count(Module):
    async def forward(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


@module
def length(text: str) -> int:
    return len(text)


@module(timeout=1.0)
async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


@module
async def combine(name: str, n: int) -> str:
    return f"{name}/{n}"


def half(n: int) -> float:
    return n / 2


search, summarise = Search(), Summarise()


async def the_arguments_of_a_call() -> None:
    await search(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong type
    await search()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # missing
    await search("x", "y")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong type of the second
    await search("x", depth=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # unknown
    await search("x", 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # too many
    await search("x", k="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong type by name
    await shout(b"x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # a function too
    await shout("x", loud=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await search.with_(k=2)(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a copy too
    await (search >> summarise)(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # a composite too
    await (search >> summarise)("x", "y")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await (length & shout)(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await BlockingDelay(1)()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def a_setting_at_the_call() -> None:
    await search("x", timeout=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await shout("x", name="s")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await (search >> summarise)("x", timeout=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def the_arguments_of_run() -> None:
    search.run(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.run("x", depth=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shout.run()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    search.run("x", timeout=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def what_comes_out() -> None:
    n: int = await search("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    docs: list[str] = await search("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    text: str = await length("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    numbers: str = await Count()(3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    both: tuple[str, str] = await (length & shout)("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    either: str = await Conditional(bool, then=length, otherwise=shout)("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(n, docs, text, numbers, both, either)


def the_settings_of_with() -> None:
    _ = search.with_(timeout="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = search.with_(name=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = search.with_(tags=[1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = search.with_(inline="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = search.with_(isolate=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = search.with_({"timeout": 2})  # type: ignore[arg-type,call-arg]  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
    copy: Summarise = search.with_(timeout=2)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(copy)


class SettingOfTheWrongType(Module, timeout="2"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
    def forward(self, x: str) -> str:
        return x


class NoSuchSetting(Module, tiemout=2):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportGeneralTypeIssues]
    def forward(self, x: str) -> str:
        return x


@module(timeout="2")  # type: ignore[call-overload,untyped-decorator]  # pyright: ignore[reportArgumentType]
def setting_of_the_wrong_type(x: str) -> str:
    return x


@module(tiemout=2)  # type: ignore[call-overload,untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
def no_such_setting(x: str) -> str:
    return x


module(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
module("shout")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


class TakesWhatItsBracketsDoNotSay(Module[str, int]):
    def forward(self, x: bytes) -> int:  # type: ignore[override]  # pyright leaves this to mai, which refuses the class when it is made
        return len(x)


class GivesWhatItsBracketsDoNotSay(Module[str, int]):
    async def forward(self, x: str) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return x


def steps_that_do_not_fit() -> None:
    _ = search >> length  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = summarise >> half  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = length >> str.upper  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = search >> summarise >> Count()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = search >> BlockingDelay(1) >> length  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = BlockingDelay(1) >> 3  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = search >> combine  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = (shout & length) >> length  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = (length & shout) >> combine  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = (shout & length & shout) >> combine  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = search >> 3  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = search >> "length"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    Sequential()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Sequential(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Sequential(search, length)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Sequential(search, summarise, Count())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Sequential(search, summarise, shout, Count())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Sequential(search, BlockingDelay(1), length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Sequential(3, search, summarise, shout, shout, shout)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    print((search >> summarise >> shout)(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]


def branches_that_do_not_fit() -> None:
    _ = length & summarise  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = length & shout & Count()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = length & 3  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    Parallel(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Parallel(length, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Parallel(length, limit="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Parallel(length, shout, limit=2.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Parallel(length, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Parallel(length, shout, on_error=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Parallel(a=length, b=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Parallel(a=length, limit="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Parallel(length, b=shout)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    print(Parallel(length, summarise)("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # mypy infers that no value can be both, and refuses the call


def conditions_that_do_not_fit() -> None:
    Conditional(then=length)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Conditional(length, shout)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Conditional(lambda text: len(text) > 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUnknownArgumentType, reportUnknownLambdaType]
    Conditional(3, then=length)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Conditional(str.isupper, then=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Conditional(half, then=length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Conditional(str.isupper, then=length, otherwise=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    print(Conditional(str.isupper, then=summarise)("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # mypy infers that no value can be both, and refuses the call
    print(Conditional(str.isupper, then=shout)(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]


def choices_loops_maps_and_races_that_do_not_fit() -> None:
    Switch(length)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Switch(length, [shout])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Switch(3, {"a": shout})  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Switch(length, {3: 4})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Switch(half, {3: shout})  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Switch(str.lower, {"a": length}, otherwise=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    print(Switch(str.lower, {"a": length}, otherwise=shout)(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]
    Loop(shout)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Loop(length, max_iters=3)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Loop(shout, max_iters="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Loop(shout, until=3, max_iters=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Loop(shout, until=half, max_iters=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Loop(3, max_iters=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    print(Loop(shout, max_iters=3)(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]
    Map()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Map(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Map(length, concurrency="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Map(length, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Map(length, limit=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    length.map(concurrency=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    length.map(on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    length.map(limit=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    print(length.map()(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]
    print(length.map()([3]))  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]
    _ = length >> length.map()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    Race(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Race(length, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    print(Race(length, summarise)("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    print(Race(length, shout)(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]


def policies_and_doubles_that_do_not_fit() -> None:
    search.with_(retry="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.with_(retry=Retry(on=KeyboardInterrupt))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.with_(fallback=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.with_(middleware=length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.override(lambda query, k=3: 3)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    search.override(lambda query, size: [])  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]


def operators_that_are_not_there() -> None:
    _ = search | summarise  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = summarise | str.upper  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = 3 >> length  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = length << shout  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = length + shout  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]


def variables_of_another_type() -> None:
    a: Module[str, str] = search >> summarise >> length  # type: ignore[operator]  # pyright: ignore[reportAssignmentType]
    b: Module[int, str] = search >> summarise  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: Module[list[Doc], int] = summarise  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: Sequential[str, str] = search  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    e: Module[str, tuple[int, int]] = length & shout  # type: ignore[operator]  # pyright: ignore[reportAssignmentType]
    print(a, b, c, d, e)


def the_rest_of_the_face() -> None:
    BlockingDelay("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BlockingDelay()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    length.settings.timeout = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Context.get().deadline = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Context.scope(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    capture(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with capture(sizes=True) as trace:
        length.run("x")
    print(trace.runs[0].status)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    print(length.tiemout)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]


@graph
async def rag(question: str) -> str:
    return await summarise(await search(question))


async def the_arguments_of_a_graph() -> None:
    await rag(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await rag("x", "y")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    text: int = await rag("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType, reportUnusedVariable]


def the_wiring_by_hand() -> None:
    g = Graph("g")
    q = g.input("q", str)
    n = g.input("n", int)
    g.add(length, n)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    g.add(length, q, q)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    g.add(combine, q)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    g.add(summarise, g.add(length, q))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    g.add(half, q)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Graph("g", on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Graph("g", limit="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rag.draw(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def the_input_of_a_durable_run(engine: DurableEngine) -> None:
    await engine.start(length, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    handle = engine.start(length, "abc")
    text: str = await handle  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType, reportUnusedVariable]
