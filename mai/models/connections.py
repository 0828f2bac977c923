"""The clients of one model: one for each event loop, made when first needed, and again when the key has changed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from mai.core.frame import current
from mai.core.threads import offload
from mai.middleware import Redactor

from .provider import Client
from .vendors import key_of, split, unsent, url_of

Connect = Callable[[str, str, str | None, str | None], Client]
_SHORTEST_KEY = 8  # characters; what is shorter is a word such as "none", and no secret


@dataclass
class _Here:
    """The clients of one event loop, by what they were made of."""

    clients: dict[object, Client] = field(default_factory=dict[object, Client])
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Connections:
    """Clients that *connect* makes; shared by a model and its copies."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Here] = WeakKeyDictionary()

    async def client(self, model: str, url: str | None, key: SecretStr | None) -> tuple[Any, Redactor, str]:
        """Return the client to ask *model* with, what knows the key that it uses, and what to add if that is refused.

        Raises:
            AuthError: If there is no key.
            ConfigError: If the extra is not installed, or the vendor cannot be reached so.
        """
        vendor, name = split(model, url)
        secret = key_of(vendor, key, model, url)
        facts = vendor.kind, name, secret, url_of(vendor, url)
        here = self._loops.setdefault(asyncio.get_running_loop(), _Here())
        if facts not in here.clients:
            async with here.lock:
                if facts not in here.clients:  # in a thread: the first time, a lot is imported
                    connect = partial(self._connect, *facts)
                    here.clients[facts] = connect() if current().run is None else await offload(connect)
        client = here.clients[facts]
        # A vendor that is not known here has read a variable of its own.
        used: Any = secret or getattr(getattr(client.provider, "client", None), "api_key", None)
        redactor = Redactor(*([used] if isinstance(used, str) and len(used) >= _SHORTEST_KEY else []))
        return client.asked, redactor, unsent(vendor, key, url)

    async def aclose(self) -> None:
        """Close the clients of this event loop."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        for client in here.clients.values() if here is not None else ():
            async with client.provider:  # which closes on the way out what it made itself
                pass
