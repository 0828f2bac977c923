"""Agent: a model that calls tools until it has an answer."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Generic, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from mai.core.engine import current_run
from mai.core.frame import current
from mai.core.trace import noted
from mai.errors import ConfigError
from mai.layers import Module
from mai.layers.checks import name_of, sort_params
from mai.models import (
    Budget,
    ContentFiltered,
    InvalidOutput,
    Message,
    Model,
    Refused,
    Reply,
    Request,
    ToolDefinition,
    Usage,
)
from mai.models.structured import Output, problem_of
from mai.tools import Tool, as_tools
from mai.values import names
from mai.values.casts import caster
from mai.values.signature import Signature

from .errors import TurnsExhausted
from .turn import use_tools

T = TypeVar("T")
S = TypeVar("S")
Task: TypeAlias = str | Message | list[Message] | tuple[Message, ...]
Instructions: TypeAlias = str | Callable[[], str]


class Talk(BaseModel, Generic[T], frozen=True):
    """An agent's answer, with all that was said; ``agent.talk`` gives it.

    Attributes:
        value: The answer.
        messages: The conversation without the instructions: the history for the next question.
        turns: How often the model was asked.
        usage: The tokens of these turns; those of agents called as tools are their own.
        cost_usd: What these turns cost; None where a price is not known.
    """

    value: T
    messages: tuple[Message, ...]
    turns: int
    usage: Usage
    cost_usd: float | None


class AgentOptions(TypedDict, total=False):
    """What an `Agent` takes beside its model, its tools and its type; see there."""

    name: str | None
    description: str
    instructions: Instructions
    max_turns: int
    max_usd: float | None
    max_tokens: int | None
    parallel: int
    attempts: int


class Agent(Module[Task, T], Generic[T]):
    """A model that calls tools until it has an answer.

    ``await agent("What do cats eat?")`` gives the answer: a text, or a value of the type that *returning* names. Each
    turn asks the model; the tools that it wants are called, at the same time if they are several, and it is told what
    they gave. As every Module an agent has timeouts, retries, middleware and a trace; a `Budget` around it holds, and
    under a durable engine each call of the model and of a tool is a recorded step. In a started run its text streams
    (``handle.chunks()``), and `ToolCalled` and `ToolAnswered` are told as `mai.types.Emitted` events.

    Args:
        model: The model; its settings count. A copy with another one: ``agent.with_(model=...)``.
        tools: What it may call: Tools, Modules, functions, other agents.
        returning: The type of the answer; str, or any type that pydantic has a JSON schema for.
        name: Its name in traces, and as a tool; None: ``"Agent"``.
        description: What it is good for, for those that use it as a tool.
        instructions: What the model is told first; a function is asked at each call, and its text is recorded in a
            durable run.
        max_turns: How often the model is asked at most, at least 1.
        max_usd: What the models called in one call of the agent may cost [USD]; None: no limit.
        max_tokens: How many tokens they may use; None: no limit.
        parallel: How many tools may be called at the same time, at least 1.
        attempts: How many answers may fail to fit *returning* before it fails, at least 1.

    Raises:
        ConfigError: If a value cannot be used, or two tools have one name; in a call, if there is nothing to ask.
        TurnsExhausted: In a call, if there is no answer after *max_turns*; it has the messages.
        InvalidOutput: In a call, if no answer fits, or it was cut off.
        Refused: In a call, if the model declines; ContentFiltered: if the vendor withholds the answer.
        BudgetExhausted: In a call, if the next turn would exceed a limit.

    Example:
        >>> from mai.agents import Agent
        >>> from mai.models import ScriptedModel, ToolCall
        >>> def weather(city: str) -> str:
        ...     '''Tell the weather in a city.'''
        ...     return f"sunny in {city}"
        >>> model = ScriptedModel(ToolCall.of("weather", city="Bern"), "It is sunny in Bern.")
        >>> agent = Agent(model, [weather], instructions="Be brief.")
        >>> agent.run("How is the weather in Bern?")
        'It is sunny in Bern.'
        >>> [message.role for message in agent.messages("And in Rome?")]
        ['system', 'user']
    """

    _mai_kind = "agent"
    _mai_flow = True
    _told: tuple[tuple[Tool[..., Any], ...], tuple[ToolDefinition, ...]] | None = None

    model: Model
    tools: Annotated[tuple[Tool[..., Any], ...], BeforeValidator(lambda given: tools_of(given))]  # noqa: PLW0108 (defined below)
    description: str
    instructions: Instructions
    max_turns: Annotated[int, Field(ge=1, strict=True)]
    max_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    max_tokens: Annotated[int, Field(ge=1, strict=True)] | None
    parallel: Annotated[int, Field(ge=1, strict=True)]
    attempts: Annotated[int, Field(ge=1, strict=True)]

    @overload
    def __init__(
        self: "Agent[str]", model: Model, tools: Sequence[Any] = ..., **options: Unpack[AgentOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: "Agent[S]",
        model: Model,
        tools: Sequence[Any] = ...,
        *,
        returning: type[S],
        **options: Unpack[AgentOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: "Agent[Any]", model: Model, tools: Sequence[Any] = ..., *, returning: Any, **options: Unpack[AgentOptions]
    ) -> None: ...
    def __init__(
        self: Any,
        model: Model,
        tools: Sequence[Any] = (),
        *,
        returning: Any = str,
        name: str | None = None,
        description: str = "",
        instructions: Instructions = "",
        max_turns: int = 20,
        max_usd: float | None = None,
        max_tokens: int | None = None,
        parallel: int = 8,
        attempts: int = 3,
    ) -> None:
        if not isinstance(model, Model):
            raise ConfigError(f"Agent: model={model!r} is no mai.models.Model")
        self._output = None if returning is str else Output(returning)
        self._takes(returning)
        self._mai_settings = self._mai_settings.merged("Agent", {"name": name})
        given: dict[str, object] = {
            "model": model, "description": description, "instructions": instructions, "max_turns": max_turns,
            "max_usd": max_usd, "max_tokens": max_tokens, "parallel": parallel, "attempts": attempts,
            "tools": tools_of(tools),
        }  # fmt: skip
        for key, value in sort_params(self, given)[1].items():
            setattr(self, key, value)

    def _takes(self: Any, gives: Any) -> None:
        """Set the signature: the value is of type *gives*."""
        kind, history = inspect.Parameter.POSITIONAL_OR_KEYWORD, tuple[Message, ...]
        first = inspect.Parameter("task", kind, annotation=Task)
        second = inspect.Parameter("history", inspect.Parameter.KEYWORD_ONLY, annotation=history, default=())
        self._mai_signature = Signature(type(self).__name__, [first, second], gives)

    @property
    def _mai_span(self) -> str:
        """The name of the span."""
        return f"invoke_agent {name_of(self)}"

    @property
    def _mai_facts(self) -> dict[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attributes that every span and handle of the agent has."""
        found = {
            names.OPENINFERENCE_KIND: "AGENT", names.OPERATION: "invoke_agent", names.AGENT_NAME: name_of(self),
            names.AGENT_DESCRIPTION: self.description or None, names.AGENT_MAX_TURNS: self.max_turns,
        }  # fmt: skip
        return {key: value for key, value in found.items() if value is not None}

    async def forward(self, task: Task, *, history: Sequence[Message] = ()) -> T:
        """Ask the model and call its tools until there is an answer."""
        return (await self._answer(task, history)).value

    @property
    def talk(self) -> "Talking[T]":
        """A Module like this one, that gives a `Talk`: the answer with all that was said.

        Example:
            >>> from mai.agents import Agent
            >>> from mai.models import ScriptedModel
            >>> agent = Agent(ScriptedModel("Ann, I see.", "Ann."))
            >>> first = agent.talk.run("I am Ann.")
            >>> agent.run("Who am I?", history=first.messages)
            'Ann.'
        """
        return Talking(self)

    def messages(self, task: Task, *, history: Sequence[Message] = ()) -> tuple[Message, ...]:
        """Return exactly the messages that the model is sent first, without sending them."""
        return self.request(task, history=history).messages

    def request(self, task: Task, *, history: Sequence[Message] = ()) -> Request:
        """Return exactly what the model is sent first: the messages, with the tools and the settings."""
        return self._asked(instructed(self), task, history)

    def _asked(self, told: str, task: Task, history: Sequence[Message]) -> Request:
        given: Any = caster(Task)(task, "task", current())
        said: list[Any] = [given] if isinstance(given, str | Message) else list(given)
        messages = [Message.user(one) if isinstance(one, str) else one for one in said]
        if not messages and not history:
            raise ConfigError(f"{name_of(self)}: task={task!r} has no message, and there is no history to go on with")
        request = Request(
            messages=(*([Message.system(told)] if told else []), *history, *messages),
            tools=self._definitions(),
        )
        return self.model.request(request if self._output is None else self._output.asked(request))

    def _definitions(self) -> tuple[ToolDefinition, ...]:
        """Return what the model is told of the tools: made once for them, as schemas take long."""
        if self._told is None or self._told[0] is not self.tools:
            made = [ToolDefinition(name=t.name, description=t.description, parameters=t.schema()) for t in self.tools]
            self._told = self.tools, tuple(made)
        return self._told[1]

    def as_tool(self, *, name: str | None = None, description: str | None = None, **options: Any) -> Tool[..., Any]:
        """Return this agent as a tool that takes a task as a text.

        Args:
            name: What the model calls it; None: the name of the agent.
            description: What it is good for; None: that of the agent.
            options: Further ones of `mai.tools.Tool`, such as ``approve``.

        Raises:
            ConfigError: If there is no description.
        """
        said = self.description if description is None else description
        return Tool(_Delegate(self), name=name or name_of(self), description=said, **options)

    async def _answer(self, task: Task, history: Sequence[Message]) -> Talk[T]:
        unlimited = self.max_usd is None and self.max_tokens is None
        with nullcontext() if unlimited else Budget(usd=self.max_usd, tokens=self.max_tokens):
            told = instructed(self)
            if callable(self.instructions):  # in a durable run what was said first stands: now it may be another text
                path = f"{current().path}/instructions"
                told = await current_run().value(path, lambda: told)
            return await self._converse(self._asked(told, task, history), 1 if told else 0)

    async def _converse(self, request: Request, first: int) -> Talk[T]:
        """Take turns until there is an answer; what is said before message *first* are the instructions."""
        frame, unfit = current(), 0
        usage, costs = Usage(), list[float | None]()
        for turn in range(1, self.max_turns + 1):
            noted(frame, {names.AGENT_TURNS: turn})
            reply = await self.model(request)
            request = request.followed(reply.message)
            usage += reply.usage
            costs.append(reply.cost_usd)
            if reply.tool_calls:
                answers = await use_tools(self.tools, reply.tool_calls, turn, self.parallel)
                request = request.followed(Message.tool(*answers))
                continue
            try:
                value = self._read(reply)
            except ValidationError as error:
                unfit += 1
                request = request.followed(Message.user(self._mend(problem_of(error, reply), reply, unfit)))
                continue
            return Talk(
                value=value,
                messages=request.messages[first:],
                turns=turn,
                usage=usage,
                cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            )
        raise TurnsExhausted(
            f"{frame.path or name_of(self)}: no answer after {self.max_turns} turns; raise max_turns, or go on with "
            "the messages of this error as history",
            turns=self.max_turns,
            messages=request.messages[first:],
        )

    def _read(self, reply: Reply) -> Any:
        model = self.model.model
        if reply.finish == "refused":
            raise Refused(f"{model} refused to answer: {reply.text[:200]!r}", model=model)
        if reply.finish == "filtered":
            raise ContentFiltered(f"{model}: the vendor withheld the answer", model=model)
        if self._output is not None:
            return self._output.read(reply.text)
        if reply.finish == "length":
            problem = "the answer was cut off; raise max_tokens of the model"
            raise InvalidOutput(f"{model}: {problem}", model=model, text=reply.text, problem=problem)
        return reply.text

    def _mend(self, problem: str, reply: Reply, unfit: int) -> str:
        if unfit < self.attempts:
            return f"That does not fit: {problem}. Answer again, with the JSON alone."
        assert self._output is not None
        why = f"{self.model.model}: no answer in {unfit} fits {self._output.text}; the last: {problem}"
        raise InvalidOutput(why, model=self.model.model, text=reply.text, problem=problem)


