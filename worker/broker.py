"""Celery's Redis transport, made so that a Redis which is full ends no worker, swallows no message, and lets what is tracked end.

Kombu takes a message out of its queue and then writes down that it did. Where Redis refuses that (`maxmemory`), the message is
gone, and the error ends the worker. Here the few small writes of the transport are done anyway, as the book's are.
Nor does it end where something lies in a queue that is no message at all.
"""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from scheduler.store.connection import script_text
from scheduler.store.keys import nothing
from worker.logs import logger

#: What the transport writes that takes memory: messages, which of them are being worked on, and which queues there are.
_GROWING = frozenset(("LPUSH", "RPUSH", "SADD", "ZADD", "HSET", "SET"))
#: What comes of reading something as a message that is none.
_NO_MESSAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, redis.DataError)


class _Client(redis.Redis):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*_anyway(words), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:  # noqa: FBT001, FBT002, ARG002
        """Without MULTI, but where WATCH asks for it: while memory is full, Redis lets nothing wait for an EXEC."""
        return _Pipeline(self.connection_pool, self.response_callbacks, False, shard_hint)  # noqa: FBT003


class _Pipeline(redis.client.Pipeline):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*_anyway(words), **options)  # type: ignore[no-untyped-call]


class _Channel:
    def _get_client(self) -> type[redis.Redis]:
        return _Client

    def _brpop_read(self, **options: Any) -> Any:
        """Kombu has taken out of the queue what it then cannot read, so nothing holds up what lies behind it."""
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            logger().error("message.refused", outcome=f"{type(error).__name__}: {error}"[:200])
            return True


class _Patient:
    # A refusal is waited out, as an absence is: Celery connects again, and does not end.
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ResponseError)


class Channel(_Channel, kombu_redis.Channel):
    """Of one Redis."""


class SentinelChannel(_Channel, kombu_redis.SentinelChannel):
    """Of the primary that Sentinel names."""


class Transport(_Patient, kombu_redis.Transport):
    """In place of Kombu's own."""

    Channel = Channel


class SentinelTransport(_Patient, kombu_redis.SentinelTransport):
    """In place of Kombu's own."""

    Channel = SentinelChannel


def install() -> None:
    """By their scheme, for every connection of this process: those of Celery's pools are made by Kombu alone."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss", "redis+socket"), f"{__name__}:Transport"))
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"


def _anyway(words: tuple[Any, ...]) -> tuple[Any, ...]:
    if words[0] not in _GROWING:
        return words
    name, key, *more = words
    return ("EVAL", script_text("anyway"), 2, key, nothing(key), name, *more)
