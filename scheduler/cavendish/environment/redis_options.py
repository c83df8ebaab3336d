"""The options of the URL of one Redis: its database, and how TLS verifies the server.

    rediss://host:6379/0                      verified by the CAs of this machine and by host name
    rediss://host:6379/0?ssl_ca_certs=FILE    verified by this CA
    …&ssl_certfile=FILE&ssl_keyfile=FILE      with a client certificate
    …&ssl_check_hostname=false                for any host name
    …&ssl_cert_reqs=CERT_NONE                 not verified: anybody in between reads the password

The client of the store and Celery's transport both get their options from here, in redis-py's or
Celery's spelling. Without that, either refuses options that the other knows, with a traceback, and
only one of them verifies certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cavendish.environment.redis_url import scheme_of, without_wait

_VERIFY = {
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "CERT_OPTIONAL": ssl.CERT_OPTIONAL,
    "CERT_NONE": ssl.CERT_NONE,
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_YES_OR_NO = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = ("ssl_cert_reqs", *_FILES, "ssl_check_hostname")
_DATABASE = ("db", "virtual_host")
#: Options of redis-py for its sockets, and a login where the URL has no host (a unix socket).
#: Celery's transport has settings of its own for these.
_SOCKETS = tuple(
    "socket_timeout socket_connect_timeout socket_keepalive health_check_interval "
    "max_connections retry_on_timeout client_name protocol username password".split()
)


def read(url: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The URL without its `?`, its options for database and sockets, and those for TLS.

    The last are keyword arguments of redis-py, and empty unless the scheme is `rediss`.
    Raises ValueError, which shows no password.
    """
    where, _, query = without_wait(url)[0].partition("?")
    said = dict(parse_qsl(query, keep_blank_values=True))
    known = (*_DATABASE, *_SOCKETS, *_TLS)
    for name in said:
        if name not in known:
            raise ValueError(f"has the unknown option {name[:40]!r}; known are {', '.join(known)}")
    tls = {name: said.pop(name) for name in _TLS if name in said}
    if scheme_of(url) == "rediss":
        return where, said, _tls(tls)
    if tls:
        raise ValueError(f"must begin with rediss:// for the option {next(iter(tls))}")
    return where, said, {}


def for_redis_py(url: str) -> tuple[str, dict[str, Any]]:
    """The URL that redis-py reads, and further keyword arguments for it. Raises ValueError."""
    where, said, tls = read(url)
    numbers = [said.pop(name) for name in _DATABASE if name in said]
    if numbers:
        said["db"] = numbers[0]
    query = urlencode(said)
    return (f"{where}?{query}" if query else where), tls


def _tls(said: Mapping[str, str]) -> dict[str, Any]:
    reqs = said.get("ssl_cert_reqs", "CERT_REQUIRED")
    if reqs not in _VERIFY:
        raise ValueError("must have CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE as ssl_cert_reqs")
    check = said.get("ssl_check_hostname", "true").lower()
    if check not in _YES_OR_NO:
        raise ValueError("must have true or false as ssl_check_hostname")
    found: dict[str, Any] = {name: _readable(name, said[name]) for name in _FILES if name in said}
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise ValueError("has an ssl_keyfile, but no ssl_certfile that it belongs to")
    verify = _VERIFY[reqs]
    return found | {
        "ssl_cert_reqs": verify,
        "ssl_check_hostname": _YES_OR_NO[check] and verify is not ssl.CERT_NONE,
    }


def _readable(name: str, path: str) -> str:
    try:
        with Path(path).open("rb"):
            return path
    except OSError as error:
        why = f"which cannot be read: {error.strerror}"
        raise ValueError(f"names the {name} {path!r}, {why}") from None
