"""A client of one Redis that sends a command in fewer steps than redis-py.

redis-py looks at the socket of a connection before each command, which lets all other threads go
first, and counts and times each command for observers that are not there. That was a fifth of the
CPU of a busy worker. What a command is, how it is packed, parsed, and tried again is redis-py's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

T = TypeVar("T")
#: Seconds for which a connection is taken to live after its last answer. One that has died
#: meanwhile fails at the next command, which is then sent again, as where it dies a moment later.
WARM = 1.0
#: Before 5.3, redis-py wants to know what a connection is for.
_WANTED = () if tuple(map(int, redis.__version__.split(".")[:2])) >= (5, 3) else ("_",)


class LeanPool(redis.ConnectionPool):
    """Lends a connection for one exchange: commands, and all of their answers."""

    #: Connections with the times of their last answers. The pool counts them as lent.
    _warm: list[tuple[Any, float]]

    def reset(self) -> None:
        """Begin anew: redis-py does so at first, and in the child of a fork."""
        self._warm = []
        super().reset()

    def exchange(self, ask: Callable[[Any], T]) -> T:
        """What `ask` returns for a connection; after a lost connection it is asked again.

        After any other error the connection is closed: the next exchange would read the answers
        that this one has left.
        """
        connection, whole = self._lent(), False
        try:
            answer: T = connection.retry.call_with_retry(
                lambda: ask(connection), lambda _: connection.disconnect()
            )
            whole = True
        finally:
            if whole:
                self._warm.append((connection, time.monotonic()))
            else:
                connection.disconnect()
                self.release(connection)
        return answer

    def _lent(self) -> Any:
        while self._warm and self.pid == os.getpid():  # after a fork they belong to the parent
            connection, answered_at = self._warm.pop()
            if time.monotonic() - answered_at < WARM:
                return connection
            self.release(connection)
        return self.get_connection(*_WANTED)


class LeanClient(redis.Redis):
    """Behaves as redis-py's client."""

    connection_pool: LeanPool

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send one command, and return its answer."""
        (answer,) = _exchange(self, [(words, options)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:  # noqa: FBT001, FBT002 (redis-py's)
        """Several commands in one round trip; a transaction is redis-py's own."""
        if transaction:
            return super().pipeline(transaction, shard_hint)
        return _LeanPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)  # noqa: FBT003


class _LeanPipeline(redis.client.Pipeline):
    connection_pool: LeanPool

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 (redis-py's)
        """Send what was added, and return the answers."""
        commands, self.command_stack = self.command_stack, []
        answers = _exchange(self, commands) if commands else []
        if raise_on_error:
            self.raise_first_error(commands, answers)  # type: ignore[no-untyped-call]
        return answers


def _exchange(
    client: LeanClient | _LeanPipeline, commands: Sequence[tuple[Any, dict[str, Any]]]
) -> list[Any]:
    """The answers to commands, each with its options; a refusal stands in place of its answer."""

    def ask(connection: Any) -> list[Any]:
        packed = connection.pack_commands([words for words, _ in commands])
        connection.send_packed_command(packed)
        return [_answer(client, connection, words[0], options) for words, options in commands]

    return client.connection_pool.exchange(ask)


def _answer(client: Any, connection: Any, name: str, options: dict[str, Any]) -> Any:
    try:
        return client.parse_response(connection, name, **options)
    except redis.ResponseError as error:
        return error
