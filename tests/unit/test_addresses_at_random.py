"""Thousands of generated addresses and URLs against three oracles: IANA's registries, `ssrfguard`,
and httpx with the resolver.

The chance is seeded, so every run sees the same cases. What we and an oracle see differently stands
in a table with its reason.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random
from unicodedata import normalize
from urllib.parse import urlsplit

import httpx
import idna
from ssrfguard import BlockedURLError, Policy

from cavendish.policy.addresses import (
    Address,
    Network,
    innermost,
    is_public,
    literal,
    may_dial,
    parse_networks,
    webhook_complaint,
)

EACH = 12_000  # at least so many different addresses, and as many URLs
SSRFGUARD = Policy(allowed_ports=frozenset(range(1, 65536)))

# --- the oracle from the registries:
# https://www.iana.org/assignments/iana-ipv{4,6}-special-registry, of August 2026

_REGISTRIES = """
    0.0.0.0/8 this network              10.0.0.0/8 private                100.64.0.0/10 carrier NAT
    127.0.0.0/8 loopback                169.254.0.0/16 link-local         172.16.0.0/12 private
    192.0.0.0/24 IETF protocols         192.0.0.0/29 DS-Lite              192.0.0.8/32 dummy
    192.0.0.9/32 PCP anycast            192.0.0.10/32 TURN anycast        192.0.0.170/32 NAT64 discovery
    192.0.0.171/32 NAT64 discovery      192.0.2.0/24 documentation        192.31.196.0/24 AS112
    192.52.193.0/24 AMT                 192.88.99.0/24 6to4 relays        192.88.99.2/32 6a44 relay
    192.168.0.0/16 private              192.175.48.0/24 AS112             198.18.0.0/15 benchmarks
    198.51.100.0/24 documentation       203.0.113.0/24 documentation      224.0.0.0/4 multicast
    240.0.0.0/4 reserved                255.255.255.255/32 broadcast      168.63.129.16/32 Azure's inside
    ::1/128 loopback                    ::/128 unspecified                ::/96 IPv4-compatible
    ::ffff:0:0:0/96 SIIT                64:ff9b:1::/48 local NAT64        100::/64 discard
    100:0:0:1::/64 dummy                2001::/23 IETF protocols          2001::/32 Teredo
    2001:1::1/128 PCP anycast           2001:1::2/128 TURN anycast        2001:1::3/128 DNS-SD anycast
    2001:2::/48 benchmarks              2001:3::/32 AMT                   2001:4:112::/48 AS112
    2001:10::/28 ORCHID                 2001:20::/28 ORCHIDv2             2001:30::/28 drones
    2001:db8::/32 documentation         2002::/16 6to4                    2620:4f:8000::/48 AS112
    3fff::/20 documentation             5f00::/16 SRv6                    fc00::/7 unique local
    fe80::/10 link-local                fec0::/10 site-local              ff00::/8 multicast
