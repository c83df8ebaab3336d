"""Celery's Redis transport, changed so that neither a full Redis nor a bad message ends a worker or
loses other messages.

Kombu takes a message out of its queue, and then writes down that it did. If Redis refuses the write
(`maxmemory`), the message is lost, and the error ends the worker. Here the few small writes of the
transport succeed on a full Redis too, as those of the store do. Kombu also assumes that it wrote
every message itself; here missing parts of an envelope are filled in, or the message is refused.
Between Kombu's two steps, and in an answer that nobody reads, a message is in no key of Redis. That
is no loss for hints; the messages of producers are popped and noted in one step. What becomes of
messages in hand is said in `in_hand.py`.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from queue import Empty
from time import monotonic
from typing import Any

import redis
from kombu import compression
from kombu.transport import TRANSPORT_ALIASES, _transport_cache  # type: ignore[attr-defined]
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads
from redis.commands.core import Script

from cavendish.store import quarantine
from cavendish.store.connection import script_text
from cavendish.store.keys import QUARANTINE, QUARANTINED, UNREADABLE, nothing
from cavendish.store.lean_client import LeanPool
from cavendish.store.redis_clients import PACKING
from cavendish_worker.celeryapp.broker_client import BrokerClient, PrimaryClient
from cavendish_worker.celeryapp.broker_clock import now
from cavendish_worker.celeryapp.envelope import (
    KEPT,
    add_deaths,
    complete,
    deaths_of,
)
from cavendish_worker.celeryapp.in_hand import InHand, queue_of
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

#: The notes of messages of the queue KEPT that were popped and may not be in work yet.
POPPED = f"{KEPT}.popped"
#: SHA-1 of such a message -> how many workers died between its pop and its work.
NOTED_DEATHS = f"{KEPT}.deaths"
#: Seconds after which another worker takes such a message.
_ABANDONED_AFTER = 15
#: Kombu's priorities, the most urgent first. It has a list for some of them only, by an option of
#: its transport that each producer may set otherwise.
PRIORITIES = range(10)
#: Messages that are popped before Celery's other work gets its turn; and seconds until the next
#: look at the queue KEPT, once it was empty.
_AT_ONCE, _LOOKED_FOR = 16, 0.1


class Channel(kombu_redis.Channel):
    """A channel to one Redis."""

    QoS = InHand
    connection: Any
    connection_errors: Any
    keyprefix_fanout: str
    priority_steps: list[int]
    qos: Any
    sep: str
    _queue_cycle: Any
    pool: Any
    _create_client: Callable[[], PrimaryClient]
    _shared: PrimaryClient | None = None
    _kept_last = False
    _looked_at = -math.inf
    #: The message that was just popped, while it has a note, and the deaths that its note counted.
    _noted: tuple[bytes, int] | None = None

    def _get_client(self) -> type[PrimaryClient]:
        return BrokerClient

    def _get_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:  # noqa: FBT001, FBT002 (Kombu's)
        pool = super()._get_pool(asynchronous)  # type: ignore[misc]
        options = PACKING | pool.connection_kwargs
        return LeanPool(pool.connection_class, pool.max_connections, **options)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """One client for all commands but the waits; Kombu makes one for each command."""
        if client is None:
            if self._shared is None or self._shared.connection_pool is not self.pool:
                self._shared = self._create_client()
            client = self._shared
        yield client

    def _connparams(self, *args: Any, **options: Any) -> Any:
        """Kombu closes a channel when its connection is lost. What still wants to use it meets a
        lost connection too; Kombu's own AttributeError ends the worker.
        """
        try:
            return super()._connparams(*args, **options)  # type: ignore[misc]
        except AttributeError:
            if self.connection is not None and self.connection.client is not None:
                raise
            raise redis.ConnectionError(
                "the channel was closed, since its connection was lost"
            ) from None

    def _update_queue_cycle(self) -> None:
        """The queues that Kombu waits for.

        KEPT is not among them: it is popped when that wait ends, at the latest after a second.
        """
        hints = [queue for queue in self.active_queues if queue != KEPT]
        self._queue_cycle.update(hints or [nothing(KEPT)])

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Pop what is there, and then let Kombu wait, which pops hints by itself."""
        looked = monotonic() - self._looked_at < _LOOKED_FOR
        if KEPT in self.active_queues and not looked and self._pop_some():
            # There may be more, but Celery's other work comes first. A command that is answered at
            # once brings Celery's loop back here.
            self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
            self.client.connection.send_command("RPOP", nothing(KEPT))
        elif self.qos.can_consume():
            super()._brpop_start(timeout)  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        """Refuse what Kombu has popped and cannot read, so that it does not block the queue."""
        return self._readable(super()._brpop_read, **options)  # type: ignore[misc]

    def _pop_some(self) -> bool:
        """Pop several messages; true if there may be more."""
        if all(self.qos.can_consume() and self._pop() for _ in range(_AT_ONCE)):
            return True
        self._looked_at = monotonic()
        return False

    def _pop(self) -> bool:
        """Pop one message; false if there is none.

        Kombu itself notices a lost connection, in its own wait: an error raised here would find
        Celery's consumer half started.
        """
        try:
            return self._pop_one()
        except self.connection_errors as error:
            # Kombu's wait may not meet this one, for example no permission for scripts.
            if isinstance(error, redis.ResponseError):
                outcome = f"Redis refuses to give out messages: {error}"[:200]
                logger().error("message.left", outcome=outcome)
            return False

    def _pop_one(self) -> bool:
        """Kept messages and hints take turns, so that neither waits for all of the other."""
        hints = self._queue_cycle.consume(len(self.active_queues))
        turn = [*hints, KEPT] if self._kept_last else [KEPT, *hints]
        lists = [
            (queue, self.list_of(queue, step))
            for step in PRIORITIES
            for queue in turn
            if queue == KEPT or step in self.priority_steps
        ]
        keys = [POPPED, nothing(POPPED), NOTED_DEATHS, *(key for _, key in lists)]
        with self.conn_or_acquire() as client:
            kept = [int(queue == KEPT) for queue, _ in lists]
            popped = self._script(keys, [now(), _ABANDONED_AFTER, *kept], client)
            if popped is None:
                return False
            message, place, deaths = popped
            queue = lists[place - 1][0] if place else KEPT
            self._kept_last = queue == KEPT
            self._queue_cycle.rotate(queue)
            if deaths >= quarantine.MOST_DEATHS:  # reading it may end the process
                self.quarantine_deadly(queue, message, deaths)
                return True
            self._noted = (message, deaths) if queue == KEPT else None
            try:
                if self._readable(lambda: self._hand_over(message, queue, deaths)):
                    self.forget_note()
            finally:  # its note stays if it was left: the message that comes next has none
                self._noted = None
        return True

    def list_of(self, queue: str, step: int) -> str:
        """The list of a priority; Kombu's own method knows no steps but those of this channel."""
        return f"{queue}{self.sep}{step}" if step else queue

    def _hand_over(self, message: bytes, queue: str, deaths: int) -> None:
        self.connection._deliver(add_deaths(loads(message.decode()), deaths), queue)

    def forget_note(self) -> None:
        """Remove the note of the message that was just popped: it is in work, or refused."""
        if self._noted is None:
            return
        (message, deaths), self._noted = self._noted, None
        self.client.zrem(POPPED, message)
        if deaths:
            self.client.hdel(NOTED_DEATHS, hashlib.sha1(message, usedforsecurity=False).hexdigest())

    def quarantine_deadly(self, queue: str, message: bytes, deaths: int) -> None:
        """Quarantine a message that was in hand at so many deaths of a worker, and log it."""
        reason = f"it was in hand when a worker died, {deaths} times"
        name = self._quarantine(QUARANTINE, queue, reason, deaths, message)
        logger().error("message.quarantined", queue=queue, id=name, outcome=reason)

    def refuse(self, queue: str | None, reason: str) -> None:
        """Refuse the message that was just popped: quarantine one of KEPT, drop a hint."""
        if self._noted is None:
            logger().error("message.refused", queue=queue, outcome=reason)
            return
        (message, _), self._noted = self._noted, None
        name = self._quarantine(UNREADABLE, KEPT, reason, 0, message)
        logger().error("message.refused", queue=KEPT, id=name, outcome=reason)

    def refuse_in_hand(self, tag: str, reason: str) -> None:
        """Refuse a message that Celery has in hand; its caller rejects it."""
        message = self.qos.get(tag)
        if (queue := queue_of(message)) != KEPT:
            logger().error("message.refused", queue=queue, outcome=reason)
            return
        name = self._quarantine(UNREADABLE, KEPT, reason, 0, dumps(message._raw).encode())
        logger().error("message.refused", queue=KEPT, id=name, outcome=reason)

    def _quarantine(self, place: str, queue: str, reason: str, deaths: int, message: bytes) -> str:
        """Keep a message where no worker gets it; returns the id under which it is found."""
        name = uuid.uuid4().hex[:12]
        entry = quarantine.entry_of(now(), queue, reason, deaths, message)
        keys = [place, nothing(place), QUARANTINED, POPPED, NOTED_DEATHS]
        keep = Script(self.client, script_text("quarantine_message"))
        keep(keys, [name, entry, message, quarantine.KEPT, quarantine.KEPT_BYTES])
        recorded.MESSAGES_QUARANTINED.add()
        return name

    def _do_restore_message(self, payload: Any, *args: Any, **options: Any) -> None:
        if self.qos.after_death:
            add_deaths(payload, 1)
        super()._do_restore_message(payload, *args, **options)  # type: ignore[misc]

    def _unsubscribe_from(self, queue: str) -> None:
        """Do nothing for a channel that never subscribed.

        Kombu would connect for it, and the worker would end if it cannot.
        """
        if "subclient" in self.__dict__:
            super()._unsubscribe_from(queue)  # type: ignore[misc]

    @cached_property
    def _script(self) -> Script:
        return Script(self.client, script_text("pop"))

    def _readable(self, read: Callable[..., Any], **options: Any) -> bool:
        """True once a message was taken or refused; if memory is short, it is left to others."""
        try:
            read(**options)
        except (*self.connection_errors, Empty):
            raise
        except MemoryError:
            logger().error("message.left", outcome="no memory is left in this process")
            return False
        except Exception as error:  # no JSON, nested too deep, or a broken mark of a type
            self.refuse(None, f"it is no message: {type(error).__name__}: {error}"[:200])
        return True


