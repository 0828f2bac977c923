"""Content in spans: never by default, bounded where it was asked for, and no secrets."""

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, SecretStr

from mai import Context, module
from mai.telemetry import configure
from mai.telemetry.content import MOST


class Login(BaseModel):
    user: str
    password: SecretStr


@module
async def shout(text: str) -> str:
    return text.upper()


def facts(spans: InMemorySpanExporter, name: str) -> dict[str, Any]:
    (span,) = [span for span in spans.get_finished_spans() if span.name == name]
    return {key: value for key, value in (span.attributes or {}).items() if key.startswith(("input.", "output."))}


def test_by_default_there_is_none(spans: InMemorySpanExporter) -> None:
    (shout >> shout).run("secret")
    assert "secret" not in " ".join(span.to_json() for span in spans.get_finished_spans()).lower()


def test_what_goes_in_and_out_is_there_if_asked_for(spans: InMemorySpanExporter) -> None:
    @module
    async def count(text: str, by: int = 2) -> dict[str, Any]:
        return {"n": len(text) * by, "odd": object()}

    configure(capture_content=True, set_global=False)
    (shout >> count).run("ab")
    assert facts(spans, "shout") == {
        "input.value": "ab", "input.mime_type": "text/plain", "output.value": "AB", "output.mime_type": "text/plain"
    }  # fmt: skip
    assert facts(spans, "count")["output.value"] == '{"n":4,"odd":"<object>"}'
    assert facts(spans, "count")["input.value"] == '{"text":"AB","by":2}'
    assert facts(spans, "Sequential")["output.mime_type"] == "application/json"
    count.with_(name="two").run("a", by=5)
    assert facts(spans, "two")["input.value"] == '{"text":"a","by":5}'
    configure(capture_content=False, set_global=False)
    shout.with_(name="off").run("x")
    assert facts(spans, "off") == {}


def test_secrets_and_auth_stay_hidden(spans: InMemorySpanExporter) -> None:
    @module
    async def enter(login: Login) -> Login:
        return login

    configure(capture_content=True, set_global=False)
    with Context.scope(auth="s3cret"):
        enter.run(Login(user="ann", password=SecretStr("s3cret")))
    assert facts(spans, "enter")["input.value"] == '{"user":"ann","password":"**********"}'
    assert "s3cret" not in " ".join(span.to_json() for span in spans.get_finished_spans())


def test_long_values_are_cut_and_those_that_refuse_are_left_out(spans: InMemorySpanExporter) -> None:
    circle: list[Any] = []
    circle.append(circle)

    @module
    async def odd(text: str) -> list[Any]:
        return circle

    configure(capture_content=True, set_global=False)
    odd.run("x" * (MOST + 5))
    found = facts(spans, "odd")
    assert (len(found["input.value"]), "output.value" in found) == (MOST, False)


def test_an_attempt_does_not_tell_it_again(spans: InMemorySpanExporter) -> None:
    configure(capture_content=True, set_global=False)
    shout.with_(retry=2).run("a")
    assert facts(spans, "attempt") == {}
    assert facts(spans, "shout")["output.value"] == "A"


@pytest.mark.parametrize(("value", "there"), [("true", True), ("SPAN_ONLY", True), ("EVENT_ONLY", False), ("", False)])
def test_the_standard_switch_is_read(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, value: str, there: bool
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    configure(console=False, set_global=False)
    shout.run("a")
    assert ("input.value" in facts(spans, "shout")) is there
