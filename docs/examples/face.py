"""All of mai's face on one screen; ``python docs/examples/face.py`` runs it and prints what came of it."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from mai import (
    BlockingDelay,
    Conditional,
    Context,
    Loop,
    Module,
    NonBlockingDelay,
    Parallel,
    Payload,
    Race,
    Switch,
    answers,
    ask,
    capture,
    emit,
    module,
)
from mai.types import Emitted, Progress


class Doc(BaseModel):
    text: str


class Search(Module):  # In and Out are inferred from forward; a sync forward runs in a worker thread
    def forward(self, query: str, k: int = 3) -> list[Doc]:
        return [Doc(text=f"{query} {i}") for i in range(k)]


class Summarise(Module[list[Doc], str], timeout=5.0):  # brackets are optional (then checked); class keywords: settings
    async def forward(self, docs: list[Doc]) -> str:
        return ", ".join(doc.text for doc in docs)


class Write(Module):  # a generator streams; its value is the joined str or bytes, else the list
    async def forward(self, topic: str) -> AsyncIterator[str]:
        for word in ("On ", topic, "."):
            yield word


@module
def length(text: str) -> int:
    return len(text)


@module(retry=3, timeout=1.0)  # a function becomes a Module and keeps its exact signature
async def shout(text: str, mark: str = "!") -> str:
    return text.upper() + mark


@module
async def report(number: int, loud: str, text: str) -> str:
    return f"{number} {loud} {text}"


@module
async def whoami(greeting: str) -> str:
    context = Context.get()
    return f"{greeting} {context.metadata['user']}, {context.deadline is not None and 'in time'}: {context.step_id}"


@module
async def greet(name: str) -> str:
    emit(f"looking for {name}")  # told to whoever watches the started run; it never waits
    if name.islower():
        raise LookupError(f"nobody is called {name}")
    return f"hello {name}"


@module
async def send(text: str) -> str:
    return "sent" if await ask(f"Send {text!r}?", bool) else "kept"


search, summarise, write = Search(), Summarise(), Write()

p = search >> summarise >> str.upper  # Sequential; a plain function may stand on the right of >>
t = length & shout & write  # Parallel -> tuple[int, str, str]
d = Parallel(plain=write, loud=shout, limit=1)  # named branches -> dict[str, str]; at most one at a time
spread = t >> report  # a tuple is spread over the parameters of a step that requires several
c = Conditional(lambda s: len(s) > 3, then=shout, otherwise=length)
s = Switch(lambda s: s[0], {"#": length}, otherwise=shout)  # a key chooses
r = Race(write, shout)  # the first success wins, the others are cancelled and joined
again = Loop(shout, until=lambda s: len(s) > 6, max_iters=9)  # a Loop has a bound
many = module(str.split) >> shout.map(concurrency=8, progress=True) >> ", ".join  # any iterable, sync or async
safe = greet.with_(retry=2, fallback=shout)  # two attempts in all, then the fallback
polite = search >> BlockingDelay(0.01) >> summarise >> NonBlockingDelay(0.01)  # the second holds no place under a limit
brief = search.with_(k=1, name="brief")  # a configured copy; search itself never changes


async def main() -> None:
    print("call:", await search("x", k=2))  # list[Doc], known to mypy and pyright
    print("copy:", await brief("x"), "of", search)
    print("sequence:", await p("hello"))
    print("branches:", await t("mai"), await d("mai"))
    print("spread:", await spread("mai"))
    print("condition:", await c("hey"), await c("hello"))
    print("switch:", await s("#hey"), await s("hey"))
    print("race:", await r("mai"))
    print("loop:", await again("hey"))
    print("map:", await many("to be or"))
    print("fallback:", await safe("Ann"), await safe("ann"))
    with Context.scope(timeout=5, user="ann"):  # for everything called inside
        print("context:", await whoami("hello"))
    with capture() as trace:
        print("polite:", await polite("x"))
    print("trace:", [handle.step_id for handle in trace.runs[0].walk()])
    print(trace.runs[0])  # a tree with times
    h = write.start("mai")  # TraceHandle[str]: to await, watch, cancel and answer
    print("chunks:", [text async for text in h.chunks()], await h)
    print(h)  # its tree
    h2 = many.start("to be")
    print("progress:", [f"{event.done}/{event.total}" async for event in h2 if isinstance(event, Progress)])
    h3 = greet.start("Ann")
    print("events:", [event.value if isinstance(event, Emitted) else type(event).__name__ async for event in h3])
    h4 = send.start("hello")
    async for _ in h4:
        if h4.questions:
            h4.answer("yes")  # cast to the type that was asked for
    print("answered:", await h4)
    h5 = polite.start("x")
    h5.cancel()
    await h5.settled()
    print("cancelled:", h5.outcome)
    with search.override(lambda query, k=3: [Doc(text=f"double of {query}")]):  # for the module and all its copies
        print("override:", await p("x"), await brief("y"))
    with answers(lambda question: "yes"):
        print("asked:", await send("hello"))
    payload = Payload.of([Doc(text="a")], list[Doc])  # the typed envelope of what leaves the process
    print("payload:", payload.json(), payload.size, Payload.load(list[Doc], payload.json()) == payload)
    print("types:", search.schema()["required"], Summarise.Out, search.payload(query="x").json())


if __name__ == "__main__":
    print("sync door:", summarise.run([Doc(text="a"), Doc(text="b")]))
    asyncio.run(main())
