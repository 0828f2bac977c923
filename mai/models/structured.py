"""Answers of a type: a model is asked for JSON by the type's schema, and asked again until it fits."""

import inspect
import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError

from mai.core.frame import current
from mai.core.trace import noted
from mai.errors import ConfigError
from mai.layers import Module
from mai.values.casts import show
from mai.values.checked import COUNT, checked
from mai.values.signature import Signature

from .errors import ContentFiltered, InvalidOutput, Refused
from .messages import Message
from .request import Prompt, Reply, Request

if TYPE_CHECKING:
    from .model import Model

T = TypeVar("T")
_FENCED = re.compile(r"```[a-z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_VALUE = "value"  # the one field of the object that a type is wrapped in that is none
ATTEMPTS = "mai.output.attempts"


class Output:
    """A type as a model is asked for it: its schema, and how an answer is read.

    Raises:
        ConfigError: If it has no JSON schema.
    """

    def __init__(self, tp: Any) -> None:
        self.text: str = show(tp)
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(tp)
            schema = self.adapter.json_schema()
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(f"returning({self.text}): there is no JSON schema of it: {first}") from error
        self.wrapped: bool = schema.get("type") != "object"
        definitions = {"$defs": schema.pop("$defs")} if self.wrapped and "$defs" in schema else {}
        whole = {"type": "object", "properties": {_VALUE: schema}, "required": [_VALUE], **definitions}
        self.schema: dict[str, Any] = {**whole, "additionalProperties": False} if self.wrapped else schema
        self.name: str = re.sub(r"\W+", "_", self.text).strip("_")[:64] or "answer"

    def asked(self, request: Request) -> Request:
        """Return *request* as one for this type."""
        return request.model_copy(update={"output": self.schema, "output_name": self.name})

    def read(self, text: str) -> Any:
        """Return the value in *text*.

        Raises:
            ValidationError: If it does not fit.
        """
        plain = json_in(text)
        if not self.wrapped:
            return self.adapter.validate_json(plain)
        try:
            inner = _WRAPPED.validate_json(plain)[_VALUE]
        except (ValidationError, KeyError):
            return self.adapter.validate_json(plain)
        return self.adapter.validate_json(_ANY.dump_json(inner))


_WRAPPED: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def json_in(text: str) -> str:
    """Return the JSON in *text*: models that nobody holds to a schema put it between fences, and words around it."""
    fenced = _FENCED.search(text)
    for found in (text, fenced[1] if fenced else "", text[text.find("{") : text.rfind("}") + 1]):
        try:
            _ANY.validate_json(found)
        except ValidationError:
            continue
        return found
    return text


def problem_of(error: ValidationError, reply: Reply) -> str:
    """Return what is wrong with an answer, as the model is told of it."""
    listed = error.errors(include_url=False, include_context=False, include_input=False)[:5]
    lines = [f"{'.'.join(map(str, one['loc'])) or 'the answer'}: {one['msg']}" for one in listed]
    return "; ".join([*lines, *(["it was cut off; answer more shortly"] if reply.finish == "length" else [])])


class Returning(Module[Prompt, T], Generic[T]):
    """A model that answers with a value of a type; ``model.returning(...)`` makes it.

    Each time that the model is asked is a call of its own in the trace, and a recorded step in a durable run.

    Raises:
        Refused: In a call, if the model declines to answer.
        ContentFiltered: In a call, if the vendor withholds the answer.
        InvalidOutput: In a call, if the last answer does not fit either; it has the text.
    """

    _mai_flow = True

    def __init__(self, model: "Model", type: Any, *, attempts: int = 3) -> None:  # noqa: A002 (as in `returning`)
        self.model: Model = model
        self.attempts: int = checked("returning", "attempts", attempts, COUNT)
        self._output = Output(type)
        prompt = inspect.Parameter("prompt", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Prompt)
        self._mai_signature = Signature("Returning", [prompt], type)

    async def forward(self, prompt: Prompt) -> T:
        """Ask until an answer fits."""
        request, problem, text = self._output.asked(self.model.request(prompt)), "", ""
        for attempt in range(1, self.attempts + 1):
            reply = await self.model(request)
            noted(current(), {ATTEMPTS: attempt})
            self._check(reply)
            try:
                value: T = self._output.read(reply.text)
            except ValidationError as error:
                problem, text = problem_of(error, reply), reply.text
            else:
                return value
            mend = f"That does not fit: {problem}. Answer again, with the JSON alone."
            request = request.followed(reply.message, Message.user(mend))
        why = f"{self.model.model}: no answer in {self.attempts} fits {self._output.text}; the last: {problem}"
        raise InvalidOutput(why, model=self.model.model, text=text, problem=problem)

    def _check(self, reply: Reply) -> None:
        model, text = self.model.model, reply.text[:200]
        if reply.finish == "refused":
            raise Refused(f"{model} refused to answer with {self._output.text}: {text!r}", model=model)
        if reply.finish == "filtered":
            raise ContentFiltered(f"{model}: the vendor withheld the answer", model=model)
