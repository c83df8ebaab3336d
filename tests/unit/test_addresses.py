"""Which addresses a webhook may be sent to: default deny."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.addresses import (
    innermost,
    is_public,
    literal,
    may_dial,
    parse_networks,
    webhook_complaint,
)

PUBLIC = (
    "8.8.8.8 1.1.1.1 2001:4860:4860::8888 2606:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8".split()
)
DANGEROUS = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.0.1 169.254.169.254
    172.16.0.1 172.31.255.255 192.168.0.1 198.18.0.1 198.19.255.255 192.0.2.1 198.51.100.1 203.0.113.1
    224.0.0.1 233.252.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    192.0.0.1 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.192 192.88.99.1 168.63.129.16 100.100.100.200
    192.31.196.1 192.52.193.1 192.175.48.1 2620:4f:8000::1 100:0:0:1::1
    :: ::1 ::7f00:1 ::ffff:0:7f00:1 100::1 5f00::1 4000::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 ff0e::1
    2001::1 2001:0:7f00:1::1 2001:1::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1 2001:db8::1
    2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 3fff::1 3fff:fff::1 64:ff9b:1::1 64:ff9b:1::808:808
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:168.63.129.16 ::ffff:192.0.0.9
    64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::a9fe:a9fe 64:ff9b::a83f:8110 64:ff9b::c000:9 64:ff9b::e000:1
    fe80::1%eth0 ::1%1 2001:4860:4860::8888%1 64:ff9b::808:808%1
""".split()


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_open_internet_are_let_through(text: str) -> None:
    assert is_public(ip_address(text))
    assert may_dial(ip_address(text))


@pytest.mark.parametrize("text", DANGEROUS)
def test_dangerous_addresses_are_refused(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not may_dial(ip_address(text))


_INSIDE = [
    IPv4Network(net)
    for net in "10.0.0.0/8 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 0.0.0.0/8 224.0.0.0/3".split()
]


def _wrapped(address: IPv4Address) -> list[IPv4Address | IPv6Address]:
    """The address itself, mapped, by NAT64, by 6to4, by Teredo, and as the old IPv4-compatible
    form.
    """
    number = int(address)
    return [
        address,
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
        IPv6Address(number),
    ]


@given(
    st.sampled_from(_INSIDE)
    .flatmap(lambda net: st.integers(int(net[0]), int(net[-1])))
    .map(IPv4Address)
)
def test_no_inside_address_is_public_in_any_wrapping(address: IPv4Address) -> None:
    assert not any(is_public(one) for one in _wrapped(address))


@given(st.ip_addresses(v=4))
def test_a_mapped_or_translated_address_is_judged_by_the_one_inside(address: IPv4Address) -> None:
    plain, mapped, translated, *others = _wrapped(address)
    assert innermost(mapped) == innermost(translated) == innermost(plain) == address
    assert is_public(mapped) == is_public(translated) == is_public(plain)
    assert not any(is_public(one) for one in others)


@given(st.ip_addresses(v=6))
def test_only_global_unicast_is_ever_public_among_v6(address: IPv6Address) -> None:
    if is_public(address):
        assert (
            isinstance(innermost(address), IPv4Address) or address in parse_networks("2000::/3")[0]
        )
        assert not address.is_private
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("text", "allowed", "may"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("::ffff:127.0.0.1", "127.0.0.0/8", True),
        ("64:ff9b::7f00:1", "127.0.0.0/8", True),
        ("10.1.2.3", "127.0.0.0/8, 10.0.0.0/8", True),
        ("10.1.2.3", "127.0.0.0/8", False),
        ("::1", "127.0.0.0/8", False),
        ("::1", "::1/128", True),
        ("fd00::5", "fd00::/8", True),
        ("127.0.0.1", "::/0", False),
        ("8.8.8.8", "10.0.0.0/8", True),
    ],
)
def test_the_operator_may_allow_networks_on_purpose(text: str, allowed: str, may: bool) -> None:
    assert may_dial(ip_address(text), parse_networks(allowed)) is may


@pytest.mark.parametrize(
    "host",
    "127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0x7F.0.0.0x1 0177.0.0.1 017700000001 127.0.0.1. localhost LocalHost "
    "localhost. a.b.localhost".split(),
)
def test_every_spelling_of_a_loopback_address_is_recognised(host: str) -> None:
    assert literal(host) == IPv4Address("127.0.0.1")


