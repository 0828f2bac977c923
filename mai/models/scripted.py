"""Models that ask nobody: one that says what it is told to, and one that repeats what was recorded."""

import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mai.errors import ConfigError
from mai.types import Payload

from .errors import NotScripted
from .messages import Message, ToolCall
from .model import Model
from .provider import Say
from .request import Prompt, Reply, Request, Usage, estimated

Line: TypeAlias = str | Reply | ToolCall | Sequence[ToolCall] | Exception
Script: TypeAlias = Line | Callable[[Request], Line]
_WORDS = re.compile(r"\s*\S+|\s+")


class ScriptedModel(Model):
    """A model that answers from a script: for tests, and for examples that need no key.

    Args:
        script: The answers in order, each used once: a text, a `Reply`, a `ToolCall` or several, an exception to be
            raised, or a function of the `Request` that gives one of these.
        repeat: Use the last line again and again.

    Its text streams word by word. Its token counts are estimates, and its price is 0 unless ``prices`` is set. What it
    was asked is in ``requests``; copies made by ``with_`` share script and requests.

    Raises:
        ConfigError: If there is no script.
        NotScripted: In a call, when the script has ended.

    Example:
        >>> from mai.models import ScriptedModel, ToolCall
        >>> model = ScriptedModel(ToolCall.of("search", query="cats"), "Cats sleep a lot.")
        >>> model.run("What about cats?").tool_calls[0].arguments
        '{"query": "cats"}'
        >>> model.run("And?").text, len(model.requests)
        ('Cats sleep a lot.', 2)
    """

    def __init__(self, *script: Script, repeat: bool = False) -> None:
        if not script:
            raise ConfigError("ScriptedModel: give at least one answer")
        super().__init__("scripted:model")
        self._script: tuple[Script, ...] = script
        self._repeat: bool = repeat
        self._lock = threading.Lock()
        self.requests: list[Request] = []

    def cost(self, usage: Usage) -> float | None:
        """Return what *usage* costs [USD]: 0 unless ``prices`` is set."""
        return 0.0 if self.prices is None else self.prices.of(usage)

    async def answer(self, request: Request, say: Say | None) -> Reply:
        """Return the next answer of the script."""
        line = self._next(request)
        if callable(line):
            line = line(request)
        if isinstance(line, Exception):
            raise line
        reply = _reply_of(line, request)
        if say is not None:
            for piece in _WORDS.findall(reply.text):
                await say(piece)
        return reply

    def _next(self, request: Request) -> Script:
        with self._lock:
            at = len(self.requests)
            self.requests.append(request)
        if at >= len(self._script) and not self._repeat:
            said = request.messages[-1].text if request.messages else ""
            raise NotScripted(f"{self.model}: the script has {len(self._script)} answers, and none to {said[:80]!r}")
        return self._script[min(at, len(self._script) - 1)]


def _reply_of(line: Any, request: Request) -> Reply:
    if isinstance(line, Reply):
        return line
    calls = (line,) if isinstance(line, ToolCall) else () if isinstance(line, str) else tuple(line)
    message = Message.assistant(*calls) if calls else Message.assistant(line)
    used = Usage(
        input_tokens=request.estimated_tokens, output_tokens=estimated(message.parts), approximate=True
    )  # fmt: skip
    return Reply(message=message, finish="tool_calls" if calls else "stop", usage=used, model="model")


class ReplayModel(Model):
    """A model that repeats what was recorded in a file; with another model it records what is not there yet.

    Commit the file, and a test of an agent runs offline, fast, and with answers that a real model gave. A request is
    found again by all that is in it: if the prompt or a tool changes, it is another one.

    Args:
        path: The file, JSON lines; made when the first answer is recorded.
        record: The model to ask for what is not in it; None: never ask.

    Raises:
        NotScripted: In a call, if there is no answer in the file and no model to ask.
        ConfigError: If the file has a line that is no recorded answer.

    Example:
        >>> import tempfile, pathlib
        >>> from mai.models import ReplayModel, ScriptedModel
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory) / "talk.jsonl"
        ...     first = ReplayModel(path, record=ScriptedModel("Hello!")).run("hello").text
        ...     again = ReplayModel(path).run("hello").text
        >>> first, again
        ('Hello!', 'Hello!')
    """

    def __init__(self, path: str | Path, *, record: Model | None = None) -> None:
        super().__init__(record.model if record is not None else "replay:model", url=record.url if record else None)
        self.path: Path = Path(path)
        self.record: Model | None = record
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}
        self._known: dict[str, list[Reply]] = {}
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = json.loads(line)
                self._known.setdefault(entry["request"], []).append(Reply.model_validate(entry["reply"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"ReplayModel: line {number} of {str(path)!r} is no recorded answer") from error

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    def request(self, prompt: Prompt) -> Request:
        """Return what the recording model would send."""
        made = super().request(prompt)
        return made if self.record is None else self.record.request(made)

    def cost(self, usage: Usage) -> float | None:
        """Return None: what it cost stands in the recorded answer."""
        return None

    async def answer(self, request: Request, say: Say | None) -> Reply:
        """Return the recorded answer; the same request asked again gets the next one that was recorded for it."""
        key = Payload.of(request, Request).digest
        with self._lock:
            at = self._used[key] = self._used.get(key, -1) + 1
            known = self._known.get(key, [])
        if known and (at < len(known) or self.record is None):
            reply = known[min(at, len(known) - 1)]
            if say is not None and reply.text:
                await say(reply.text)
            return reply
        if self.record is None:
            said = request.messages[-1].text if request.messages else ""
            raise NotScripted(f"{str(self.path)!r} has no answer to this request, which ends with {said[:80]!r}")
        reply = await self.record.answer(request, say)
        priced = reply.model_copy(update={"cost_usd": self.record.cost(reply.usage)})
        self._keep(key, priced)
        return priced

    def _keep(self, key: str, reply: Reply) -> None:
        entry = {"request": key, "reply": json.loads(Payload.of(reply, Reply).json())}
        with self._lock:
            self._known.setdefault(key, []).append(reply)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
