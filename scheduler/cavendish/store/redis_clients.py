"""Makes the client of one server, of the primary that Sentinel names, or of a cluster."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import HiredisRespSerializer
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection
from redis.utils import HIREDIS_AVAILABLE

from cavendish.environment.redis_options import for_redis_py
from cavendish.environment.redis_url import CLUSTER, Many
from cavendish.store.lean_client import LeanClient, LeanPool

#: Seconds. Redis answers in milliseconds; a longer silence means that it is away.
SOCKET_TIMEOUT = 5.0
#: The same for a Sentinel, which only says where the primary is; there are others to ask.
SENTINEL_TIMEOUT = 1.0
#: How often a cluster is asked for its layout while a primary is away or its slots move.
CLUSTER_ATTEMPTS = 3

Client = redis.Redis
Pipeline = redis.client.Pipeline


_NUMBERS = frozenset((int, float))


class _Packer(HiredisRespSerializer):
    """Writes texts back as the bytes that they were read from, also if those are no UTF-8.

    Numbers become texts here: hiredis makes them with a call that a signal may end, such as that of
    Ctrl-C, and then reads what is not there, which kills the process.
    """

    def pack(self, *args: Any) -> Any:
        if not _NUMBERS.isdisjoint(map(type, args)):
            args = tuple(repr(word) if type(word) in _NUMBERS else word for word in args)
        try:
            return super().pack(*args)
        except UnicodeEncodeError:
            words: Any = [
                word.encode(errors="surrogateescape") if isinstance(word, str) else word
                for word in args
            ]
            return super().pack(*words)


#: What a connection needs if `hiredis` is there: alone, it knows no `encoding_errors`.
PACKING: dict[str, Any] = {"command_packer": _Packer()} if HIREDIS_AVAILABLE else {}
_OPTIONS: dict[str, Any] = {
    "decode_responses": True,
    "encoding_errors": "surrogateescape",
    "socket_timeout": SOCKET_TIMEOUT,
    "socket_connect_timeout": 2.0,
}


def client_of(url: str, many: Many | None) -> Client:
    """The client for a URL; `many` is what the URL of Sentinels or of a cluster says.

    A cluster's client asks the nodes for their slots at once; the others connect when used.
    Raises ValueError for options that cannot be used.
    """
    if many is None:
        url, tls = for_redis_py(url)
        url = _in_redis_spelling(url)
        pool = LeanPool.from_url(url, **_OPTIONS, **PACKING, **_retries(), **tls)
        return LeanClient.from_pool(pool)
    if many.scheme == CLUSTER:
        return cast(Client, _of_cluster(many))  # it takes the same commands
    return _of_primary(many)


def _retries() -> dict[str, Any]:
    """A lost connection is tried again at once.

    A silence is not: its retries would add up to a minute.
    """
    lost = [redis.ConnectionError]
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=tuple(lost))
    return {"health_check_interval": 15, "retry": retry, "retry_on_error": lost}


class _PrimaryConnection(SentinelManagedConnection):
    """A connection to the primary that is closed after a silence.

    redis-py keeps it, and the next command would read the answer to this one.
    """

    def read_response(self, *args: Any, **options: Any) -> Any:
        return super().read_response(*args, **{"disconnect_on_error": True, **options})


def _set_packer(connection: Any) -> None:
    """At each connect to a node of a cluster, whose client hands on no packer."""
    connection._command_packer = PACKING["command_packer"]


def _of_primary(many: Many) -> Client:
    """The client of the primary that Sentinel names, asked anew for each connection.

    A primary that was demoted is left at once.
    """
    sentinel_options = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "password": many.sentinel_password,
    }
    sentinels: Any = Sentinel(many.hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    login = {"username": many.username, "password": many.password, "db": many.db}
    options = login | _OPTIONS | PACKING | _retries() | {"connection_class": _PrimaryConnection}
    return cast(Client, sentinels.master_for(many.name, **options))


def _of_cluster(many: Many) -> RedisCluster:
    nodes = [ClusterNode(*host) for host in many.hosts]  # type: ignore[no-untyped-call]
    options = {"username": many.username, "password": many.password, **_OPTIONS}
    if PACKING:
        options["redis_connect_func"] = _set_packer
    retry = Retry(NoBackoff(), CLUSTER_ATTEMPTS - 1)
    return RedisCluster(startup_nodes=nodes, retry=retry, **options)


def _in_redis_spelling(url: str) -> str:
    """redis-py's spelling of a scheme of Celery's: `redis+socket:///path` is `unix:///path`."""
    parts = urlsplit(url)
    return f"unix://{parts.path}?{parts.query}" if parts.scheme == "redis+socket" else url