@pytest.mark.parametrize("host", ["[::1]", "::1", "0:0:0:0:0:0:0:1", "[::1%eth0]"])
def test_v6_literals_are_recognised_with_and_without_brackets(host: str) -> None:
    found = literal(host)
    assert found is not None
    assert not is_public(found)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost.example.com",
        "a1",
        "dead.beef",
        "1.2.3.4.5",
        "256.1.1.1",
        "",
        ".",
        "x--1",
    ],
)
def test_a_name_is_no_literal(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize(
    "url",
    """
    https://example.com/ http://example.com:8443 https://müller.example/ https://straße.example/ https://例え.テスト/ https://example.com./
    https://xn--mller-kva.example/ https://www.xn--ls8h.la/ https://my_service.example/ https://hook/ https://EXAMPLE.com:/ https://8.8.8.8
    https://[2001:4860:4860::8888]:8443/ https://[64:ff9b::808:808]/ https://[::ffff:8.8.8.8]/ https://1.example/ https://0x8.example/
    """.split(),
)
def test_a_url_of_the_open_internet_is_taken(url: str) -> None:
    assert webhook_complaint(url) is None


@pytest.mark.parametrize(
    ("says", "hosts"),
    [
        (
            "IDNA 2008",
            "☃.example ⓔⓧ.example ½.example １２.example xn--a xn--ls8h.la "
            + "ü" * 64
            + ".example",
        ),
        (
            "DNS can carry",
            "a..b .example example.. -a.example a-.example a!b.example a,b.example 例.1 1.2.3.4.5 256.1.1.1 1.2.3.08 a.0x8",
        ),
        ("DNS can carry", "a" * 64 + ".example " + "a." * 126 + "ab"),
        ("address 8.8.8.8 just so", "134744072 010.8.8.8 0x8.8.8.8 8.8.2056 8.8.8.8. 8。8。8。8。"),
        (
            "well-formed",
            "[v1.x] [8.8.8.8] [2001:4860:4860::8888]6379 a[2001:4860:4860::8888] a[]b 1℀.example a／b.example",
        ),
        ("without %", "%61.example 127%2e0.0.1 [2001:4860:4860::8888%251]"),
    ],
)
def test_a_host_that_parsers_read_in_two_ways_or_nobody_can_dial_is_refused(
    says: str, hosts: str
) -> None:
    for host in hosts.split():
        assert says in str(webhook_complaint(f"https://{host}/x")), host


def test_a_name_may_have_253_characters_and_labels_of_63() -> None:
    assert webhook_complaint("https://" + "a." * 126 + "a/") is None
    assert webhook_complaint("https://" + "a" * 63 + ".example/") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://h.example",
        "https://h.example",
        "http://h.example:443",
        "https://h.example:8001/",
        "https://8.8.8.8",
    ],
)
def test_a_port_that_the_operator_offers_is_taken(url: str) -> None:
    assert webhook_complaint(url, ports=(range(80, 81), range(443, 444), range(8000, 8002))) is None


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://h.example", 80),
        ("https://h.example:", 443),
        ("https://h.example:8002", 8002),
        ("https://8.8.8.8:22/", 22),
    ],
)
def test_any_other_port_is_refused_by_its_number(url: str, port: int) -> None:
    complaint = webhook_complaint(url, parse_networks("127.0.0.0/8"), (range(8000, 8002),))
    assert complaint == f"the webhook names port {port}, which is not in CAVENDISH_WEBHOOK_PORTS"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "[fd00::5]", "8.8.4.4"]
)
def test_an_address_that_the_operator_listed_is_taken_at_any_port(host: str) -> None:
    listed = (net for net in parse_networks("127.0.0.0/8,fd00::/8,8.8.4.4"))
    assert webhook_complaint(f"http://{host}:22/", listed, (range(443, 444),)) is None


def test_networks_are_read_from_a_list_and_a_bad_one_is_named() -> None:
    assert [str(net) for net in parse_networks(" 10.0.0.1/8 ,, fd00::/8,192.0.2.1")] == [
        "10.0.0.0/8",
        "fd00::/8",
        "192.0.2.1/32",
    ]
    assert parse_networks("") == ()
    with pytest.raises(ValueError, match="'elsewhere'"):
        parse_networks("10.0.0.0/8,elsewhere")
