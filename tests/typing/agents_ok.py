"""What mypy and pyright must infer of models and agents. They only read this file; nothing in it is run."""

from typing import Literal, assert_type

from pydantic import BaseModel

from mai import TraceHandle
from mai.agents import Agent, Talk
from mai.models import Embedder, Embeddings, Message, Model, Reply, Returning, ScriptedModel


class City(BaseModel):
    """A type that is asked for."""

    name: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def a_model_gives_a_reply(model: Model) -> None:
    assert_type(await model("hello"), Reply)
    assert_type(await model([Message.user("hello")]), Reply)
    assert_type(model.run("hello"), Reply)
    assert_type(model.start("hello"), TraceHandle[Reply])
    assert_type(await ScriptedModel("x").with_(temperature=0)("hello"), Reply)
    assert_type(await Embedder("openai:e")(["a"]), Embeddings)
    await model(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def an_answer_has_its_type(model: Model) -> None:
    assert_type(model.returning(City), Returning[City])
    assert_type(await model.returning(City)("hello"), City)
    assert_type(await model.returning(list[str])("hello"), list[str])
    assert_type(model.returning(City).run("hello").name, str)


async def an_agent_has_the_type_of_its_answer(model: Model) -> None:
    assert_type(await Agent(model, [add])("hello"), str)
    agent = Agent(model, [add], returning=City, max_turns=3)
    assert_type(agent, Agent[City])
    assert_type(await agent("hello", history=[Message.user("before")]), City)
    assert_type(await agent.talk("hello"), Talk[City])
    assert_type((await agent.talk("hello")).value, City)


def settings_are_checked(model: Model) -> None:
    Agent(model, max_turn=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    kind: Literal["openai"] = "openai"
    Model(f"{kind}:gpt-5", max_token=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
