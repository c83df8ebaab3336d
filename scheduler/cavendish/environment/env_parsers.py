"""Parsers for the texts of environment variables.

Each returns the value, or raises ValueError, which says what the text must be and never shows it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cavendish.environment import redis_options
from cavendish.environment.redis_url import MANY, SOCKETS, many, scheme_of, socket_complaint
from cavendish.policy.addresses import Network, parse_networks
from cavendish.service_names import ANY, SERVICE

Reader = Callable[[str], Any]


def number(low: float, high: float) -> Reader:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"must lie within {low:.10g} and {high:.10g}")
        return value

    return read


def whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"must be a whole number within {low} and {high}")
        return value

    return read


def one_of(*words: str) -> Reader:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return read


def url(*schemes: str) -> Reader:
    def read(text: str) -> str:
        complaint = f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(complaint) from None
        web = parts.scheme in ("http", "https")
        where = parts.hostname or (parts.path and not web)
        if parts.scheme not in schemes or port == 0 or not where:
            raise ValueError(complaint)
        if web and (parts.query or parts.fragment):
            raise ValueError("must be a URL without ? and #")
        if parts.fragment:
            raise ValueError("must be a URL in which # is spelt %23")
        return text.rstrip("/") if web else text

    return read


#: The word that turns a proxy off if the environment names one.
NO_PROXY = "none"


def proxy(text: str) -> str:
    """The URL of an HTTP proxy, or the word NO_PROXY."""
    try:
        return NO_PROXY if text.lower() == NO_PROXY else str(url("http", "https")(text))
    except ValueError as error:
        raise ValueError(f"{error}, or {NO_PROXY}") from None


def redis(*schemes: str) -> Reader:
    """A URL of one Redis server or of several; `redis_url` lists the spellings."""
    one = url(*schemes)

    def check(text: str) -> str:
        if scheme_of(text) in schemes and scheme_of(text) in MANY:
            many(text)
            return text
        read = str(one(text))
        if scheme_of(text) in SOCKETS and (complaint := socket_complaint(text)):
            raise ValueError(complaint)
        if not scheme_of(text).startswith("amqp"):
            redis_options.read(text)
        return read

    return check


def ports(text: str) -> tuple[range, ...]:
    try:
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    except ValueError:
        ends = [[]]
    found = tuple(range(pair[0], pair[-1] + 1) for pair in ends if 1 <= len(pair) <= 2)
    sound = all(1 <= each.start < each.stop <= 65536 for each in found)
    if not sound or len(found) < len(ends):
        raise ValueError("must be ports and ranges of ports such as 443,8000-8999")
    return found


def listening(text: str) -> tuple[str, int]:
    """The host and port to listen on, from `9090`, `0.0.0.0:9090` or `[::]:9090`."""
    host, _, port = text.rpartition(":")
    try:
        number = int(port)
    except ValueError:
        number = -1
    bracketed = host.startswith("[") and host.endswith("]")
    wrong_host = (":" in host and not bracketed) or text.startswith(":")
    if not 0 <= number <= 65535 or wrong_host:
        raise ValueError("must be a port, or host:port such as 0.0.0.0:9090")
    return (host[1:-1] if bracketed else host) or "127.0.0.1", number


def services(text: str) -> tuple[str, ...]:
    """Names of services, separated by commas; `*` is any service."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(name == ANY or SERVICE.fullmatch(name) for name in names):
        raise ValueError("must be names of services, separated by commas, or * for any")
    return names


def lifetimes(text: str) -> tuple[tuple[str, float], ...]:
    """Seconds by service, from `86400` or `nano-banana=86400,veo=3600`; `*` is any service."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, seconds = part.rpartition("=")
        try:
            found[name.strip() or "*"] = number(60, 3650 * 86400)(seconds)
        except ValueError:
            raise ValueError(
                "must be seconds (60 and up), or service=seconds pairs separated by commas"
            ) from None
    return tuple(found.items())


def encryption_keys(text: str) -> tuple[str, ...]:
    keys = tuple(part.strip() for part in text.split(","))
    for key in keys:
        try:
            sound = len(base64.urlsafe_b64decode(key.encode())) == 32
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                "must be the URL-safe base64 of 32 random bytes; "
                "several, the newest first, are separated by commas"
            )
    return keys


def endpoint(text: str) -> str:
    """A webhook URL, or the name of a registered endpoint."""
    return url("http", "https")(text) if "://" in text else text


def networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise ValueError(f"must be a comma separated list of CIDRs; {error}") from None


def webhook_secret_key(text: str) -> bytes:
    """The signing key in a `whsec_…` secret, 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be 'whsec_' followed by the base64 of 24 to 64 bytes")
    return key


def secret(text: str) -> str:
    """One `whsec_…` secret or several, the newest first, separated by commas.

    Raises ValueError without showing any.
    """
    secrets = secrets_of(text)
    for one in secrets:
        webhook_secret_key(one)
    return ",".join(secrets)


def secrets_of(text: str) -> tuple[str, ...]:
    """The secrets of a setting, the newest first."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


def tokens_file(path: Path) -> dict[str, str]:
    """The token of each account. Raises OSError or ValueError, which show no token."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} holds no JSON") from None
    texts = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(each, str) and each for each in texts):
        raise ValueError(f'{path} must hold one JSON object {{"account": "token"}}')
    try:
        return {account: token(text) for account, text in found.items()}
    except ValueError as error:
        raise ValueError(f"{path} holds a token that {error}") from None


def address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(
            "must be an IP address of this machine, or 0.0.0.0 or :: for all of them"
        ) from None


def login(text: str) -> str:
    user, _, password = text.partition(":")
    if not (user and password and text.isascii() and text.isprintable()):
        raise ValueError("must be user:password in printable ASCII")
    return text
