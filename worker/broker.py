"""Celery's Redis transport, made so that neither a full Redis nor a stranger's message ends a worker or swallows other messages.

Kombu takes a message out of its queue and then writes down that it did. Where Redis refuses that (`maxmemory`), the message is
gone, and the error ends the worker. Here the few small writes of the transport are done anyway, as the book's are.
Kombu believes that whatever lies in a queue was put there by Kombu; here the rest of an envelope is filled in, or it is refused.
"""

from __future__ import annotations

import base64
import uuid
from queue import Empty
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from scheduler.store.connection import script_text
from scheduler.store.keys import nothing
from worker.logs import logger

#: What the transport writes that takes memory: messages, which of them are being worked on, and which queues there are.
_GROWING = frozenset(("LPUSH", "RPUSH", "SADD", "ZADD", "HSET", "SET"))


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
        except (*self.connection_errors, Empty):  # type: ignore[attr-defined]
            raise
        except Exception as error:  # no JSON, or nested too deep, or marks of a type with anything in them
            logger().error("message.refused", outcome=f"it is no message: {type(error).__name__}: {error}"[:200])
            return True


class _Patient:
    # A refusal is waited out, as an absence is: Celery connects again, and does not end.
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ResponseError)

    def _deliver(self, message: Any, queue: str | None) -> None:
        """Kombu's way from an envelope to a consumer."""
        complaint = complete(message, queue)
        if complaint:
            logger().error("message.refused", queue=queue, outcome=complaint)
        else:
            super()._deliver(message, queue)  # type: ignore[misc]


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


def complete(envelope: Any, queue: str | None) -> str | None:
    """Fill in what an envelope need not say, in place; or say why it is none."""
    if not isinstance(envelope, dict):
        return "no JSON object lies around it"
    if not envelope.get("content-type"):
        envelope |= {"content-type": "application/json", "content-encoding": "utf-8"}  # nothing else is taken
    properties = envelope.setdefault("properties", {})
    if not isinstance(properties, dict):
        return "its properties are no JSON object"
    if not isinstance(properties.get("delivery_tag"), str):
        properties["delivery_tag"] = str(uuid.uuid4())
    info = properties.get("delivery_info")
    if not isinstance(info, dict) or not {"exchange", "routing_key"} <= {name for name in info if isinstance(info[name], str)}:
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}  # it goes back whence it came if its worker dies
    return _body_complaint(envelope.get("body"), properties.get("body_encoding"))


def _body_complaint(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str):
        return "its body is no text"
    if encoding not in (None, "base64"):
        return "its body_encoding is neither base64 nor null"
    try:
        base64.b64decode(body if encoding else "")
    except ValueError:
        return "its body is no base64"
    return None


def _anyway(words: tuple[Any, ...]) -> tuple[Any, ...]:
    if words[0] not in _GROWING:
        return words
    name, key, *more = words
    return ("EVAL", script_text("anyway"), 2, key, nothing(key), name, *more)
