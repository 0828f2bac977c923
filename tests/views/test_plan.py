"""Drawings of plans: Mermaid, Graphviz and text, and a trace laid over them."""

import pytest

from mai import BlockingDelay, ConfigError, Graph, TraceHandle, capture, graph, module, views
from mai.views.overlay import Mark
from tests.support import refused, simulated


@module
async def length(text: str) -> int:
    return len(text)


@module
async def shout(text: str) -> str:
    return text.upper()


@module
async def half(n: int) -> int:
    if n % 2:
        raise ValueError(n)
    return n // 2


@module
async def combine(a: int, b: float) -> str:
    return f"{a} {b}"


@graph
async def inner(text: str) -> int:
    return await length(text)


@graph
async def rag(text: str, k: int = 2) -> tuple[str, int]:
    loud = await (shout >> BlockingDelay(0) >> shout)(text)
    return await combine(await half(await inner(loud)), k), 3


MERMAID = """\
flowchart TD
  i0(["text: str"])
  i1(["k: int"])
  subgraph n0["Sequential"]
    n6["shout"]
    n7["BlockingDelay 0.0 s"]
    n8["shout~2"]
  end
  subgraph n1["inner"]
    n9["length"]
  end
  n2["half"]
  n3{{"to float"}}
  n4["combine"]
  n5[/"tuple"/]
  i0 -->|"text"| n0
  n0 -->|"text"| n1
  n1 -->|"n"| n2
  i1 -->|"value"| n3
  n2 -->|"a"| n4
  n3 -->|"b"| n4
  n4 -->|"values[0]"| n5
  n6 --> n7
  n7 --> n8
  out(["tuple[str, int]"])
  n5 --> out"""


def test_a_graph_is_drawn_in_mermaid() -> None:
    assert rag.draw() == MERMAID
    bundle = rag._repr_mimebundle_(include=None)
    assert bundle == {"text/plain": repr(rag), "text/vnd.mermaid": MERMAID}


def test_a_graph_is_drawn_for_graphviz() -> None:
    lines = rag.draw("dot").splitlines()
    assert lines[0] == 'digraph "rag" {'
    assert lines[-1] == "}"
    for line in (
        '  i0 [label="text: str", shape=oval];', "  subgraph cluster_n0 {", '    n0 [label="Sequential", shape=box];',
        '    n7 [label="BlockingDelay 0.0 s", shape=box];', "  }", '  n3 [label="to float", shape=hexagon];',
        '  n2 -> n4 [label="a"];', "  n6 -> n7;", "  n5 -> out;",
    ):  # fmt: skip
        assert line in lines


def test_a_plan_is_told_line_by_line() -> None:
    assert str(rag.plan()) == rag.draw("text")
    assert (
        rag.draw("text")
        == """\
rag(text: str, k: int = ...) -> tuple[str, int]
  Sequential(text=text) -> str
    shout -> str
    BlockingDelay -> Any
    shout~2 -> str
  inner(text=Sequential) -> int
    length(text=inner/$text) -> int
  half(n=inner) -> int
  cast[combine.b](value=k) -> float
  combine(a=half, b=cast[combine.b]) -> str
  tuple(values[0]=combine, values[1]=3) -> tuple[str, int]
  = tuple"""
    )


def test_an_unknown_format_is_refused() -> None:
    with refused(ConfigError, "draw: format='svg' is not known; give 'mermaid', 'dot', 'text'"):
        rag.draw("svg")


def test_text_of_users_does_no_harm() -> None:
    g = Graph('a"b')
    made = g.output(g.add(shout, g.input("text", str), name='x"<y>\\'))
    assert 'n0["x&quot;&lt;y&gt;\\"]' in made.draw()
    assert 'n0 [label="x\\"<y>\\\\", shape=box];' in made.draw("dot")
    assert made.draw("dot").startswith('digraph "a\\"b" {')


@simulated
async def test_a_trace_lies_over_the_drawing() -> None:
    with capture() as trace, pytest.raises(ValueError, match="5"):
        await rag("abcde")
    handle = trace.runs[0]
    drawing = rag.draw(trace=handle)
    for line in ('  n2["half<br/>✗ ', '    n9["length<br/>✓ ', '  n4["combine<br/>-"]', '  n3{{"to float"}}'):
        assert line in drawing
    assert "classDef error " in drawing
    assert "class n4,n5 skipped" in drawing
    assert 'fillcolor="#ffe3e3"' in rag.draw("dot", trace=handle)
    assert "combine(a=half, b=cast[combine.b]) -> str  -" in rag.draw("text", trace=handle)


@simulated
async def test_a_trace_of_a_composite_lies_over_its_plan() -> None:
    whole = shout >> length
    with capture() as trace:
        await whole("abc")
    text = whole.draw("text", trace=trace.runs[0])
    assert text.count("✓") == 3


def handle_of(step_id: str, outcome: str, parent: TraceHandle[object] | None) -> TraceHandle[object]:
    with capture() as trace:
        length.run("x")
    made: TraceHandle[object] = trace.runs[0]
    made._key, made.outcome = step_id, outcome  # type: ignore[assignment]
    made.start_ns, made.end_ns = 0, 1_000_000
    if parent is not None:
        made.parent = parent
        parent.children = [*parent.children, made]
    return made


def test_calls_of_one_step_are_summed_up() -> None:
    from mai.views.overlay import Overlay

    plan = inner.plan()
    starred = plan.model_copy(update={"nodes": (plan.nodes[0].model_copy(update={"id": "Map[*]/length"}),)})
    root = handle_of("/inner", "error", None)
    for k, outcome in enumerate(("ok", "timeout", "ok")):
        handle_of(f"/Map[{k}]/length", outcome, root)
    overlay = Overlay(starred, root)
    assert overlay.of("Map[*]/length") == Mark("timeout", 0.003, 3)
    assert str(overlay.of("Map[*]/length")) == "◷ 3 ms x3"
    assert overlay.of("other") == Mark("skipped", None, 0)
    assert overlay.of("other", "cast") is None
    root.dropped = 1
    assert overlay.of("other") is None


def test_the_views_are_listed() -> None:
    assert views.stages(rag.plan()) == rag.plan().stages()
