import pytest
from pydantic import SecretStr

from mai import ConfigError
from mai.models import AuthError
from mai.models.vendors import VENDORS, key_of, split, url_of
from tests.support import refused


@pytest.mark.parametrize(
    ("model", "url", "kind", "name"),
    [
        ("openai:gpt-5", None, "openai", "gpt-5"),
        ("openai:gpt-5", "http://here/v1", "openai-chat", "gpt-5"),
        ("ollama:llama3:8b", None, "ollama", "llama3:8b"),
        ("huggingface:meta-llama/Llama-3", None, "openai-chat", "meta-llama/Llama-3"),
        ("anthropic:claude", "http://proxy", "anthropic", "claude"),
        ("groq:llama", None, "groq", "llama"),
        ("my-model", "http://here/v1", "openai-chat", "my-model"),
        ("my:model", "http://here/v1", "openai-chat", "my:model"),
    ],
)
def test_a_model_is_named_by_its_vendor_and_its_name(model: str, url: str | None, kind: str, name: str) -> None:
    vendor, found = split(model, url)
    assert (vendor.kind, found) == (kind, name)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("gpt-5", "; write 'vendor:name', as in 'openai:gpt-5', or give a url="),
        ("", "; write 'vendor:name', as in 'openai:gpt-5', or give a url="),
        ("opena:", "; did you mean 'openai'?"),
        (":gpt-5", "; it has 'anthropic', 'google', 'huggingface', 'ollama', 'openai'"),
    ],
)
def test_a_model_without_a_vendor_is_refused(model: str, hint: str) -> None:
    with refused(ConfigError, f"Model: model={model!r} names no vendor{hint}"):
        split(model, None)


def test_the_key_is_the_one_given_else_the_vendors_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    google = VENDORS["google"]
    with refused(AuthError, "google:g: there is no key; set GOOGLE_API_KEY or GEMINI_API_KEY, or give key="):
        key_of(google, None, "google:g")
    monkeypatch.setenv("GEMINI_API_KEY", "from-environment")
    assert key_of(google, None, "google:g") == "from-environment"
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert key_of(google, None, "google:g") == "first"
    assert key_of(google, SecretStr("given"), "google:g") == "given"
    assert key_of(split("x", "http://here")[0], None, "x") is None


def test_the_address_is_the_one_given_else_the_variable_else_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ollama = VENDORS["ollama"]
    assert url_of(ollama, None) == "http://localhost:11434/v1"
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://there/v1")
    assert url_of(ollama, None) == "http://there/v1"
    assert url_of(ollama, "http://given/v1") == "http://given/v1"
    assert url_of(VENDORS["openai"], None) is None
