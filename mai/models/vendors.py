"""Who offers models: how a vendor is called, where its key is found, and how its endpoint is reached."""

import os
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, SecretStr

from mai.errors import ConfigError
from mai.values.checked import near

from .errors import AuthError


def _hidden(key: object) -> object:
    """Return a text as one that no repr shows."""
    return SecretStr(key) if isinstance(key, str) else key


Key = Annotated[SecretStr, BeforeValidator(_hidden)]


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor of models.

    ``kind`` is what pydantic-ai calls the way to speak with it, ``label`` what OpenTelemetry calls the vendor. ``key``
    and ``address`` name environment variables, ``url`` is where to go if neither a URL nor that variable is given.
    """

    kind: str
    label: str
    keys: tuple[str, ...] = ()
    address: str = ""
    url: str | None = None
    keyless: bool = False


VENDORS = {
    "openai": Vendor("openai", "openai", ("OPENAI_API_KEY",)),
    "anthropic": Vendor("anthropic", "anthropic", ("ANTHROPIC_API_KEY",)),
    "google": Vendor("google", "gcp.gemini", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    "huggingface": Vendor("openai-chat", "huggingface", ("HF_TOKEN",), url="https://router.huggingface.co/v1"),
    "ollama": Vendor(
        "ollama", "ollama", ("OLLAMA_API_KEY",), "OLLAMA_BASE_URL", "http://localhost:11434/v1", keyless=True
    ),
}


def split(model: str, url: str | None) -> tuple[Vendor, str]:
    """Return the vendor and the name in *model*, which is ``"vendor:name"``, or just a name where there is a *url*.

    Raises:
        ConfigError: If there is no vendor in it.
    """
    prefix, colon, name = model.partition(":")
    if prefix in VENDORS and name:
        vendor = VENDORS[prefix]
        if url is not None and prefix == "openai":  # what others offer at a URL is the older of OpenAI's two ways
            vendor = Vendor("openai-chat", "openai", vendor.keys, url=url, keyless=True)
        return vendor, name
    if url is not None and model:
        return Vendor("openai-chat", "openai", ("OPENAI_API_KEY",), url=url, keyless=True), model
    if not (colon and prefix and name):
        hint = near(prefix, VENDORS) if colon else "; write 'vendor:name', as in 'openai:gpt-5', or give a url="
        raise ConfigError(f"Model: model={model!r} names no vendor{hint}")
    return Vendor(prefix, prefix, keyless=True), name  # one more that pydantic-ai knows, with its own variables


def key_of(vendor: Vendor, key: SecretStr | None, model: str) -> str | None:
    """Return the key to use now: the one given, else that of the environment; None where none is needed.

    Raises:
        AuthError: If there is none.
    """
    if key is not None:
        return key.get_secret_value()
    found = next((os.environ[name] for name in vendor.keys if os.environ.get(name)), None)
    if found is None and not vendor.keyless:
        names = " or ".join(vendor.keys)
        raise AuthError(f"{model}: there is no key; set {names}, or give key=", model=model)
    return found


def url_of(vendor: Vendor, url: str | None) -> str | None:
    """Return the address to ask; None: the vendor's own."""
    return url or (os.environ.get(vendor.address) if vendor.address else None) or vendor.url
