"""Reads what the Redis server reports of itself: version, persistence, eviction, memory, clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from cavendish.errors import ServerTooOld
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.redis_errors import NEEDED

#: The oldest version that has all commands we use; Valkey reports 7.2 or more.
LEAST = (6, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """None where the server forbids the question, as managed servers do.

    `used` and `limit` in bytes (limit 0: none); `behind` is this machine's wall clock less the
    server's, in seconds.
    """

    run_id: str
    version: str | None
    name: str
    append_only: bool | None
    fsync: str | None
    writes_well: bool | None
    policy: str | None
    used: int
    limit: int
    behind: float


def is_too_old(version: str) -> bool:
    """True for a `redis_version` such as `6.0.16` that lacks what Cavendish uses."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < LEAST


def refuse_old(connection: Connection) -> None:
    """Raise ServerTooOld if the server says that it is too old. Raises StoreUnavailable.

    A server that forbids the question is accepted.
    """
    info = connection.if_allowed(keys.FLEET, lambda redis: redis.info("server")) or {}
    version = str(info.get("redis_version", ""))
    if version and is_too_old(version):
        raise ServerTooOld(f"Redis at {connection.where} is version {version}; {NEEDED}.")


def server(connection: Connection) -> Server:
    """Ask the server; in a cluster, the primary that holds the heartbeats.

    Raises StoreUnavailable.
    """
    asked_at = time.time()
    seconds, micros, _ = connection.time_and(keys.FORMAT)
    behind = (asked_at + time.time()) / 2 - (seconds + micros / 1e6)
    info: dict[str, Any] = connection.if_allowed(keys.FLEET, lambda redis: redis.info()) or {}
    told: dict[str, str] = (
        connection.if_allowed(keys.FLEET, lambda redis: redis.config_get("append*")) or {}
    )
    valkey = info.get("valkey_version")
    written = info.get("aof_last_write_status")
    return Server(
        run_id=str(info.get("run_id", "")),
        version=str(info["redis_version"]) if "redis_version" in info else None,
        name=f"Valkey {valkey}"
        if valkey
        else f"Redis {info.get('redis_version', 'of unknown version')}",
        append_only=told["appendonly"] == "yes" if "appendonly" in told else None,
        fsync=told.get("appendfsync"),
        writes_well=None
        if written is None
        else written == "ok" and info.get("rdb_last_bgsave_status", "ok") == "ok",
        policy=info.get("maxmemory_policy"),
        used=int(info.get("used_memory", 0)),
        limit=int(info.get("maxmemory", 0)),
        behind=behind,
    )
