"""Says which errors of redis-py mean «Redis is away or will not write», in one sentence each."""

from __future__ import annotations

import redis

#: All errors of redis-py and of sockets: the one of a cluster is no RedisError.
ERRORS = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)
#: Errors after which the same work may be done again at the primary of today, in a cluster.
MOVED = (
    redis.ConnectionError,
    redis.exceptions.MovedError,
    redis.exceptions.ClusterDownError,
)
_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)
_REFUSING = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
)
_REFUSING_WORDS = tuple(
    "OOM MISCONF READONLY CLUSTERDOWN MASTERDOWN NOREPLICAS BUSY UNBLOCKED".split()
)
#: What a server says to whoever gave no password.
_WITHOUT_LOGIN = ("HELLO must be called", "Authentication required")
#: The end of the sentence about a server that is too old.
NEEDED = "Cavendish needs Redis 6.2 or newer, or any Valkey"
#: How the refusal of a command begins that a script called.
_IN_SCRIPT = "ACL failure in script"
#: What redis-py says when a whole cluster is away; its other errors of that class are our faults.
_CLUSTER_AWAY = ("cannot be connected", "not covered", "could not agree")


def sentence(error: Exception, where: str, *, clustered: bool) -> str | None:
    """What an error means for the Redis at `where`; None for an error that is a fault of ours."""
    redis_at, why = f"Redis at {where}", _first_line(error)
    if isinstance(error, redis.AuthenticationError):  # redis-py calls it a lost connection
        if any(word in why for word in _WITHOUT_LOGIN):
            return f"{redis_at} needs a password, which belongs into its URL."
        return f"{redis_at} refuses the user or the password ({why})."
    if isinstance(error, _AWAY):
        return f"{redis_at} does not answer ({why}).{_hint(error, where)}"
    if isinstance(error, redis.InvalidResponse):
        return f"What answers at {where} is no Redis ({why})."
    if isinstance(error, redis.exceptions.MovedError):
        hint = "is a node of a cluster: CAVENDISH_REDIS_URL must begin with redis+cluster://"
        return f"{redis_at} {'moves its slots to another node' if clustered else hint}."
    if isinstance(error, redis.ResponseError) and refuses(error):
        hint = " deploy/redis-users.acl lists the rights of each role." if _forbids(error) else ""
        return f"{redis_at} refuses ({why}).{hint}"
    if isinstance(error, redis.exceptions.RedisClusterException):
        away = any(word in str(error) for word in _CLUSTER_AWAY)
        return f"{redis_at} does not answer ({why})." if away else None
    return None


def refuses(error: Exception) -> bool:
    """True if the server refuses all work, rather than this one command."""
    return (
        isinstance(error, _REFUSING)
        or _forbids(error)
        or any(word in str(error)[:200] for word in _REFUSING_WORDS)
    )


def greets_in_vain(error: Exception) -> bool:
    """True if the server does not know HELLO, by which redis-py begins: Redis before 6.0."""
    said = str(error)
    return isinstance(error, redis.ResponseError) and "unknown command" in said and "HELLO" in said


def _forbids(error: Exception) -> bool:
    """True if this Redis user lacks a right, also inside a script."""
    forbidden = isinstance(error, redis.exceptions.NoPermissionError)
    return forbidden or _IN_SCRIPT in str(error)


def _hint(error: Exception, where: str) -> str:
    if where.startswith("unix"):
        return " Does `cavendish up` run, here or with the same CAVENDISH_DATA_DIR?"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return " Name the CA of its certificate in the URL: ?ssl_ca_certs=FILE."
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).partition(" : <")[0]  # redis-py lists the Sentinels with all their options
    # A pipeline's error shows the command with everything that it would have written.
    text = text.rpartition("of pipeline caused error: ")[2].removeprefix(f"{_IN_SCRIPT}: ")
    text = text.partition(" script: ")[0]
    return (text.splitlines() or [type(error).__name__])[0][:200].rstrip(".")
