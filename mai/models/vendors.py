"""Who offers models: how a vendor is called, where its key is found, and how its endpoint is reached."""

import os
from dataclasses import dataclass, replace
from typing import Annotated
from urllib.parse import urlsplit

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
    and ``address`` name environment variables, ``url`` is where to go if neither a URL nor that variable is given, and
    ``home`` is whose key the variables hold.
    """

    kind: str
    label: str
    keys: tuple[str, ...] = ()
    address: str = ""
    url: str | None = None
    home: str = ""
    keyless: bool = False


_HUB = "https://router.huggingface.co/v1"
_HERE = "http://localhost:11434/v1"
VENDORS = {
    "openai": Vendor("openai", "openai", ("OPENAI_API_KEY",), "OPENAI_BASE_URL", home="https://api.openai.com"),
    "anthropic": Vendor(
        "anthropic", "anthropic", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL", home="https://api.anthropic.com"
    ),
    "google": Vendor(
        "google",
        "gcp.gemini",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        home="https://generativelanguage.googleapis.com",
    ),
    "huggingface": Vendor("openai-chat", "huggingface", ("HF_TOKEN",), url=_HUB, home=_HUB),
    "ollama": Vendor("ollama", "ollama", ("OLLAMA_API_KEY",), "OLLAMA_BASE_URL", _HERE, home=_HERE, keyless=True),
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
            vendor = replace(vendor, kind="openai-chat", url=url, keyless=True)
        return vendor, name
    if url is not None and model:
        return replace(VENDORS["openai"], kind="openai-chat", url=url, keyless=True), model
    if not (colon and prefix and name):
        hint = near(prefix, VENDORS) if colon else "; write 'vendor:name', as in 'openai:gpt-5', or give a url="
        raise ConfigError(f"Model: model={model!r} names no vendor{hint}")
    return Vendor(prefix, prefix, keyless=True), name  # one more that pydantic-ai knows, with its own variables


def key_of(vendor: Vendor, key: SecretStr | None, model: str, url: str | None) -> str | None:
    """Return the key to send to *url* now: the one given, else the environment's, which is for the vendor alone.

    None: none is needed.

    Raises:
        AuthError: If there is none.
    """
    if key is not None:
        return _checked(key.get_secret_value(), model)
    names = " or ".join(vendor.keys)
    foreign = url is not None and not _is_of(vendor, url)
    found = None if foreign else next((os.environ[name] for name in vendor.keys if os.environ.get(name)), None)
    if found is None and not vendor.keyless:
        what = f"{names} is not sent to this url; give key=" if foreign else f"set {names}, or give key="
        raise AuthError(f"{model}: there is no key; {what}", model=model)
    return None if found is None else _checked(found, model)


def _checked(key: str, model: str) -> str:
    """Return *key* without what stands around it in many a file.

    Raises:
        AuthError: If no header can carry it; the SDKs show it then.
    """
    found = key.strip()
    if not (found.isascii() and found.isprintable()):
        raise AuthError(f"{model}: the key holds characters that no HTTP header can carry", model=model)
    return found


def unsent(vendor: Vendor, key: SecretStr | None, url: str | None) -> str:
    """Return what to add if an endpoint wants a key: that the one in the environment was not sent to it."""
    there = [name for name in vendor.keys if os.environ.get(name)]
    if key is not None or url is None or not there or _is_of(vendor, url):
        return ""
    return f"; {there[0]} is not sent to this url, so give key="


def _is_of(vendor: Vendor, url: str) -> bool:
    """Say whether *url* is the vendor's: its own, or where its variable says that it is."""
    known = vendor.home, os.environ.get(vendor.address, "") if vendor.address else ""
    return _origin(url) in [_origin(address) for address in known if address]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, the host and the port of *url*."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def url_of(vendor: Vendor, url: str | None) -> str | None:
    """Return the address to ask; None: the vendor's own."""
    return url or (os.environ.get(vendor.address) if vendor.address else None) or vendor.url
