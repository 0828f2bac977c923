import pytest
from pydantic import SecretStr

from mai import ConfigError
from mai.models import AuthError
from mai.models.vendors import VENDORS, key_of, split, unsent, url_of
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
        key_of(google, None, "google:g", None)
    monkeypatch.setenv("GEMINI_API_KEY", "from-environment")
    assert key_of(google, None, "google:g", None) == "from-environment"
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert key_of(google, None, "google:g", None) == "first"
    assert key_of(google, SecretStr("given"), "google:g", None) == "given"
    assert key_of(split("x", "http://here")[0], None, "x", "http://here") is None


@pytest.mark.parametrize(
    ("vendor", "url", "sent"),
    [
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://API.openai.com:443/other", True),
        ("openai", "http://api.openai.com/v1", False),
        ("openai", "https://api.openai.com.example.com/v1", False),
        ("openai", "https://api.openai.com@example.com/v1", False),
        ("openai", "https://openai.com/v1", False),
        ("openai", "http://localhost:8000/v1", False),
        ("openai", "https://gateway.example.com/v1", True),  # as its variable says
        ("openai", "https://gateway.example.com:8443/v1", False),
        ("anthropic", "https://api.anthropic.com", True),
        ("anthropic", "https://api.openai.com", False),
        ("google", "https://generativelanguage.googleapis.com", True),
        ("huggingface", "https://router.huggingface.co/v1", True),
        ("huggingface", "https://mine.endpoints.huggingface.cloud/v1", False),
        ("ollama", "http://localhost:11434/v1", True),
        ("ollama", "http://localhost:8000/v1", False),
    ],
)
def test_the_vendors_variable_is_for_its_own_address(
    vendor: str, url: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VENDORS[vendor].keys:
        monkeypatch.setenv(name, "from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.com/v1")
    found, _ = split(f"{vendor}:x", url)
    try:
        assert (key_of(found, None, "x", url) is not None) == sent
    except AuthError:
        assert not sent
        assert not found.keyless
    assert bool(unsent(found, None, url)) != sent
    assert key_of(found, SecretStr("given"), "x", url) == "given"


def test_the_address_is_the_one_given_else_the_variable_else_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ollama = VENDORS["ollama"]
    assert url_of(ollama, None) == "http://localhost:11434/v1"
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://there/v1")
    assert url_of(ollama, None) == "http://there/v1"
    assert url_of(ollama, "http://given/v1") == "http://given/v1"
    assert url_of(VENDORS["openai"], None) is None