class Talking(Module[Task, Talk[T]], Generic[T]):
    """An agent that gives its answer with all that was said; ``agent.talk`` is one.

    Args:
        agent: The agent.
    """

    _mai_kind = "agent"
    _mai_flow = True

    def __init__(self, agent: Agent[T]) -> None:
        self.agent: Agent[T] = agent
        own: Any = agent._mai_signature
        self._mai_signature = Signature(own.owner, list(own.params.values()), Talk[own.returns])
        self._mai_settings = agent._mai_settings.merged("Agent", {"name": name_of(agent)})
        self._mai_facts = agent._mai_facts
        self._mai_span = agent._mai_span

    async def forward(self, task: Task, *, history: Sequence[Message] = ()) -> Talk[T]:
        """Ask the model and call its tools until there is an answer."""
        return await self.agent._answer(task, history)


class _Delegate(Module[str, Any]):
    """Hands a task on to an agent."""

    _mai_flow = True

    def __init__(self, agent: Agent[Any]) -> None:
        self._agent = agent
        task = inspect.Parameter("task", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
        self._mai_signature = Signature(name_of(agent), [task], signature_returns(agent))

    async def forward(self, task: str) -> Any:
        """Let the agent do the task."""
        return await self._agent(task)


def tools_of(things: Any) -> tuple[Tool[..., Any], ...]:
    """Return what an agent may call as Tools; another agent becomes one that takes a text."""
    given = cast("Sequence[Any]", things) if isinstance(things, list | tuple) else (things,)  # of whatever it holds
    return as_tools(*[one.as_tool() if isinstance(one, Agent) else one for one in given])


def instructed(agent: Agent[Any]) -> str:
    """Return the instructions of *agent*, as they are now."""
    told: Any = agent.instructions() if callable(agent.instructions) else agent.instructions
    if not isinstance(told, str):
        if inspect.iscoroutine(told):
            told.close()
        what = type(told).__name__
        raise ConfigError(f"{name_of(agent)}: instructions gave a {what}; give a text, or a plain function of one")
    return told


def signature_returns(agent: Agent[Any]) -> Any:
    """Return the type of an agent's answer."""
    own: Any = agent._mai_signature
    return own.returns
