"""What does an agent's turn cost beside the model's call itself, against pydantic-ai and openai-agents?

Row 21: one run of two turns: the model wants a tool, the tool is called, the model answers. The model is a function
that gives its replies at once, so that what is left is the agent: requests, validation of the tool's arguments, the
conversation, limits. The first figure is what a turn costs beyond those two bare calls and the bare tool, in bare
awaits; the others are ratios. Tracing is off everywhere. The peers have features that cost time though nobody uses them
here, which is part of what they are. They are measured where they are installed.
"""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from mai.agents import Agent
from mai.models import Message, Model, Reply, Request, ToolCall, Usage

from .harness import Row, Scale, Timed, Times, main, ratio
from .promises import promise

__all__ = ["rows"]

TURNS = 2
CALL, ANSWER = '{"a": 2, "b": 3}', "five"
USED = Usage(input_tokens=10, output_tokens=5)
WISH = Reply(
    message=Message.assistant(ToolCall(id="c1", name="add_async", arguments=CALL)), finish="tool_calls", usage=USED
)
SAID = Reply(message=Message.assistant(ANSWER), usage=USED)


async def add_async(a: int, b: int) -> int:
    """Add two numbers."""
    USES["add"] += 1
    return a + b


USES = {"add": 0}


class Instant(Model):
    """Answers at once: wants the tool, then says the answer."""

    def __init__(self) -> None:
        super().__init__("instant:model")

    def cost(self, usage: Usage) -> float | None:
        """Return 0."""
        return 0.0

    async def answer(self, request: Request, say: Any) -> Reply:
        """Return the reply of this turn."""
        return WISH if request.messages[-1].role == "user" else SAID


BARE = Instant()


async def _bare() -> str:
    """Do what has to be done in any case: two calls of the model, one of the tool."""
    request = Request(messages=(Message.user("go"),))
    await BARE.answer(request, None)
    await add_async(2, 3)
    await BARE.answer(request, None)
    return ANSWER


def _mai() -> Callable[[], Awaitable[str]]:
    agent = Agent(Instant(), [add_async])
    return lambda: agent("go")


def _pydantic_ai() -> Callable[[], Awaitable[str]]:
    from pydantic_ai import Agent as Peer  # noqa: PLC0415 (a peer)
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart  # noqa: PLC0415 (a peer)
    from pydantic_ai.models.function import AgentInfo, FunctionModel  # noqa: PLC0415 (a peer)
    from pydantic_ai.usage import RequestUsage  # noqa: PLC0415 (a peer)

    async def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        part = ToolCallPart("add_async", CALL, "c1") if len(messages) == 1 else TextPart(ANSWER)
        return ModelResponse([part], usage=RequestUsage(input_tokens=10, output_tokens=5))

    agent = Peer(FunctionModel(reply), tools=[add_async])

    async def run() -> str:
        return (await agent.run("go")).output

    return run


def _openai_agents() -> Callable[[], Awaitable[str]]:
    import agents  # noqa: PLC0415 (a peer)
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText  # noqa: PLC0415 (a peer)

    wish = ResponseFunctionToolCall(type="function_call", call_id="c1", name="add_async", arguments=CALL)
    text = ResponseOutputText(type="output_text", text=ANSWER, annotations=[])
    said = ResponseOutputMessage(id="m1", type="message", role="assistant", status="completed", content=[text])

    class Peer(agents.Model):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
            first = isinstance(input, str) or len(input) == 1
            usage = agents.Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
            return agents.ModelResponse(output=[wish if first else said], usage=usage, response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = agents.Agent(name="peer", model=Peer(), tools=[agents.function_tool(add_async)])
    config = agents.RunConfig(tracing_disabled=True)

    async def run() -> str:
        return (await agents.Runner.run(agent, "go", run_config=config)).final_output

    return run


PEERS = {"pydantic-ai": ("pydantic_ai", _pydantic_ai), "openai-agents": ("agents", _openai_agents)}


def _overhead(times: Times) -> float:
    return (times["mai"] - times["bare"]) / times["A"]


async def rows(scale: Scale) -> list[Row]:
    """Assert that all do the same, and return what is to be measured."""
    n, rounds = max(2, scale.calls // 10), scale.heavy_rounds
    made = {name: make() for name, (module, make) in PEERS.items() if find_spec(module) is not None}
    works = {"mai": _mai(), "bare": _bare, **made}
    for name, work in works.items():
        before = USES["add"]
        promise(await work() == ANSWER and USES["add"] == before + 1, f"{name} uses the tool once and answers")

    def timed(name: str) -> Timed:
        async def work() -> None:
            for _ in range(n):
                await works[name]()

        return Timed(work, n * TURNS)

    samples = {name: timed(name) for name in works}
    over = {"bare": samples["bare"], "mai": samples["mai"]}
    found = [Row("21", "an agent's turn, beyond the bare calls", None, "A", over, _overhead, rounds, n)]
    for name in made:
        pair = {"mai": samples["mai"], name: samples[name]}
        found.append(Row("21", "an agent's turn", None, name, pair, ratio("mai", name), rounds, n))
    return found


if __name__ == "__main__":
    raise SystemExit(main(["agents"]))
