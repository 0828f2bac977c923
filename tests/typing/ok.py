"""What mypy and pyright must infer, exactly, from ``forward`` and functions alone.

Both checkers read this file; `tests/typing/test_typing.py` also runs every function here whose name begins with
``infers``, with an ``assert_type`` that looks at the value, so that what is inferred is true at run time as well. (The
ones that wire a graph have no values, only Refs.)
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, assert_type

from pydantic import BaseModel

from mai import (
    BlockingDelay,
    Call,
    Conditional,
    Context,
    Graph,
    Loop,
    Map,
    Module,
    NonBlockingDelay,
    Parallel,
    Payload,
    Race,
    Ref,
    Retry,
    Sequential,
    Switch,
    TraceHandle,
    WorkflowPlan,
    answers,
    ask,
    capture,
    graph,
    module,
)
from mai.durable import DurableEngine, MemoryJournal
from mai.types import Event


class Doc(BaseModel):
    text: str


class Search(Module):
    def forward(self, query: str, k: int = 3) -> list[Doc]:
        return [Doc(text=f"{query}-{i}") for i in range(k)]


class Summarise(Module[list[Doc], str], timeout=5.0, tags=("slow",)):
    async def forward(self, docs: list[Doc]) -> str:
        return " ".join(doc.text for doc in docs)


class Write(Module):
    async def forward(self, topic: str) -> AsyncIterator[str]:
        for word in topic.split():
            yield word


class Encode(Module):
    async def forward(self, text: str) -> AsyncGenerator[bytes, None]:
        yield text.encode()


class Count(Module):
    async def forward(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


class Spell(Module):
    def forward(self, word: str) -> Iterator[str]:
        yield from word


class Chop(Module):
    def forward(self, data: str) -> Generator[bytes, None, None]:
        yield data.encode()


class Lengths(Module):
    def forward(self, text: str) -> Iterator[int]:
        for word in text.split():
            yield len(word)


class Nothing(Module):
    async def forward(self, text: str) -> None: ...


class Perhaps(Module):
    def forward(self, text: str, *, least: int = 1) -> int | None:
        return len(text) if len(text) > least else None


class Either(Module):
    def forward(self, text: str) -> str | bytes:
        return text or text.encode()


class Opaque(Module):
    def forward(self, text: str) -> Any:
        return [text]


class Total(Module):
    async def forward(self, first: int, *more: int, **named: int) -> int:
        return first + sum(more) + sum(named.values())


class Prefix(Module):
    mark: str = "> "

    async def forward(self, text: str) -> str:
        return self.mark + text


@module
def length(text: str) -> int:
    return len(text)


@module(timeout=1.0)
async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


@module
async def combine(name: str, n: int) -> str:
    return f"{name}/{n}"


@module
async def words(text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word


@module
def sizes(text: str) -> Iterator[int]:
    for word in text.split():
        yield len(word)


@module(inline=True)
def longer(text: str) -> bool:
    return len(text) > 3


async def double(n: int) -> int:
    return 2 * n


def join(name: str, n: int) -> str:
    return f"{name}+{n}"


search, summarise, write = Search(), Summarise(), Write()


async def infers_the_value_of_a_call_from_forward() -> None:
    assert_type(await search("x"), list[Doc])
    assert_type(await search("x", 2), list[Doc])
    assert_type(await search(query="x", k=2), list[Doc])
    assert_type(await summarise([Doc(text="a")]), str)
    assert_type(await Nothing()("a"), None)
    assert_type(await Perhaps()("a", least=2), int | None)
    assert_type(await Either()("a"), str | bytes)
    assert_type(await Opaque()("a"), Any)
    assert_type(await Total()(1, 2, 3, four=4), int)


async def infers_the_value_of_a_stream() -> None:
    assert_type(await write("a b"), str)
    assert_type(await Encode()("a"), bytes)
    assert_type(await Count()(3), list[int])
    assert_type(await Spell()("abc"), str)
    assert_type(await Chop()("abc"), bytes)
    assert_type(await Lengths()("a bc"), list[int])


async def infers_the_value_of_a_function() -> None:
    assert_type(await length("abc"), int)
    assert_type(await length(text="abc"), int)
    assert_type(await shout("abc"), str)
    assert_type(await shout("abc", mark="?"), str)
    assert_type(await words("a b"), str)
    assert_type(await sizes("a bc"), list[int])
    assert_type(await longer("abc"), bool)
    assert_type(await module(str.upper)("abc"), str)
    assert_type(await module(double)(2), int)


async def infers_that_a_copy_is_of_the_same_class() -> None:
    assert_type(search.with_(k=1, timeout=2, total_timeout=None, name="s", tags=("a",), isolate=True), Search)
    assert_type(await search.with_(k=1, inline=True)("x"), list[Doc])
    assert_type(await Prefix().with_(mark="# ")("x"), str)
    assert_type(await shout.with_(mark="?")("x"), str)
    assert_type((search >> summarise).with_(timeout=2), Sequential[str, str])
    assert_type((length & shout).with_(timeout=2), Parallel[str, tuple[int, str]])


async def infers_sequences() -> None:
    p = search >> summarise >> length
    assert_type(p, Sequential[str, int])
    assert_type(await p("hello"), int)
    assert_type(search >> summarise >> str.upper, Sequential[str, str])
    assert_type(search >> summarise >> str.upper >> len, Sequential[str, int])
    assert_type(length >> double >> str, Sequential[str, str])
    assert_type(write >> words >> sizes, Sequential[str, list[int]])
    assert_type(await p.with_(timeout=2)("hello"), int)
    assert_type(Sequential(length), Sequential[str, int])
    assert_type(Sequential(search, summarise), Sequential[str, str])
    assert_type(Sequential(search, summarise, length), Sequential[str, int])
    assert_type(Sequential(search, summarise, length, double), Sequential[str, int])
    assert_type(Sequential(search, summarise, write, words, sizes), Sequential[str, list[int]])


async def infers_the_input_of_a_long_sequence_and_leaves_its_value_open() -> None:
    p = Sequential(search, summarise, shout, shout, shout, length)
    assert_type(await p("hello"), Any)


async def infers_branches() -> None:
    assert_type(length & shout, Parallel[str, tuple[int, str]])
    assert_type(length & shout & write & longer & sizes, Parallel[str, tuple[int, str, str, bool, list[int]]])
    assert_type(await (length & shout & write)("abc"), tuple[int, str, str])
    assert_type(length & (search >> summarise), Parallel[str, tuple[int, str]])
    assert_type(write & sizes & Encode(), Parallel[str, tuple[str, list[int], bytes]])
    assert_type(Parallel(write, sizes, Encode()), Parallel[str, tuple[str, list[int], bytes]])
    assert_type(Parallel(Perhaps(), Either()), Parallel[str, tuple[int | None, str | bytes]])
    assert_type(Parallel(double, Count()), Parallel[int, tuple[int, list[int]]])
    assert_type(Parallel(length), Parallel[str, tuple[int, ...]])
    assert_type(Parallel(length, shout), Parallel[str, tuple[int, str]])
    assert_type(Parallel(length, shout, limit=1), Parallel[str, tuple[int, str]])
    assert_type(Parallel(length, shout, write, on_error="cancel"), Parallel[str, tuple[int, str, str]])
    assert_type(Parallel(length, length, length, length, length, length), Parallel[str, tuple[int, ...]])
    assert_type(Parallel(*[length, length], limit=2), Parallel[str, tuple[int, ...]])
    assert_type(await Parallel(length, length, on_error="collect")("abc"), tuple[int | Exception, ...])


async def infers_named_branches() -> None:
    assert_type(Parallel(a=length, b=length), Parallel[str, dict[str, int]])
    assert_type(await Parallel(a=length, b=length, limit=1)("abc"), dict[str, int])
    assert_type(await Parallel(a=length, b=length, limit=1, on_error="collect")("abc"), dict[str, int | Exception])


async def infers_a_tuple_spread_over_parameters() -> None:
    both = shout & length
    assert_type(both >> combine, Sequential[str, str])
    assert_type(both >> combine >> length, Sequential[str, int])
    assert_type(both >> join, Sequential[str, str])
    assert_type(await (both >> combine)("abc"), str)


async def infers_branches_of_a_conditional() -> None:
    either = Conditional(lambda text: len(text) > 3, then=length, otherwise=shout)
    assert_type(either, Conditional[str, int | str])
    assert_type(await either("abc"), int | str)
    assert_type(await Conditional(lambda text: len(text) > 3, then=shout)("abc"), str)
    assert_type(await Conditional(longer, then=length)("abc"), int | str)
    assert_type(await Conditional(longer, then=write, otherwise=shout)("abc"), str)
    assert_type(await Conditional(longer, then=write, otherwise=sizes)("abc"), str | list[int])
    assert_type(search >> summarise >> Conditional(longer, then=shout), Sequential[str, str])


async def infers_branches_of_a_switch() -> None:
    assert_type(Switch(lambda text: text[0], {"a": length, "b": length}), Switch[str, int])
    either = Switch(lambda text: text[0], {"a": length}, otherwise=shout)
    assert_type(either, Switch[str, int | str])
    assert_type(await either("abc"), int | str)
    assert_type(await Switch(length, {3: write}, otherwise=shout)("abc"), str)
    assert_type(search >> summarise >> Switch(length, {3: shout}, otherwise=write), Sequential[str, str])
    cases: dict[str, Module[str, object]] = {"a": length, "b": sizes}  # without it mypy finds no common type
    assert_type(await Switch(str.lower, cases)("a"), object)


async def infers_the_state_of_a_loop() -> None:
    assert_type(Loop(double, max_iters=3), Loop[int])
    assert_type(await Loop(double, until=lambda n: n > 9, max_iters=9)(1), int)
    assert_type(await Loop(shout, until=longer, max_iters=3)("a"), str)
    assert_type(Loop(search >> summarise, max_iters=2), Loop[str])
    assert_type(Loop(shout, max_iters=2) >> length, Sequential[str, int])


async def numbers() -> AsyncIterator[int]:
    yield 1


async def infers_items() -> None:
    assert_type(length.map(), Map[str, int])
    assert_type(Map(length), Map[str, int])
    assert_type(Map(double), Map[int, int])
    assert_type(await length.map(concurrency=2, progress=True)(["a"]), list[int])
    assert_type(await Map(length, on_error="collect")(("a", "b")), list[int | Exception])
    assert_type(await length.map(on_error="collect", concurrency=2)({"a"}), list[int | Exception])
    assert_type(await Count().map()(numbers()), list[list[int]])
    assert_type(await module(double).map()(numbers()), list[int])
    assert_type(length.map().map(), Map[Iterable[str] | AsyncIterable[str], list[int]])
    assert_type(sizes >> module(double).map(), Sequential[str, list[int]])
    assert_type((length & shout).map(), Map[str, tuple[int, str]])
    assert_type(length.map().with_(timeout=2), Map[str, int])
    assert_type(length.map() & length.map(), Parallel[Iterable[str] | AsyncIterable[str], tuple[list[int], list[int]]])


async def infers_what_wins_a_race() -> None:
    assert_type(Race(length, shout), Race[str, int | str])
    assert_type(await Race(length, shout)("a"), int | str)
    assert_type(Race(length, shout, sizes), Race[str, int | str | list[int]])
    assert_type(Race(length), Race[str, int])
    assert_type(Race(length, length, length, length), Race[str, int])
    assert_type(await Race(shout, write)("a"), str)
    assert_type(search >> Race(summarise, summarise), Sequential[str, str])


async def infers_through_delays() -> None:
    assert_type(search >> BlockingDelay(0) >> summarise, Sequential[str, str])
    assert_type(search >> NonBlockingDelay(0) >> summarise >> NonBlockingDelay(0), Sequential[str, str])
    assert_type(BlockingDelay(0) >> length, Sequential[str, int])
    assert_type(BlockingDelay(0) >> (search >> summarise), Sequential[str, str])
    assert_type(Sequential(search, BlockingDelay(0), summarise), Sequential[str, str])
    assert_type(await (search >> BlockingDelay(0) >> summarise)("x"), str)
    assert_type(await BlockingDelay(0)("x"), str)


@graph
async def rag(question: str, k: int = 2) -> str:
    docs = await search(question, k)
    return await combine(await summarise(docs), await length(question))


@graph(limit=2, timeout=3.0, on_error="cancel")
async def two(question: str) -> tuple[str, int]:
    return question, await length(question)


async def infers_that_a_traced_graph_is_the_function() -> None:
    assert_type(await rag("x"), str)
    assert_type(await rag(question="x", k=3), str)
    assert_type(await two("x"), tuple[str, int])
    assert_type(await rag.with_(limit=3)("x"), str)
    assert_type(await (two >> combine)("x"), str)
    assert_type(rag >> length, Sequential[str, int])
    assert_type(rag.draw("dot"), str)


def wires_refs_by_hand() -> None:
    g = Graph("g", limit=3)
    assert_type(g, Graph[..., Any])
    q = g.input("q", str)
    assert_type(q, Ref[str])
    n = g.input("n", int, 3)
    assert_type(n, Ref[int])
    d = g.add(search, q)
    assert_type(d, Ref[list[Doc]])
    assert_type(g.add(search, q, k=2), Ref[list[Doc]])
    assert_type(g.add(search, q, n), Ref[list[Doc]])
    assert_type(g.add(search, query=q), Ref[list[Doc]])
    assert_type(g.add(search, "x", name="s"), Ref[list[Doc]])
    s = g.add(summarise, d)
    assert_type(s, Ref[str])
    assert_type(g.add(length, s), Ref[int])
    assert_type(g.add(combine, s, 7), Ref[str])
    assert_type(g.add(combine, s, n), Ref[str])
    assert_type(g.add(str.upper, s), Ref[str])
    assert_type(g.add(double, n), Ref[int])
    assert_type(g.add(join, s, n), Ref[str])
    assert_type(g.add(write, q), Ref[str])
    assert_type(g.add(rag, q, n), Ref[str])
    assert_type(g.add(search >> summarise, q), Ref[str])
    assert_type(g.add(length & shout, q), Ref[tuple[int, str]])
    assert_type(d[0].text, Ref[Any])


def wires_outputs_by_hand() -> None:
    def wired(name: str) -> tuple[Graph[..., Any], Ref[str], Ref[int]]:
        g = Graph(name)
        q = g.input("q", str)
        return g, g.add(shout, q), g.add(length, q)

    assert_type(rag.plan(), WorkflowPlan)
    g, s, n = wired("one")
    one = g.output(g.add(combine, s, n))
    assert_type(one, Graph[..., str])
    assert_type(one.run("x"), str)
    g, s, n = wired("several")
    assert_type(g.output((s, n)), Graph[..., tuple[str, int]])
    g, s, n = wired("many")
    assert_type(g.output([s, g.add(combine, s, n)]), Graph[..., list[str]])
    g, s, n = wired("named")
    assert_type(g.output({"a": s, "b": g.add(combine, s, n)}), Graph[..., dict[str, str]])


async def anything_of(step: Module[str, object]) -> object:
    return assert_type(await step("x"), object)


async def infers_what_fits_a_variable() -> None:
    sequence: Module[str, int] = search >> summarise >> length
    assert_type(await sequence("x"), int)
    declared: Module[list[Doc], str] = summarise
    assert_type(await declared([]), str)
    wider: Module[str, object] = sequence
    assert_type(await anything_of(wider), object)
    assert_type(sequence >> double, Sequential[str, int])
    anything: list[Module] = [search, length, sequence]
    assert_type(await anything[1]("x"), Any)


async def infers_the_rest_of_the_face() -> None:
    with capture() as trace:
        await length("abc")
    assert_type(trace.runs[0], TraceHandle[Any])
    assert_type(trace.runs[0].outcome == "ok", bool)
    assert_type(trace.runs[0].duration, float | None)
    with Context.scope(timeout=5, user="ann"):
        assert_type(Context.get().deadline, float | None)
        assert_type(Context.get().metadata["user"], Any)
    assert_type(Payload.of(3, int), Payload[int])
    assert_type(Payload.of([Doc(text="a")], list[Doc]).value, list[Doc])
    assert_type(search.In, type[BaseModel])
    assert_type(Search.schema(), dict[str, Any])
    assert_type(search.payload(query="x").json(), bytes)
    assert_type(search.settings.timeout, float | None)


async def infers_what_a_started_run_gives() -> None:
    assert_type(length.start("abc"), TraceHandle[int])
    assert_type(await length.start("abc"), int)
    assert_type(await search.start("x", k=2), list[Doc])
    assert_type((search >> summarise >> length).start("x"), TraceHandle[int])
    assert_type([chunk async for chunk in write.start("a b").chunks()], list[str])
    assert_type([chunk async for chunk in Encode().start("a").chunks()], list[bytes])
    assert_type([chunk async for chunk in Count().start(2).chunks()], list[int])
    assert_type([event async for event in length.start("abc")], list[Event])
    with answers(lambda question: question.prompt):
        assert_type(await ask("name?"), str)
        assert_type(await ask("7", int), int)
        assert_type(await ask("7", int | None, timeout=1), Any)


def infers_the_result_of_a_started_run() -> None:
    assert_type(length.start("abc").result(timeout=9), int)
    assert_type(list(write.start("a b").chunks()), list[str])


async def infers_what_a_durable_run_gives() -> None:
    async with DurableEngine(MemoryJournal()) as engine:
        assert_type(await engine.start(length, "abc", run_id="a"), int)
        assert_type(await engine.start(search >> summarise, "x"), str)
        assert_type(engine.start(search, search.payload(query="x", k=2)), TraceHandle[list[Doc]])
        assert_type(await engine.start(rag, "x", delay=0.001), str)


async def loud(call: Call, next: Callable[[Call], Awaitable[Any]]) -> Any:  # noqa: A002
    return await next(call)


def raising(question: str, k: int = 3) -> list[Doc]:
    raise ConnectionError


async def keeps_types_through_policies_and_doubles() -> None:
    assert_type(search.with_(retry=3), Search)
    assert_type(search.with_(retry=Retry(3, on=(KeyError, OSError)), total_timeout=9.0), Search)
    assert_type(search.with_(retry=Retry(on=lambda error: "busy" in str(error)), fallback=(raising, search)), Search)
    assert_type(await length.with_(middleware=loud, fallback=length)("abc"), int)
    with search.override(lambda query, k=3: [Doc(text=query)]):
        assert_type(await search("x"), list[Doc])


def infers_the_value_of_run() -> None:
    assert_type(length.run("abc"), int)
    assert_type(search.run("x", k=2), list[Doc])
    assert_type(search.with_(k=2).run(query="x"), list[Doc])
    assert_type(Count().run(2), list[int])
    assert_type(write.run("a b"), str)
    assert_type((search >> summarise >> length).run("x"), int)
    assert_type((length & shout).run("x"), tuple[int, str])
    assert_type(Conditional(longer, then=length).run("abcd"), int | str)
    assert_type(length.map().run(["abcd"]), list[int])
    assert_type(Loop(shout, max_iters=2).run("a"), str)
    assert_type(Race(length, shout).run("a"), int | str)
