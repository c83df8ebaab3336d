"""The connection of the store to Redis: scripts, pipelines, batches, and errors of one sentence.

Redis is one server, the primary that Sentinel names, or a cluster. In a cluster all keys of a lane
lie in one slot, so a script goes to one primary; what goes to several lanes at once is sent to each
primary separately.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, TypeVar, cast

import redis

from cavendish.environment.redis_url import (
    CLUSTER,
    MANY,
    many,
    scheme_of,
    without_password,
    without_wait,
)
from cavendish.errors import ServerTooOld, SettingsError, StoreUnavailable
from cavendish.store.keys import nothing, waited
from cavendish.store.redis_clients import (
    CLUSTER_ATTEMPTS,
    SOCKET_TIMEOUT,
    Client,
    Pipeline,
    client_of,
)
from cavendish.store.redis_errors import ERRORS, MOVED, NEEDED, greets_in_vain, refuses, sentence

T = TypeVar("T")
#: The line of a script's header that names files of `scripts/shared`, whose functions it calls.
_WITH = re.compile(r"^-- WITH +([\w ]+)$", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


class Connection:
    """Redis as the store uses it. Every method raises StoreUnavailable."""

    def __init__(self, url: str) -> None:
        """Check the URL; nothing is connected to yet. Raises SettingsError."""
        try:
            self._url, self._replicas, self._wait = without_wait(url)
            self._many = many(self._url) if scheme_of(self._url) in MANY else None
            if not self.clustered:
                _ = self.redis
        except ValueError as error:
            raise SettingsError([f"CAVENDISH_REDIS_URL cannot be used: {error}."]) from None
        self.where = without_password(self._url)

    @property
    def clustered(self) -> bool:
        """True in a Redis Cluster, where one command goes to one slot."""
        return self._many is not None and self._many.scheme == CLUSTER

    @cached_property
    def redis(self) -> Client:
        """The client of redis-py."""
        return client_of(self._url, self._many)

    @property
    def socket_timeout(self) -> float | None:
        """Seconds of silence after which the server counts as away; a URL may bring its own."""
        if self.clustered:
            return SOCKET_TIMEOUT
        timeout: float | None = self.redis.get_connection_kwargs().get("socket_timeout")
        return timeout

    def close(self) -> None:
        """Close all connections."""
        if "redis" in self.__dict__:
            self.redis.close()

    def script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], *, durable: bool = False
    ) -> Any:
        """Run `scripts/NAME.lua`, and return what it returns.

        `durable`: raises unless as many replicas have the write as the settings ask for.
        """
        if durable and self._replicas:
            batch = self.batch()
            batch.queue(name, keys, args)
            return batch.execute()[0]
        text, sha = _script(name)
        with self.errors():
            try:
                answer = self.redis.evalsha(sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:  # a server that was just started or promoted
                answer = self.redis.eval(text, len(keys), *keys, *args)
            _raise_refusal(answer)
        return answer

    def write_when_full(self, key: str, *words: Any) -> Any:
        """Run a small command on one key, also where memory is full (`maxmemory` with noeviction).

        Redis then refuses a script whose first write takes memory, but not one whose first write
        takes none. So each script that must go on begins with such a write; `add`, which must not,
        begins with one that takes memory.
        """
        name, *more = words
        with self.errors(), suppress(redis.exceptions.OutOfMemoryError):
            return self.redis.execute_command(name, key, *more)  # type: ignore[no-untyped-call]
        return self.script("write_when_full", [key, nothing(key)], words)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn everything that means «Redis is away or will not write» into StoreUnavailable."""
        try:
            yield
        except ERRORS as error:
            if greets_in_vain(error):
                raise ServerTooOld(f"Redis at {self.where} is older than 6.0; {NEEDED}.") from None
            said = sentence(error, self.where, clustered=self.clustered)
            if said is None:
                raise
            raise StoreUnavailable(said) from None

    def pipeline(self) -> Pipeline:
        """A pipeline without a transaction: one round trip (in a cluster, to each node)."""
        with self.errors():
            return self.redis.pipeline(transaction=False)

    def answers(self, pipe: Pipeline) -> list[Any]:
        """Run a pipeline; where one command failed, its error stands in place of its answer."""
        with self.errors():
            answers = pipe.execute(raise_on_error=False)
            _raise_refusal(answers)
        return answers

    def scripts(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run a script several times, each with its keys and arguments, in one round trip.

        Where one run failed, its error stands in place of its answer.
        """
        if len(calls) == 1:
            try:
                return [self.script(name, *calls[0])]
            except redis.ResponseError as error:
                return [error]
        by_primary: dict[Client, list[int]] = {}
        for number, (keys, _) in enumerate(calls):
            by_primary.setdefault(self.primary(keys[0]), []).append(number)
        answers: dict[int, Any] = {}
        for primary, numbers in by_primary.items():
            pipe = primary.pipeline(transaction=False)
            for number in numbers:
                keys, args = calls[number]
                pipe.eval(script_text(name), len(keys), *keys, *args)
            answers |= zip(numbers, self.answers(pipe), strict=True)
        with self.errors():
            for answer in answers.values():
                _raise_refusal(answer)
        return [answers[number] for number in range(len(calls))]

    def batch(self) -> Batch:
        """Writes that count only when as many replicas have them as the settings ask for."""
        return Batch(self, self._replicas, self._wait)

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
        """The answer of a key's primary about itself.

        None where it forbids the question, as managed servers do.
        """
        with self.errors():
            try:
                return ask(self.primary(key))
            except redis.ResponseError as error:
                if refuses(error) and not isinstance(error, redis.exceptions.NoPermissionError):
                    raise
                return None

    def primary(self, key: str) -> Client:
        """The client of the one server that holds a key."""
        if not self.clustered:
            return self.redis
        cluster = cast(Any, self.redis)
        return cast(Client, cluster.get_redis_connection(cluster.get_node_from_key(key)))

    def with_cluster_retries(self, do: Callable[[], T]) -> T:
        """Do what is sent to primaries directly; in a cluster again if slots moved meanwhile."""
        with self.errors():
            for _ in range(CLUSTER_ATTEMPTS - 1 if self.clustered else 0):
                try:
                    return do()
                except MOVED:
                    cast(Any, self.redis).nodes_manager.initialize()
            return do()


class Batch:
    """Writes in their order: those of one primary go in one round trip, and WAIT goes with them.

    WAIT speaks of the last write on its own connection. That must be a write that always changes
    something: a submit that was not acknowledged and is repeated changes nothing, and its replicas
    must be waited for all the same. So a write of `waited` comes last.
    """

    def __init__(self, connection: Connection, replicas: int, wait: float) -> None:
        """`wait`: seconds for which `replicas` replicas are waited for."""
        self._redis, self._replicas, self._wait = connection, replicas, wait
        self._commands: list[tuple[str, tuple[Any, ...]]] = []

    def command(self, key: str, *words: Any) -> None:
        """Add a command that touches one key."""
        self._commands.append((key, words))

    def queue(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Add a run of `scripts/NAME.lua`, with its text: the server may not know it yet."""
        self.command(keys[0], "EVAL", script_text(name), len(keys), *keys, *args)

    def before_all_else(self) -> None:
        """Write what was added before anything that is added later: at once in a cluster, where a
        batch keeps its order at each primary only.
        """
        if self._redis.clustered:
            self.execute()
            self._commands = []

    def execute(self) -> list[Any]:
        """Write, and return the answers in the order of the commands.

        Raises StoreUnavailable when too few replicas have the writes in time; these may stay.
        """
        return self._redis.with_cluster_retries(self._write)

    def _write(self) -> list[Any]:
        by_primary: dict[Client, list[int]] = {}
        for number, (key, _) in enumerate(self._commands):
            by_primary.setdefault(self._redis.primary(key), []).append(number)
        answers: dict[int, Any] = {}
        for primary, numbers in by_primary.items():
            commands = [self._commands[number] for number in numbers]
            answers |= zip(numbers, self._write_at(primary, commands), strict=True)
        return [answers[number] for number in range(len(self._commands))]

    def _write_at(
        self, primary: Client, commands: Sequence[tuple[str, tuple[Any, ...]]]
    ) -> list[Any]:
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
                f"Redis at {self._redis.where} wrote, "
                f"but only {having} of {self._replicas} replicas have it."
            )
        return answers


def _raise_refusal(answer: Any) -> None:
    """Raise the first error in an answer that is not about one damaged key."""
    for each in answer if isinstance(answer, list) else ():
        if isinstance(each, Exception) and (
            not isinstance(each, redis.ResponseError) or refuses(each)
        ):
            raise each


@cache
def _script(name: str) -> tuple[str, str]:
    """The text of a script, behind those that its header names, and its SHA-1; without comments,
    since batches send it each time.
    """
    folder = files("cavendish").joinpath("store", "scripts")
    text = folder.joinpath(f"{name}.lua").read_text()
    for shared in reversed(" ".join(_WITH.findall(text)).split()):
        text = folder.joinpath("shared", f"{shared}.lua").read_text() + text
    text = _COMMENT.sub("", text)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def script_text(name: str) -> str:
    """The text of `scripts/NAME.lua`."""
    return _script(name)[0]
