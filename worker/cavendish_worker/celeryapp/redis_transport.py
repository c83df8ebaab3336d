"""Celery's Redis transport, made so that neither a full Redis nor a stranger's message ends a
worker or swallows other messages.

Kombu takes a message out of its queue and then writes down that it did. Where Redis refuses that
(`maxmemory`), the message is gone, and the error ends the worker. Here the few small writes of the
transport are done anyway, as the store's are. Kombu believes that whatever lies in a queue was put
there by Kombu; here the rest of an envelope is filled in, or it is refused. Between Kombu's two
steps, and in an answer that nobody reads any more, a message is nowhere. Most are hints; those that
producers send are not, so they are popped and noted in one step.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import uuid
from collections.abc import Callable
from functools import cached_property
from queue import Empty
from time import monotonic
from typing import Any

import redis
from cavendish.store.quarantine import DEATHS, MOST_DEATHS
from kombu import compression
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads
from redis.commands.core import Script

from cavendish.store import quarantine
from cavendish.store.connection import script_text
from cavendish.store.keys import QUARANTINE, QUARANTINED, nothing
from cavendish.task_names import DELIVER, SUBMIT
from cavendish_worker.celeryapp.broker_clock import now
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

#: What the transport writes that takes memory: messages, which of them are being worked on, and
#: which queues there are.
_GROWING = frozenset(("LPUSH", "RPUSH", "SADD", "ZADD", "HSET", "SET"))

#: The queue of messages that are more than hints, and the notes of those that were popped and may
#: not be written down yet.
KEPT, POPPED = SUBMIT, f"{SUBMIT}.popped"
#: At how many deaths of workers each noted message was in hand before it was written down, by the
#: SHA-1 of its bytes.
NOTED_DEATHS = f"{SUBMIT}.deaths"
#: How a body may be written. Python would inflate one that says `zlib` here, without a limit.
_CHARSETS = frozenset(("utf-8", "ascii", "iso8859-1", "utf-16", "utf-32", "utf-8-sig"))
_BYTES = frozenset(("binary", "ascii-8bit"))
#: Seconds after which another worker takes such a message.
_LEFT_LYING = 15
#: Messages that are taken on before anything else has its turn.
_AT_ONCE = 16


class _Client(redis.Redis):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*_anyway(words), **options)  # type: ignore[no-untyped-call]
        except (
            redis.exceptions.NoPermissionError
        ) as error:  # which says what is refused, but not where
            raise redis.exceptions.NoPermissionError(
                f"{error} ({' '.join(map(str, words[:2]))})"
            ) from None

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:  # noqa: FBT001, FBT002, ARG002
        """Without MULTI, but where WATCH asks for it.

        While memory is full, Redis lets nothing wait for an EXEC.
        """
        return _Pipeline(self.connection_pool, self.response_callbacks, False, shard_hint)  # noqa: FBT003


class _Pipeline(redis.client.Pipeline):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*_anyway(words), **options)  # type: ignore[no-untyped-call]


class QoS(kombu_redis.QoS):
    """What was handed out for too long comes back.

    Whoever had it died with it, and that is counted.
    """

    channel: Any
    after_death = False

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        # Before it is run: what kills this process would otherwise lie in two places.
        self.channel.forget_note()

    def restore_visible(self, *args: Any, **options: Any) -> None:
        self.after_death = True
        try:
            super().restore_visible(*args, **options)
        finally:
            self.after_death = False


class Channel(kombu_redis.Channel):
    """Of one Redis."""

    QoS = QoS
    connection: Any
    connection_errors: Any
    keyprefix_fanout: str
    priority_steps: list[int]
    qos: Any
    _q_for_pri: Callable[[str, int], str]
    _queue_cycle: Any
    _kept_last = False
    #: The message that was just popped, while there is a note of it, and at how many deaths it was
    #: noted.
    _noted: tuple[bytes, int] | None = None

    def _get_client(self) -> type[redis.Redis]:
        return _Client

    def _update_queue_cycle(self) -> None:
        """What Kombu waits for.

        It is told of kept messages when that wait ends, each second at the latest.
        """
        self._queue_cycle.update(
            [queue for queue in self.active_queues if queue != KEPT] or [nothing(KEPT)]
        )

    def _brpop_start(self, timeout: float | None = None) -> None:
        """What is there at once, and then Kombu's wait."""
        if KEPT in self.active_queues and self._pop_some():
            # There may be more, but Celery's other work comes first: an answer that is there at
            # once brings its loop back here.
            self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
            self.client.connection.send_command("RPOP", nothing(KEPT))
        elif self.qos.can_consume():
            super()._brpop_start(timeout)  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        """Kombu has taken out of the queue what it then cannot read, so nothing holds up what lies
        behind it.
        """
        return self._readable(super()._brpop_read, **options)  # type: ignore[misc]

    def _pop_some(self) -> bool:
        """True if more may be there: what is refused uses up no credit."""
        return all(self.qos.can_consume() and self._pop() for _ in range(_AT_ONCE))

    def _pop(self) -> bool:
        """Take one message on. Kept ones and hints take turns, so that neither waits for all of the
        other.

        A lost connection is for Kombu to notice, in its own wait: an error from here finds Celery's
        consumer half started.
        """
        try:
            return self._pop_one()
        except self.connection_errors as error:
            if isinstance(
                error, redis.ResponseError
            ):  # which Kombu's wait may not meet: no permission for scripts, say
                logger().error(
                    "message.left", outcome=f"Redis refuses to give messages out: {error}"[:200]
                )
            return False

    def _pop_one(self) -> bool:
        hints = self._queue_cycle.consume(len(self.active_queues))
        turn = [*hints, KEPT] if self._kept_last else [KEPT, *hints]
        lists = [
            (queue, self._q_for_pri(queue, step)) for step in self.priority_steps for queue in turn
        ]
        keys = [POPPED, nothing(POPPED), NOTED_DEATHS, *(key for _, key in lists)]
        with self.conn_or_acquire() as client:
            popped = self._script(
                keys, [now(), _LEFT_LYING, *(int(queue == KEPT) for queue, _ in lists)], client
            )
            if popped is None:
                return False
            message, place, deaths = popped
            queue = lists[place - 1][0] if place else KEPT
            self._kept_last = queue == KEPT
            self._queue_cycle.rotate(queue)
            if deaths >= MOST_DEATHS:  # perhaps of reading it
                self.quarantine(queue, message, deaths)
                return True
            self._noted = (message, deaths) if queue == KEPT else None
            if self._readable(
                lambda: self.connection._deliver(charged(loads(message.decode()), deaths), queue)
            ):
                self.forget_note()
        return True

    def forget_note(self) -> None:
        """What was just popped is written down elsewhere, or refused."""
        if self._noted is None:
            return
        (message, deaths), self._noted = self._noted, None
        self.client.zrem(POPPED, message)
        if deaths:
            self.client.hdel(NOTED_DEATHS, hashlib.sha1(message, usedforsecurity=False).hexdigest())

    def quarantine(self, queue: str, message: bytes, deaths: int) -> None:
        """Keep a message aside that was in hand at so many deaths of workers, and say so."""
        name, reason = uuid.uuid4().hex[:12], f"it was in hand when a worker died, {deaths} times"
        entry = quarantine.entry_of(now(), queue, reason, deaths, message)
        keys = [QUARANTINE, nothing(QUARANTINE), QUARANTINED, POPPED, NOTED_DEATHS]
        Script(self.client, script_text("quarantine"))(
            keys, [name, entry, message, quarantine.KEPT]
        )
        logger().error("message.quarantined", queue=queue, id=name, outcome=reason)
        recorded.QUARANTINED.add()

    def _do_restore_message(self, payload: Any, *args: Any, **options: Any) -> None:
        if self.qos.after_death and _counts(payload):
            charged(payload, 1)
        super()._do_restore_message(payload, *args, **options)  # type: ignore[misc]

    def _unsubscribe_from(self, queue: str) -> None:
        """A channel that never subscribed has nothing to end.

        Kombu connects for it, and the worker ends if it cannot.
        """
        if "subclient" in self.__dict__:
            super()._unsubscribe_from(queue)  # type: ignore[misc]

    @cached_property
    def _script(self) -> Script:
        return Script(self.client, script_text("pop"))

    def _readable(self, read: Callable[..., Any], **options: Any) -> bool:
        """True once a message was taken or refused.

        One that there is no memory for is left to somebody else.
        """
        try:
            read(**options)
        except (*self.connection_errors, Empty):
            raise
        except MemoryError:
            logger().error("message.left", outcome="no memory is left in this process")
            return False
        except (
            Exception
        ) as error:  # no JSON, or nested too deep, or marks of a type with anything in them
            logger().error(
                "message.refused",
                outcome=f"it is no message: {type(error).__name__}: {error}"[:200],
            )
        return True