"""
SPECIAL = [ip_network(word) for word in _REGISTRIES.split() if "/" in word and word[-1].isdigit()]
MAPPED, NAT64, UNICAST = (ip_network(net) for net in ("::ffff:0:0/96", "64:ff9b::/96", "2000::/3"))
METADATA = (
    "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 169.254.42.42 169.254.169.253 "
    "fd00:ec2::254 fd20:ce::254 fd00:42::42 fe80::a9fe:a9fe"
).split()


def registries_say_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address in MAPPED or address in NAT64:
            return registries_say_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in UNICAST:
            return False
    return not any(address in net for net in SPECIAL)


# --- addresses

#: What ssrfguard refuses and we let through: nothing. A line here would be a network and a reason.
LOOSER_ADDRESSES: dict[str, str] = {}
#: What we refuse and ssrfguard lets through.
STRICTER_ADDRESSES = {
    "168.63.129.16/32": "Azure's inside service at a public address; no registry has it",
    "192.0.0.9/32": "anycast: the nearest port control server, which is one's own router",
    "192.0.0.10/32": "anycast: the nearest TURN relay, which is one's own provider's or one's own",
    "192.31.196.0/24": "anycast: the nearest AS112 name server, maybe one's own; no receiver lives there",
    "192.52.193.0/24": "anycast: the nearest multicast relay, maybe one's own",
    "192.175.48.0/24": "anycast: AS112 again",
    "2620:4f:8000::/48": "anycast: AS112 again",
    "::/96": "IPv4-compatible: obsolete since 2006; ssrfguard judges by the address inside",
    "::ffff:0:0:0/96": "SIIT: outside of what is given out, and an address lies inside",
    "2001::/23": "protocols, Teredo among them: tunnels, identifiers and anycast, no hosts",
    "2002::/16": "6to4: a tunnel; ssrfguard judges by the address inside",
    "::/3": "not given out by IANA, default deny",
    "4000::/2": "not given out by IANA, default deny",
    "8000::/1": "not given out by IANA, default deny",
}


def _wrapped(number: int, chance: Random) -> list[Address]:
    """A v4 address in everything that carries one."""
    prefixes = [
        0,
        0xFFFF << 32,
        0xFFFF << 48,
        0x64FF9B << 96,
        0x64FF9B0001 << 80 | chance.getrandbits(48) << 32,
    ]
    isatap = [prefix << 64 | 0x5EFE << 32 for prefix in (0xFE80 << 48, 0x20014860 << 32)]
    teredo = 0x20010000 << 96 | chance.choice([number, 0x08080808]) << 64 | number ^ 0xFFFFFFFF
    return [
        *(IPv6Address(prefix | number) for prefix in prefixes + isatap),
        IPv6Address(0x2002 << 112 | number << 80),
        IPv6Address(teredo),
    ]


def _around(net: Network, chance: Random) -> list[Address]:
    """Both ends of a network, their neighbours, and something inside."""
    make, last = (IPv4Address, 2**32) if net.version == 4 else (IPv6Address, 2**128)
    first, end = int(net[0]), int(net[-1])
    near = [
        first - 2,
        first - 1,
        first,
        first + 1,
        end - 1,
        end,
        end + 1,
        end + 2,
        chance.randint(first, end),
        chance.randint(first, end),
    ]
    return [make(number) for number in near if 0 <= number < last]


@cache
def addresses() -> list[Address]:
    chance = Random(20261123)
    found = [ip_address(text) for text in METADATA]
    for net in [*SPECIAL, MAPPED, NAT64, UNICAST, *map(ip_network, STRICTER_ADDRESSES)]:
        found += _around(net, chance)
    found += [IPv4Address(chance.getrandbits(32)) for _ in range(2_000)]
    for inside in [one for one in found if isinstance(one, IPv4Address)][:900]:
        found += _wrapped(int(inside), chance)
    found += [IPv6Address(1 << 125 | chance.getrandbits(125)) for _ in range(2_000)]
    found += [IPv6Address(chance.getrandbits(128)) for _ in range(1_000)]
    found += [IPv6Address(chance.getrandbits(chance.randrange(1, 129))) for _ in range(500)]
    found += [
        IPv6Address(f"{one}%{chance.choice(['1', 'eth0', 'lo'])}")
        for one in chance.choices(found, k=700)
        if one.version == 6
    ]
    return list(dict.fromkeys(found))


def _reason(address: Address, table: dict[str, str]) -> str | None:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "a scope names a link of this machine; ssrfguard does not look at it"
    inner = innermost(address)
    return next(
        (
            net
            for net in table
            if inner.version == ip_network(net).version and inner in ip_network(net)
        ),
        None,
    )


def test_ten_thousand_addresses_are_judged_as_the_registries_say() -> None:
    assert len(addresses()) >= EACH
    assert 3_000 < sum(map(is_public, addresses())) < EACH - 3_000
    assert [one for one in addresses() if is_public(one) is not registries_say_public(one)] == []
    assert [one for one in addresses() if may_dial(one) is not is_public(one)] == []


def test_no_address_that_ssrfguard_refuses_is_let_through() -> None:
    looser = [one for one in addresses() if is_public(one) and not SSRFGUARD.permits_address(one)]
    assert [one for one in looser if _reason(one, LOOSER_ADDRESSES) is None] == []
    assert looser or not LOOSER_ADDRESSES


def test_each_address_that_only_we_refuse_has_its_reason_and_each_reason_its_address() -> None:
    stricter = [one for one in addresses() if SSRFGUARD.permits_address(one) and not is_public(one)]
    reasons = [_reason(one, STRICTER_ADDRESSES) for one in stricter]
    assert [one for one, reason in zip(stricter, reasons, strict=True) if reason is None] == []
    assert set(STRICTER_ADDRESSES) <= set(reasons)


# --- URLs


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)


def _address_that_only_we_refuse(url: str) -> bool:
    address = literal(_host(url))
    return address is not None and SSRFGUARD.permits_address(address) and not is_public(address)


#: What ssrfguard refuses and we let through: the reason, and where it holds.
LOOSER_URLS: dict[str, Callable[[str], bool]] = {
    "an underscore in a name: such names resolve, and the dial judges what they resolve to": lambda url: (
        "_" in _host(url)
    ),
}
#: What we refuse and ssrfguard lets through.
STRICTER_URLS: dict[str, Callable[[str], bool]] = {
    "an address that only we refuse": _address_that_only_we_refuse,
    "a name of this machine, and an address in hexadecimal: ssrfguard leaves both to its resolver": lambda url: (
        _host(url).rstrip(".").endswith("localhost") or "0x" in _host(url)
    ),
    "a last label that is a number, as no name of the Internet has": lambda url: (
        _host(url).rstrip(".")[-1].isdigit()
    ),
    "a backslash, white space or a character that shows nothing": lambda url: (
        "\\" in url or " " in url or not url.isprintable()
    ),
    "dead letters that IDNA 2003 turns into others, and that IDNA 2008, which httpx uses, refuses": lambda url: (
        not _host(url).isascii()
    ),
    "a name that begins with xn-- and that httpx cannot read": lambda url: _host(url).startswith(
        "xn--"
    ),
    "more than a port behind a bracket, or no address in it: httpx reads another port, or nothing": lambda url: (
        "]" in url
    ),
    "a hyphen at the end of a label": lambda url: (
        "-" in (_host(url).rstrip(".")[-1], _host(url).rpartition(".")[2][:1])
    ),
}
NAMES = """
    example.com hook.example a.b.c.example EXAMPLE.com my_service.example _x.example müller.example MÜLLER.example straße.example
    пример.рф 例え.テスト xn--mller-kva.example xn--bcher-kva.example xn--a xn--ls8h.la www.xn--ls8h.la ☃.example ⓔⓧ.example
    localhost LOCALHOST a.localhost localhost.example ⓛocalhost ſocalhost ıocalhost ip6-localhost metadata.google.internal
    -a.example a-.example a.example- a..example .example example.. 1.2.3.4.5 256.1.1.1 1.2.3.08 example.1 example.0x8 0x 08
    v1.x a,b.example a!b.example ex*mple.com ꟓ.example İ.example K.example ½.example 1℀.example a／b.example a＠b.example
    a：b.example ａ．example ２１３０７０６４３３ ०.example
