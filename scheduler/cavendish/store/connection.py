"""The connection to Redis, and the one place where its errors become ours.

It is one server, the primary that Sentinel names, or a cluster. In a cluster all keys of a lane lie
in one slot, so a script goes to one primary; what goes to several lanes at once is sent to each
primary by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection
from scheduler.redis_options import for_store

from cavendish.errors import ServerTooOld, SettingsError, StoreUnavailable
from cavendish.redis_url import CLUSTER, MANY, Many, many, scheme_of, without_password, without_wait
from cavendish.store.keys import nothing, waited

#: Seconds. Redis answers in milliseconds; a longer silence means that it is away.
SOCKET_TIMEOUT = 5.0
#: The same for a Sentinel, which only says where the primary is; there are others to ask.
SENTINEL_TIMEOUT = 1.0
#: How often a cluster is asked again where everything lies, while a primary is away or runtime its
#: slots over.
CLUSTER_ATTEMPTS = 3

_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)
_REFUSING = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
)
_REFUSING_WORDS = (
    "OOM",
    "MISCONF",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "UNBLOCKED",
)
#: What redis-py says when a cluster is away as a whole; its other complaints of that kind are
#: faults of ours.
_CLUSTER_AWAY = ("cannot be connected", "not covered", "could not agree")
_SETTINGS: dict[str, Any] = {
    "decode_responses": True,
    "encoding_errors": "surrogateescape",
    "socket_timeout": SOCKET_TIMEOUT,
    "socket_connect_timeout": 2.0,
}

T = TypeVar("T")
Client = redis.Redis
Pipeline = redis.client.Pipeline


class Connection:
    """Redis as the store uses it: named scripts, pipelines, and errors in one sentence."""

    def __init__(self, url: str) -> None:
        try:
            self._url, self._replicas, self._wait = without_wait(url)
            self._many = many(self._url) if scheme_of(self._url) in MANY else None
            if not self.clustered:
                _ = (
                    self.redis
                )  # so that a URL that cannot be used is known at once; it connects to nothing yet
        except ValueError as error:
            raise SettingsError([f"CAVENDISH_REDIS_URL cannot be used: {error}."]) from None
        self.where = without_password(self._url)

    @property
    def clustered(self) -> bool:
        """True in a Redis Cluster, where one command goes to one slot."""
        return self._many is not None and self._many.scheme == CLUSTER

    @cached_property
    def redis(self) -> Client:
        """The client.

        That of a cluster asks the nodes where everything lies as soon as it is made.
        """
        if self._many is None:
            url, tls = for_store(self._url)
            return Client.from_url(_plain(url), **_SETTINGS, **_patient(), **tls)
        if self.clustered:
            return cast(Client, _to_cluster(self._many))  # it takes the same commands
        return _to_primary(self._many)

    @property
    def socket_timeout(self) -> float | None:
        """Seconds of silence after which the server counts as away; a URL may bring its own."""
        return (
            SOCKET_TIMEOUT
            if self.clustered
            else self.redis.get_connection_kwargs().get("socket_timeout")
        )

    def close(self) -> None:
        if "redis" in self.__dict__:
            self.redis.close()

    def script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], *, durable: bool = False
    ) -> Any:
        """Run `scripts/NAME.lua` on its own.

        `durable`: it counts when as many replicas have it as were asked for.
        """
        if durable and self._replicas:
            batch = self.batch()
            batch.queue(name, keys, args)
            return batch.execute()[0]
        source, sha = _script(name)
        with self.errors():
            try:
                return self.redis.evalsha(sha, len(keys), *keys, *args)
            except (
                redis.exceptions.NoScriptError
            ):  # a server that was just started, or just became the primary
                return self.redis.eval(source, len(keys), *keys, *args)

    def write_when_full(self, key: str, *words: Any) -> Any:
        """A small command on one key that is done even where memory is full (`maxmemory` with
        noeviction).

        Redis refuses a script whose first write takes memory, and none that began with a write
        which takes none. So what has to go on begins with such a one, here and in each script that
        drains; `add`, which must not, begins the other way.
        """
        return self.script("write_when_full", [key, nothing(key)], words)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Everything that means «Redis is away or will not write» becomes BookUnavailable."""
        try:
            yield
        except redis.AuthenticationError as error:  # redis-py calls it a lost connection
            raise StoreUnavailable(
                f"Redis at {self.where} refuses ({_first_line(error)})."
            ) from None
        except _AWAY as error:
            hint = self._hint(error)
            raise StoreUnavailable(
                f"Redis at {self.where} does not answer ({_first_line(error)}).{hint}"
            ) from None
        except redis.InvalidResponse as error:
            raise StoreUnavailable(
                f"What answers at {self.where} is no Redis ({_first_line(error)})."
            ) from None
        except redis.exceptions.MovedError:
            hint = "is a node of a cluster: CAVENDISH_REDIS_URL must begin with redis+cluster://"
            raise StoreUnavailable(
                f"Redis at {self.where} {'get_runtime slots over' if self.clustered else hint}."
            ) from None
        except redis.ResponseError as error:
            if "unknown command" in str(error) and "HELLO" in str(
                error
            ):  # how redis-py greets a server
                raise ServerTooOld(
                    f"Redis at {self.where} is older than 6.0, and Redis 6.2 or newer or any Valkey serves."
                ) from None
            if _refuses(error):
                hint = (
                    " deploy/redis-users.acl has the rights that each role needs."
                    if _forbids(error)
                    else ""
                )
                raise StoreUnavailable(
                    f"Redis at {self.where} refuses ({_first_line(error)}).{hint}"
                ) from None
            raise
        except redis.exceptions.RedisClusterException as error:
            if any(word in str(error) for word in _CLUSTER_AWAY):
                raise StoreUnavailable(
                    f"Redis at {self.where} does not answer ({_first_line(error)})."
                ) from None
            raise

    def _hint(self, error: Exception) -> str:
        if self.where.startswith("unix"):
            return " Does `cavendish up` run, here or with the same CAVENDISH_DATA_DIR?"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return " Name the CA of its certificate in the URL: ?ssl_ca_certs=FILE."
        return ""

    def pipeline(self) -> Pipeline:
        """A pipeline without a transaction.

        One round trip (in a cluster, to each node), and each command stands for itself.
        """
        with self.errors():
            return self.redis.pipeline(transaction=False)

    def answers(self, pipe: Pipeline) -> list[Any]:
        """Run a pipeline in which single records may be unreadable.

        The error of each stands in its place.
        """
        with self.errors():
            answers = pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and (
                    not isinstance(answer, redis.ResponseError) or _refuses(answer)
                ):
                    raise answer
        return answers

    def batch(self) -> Batch:
        """Writes that count together.

        Raises BookUnavailable when too few replicas have them in time.
        """
        return Batch(self, self._replicas, self._wait)

    def reads(self) -> Batch:
        """Reads that go together, also by scripts.

        One round trip to each primary, and no replica is waited for.
        """
        return Batch(self, 0, 0.0)

    def ensure(self, key: str) -> None:
        """Wait until the replicas have what was written to this key and before it."""
        if self._replicas:
            batch = self.batch()
            batch.command(key, "TYPE", key)
            batch.execute()

    def time(self, key: str) -> tuple[int, int]:
        """TIME at the primary of a key: in a cluster each primary has a clock of its own."""
        seconds, micros = self.with_cluster_retries(lambda: self.primary(key).time())
        return int(seconds), int(micros)

    def time_and(self, key: str) -> tuple[int, int, str | None]:
        """TIME at the primary of a key, and what the key holds, in one round trip."""

        def ask() -> list[Any]:
            pipe = self.primary(key).pipeline(transaction=False)
            pipe.time()
            pipe.get(key)
            return pipe.execute()

        (seconds, micros), held = self.with_cluster_retries(ask)
        return int(seconds), int(micros), held

    def if_allowed(self, key: str, ask: Callable[[Client], Any]) -> Any:
        """What the primary of a key says of itself.

        None where it forbids to ask, as managed servers do.
        """
        with self.errors():
            try:
                return ask(self.primary(key))
            except redis.exceptions.NoPermissionError:
                return None
            except redis.ResponseError as error:
                if _refuses(error):
                    raise
                return None

    def primary(self, key: str) -> Client:
        """The client of the one server that holds a key."""
        if not self.clustered:
            return self.redis
        cluster = cast(Any, self.redis)
        return cast(Client, cluster.get_redis_connection(cluster.get_node_from_key(key)))

    def with_cluster_retries(self, do: Callable[[], T]) -> T:
        """Do what goes to primaries by itself.

        In a cluster again, where they moved meanwhile. Raises BookUnavailable.
        """
        with self.errors():
            for _ in range(CLUSTER_ATTEMPTS - 1 if self.clustered else 0):
                try:
                    return do()
                except (
                    redis.ConnectionError,
                    redis.exceptions.MovedError,
                    redis.exceptions.ClusterDownError,
                ):
                    cast(RedisCluster, self.redis).nodes_manager.initialize()
            return do()


