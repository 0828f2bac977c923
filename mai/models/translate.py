"""Messages in pydantic-ai's words and back: what a vendor gets to see, and what its answer means."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mai.middleware import Redactor

from .messages import Image, Message, Part, Text, Thinking, ToolCall, ToolReturn
from .request import Finish, Reply, Request, Usage

if TYPE_CHECKING:
    import pydantic_ai.messages as pam
    from pydantic_ai.settings import ModelSettings

_BACK = ("id", "provider_name", "provider_details", "signature")  # of a part: what the vendor wants back
_FINISH: dict[str | None, Finish] = {
    "stop": "stop", "length": "length", "content_filter": "filtered", "tool_call": "tool_calls", "error": "error",
}  # fmt: skip


def outgoing(messages: Iterable[Message]) -> "Iterator[pam.ModelMessage]":
    """Yield *messages* in pydantic-ai's words; what stands between two answers becomes one request."""
    from pydantic_ai import messages as pam  # noqa: PLC0415 (an extra)

    for answers, group in groupby(messages, lambda message: message.role == "assistant"):
        listed = list(group)
        if answers:
            yield from (pam.ModelResponse([_said(part) for part in message.parts]) for message in listed)
        else:
            yield pam.ModelRequest([part for message in listed for part in _asked(message)])


def _said(part: Part) -> Any:
    from pydantic_ai import messages as pam  # noqa: PLC0415 (an extra)

    back: dict[str, Any] = dict(getattr(part, "details", None) or {})
    if isinstance(part, ToolCall):
        return pam.ToolCallPart(part.name, part.arguments, part.id, **back)
    if isinstance(part, Thinking):
        return pam.ThinkingPart(part.text, **back)
    if isinstance(part, Image):
        return pam.FilePart(pam.BinaryContent(part.data, media_type=part.media_type))
    assert isinstance(part, Text)
    return pam.TextPart(part.text, **back)


def _asked(message: Message) -> "Iterator[Any]":
    from pydantic_ai import messages as pam  # noqa: PLC0415 (an extra)

    if message.role == "system":
        yield pam.SystemPromptPart(message.text)
        return
    content: list[Any] = []
    for part in message.parts:
        if isinstance(part, ToolReturn):
            outcome: Any = "failed" if part.is_error else "success"
            yield pam.ToolReturnPart(part.name, part.content, part.id, outcome=outcome)
        elif isinstance(part, Image):
            by_url = pam.ImageUrl(part.url, media_type=part.media_type) if part.url else None
            content.append(by_url or pam.BinaryContent(part.data, media_type=part.media_type))
        elif isinstance(part, Text):
            content.append(part.text)
    if content:
        yield pam.UserPromptPart(content[0] if len(content) == 1 and isinstance(content[0], str) else content)


def settings(request: Request) -> "ModelSettings":
    """Return what *request* sets, zeros too."""
    choice: Any = [request.tool_choice]
    given: dict[str, Any] = {
        "max_retries": 0, "temperature": request.temperature, "top_p": request.top_p, "seed": request.seed,
        "max_tokens": request.max_tokens, "stop_sequences": list(request.stop) or None,
        "thinking": request.thinking, "extra_body": dict(request.extra) or None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "tool_choice": request.tool_choice if request.tool_choice in ("auto", "none", "required") else choice,
    }  # fmt: skip
    if not request.tools or request.tool_choice == "auto":
        del given["tool_choice"]
    return {key: value for key, value in given.items() if value is not None}  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def parameters(client: Any, request: Request) -> Any:
    """Return the tools, and the schema: natively where the vendor can hold the model to it, else in words."""
    from pydantic_ai.models import ModelRequestParameters  # noqa: PLC0415 (an extra)
    from pydantic_ai.output import OutputObjectDefinition  # noqa: PLC0415 (an extra)
    from pydantic_ai.tools import ToolDefinition  # noqa: PLC0415 (an extra)

    tools = [
        ToolDefinition(
            name=tool.name, parameters_json_schema=dict(tool.parameters), description=tool.description or None
        )
        for tool in request.tools
    ]
    if request.output is None:
        return ModelRequestParameters(function_tools=tools)
    native = client.profile.get("supports_json_schema_output", False)
    wanted = OutputObjectDefinition(dict(request.output), name=request.output_name)
    mode: Any = "native" if native else "prompted"
    return ModelRequestParameters(function_tools=tools, output_mode=mode, output_object=wanted)


def incoming(response: "pam.ModelResponse", redactor: Redactor) -> Reply:
    """Return the answer as a Reply, without secrets."""
    parts = tuple(part for part in map(_heard, response.parts) if part is not None)
    parts = redactor.value([part.model_dump() for part in parts])
    details, used = response.provider_details or {}, response.usage
    finish: Finish = _FINISH.get(response.finish_reason, "stop")
    message = Message.model_validate({"role": "assistant", "parts": parts})
    if "refusal" in details or details.get("finish_reason") == "refusal":
        finish = "refused"
    if finish == "stop" and message.tool_calls:
        finish = "tool_calls"
    return Reply(
        message=message,
        finish=finish,
        usage=Usage(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cache_read_tokens,
            cache_write_tokens=used.cache_write_tokens,
        ),
        model=redactor.text(response.model_name or ""),
        provider=redactor.text(response.provider_name or ""),
        id=redactor.value(response.provider_response_id),
    )


def _heard(part: Any) -> Part | None:
    back = {key: value for key in _BACK if (value := getattr(part, key, None)) is not None} or None
    if part.part_kind == "text":
        return Text(text=part.content, details=back)
    if part.part_kind == "thinking":
        return Thinking(text=part.content, details=back)
    if part.part_kind == "tool-call":
        written = part.args if isinstance(part.args, str) else part.args_as_json_str()
        return ToolCall(id=part.tool_call_id, name=part.tool_name, arguments=written, details=back)
    if part.part_kind == "file" and part.content.is_image:
        return Image(data=part.content.data, media_type=part.content.media_type)
    return None
