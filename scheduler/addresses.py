"""Pure: which network addresses a webhook may be sent to. Default deny.

`ipaddress.is_global` alone lets a dozen dangerous ranges through, so the ranges that it
misses are named here, and addresses that carry another address inside are judged by the inner one.
"""

from __future__ import annotations

import socket
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_DENIED_V4 = tuple(IPv4Network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))
_DENIED_V6 = tuple(IPv6Network(net) for net in ("2001::/23", "2002::/16", "3fff::/20"))
_UNICAST_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def innermost(address: Address) -> Address:
    """Unwrap IPv4-mapped and NAT64 addresses: what would be dialled in the end."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is None and address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """True for an address that belongs to the open Internet, and to nobody's inside."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    inner = innermost(address)
    if isinstance(inner, IPv4Address):
        return inner.is_global and not inner.is_multicast and not any(inner in net for net in _DENIED_V4)
    return inner in _UNICAST_V6 and inner.is_global and not inner.is_multicast and not any(inner in net for net in _DENIED_V6)


def may_dial(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """True if the address is public, or the operator listed it on purpose."""
    inner = innermost(address)
    return is_public(address) or any(inner.version == net.version and inner in net for net in allowed)


def literal(host: str) -> Address | None:
    """The address that a host text stands for, if it is one: also `127.1`, `0x7f.1`, `2130706433`, `localhost`."""
    host = unicodedata.normalize("NFKC", host).replace("。", ".").strip("[]").rstrip(".")
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:  # the spellings that resolvers take for a number
        return IPv4Address(socket.inet_aton(host)) if host and host[-1] in "0123456789abcdefABCDEFxX" else None
    except (OSError, UnicodeError):
        return None


def webhook_complaint(url: object, allowed: Iterable[Network] = ()) -> str | None:
    """Why this is no webhook URL, in one sentence, or None if it may be one. Names are not resolved here."""
    if not isinstance(url, str) or not url or len(url) > 2048:
        return "the webhook must be a URL of at most 2048 characters"
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in url):
        return "the webhook URL holds white space, control characters or a backslash"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the webhook is no well-formed URL"
    if parts.scheme not in ("http", "https") or not host:
        return "the webhook must be an http:// or https:// URL with a host"
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        return "the webhook URL must not carry a user name or password"
    if "%" in host:
        return "the host of the webhook URL must be spelt without %"
    if port == 0:
        return "the webhook URL names port 0"
    address = literal(host)
    if address is not None and not may_dial(address, allowed):
        return f"the webhook names the address {address}, which is not public and not in CAVENDISH_WEBHOOK_ALLOW"
    return None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma separated list of CIDRs. Raises ValueError naming the one that is none."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