class Batch:
    """Writes in their order, those of one primary in one round trip; each primary is asked whether
    its replicas have them.

    WAIT speaks of the last write on its own connection, so it goes with the writes, and behind a
    write that is always one: what was not acknowledged and is handed in again changes nothing, and
    must be waited for all the same.
    """

    def __init__(self, connection: Connection, replicas: int, wait: float) -> None:
        self._redis, self._replicas, self._wait = connection, replicas, wait
        self._commands: list[tuple[str, tuple[Any, ...]]] = []

    def command(self, key: str, *words: Any) -> None:
        """Add a command that touches one key."""
        self._commands.append((key, words))

    def queue(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Add a run of `scripts/NAME.lua`, with its text.

        The server may be new, and the writes behind it do not wait.
        """
        self.command(keys[0], "EVAL", _script(name)[0], len(keys), *keys, *args)

    def execute(self) -> list[Any]:
        """Write, and return the answers in the order of the commands.

        What was written may stay when this raises.
        """
        return self._redis.with_cluster_retries(self._write)

    def _write(self) -> list[Any]:
        places: dict[Client, list[int]] = {}
        for number, (key, _) in enumerate(self._commands):
            places.setdefault(self._redis.primary(key), []).append(number)
        answers: dict[int, Any] = {}
        for primary, numbers in places.items():
            answers |= zip(
                numbers,
                self._at(primary, [self._commands[number] for number in numbers]),
                strict=True,
            )
        return [answers[number] for number in range(len(self._commands))]

    def _at(self, primary: Client, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        pipe = primary.pipeline(transaction=False)
        for _, words in commands:
            pipe.execute_command(*words)  # type: ignore[no-untyped-call]
        if not self._replicas:
            return pipe.execute()
        pipe.set(waited(commands[0][0]), 1)
        pipe.wait(self._replicas, int(self._wait * 1000))
        *answers, _, having = pipe.execute()
        if int(having) < self._replicas:
            raise StoreUnavailable(
                f"Redis at {self._redis.where} wrote, but only {having} of {self._replicas} replicas have it."
            )
        return answers


def _forbids(error: redis.ResponseError) -> bool:
    """True if this user lacks a right, also inside a script."""
    return isinstance(error, redis.exceptions.NoPermissionError) or "ACL failure in script" in str(
        error
    )


def _refuses(error: redis.ResponseError) -> bool:
    """True if a server refuses to work, rather than this one command."""
    return (
        isinstance(error, _REFUSING)
        or _forbids(error)
        or any(word in str(error)[:200] for word in _REFUSING_WORDS)
    )


@cache
def _script(name: str) -> tuple[str, str]:
    """The text of a script and its SHA-1, by which Redis knows it."""
    text = files("scheduler").joinpath("scripts", f"{name}.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _patient() -> dict[str, Any]:
    """A lost connection is tried again at once.

    A silence is not: its retries would multiply to a minute.
    """
    retry = Retry(
        ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=(redis.ConnectionError,)
    )
    return {"health_check_interval": 15, "retry": retry, "retry_on_error": [redis.ConnectionError]}


class _Managed(SentinelManagedConnection):
    """A connection to the primary that is given up after a silence.

    Redis-py's own is kept, with the answer still to come.
    """

    def read_response(self, *args: Any, **options: Any) -> Any:
        return super().read_response(*args, **{"disconnect_on_error": True, **options})


def _to_primary(where: Many) -> Client:
    """The primary that Sentinel names, asked anew for each connection.

    One that was demoted is left at once.
    """
    asking = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    sentinels: Any = Sentinel(
        where.hosts, sentinel_kwargs=asking | {"password": where.sentinel_password}
    )  # type: ignore[no-untyped-call]
    options = {
        "username": where.username,
        "password": where.password,
        "db": where.db,
        **_SETTINGS,
        **_patient(),
    }
    options["connection_class"] = _Managed
    return cast(Client, sentinels.master_for(where.name, **options))


def _to_cluster(where: Many) -> RedisCluster:
    nodes = [ClusterNode(*host) for host in where.hosts]  # type: ignore[no-untyped-call]
    options = {"username": where.username, "password": where.password, **_SETTINGS}
    return RedisCluster(
        startup_nodes=nodes, retry=Retry(NoBackoff(), CLUSTER_ATTEMPTS - 1), **options
    )


def _plain(url: str) -> str:
    """redis-py's spelling of a scheme of Celery's.

    `redis+socket:///path?db=2` is `unix:///path?db=2`.
    """
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    return f"unix://{parts.path}?{parts.query}"


def script_text(name: str) -> str:
    """What `scripts/NAME.lua` says."""
    return _script(name)[0]


def _first_line(error: BaseException) -> str:
    said = str(error).partition(" : <")[0]  # redis-py lists the Sentinels with all their options
    said = said.rpartition("of pipeline caused error: ")[
        2
    ]  # it shows the command, with whatever that would have written
    said = said.removeprefix("ACL failure in script: ").partition(" script: ")[0]
    return (said.splitlines() or [type(error).__name__])[0][:200].rstrip(".")
