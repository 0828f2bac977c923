"""Where a request may go: no spelling of an address that is not public gets through."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai import ConfigError
from mai.tools import AccessRefused
from mai.tools.addresses import Hosts, check_address, host_of, is_public, networks, target_of
from tests.support import refused

# What leads to a place that is not public, or hides where it leads.
HOSTILE_URLS = [
    *("http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://017700000001/"),
    *("http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://0x7f.0x0.0x0.0x1/", "http://127.0.0.1./"),
    *("http://0177.0x0.0.1/", "http://127.000.000.001/", "http://00000177.0.0.1/", "http://4294967297/", "http://0/"),
    *("http://0.0.0.0/", "http://127.255.255.254/", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/"),
    *("http://[64:ff9b::169.254.169.254]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/"),
    *("http://[2002:a9fe:a9fe::1]/", "http://[2001:0:7f00:1::1]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/"),
    *("http://[fec0::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[::ffff:0:127.0.0.1]/"),
    *("http://[2606:4700::5efe:7f00:1]/", "http://[2606:4700::200:5efe:a00:1]/", "http://[2001:db8::1]/"),
    *("http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/"),
    *("http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://100.100.100.200/", "http://192.0.0.192/"),
    *("http://168.63.129.16/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.0.1/", "http://100.64.0.1/"),
    *("http://198.18.0.1/", "http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/", "http://192.88.99.1/"),
    *("http://203.0.113.7/", "http://[3fff::1]/", "http://[5f00::1]/", "http://[100::1]/", "http://0x/", "http://08/"),
    *("http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://127%2e0%2e0%2e1/"),
    *("http://example.org@127.0.0.1/", "http://127.0.0.1@example.org/", "http://user:pass@example.org/"),
    *("http://example.org\\@127.0.0.1/", "http:\\\\127.0.0.1/", "http://127.0.0.1\t/", "http://exa mple.org/"),
    *("http://example.org\r\nHost: 127.0.0.1/", "http://[::1", "http://::1/", "http://[127.0.0.1]/", "http:///etc/passwd"),
    *("http:127.0.0.1/", "//127.0.0.1/", "127.0.0.1", "", "file:///etc/passwd", "ftp://example.org/", "gopher://x.y/"),
    *("javascript:alert(1)", "data:text/plain,x", "unix:///var/run/docker.sock", "http://example.org:99999/"),
    *("http://example.org:x/", "http://-example.org/", "http://exa..mple.org/", "http://.org/"),
    *("http://" + "a" * 64 + ".de/", "http://" + "a." * 127 + "de/"),
    *("http://[v1.x]/", "http://[::1]x/", "http://[fe80::1%eth0]/", "http://\ud800.org/", "http://a.1/", "http://\x7f.org/"),
]  # fmt: skip


def allowed(url: str) -> str:
    """Return where *url* leads, if any public host may be asked and names lead to public addresses."""
    target = target_of(url)
    Hosts("*").check(target)
    literal = target.host.replace(".", "").isdigit() or ":" in target.host
    return check_address(target.host if literal else "93.184.216.34", target.host)


def test_there_are_enough_of_them() -> None:
    assert len(set(HOSTILE_URLS)) == len(HOSTILE_URLS) >= 90


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=ascii)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(AccessRefused):
        allowed(url)


HOSTILE_ADDRESSES = [
    *("127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "fd12::1", "0.0.0.0"),
    *("168.63.129.16", "100.64.1.1", "64:ff9b::a00:1", "2002:a00:1::1", "2002:808:808::1", "not an address"),
    *("", "224.0.0.251", "ff05::2"),
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES)
def test_what_a_name_resolves_to_must_be_public(address: str) -> None:
    with pytest.raises(AccessRefused, match=r"'evil\.example' leads to "):
        check_address(address, "evil.example")


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2a00::1"],
)
def test_public_addresses_are_let_through(address: str) -> None:
    assert check_address(address, "example.org") == address


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "64:ff9b::{}"]))
def test_an_address_inside_another_is_as_public_as_it_is_itself(address: ipaddress.IPv4Address, form: str) -> None:
    assert is_public(ipaddress.ip_address(form.format(address))) == is_public(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_python_takes_for_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        mapped = address.version == 6 and is_public(address)  # ::ffff:8.8.8.8 is one that Python takes for private
        assert not mapped or (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped)
        assert address.version == 6 or not is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_no_number_stands_for_a_host(number: int) -> None:
    for text in (str(number), hex(number), oct(number).replace("o", ""), f"{number >> 24}.{number & 0xFFFFFF}"):
        with pytest.raises(AccessRefused):
            host_of(text)


@pytest.mark.parametrize(
    ("url", "host", "rest"),
    [
        ("https://Example.ORG./a?b=c d".replace(" ", "%20"), "example.org", "/a?b=c%20d"),
        ("https://bücher.example/ä?ö=1#x", "xn--bcher-kva.example", "/%C3%A4?%C3%B6=1"),
        ("http://example.org", "example.org", "/"),
        ("http://[2606:4700::1111]:80/", "2606:4700::1111", "/"),
        ("http://example.org/%zz|<>", "example.org", "/%zz%7C%3C%3E"),
    ],
)
def test_a_url_has_one_spelling(url: str, host: str, rest: str) -> None:
    target = target_of(url)
    assert (target.host, target.path) == (host, rest)
    assert target_of(target.url) == target


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("example.org", "https://example.org/", True),
        ("example.org", "https://EXAMPLE.org./", True),
        ("example.org", "https://example.org:8443/", False),
        ("example.org", "http://example.org:443/", False),
        ("example.org", "https://www.example.org/", False),
        ("example.org", "https://example.org.evil.com/", False),
        ("example.org", "https://evilexample.org/", False),
        ("example.org:8443", "https://example.org:8443/", True),
        ("example.org:8443", "https://example.org/", False),
        ("*.example.org", "https://www.example.org/", True),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://evilexample.org/", False),
        ("*", "https://anything.example/", True),
        ("*", "https://anything.example:22/", False),
        ("*:8080", "http://anything.example:8080/", True),
        ("8.8.8.8", "http://8.8.8.8/", True),
        ("[2606:4700::1111]:8080", "http://[2606:4700::1111]:8080/", True),
        ("2606:4700::1111", "http://[2606:4700:0::1111]/", True),
        ("Bücher.example", "https://xn--bcher-kva.example/", True),
    ],
)
def test_hosts_are_named_exactly(pattern: str, url: str, fits: bool) -> None:
    hosts, target = Hosts(pattern), target_of(url)
    if fits:
        hosts.check(target)
    else:
        with refused(AccessRefused, f"{target.authority} is not among the hosts that may be asked"):
            hosts.check(target)


@pytest.mark.parametrize(
    "pattern", ["", "*.", "a b", "http://example.org", "example.org/x", "*.*.org", "127.1", "ex*mple.org"]
)
def test_what_is_no_host_cannot_be_named(pattern: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a host"):
        Hosts(pattern)


def test_a_network_may_be_let_through_and_nothing_beside_it() -> None:
    let = networks(("10.1.0.0/16", "::1/128"))
    assert check_address("10.1.2.3", "x", let) == "10.1.2.3"
    assert check_address("::1", "x", let) == "::1"
    with pytest.raises(AccessRefused):
        check_address("10.2.0.1", "x", let)
    with pytest.raises(ConfigError, match="private="):
        networks(("10.1.0.1/16",))
    with pytest.raises(ConfigError, match="name the hosts"):
        Hosts()