class _Patient:
    channels: Any
    # A refusal is waited out, as an absence is: Celery connects again, and does not end.
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ResponseError)

    def _deliver(self, message: Any, queue: str | None) -> None:
        """Kombu's way from an envelope to a consumer."""
        complaint = complete(message, queue)
        deaths = 0 if complaint else _deaths(message)
        if complaint:
            logger().error("message.refused", queue=queue, outcome=complaint)
        elif deaths >= MOST_DEATHS and queue is not None:
            channel = next(one for one in self.channels if queue in one.active_queues)
            channel.quarantine(queue, dumps(message).encode(), deaths)
        else:
            super()._deliver(message, queue)  # type: ignore[misc]


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """Of the primary that Sentinel names."""


class Transport(_Patient, kombu_redis.Transport):
    """In place of Kombu's own."""

    Channel = Channel


class SentinelTransport(_Patient, kombu_redis.SentinelTransport):
    """In place of Kombu's own."""

    Channel = SentinelChannel


def install() -> None:
    """By their scheme, for every connection of this process.

    Those of Celery's pools are made by Kombu alone.
    """
    TRANSPORT_ALIASES.update(
        dict.fromkeys(("redis", "rediss", "redis+socket"), f"{__name__}:Transport")
    )
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"
    compression._decoders.clear()  # type: ignore[attr-defined]  # of whatever broker: a megabyte that inflates to gigabytes ends the process


