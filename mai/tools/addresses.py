"""Where a request may go: which URLs, hosts and addresses are meant, however they are spelt.

A name is judged by what is really connected to. So a URL is taken apart strictly (what two parsers could read in two
ways is refused), and an address is public only if every address that is written inside of it is, too.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from mai.errors import ConfigError

from .errors import AccessRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_SAFE = "!$&'()*+,;=:@/?-._~%[]"  # what may stand in a path or a query as it is

# What `ipaddress` takes for public, in one of its versions at least, and is not for a request.
_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        [
            "168.63.129.16/32",  # public by its number, and a door into the infrastructure of Azure
            "192.0.0.0/24",  # IETF protocol assignments, and metadata of Oracle's cloud
            "192.88.99.0/24",  # relays of 6to4
            "2001::/23",  # IETF protocol assignments, Teredo among them
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ],
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")  # all that is given out of IPv6
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: The name as ASCII in lower case, or the address, without brackets.
        port: The port.
        path: Path and query, encoded.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host and, where it is not the scheme's own, the port: what a ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if PORTS[self.scheme] == self.port else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, in one spelling."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What decides whether two requests go to the same server."""
        return self.scheme, self.host, self.port


def target_of(url: str) -> Target:
    """Return where *url* leads.

    Raises:
        AccessRefused: If it is no http or https URL, or one that could be read in two ways.
    """
    if any(char <= " " or char == "\\" or char == "\x7f" for char in url):
        raise AccessRefused(f"the URL {url!r} has a blank, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AccessRefused(f"the URL {url!r} cannot be read: {error}") from None
    if parts.scheme not in PORTS or not url.lower().startswith(f"{parts.scheme}://"):
        raise AccessRefused(f"the URL {url!r} does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise AccessRefused("the URL has a user name or a password; such URLs are not used")
    host = host_of(_bracketed(parts, url))
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Target(parts.scheme, host, PORTS[parts.scheme] if port is None else port, path)


def _bracketed(parts: SplitResult, url: str) -> str:
    """Return the host of a URL; an address of IPv6 stands in brackets there, and nothing else does."""
    host = parts.hostname or ""
    if ("[" in parts.netloc) != (":" in host) or "%" in host:
        raise AccessRefused(f"the URL {url!r} has a host that cannot be read")
    return host


def host_of(host: str) -> str:
    """Return *host* in its one spelling: ASCII, lower case, no trailing dot; an address as it is usually written.

    Raises:
        AccessRefused: If it is no host name, or an address in a spelling that hides it.
    """
    address = _address(host)
    if address is not None:
        return str(address)
    try:
        name = host.encode("idna").decode("ascii").lower() if not host.isascii() else host.lower()
    except UnicodeError:
        raise AccessRefused(f"{host!r} is no host name") from None
    name = name.removesuffix(".")
    if _address(name) is not None:
        raise AccessRefused(f"{host!r} is the address {name} in disguise")
    labels = name.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or len(name) > 253:
        raise AccessRefused(f"{host!r} is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        raise AccessRefused(f"{host!r} is a number, not a host name; write an address as 192.0.2.1")
    return name


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Hosts:
    """Which hosts may be asked.

    Args:
        patterns: Host names, ``*.example.org`` for all names below one (not itself), ``*`` for every public host; each
            may end in ``:port``.

    Raises:
        ConfigError: If there is none, or one is no host name.
    """

    def __init__(self, *patterns: str) -> None:
        if not patterns:
            raise ConfigError("http: name the hosts that may be asked; '*' stands for every public one")
        self._patterns = [self._parsed(pattern) for pattern in patterns]

    @staticmethod
    def _parsed(pattern: str) -> tuple[str, int | None]:
        name, port = pattern, None
        if (match := re.fullmatch(r"(.*[^:]|\[.*\]):([0-9]{1,5})", pattern)) and _address(pattern) is None:
            name, port = match[1], int(match[2])
        name = name.removeprefix("[").removesuffix("]")
        if name == "*":
            return name, port
        try:
            return ("*." if name.startswith("*.") else "") + host_of(name.removeprefix("*.")), port
        except AccessRefused as error:
            raise ConfigError(f"http: {pattern!r} cannot be a host that may be asked: {error}") from None

    def check(self, target: Target) -> None:
        """Return if *target* may be asked.

        Raises:
            AccessRefused: If not.
        """
        for name, port in self._patterns:
            below = name.startswith("*.") and target.host.endswith(name[1:]) and _address(target.host) is None
            if (name in ("*", target.host) or below) and target.port == (port or PORTS[target.scheme]):
                return
        raise AccessRefused(f"{target.authority} is not among the hosts that may be asked")


def networks(given: tuple[str, ...]) -> tuple[Network, ...]:
    """Return *given*, such as ``"10.1.0.0/16"``, as networks.

    Raises:
        ConfigError: If one is none.
    """
    try:
        return tuple(ipaddress.ip_network(one) for one in given)
    except ValueError as error:
        raise ConfigError(f"http: private={given!r} cannot be used: {error}") from error


def check_address(text: str, host: str, private: tuple[Network, ...] = ()) -> str:
    """Return the address *text* of *host* if it is public, or in one of the networks *private*.

    Raises:
        AccessRefused: If it is neither.
    """
    address = _address(text.partition("%")[0])
    if address is None:
        raise AccessRefused(f"{host!r} leads to {text!r}, which is no address")
    if not any(address in network for network in private) and not is_public(address):
        raise AccessRefused(f"{host!r} leads to {text}, which is no public address")
    return text


def is_public(address: Address) -> bool:
    """Say whether *address*, and each address that is written inside of it, can be anybody's in the internet."""
    if address.is_multicast or any(address in network for network in _REFUSED):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global
    inside = _inside(address)
    tunnel = address in _NAT64 or address.ipv4_mapped is not None  # these are what is inside, and nothing more
    return (tunnel or (address in _UNICAST and address.is_global)) and all(map(is_public, inside))


def _inside(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the addresses of IPv4 that *address* stands for or leads through."""
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    found = [] if address.ipv4_mapped is None else [address.ipv4_mapped]
    hidden = address in _NAT64 or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return [*found, low] if hidden else found
