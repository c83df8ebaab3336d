"""Pure: which network addresses may be dialled for a webhook (against SSRF). Default deny.

`ipaddress.is_global` alone accepts a dozen dangerous ranges, so the ranges that it misses are
listed here. An address that contains another one is treated as the inner one. A webhook URL is
accepted only if every parser reads the same host and port in it, and httpx can connect to it.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Anycast of infrastructure (AS112, AMT, 6to4 relays) leads to the nearest machine that offers it,
#: perhaps one inside.
_DENIED_V4 = (
    "168.63.129.16/32 192.0.0.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24"
)
_DENIED_V6 = "2001::/23 2002::/16 2620:4f:8000::/48 3fff::/20"
_DENIED = tuple(map(ip_network, f"{_DENIED_V4} {_DENIED_V6}".split()))
_UNICAST_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
#: The third 32 bits of an ISATAP address, under any prefix; two of the bits are flags (RFC 5214).
_ISATAP, _ISATAP_FLAGS = 0x00005EFE, 0x03000000

#: What all parsers read alike: a name or a bracketed address, then perhaps a port.
_AUTHORITY = re.compile(r"(\[[^]]*:[^]]*\]|[^][:]+)(:[0-9]*)?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443}


def innermost(address: Address) -> Address:
    """The address that is dialled in the end: IPv4-mapped and NAT64 addresses are unwrapped."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is None and address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """True for an address of the public Internet."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    inner = innermost(address)
    if isinstance(inner, IPv6Address):
        # A router that serves ISATAP forwards to the IPv4 address inside.
        isatap = (int(inner) >> 32) & 0xFFFFFFFF & ~_ISATAP_FLAGS == _ISATAP
        if isatap and not is_public(IPv4Address(int(inner) & 0xFFFFFFFF)):
            return False
        if inner not in _UNICAST_V6:
            return False
    return inner.is_global and not inner.is_multicast and not _listed(inner, _DENIED)


def may_dial(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """True if the address is public, or the operator allowed it."""
    return is_public(address) or _listed(address, allowed)


def _listed(address: Address, allowed: Iterable[Network]) -> bool:
    inner = innermost(address)
    return any(inner.version == net.version and inner in net for net in allowed)


def literal(host: str) -> Address | None:
    """The address that a host stands for, also as `127.1`, `0x7f.1`, `2130706433`, `localhost`.

    None if the host is a name.
    """
    host = unicodedata.normalize("NFKC", host).replace("。", ".").strip("[]").rstrip(".")
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host)
    except ValueError:
        pass
    if not host or host[-1] not in "0123456789abcdefABCDEFxX":
        return None
    try:  # the spellings that resolvers read as a number
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def webhook_complaint(
    url: object, allowed: Iterable[Network] = (), ports: tuple[range, ...] | None = None
) -> str | None:
    """Why this cannot be a webhook URL, in one sentence, or None. Names are not resolved here.

    An address that the operator allowed may have any spelling and any port.
    """
    if not isinstance(url, str) or not url or len(url) > 2048:
        return "the webhook must be a URL of at most 2048 characters"
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in url):
        return "the webhook URL holds white space, control characters or a backslash"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the webhook is no well-formed URL"
    if parts.scheme not in _PORTS or not host:
        return "the webhook must be an http:// or https:// URL with a host"
    if "@" in parts.netloc:
        return "the webhook URL must not carry a user name or password"
    if "%" in host:
        return "the host of the webhook URL must be spelt without %"
    if not _AUTHORITY.fullmatch(parts.netloc):
        return "the webhook is no well-formed URL"
    if port == 0:
        return "the webhook URL names port 0"
    return _host_complaint(host, port or _PORTS[parts.scheme], tuple(allowed), ports)


def _host_complaint(
    host: str, port: int, allowed: tuple[Network, ...], ports: tuple[range, ...] | None
) -> str | None:
    name = _dialled(host)
    address = literal(name or host)
    if address is not None and not may_dial(address, allowed):
        where = "which is not public and not in CAVENDISH_WEBHOOK_ALLOW"
        return f"the webhook names the address {address}, {where}"
    if name is None:
        return "the host of the webhook URL is no name that IDNA 2008 can encode"
    if address is not None and _listed(address, allowed):
        return None
    if address is None and not _is_name(name):
        return "the host of the webhook URL is neither an address nor a name that DNS can carry"
    if address is not None and name != str(address) and ":" not in name:
        return f"the webhook URL must spell the address {address} just so"
    if ports is not None and not any(port in each for each in ports):
        return f"the webhook names port {port}, which is not in CAVENDISH_WEBHOOK_PORTS"
    return None


def _dialled(host: str) -> str | None:
    """The host that httpx will connect to, or None if httpx cannot read it."""
    try:
        name = (host if host.isascii() else idna.encode(host).decode()).lower()
        if name.startswith("xn--"):
            idna.decode(name)
    except ValueError:
        return None
    return name


def _is_name(name: str) -> bool:
    """True for a name that DNS can carry; underscores occur in real names.

    If the last label is a number, some parsers read an address, so it is refused.
    """
    name = name.removesuffix(".")
    labels = name.split(".")
    return (
        len(name) <= 253
        and all(map(_LABEL.fullmatch, labels))
        and not _NUMBER.fullmatch(labels[-1])
    )


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma separated list of CIDRs. Raises ValueError that names the wrong one."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
