"""Redis URLs: a single server, the primary that Sentinel names, or a cluster.

    redis://[user:password@]host:6379/DB        rediss:// with TLS
    unix:///path?db=DB                          Celery: redis+socket:///path?virtual_host=DB
    redis+sentinel://[user:password@]host:26379,host:26379/NAME/DB[?sentinel_password=…]
        Celery: sentinel://[user:password@]host:26379/DB;sentinel://host:26379/DB?master_name=NAME
    redis+cluster://[user:password@]host:6379,host:6379

Each may end in `wait_replicas=…&wait_timeout=…`: how many replicas must have a write before it
counts as stored, and how many seconds to wait for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlencode, urlsplit

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"
#: Schemes of unix sockets, and the longest path of one in bytes (Linux; elsewhere a little less).
SOCKETS, LONGEST_SOCKET = ("unix", "redis+socket"), 107
#: Schemes with several hosts, whose ports `urllib` cannot read.
MANY = (SENTINEL, "sentinel", CLUSTER)

_PORTS = {SENTINEL: 26379, CLUSTER: 6379}
_SHAPES = {
    SENTINEL: "redis+sentinel://host:26379,host:26379/NAME/DB",
    CLUSTER: "redis+cluster://host:6379,host:6379",
}


@dataclass(frozen=True, slots=True)
class Many:
    """Several servers that act as one.

    They are Sentinels, with the `name` of their primary, or nodes of a cluster.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    name: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    def for_celery(self) -> str:
        """Celery's spelling: the name and the password of the Sentinels are options."""
        who = ""
        if self.password:
            who = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        each = ";".join(f"sentinel://{who}{_joined(*host)}/{self.db}" for host in self.hosts)
        options = {"master_name": self.name, "sentinel_password": self.sentinel_password}
        return f"{each}?{urlencode({name: value for name, value in options.items() if value})}"


def scheme_of(url: str) -> str:
    """What stands before `://`, in lower case."""
    return url.partition("://")[0].lower()


def socket_complaint(url: str) -> str | None:
    """Why nothing can listen where the URL of a unix socket says, or None."""
    parts = urlsplit(url)
    if parts.hostname:
        return f"must have three slashes before the path of the socket: {parts.scheme}:///path"
    length = len(unquote_to_bytes(parts.path))
    if length > LONGEST_SOCKET:
        return (
            f"names a unix socket by {length} bytes, but its path may have {LONGEST_SOCKET} at most"
        )
    return None


def many(url: str) -> Many:
    """Read a URL of several servers. Raises ValueError, which does not show the URL."""
    scheme = scheme_of(url)
    if scheme == "sentinel":
        url, scheme = _from_celery(url), SENTINEL
    complaint = f"must be spelt {_SHAPES[scheme]}"
    who, _, places = urlsplit(url).netloc.rpartition("@")
    username, _, password = who.partition(":")
    hosts = tuple(_host(place, _PORTS[scheme], complaint) for place in places.split(","))
    name, _, db = urlsplit(url).path.strip("/").partition("/")
    if bool(name) != (scheme == SENTINEL) or not (db or "0").isdigit():
        raise ValueError(complaint)
    options = dict(parse_qsl(without_wait(url)[0].partition("?")[2]))
    sentinel_password = options.pop("sentinel_password", None) if scheme == SENTINEL else None
    if options:
        raise ValueError(f"{complaint}, and without {' and '.join(sorted(options))}")
    return Many(
        scheme,
        hosts,
        unquote(name),
        int(db or 0),
        unquote(username) or None,
        unquote(password) or None,
        sentinel_password,
    )


def with_wait(url: str, replicas: int, timeout: float) -> str:
    """The URL with the number of replicas that must have a write, and the wait in seconds."""
    if not replicas or without_wait(url)[1]:
        return url
    return f"{url}{'&' if '?' in url else '?'}wait_replicas={replicas}&wait_timeout={timeout:g}"


def without_wait(url: str) -> tuple[str, int, float]:
    """The URL without `wait_…`, the number of replicas, and the seconds to wait for them."""
    path, _, query = url.partition("?")
    words = [word for word in query.split("&") if word]
    said = dict(
        word.split("=", 1) for word in words if word.startswith(("wait_replicas=", "wait_timeout="))
    )
    others = "&".join(word for word in words if word.partition("=")[0] not in said)
    return (
        f"{path}?{others}" if others else path,
        int(said.get("wait_replicas", 0)),
        float(said.get("wait_timeout", 1.0)),
    )


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    where, _, query = url.partition("?")
    scheme, _, rest = where.partition("://")
    shown = ";".join(_without_who(part) for part in rest.replace("sentinel://", "").split(";"))
    return f"{scheme}://{shown}" + (f"?{query}" if query and "password" not in query else "")


def _without_who(part: str) -> str:
    place, slash, path = part.partition("/")
    return place.rpartition("@")[2] + slash + path


def _host(place: str, port: int, complaint: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", port if parts.port is None else parts.port
    except ValueError:
        raise ValueError(complaint) from None
    if not host or not port:
        raise ValueError(complaint)
    return host, port


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _from_celery(url: str) -> str:
    """`sentinel://:p@a:1/0;sentinel://b:2/0?master_name=NAME` in our own spelling."""
    where, _, query = url.partition("?")
    parts = [urlsplit(part) for part in where.split(";")]
    options = dict(parse_qsl(query))
    name = options.pop("master_name", "")
    if not name:
        raise ValueError(f"must end in ?master_name=NAME, or be spelt {_SHAPES[SENTINEL]}")
    who = next((f"{part.netloc.rpartition('@')[0]}@" for part in parts if "@" in part.netloc), "")
    hosts = ",".join(part.netloc.rpartition("@")[2] for part in parts)
    db = next((part.path for part in parts if part.path.strip("/")), "/0")
    return f"{SENTINEL}://{who}{hosts}/{quote(name, safe='')}{db}" + (
        f"?{urlencode(options)}" if options else ""
    )
