"""The Redis of the store: its version, persistence, eviction, memory and clock."""

from __future__ import annotations

from cavendish.settings import Settings
from cavendish.store.server_info import LEAST, Server, is_too_old
from cavendish_worker.doctor.finding import Finding, ill, skipped, well

#: Share of `maxmemory` from which on the operator must act.
NEARLY_FULL = 0.9
#: Seconds by which two wall clocks may differ: receivers refuse webhooks that are five minutes off,
#: by the clock of Redis.
APART = 30.0


def findings(where: str, server: Server, settings: Settings) -> list[Finding]:
    """Everything about the server that answered."""
    return [
        well("redis", f"{server.name} answers at {where}"),
        *_version(server),
        _persistence(server, settings),
        eviction("redis eviction", server.policy),
        *_memory(server),
        _clock(server),
    ]


def _version(server: Server) -> list[Finding]:
    if server.version is None:
        return [skipped("redis version", "the server does not report it")]
    if not is_too_old(server.version):
        return []
    wanted = ".".join(map(str, LEAST))
    advice = f"Run Redis {wanted} or newer, or any Valkey."
    return [ill("redis version", f"{server.version} is too old", advice)]


def _persistence(server: Server, settings: Settings) -> Finding:
    what, replicas = "redis persistence", settings.wait_replicas
    if server.append_only is None:
        why = "the server forbids CONFIG; its operator knows what survives a restart"
        return skipped(what, why)
    if not server.append_only and replicas:
        found = f"off, but a write counts only when {replicas} replicas have it"
        advice = "Switch appendonly on as well, in case all of them restart at the same time."
        return well(what, found, advice)
    if not server.append_only:
        advice = (
            "redis-cli CONFIG SET appendonly yes; "
            "and `appendonly yes`, `appendfsync always` in redis.conf."
        )
        return ill(what, "is off: a restart of Redis loses what was submitted", advice)
    if server.writes_well is False:
        advice = "Make room on the disk of Redis, and read its log."
        return ill(what, "the last write to the disk failed", advice)
    if server.fsync == "no":
        advice = "redis-cli CONFIG SET appendfsync always (or everysec), and in redis.conf."
        return ill(what, "appendfsync no: a power cut loses half a minute", advice)
    if server.fsync == "everysec":
        found = "appendonly, appendfsync everysec: a power cut loses up to a second"
        advice = "appendfsync always loses nothing that was acknowledged, but is slower."
        return well(what, found, advice)
    return well(what, f"appendonly, appendfsync {server.fsync}")


def eviction(what: str, policy: str | None) -> Finding:
    """A full Redis must refuse writes, and not delete keys."""
    if policy is None:
        return skipped(what, "the server does not report its eviction policy")
    if policy == "noeviction":
        return well(what, "maxmemory-policy noeviction")
    advice = (
        "redis-cli CONFIG SET maxmemory-policy noeviction, and in redis.conf; "
        "use another Redis as a cache."
    )
    return ill(what, f"maxmemory-policy {policy}: a full Redis deletes tracked ids", advice)


def _memory(server: Server) -> list[Finding]:
    if not server.limit or server.used < NEARLY_FULL * server.limit:
        return []
    found = f"{server.used / server.limit:.0%} of maxmemory is in use; a full Redis refuses submits"
    advice = "Raise maxmemory, or lower CAVENDISH_RETENTION and CAVENDISH_EVENTS_KEPT."
    return [ill("redis memory", found, advice)]


def _clock(server: Server) -> Finding:
    if abs(server.behind) <= APART:
        return well("clock", f"Redis and this machine are {abs(server.behind):.1f} s apart")
    which = "behind" if server.behind > 0 else "ahead of"
    advice = (
        "Set both clocks by NTP: webhooks carry the time of Redis, "
        "and receivers refuse webhooks that are five minutes off."
    )
    return ill("clock", f"Redis is {abs(server.behind):.0f} s {which} this machine", advice)