""".split()
NAMES += [
    "a" * 63 + ".example",
    "a" * 64 + ".example",
    "ü" * 60 + ".example",
    "a." * 900,
    "ab." * 84,
    "ab." * 85,
]
SPECIALS = "\t\n\r \x00\x0b\x1f\x7f\x85\xa0\xad\u200b\u200d\u2028\u3000\ufeff\ud800\\%@:/?#[]。．｡．①½℀／＠：⁄．"
DIGITS = [
    str.maketrans("0123456789", row)
    for row in ("０１２３４５６７８９", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⁰¹²³⁴⁵⁶⁷⁸⁹", "०१२३४५६७८९", "⓪①②③④⑤⑥⑦⑧⑨")
]


def _number(value: int, chance: Random) -> str:
    return chance.choice(
        [str(value), f"{value:#x}", f"{value:#X}", f"0{value:o}", f"00{value:o}", str(value)]
    )


def _spelling(address: Address, chance: Random) -> str:
    """An address as somebody may write it who wants it to be taken for something else."""
    number = int(address)
    if isinstance(address, IPv6Address):
        plain = IPv6Address(number)
        dotted = f"::ffff:{IPv4Address(number & 0xFFFFFFFF)}" if plain in MAPPED else str(plain)
        zone = chance.choice([*[""] * 8, "%25eth0", "%1"])
        return f"[{chance.choice([str(plain), plain.exploded, str(plain).upper(), dotted])}{zone}]"
    bytes_ = list(number.to_bytes(4))
    parts = chance.choice(
        [bytes_, bytes_, [*bytes_[:2], number & 0xFFFF], [bytes_[0], number & 0xFFFFFF], [number]]
    )
    if chance.random() < 0.4:
        return str(address)
    return ".".join(_number(part, chance) for part in parts)


def _disguised(host: str, chance: Random) -> str:
    at = chance.randrange(len(host) + 1)
    return chance.choice(
        [
            host + ".",
            host + "..",
            host.upper(),
            host.replace(".", chance.choice("。．｡")),
            host.translate(chance.choice(DIGITS)),
            host[:at] + chance.choice(SPECIALS) + host[at:],
            host[:at] + chance.choice(SPECIALS) + host[at:],
            "".join(f"%{ord(c):02x}" if c in host[at : at + 1] else c for c in host),
            f"[{host}]",
            f"[v1.{host}]",
            f"{host}[::1]",
            f"[::1]{host}",
            f"user:word@{host}",
            f"{host}@hook.example",
            f"hook.example\\@{host}",
            f"{host}6379",
            f"{host}.nip.example",
            f"hook.example#@{host}",
        ]
    )


@cache
def urls() -> list[str]:
    chance = Random(20261124)
    pool = [one for one in addresses() if one.version == 4 or chance.random() < 0.4]
    found: list[str] = []
    while len(found) < EACH + 1_000:
        host = (
            chance.choice(NAMES)
            if chance.random() < 0.3
            else _spelling(chance.choice(pool), chance)
        )
        for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
            host = _disguised(host, chance)
        odd = chance.random() < 0.2
        scheme = chance.choice(
            ["http", "HTTP", "Https", "ftp", "ws", ""] if odd else ["https", "http", "HTTPS"]
        )
        slashes = chance.choice([":", ":/", ":///", "//", ":\\\\", *["://"] * 30])
        ports = (
            [":0", ":65536", ":x", ":+80", ":8_0", ":８０", ":1:2"]
            if odd
            else ["", "", ":", ":80", ":0443", ":65535"]
        )
        path = chance.choice(["", "/", "/x?y=@z", "//x", "?q", "#f", "/..", "/ü/%zz"])
        found.append(f"{scheme}{slashes}{host}{chance.choice(ports)}{path}")
    return list(dict.fromkeys(found))


def _guarded(url: str) -> bool:
    try:
        SSRFGUARD.check_url(url)
    except BlockedURLError:
        return False
    return True


def _httpx_reads(url: str) -> bool:
    try:
        return bool(httpx.URL(url).host)
    except (httpx.InvalidURL, ValueError):
        return False


def _as_resolvers_read(host: str) -> set[Address]:
    """The addresses that the system sees in a host without asking anybody."""
    found: set[Address] = set()
    with suppress(OSError):
        found.add(IPv4Address(socket.inet_aton(host)))
    with suppress(OSError):
        found |= {
            ip_address(row[4][0])
            for row in socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST)
        }
    return found


def test_what_passes_is_dialled_where_it_was_checked_and_an_address_in_it_is_public() -> None:
    assert len(urls()) >= EACH
    taken = [url for url in urls() if webhook_complaint(url) is None]
    assert 2_000 < len(taken) < EACH - 2_000
    for url in taken:
        checked, dialled = urlsplit(url), httpx.URL(url)
        default = {"http": 80, "https": 443}[checked.scheme]
        assert (dialled.scheme, dialled.userinfo) == (checked.scheme, b""), url
        assert (dialled.port or default) == (checked.port or default), url
        host = dialled.raw_host.decode().lower()
        plain = normalize("NFKC", _host(url)).replace("。", ".")
        assert host == plain or idna.decode(host) == idna.decode(plain), url
        assert host.rstrip(".").rpartition(".")[2] != "localhost", url
        seen = _as_resolvers_read(host)
        assert seen == {address for address in [literal(host)] if address}, url
        assert all(map(registries_say_public, seen)), url


def test_what_httpx_cannot_read_is_refused_at_submit() -> None:
    unread = [url for url in urls() if not _httpx_reads(url)]
    assert len(unread) > 1_000
    assert [url for url in unread if webhook_complaint(url) is None] == []


def test_what_the_operator_lists_lets_nothing_else_in() -> None:
    allowed = parse_networks("10.0.0.0/8,127.0.0.0/8,fc00::/7")
    more = [
        url
        for url in urls()
        if webhook_complaint(url) is not None and webhook_complaint(url, allowed) is None
    ]
    assert len(more) > 80
    inside = [innermost(address) for url in more if (address := literal(_host(url)))]
    assert len(inside) == len(more)
    assert [
        one
        for one in inside
        if not any(one.version == net.version and one in net for net in allowed)
    ] == []


def test_no_url_that_ssrfguard_refuses_is_let_through_but_for_a_listed_reason() -> None:
    looser = [url for url in urls() if webhook_complaint(url) is None and not _guarded(url)]
    assert [url for url in looser if not any(pauses(url) for pauses in LOOSER_URLS.values())] == []
    assert [reason for reason, pauses in LOOSER_URLS.items() if not any(map(pauses, looser))] == []


def test_each_url_that_only_we_refuse_has_its_reason_and_each_reason_its_url() -> None:
    stricter = [url for url in urls() if webhook_complaint(url) is not None and _guarded(url)]
    why = {
        url: [reason for reason, pauses in STRICTER_URLS.items() if pauses(url)] for url in stricter
    }
    assert [url for url, reasons in why.items() if not reasons] == []
    assert set(STRICTER_URLS) == {reasons[0] for reasons in why.values()}