class _Checking:
    channels: Any
    # When Redis answers with an error, Celery connects again, and does not end.
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ResponseError)

    def _deliver(self, message: Any, queue: str | None) -> None:
        """Check an envelope before Kombu gives it to a consumer."""
        complaint = complete(message, queue)
        deaths = 0 if complaint else deaths_of(message)
        channel = next((one for one in self.channels if queue in one.active_queues), None)
        if channel and complaint:
            channel.refuse(queue, complaint)
        elif complaint:  # an event, or a command of remote control
            logger().error("message.refused", queue=queue, outcome=complaint)
        elif channel and queue and deaths >= quarantine.MOST_DEATHS:
            channel.quarantine_deadly(queue, dumps(message).encode(), deaths)
        else:
            super()._deliver(message, queue)  # type: ignore[misc]


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """A channel to the primary that Sentinel names."""

    _get_pool = kombu_redis.SentinelChannel._get_pool  # type: ignore[attr-defined]

    def _get_client(self) -> type[PrimaryClient]:
        return PrimaryClient


class Transport(_Checking, kombu_redis.Transport):
    """Replaces Kombu's own."""

    Channel = Channel


class SentinelTransport(_Checking, kombu_redis.SentinelTransport):
    """Replaces Kombu's own."""

    Channel = SentinelChannel


def install() -> None:
    """Use these transports for every connection of this process, by the scheme of its URL.

    Celery's pools let Kombu make their connections, so no setting of the app is enough.
    """
    schemes = ("redis", "rediss", "redis+socket")
    TRANSPORT_ALIASES.update(dict.fromkeys(schemes, f"{__name__}:Transport"))
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"
    for scheme in (*schemes, "sentinel"):  # Kombu remembers what it has used before
        _transport_cache.pop(scheme, None)
    # With any broker: a megabyte that inflates to gigabytes would end the process.
    compression._decoders.clear()  # type: ignore[attr-defined]


def missing_right(channel: Any) -> str | None:
    """What Redis refuses to this user of all that a worker does; None if nothing is missing.

    Changes nothing. Raises the errors of redis-py for anything but a missing right.
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