def missing_right(channel: Any) -> str | None:
    """What the user of this connection is refused of all that a worker does beside its queues; None
    if it may do that.

    Nothing is changed. Raises what Redis' client raises for anything but a refusal.
    """
    if not isinstance(channel, Channel):
        return None
    client, publish = channel.client, channel.keyprefix_fanout
    try:
        client.llen(f"{uuid.uuid4()}.reply.celery.pidbox")
        client.exists("unacked", "unacked_index")
        client.smembers(f"_kombu.binding.{KEPT}")
        with client.pubsub() as listening:
            listening.psubscribe(f"{publish}celery.pidbox")
            listening.parse_response(block=True)
        client.llen(KEPT)
    except redis.exceptions.NoPermissionError as error:
        return str(error)
    return None


def complete(envelope: Any, queue: str | None) -> str | None:
    """Fill in what an envelope need not say, in place; or say why it is none.

    Kombu gives back what a dead worker had by what the envelope says, and forgets what it cannot
    give back. So a kept one goes back whence it came, whatever it says, and has a name of its own
    even if two were sent under one.
    """
    if not isinstance(envelope, dict):
        return "no JSON object lies around it"
    if not envelope.get("content-type"):
        envelope |= {
            "content-type": "application/json",
            "content-encoding": "utf-8",
        }  # nothing else is taken
    properties = envelope.setdefault("properties", {})
    if not isinstance(properties, dict):
        return "its properties are no JSON object"
    if not isinstance(envelope.get("headers"), dict):
        envelope["headers"] = {}
    if inflated := inflates(envelope["headers"], envelope.get("content-encoding")):
        return inflated
    info = properties.get("delivery_info")
    said = (
        {name for name in info if isinstance(info[name], str)} if isinstance(info, dict) else set()
    )
    if queue == KEPT or not {"exchange", "routing_key"} <= said:
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}
    if queue == KEPT or not isinstance(properties.get("delivery_tag"), str):
        properties["delivery_tag"] = str(uuid.uuid4())
    if queue == KEPT:
        properties["priority"] = 0
    return _body_complaint(envelope.get("body"), properties.get("body_encoding"))


def inflates(headers: Any, charset: Any) -> str | None:
    """Why a message would have to be inflated to be read; None if it is plain text."""
    if isinstance(headers, dict) and headers.get("compression"):
        return "it is compressed, and nothing is inflated here"
    if charset is None or charset in _BYTES:
        return None
    try:
        known = isinstance(charset, str) and codecs.lookup(charset).name in _CHARSETS
    except (LookupError, ValueError):
        known = False
    return (
        None
        if known
        else f"its content-encoding is no charset that is taken: {str(charset)[:40]!r}"
    )


def charged(envelope: Any, deaths: int) -> Any:
    """An envelope with so many deaths more, in place; what is none stays as it is."""
    if deaths and isinstance(envelope, dict):
        if not isinstance(envelope.get("headers"), dict):
            envelope["headers"] = {}
        envelope["headers"][DEATHS] = _deaths(envelope) + deaths
    return envelope


def _deaths(envelope: dict[str, Any]) -> int:
    said = envelope["headers"].get(DEATHS)
    return said if isinstance(said, int) and said > 0 else 0


def _counts(envelope: Any) -> bool:
    """A round of deliveries may last for longer than a message may be in hand, and nobody died
    then.
    """
    headers = envelope.get("headers") if isinstance(envelope, dict) else None
    return isinstance(headers, dict) and headers.get("task") != DELIVER


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
    return ("EVAL", script_text("write_when_full"), 2, key, nothing(key), name, *more)
